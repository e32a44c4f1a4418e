//! Sources below 1024, as NFS and rsh take them, run out towards one destination.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::model::stock::PRIVILEGED_PORTS as POOL;
use crate::units::{count, endpoint};

/// From here on it is a question of moments.
const NEAR: u64 = POOL * 95 / 100;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.routes);
    stock
        .filter(|route| route.privileged >= NEAR)
        .map(|route| {
            let (severity, word) = if route.privileged >= POOL {
                (Severity::Hurts, "no")
            } else {
                (Severity::Near, "hardly a")
            };
            Finding {
                netns: Some(route.netns),
                headline: format!(
                    "{word} source port below 1024 is left from {} to {}",
                    route.local,
                    endpoint(route.remote, route.remote_port)
                ),
                because: format!(
                    "{} of the {POOL} ports from 665 to 1023 are taken towards it, by {} among \
                     others; ip_local_port_range has no say in these.",
                    count(route.privileged),
                    who(route.holder.as_ref(), "programs that are not known"),
                ),
                subject: Subject {
                    local: Some(route.local),
                    remote: Some(route.remote),
                    remote_port: Some(route.remote_port),
                    ..Subject::default()
                }
                .held_by(route.holder.as_ref()),
                ..Finding::new("reserved_ports_exhausted", severity, "privileged_ports")
            }
            .remedy("use ports above 1023 (NFS: the mount option noresvport), or fewer mounts")
            .figure("used", route.privileged)
            .figure("usable", POOL)
        })
        .collect()
}
