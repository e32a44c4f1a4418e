//! Connects that fail, by destination and kind, and what waits for its own program to
//! be closed.

use crate::model::snapshot::{ConnectFailures, Connects, Holder, Snapshot};
use crate::model::stock::Held;
use crate::render::line::{Block, Line, Tone};
use crate::units::{count, endpoint, pid, roughly, shortened};

const ROWS: usize = 5;

/// `None` where none failed lately.
pub(super) fn failures(snapshot: &Snapshot, width: usize) -> Option<Block> {
    let failing = |connects: &&Connects| connects.failed.sum() + late(connects) > 0;
    let failing: Vec<&Connects> = snapshot.connects.iter().filter(failing).collect();
    let first = failing.first()?;
    let name = 28;
    let mut lines = vec![Line::of(
        Tone::Strong,
        format!(
            "{:<name$}{:>8}  WHY, IN THE LAST {}",
            "CONNECTS FAIL TO",
            "FAILED",
            roughly(first.window_s)
        ),
    )];
    for connects in failing.iter().take(ROWS) {
        let to = endpoint(connects.remote.to_canonical(), connects.remote_port);
        let why = why(connects);
        let text = format!(
            "{:<name$}{:>8}  {}",
            shortened(&to, name - 1),
            count(connects.failed.sum()),
            shortened(&why, width.saturating_sub(name + 10).max(20)),
        );
        lines.push(Line::of(Tone::Warn, text));
    }
    lines.extend(more(failing.len(), "destinations"));
    Some(Block::new("failures", lines))
}

fn late(connects: &Connects) -> u64 {
    connects.late_1s + connects.late_3s + connects.late_7s
}

fn why(connects: &Connects) -> String {
    let ConnectFailures {
        ports_exhausted,
        refused,
        timed_out,
        abandoned,
        unreachable,
        address_in_use,
        other,
    } = connects.failed;
    let kinds = [
        ("no free port", ports_exhausted),
        ("refused", refused),
        ("timed out", timed_out),
        ("abandoned", abandoned),
        ("unreachable", unreachable),
        ("address in use", address_in_use),
        ("other", other),
        ("SYN lost", late(connects)),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(kind, n)| format!("{kind} {}", count(*n)))
        .collect();
    let by = connects
        .failing
        .as_ref()
        .map_or(String::new(), |holder| format!(" ({})", who(holder)));
    kinds.join(", ") + &by
}

/// `None` where nothing has waited for ten seconds.
pub(super) fn held(snapshot: &Snapshot, width: usize) -> Option<Block> {
    let held = &snapshot.stock.as_ref()?.held;
    let long: Vec<&Held> = held.iter().filter(|held| held.over_10s > 0).collect();
    if long.is_empty() {
        return None;
    }
    let place = 28;
    let mut lines = vec![Line::of(
        Tone::Strong,
        format!(
            "{:<12}{:<place$}{:>8}{:>10}  HELD BY",
            "NOT CLOSED", "WHERE", "NOW", "OLDEST"
        ),
    )];
    for held in long.iter().take(ROWS) {
        let at = match (held.listening_port, held.remote, held.remote_port) {
            (Some(port), ..) => format!("port {port}"),
            (None, Some(remote), Some(port)) => format!("to {}", endpoint(remote, port)),
            _ => "-".to_owned(),
        };
        let by = held.holder.as_ref().map_or("-".to_owned(), who);
        let text = format!(
            "{:<12}{:<place$}{:>8}{:>10}  {}",
            held.state,
            shortened(&at, place - 1),
            count(held.now),
            roughly(held.oldest_s),
            shortened(&by, width.saturating_sub(place + 32).max(12)),
        );
        lines.push(Line::of(Tone::Plain, text));
    }
    lines.extend(more(long.len(), "of these"));
    Some(Block::new("held", lines))
}

fn who(holder: &Holder) -> String {
    format!("{}, pid {}", holder.comm, pid(holder.pid))
}

fn more(rows: usize, what: &str) -> Option<Line> {
    let more = rows.saturating_sub(ROWS);
    (more > 0).then(|| Line::of(Tone::Faint, format!("{more} more {what} not shown")))
}
