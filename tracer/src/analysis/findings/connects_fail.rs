//! More than one in a hundred connects to a destination fail.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::{ConnectFailures, Connects, Snapshot};
use crate::units::{count, endpoint, percent_of};

/// Fewer may be somebody's one mistake.
const SOME: u64 = 3;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let connects = snapshot.connects.iter();
    connects
        .filter_map(|of| {
            // No port, or one that is taken: other findings' affair. And who gives up
            // by himself has not failed.
            let ConnectFailures {
                refused,
                timed_out,
                unreachable,
                other,
                ..
            } = of.failed;
            let kinds = [
                (refused, "refused", "are refused"),
                (timed_out + of.given_up, "timed_out", "get no answer"),
                (unreachable, "unreachable", "find no way"),
                (other, "other", "fail otherwise"),
            ];
            let failed: u64 = kinds.iter().map(|kind| kind.0).sum();
            let all = of.established + failed;
            if failed < SOME || failed * 100 <= all || answers_by_the_other_family(snapshot, of) {
                return None;
            }
            let (_, cause, word) = kinds.into_iter().max_by_key(|kind| kind.0)?;
            let to = endpoint(of.remote.to_canonical(), of.remote_port);
            let who = who(of.failing.as_ref(), "programs");
            let remedy = match cause {
                "refused" => format!("see that something listens on {to}"),
                "timed_out" => format!(
                    "see that {to} is reached (a firewall that drops, or a host that is gone)"
                ),
                "unreachable" => format!("see the routes and the firewall towards {to}"),
                _ => format!("see the firewalls between here and {to}, and what it logs"),
            };
            Some(
                Finding {
                    netns: Some(of.netns),
                    headline: format!("connects of {who} to {to} {word}"),
                    because: format!(
                        "{} of {} ({}) failed within the last {} s: {}.",
                        count(failed),
                        count(all),
                        percent_of(failed, all),
                        count(of.window_s.ceil() as u64),
                        kinds
                            .iter()
                            .filter(|kind| kind.0 > 0)
                            .map(|kind| format!("{} {}", kind.1.replace('_', " "), count(kind.0)))
                            .collect::<Vec<_>>()
                            .join(", "),
                    ),
                    subject: Subject {
                        remote: Some(of.remote.to_canonical()),
                        remote_port: Some(of.remote_port),
                        ..Subject::default()
                    }
                    .held_by(of.failing.as_ref()),
                    ..Finding::new("connects_fail", Severity::Hurts, cause)
                }
                .remedy(remedy)
                .figure("failed", failed)
                .figure("connects", all),
            )
        })
        .collect()
}

/// `localhost` is two addresses, and a client that is refused at the one takes the
/// other.
fn answers_by_the_other_family(snapshot: &Snapshot, of: &Connects) -> bool {
    let is_other = |other: &Connects| {
        let (a, b) = (of.remote.to_canonical(), other.remote.to_canonical());
        other.netns == of.netns
            && other.remote_port == of.remote_port
            && other.established > 0
            && a.is_loopback()
            && b.is_loopback()
            && a.is_ipv4() != b.is_ipv4()
    };
    snapshot.connects.iter().any(is_other)
}
