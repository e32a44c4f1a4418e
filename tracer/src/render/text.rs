//! The tables of `twtrace live`, made from a snapshot alone.
//!
//! A page is a list of blocks, the most important first: what hurts, the
//! states, the lives, the ends, then who and where. How many fit a screen, and
//! what goes beside what, is [`super::line`]'s affair and [`screen`]'s.

mod facts;
mod listeners;
mod lives;
mod states;
mod tables;
mod troubles;

use crate::analysis::findings::Judged;
use crate::model::snapshot::{Distribution, Exactness, Lost, Snapshot, States, Summary};
use crate::model::state_set::StateSet;
use crate::render::findings;
use crate::render::line::{Block, Line, Tone, listed, wrapped};
use crate::units;

/// Cells between two blocks side by side.
const GAP: usize = 3;

/// A run shorter than this was mostly busy with reading what there was: what
/// happened meanwhile gives no rate, and no life.
const TOO_SHORT_S: f64 = 0.5;

/// What has to be known of the snapshot before to show rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Earlier {
    states: States,
    elapsed_s: f64,
}

impl Earlier {
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Earlier {
        Earlier {
            states: snapshot.states,
            elapsed_s: snapshot.elapsed_s,
        }
    }
}

/// All blocks, below one another.
#[must_use]
pub fn plain(
    judged: &Judged<'_>,
    earlier: Option<&Earlier>,
    shown: StateSet,
    width: usize,
) -> Vec<Block> {
    let snapshot = judged.snapshot;
    let mut blocks = vec![
        head(judged, width),
        states::block(snapshot, earlier, shown, width),
        lives::block(snapshot, width),
    ];
    blocks.extend(facts::blocks(snapshot, width));
    blocks.extend(troubles::failures(snapshot, width));
    blocks.extend(troubles::held(snapshot, width));
    blocks.extend(listeners::block(snapshot, width));
    blocks.extend(tables::ports(snapshot, width));
    blocks.extend(tables::owners(snapshot, width));
    blocks.extend(tables::remotes(snapshot));
    blocks.extend(tables::namespaces(snapshot, width));
    blocks.extend(tables::other_lives(snapshot));
    blocks
}

/// The same for a terminal: side by side where the width allows it.
#[must_use]
pub fn screen(
    judged: &Judged<'_>,
    earlier: Option<&Earlier>,
    shown: StateSet,
    width: usize,
) -> Vec<Block> {
    let snapshot = judged.snapshot;
    let states = states::narrow_block(snapshot, earlier, shown);
    let left = width.saturating_sub(states.width() + GAP);
    let counts = if left >= lives::NARROWEST {
        vec![states.beside(lives::block(snapshot, left), GAP)]
    } else {
        vec![states, lives::block(snapshot, width)]
    };
    let mut blocks = vec![head(judged, width)];
    blocks.extend(counts);
    blocks.extend(facts::blocks(snapshot, width));
    blocks.extend(troubles::failures(snapshot, width));
    blocks.extend(troubles::held(snapshot, width));
    blocks.extend(listeners::block(snapshot, width));
    blocks.extend(tables::ports(snapshot, width));
    blocks.extend(tables::owners(snapshot, width));
    blocks.extend(side_by_side(
        tables::remotes(snapshot),
        tables::other_lives(snapshot),
        width,
    ));
    blocks.extend(tables::namespaces(snapshot, width));
    blocks
}

fn side_by_side(left: Option<Block>, right: Option<Block>, width: usize) -> Vec<Block> {
    match (left, right) {
        (Some(left), Some(right)) if left.width() + GAP + right.width() <= width => {
            vec![left.beside(right, GAP)]
        }
        (left, right) => left.into_iter().chain(right).collect(),
    }
}

/// What is wrong, what to do, and whether the numbers can be trusted.
fn head(judged: &Judged<'_>, width: usize) -> Block {
    let snapshot = judged.snapshot;
    let mut lines = findings::lines(judged, width);
    lines.extend(doubts(snapshot, width));
    lines.extend(listed(Tone::Faint, &about(snapshot), width));
    Block::new("summary", lines)
}

/// Host, time and scope: quiet, for the log and the screenshot.
fn about(snapshot: &Snapshot) -> Vec<String> {
    let mut parts = Vec::new();
    if snapshot.exactness == Exactness::Exact && total(&snapshot.lost) == 0 {
        parts.push("exact, nothing lost".to_owned());
    }
    parts.extend([
        snapshot.host.name.clone(),
        snapshot.host.kernel.clone(),
        format!("{:.0}", snapshot.time),
        format!("after {}", units::roughly(snapshot.elapsed_s)),
    ]);
    if snapshot.scope.netns != "all" {
        parts.push(format!("netns {}", snapshot.scope.netns));
    }
    if !snapshot.scope.filter.is_empty() {
        parts.push(format!("only {}", snapshot.scope.filter));
    }
    parts
}

/// What was lost and what that means for the counts; nothing where all is well.
fn doubts(snapshot: &Snapshot, width: usize) -> Vec<Line> {
    let lost = total(&snapshot.lost);
    let (tone, text) = match (snapshot.exactness, lost) {
        (Exactness::Exact, 0) => return Vec::new(),
        (Exactness::Exact, _) => (
            Tone::Plain,
            format!(
                "Counts are exact: {} lost ({}), put right from the kernel by {}; lives and ends of the \
                 lost are missing.",
                units::counted(lost, "event", "events"),
                causes(&snapshot.lost),
                units::counted(snapshot.resyncs, "resync", "resyncs")
            ),
        ),
        (Exactness::Approximate, 0) => (
            Tone::Warn,
            "Counts are approximate (~) until they have been compared with the kernel.".to_owned(),
        ),
        (Exactness::Approximate, _) => (
            Tone::Warn,
            format!(
                "Counts are approximate (~): {} lost ({}); they are being put right from the kernel.",
                units::counted(lost, "event", "events"),
                causes(&snapshot.lost)
            ),
        ),
    };
    wrapped(tone, &text, width, 0)
}

fn total(lost: &Lost) -> u64 {
    lost.ring + lost.map + lost.recursion + lost.unseen
}

/// `ring 10, recursion 2`: the causes by which something was lost.
pub(super) fn causes(lost: &Lost) -> String {
    let causes = [
        ("ring buffer full", lost.ring),
        ("map full", lost.map),
        ("program run skipped", lost.recursion),
        ("unseen", lost.unseen),
    ];
    named_counts(&causes)
}

/// Of fewer values than these, a quantile is one of them by chance.
const QUANTILES_FROM: u64 = 10;
const P99_FROM: u64 = 100;

/// `None` where there are too few values.
fn quantile(distribution: &Distribution, name: &str) -> Option<f64> {
    let Summary {
        min,
        p50,
        p90,
        p99,
        max,
        ..
    } = distribution.summary?;
    let (from, value) = match name {
        "min" => (1, min),
        "p50" => (QUANTILES_FROM, p50),
        "p90" => (QUANTILES_FROM, p90),
        "p99" => (P99_FROM, p99),
        "max" => (1, max),
        _ => return None,
    };
    (distribution.count >= from).then_some(value)
}

/// `p50 121 µs, max 1.03 s`: those of these names that can be told; `None` without a value.
fn quantiles(distribution: &Distribution, names: &[&str]) -> Option<String> {
    distribution.summary?;
    let told: Vec<String> = names
        .iter()
        .filter_map(|name| {
            let value = quantile(distribution, name)?;
            Some(format!("{name} {}", units::seconds(value)))
        })
        .collect();
    Some(told.join(", "))
}

/// Those that are not zero, `, ` between them.
fn named_counts(counts: &[(&str, u64)]) -> String {
    let named: Vec<String> = counts
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {}", units::count(*n)))
        .collect();
    named.join(", ")
}
