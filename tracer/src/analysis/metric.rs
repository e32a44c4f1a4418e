//! The numbers that a comparison compares: what each is called, in which unit
//! it is told, which way is better, and how much of a difference matters.
//!
//! A family has a reason or a kind behind a dot. Names are never changed.

use serde::Serialize;

/// Which way is good news in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
    /// More or fewer TIME_WAITs hurt nobody by themselves.
    Neither,
}

/// How two values are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// By their ratio: rates, stocks, times.
    Ratio,
    /// By their difference in points of a share of 1.
    Points,
    /// By their difference per 1,000.
    PerThousand,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    pub unit: &'static str,
    pub better: Better,
    pub scale: Scale,
    /// A difference within it does not matter: a part of 1 for ratios, points
    /// for shares, failures per 1,000 connects.
    pub margin: f64,
    /// What the value counts, for people: `connects`.
    pub of: &'static str,
}

const fn metric(
    unit: &'static str,
    better: Better,
    scale: Scale,
    margin: f64,
    of: &'static str,
) -> Metric {
    Metric {
        unit,
        better,
        scale,
        margin,
        of,
    }
}

use Better::{Higher, Lower, Neither};
use Scale::{PerThousand, Points, Ratio};

/// In the order in which they are told.
const ALL: [(&str, Metric); 14] = [
    (
        "connections_per_s",
        metric("1/s", Higher, Ratio, 0.10, "connections"),
    ),
    (
        "connect_failures_per_1000",
        metric("1/1000", Lower, PerThousand, 1.0, "connects"),
    ),
    (
        "connect_latency_p50_s",
        metric("s", Lower, Ratio, 0.10, "connects"),
    ),
    (
        "connect_latency_p99_s",
        metric("s", Lower, Ratio, 0.20, "connects"),
    ),
    (
        "time_wait_entered_per_s",
        metric("1/s", Neither, Ratio, 0.10, "TIME_WAITs"),
    ),
    (
        "time_wait_live_mean",
        metric("sockets", Neither, Ratio, 0.10, "TIME_WAITs"),
    ),
    (
        "time_wait_life_mean_s",
        metric("s", Neither, Ratio, 0.10, "TIME_WAITs"),
    ),
    (
        "time_wait_life_p50_s",
        metric("s", Neither, Ratio, 0.10, "TIME_WAITs"),
    ),
    (
        "time_wait_reaches_2msl_share",
        metric("share", Neither, Points, 0.02, "TIME_WAITs"),
    ),
    (
        "time_wait_ended_share",
        metric("share", Neither, Points, 0.02, "ends"),
    ),
    (
        "time_wait_per_close",
        metric("share", Neither, Points, 0.02, "closes"),
    ),
    (
        "rearms_per_time_wait",
        metric("per TIME_WAIT", Neither, Points, 0.02, "TIME_WAITs"),
    ),
    (
        "fin_wait2_orphan_life_mean_s",
        metric("s", Neither, Ratio, 0.10, "orphans"),
    ),
    // The last is never asked for: what is not known is compared by its ratio.
    ("", metric("", Neither, Ratio, 0.10, "")),
];

fn place(name: &str) -> usize {
    let family = name.split('.').next().unwrap_or(name);
    let found = ALL.iter().position(|(known, _)| *known == family);
    found.unwrap_or(ALL.len() - 1)
}

/// What a metric of this name, or its family, is.
#[must_use]
pub fn of(name: &str) -> Metric {
    ALL[place(name)].1
}

#[must_use]
pub fn is_known(name: &str) -> bool {
    place(name) + 1 < ALL.len()
}

/// Sorts names in the order in which they are told.
#[must_use]
pub fn order(name: &str) -> (usize, &str) {
    (place(name), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_for_its_members() {
        let reset = of("time_wait_ended_share.reset");
        assert_eq!((reset.scale, reset.margin), (Points, 0.02));
        let failures = of("connect_failures_per_1000.ports_exhausted");
        assert_eq!((failures.scale, failures.better), (PerThousand, Lower));
        assert_eq!(of("connect_latency_p99_s").margin, 0.20);
        assert!(is_known("rearms_per_time_wait") && !is_known("rearms") && !is_known(""));
    }
}
