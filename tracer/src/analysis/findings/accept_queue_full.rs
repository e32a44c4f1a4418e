//! A listener's accept queue is full, or it dropped connections since a moment.

use super::words::who;
use super::{Finding, Moved, NOW_S, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, counted, endpoint, rate};

const SHORT: u32 = 4;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.listeners);
    stock
        .filter_map(|listener| {
            let full = listener.accept_queue > listener.accept_limit;
            let dropped = listener.dropped_ago_s.is_some_and(|ago| ago <= NOW_S);
            // Requests in excess are another finding's affair.
            let half_open = listener.half_open > listener.accept_limit;
            if !full && (!dropped || half_open) {
                return None;
            }
            let at = endpoint(listener.local, listener.port);
            let holder = listener.holder.as_ref();
            let who = who(holder, "its program");
            let headline = if full {
                format!(
                    "the accept queue of {at} is full: {who} does not accept what has connected"
                )
            } else {
                format!("{at} drops connections: {who} was too slow to accept them")
            };
            Some(
                Finding {
                    netns: Some(listener.netns),
                    headline,
                    because: format!(
                        "{} for accept(), and {} may. {} dropped since the start of this run, {} \
                         a second now. The peer sends its SYN again after a second, and again.",
                        match listener.accept_queue {
                            1 => "1 connection waits".to_owned(),
                            n => format!("{} connections wait", count(n.into())),
                        },
                        count(listener.accept_limit.into()),
                        counted(listener.dropped, "SYN or ACK was", "SYNs or ACKs were"),
                        rate(listener.dropped_per_s),
                    ),
                    subject: Subject {
                        local: Some(listener.local),
                        local_port: Some(listener.port),
                        ..Subject::default()
                    }
                    .held_by(holder),
                    // A short queue is full for a moment wherever it is used.
                    after_s: if dropped || listener.accept_limit >= SHORT {
                        0.0
                    } else {
                        1.0
                    },
                    ..Finding::new("accept_queue_full", Severity::Hurts, "accept_queue")
                }
                .remedy(format!(
                    "have {who} call accept() sooner (is it stuck, or short of threads?)"
                ))
                .remedy(format!(
                    "a longer queue bears bursts alone: listen() asked for {} or more, and \
                     net.core.somaxconn allows no more than it says",
                    count(listener.accept_limit.into())
                ))
                .figure("accept_queue", listener.accept_queue)
                .figure("accept_limit", listener.accept_limit)
                .figure("half_open", listener.half_open)
                .figure("dropped", listener.dropped)
                .figure("dropped_per_s", listener.dropped_per_s),
            )
        })
        .collect()
}
