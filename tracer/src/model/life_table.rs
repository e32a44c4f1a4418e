//! The period life table of TIME_WAIT (docs/statistics.md, "The period life table").
//!
//! Deaths over socket-seconds at each age, whoever was there at that age:
//! sockets found by a seed enter at the age of their last arm, sockets still
//! alive leave at their present age. So the share that reaches 2MSL is known
//! long before a life of that length has been seen. What is alive is kept by
//! cohorts of like origin; a table is drawn up without looking at a socket.

use rustc_hash::FxHashMap;

use super::event::Moment;
use super::snapshot::{LifeTable, MeanEstimate, ShareEstimate};

/// Width of an age, nanoseconds.
const AGE: u64 = 500_000_000;
/// Ages up to 128 s: two lives of 60 s, so that re-armed ones still show.
const AGES: usize = 256;
/// Origins this close together are counted as one cohort.
const COHORT: u64 = 50_000_000;

/// Two-sided 95 %.
const Z: f64 = 1.96;
/// `−ln 0.025`: with no death at all, the hazard times exposure that 97.5 %
/// would have shown.
const NONE_SEEN: f64 = 3.689;
/// Fewer than this share alive: the ages nobody was left to be seen at change
/// neither the share that reaches 2MSL nor the mean.
const NEARLY_NONE: f64 = 0.005;
/// Deaths past 2MSL from which on the tail is measured rather than deduced
/// from the timer wheel.
const TAIL_DEATHS: u64 = 30;

#[derive(Clone, Copy, Debug, Default)]
struct Passages {
    count: u64,
    /// How far into the age they happened, nanoseconds, summed.
    into: u128,
}

impl Passages {
    fn add(&mut self, count: u64, into: u128) {
        self.count += count;
        self.into += into;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cohort {
    alive: u64,
    /// Origins less the cohort's first, nanoseconds, summed.
    offsets: u128,
}

#[derive(Clone, Debug)]
pub struct Ages {
    entries: Box<[Passages; AGES]>,
    exits: Box<[Passages; AGES]>,
    deaths: Box<[u64; AGES]>,
    alive: FxHashMap<u64, Cohort>,
}

impl Default for Ages {
    fn default() -> Ages {
        Ages {
            entries: Box::new([Passages::default(); AGES]),
            exits: Box::new([Passages::default(); AGES]),
            deaths: Box::new([0; AGES]),
            alive: FxHashMap::default(),
        }
    }
}

impl Ages {
    /// A TIME_WAIT that began at `origin` comes under observation.
    pub fn enter(&mut self, origin: Moment, at: Moment) {
        let (age, into) = place(at.0.saturating_sub(origin.0));
        self.entries[age].add(1, into);
        let cohort = self.alive.entry(origin.0 / COHORT).or_default();
        cohort.alive += 1;
        cohort.offsets += u128::from(origin.0 % COHORT);
    }

    /// It goes, by its end (`died`) or out of sight.
    pub fn leave(&mut self, origin: Moment, at: Moment, died: bool) {
        let (age, into) = place(at.0.saturating_sub(origin.0));
        self.exits[age].add(1, into);
        if died {
            self.deaths[age] += 1;
        }
        if let Some(cohort) = self.alive.get_mut(&(origin.0 / COHORT)) {
            cohort.alive -= 1;
            cohort.offsets -= u128::from(origin.0 % COHORT);
            if cohort.alive == 0 {
                self.alive.remove(&(origin.0 / COHORT));
            }
        }
    }

    /// The table as of `now`; `nominal` and `slack` (nanoseconds) say where 2MSL is.
    #[must_use]
    pub fn table(&self, now: Moment, nominal: u64, slack: u64) -> LifeTable {
        let seen = self.seen(now);
        let socket_seconds = seen.iter().map(|seen| seen.exposure).sum();
        match self.rows(&seen, nominal) {
            Rows::Through { early, late } => LifeTable {
                socket_seconds,
                reaches_2msl: Some(share(&early)),
                mean_s: Some(mean(&early, &late, slack as f64 / 1e9)),
                seen_to_s: None,
            },
            Rows::DiedOut { early, unseen_s } => {
                let left = share(&early);
                let mut mean = mean(&early, &[], 0.0);
                mean.high += left.high * (unseen_s + slack as f64 / 1e9);
                LifeTable {
                    socket_seconds,
                    reaches_2msl: Some(ShareEstimate {
                        share: 0.0,
                        low: 0.0,
                        high: left.high,
                    }),
                    mean_s: Some(mean),
                    seen_to_s: None,
                }
            }
            Rows::Gap { seen_to_s } => LifeTable {
                socket_seconds,
                seen_to_s,
                ..LifeTable::default()
            },
        }
    }

    /// Who was looked at, at each age.
    fn seen(&self, now: Moment) -> [Seen; AGES] {
        let mut exits = self.exits.clone();
        for (&key, cohort) in &self.alive {
            let origin = key * COHORT + (cohort.offsets / u128::from(cohort.alive)) as u64;
            let (age, into) = place(now.0.saturating_sub(origin));
            exits[age].add(cohort.alive, into * u128::from(cohort.alive));
        }
        let mut seen = [Seen::default(); AGES];
        let mut present = 0_i128;
        for age in 0..AGES {
            let (came, went) = (self.entries[age], exits[age]);
            let rest = |p: Passages| i128::from(p.count) * i128::from(AGE) - p.into as i128;
            let ns = present * i128::from(AGE) + rest(came) - rest(went);
            let all = present + i128::from(came.count);
            let out_of_sight = went.count.saturating_sub(self.deaths[age]);
            seen[age] = Seen {
                exposure: ns.max(0) as f64 / 1e9,
                at_risk: all as f64 - out_of_sight as f64 / 2.0,
            };
            present = all - i128::from(went.count);
        }
        seen
    }

    fn rows(&self, seen: &[Seen; AGES], nominal: u64) -> Rows {
        let last = usize::try_from(nominal.div_ceil(AGE))
            .unwrap_or(AGES)
            .clamp(1, AGES);
        let mut early: Vec<Row> = Vec::with_capacity(last);
        for age in 0..last {
            let start = age as u64 * AGE;
            let width = (nominal.max(1) - start).min(AGE) as f64 / 1e9;
            if seen[age].exposure <= 0.0 {
                let oldest = seen[age..last].iter().all(|later| later.exposure <= 0.0);
                if oldest && self.survivors(&seen[..age]) < NEARLY_NONE && died_out(&mut early) {
                    let unseen_s = (nominal - start) as f64 / 1e9;
                    return Rows::DiedOut { early, unseen_s };
                }
                return Rows::Gap {
                    seen_to_s: (oldest && age > 0).then_some(start as f64 / 1e9),
                };
            }
            let row = Row {
                width,
                exposure: seen[age].exposure,
                deaths: self.deaths[age],
            };
            match early.last_mut() {
                // A death at an age that hardly anybody was seen at would weigh
                // as a certainty: such ages are read together with the next.
                Some(before) if before.exposure < before.width => before.add(row),
                _ => early.push(row),
            }
        }
        let late = (last..AGES)
            .map(|age| Row {
                width: AGE as f64 / 1e9,
                exposure: seen[age].exposure,
                deaths: self.deaths[age],
            })
            .take_while(|row| row.exposure > 0.0)
            .collect();
        Rows::Through { early, late }
    }

    /// The share that outlives these ages by heads rather than by time: where
    /// deaths crowd at the beginning of an age, the time of those that were
    /// spared has hardly begun, and the hazard looks the higher for it.
    fn survivors(&self, seen: &[Seen]) -> f64 {
        seen.iter()
            .zip(self.deaths.iter())
            .filter(|(_, deaths)| **deaths > 0)
            .map(|(seen, &deaths)| (1.0 - deaths as f64 / seen.at_risk).max(0.0))
            .product()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Socket-seconds.
    exposure: f64,
    /// Heads; whoever went out of sight counts half.
    at_risk: f64,
}

/// What the ages up to 2MSL allow to say.
enum Rows {
    /// Each was looked at: the rows before and after 2MSL.
    Through { early: Vec<Row>, late: Vec<Row> },
    /// Those before 2MSL were looked at until nearly nobody was left.
    DiedOut {
        early: Vec<Row>,
        /// Between the last of them and 2MSL.
        unseen_s: f64,
    },
    /// Some age that many may reach was never looked at.
    Gap {
        /// Where nobody was seen from some age on: that age.
        seen_to_s: Option<f64>,
    },
}

/// Whether nearly none outlived these rows. The last may be read together with
/// the one before it.
fn died_out(early: &mut Vec<Row>) -> bool {
    let thin = |row: &Row| row.exposure < row.width && row.deaths < TAIL_DEATHS;
    if early.len() > 1
        && let Some(last) = early.pop_if(|row| thin(row))
        && let Some(before) = early.last_mut()
    {
        before.add(last);
    }
    early.last().is_some_and(|row| !thin(row)) && share(early).share < NEARLY_NONE
}

/// The age a duration falls into, and how far into it.
fn place(age: u64) -> (usize, u128) {
    let index = age / AGE;
    if index >= AGES as u64 {
        (AGES - 1, u128::from(AGE))
    } else {
        (index as usize, u128::from(age % AGE))
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Seconds.
    width: f64,
    /// Socket-seconds.
    exposure: f64,
    deaths: u64,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.width += other.width;
        self.exposure += other.exposure;
        self.deaths += other.deaths;
    }

    fn hazard(&self) -> f64 {
        self.deaths as f64 * self.width / self.exposure
    }

    /// Greenwood's contribution to the variance of the cumulative hazard.
    fn variance(&self) -> f64 {
        self.deaths as f64 * (self.width / self.exposure).powi(2)
    }
}

/// Survival to 2MSL, with the interval on the complementary log-log scale,
/// which keeps it between 0 and 1.
fn share(early: &[Row]) -> ShareEstimate {
    let hazard: f64 = early.iter().map(Row::hazard).sum();
    if hazard == 0.0 {
        // Whatever hazard there is may sit at the age that was looked at least.
        let thinnest = early
            .iter()
            .map(|row| row.width / row.exposure)
            .fold(0.0, f64::max);
        return ShareEstimate {
            share: 1.0,
            low: (-NONE_SEEN * thinnest).exp(),
            high: 1.0,
        };
    }
    let spread = Z * early.iter().map(Row::variance).sum::<f64>().sqrt() / hazard;
    ShareEstimate {
        share: (-hazard).exp(),
        low: (-hazard * spread.exp()).exp(),
        high: (-hazard * (-spread).exp()).exp(),
    }
}

/// The area under the survival curve, by the delta method.
fn mean(early: &[Row], late: &[Row], slack: f64) -> MeanEstimate {
    // Until enough have reached 2MSL to show it, the wheel spreads expiries
    // evenly over its slack.
    let measured_tail = late.iter().map(|row| row.deaths).sum::<u64>() >= TAIL_DEATHS;
    let rows: Vec<Row> = early
        .iter()
        .chain(late.iter().filter(|_| measured_tail))
        .copied()
        .collect();

    let mut alive = 1.0;
    let mut areas = Vec::with_capacity(rows.len());
    for row in &rows {
        let rate = row.hazard() / row.width;
        let end = alive * (-row.hazard()).exp();
        areas.push(if rate > 0.0 {
            (alive - end) / rate
        } else {
            alive * row.width
        });
        alive = end;
    }
    let mut ahead = if measured_tail {
        0.0
    } else {
        alive * slack / 2.0
    };
    let (mut variance, mut thinnest) = (0.0, 0.0_f64);
    for (row, area) in rows.iter().zip(&areas).rev() {
        // A death at this age costs what lies ahead of it, about half of the age included.
        let cost = ahead + area / 2.0;
        variance += cost.powi(2) * row.variance();
        thinnest = thinnest.max(cost * row.width / row.exposure);
        ahead += area;
    }
    let estimate = ahead;
    let (below, above) = if early.iter().all(|row| row.deaths == 0) {
        (NONE_SEEN * thinnest, Z * variance.sqrt())
    } else {
        (Z * variance.sqrt(), Z * variance.sqrt())
    };
    MeanEstimate {
        estimate,
        low: (estimate - below).max(0.0),
        high: estimate + above,
    }
}

#[cfg(test)]
mod tests;
