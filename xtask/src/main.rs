//! The project's own chores: `cargo xtask VERB`. Each verb is a room of its
//! own; here is only the way to them.

mod bare;
mod bench;
mod ci;
mod command;
mod ebpf;
mod fuzz;
mod instructions;
mod mutants;
mod programs;
mod rustc;
mod setup;
mod sources;
mod suite;
mod toolchain;
mod verdict;
mod vm;

use std::fmt::Arguments;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use toolchain::Toolchain;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The project's own chores"
)]
enum Verb {
    /// Install what builds the kernel side: rust-src, and bpf-linker into the target folder
    SetupEbpf,
    /// Build tracer/bpf/twtrace.bpf.o, the kernel side, and the note of what built it
    BuildEbpf {
        /// Write nothing; fail unless the committed object is byte for byte what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Run clippy over the workspace and the kernel side, with warnings denied
    Lint,
    /// Run every test, those against this machine's kernel included (needs root)
    Test {
        /// Without root, accept that the tests against the kernel do not run
        #[arg(long)]
        unprivileged: bool,
    },
    /// Run the README's two commands on a fresh Debian with gcc and Rust alone (needs root)
    ///
    /// In a chroot that debootstrap makes in memory, of which it takes some 4 GB,
    /// from the mirror that this machine's apt uses. Rust and what cargo has
    /// downloaded are this machine's.
    Bare,
    /// Measure what twtrace costs the connections it watches (needs root, and a machine at rest)
    Bench(bench::Options),
    /// Count the instructions that userspace spends on an event, and fail where they have grown
    Instructions {
        /// Accept what is counted: write tracer-bench/instructions.json
        #[arg(long)]
        update: bool,
    },
    /// Run the tests against the kernel on Debian's kernels, in emulated machines
    ///
    /// Each is fetched from the mirror that this machine's apt uses, verified by
    /// apt, and kept in the user's cache folder.
    Vm {
        /// Kernels, such as 6.12, 6.12-rt, 6.12-arm64, or 7 for the newest of 7.x
        /// [default: 6.1 6.12 6.12-rt 6.18 7 6.1-arm64 7-arm64]
        series: Vec<String>,
        /// Run only tests whose names contain this
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Run only this lane
        #[arg(long, value_parser = vm::LANES.map(|lane| lane.name))]
        lane: Option<String>,
        /// Machines at once [default: as many as there are CPUs]
        ///
        /// With more, tests of the lane in real time may miss their deadlines.
        #[arg(long, value_name = "N")]
        jobs: Option<NonZero<usize>>,
    },
    /// Watch load, namespaces and tracers come and go for long: counts equal ss's, memory stays (needs root)
    Soak {
        /// How long: 90s, 15m, 2h
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = seconds)]
        duration: u64,
        /// The seed of what is done, which an earlier soak has printed
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
    /// How twtrace bears a crowd: synthetic sockets in the ledger, then real TIME_WAITs (needs root)
    Scale {
        /// Live sockets in the ledger; 10 million take 1.3 GB
        #[arg(long, default_value_t = 10_000_000, value_name = "N")]
        sockets: u64,
        /// TIME_WAITs in the ledger
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        time_waits: u64,
        /// TIME_WAITs in the kernel; they last a minute, so a slow machine makes fewer
        #[arg(long, default_value_t = 500_000, value_name = "N")]
        real: u64,
    },
    /// How large a recording of 20 namespaces under load gets in a day (needs root)
    Recording {
        /// How long to record: 90s, 15m, 2h
        #[arg(long, default_value = "30m", value_name = "TIME", value_parser = seconds)]
        duration: u64,
        /// Connections a second, of all namespaces together
        #[arg(long, default_value_t = 10_000, value_name = "N")]
        rate: u64,
    },
    /// Move each offset, rename each symbol, drop each caller: the self-test must name it (needs root)
    Mutate,
    /// Feed what reads other people's bytes with bytes that libFuzzer finds (needs a C++ compiler)
    Fuzz(fuzz::Options),
    /// Change one operator, value or branch at a time: the tests that need no kernel must fail
    ///
    /// A random sample of what cargo-mutants offers for the model, the analysis,
    /// the recording and the decoder. 150 take an hour or more on two CPUs.
    Mutants(mutants::Options),
    /// Run all that a change must pass: format, links, lints, the object, the tests, fuzzing, one other kernel
    Ci,
}

fn main() -> ExitCode {
    let done = if std::env::var_os(rustc::ROLE).is_some() {
        Err(rustc::become_rustc(ebpf::TARGET)).context("cannot start rustc")
    } else {
        run(&Verb::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even stderr is gone, the exit code has to do.
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::SetupEbpf => setup::setup(&Toolchain::current()?, &target()?),
        Verb::BuildEbpf { check: false } => ebpf::build(&Toolchain::current()?, &target()?),
        Verb::BuildEbpf { check: true } => ebpf::check(&Toolchain::current()?, &target()?),
        Verb::Lint => ci::lint(&Toolchain::current()?, &target()?),
        Verb::Test { unprivileged } => suite::test(*unprivileged),
        Verb::Bare => bare::bare(&Toolchain::current()?, &target()?),
        Verb::Bench(options) => bench::bench(options, &target()?),
        Verb::Instructions { update } => instructions::instructions(&target()?, *update),
        Verb::Vm {
            series,
            only,
            lane,
            jobs,
        } => vm::vm(series, lane.as_deref(), only.as_deref(), *jobs),
        Verb::Soak { duration, seed } => suite::soak(*duration, *seed),
        Verb::Scale {
            sockets,
            time_waits,
            real,
        } => {
            let ledger = instructions::build(&target()?)?;
            let [sockets, time_waits] = [sockets, time_waits].map(u64::to_string);
            command::run(Command::new(ledger).args(["scale", &sockets, &time_waits]))?;
            suite::crowd(*real)
        }
        Verb::Recording { duration, rate } => suite::recording(*duration, *rate),
        Verb::Mutate => suite::mutate(),
        Verb::Fuzz(options) => fuzz::fuzz(&Toolchain::current()?, &target()?, options),
        Verb::Mutants(options) => mutants::mutants(&Toolchain::current()?, &target()?, options),
        Verb::Ci => ci::ci(&target()?),
    }
}

/// A number and s, m or h.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("give a number and s, m or h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is too long".to_owned())
}

/// A seed that nobody chose, and that is printed: std seeds its hash maps with one.
#[expect(clippy::disallowed_methods, reason = "it is printed, and no secret")]
fn seed_by_chance() -> u32 {
    RandomState::new().hash_one(0) as u32
}

/// One line to stdout.
fn say(line: Arguments<'_>) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("cannot write to stdout")
}

/// The target folder of the workspace, wherever the user's cargo puts it.
fn target() -> Result<PathBuf> {
    let metadata = command::output(
        Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(toolchain::root()),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("`cargo metadata` wrote no JSON")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("`cargo metadata` names no target_directory")
}
