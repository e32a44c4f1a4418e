//! The verdicts against loads whose truth is known, in a number of trials that
//! a test can afford. docs/statistics.md has the whole of it, printed by
//! `cargo run --release --example simulate`.

#[path = "../examples/simulate/lives.rs"]
mod lives;
#[path = "../examples/simulate/loads.rs"]
mod loads;
#[path = "../examples/simulate/trials.rs"]
mod trials;

use loads::{LOADS, Load};
use trials::{DESIGNS, Design, run};

const SEED: u64 = 7;

#[test]
fn nothing_is_rarely_called_a_difference() {
    for (load_name, load) in LOADS {
        for (name, design) in DESIGNS {
            let trials = if design == Design::Pairs { 300 } else { 150 };
            let outcome = run(design, load, 0.0, trials, SEED);
            let share = outcome.share(outcome.different);
            assert!(share <= 0.065, "{name}, {load_name}: {share} of {trials}");
        }
    }
}

#[test]
fn five_in_a_hundred_is_found_under_a_constant_load() {
    for (design, at_least) in [
        (Design::Pairs, 0.95),
        (Design::Parallel, 0.88),
        (Design::Switch, 0.95),
    ] {
        let outcome = run(design, Load::Constant, 0.05, 100, SEED);
        let share = outcome.share(outcome.found);
        assert!(share >= at_least, "{design:?}: {share} of 100");
        let none = run(design, Load::Constant, 0.0, 50, SEED);
        assert_eq!(none.unchanged, none.trials, "{design:?}");
    }
}

#[test]
fn intervals_of_the_life_table_cover_the_truth() {
    for (name, early) in lives::EARLY {
        for (seconds, runs) in [(5.0, 200), (30.0, 200), (130.0, 100)] {
            let found = lives::covered(early, 0.2, 60.0, seconds, runs, SEED);
            assert_eq!(found.runs, runs);
            for (what, covered) in [("share", found.share), ("mean", found.mean)] {
                let covered = f64::from(covered) / f64::from(runs);
                assert!(
                    (0.90..=0.99).contains(&covered),
                    "{name}, {seconds} s: 95 % intervals of the {what} cover {covered}"
                );
            }
        }
    }
}
