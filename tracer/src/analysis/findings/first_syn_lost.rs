//! Connects that took 1 s, 3 s or 7 s: their SYN was lost.

use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, endpoint, percent_of};

const SOME: u64 = 3;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let connects = snapshot.connects.iter();
    connects
        .filter_map(|of| {
            let late = of.late_1s + of.late_3s + of.late_7s;
            if late < SOME || late * 100 <= of.established {
                return None;
            }
            let to = endpoint(of.remote.to_canonical(), of.remote_port);
            let here = snapshot
                .stock
                .iter()
                .flat_map(|stock| &stock.listeners)
                .any(|l| {
                    l.port == of.remote_port
                        && l.dropped_ago_s.is_some_and(|ago| ago <= of.window_s)
                });
            let ruled = if here {
                " A listener on that port of this host dropped some meanwhile."
            } else {
                " A full accept queue of the peer, two clients behind one NAT with the same port, \
                 or loss on the way do that; none of this host's own listeners on that port \
                 dropped any."
            };
            Some(
                Finding {
                    netns: Some(of.netns),
                    headline: format!("the first SYN to {to} is lost: connects take 1 s and more"),
                    because: format!(
                        "{} of {} connects ({}) took as long as a SYN that is sent again: {} about \
                         1 s, {} about 3 s, {} about 7 s.{ruled}",
                        count(late),
                        count(of.established),
                        percent_of(late, of.established),
                        count(of.late_1s),
                        count(of.late_3s),
                        count(of.late_7s),
                    ),
                    subject: Subject {
                        remote: Some(of.remote.to_canonical()),
                        remote_port: Some(of.remote_port),
                        ..Subject::default()
                    }
                    .held_by(of.failing.as_ref()),
                    ..Finding::new(
                        "first_syn_lost",
                        Severity::Hurts,
                        if here { "accept_queue" } else { "syn_lost" },
                    )
                }
                .remedy(format!(
                    "on the host of {to}: nstat -az TcpExtListenDrops, and twtrace live"
                ))
                .figure("late", late)
                .figure("late_1s", of.late_1s)
                .figure("late_3s", of.late_3s)
                .figure("late_7s", of.late_7s)
                .figure("connects", of.established),
            )
        })
        .collect()
}
