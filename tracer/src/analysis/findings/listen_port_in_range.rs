//! A port that is listened on may be given to a client's connect.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::endpoint;

/// More of one kind say nothing new.
const MOST: usize = 5;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.listeners);
    stock
        .filter(|listener| listener.in_range && listener.port_chosen)
        .take(MOST)
        .map(|listener| {
            let at = endpoint(listener.local, listener.port);
            let who = who(listener.holder.as_ref(), "its program");
            Finding {
                netns: Some(listener.netns),
                headline: format!("{at}, which {who} listens on, lies in ip_local_port_range"),
                because: "While it does not listen, a client's connect() may be given that port, \
                          and its next start fails with EADDRINUSE."
                    .to_owned(),
                subject: Subject {
                    local: Some(listener.local),
                    local_port: Some(listener.port),
                    ..Subject::default()
                }
                .held_by(listener.holder.as_ref()),
                ..Finding::new(
                    "listen_port_in_range",
                    Severity::Note,
                    "ip_local_port_range",
                )
            }
            .remedy(format!(
                "reserve it: add {} to net.ipv4.ip_local_reserved_ports",
                listener.port
            ))
            .figure("port", u64::from(listener.port))
        })
        .collect()
}
