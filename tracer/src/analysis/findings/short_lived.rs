//! Connections are made and closed at a rate that a few kept ones would carry.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, endpoint, rate, seconds};

const PER_S: f64 = 50.0;
const SHORT_S: f64 = 1.0;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let connects = snapshot.connects.iter();
    connects
        .filter_map(|of| {
            let life = of.mean_life_s.filter(|life| *life < SHORT_S)?;
            let per_s = of.established as f64 / of.window_s.max(1.0);
            if per_s <= PER_S {
                return None;
            }
            let kept = (per_s * life).ceil().max(1.0);
            let to = endpoint(of.remote.to_canonical(), of.remote_port);
            let who = who(of.owner.as_ref(), "one program");
            Some(
                Finding {
                    netns: Some(of.netns),
                    headline: format!(
                        "{who} makes {} connections a second to {to} and closes each after {}",
                        rate(per_s),
                        seconds(life)
                    ),
                    because: format!(
                        "Rate times life: {} would carry the same load if they were kept.",
                        match kept as u64 {
                            1 => "1 connection".to_owned(),
                            n => format!("{} connections", count(n)),
                        }
                    ),
                    subject: Subject {
                        remote: Some(of.remote.to_canonical()),
                        remote_port: Some(of.remote_port),
                        ..Subject::default()
                    }
                    .held_by(of.owner.as_ref()),
                    ..Finding::new("short_lived", Severity::Note, "short_lived")
                }
                .remedy(format!(
                    "have {who} keep its connections (a pool, keep-alive)"
                ))
                .figure("per_s", per_s)
                .figure("mean_life_s", life)
                .figure("would_carry", kept as u64),
            )
        })
        .collect()
}
