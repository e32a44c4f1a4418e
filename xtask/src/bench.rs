//! `bench`: what twtrace costs the connections that it watches.
//!
//! The load is `churn`, in a namespace of its own for each measurement. A round
//! measures it once with each mode and once without, in an order drawn by lot;
//! what is compared are the two of one round, so that a machine whose speed
//! drifts is no matter. A busy machine is not judged by.

mod machine;
mod measure;
mod process;
mod statistics;
mod table;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use self::machine::Rest;
use self::measure::{Built, Load, Measured, Mode, measure};
use self::statistics::Lot;
use self::table::Row;
use crate::command::{output, run};
use crate::toolchain::root;
use crate::{say, seed_by_chance};

/// Below this many pairs an interval is too wide and too unsure to judge by.
const ENOUGH_PAIRS: usize = 12;

/// Other work on the machine during the load, as a share of it, beyond which
/// nothing is judged.
const DISTURBED: f64 = 0.08;

/// What each mode is built to cost a connection at most, as a multiple of what empty
/// programs on the same hooks cost it.
const AIMS: [(Mode, f64); 2] = [(Mode::Live, 1.6), (Mode::Events, 1.7)];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rounds; each is one pair for every mode
    #[arg(long, default_value_t = 12, value_name = "N")]
    pairs: usize,
    /// Connections of each measurement
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    connections: u64,
    /// Threads that make them, side by side
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// Three rounds of 20,000 connections: whether it works, not how well
    #[arg(long, conflicts_with_all = ["pairs", "connections"])]
    quick: bool,
    /// A tracer to run beside, in the same table; with $NETNS and $NETNS_INODE, the load's namespace
    #[arg(long, value_name = "COMMAND")]
    peer: Vec<String>,
    /// The seed of the order
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Measure on a busy machine as well, and judge nothing
    #[arg(long)]
    anyway: bool,
}

pub(crate) fn bench(options: &Options, target: &Path) -> Result<()> {
    // Before the build, which is work itself.
    let rest = Rest::look()?;
    let objection = rest.objection();
    if let (Some(objection), false) = (&objection, options.anyway) {
        bail!(
            "{objection}; wait until it rests, or say --anyway to have figures that judge nothing"
        );
    }
    let built = build(target)?;
    let (pairs, connections) = if options.quick {
        (3, 20_000)
    } else {
        (options.pairs, options.connections)
    };
    let seed = options.seed.unwrap_or_else(|| seed_by_chance().into());
    let mut modes = vec![Mode::None, Mode::Floor, Mode::Live, Mode::Events];
    modes.extend(options.peer.iter().cloned().map(Mode::Peer));

    let load = Load {
        connections,
        threads: options.threads,
    };
    let rows = rounds(&built, &modes, pairs, load, seed)?;
    say(format_args!(
        "{}; {}\n{pairs} pairs of {connections} connections, {} of them side by side, seed {seed}",
        machine::description()?,
        output(Command::new("date").arg("+%F"))?.trim_end(),
        options.threads,
    ))?;
    let others = |value: fn(&Measured) -> f64| -> Vec<f64> {
        let all = rows.iter().flat_map(|row| &row.measured);
        all.map(value).collect()
    };
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (others, stolen) = (others(|one| one.others), others(|one| one.stolen));
    let usual = statistics::median(&others).unwrap_or(0.0);
    say(format_args!(
        "load before: {:.2}; taken by others meanwhile: {:.1} % of the machine, at most {:.1} %; by its host at most {:.1} %\n",
        rest.load,
        100.0 * usual,
        100.0 * most(&others),
        100.0 * most(&stolen)
    ))?;
    let disturbed = (usual > DISTURBED)
        .then(|| "others took more than a twelfth of this machine meanwhile".to_owned());
    let watched = (rows.iter().flat_map(|row| &row.measured))
        .any(|one| one.bystanders > 0)
        .then(|| "another twtrace watched as well".to_owned());
    let warning = objection.or(disturbed).or(watched);
    if let Some(warning) = &warning {
        say(format_args!("WARNING: {warning}: nothing is judged\n"))?;
    }
    say(format_args!("{}", table::rates(&rows)))?;
    if warning.is_none() {
        judge(&rows, pairs)?;
    }
    run_times(&built, &modes, load)
}

fn build(target: &Path) -> Result<Built> {
    run(Command::new("cargo")
        .args(["build", "--release", "--locked", "--package", "tracer"])
        .args([
            "--bin",
            "twtrace",
            "--example",
            "churn",
            "--example",
            "programs",
            "--example",
            "floor",
        ])
        .current_dir(root()))?;
    let release = target.join("release");
    Ok(Built {
        twtrace: release.join("twtrace"),
        churn: release.join("examples/churn"),
        programs: release.join("examples/programs"),
        floor: release.join("examples/floor"),
    })
}

fn rounds(built: &Built, modes: &[Mode], pairs: usize, load: Load, seed: u64) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = modes
        .iter()
        .map(|mode| Row {
            mode: mode.clone(),
            measured: Vec::new(),
        })
        .collect();
    let mut lot = Lot::new(seed);
    for round in 1..=pairs {
        for mode in lot.order(modes.len()) {
            let measured = measure(built, &modes[mode], load, false)?;
            say(format_args!(
                "round {round}: {} connections/s, {:.1} µs of CPU each, others {:.0} %, {}",
                measured.per_second.round(),
                measured.load_cpu_us,
                100.0 * measured.others,
                modes[mode].name()
            ))?;
            rows[mode].measured.push(measured);
        }
    }
    say(format_args!(""))?;
    Ok(rows)
}

/// Says of each mode whether it is as light as it is meant to be.
fn judge(rows: &[Row], pairs: usize) -> Result<()> {
    if pairs < ENOUGH_PAIRS {
        return say(format_args!(
            "{pairs} pairs are an estimate; {ENOUGH_PAIRS} are judged by\n"
        ));
    }
    let row = |mode: &Mode| rows.iter().find(|row| row.mode == *mode);
    for (mode, aim) in AIMS {
        let (Some(with), Some(floor), Some(without)) =
            (row(&mode), row(&Mode::Floor), row(&Mode::None))
        else {
            continue;
        };
        let Some(times) = with.times(floor, without) else {
            continue;
        };
        let verdict = if times.high <= aim {
            "met"
        } else if times.low > aim {
            "missed"
        } else {
            "undecided"
        };
        let lost = with.lost().unwrap_or(0);
        say(format_args!(
            "{}: {verdict}: {:.2} times the cost of empty programs (aim {aim}); lost {lost} (aim 0)",
            mode.name(),
            times.estimate,
        ))?;
    }
    say(format_args!(""))
}

/// In runs of their own: to count run times slows every run.
fn run_times(built: &Built, modes: &[Mode], load: Load) -> Result<()> {
    for mode in modes.iter().filter(|mode| **mode != Mode::None) {
        let measured = measure(built, mode, load, true)?;
        if let Some(tracer) = &measured.tracer {
            say(format_args!(
                "{}",
                table::programs(mode, &tracer.programs, load.connections)
            ))?;
        }
    }
    Ok(())
}
