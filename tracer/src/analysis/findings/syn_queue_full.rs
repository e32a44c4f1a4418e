//! A listener has as many half-open requests as it may have.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, endpoint};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.listeners);
    stock
        .filter(|listener| {
            listener.half_open > 0
                && listener.half_open >= listener.accept_limit
                // A full accept queue keeps requests half-open: that is said elsewhere.
                && listener.accept_queue <= listener.accept_limit
        })
        .map(|listener| {
            let at = endpoint(listener.local, listener.port);
            Finding {
                netns: Some(listener.netns),
                headline: format!(
                    "the SYN queue of {at} is full: {} handshakes wait for their last ACK",
                    count(listener.half_open.into())
                ),
                because: format!(
                    "{} half-open requests at a listener of {}, which may have {}. Beyond that a SYN is answered by a \
                     cookie where net.ipv4.tcp_syncookies is 1, and dropped where it is 0.",
                    count(listener.half_open.into()),
                    who(listener.holder.as_ref(), "its program"),
                    count(listener.accept_limit.into()),
                ),
                subject: Subject {
                    local: Some(listener.local),
                    local_port: Some(listener.port),
                    ..Subject::default()
                }
                .held_by(listener.holder.as_ref()),
                after_s: 1.0,
                ..Finding::new("syn_queue_full", Severity::Hurts, "half_open_requests")
            }
            .remedy("see who sends them: ss -tan state syn-recv (a flood, or a path that loses SYN-ACKs)")
            .remedy("twtrace explain tcp_syncookies")
            .figure("half_open", listener.half_open)
            .figure("limit", listener.accept_limit)
        })
        .collect()
}
