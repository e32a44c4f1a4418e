//! A comparison as a page of text; its JSON is the value itself.
//!
//! The verdict first, then what decided it with every phase as a dot, then what
//! else moved, and what the phases were like. It judges nothing.

mod strip;

use crate::analysis::compare::words::{self, number};
use crate::analysis::compare::{Compared, Comparison, Design, Finding, PhaseReport, Role, Verdict};
use crate::analysis::metric::Better;
use crate::render::line::{Block, Line, Tone, stacked, wrapped};
use crate::units;

/// All of it, below one another.
#[must_use]
pub fn text(comparison: &Comparison, width: usize) -> Vec<Line> {
    let mut blocks = vec![
        head(comparison, width),
        how(comparison, width),
        decides(comparison, width),
    ];
    blocks.extend(also_moved(comparison, width));
    blocks.push(phases(comparison, width));
    stacked(blocks, width, None)
}

fn head(comparison: &Comparison, width: usize) -> Block {
    let tone = match comparison.verdict {
        Verdict::Better | Verdict::Unchanged => Tone::Good,
        Verdict::Worse => Tone::Bad,
        Verdict::Changed => Tone::Strong,
        Verdict::Undecided => Tone::Warn,
    };
    let mut lines = wrapped(tone, &words::headline(comparison), width, 0);
    for why in &comparison.withheld {
        lines.extend(wrapped(Tone::Warn, why, width, 0));
    }
    for note in &comparison.notes {
        lines.extend(wrapped(Tone::Plain, note, width, 0));
    }
    Block::new("verdict", lines)
}

/// Changed sysctls that are shown; `--json` has them all.
const CHANGES: usize = 40;

/// What was changed, and how it was tried.
fn how(comparison: &Comparison, width: usize) -> Block {
    let mut lines = Vec::new();
    for change in comparison.sysctls_changed.iter().take(CHANGES) {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        let place = match (&change.name, change.netns) {
            (Some(name), _) => format!(" (namespace {name})"),
            (None, Some(inode)) => format!(" (namespace {inode})"),
            (None, None) => String::new(),
        };
        lines.extend(wrapped(
            Tone::Strong,
            &format!(
                "{}: {} -> {}{place}",
                change.key,
                value(&change.before),
                value(&change.after)
            ),
            width,
            2,
        ));
    }
    let more = comparison.sysctls_changed.len().saturating_sub(CHANGES);
    if more > 0 {
        let more = format!("and {} more; --json has them", units::count(more as u64));
        lines.push(Line::of(Tone::Faint, more));
    }
    lines.extend(wrapped(Tone::Faint, &design(&comparison.design), width, 2));
    Block::new("design", lines)
}

fn design(design: &Design) -> String {
    match design {
        Design::Pairs {
            pairs,
            measured_s,
            settle_s,
            order,
            seed,
        } => format!(
            "{} of one phase before (A) and one changed (B), {} each, {} of settling after a \
             switch; order by lot, seed {seed}: {order}",
            units::counted(*pairs as u64, "pair", "pairs"),
            units::edge(*measured_s),
            units::edge(*settle_s)
        ),
        Design::Parallel {
            replicas,
            changed,
            measured_s,
            settle_s,
            order,
            seed,
            noise,
        } => {
            let noise = noise.map_or_else(String::new, |noise| {
                format!(
                    "; replicas of one setting differ by {} % in connections a second",
                    number(100.0 * noise)
                )
            });
            format!(
                "{replicas} replicas side by side, {changed} of them changed (B) by lot, seed \
                 {seed}: {order}; {} each after {} of settling{noise}",
                units::edge(*measured_s),
                units::edge(*settle_s)
            )
        }
        Design::Switch {
            placebos,
            measured_s,
            settle_s,
        } => format!(
            "Before and after, not a controlled comparison: {} on each side, {} of settling \
             between them, held against {} from before the change.",
            units::edge(*measured_s),
            units::edge(*settle_s),
            units::counted(
                *placebos as u64,
                "placebo difference",
                "placebo differences"
            )
        ),
    }
}

fn decides(comparison: &Comparison, width: usize) -> Block {
    let told: Vec<&Compared> = comparison.of_role(Role::Primary).collect();
    let mut lines = vec![Line::of(
        Tone::Strong,
        "What decides, chosen before anything was measured",
    )];
    for metric in told {
        lines.extend(row(metric, width));
        lines.extend(strip::of(metric, &comparison.design, width));
    }
    Block::new("what decides", lines)
}

fn also_moved(comparison: &Comparison, width: usize) -> Option<Block> {
    let others: Vec<&Compared> = comparison.of_role(Role::Secondary).collect();
    if others.is_empty() {
        return None;
    }
    let moved = |metric: &&&Compared| matches!(metric.verdict, Finding::Lower | Finding::Higher);
    let mut lines = vec![Line::of(Tone::Strong, "Also moved, which decides nothing")];
    for metric in others.iter().filter(moved) {
        lines.extend(row(metric, width));
    }
    if lines.len() == 1 {
        lines.push(Line::of(Tone::Faint, "  nothing else"));
    }
    let still: Vec<&str> = others
        .iter()
        .filter(|metric| !moved(metric))
        .map(|metric| metric.name.as_str())
        .collect();
    if !still.is_empty() {
        let text = format!("not seen to move: {}", still.join(", "));
        lines.extend(indented(Tone::Faint, &text, width, 2));
    }
    Some(Block::new("also moved", lines))
}

/// Words that all begin behind so many blanks.
fn indented(tone: Tone, text: &str, width: usize, blanks: usize) -> Vec<Line> {
    wrapped(tone, text, width.saturating_sub(blanks), 0)
        .into_iter()
        .map(|line| Line::of(Tone::Plain, " ".repeat(blanks)).joined(line))
        .collect()
}

/// Name, both values, and the finding.
fn row(metric: &Compared, width: usize) -> Vec<Line> {
    let values = match (metric.before, metric.after) {
        (Some(before), Some(after)) => format!(
            "{} -> {}",
            value(before, metric.unit),
            value(after, metric.unit)
        ),
        _ => String::new(),
    };
    let line = Line::of(Tone::Plain, format!("  {:<42} {values}", metric.name));
    let mut lines = vec![line.cut(width)];
    lines.extend(indented(tone(metric), &metric.words, width, 4));
    lines
}

fn tone(metric: &Compared) -> Tone {
    match (metric.verdict, metric.better) {
        (Finding::Higher, Better::Higher) | (Finding::Lower, Better::Lower) => Tone::Good,
        (Finding::Higher, Better::Lower) | (Finding::Lower, Better::Higher) => Tone::Bad,
        (Finding::Higher | Finding::Lower, Better::Neither) => Tone::Strong,
        (Finding::Undecided | Finding::NotComparable, _) => Tone::Warn,
        (Finding::Unchanged | Finding::TooSmallToMatter, _) => Tone::Plain,
    }
}

/// A value with its unit.
fn value(value: f64, unit: &str) -> String {
    match unit {
        "s" => units::seconds(value),
        "1/s" => format!("{} /s", units::rate(value)),
        "share" => units::percent(value),
        "1/1000" => format!("{} in 1,000", number(value)),
        "sockets" => units::rate(value),
        _ => number(value),
    }
}

/// The load that each phase had, and whether its figures agree with others'.
fn phases(comparison: &Comparison, width: usize) -> Block {
    let mut lines = vec![Line::of(Tone::Strong, "The phases")];
    let mut told = |name: &str, changed: bool, of: &dyn Fn(&PhaseReport) -> Option<f64>| {
        let values: Vec<String> = comparison
            .phases
            .iter()
            .filter(|phase| phase.changed == changed)
            .map(|phase| of(phase).map_or_else(|| "-".to_owned(), units::rate))
            .collect();
        let arm = if changed { "after" } else { "before" };
        let name = Line::of(Tone::Plain, format!("  {name:<14}{arm:<7}"));
        let blanks = Line::of(Tone::Plain, " ".repeat(name.width()));
        let left = width.saturating_sub(name.width());
        let rows = wrapped(Tone::Plain, &values.join(" "), left, 0);
        let before = std::iter::once(name).chain(std::iter::repeat(blanks));
        lines.extend(before.zip(rows).map(|(before, row)| before.joined(row)));
    };
    for changed in [false, true] {
        told("connections/s", changed, &|phase| phase.connections_per_s);
    }
    for changed in [false, true] {
        told("TIME_WAITs", changed, &|phase| phase.time_wait_live_mean);
    }
    lines.extend(indented(Tone::Faint, &checks(&comparison.phases), width, 2));
    Block::new("phases", lines)
}

fn checks(phases: &[PhaseReport]) -> String {
    let mut counted: Vec<(&str, usize, usize)> = Vec::new();
    for check in phases.iter().flat_map(|phase| &phase.checks) {
        let place = counted.iter().position(|(name, ..)| *name == check.name);
        let place = place.unwrap_or_else(|| {
            counted.push((check.name, 0, 0));
            counted.len() - 1
        });
        counted[place].1 += usize::from(check.agrees);
        counted[place].2 += 1;
    }
    if counted.is_empty() {
        return "Nothing to check these figures against.".to_owned();
    }
    let told: Vec<String> = counted
        .iter()
        .map(|(name, agree, of)| format!("{name} agree in {agree} of {of}"))
        .collect();
    format!("Checks: {}.", told.join("; "))
}
