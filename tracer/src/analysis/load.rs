//! How many of a destination's local ports are out of reach of `connect()`.

use crate::model::snapshot::{Destination, Snapshot};
use crate::units::count;

/// Above this share of the ports, `connect()` searches long for a free one: its
/// latency was seen to rise from microseconds to milliseconds.
pub const KNEE: f64 = 0.5;

/// A connect that found no port longer ago than this says nothing of now.
pub const NOW_S: f64 = 10.0;

/// 2MSL of mainline Linux, until the kernel was seen to ask for another.
const NOMINAL_S: f64 = 60.0;

/// Whether connects fail for want of a port now, and not only at some time since
/// the start.
fn runs_out(snapshot: &Snapshot) -> bool {
    snapshot.connect_failures.ports_exhausted > 0
        && snapshot
            .last_without_port
            .is_none_or(|last| last.ago_s <= NOW_S)
}

/// A destination, and how many of its ports are out of reach of `connect()`.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub to: &'a Destination,
    pub taken: u64,
    /// Ports in TIME_WAIT that `connect()` may take again.
    again: u64,
}

impl<'a> Load<'a> {
    /// With `tcp_tw_reuse` in force a port serves again after the reuse delay,
    /// far sooner than a TIME_WAIT ends, and its limit is the higher for it.
    /// A `connect()` that found no port all the same disproves that.
    #[must_use]
    pub fn of(snapshot: &Snapshot, to: &'a Destination) -> Load<'a> {
        let nominal_s = snapshot.time_wait.timer.nominal_s.unwrap_or(NOMINAL_S);
        let reused = !runs_out(snapshot) && to.limit_per_s * nominal_s > 2.0 * to.usable as f64;
        // The youngest cannot be taken yet: as many as came within the delay, of
        // which the limit tells.
        let young = || (to.connects_per_s * to.usable as f64 / to.limit_per_s).ceil() as u64;
        let again = if reused {
            to.time_wait.min(to.used).saturating_sub(young())
        } else {
            0
        };
        Load {
            to,
            taken: to.used - again,
            again,
        }
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken >= self.to.usable
    }

    /// 1 where none is free.
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.taken as f64 / self.to.usable.max(1) as f64
    }

    /// A sentence of its own, or nothing.
    #[must_use]
    pub fn again(&self) -> String {
        match self.again {
            0 => String::new(),
            1 => " 1 port is in TIME_WAIT and can be taken again.".to_owned(),
            n => format!(
                " {} ports are in TIME_WAIT and can be taken again.",
                count(n)
            ),
        }
    }
}
