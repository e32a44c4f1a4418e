//! A program holds a socket in FIN_WAIT2 that its peer does not close.

use super::close_wait_leak::{place, subject};
use super::words::who;
use super::{Finding, Moved, Severity};
use crate::model::snapshot::Snapshot;
use crate::units::{count, counted, roughly};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.held);
    stock
        .filter(|held| held.state == "FIN_WAIT2" && held.over_60s > 0)
        .map(|held| {
            // One or two may be a half-close that somebody wants.
            let severity = if held.over_60s >= 3 {
                Severity::Hurts
            } else {
                Severity::Note
            };
            let holder = who(held.holder.as_ref(), "a program");
            let here = match held.peers_in_close_wait {
                0 => String::new(),
                n => format!(
                    " The other ends of {} are here too, in CLOSE_WAIT: who holds those has to \
                     close them.",
                    count(n)
                ),
            };
            Finding {
                netns: Some(held.netns),
                headline: format!(
                    "{} {}: {holder} still holds what its peers do not close",
                    counted(
                        held.now,
                        "connection in FIN_WAIT2",
                        "connections in FIN_WAIT2"
                    ),
                    place(held),
                ),
                because: format!(
                    "{} waited for more than a minute, the oldest for {}. tcp_fin_timeout does \
                     not reach them: it is for sockets that no program holds any more.{here}",
                    count(held.over_60s),
                    roughly(held.oldest_s),
                ),
                subject: subject(held),
                ..Finding::new("fin_wait2_held", severity, "peer_does_not_close")
            }
            .remedy("have the peer close its end (it is in CLOSE_WAIT there)")
            .remedy(format!(
                "have {holder} call close() instead of shutdown(), or give up after a while"
            ))
            .figure("now", held.now)
            .figure("over_60s", held.over_60s)
            .figure("oldest_s", held.oldest_s)
            .figure("peers_in_close_wait", held.peers_in_close_wait)
        })
        .collect()
}
