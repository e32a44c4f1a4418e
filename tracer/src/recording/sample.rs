//! A quiet second of an invented machine, for tests to fill in.

use jiff::{SignedDuration, Timestamp};

use super::{Connect, FinWait2Orphan, Frame, States, TimeWait};
use crate::model::snapshot::{Closes, Exactness, Lost, Timer};

/// Frame `seq` of a run: a second in which nothing happened.
pub(crate) fn quiet(seq: u64) -> Frame {
    Frame {
        seq,
        time: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seq as i64),
        elapsed_s: seq as f64,
        interval_s: 1.0,
        states: States::default(),
        transitions: Vec::new(),
        closes: Closes::default(),
        connect: Connect::default(),
        time_wait: TimeWait {
            timer: Timer {
                nominal_s: Some(60.0),
                slack_s: 2.048,
            },
            ..TimeWait::default()
        },
        fin_wait2_orphan: FinWait2Orphan::default(),
        ports: Vec::new(),
        namespaces: Vec::new(),
        kernel: None,
        syn_ack_timeouts: 0,
        lost: Lost::default(),
        resyncs: 0,
        exactness: Exactness::Exact,
    }
}
