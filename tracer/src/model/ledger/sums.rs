//! What stands behind a snapshot's quantiles and estimates, as it can be added
//! up: the distributions themselves and the life table's ages.

use super::super::event::{Moment, Reason, State};
use super::super::histogram::{Durations, Lives};
use super::super::life_table::{AgeSums, Ages};
use super::Ledger;
use super::tally::end_name;

/// Since the start of the run, up to the last event.
#[derive(Clone, Copy, Debug)]
pub struct Sums<'a> {
    pub connect_latency: &'a Durations,
    /// Whole lives in TIME_WAIT.
    pub lives: &'a Lives,
    lives_by_reason: &'a [Durations; Reason::ALL.len()],
    pub orphan_lives: &'a Durations,
    ages: &'a Ages,
}

impl Ledger {
    #[must_use]
    pub fn sums(&self) -> Sums<'_> {
        Sums {
            connect_latency: &self.tally.connect_latency,
            lives: &self.tally.lives,
            lives_by_reason: &self.tally.lives_by_reason,
            orphan_lives: &self.tally.orphans.lives,
            ages: &self.tally.ages,
        }
    }
}

impl Sums<'_> {
    /// The lives that ended for each reason, by its name; where none did, none.
    pub fn lives_by_reason(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        Reason::ALL
            .into_iter()
            .map(|reason| {
                let lives = &self.lives_by_reason[reason as usize];
                (end_name(State::TimeWait, reason), lives)
            })
            .filter(|(_, lives)| lives.count() > 0)
    }

    #[must_use]
    pub fn ages(&self, now: Moment) -> AgeSums {
        self.ages.sums(now)
    }
}
