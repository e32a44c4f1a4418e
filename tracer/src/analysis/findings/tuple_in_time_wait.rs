//! A program chose its port, and the connection that this makes is there already.

use super::words::{time_left, who};
use super::{Finding, Moved, NOW_S, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{counted, endpoint};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter().flat_map(|stock| &stock.taken);
    let mut recent: Vec<_> = stock.filter(|taken| taken.ago_s <= NOW_S).collect();
    recent.sort_by(|a, b| a.ago_s.total_cmp(&b.ago_s));
    // One finding a destination: the others fail for the same reason.
    let mut told: Vec<Finding> = Vec::new();
    for taken in recent {
        let same = |known: &&mut Finding| {
            (known.netns, known.subject.remote, known.subject.remote_port)
                == (
                    Some(taken.netns),
                    Some(taken.remote),
                    Some(taken.remote_port),
                )
        };
        if told.iter_mut().find(same).is_some() {
            continue;
        }
        let (state, cause) = match (taken.state, taken.free_in_s) {
            (Some("TIME_WAIT"), Some(left)) => (
                format!("is in TIME_WAIT for another {}", time_left(left)),
                "time_wait",
            ),
            (Some(state), _) => (format!("is in {state}"), "open"),
            (None, _) => ("was taken, and is free by now".to_owned(), "time_wait"),
        };
        let of = snapshot.connects.iter().find(|connects| {
            (
                connects.netns,
                connects.remote.to_canonical(),
                connects.remote_port,
            ) == (taken.netns, taken.remote, taken.remote_port)
        });
        let failed = of.map_or(1, |of| of.failed.address_in_use.max(1));
        let finding = Finding {
            netns: Some(taken.netns),
            headline: format!(
                "{} cannot connect from the port it chose: {} -> {} {state}",
                who(taken.holder.as_ref(), "a program"),
                endpoint(taken.local, taken.local_port),
                endpoint(taken.remote, taken.remote_port),
            ),
            because: format!(
                "{} failed so within the last seconds (EADDRNOTAVAIL). Whoever binds to a port \
                 before connect() gets that port's connection or none.",
                counted(failed, "connect", "connects"),
            ),
            subject: Subject {
                local: Some(taken.local),
                local_port: Some(taken.local_port),
                remote: Some(taken.remote),
                remote_port: Some(taken.remote_port),
                ..Subject::default()
            }
            .held_by(taken.holder.as_ref()),
            ..Finding::new("tuple_in_time_wait", Severity::Hurts, cause)
        }
        .remedy("let the program connect without a port of its own choice")
        .figure("failed", failed);
        told.push(match taken.free_in_s {
            Some(left) => finding.figure("free_in_s", left),
            None => finding,
        });
    }
    told
}
