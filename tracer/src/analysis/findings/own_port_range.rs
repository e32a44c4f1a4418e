//! Connects find no port, though the namespace's range has plenty.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, counted, endpoint};

/// What failed longer ago may have met other ports.
const LATELY_S: f64 = 1.5;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let Some(last) = snapshot
        .last_without_port
        .filter(|last| last.ago_s <= LATELY_S)
    else {
        return Vec::new();
    };
    let Some(stock) = &snapshot.stock else {
        return Vec::new();
    };
    let remote = last.remote.to_canonical();
    let route = stock.routes.iter().find(|route| {
        (route.netns, route.remote, route.remote_port) == (last.netns, remote, last.remote_port)
    });
    // More than half of them free: they did not become so since.
    let Some(route) = route.filter(|route| route.taken() * 2 < route.usable) else {
        return Vec::new();
    };
    let of = snapshot.connects.iter().find(|of| {
        (of.netns, of.remote.to_canonical(), of.remote_port)
            == (last.netns, remote, last.remote_port)
    });
    let failed = of.map_or(1, |of| of.failed.ports_exhausted.max(1));
    let holder = of.and_then(|of| of.failing.as_ref());
    vec![
        Finding {
            netns: Some(last.netns),
            headline: format!(
                "{} finds no local port to {}, though most of the range is free",
                who(holder, "a program"),
                endpoint(remote, last.remote_port)
            ),
            because: format!(
                "{} failed within the last seconds, and only {} of {} ports are taken: the socket \
                 most likely has a range of its own (IP_LOCAL_PORT_RANGE), and that is full.",
                counted(failed, "connect", "connects"),
                count(route.taken()),
                count(route.usable),
            ),
            subject: Subject {
                local: Some(last.local.to_canonical()),
                remote: Some(remote),
                remote_port: Some(last.remote_port),
                ..Subject::default()
            }
            .held_by(holder),
            // Ports may have become free since the last connect failed.
            after_s: 2.0,
            ..Finding::new("own_port_range", Severity::Hurts, "own_port_range")
        }
        .remedy("widen the range that the program sets with IP_LOCAL_PORT_RANGE")
        .figure("failed", failed)
        .figure("used", route.taken())
        .figure("usable", route.usable),
    ]
}
