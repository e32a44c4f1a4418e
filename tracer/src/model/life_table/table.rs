//! What a life table says: the share that reaches 2MSL, the mean and the
//! median life, each with what may be wrong about it by chance.
//!
//! At each age the share that dies is Chiang's: it takes from the deaths where
//! in the age they happened, so that it is exact where a whole generation was
//! watched, however its deaths crowd. Survival is the product over the ages,
//! its variance Greenwood's, its interval on the complementary log-log scale.

use super::{AGE, AGES, AgeSums};
use crate::model::snapshot::{LifeTable, MeanEstimate, ShareEstimate};

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
/// Less time watched at an age than this is the rounding of a cohort.
const NOBODY_S: f64 = 1e-6;

impl AgeSums {
    /// `nominal` and `slack` (nanoseconds) say where 2MSL is.
    #[must_use]
    pub fn table(&self, nominal: u64, slack: u64) -> LifeTable {
        let socket_seconds = self.exposure_s.iter().sum::<f64>().max(0.0);
        let slack_s = slack as f64 / 1e9;
        match self.by_age(nominal) {
            Rows::Through { early, late } => LifeTable {
                socket_seconds,
                reaches_2msl: Some(share(&early)),
                mean_s: Some(mean(&early, &late, slack_s)),
                seen_to_s: None,
            },
            Rows::DiedOut { early, unseen_s } => {
                let left = left_at_most(&early);
                let mut mean = mean(&early, &[], 0.0);
                mean.high += left * (unseen_s + slack_s);
                LifeTable {
                    socket_seconds,
                    reaches_2msl: Some(ShareEstimate {
                        share: 0.0,
                        low: 0.0,
                        high: left,
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

    /// The age that half of them reach; `None` where that is not known.
    #[must_use]
    pub fn median_s(&self, nominal: u64, slack: u64) -> Option<f64> {
        let (early, late) = match self.by_age(nominal) {
            Rows::Through { early, late } => (early, late),
            Rows::DiedOut { early, .. } => (early, Vec::new()),
            Rows::Gap { .. } => return None,
        };
        let (mut alive, mut age) = (1.0, 0.0);
        let measured = tail_is_measured(&late);
        for row in early.iter().chain(late.iter().filter(|_| measured)) {
            let end = alive * row.survive();
            if end <= 0.5 {
                return Some(age + row.width * (alive - 0.5) / (alive - end));
            }
            alive = end;
            age += row.width;
        }
        // What outlives 2MSL is spread evenly over the wheel's slack.
        (!measured && alive > 0.5)
            .then(|| nominal as f64 / 1e9 + slack as f64 / 1e9 * (1.0 - 0.5 / alive))
    }

    /// The share that reaches each age, in steps of [`AGE`] from 0 on; after
    /// the last none does. `None` where that is not known.
    #[must_use]
    pub fn surviving(&self, nominal: u64, slack: u64) -> Option<Vec<f64>> {
        let (early, late) = match self.by_age(nominal) {
            Rows::Through { early, late } => (early, late),
            Rows::DiedOut { early, .. } => (early, Vec::new()),
            Rows::Gap { .. } => return None,
        };
        let step = AGE as f64 / 1e9;
        let (mut alive, mut shares) = (1.0, vec![1.0]);
        let measured = tail_is_measured(&late);
        for row in early.iter().chain(late.iter().filter(|_| measured)) {
            let end = alive * row.survive();
            // Ages that were read together: evenly from one end to the other.
            let steps = (row.width / step).round().max(1.0);
            for i in 1..=steps as usize {
                shares.push(alive + (end - alive) * i as f64 / steps);
            }
            alive = end;
        }
        if !measured {
            let steps = (slack as f64 / AGE as f64).ceil();
            for i in 1..=steps as usize {
                shares.push(alive * (1.0 - i as f64 / steps));
            }
        }
        Some(shares)
    }

    fn by_age(&self, nominal: u64) -> Rows {
        let last = usize::try_from(nominal.div_ceil(AGE))
            .unwrap_or(AGES)
            .clamp(1, AGES);
        let nobody = |age: usize| self.exposure_s[age] <= NOBODY_S;
        let mut early: Vec<Row> = Vec::with_capacity(last);
        for age in 0..last {
            let start = age as u64 * AGE;
            if nobody(age) {
                let oldest = (age..last).all(nobody);
                if oldest && died_out(&mut early) {
                    let unseen_s = (nominal - start) as f64 / 1e9;
                    return Rows::DiedOut { early, unseen_s };
                }
                return Rows::Gap {
                    seen_to_s: (oldest && age > 0).then_some(start as f64 / 1e9),
                };
            }
            let row = self.row(age, (nominal.max(1) - start).min(AGE));
            match early.last_mut() {
                // A death at an age that hardly anybody was seen at would weigh
                // as a certainty: such ages are read together with the next.
                Some(before) if before.is_thin() => before.add(row),
                _ => early.push(row),
            }
        }
        let late = (last..AGES)
            .take_while(|&age| !nobody(age))
            .map(|age| self.row(age, AGE))
            .collect();
        Rows::Through { early, late }
    }

    fn row(&self, age: usize, width: u64) -> Row {
        Row {
            width: width as f64 / 1e9,
            exposure: self.exposure_s[age],
            deaths: self.deaths[age] as f64,
            into: self.lived_s[age],
        }
    }
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
    let weak = |row: &Row| row.is_thin() && row.deaths < TAIL_DEATHS as f64;
    if early.len() > 1
        && let Some(last) = early.pop_if(|row| weak(row))
        && let Some(before) = early.last_mut()
    {
        before.add(last);
    }
    early.last().is_some_and(|row| !weak(row))
        && early.iter().map(Row::survive).product::<f64>() < NEARLY_NONE
}

fn tail_is_measured(late: &[Row]) -> bool {
    late.iter().map(|row| row.deaths).sum::<f64>() >= TAIL_DEATHS as f64
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Seconds.
    width: f64,
    /// Socket-seconds.
    exposure: f64,
    deaths: f64,
    /// Seconds from the row's beginning to each death, summed.
    into: f64,
}

impl Row {
    /// Reads the next age together with this one.
    fn add(&mut self, next: Row) {
        self.into += next.into + self.width * next.deaths;
        self.width += next.width;
        self.exposure += next.exposure;
        self.deaths += next.deaths;
    }

    fn is_thin(&self) -> bool {
        self.exposure < self.width
    }

    /// Where in the row its deaths lie, 0 to 1.
    fn position(&self) -> f64 {
        if self.deaths > 0.0 {
            (self.into / (self.deaths * self.width)).clamp(0.0, 1.0)
        } else {
            0.5
        }
    }

    /// The most that the variance of where they lie can be, seconds squared
    /// (Bhatia and Davis 2000): the sum alone is kept.
    fn scatter(&self) -> f64 {
        self.position() * (1.0 - self.position()) * self.width.powi(2)
    }

    /// Heads that were at risk: of a generation watched whole, its number.
    fn at_risk(&self) -> f64 {
        let heads = self.exposure / self.width + (1.0 - self.position()) * self.deaths;
        heads.max(self.deaths)
    }

    /// The share of those at risk that outlives the row.
    fn survive(&self) -> f64 {
        if self.deaths > 0.0 {
            1.0 - self.deaths / self.at_risk()
        } else {
            1.0
        }
    }

    /// Greenwood's contribution to the relative variance of the survival;
    /// infinite where nobody survives.
    fn variance(&self) -> f64 {
        if self.deaths > 0.0 {
            let heads = self.at_risk();
            self.deaths / (heads * (heads - self.deaths))
        } else {
            0.0
        }
    }
}

/// Survival through these rows, with its interval on the complementary
/// log-log scale, which keeps it between 0 and 1.
fn share(rows: &[Row]) -> ShareEstimate {
    let survival: f64 = rows.iter().map(Row::survive).product();
    if survival >= 1.0 {
        // Whatever hazard there is may sit at the age that was looked at least.
        let thinnest = rows
            .iter()
            .map(|row| row.width / row.exposure)
            .fold(0.0, f64::max);
        return ShareEstimate {
            share: 1.0,
            low: (-NONE_SEEN * thinnest).exp(),
            high: 1.0,
        };
    }
    if survival <= 0.0 {
        return ShareEstimate {
            share: 0.0,
            low: 0.0,
            high: left_at_most(rows),
        };
    }
    let hazard = -survival.ln();
    let spread = Z * rows.iter().map(Row::variance).sum::<f64>().sqrt() / hazard;
    ShareEstimate {
        share: survival,
        low: (-hazard * spread.exp()).exp(),
        high: (-hazard * (-spread).exp()).exp(),
    }
}

/// The most that may outlive rows which nearly nobody did: what reached the
/// last deaths, times what may have been spared there.
fn left_at_most(rows: &[Row]) -> f64 {
    let ends_all = |row: &&Row| row.survive() <= 0.0;
    let Some(heads) = rows.iter().find(ends_all).map(Row::at_risk) else {
        return share(rows).high;
    };
    let before: Vec<Row> = rows
        .iter()
        .take_while(|row| !ends_all(row))
        .copied()
        .collect();
    share(&before).high * (NONE_SEEN / heads).min(1.0)
}

/// One row's part of the area under the survival curve: up to its deaths and
/// after them; and the share that dies in it.
struct Step {
    before: f64,
    after: f64,
    die: f64,
}

/// The area under the survival curve, by the delta method.
fn mean(early: &[Row], late: &[Row], slack: f64) -> MeanEstimate {
    // Until enough have reached 2MSL to show it, the wheel spreads expiries
    // evenly over its slack.
    let measured = tail_is_measured(late);
    let rows: Vec<Row> = early
        .iter()
        .chain(late.iter().filter(|_| measured))
        .copied()
        .collect();

    let mut alive = 1.0;
    let mut steps = Vec::with_capacity(rows.len());
    for row in &rows {
        let end = alive * row.survive();
        let until = row.position() * row.width;
        steps.push(Step {
            before: alive * until,
            after: end * (row.width - until),
            die: alive - end,
        });
        alive = end;
    }
    let mut ahead = if measured { 0.0 } else { alive * slack / 2.0 };
    let (mut variance, mut thinnest) = (0.0, 0.0_f64);
    for (row, step) in rows.iter().zip(&steps).rev() {
        // A death costs what lies ahead of it.
        let cost = ahead + step.after;
        if cost > 0.0 {
            variance += cost.powi(2) * row.variance();
        }
        if row.deaths > 0.0 {
            variance += step.die.powi(2) * row.scatter() / row.deaths;
        }
        thinnest = thinnest.max(cost * row.width / row.exposure);
        ahead += step.before + step.after;
    }
    let estimate = ahead;
    let chance = Z * variance.sqrt();
    let below = if early.iter().all(|row| row.deaths == 0.0) {
        NONE_SEEN * thinnest
    } else {
        chance
    };
    MeanEstimate {
        estimate,
        low: (estimate - below).max(0.0),
        high: estimate + chance,
    }
}

#[cfg(test)]
mod tests;
