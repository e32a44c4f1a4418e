//! At rest the counts equal `ss`'s, in every state at once.

use anyhow::ensure;
use tracer::lab::netns::Netns;
use tracer::lab::population::Population;

use super::allowance::{self, FEW};
use super::churn::check_births;
use super::truth::{self, Mib, count};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict};

const EACH: u16 = 4;

/// Made partly before the start and partly after, then all let go.
pub(crate) fn equals_ss() -> Outcome {
    let netns = Netns::new()?;
    let mut population = Population::new(&netns)?;
    population.grow(EACH)?;
    let before = truth::ss(&netns)?;
    for (state, &n) in &before {
        ensure!(
            n >= u64::from(EACH),
            "the population has too few in {state}: {before:?}"
        );
    }

    let mib = Mib::read(&netns)?;
    let live = Twtrace::live(&netns, &[])?;
    let seeded = live.equals_ss(&netns)?;
    for (state, &n) in &before {
        let of = |key| count(&seeded, &["states", state, key]);
        ensure!(
            of("seeded") == n && of("entered") == 0,
            "{state} was not seeded as it stood: {seeded:#}"
        );
    }

    population.grow(EACH)?;
    let grown = live.equals_ss(&netns)?;
    for state in before.keys() {
        ensure!(
            count(&grown, &["states", state, "entered"]) > 0,
            "none entered {state}: {grown:#}"
        );
    }
    allowance::check(&grown, FEW)?;
    check_births(&netns, &mib, &grown)?;

    drop(population);
    live.equals_ss(&netns)?;
    allowance::check(&live.last()?, FEW)?;
    Ok(Verdict::Held)
}
