//! How far a host is from its limits: local ports of a client, and
//! `tcp_max_tw_buckets` of a network namespace.
//!
//! Counts and rates come in, forecasts go out; each says nothing where the
//! present rate leads to no limit.

use std::net::IpAddr;

use serde::Serialize;

use super::load::KNEE;
use crate::model::event::{Counters, NamespaceFacts};
use crate::model::snapshot::Destination;

/// The ports that one local address has towards one destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ports {
    pub netns: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_port: u16,
    pub usable: u64,
    /// Taken, in any state.
    pub used: u64,
    pub time_wait: u64,
    /// Of those in TIME_WAIT, about how many `connect()` may take now.
    pub reusable: u64,
    pub connects_per_s: f64,
    pub limit_per_s: f64,
    /// Until half of them are used, from where on `connect()` searches long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_used_in_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted_in_s: Option<f64>,
}

impl Ports {
    /// `facts` are those of its namespace.
    #[must_use]
    pub fn of(to: &Destination, facts: Option<&NamespaceFacts>) -> Ports {
        let delay = facts.and_then(|facts| facts.reuse_delay(to.local, to.remote));
        let left = to.usable.saturating_sub(to.used) as f64;
        let half = to.usable as f64 * KNEE;
        // What is exhausted in so many seconds grows by so much in each.
        let half_used_in_s = to
            .exhausted_in_s
            .filter(|in_s| *in_s > 0.0 && (to.used as f64) < half)
            .map(|in_s| (half - to.used as f64) * in_s / left);
        Ports {
            netns: to.netns,
            local: to.local,
            remote: to.remote,
            remote_port: to.remote_port,
            usable: to.usable,
            used: to.used,
            time_wait: to.time_wait,
            // The youngest cannot be taken yet: as many as came within the delay.
            reusable: delay.map_or(0, |delay| {
                let young = (to.connects_per_s * delay.as_secs_f64()).ceil() as u64;
                to.time_wait.saturating_sub(young)
            }),
            connects_per_s: to.connects_per_s,
            limit_per_s: to.limit_per_s,
            half_used_in_s,
            exhausted_in_s: to.exhausted_in_s,
        }
    }

    /// Whether `connect()` has to search long for a port.
    #[must_use]
    pub fn past_half(&self) -> bool {
        self.used as f64 >= self.usable as f64 * KNEE
    }
}

/// Minisockets of a namespace against `tcp_max_tw_buckets`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Buckets {
    /// TIME_WAITs and orphans in FIN_WAIT2.
    pub now: u64,
    pub limit: u64,
    /// Absent where nobody looked, or before Linux 6.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub births_per_s: Option<f64>,
    /// The stock that this rate leads to, if each lives its full time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settles_at: Option<u64>,
    /// Absent where the present rate does not fill it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_in_s: Option<f64>,
    /// Connections that skipped TIME_WAIT since the namespace was made.
    pub skipped: u64,
}

impl Buckets {
    /// Of one reading, and of an earlier one where there was a look between.
    /// `life_s` is how long a TIME_WAIT lives that nobody ends.
    #[must_use]
    pub fn of(limit: u64, earlier: Option<&Counters>, now: &Counters, life_s: f64) -> Buckets {
        let since = earlier.map_or(0.0, |earlier| now.to.since(earlier.to).as_secs_f64());
        let rate = |after: u64, before: u64| {
            let change = after as f64 - before as f64;
            (since > 0.0).then_some(change / since)
        };
        let births_per_s = earlier
            .and_then(|earlier| rate(now.births?, earlier.births?))
            .filter(|rate| *rate >= 0.0);
        let settles_at = births_per_s.map(|rate| (rate * life_s).round() as u64);
        let growth = earlier.and_then(|earlier| rate(now.minisockets, earlier.minisockets));
        let full_in_s = match (settles_at, growth) {
            _ if now.minisockets >= limit => Some(0.0),
            (Some(settles), Some(growth)) if settles > limit && growth > 0.0 => {
                Some((limit - now.minisockets) as f64 / growth)
            }
            _ => None,
        };
        Buckets {
            now: now.minisockets,
            limit,
            births_per_s,
            settles_at,
            full_in_s,
            skipped: now.overflowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::event::Moment;

    fn facts(tw_reuse: u8) -> NamespaceFacts {
        NamespaceFacts {
            name: None,
            ports: (32_768, 60_999),
            reserved_ports: 0,
            max_tw_buckets: 65_536,
            tw_reuse,
            tw_reuse_delay: Duration::from_secs(1),
            timestamps: true,
        }
    }

    fn to(used: u64, exhausted_in_s: Option<f64>) -> Destination {
        Destination {
            netns: 1,
            local: "10.0.0.2".parse().unwrap(),
            remote: "10.0.0.9".parse().unwrap(),
            remote_port: 443,
            used,
            time_wait: used,
            usable: 1_000,
            connects_per_s: 30.0,
            limit_per_s: 16.4,
            exhausted_in_s,
        }
    }

    #[test]
    fn only_the_youngest_cannot_be_taken_again() {
        assert_eq!(Ports::of(&to(400, None), Some(&facts(1))).reusable, 370);
        assert_eq!(Ports::of(&to(20, None), Some(&facts(1))).reusable, 0);
        // 2 is for loopback, and without facts nothing is promised.
        assert_eq!(Ports::of(&to(400, None), Some(&facts(2))).reusable, 0);
        assert_eq!(Ports::of(&to(400, None), None).reusable, 0);
    }

    #[test]
    fn half_comes_before_the_end_and_only_once() {
        let ports = Ports::of(&to(400, Some(30.0)), None);
        assert_eq!(ports.half_used_in_s, Some(5.0));
        assert!(!ports.past_half());
        let ports = Ports::of(&to(500, Some(25.0)), None);
        assert_eq!(ports.half_used_in_s, None);
        assert!(ports.past_half());
        assert_eq!(Ports::of(&to(400, None), None).half_used_in_s, None);
    }

    fn counters(at_s: u64, births: Option<u64>, minisockets: u64) -> Counters {
        Counters {
            from: Moment(at_s * 1_000_000_000),
            to: Moment(at_s * 1_000_000_000),
            births,
            reused_by_connect: 0,
            overflowed: 7,
            listen_overflows: 0,
            minisockets,
            full_sockets: 0,
        }
    }

    #[test]
    fn of_the_time_waits_those_of_the_reuse_delay_cannot_be_taken_yet() {
        let to = Destination {
            netns: 1,
            local: [10, 0, 0, 2].into(),
            remote: [10, 0, 0, 9].into(),
            remote_port: 443,
            used: 900,
            time_wait: 800,
            usable: 1_000,
            connects_per_s: 100.0,
            limit_per_s: 400.0,
            exhausted_in_s: None,
        };
        let reused = NamespaceFacts {
            tw_reuse_delay: Duration::from_millis(2_500),
            ..facts(1)
        };
        assert_eq!(Ports::of(&to, Some(&reused)).reusable, 550);
        assert_eq!(Ports::of(&to, None).reusable, 0);
    }

    #[test]
    fn a_rate_that_the_limit_bears_does_not_fill_it() {
        let earlier = counters(10, Some(1_000), 500);
        let bears = Buckets::of(7_000, Some(&earlier), &counters(12, Some(1_200), 690), 61.0);
        assert_eq!(
            (
                bears.births_per_s,
                bears.settles_at,
                bears.full_in_s,
                bears.skipped
            ),
            (Some(100.0), Some(6_100), None, 7)
        );
        let fills = Buckets::of(6_000, Some(&earlier), &counters(12, Some(1_200), 700), 61.0);
        assert_eq!(fills.full_in_s, Some(53.0));
        let full = Buckets::of(700, None, &counters(12, None, 700), 61.0);
        assert_eq!((full.full_in_s, full.births_per_s), (Some(0.0), None));
    }
}
