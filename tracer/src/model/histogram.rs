//! How long things took: distributions that keep three significant figures
//! from a microsecond to an hour, and the bands TIME_WAIT lives are shown in.
//!
//! Minimum, maximum, sum and bands are kept by the durations themselves: a
//! life of 59.9996 s is not one of 60 s. It knows neither sockets nor clocks.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::snapshot::{Bucket, Distribution, Summary};

pub(crate) const HOUR_US: u64 = 3_600_000_000;

/// A distribution of durations. Its 180 KB of counts are only there once
/// something was recorded.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    counts: Option<Box<Histogram<u64>>>,
    count: u64,
    min: u64,
    max: u64,
    /// Whole nanoseconds, so that the order of recording does not show.
    sum: u128,
}

impl Durations {
    #[inline]
    pub fn record(&mut self, duration: Duration) {
        self.record_ns(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    #[inline]
    pub(super) fn record_ns(&mut self, ns: u64) {
        if self.count == 0 {
            self.min = ns;
            self.max = ns;
        } else {
            self.min = self.min.min(ns);
            self.max = self.max.max(ns);
        }
        self.count += 1;
        self.sum += u128::from(ns);
        self.counts
            .get_or_insert_with(new_counts)
            .saturating_record(ns / 1000);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn sum_s(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// Seconds, to three figures; `None` where nothing was recorded.
    #[must_use]
    pub fn quantile_s(&self, q: f64) -> Option<f64> {
        let counts = self.counts.as_ref()?;
        let value = counts.value_at_quantile(q) as f64 / 1e6;
        // Not `clamp`, which panics where a recording contradicts itself.
        Some(value.max(seconds(self.min)).min(seconds(self.max)))
    }

    /// What was recorded since it was `earlier`. An extreme that did not move
    /// since is only known to three figures.
    #[must_use]
    pub fn since(&self, earlier: &Durations) -> Sparse {
        let mut sparse = Sparse::default();
        let Some(counts) = self.counts.as_ref().filter(|_| self.count > earlier.count) else {
            return sparse;
        };
        let before = |value| {
            earlier
                .counts
                .as_ref()
                .map_or(0, |counts| counts.count_at(value))
        };
        for recorded in counts.iter_recorded() {
            let value = recorded.value_iterated_to();
            let fresh = recorded.count_at_value().saturating_sub(before(value));
            if fresh > 0 {
                sparse.us.push(counts.lowest_equivalent(value));
                sparse.n.push(fresh);
            }
        }
        let (Some(&first), Some(&last)) = (sparse.us.first(), sparse.us.last()) else {
            return sparse;
        };
        let new = earlier.count == 0;
        let min = if new || self.min < earlier.min {
            self.min
        } else {
            self.min.max(first * 1000)
        };
        let max = if new || self.max > earlier.max {
            self.max
        } else {
            self.max
                .min((counts.highest_equivalent(last) + 1) * 1000 - 1)
        };
        sparse.count = self.count - earlier.count;
        sparse.sum_s = (self.sum - earlier.sum) as f64 / 1e9;
        sparse.min_s = Some(seconds(min));
        sparse.max_s = Some(seconds(max));
        sparse
    }

    /// Adds what was recorded elsewhere, or at another time.
    pub fn add(&mut self, sparse: &Sparse) {
        let (Some(min_s), Some(max_s)) = (sparse.min_s, sparse.max_s) else {
            return;
        };
        let (min, max) = (nanoseconds(min_s), nanoseconds(max_s));
        if self.count == 0 {
            (self.min, self.max) = (min, max);
        } else {
            self.min = self.min.min(min);
            self.max = self.max.max(max);
        }
        self.count += sparse.count;
        self.sum += (sparse.sum_s * 1e9).round() as u128;
        let counts = self.counts.get_or_insert_with(new_counts);
        for (&us, &n) in sparse.us.iter().zip(&sparse.n) {
            counts.saturating_record_n(us, n);
        }
    }

    /// Seconds.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let summary = || {
            Some(Summary {
                min: seconds(self.min),
                p50: self.quantile_s(0.5)?,
                p90: self.quantile_s(0.9)?,
                p99: self.quantile_s(0.99)?,
                max: seconds(self.max),
                sum: self.sum_s(),
            })
        };
        Distribution {
            count: self.count,
            summary: summary(),
        }
    }
}

fn new_counts() -> Box<Histogram<u64>> {
    Box::new(
        Histogram::new_with_bounds(1, HOUR_US, 3)
            .expect("1 µs to 1 h at 3 figures is a valid range"),
    )
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn nanoseconds(s: f64) -> u64 {
    (s * 1e9).round() as u64
}

/// The part of a distribution that fell into one interval: only the places
/// where something was recorded. Parts [`add`](Durations::add) up to the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    pub count: u64,
    pub sum_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_s: Option<f64>,
    /// Where each place begins, microseconds; it is a thousandth wide, or 1 µs.
    pub us: Vec<u64>,
    /// How many fell there.
    pub n: Vec<u64>,
}

/// How many lives of an interval fell into each band: a place of three figures
/// is too wide to tell 59.9996 s from 60 s.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bands {
    /// Where each begins, seconds; it ends where the next begins, the last nowhere.
    pub ge: Vec<f64>,
    pub n: Vec<u64>,
}

/// Bands below 2MSL, in nanoseconds: where each begins.
const EARLY_EDGES: [u64; 8] = [
    0,
    1_000_000,
    100_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    15_000_000_000,
    30_000_000_000,
];

/// RFC 9293's 2MSL.
const RFC_9293: u64 = 240_000_000_000;

/// TIME_WAIT lives: their distribution and how many fell into each band.
#[derive(Clone, Debug)]
pub struct Lives {
    durations: Durations,
    edges: Vec<u64>,
    counts: Vec<u64>,
}

impl Default for Lives {
    fn default() -> Lives {
        Lives::new(0, 0)
    }
}

impl Lives {
    /// `nominal` and `slack` bound the 2MSL band, in nanoseconds.
    #[must_use]
    pub fn new(nominal: u64, slack: u64) -> Lives {
        let edges = edges(nominal, slack);
        let counts = vec![0; edges.len()];
        Lives {
            durations: Durations::default(),
            edges,
            counts,
        }
    }

    /// The 2MSL band turned out to be elsewhere. Lives recorded before are put
    /// into the new bands to three figures: all that is still known of them.
    pub fn retune(&mut self, nominal: u64, slack: u64) {
        self.reband(edges(nominal, slack));
    }

    fn reband(&mut self, edges: Vec<u64>) {
        self.counts = vec![0; edges.len()];
        self.edges = edges;
        if let Some(counts) = &self.durations.counts {
            for value in counts.iter_recorded() {
                let band = band(&self.edges, value.value_iterated_to().saturating_mul(1000));
                self.counts[band] += value.count_at_value();
            }
        }
    }

    pub fn record_ns(&mut self, ns: u64) {
        self.counts[band(&self.edges, ns)] += 1;
        self.durations.record_ns(ns);
    }

    /// What fell into each band since they were `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Lives) -> Bands {
        let mut rebanded;
        let mut before = earlier;
        if earlier.edges != self.edges {
            rebanded = earlier.clone();
            rebanded.reband(self.edges.clone());
            before = &rebanded;
        }
        let counts = self.counts.iter().zip(&before.counts);
        Bands {
            ge: self.edges.iter().copied().map(seconds).collect(),
            n: counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }

    /// Adds the lives of an interval: those of each reason, and their bands.
    pub fn add<'a>(&mut self, lives: impl IntoIterator<Item = &'a Sparse>, bands: &Bands) {
        let edges: Vec<u64> = bands.ge.iter().copied().map(nanoseconds).collect();
        if edges != self.edges {
            self.reband(edges);
        }
        for sparse in lives {
            self.durations.add(sparse);
        }
        for (count, n) in self.counts.iter_mut().zip(&bands.n) {
            *count += n;
        }
    }

    #[must_use]
    pub fn distribution(&self) -> Distribution {
        self.durations.distribution()
    }

    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        let ends = self.edges.iter().skip(1).copied().map(Some).chain([None]);
        self.edges
            .iter()
            .zip(ends)
            .zip(&self.counts)
            .map(|((&ge, lt), &count)| Bucket {
                ge: seconds(ge),
                lt: lt.map(seconds),
                count,
            })
            .collect()
    }
}

fn edges(nominal: u64, slack: u64) -> Vec<u64> {
    let mut edges: Vec<u64> = EARLY_EDGES
        .into_iter()
        .filter(|&edge| edge < nominal.max(1))
        .collect();
    edges.extend(
        [nominal, nominal + slack]
            .into_iter()
            .filter(|&edge| edge > 0),
    );
    if RFC_9293 > nominal + slack {
        edges.push(RFC_9293);
    }
    edges.dedup();
    edges
}

fn band(edges: &[u64], ns: u64) -> usize {
    edges.partition_point(|&edge| edge <= ns).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{Durations, Lives};

    const MS: u64 = 1_000_000;
    const NOMINAL: u64 = 60_000 * MS;
    const SLACK: u64 = 2_048 * MS;

    fn counted(lives: &Lives) -> Vec<(f64, u64)> {
        lives
            .buckets()
            .into_iter()
            .filter(|b| b.count > 0)
            .map(|b| (b.ge, b.count))
            .collect()
    }

    #[test]
    fn a_life_just_under_2msl_stays_out_of_its_band() {
        let mut lives = Lives::new(NOMINAL, SLACK);
        for us in [59_999_600, 60_000_000, 62_047_999, 62_048_000] {
            lives.record_ns(us * 1000);
        }
        assert_eq!(counted(&lives), [(30.0, 1), (60.0, 2), (62.048, 1)]);
    }

    #[test]
    fn bands_end_where_the_next_begins_and_the_last_is_open() {
        let buckets = Lives::new(NOMINAL, SLACK).buckets();
        let edges: Vec<f64> = buckets.iter().map(|b| b.ge).collect();
        assert_eq!(
            edges,
            [
                0.0, 0.001, 0.1, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 62.048, 240.0
            ]
        );
        assert!(
            buckets.windows(2).all(|w| w[0].lt == Some(w[1].ge)),
            "{buckets:?}"
        );
        assert_eq!(buckets.last().and_then(|b| b.lt), None);
    }

    #[test]
    fn another_2msl_moves_what_was_recorded() {
        let mut lives = Lives::new(NOMINAL, SLACK);
        lives.record_ns(15_500 * MS);
        lives.record_ns(3_000 * MS);
        lives.retune(15_000 * MS, 1_000 * MS);
        assert_eq!(counted(&lives), [(2.0, 1), (15.0, 1)]);
    }

    #[test]
    fn extremes_are_exact_and_quantiles_to_three_figures() {
        let mut durations = Durations::default();
        for ms in 1..=1000 {
            durations.record_ns(ms * MS + 1);
        }
        let summary = durations
            .distribution()
            .summary
            .expect("1000 were recorded");
        assert_eq!((summary.min, summary.max), (0.001_000_001, 1.000_000_001));
        assert!((summary.p50 - 0.5).abs() < 0.001, "{summary:?}");
        assert!((summary.sum - 500.500_001).abs() < 1e-6, "{summary:?}");
    }

    #[test]
    fn nothing_recorded_says_nothing() {
        assert_eq!(Durations::default().distribution().summary, None);
    }
}
