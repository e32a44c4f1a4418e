//! The table of the ten states: how many there are now, and how fast they come
//! and go.

use super::{Earlier, TOO_SHORT_S};
use crate::model::event::State;
use crate::model::snapshot::{Count, Exactness, Snapshot};
use crate::model::state_set::StateSet;
use crate::render::line::{Block, Line, Tone};
use crate::units;

/// With the counts since the start, where `width` allows.
pub(super) fn block(
    snapshot: &Snapshot,
    earlier: Option<&Earlier>,
    shown: StateSet,
    width: usize,
) -> Block {
    table(snapshot, earlier, shown, width >= 80)
}

/// Now and rates only.
pub(super) fn narrow_block(
    snapshot: &Snapshot,
    earlier: Option<&Earlier>,
    shown: StateSet,
) -> Block {
    table(snapshot, earlier, shown, false)
}

fn table(snapshot: &Snapshot, earlier: Option<&Earlier>, shown: StateSet, sums: bool) -> Block {
    let mut heading = format!(
        "{:<11} {:>9} {:>10} {:>9}",
        "STATE", "NOW", "ENTERED/s", "LEFT/s"
    );
    if sums {
        heading += &format!("  {:>12} {:>12} {:>9}", "ENTERED", "LEFT", "SEEDED");
    }
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    for (state, count) in snapshot
        .states
        .iter()
        .filter(|(state, _)| shown.contains(*state))
    {
        lines.push(row(snapshot, earlier, state, count, sums));
    }
    Block::new("states", lines)
}

fn row(
    snapshot: &Snapshot,
    earlier: Option<&Earlier>,
    state: State,
    count: &Count,
    sums: bool,
) -> Line {
    let before = earlier
        .and_then(|earlier| earlier.states.get(state))
        .copied()
        .unwrap_or_default();
    let time_s = snapshot.elapsed_s - earlier.map_or(0.0, |earlier| earlier.elapsed_s);
    let shortest_s = if earlier.is_some() { 0.0 } else { TOO_SHORT_S };
    let per_s = |now: u64, before: u64| {
        if time_s > shortest_s {
            units::rate(now.saturating_sub(before) as f64 / time_s)
        } else {
            "-".to_owned()
        }
    };
    let mark = if snapshot.exactness == Exactness::Approximate {
        "~"
    } else {
        ""
    };
    let now = format!("{mark}{}", units::count(count.now));
    let quiet = count.now == 0 && count.entered == before.entered && count.left == before.left;
    let tone = match state {
        _ if quiet => Tone::Faint,
        State::TimeWait => Tone::Strong,
        _ => Tone::Plain,
    };
    let mut text = format!(
        "{:<11} {now:>9} {:>10} {:>9}",
        state.name(),
        per_s(count.entered, before.entered),
        per_s(count.left, before.left)
    );
    if sums {
        text += &format!(
            "  {:>12} {:>12} {:>9}",
            units::count(count.entered),
            units::count(count.left),
            units::count(count.seeded)
        );
    }
    Line::of(tone, text)
}
