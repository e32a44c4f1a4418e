//! `mutants`: do the tests notice when the code is wrong? cargo-mutants changes
//! one operator, value or branch at a time, and the tests that need no kernel
//! must fail. A random sample stands for the thousands that there are.
//!
//! The mutants are built in a copy of the sources below the target folder, which
//! is kept, so that only the changed crate is built for each.

mod sample;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sample::{Drawn, Mutant};
use serde_json::Value;

use crate::command::{isolate, output, run};
use crate::toolchain::{Toolchain, root};
use crate::{say, seed_by_chance};

const CARGO_MUTANTS: &str = "27.1.0";

/// What decides what a user is told: where a wrong figure would come from.
const FILES: [&str; 4] = [
    "tracer/src/model/**",
    "tracer/src/analysis/**",
    "tracer/src/recording/**",
    "tracer/src/kernel/decode.rs",
];

/// Tests that need neither root nor this machine's kernel and run no program:
/// those of the library, and these programs. One after the other until one
/// fails, so the quick ones come first.
const TESTS: [&str; 7] = [
    "render_events",
    "render_text",
    "render_comparison",
    "report",
    "schema",
    "scenarios",
    "statistics",
];

/// Mutants that behave as the original does, each with the reason.
const EQUIVALENT: &str = "xtask/equivalent-mutants.json";

/// The share of viable mutants, equivalent ones left out, that tests must catch.
const AIM: f64 = 0.95;

/// Tests that take so many times what they take without a mutant, and so long at
/// least, do not end. A machine may get busier meanwhile.
const TIMES: u32 = 8;
const TIMEOUT: Duration = Duration::from_secs(120);
const BUILD_TIMEOUT: Duration = Duration::from_secs(1800);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Mutants to draw; each takes a build and a run of the tests, some 15 s
    #[arg(long, default_value_t = 150, value_name = "N")]
    sample: usize,
    /// The seed of the draw, which an earlier run has printed
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Run only mutants whose names contain this, such as a file or a function
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

pub(crate) fn mutants(toolchain: &Toolchain, target: &Path, options: &Options) -> Result<()> {
    // Hours of two busy CPUs should not be in anybody's way.
    rustix::process::nice(19).context("cannot lower this process's priority")?;
    let bench = Bench::set_up(toolchain, target)?;
    let all = bench.list()?;
    let equivalent = sample::equivalent(&root().join(EQUIVALENT), &all)?;
    let seed = options.seed.unwrap_or_else(seed_by_chance);
    let drawn = sample::draw(
        &all,
        &equivalent,
        seed,
        options.sample,
        options.only.as_deref(),
    );
    say(format_args!(
        "{} of {} mutants, by --seed {seed}",
        drawn.len(),
        all.len()
    ))?;
    say(format_args!("the tests on the code as it is"))?;
    let timeout = TIMEOUT.max(TIMES * bench.baseline()?);

    let mut tally = Tally::default();
    for (number, Drawn { mutant, equivalent }) in drawn.iter().enumerate() {
        let verdict = if *equivalent {
            Verdict::Equivalent
        } else {
            bench.try_out(mutant, all.len(), timeout)?
        };
        say(format_args!(
            "{:>4}/{} {:<10} {}",
            number + 1,
            drawn.len(),
            verdict.name(),
            mutant.name
        ))?;
        tally.add(verdict, mutant);
    }
    tally.conclude(seed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Caught,
    /// Caught because the tests did not end.
    TimedOut,
    Missed,
    /// It does not compile.
    Unviable,
    /// Known to behave as the original does; not run.
    Equivalent,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Caught => "caught",
            Verdict::TimedOut => "timed out",
            Verdict::Missed => "MISSED",
            Verdict::Unviable => "unviable",
            Verdict::Equivalent => "equivalent",
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    caught: usize,
    timed_out: usize,
    unviable: usize,
    equivalent: usize,
    missed: Vec<String>,
}

impl Tally {
    fn add(&mut self, verdict: Verdict, mutant: &Mutant) {
        match verdict {
            Verdict::Caught => self.caught += 1,
            Verdict::TimedOut => self.timed_out += 1,
            Verdict::Unviable => self.unviable += 1,
            Verdict::Equivalent => self.equivalent += 1,
            Verdict::Missed => self.missed.push(mutant.name.clone()),
        }
    }

    /// Caught, of those that could be; none where none could be.
    fn share(&self) -> Option<f64> {
        let caught = self.caught + self.timed_out;
        let all = caught + self.missed.len();
        (all > 0).then(|| caught as f64 / all as f64)
    }

    fn conclude(&self, seed: u32) -> Result<()> {
        if !self.missed.is_empty() {
            say(format_args!("\nno test noticed:"))?;
            for name in &self.missed {
                say(format_args!("  {name}"))?;
            }
        }
        let share = self
            .share()
            .context("not one of these mutants could be run")?;
        say(format_args!(
            "\n{:.1} % caught: {} caught ({} because the tests did not end), {} missed; \
             beside them {} equivalent and {} that do not compile; --seed {seed}",
            100.0 * share,
            self.caught + self.timed_out,
            self.timed_out,
            self.missed.len(),
            self.equivalent,
            self.unviable,
        ))?;
        if share < AIM {
            bail!(
                "fewer than {:.0} % were caught; write a test for what was missed, or list it in \
                 {EQUIVALENT} with the reason why no test can notice it",
                100.0 * AIM,
            );
        }
        Ok(())
    }
}

/// The copy of the sources, and what runs mutants in it.
#[derive(Debug)]
struct Bench {
    cargo: PathBuf,
    tool: PathBuf,
    folder: PathBuf,
    /// What chooses the tests, for `cargo test`.
    tests: Vec<&'static str>,
}

impl Bench {
    fn set_up(toolchain: &Toolchain, target: &Path) -> Result<Self> {
        let folder = target.join("mutants");
        let tools = target.join("mutants-tools");
        let tool = toolchain.subcommand("mutants", CARGO_MUTANTS, &tools)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        tree::update(root(), &folder.join("tree"))?;
        let mut tests = vec!["--lib"];
        for name in TESTS {
            tests.extend(["--test", name]);
        }
        Ok(Bench {
            cargo: toolchain.cargo.clone(),
            tool,
            folder,
            tests,
        })
    }

    /// Every mutant that there is, in the order in which `--shard` counts them.
    fn list(&self) -> Result<Vec<Mutant>> {
        let listed = output(self.cargo_mutants().args(["--list", "--json"]))?;
        sample::parse(&listed)
    }

    /// How long the tests take, which must pass: one that fails without any
    /// mutant would catch them all.
    #[expect(clippy::disallowed_methods, reason = "a stopwatch")]
    fn baseline(&self) -> Result<Duration> {
        let test = |more: &[&str]| {
            run(self
                .command(&self.cargo)
                .args(["test", "--quiet", "--package", "tracer"])
                .args(&self.tests)
                .args(more)
                .stdout(Stdio::null()))
            .context("the tests fail, or were not built, without any mutant")
        };
        test(&["--no-run"])?;
        let started = Instant::now();
        test(&[])?;
        Ok(started.elapsed())
    }

    fn try_out(&self, mutant: &Mutant, all: usize, timeout: Duration) -> Result<Verdict> {
        let log = self.folder.join("last.log");
        let output =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // A shard of one: names would not do, because --re lets every mutant
        // through that deletes a field (27.1.0).
        let mut command = self.cargo_mutants();
        command
            .args(["--shard", &format!("{}/{all}", mutant.index)])
            .args(["--in-place", "--baseline", "skip", "--output"])
            .arg(&self.folder)
            .args(["--timeout", &timeout.as_secs().to_string()])
            .args(["--build-timeout", &BUILD_TIMEOUT.as_secs().to_string()])
            .arg("--")
            .args(&self.tests)
            .stdin(Stdio::null())
            .stderr(output.try_clone().context("cannot share the log")?)
            .stdout(output);
        // Its exit code tells a missed mutant too, so whether it ran is told by
        // its report.
        let report = self.folder.join("mutants.out/outcomes.json");
        let _ = fs::remove_file(&report);
        let status = command
            .status()
            .with_context(|| format!("cannot start {command:?}"))?;
        let text = fs::read_to_string(&report).with_context(|| {
            format!(
                "no report from {command:?} ({status}); {} has what it said",
                log.display()
            )
        })?;
        let verdict = verdict(&text, &mutant.name)
            .with_context(|| format!("{} is not as expected", report.display()))?;
        // Whatever keeps cargo from building makes a mutant unviable.
        if verdict == Verdict::Unviable && !self.compiler_refused()? {
            bail!(
                "{} was not built, but not for an error in it; {} has what was said",
                mutant.name,
                self.logs().display()
            );
        }
        Ok(verdict)
    }

    fn logs(&self) -> PathBuf {
        self.folder.join("mutants.out/log")
    }

    fn compiler_refused(&self) -> Result<bool> {
        let logs = self.logs();
        for log in fs::read_dir(&logs).with_context(|| format!("cannot read {}", logs.display()))? {
            let text = fs::read(log?.path()).context("cannot read a log")?;
            let text = String::from_utf8_lossy(&text);
            // `error: could not compile … due to 2 previous errors`
            let mut lines = text.lines();
            if lines.any(|line| line.contains("could not compile") && line.contains(" due to ")) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cargo_mutants(&self) -> Command {
        let mut command = self.command(&self.tool);
        command.args(["mutants", "--no-config", "--package", "tracer"]);
        for files in FILES {
            command.args(["--file", files]);
        }
        command
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        isolate(&mut command)
            .current_dir(self.folder.join("tree"))
            .env("CARGO", &self.cargo)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env("CARGO_INCREMENTAL", "1")
            // Nobody debugs a mutant.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // What one mutant broke must not be tried first on the next.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("INSTA_UPDATE", "no");
        command
    }
}

/// What cargo-mutants found of the one mutant that it had to run.
fn verdict(report: &str, name: &str) -> Result<Verdict> {
    let report: Value = serde_json::from_str(report).context("it is not JSON")?;
    let [outcome] = report["outcomes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    else {
        bail!("it does not have one outcome");
    };
    if outcome["scenario"]["Mutant"]["name"] != name {
        bail!("it is of {}, not of {name}", outcome["scenario"]);
    }
    Ok(match outcome["summary"].as_str() {
        Some("CaughtMutant") => Verdict::Caught,
        Some("MissedMutant") => Verdict::Missed,
        Some("Timeout") => Verdict::TimedOut,
        Some("Unviable") => Verdict::Unviable,
        _ => bail!("its outcome is {}", outcome["summary"]),
    })
}
