//! The period life table of TIME_WAIT (docs/statistics.md, "The period life table").
//!
//! Deaths over socket-seconds at each age, whoever was there at that age:
//! sockets found by a seed enter at the age of their last arm, sockets still
//! alive leave at their present age. So the share that reaches 2MSL is known
//! long before a life of that length has been seen. What is alive is kept by
//! cohorts of like origin; a table is drawn up without looking at a socket.
//!
//! Here is who was watched and who died; [`table`] holds what follows from it.

mod table;

use rustc_hash::FxHashMap;

use super::event::Moment;
use super::snapshot::LifeTable;

/// Width of an age, nanoseconds.
pub const AGE: u64 = 500_000_000;
/// Ages up to 128 s: two lives of 60 s, so that re-armed ones still show.
pub const AGES: usize = 256;
/// Origins this close together are counted as one cohort.
const COHORT: u64 = 50_000_000;

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
    /// Those exits that were ends.
    deaths: Box<[Passages; AGES]>,
    alive: FxHashMap<u64, Cohort>,
}

impl Default for Ages {
    fn default() -> Ages {
        Ages {
            entries: Box::new([Passages::default(); AGES]),
            exits: Box::new([Passages::default(); AGES]),
            deaths: Box::new([Passages::default(); AGES]),
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
            self.deaths[age].add(1, into);
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
        self.sums(now).table(nominal, slack)
    }

    /// What was seen at each age up to `now`.
    #[must_use]
    pub fn sums(&self, now: Moment) -> AgeSums {
        let mut exits = self.exits.clone();
        for (&key, cohort) in &self.alive {
            let origin = key * COHORT + (cohort.offsets / u128::from(cohort.alive)) as u64;
            let (age, into) = place(now.0.saturating_sub(origin));
            exits[age].add(cohort.alive, into * u128::from(cohort.alive));
        }
        let mut sums = AgeSums::default();
        let mut present = 0_i128;
        for (age, (came, went)) in self.entries.iter().zip(exits.iter()).enumerate() {
            let rest = |p: &Passages| i128::from(p.count) * i128::from(AGE) - p.into as i128;
            let ns = present * i128::from(AGE) + rest(came) - rest(went);
            sums.exposure_s[age] = ns as f64 / 1e9;
            sums.deaths[age] = self.deaths[age].count;
            sums.lived_s[age] = self.deaths[age].into as f64 / 1e9;
            present += i128::from(came.count) - i128::from(went.count);
        }
        sums
    }
}

/// What a life table is drawn up from, by age: what was seen in any stretch of
/// time, so that two stretches add up.
#[derive(Clone, Debug, PartialEq)]
pub struct AgeSums {
    /// Socket-seconds. In the difference of two moments it may be a little
    /// negative, since a cohort passes from age to age as one.
    pub exposure_s: [f64; AGES],
    pub deaths: [u64; AGES],
    /// How far into the age those that died had come, seconds, summed.
    pub lived_s: [f64; AGES],
}

impl Default for AgeSums {
    fn default() -> AgeSums {
        AgeSums {
            exposure_s: [0.0; AGES],
            deaths: [0; AGES],
            lived_s: [0.0; AGES],
        }
    }
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

#[cfg(test)]
mod tests;
