//! Listeners by port: their queues, what they dropped, and their connections.

use std::collections::BTreeSet;

use crate::model::snapshot::Snapshot;
use crate::model::stock::Listening;
use crate::render::line::{Block, Line, Tone};
use crate::units::{count, endpoint, shortened};

const ROWS: usize = 5;

/// `None` where there are none with anything to tell.
pub(super) fn block(snapshot: &Snapshot, width: usize) -> Option<Block> {
    let listeners = &snapshot.stock.as_ref()?.listeners;
    let telling = |listener: &&Listening| {
        listener.dropped > 0
            || listener.accept_queue > 0
            || listener.half_open > 0
            || !listener.states.is_empty()
    };
    let mut telling: Vec<&Listening> = listeners.iter().filter(telling).collect();
    // Listeners that share a port (SO_REUSEPORT) share its connections: the worst
    // stands for all.
    let mut shown = BTreeSet::new();
    telling.retain(|of| shown.insert((of.netns, of.local, of.port)));
    if telling.is_empty() {
        return None;
    }
    let name = width
        .saturating_sub(10 + 12 + 10 + 12 + 11 + 11)
        .clamp(12, 40);
    let row = |cells: [&str; 7]| {
        let [at, queue, dropped, half_open, open, close_wait, time_wait] = cells;
        format!(
            "{at:<name$}{queue:>10}{dropped:>10}{half_open:>10}{open:>12}{close_wait:>11}{time_wait:>10}"
        )
    };
    let mut lines = vec![Line::of(
        Tone::Strong,
        row([
            "LISTENING ON",
            "QUEUE",
            "DROPPED",
            "HALF-OPEN",
            "ESTABLISHED",
            "CLOSE_WAIT",
            "TIME_WAIT",
        ]),
    )];
    for listener in telling.iter().take(ROWS) {
        let now = |state| count(listener.states.get(state).copied().unwrap_or(0));
        let text = row([
            &shortened(
                &endpoint(listener.local, listener.port),
                name.saturating_sub(1),
            ),
            &format!("{}/{}", listener.accept_queue, listener.accept_limit),
            &count(listener.dropped),
            &count(listener.half_open.into()),
            &now("ESTABLISHED"),
            &now("CLOSE_WAIT"),
            &now("TIME_WAIT"),
        ]);
        let tone = if listener.accept_queue > listener.accept_limit {
            Tone::Bad
        } else {
            Tone::Plain
        };
        lines.push(Line::of(tone, text));
    }
    let more = telling.len().saturating_sub(ROWS);
    if more > 0 {
        lines.push(Line::of(Tone::Faint, format!("{more} listeners not shown")));
    }
    Some(Block::new("listeners", lines))
}
