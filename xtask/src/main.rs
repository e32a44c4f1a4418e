//! The project's own chores: `cargo xtask VERB`. Each verb is a room of its
//! own; here is only the way to them.

mod bench;
mod ci;
mod command;
mod ebpf;
mod rustc;
mod setup;
mod sources;
mod suite;
mod toolchain;
mod vm;

use std::fmt::Arguments;
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
    /// Measure what twtrace costs the connections it watches (needs root, and a machine at rest)
    Bench(bench::Options),
    /// Run the tests against the kernel on Debian's kernels, in emulated machines
    ///
    /// Each is fetched from the mirror that this machine's apt uses, verified by
    /// apt, and kept in the user's cache folder.
    Vm {
        /// Kernels, such as 6.12, or 7 for the newest of 7.x [default: 5.10 6.1 6.12 6.18 7]
        series: Vec<String>,
        /// Run only tests whose names contain this
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Machines at once where idle time is skipped [default: as many as there are CPUs]
        #[arg(long, value_name = "N")]
        jobs: Option<NonZero<usize>>,
    },
    /// Move each offset, rename each symbol, drop each caller: the self-test must name it (needs root)
    Mutate,
    /// Run all that a change must pass: format, links, lints, the object, the tests, one other kernel
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
        Verb::Bench(options) => bench::bench(options, &target()?),
        Verb::Vm { series, only, jobs } => vm::vm(series, only.as_deref(), *jobs),
        Verb::Mutate => suite::mutate(),
        Verb::Ci => ci::ci(&target()?),
    }
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
