//! tcp_tw_reuse would serve, but these TIME_WAITs carry no timestamps.

use super::{Finding, Moved, Severity, Subject};
use crate::analysis::load::KNEE;
use crate::model::snapshot::Snapshot;
use crate::units::{count, endpoint, percent_of};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.routes);
    stock
        .filter(|route| route.reuse_set)
        .filter_map(|route| {
            let without = route.time_wait - route.with_timestamps;
            let fill = route.taken() as f64 / route.usable.max(1) as f64;
            if fill < KNEE || (without as f64) < route.usable as f64 * KNEE {
                return None;
            }
            let (lacks, cause, remedy) = if route.timestamps {
                (
                    "the peer does not send them",
                    "peer_without_timestamps",
                    "have the peer (or the load balancer between) send TCP timestamps",
                )
            } else {
                (
                    "tcp_timestamps is 0 here",
                    "timestamps_off",
                    "set net.ipv4.tcp_timestamps=1",
                )
            };
            Some(
                Finding {
                    netns: Some(route.netns),
                    headline: format!(
                        "tcp_tw_reuse does not serve from {} to {}: {lacks}",
                        route.local,
                        endpoint(route.remote, route.remote_port)
                    ),
                    because: format!(
                        "{} of {} TIME_WAITs ({}) came without timestamps, and only those with \
                         them are taken over. Without reuse the {} usable ports bear {} new \
                         connections in a minute.",
                        count(without),
                        count(route.time_wait),
                        percent_of(without, route.time_wait),
                        count(route.usable),
                        count(route.usable),
                    ),
                    subject: Subject {
                        local: Some(route.local),
                        remote: Some(route.remote),
                        remote_port: Some(route.remote_port),
                        ..Subject::default()
                    }
                    .held_by(route.holder.as_ref()),
                    ..Finding::new(
                        "reuse_without_timestamps",
                        if fill >= 1.0 {
                            Severity::Hurts
                        } else {
                            Severity::Near
                        },
                        cause,
                    )
                }
                .remedy(remedy)
                .figure("without_timestamps", without)
                .figure("time_wait", route.time_wait)
                .figure("usable", route.usable),
            )
        })
        .collect()
}
