//! Nothing listens on a port, and what is left of its connections keeps a bind()
//! from it.

use super::words::time_left;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{counted, endpoint};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.closed_ports);
    stock
        .filter(|closed| !closed.shared)
        .map(|closed| {
            let at = endpoint(closed.local, closed.port);
            let waiting = counted(closed.time_wait, "TIME_WAIT", "TIME_WAITs");
            let (what, cause) = match (closed.time_wait, closed.other) {
                (0, other) => (
                    format!("{} of it", counted(other, "connection", "connections")),
                    "open_connections",
                ),
                (_, 0) => (waiting, "time_wait"),
                (_, other) => (
                    format!(
                        "{waiting} and {} of it",
                        counted(other, "connection", "connections")
                    ),
                    "time_wait",
                ),
            };
            let until = match closed.free_in_s.filter(|_| closed.other == 0) {
                Some(left) => format!(" for another {}", time_left(left)),
                None => String::new(),
            };
            let wait = match closed.free_in_s.filter(|_| closed.other == 0) {
                Some(left) => format!("; this once, wait {}", time_left(left)),
                None => "; this once, end these connections".to_owned(),
            };
            let finding = Finding {
                netns: Some(closed.netns),
                headline: format!(
                    "nothing listens on {at}, and {what} keep a bind() from it{until}"
                ),
                because: "bind() fails with EADDRINUSE. SO_REUSEADDR does not help now: it would \
                          have to be set on the old sockets too."
                    .to_owned(),
                subject: Subject {
                    local: Some(closed.local),
                    local_port: Some(closed.port),
                    ..Subject::default()
                }
                .held_by(closed.holder.as_ref()),
                ..Finding::new("bind_blocked", Severity::Hurts, cause)
            }
            .remedy(format!(
                "have the server set SO_REUSEADDR before bind(){wait}"
            ))
            .figure("time_wait", closed.time_wait)
            .figure("other", closed.other);
            match closed.free_in_s {
                Some(left) => finding.figure("free_in_s", left),
                None => finding,
            }
        })
        .collect()
}
