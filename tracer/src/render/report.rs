//! A recording as a whole: the tables of `live` for all of it, its course, and
//! what was changed meanwhile.

use serde::Serialize;

use crate::analysis::findings::Judged;
use crate::model::state_set::StateSet;
use crate::recording::{End, Ended, Header, Row, SysctlChange, Torn};
use crate::render::line::{Block, Line, Tone, wrapped};
use crate::render::text;
use crate::units;

/// What a report is made from.
#[derive(Debug)]
pub struct Report<'a> {
    pub header: &'a Header,
    pub frames: u64,
    /// Of the whole run.
    pub judged: Judged<'a>,
    pub course: &'a [Row],
    pub changes: &'a [SysctlChange],
    pub end: Option<&'a End>,
    pub torn: Option<&'a Torn>,
}

/// All blocks, below one another.
#[must_use]
pub fn plain(report: &Report<'_>, shown: StateSet, width: usize) -> Vec<Block> {
    let mut blocks = vec![about(report, width)];
    blocks.extend(text::plain(&report.judged, None, shown, width));
    blocks.extend(course(report.course));
    blocks.extend(changes(report.changes, width));
    blocks
}

/// What was recorded, and how that ended.
fn about(report: &Report<'_>, width: usize) -> Block {
    let began = format!(
        "Recorded from {:.0} on, {}",
        report.header.time,
        units::counted(report.frames, "frame", "frames")
    );
    let mut lines = match (ended(report), report.end) {
        (Some(ended), Some(_)) => wrapped(Tone::Plain, &format!("{began}; {ended}."), width, 0),
        (_, _) => wrapped(Tone::Plain, &format!("{began}."), width, 0),
    };
    if let Some(torn) = report.torn {
        lines.extend(wrapped(
            Tone::Warn,
            &format!("The file is not whole: {torn}."),
            width,
            0,
        ));
    }
    if report.end.is_none() {
        let missing = "The recording has no end: it goes on, or was broken off. Owners, remote \
                       hosts, namespaces and the time in other states are told at the end, and \
                       missing here.";
        lines.extend(wrapped(Tone::Warn, missing, width, 0));
    }
    Block::new("recording", lines)
}

fn ended(report: &Report<'_>) -> Option<String> {
    let end = report.end?;
    let why = match end.ended {
        Ended::Duration => "its time was over",
        Ended::Command => "its command had ended",
        Ended::Signal => "it was interrupted",
        Ended::Namespace => "its network namespace had ended",
        Ended::Enough => "no more was wanted",
    };
    let command = report.header.command.as_ref().map(|words| words.join(" "));
    Some(match (command, &end.command_status) {
        (Some(command), Some(status)) => {
            format!("{why}: {command} ended with {status}")
        }
        _ => why.to_owned(),
    })
}

fn course(rows: &[Row]) -> Option<Block> {
    // One row would say what the tables say.
    if rows.len() < 2 {
        return None;
    }
    let heading = format!(
        "{:<12}{:>11}{:>11}{:>9}{:>10}{:>13}{:>8}",
        "COURSE", "TIME_WAIT", "ENTERED/s", "EARLY", "OPENED/s", "CONNECT p50", "FAILED"
    );
    let lost = rows.iter().any(|row| row.lost > 0);
    let fine = rows.iter().any(|row| row.interval_s < 0.9);
    let heading = if lost {
        format!("{heading}{:>6}", "LOST")
    } else {
        heading
    };
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    for row in rows {
        let per_s = |n: i64| units::rate(unsigned(n) as f64 / row.interval_s.max(0.001));
        let p50 = row.connect_latency.quantile_s(0.5);
        let mut line = Line::of(
            Tone::Plain,
            format!(
                "{:<12}{:>11}{:>11}{:>9}{:>10}{:>13}",
                format!("to {}", until(row.until_s, fine)),
                units::count(row.time_waits),
                per_s(row.entered),
                units::count(unsigned(row.early)),
                per_s(row.opened),
                p50.map_or_else(|| "-".to_owned(), units::seconds),
            ),
        );
        let failed = unsigned(row.failed);
        let tone = if failed > 0 { Tone::Warn } else { Tone::Plain };
        line.push(tone, format!("{:>8}", units::count(failed)));
        if lost {
            let lost = unsigned(row.lost);
            let tone = if lost > 0 { Tone::Warn } else { Tone::Plain };
            line.push(tone, format!("{:>6}", units::count(lost)));
        }
        lines.push(line);
    }
    Some(Block::new("course", lines))
}

/// When a row ends; tenths of a second where rows are shorter than one.
fn until(s: f64, fine: bool) -> String {
    if fine && s < 120.0 {
        units::edge((s * 10.0).round() / 10.0)
    } else {
        units::roughly(s)
    }
}

/// Changes that are shown; `--json` has them all.
const CHANGES: usize = 100;

fn changes(changes: &[SysctlChange], width: usize) -> Option<Block> {
    if changes.is_empty() {
        return None;
    }
    let mut lines = vec![Line::of(Tone::Strong, "SET MEANWHILE")];
    for change in changes.iter().take(CHANGES) {
        let place = match &change.name {
            Some(name) => name.clone(),
            None => change.netns.to_string(),
        };
        let text = format!(
            "after {} in netns {place}: {} {} -> {}",
            units::seconds(change.elapsed_s),
            change.key,
            change.before,
            change.after
        );
        lines.extend(wrapped(Tone::Plain, &text, width, 2));
    }
    if changes.len() > CHANGES {
        let more = units::count((changes.len() - CHANGES) as u64);
        let text = format!("and {more} more; --json has them");
        lines.push(Line::of(Tone::Faint, text));
    }
    Some(Block::new("changes", lines))
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// `twtrace.snapshot/1` of the whole run, and what else the recording tells.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    #[serde(flatten)]
    judged: Judged<'a>,
    recording: About<'a>,
}

#[derive(Debug, Serialize)]
struct About<'a> {
    began: jiff::Timestamp,
    frames: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_status: Option<&'a str>,
    /// Why reading stopped before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<String>,
    sysctls_changed: &'a [SysctlChange],
}

#[must_use]
pub fn json<'a>(report: &Report<'a>) -> Json<'a> {
    Json {
        judged: report.judged,
        recording: About {
            began: report.header.time,
            frames: report.frames,
            ended: report.end.map(|end| end.ended),
            command: report.header.command.as_deref(),
            command_status: report.end.and_then(|end| end.command_status.as_deref()),
            torn: report.torn.map(ToString::to_string),
            sysctls_changed: report.changes,
        },
    }
}
