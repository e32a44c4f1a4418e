//! A program does not close what its peers have closed.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::model::stock::Held;
use crate::units::{count, counted, endpoint, roughly};

/// So many that have waited 10 s are a leak, not a slow request; and so many that have
/// waited a minute, not the idle connections of a pool.
const MANY: u64 = 10;
const SOME: u64 = 3;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.held);
    stock
        .filter(|held| held.state == "CLOSE_WAIT" && (held.over_60s > 0 || held.over_10s >= MANY))
        .map(told)
        .collect()
}

fn told(held: &Held) -> Finding {
    let severity = if held.over_10s >= MANY || held.over_60s >= SOME {
        Severity::Hurts
    } else {
        Severity::Note
    };
    let who = who(held.holder.as_ref(), "its program");
    Finding {
        netns: Some(held.netns),
        headline: format!(
            "{} {}: {who} does not close what its peers have closed",
            counted(
                held.now,
                "connection in CLOSE_WAIT",
                "connections in CLOSE_WAIT"
            ),
            place(held),
        ),
        because: format!(
            "{} waited for more than 10 s, {} for more than a minute; nothing came to the oldest \
             for {}. No sysctl ends a CLOSE_WAIT, only close() or the end of the process.",
            count(held.over_10s),
            count(held.over_60s),
            roughly(held.oldest_s),
        ),
        subject: subject(held),
        ..Finding::new("close_wait_leak", severity, "close_wait")
    }
    .remedy(format!(
        "have {who} call close() where it reads the end of the stream"
    ))
    .remedy(format!("restart {who}, which closes them all"))
    .figure("now", held.now)
    .figure("over_10s", held.over_10s)
    .figure("over_60s", held.over_60s)
    .figure("oldest_s", held.oldest_s)
}

/// `on port 8080`, `to 10.0.0.9:443`.
pub(super) fn place(held: &Held) -> String {
    match (held.listening_port, held.remote, held.remote_port) {
        (Some(port), ..) => format!("on port {port}"),
        (None, Some(remote), Some(port)) => format!("to {}", endpoint(remote, port)),
        _ => String::new(),
    }
}

pub(super) fn subject(held: &Held) -> Subject {
    Subject {
        local_port: held.listening_port,
        remote: held.remote,
        remote_port: held.remote_port,
        ..Subject::default()
    }
    .held_by(held.holder.as_ref())
}
