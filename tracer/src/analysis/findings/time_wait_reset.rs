//! TIME_WAITs are ended by RSTs.

use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, endpoint, host, percent_of};

const SOME: u64 = 5;

pub(super) fn found(snapshot: &Snapshot, moved: &Moved) -> Vec<Finding> {
    if moved.reset < SOME || moved.reset * 10 < moved.ended {
        return Vec::new();
    }
    let (subject, whose) = match &snapshot.last_reset {
        Some(last) => {
            let local = last.local_addr().to_canonical();
            let remote = last.remote_addr().to_canonical();
            let whose = format!(
                ", the last at {} from {}",
                endpoint(local, last.local_port),
                host(remote)
            );
            let subject = Subject {
                local: Some(local),
                local_port: Some(last.local_port),
                remote: Some(remote),
                ..Subject::default()
            };
            (subject, whose)
        }
        None => (Subject::default(), String::new()),
    };
    vec![
        Finding {
            netns: snapshot.last_reset.map(|last| last.netns.0),
            headline: format!(
                "{} TIME_WAITs were ended by RSTs{whose}",
                count(moved.reset)
            ),
            because: format!(
                "{} of {} that ended within the last seconds. An old SYN that meets a TIME_WAIT is \
                 answered by an ACK, which its sender answers by a RST; so does a peer that has \
                 forgotten the connection. What comes late may then meet the next connection of \
                 the same ports.",
                percent_of(moved.reset, moved.ended),
                count(moved.ended),
            ),
            subject,
            ..Finding::new("time_wait_reset", Severity::Note, "reset")
        }
        .remedy(
            "net.ipv4.tcp_rfc1337=1 keeps them, if that is wanted (twtrace explain tcp_rfc1337)",
        )
        .figure("reset", moved.reset)
        .figure("ended", moved.ended),
    ]
}
