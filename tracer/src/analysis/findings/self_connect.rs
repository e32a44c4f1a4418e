//! A socket is connected to itself.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::endpoint;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot
        .stock
        .iter()
        .flat_map(|stock| &stock.self_connected);
    stock
        .map(|to| {
            let who = who(to.holder.as_ref(), "a program");
            Finding {
                netns: Some(to.netns),
                headline: format!(
                    "a socket of {who} is connected to itself at {}",
                    endpoint(to.local, to.port)
                ),
                because: "It connected to a port that nothing listens on, and was given that very \
                          port as its own. It keeps a service from listening there, and what it \
                          sends comes back."
                    .to_owned(),
                subject: Subject {
                    local: Some(to.local),
                    local_port: Some(to.port),
                    ..Subject::default()
                }
                .held_by(to.holder.as_ref()),
                ..Finding::new("self_connect", Severity::Hurts, "self_connect")
            }
            .remedy(format!(
                "have {who} close it, and check that both ends differ"
            ))
            .remedy(format!(
                "keep the port out of the range: add {} to net.ipv4.ip_local_reserved_ports",
                to.port
            ))
            .figure("port", u64::from(to.port))
        })
        .collect()
}
