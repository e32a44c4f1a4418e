//! `fuzz`: libFuzzer against what reads other people's bytes (`fuzz/`).
//!
//! cargo-fuzz builds the targets with the pinned compiler; everything else it
//! could do is done here, so that several run at once and nothing is written
//! into the repository unless that is asked for.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{isolate, output, run};
use crate::programs::Program;
use crate::say;
use crate::toolchain::{Toolchain, root};

const CARGO_FUZZ: &str = "0.13.2";

/// What compiles libFuzzer.
pub(crate) const COMPILER: Program = ("c++", "g++", "compiles libFuzzer");

/// An input that takes longer is a finding, and so is one that takes more memory,
/// the corpus included: what the fuzzed function itself may take is a fifth of it.
const INPUT_SECONDS: u32 = 10;
const MEMORY_MB: u32 = 1024;

/// What one target may have in the repository, and how many are added at once:
/// they are for the ordinary tests.
const CORPUS_BYTES: u64 = 128 << 10;
const ADDED: usize = 100;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Targets, such as records [default: all]
    targets: Vec<String>,
    /// How long each runs: 90s, 15m, 2h
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = crate::seconds)]
    duration: u64,
    /// Targets at once [default: as many as there are CPUs]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// What inputs are drawn by [default: by chance]
    #[arg(long, value_name = "N")]
    seed: Option<NonZero<u32>>,
    /// Add inputs of all sizes that reach what fuzz/corpus does not
    #[arg(long)]
    keep: bool,
}

impl Options {
    /// All targets, by the same seed each time: what fails is then due to the change,
    /// and not to luck.
    pub(crate) fn of_all(seconds: u64) -> Options {
        Options {
            targets: Vec::new(),
            duration: seconds,
            jobs: None,
            seed: Some(NonZero::<u32>::MIN),
            keep: false,
        }
    }
}

/// What one target came to.
struct Ran {
    passed: bool,
    /// The last line of libFuzzer's progress, and its statistics.
    coverage: String,
    executed: String,
    /// What it says about a failure.
    tail: String,
}

pub(crate) fn fuzz(toolchain: &Toolchain, target: &Path, options: &Options) -> Result<()> {
    let known = names(toolchain)?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no target {unknown}; there are: {}",
            known.join(", ")
        );
    }
    let names = if options.targets.is_empty() {
        known
    } else {
        options.targets.clone()
    };
    let programs = build(toolchain, target)?;
    let jobs = options
        .jobs
        .or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZero::get);
    say(format_args!(
        "{} targets, {} s each, {jobs} at once",
        names.len(),
        options.duration
    ))?;
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<&str>> {
        let mut failed = Vec::new();
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let folders = Folders::of(name, target);
            let program = programs.join(name);
            let ran = folders.run(&program, options)?;
            folders.report(name, &program, &ran)?;
            if !ran.passed {
                failed.push(name.as_str());
            } else if options.keep {
                folders.keep(&program)?;
            }
        }
        Ok(failed)
    };
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(found) => failed.extend(found?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    if !failed.is_empty() {
        bail!("findings in: {}", failed.join(", "));
    }
    Ok(())
}

/// Those of `fuzz/Cargo.toml`.
fn names(toolchain: &Toolchain) -> Result<Vec<String>> {
    let listed = output(
        isolate(&mut Command::new(toolchain.cargo.as_path()))
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(root()),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&listed).context("`cargo metadata` wrote no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter(|package| package["name"] == "tracer-fuzz")
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"] == serde_json::json!(["bin"]))
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect())
}

/// Builds every target, and returns the folder that they are in.
fn build(toolchain: &Toolchain, target: &Path) -> Result<PathBuf> {
    let cargo_fuzz = toolchain.subcommand("fuzz", CARGO_FUZZ, &target.join("fuzz-tools"))?;
    // Nothing that is fuzzed is unsafe, so a sanitizer would cost half of the
    // inputs and find nothing. Of the profile of the tests, because that shares
    // what runs on the host with them, and because its sums panic if they wrap.
    run(isolate(&mut Command::new(&cargo_fuzz))
        .args(["fuzz", "build", "--fuzz-dir", "fuzz"])
        .args(["--dev", "--sanitizer", "none"])
        .args(["--no-cfg-fuzzing", "--features", "libfuzzer"])
        .arg("--target-dir")
        .arg(target)
        .env("CARGO", &toolchain.cargo)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
        // Nobody changes what is built once.
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(root()))
    .with_context(|| {
        let (program, package, purpose) = COMPILER;
        format!("if {program} is missing, which {purpose}: it is in Debian's package {package}")
    })?;
    Ok(target.join(toolchain.fact("host")?).join("debug"))
}

/// Where a target reads and writes.
struct Folders {
    /// In the repository: read, and written by [`Folders::keep`] alone.
    committed: PathBuf,
    /// What was found on top of it, in this run and in earlier ones.
    found: PathBuf,
    /// Inputs that failed.
    failures: PathBuf,
    log: PathBuf,
    dictionary: PathBuf,
}

impl Folders {
    fn of(name: &str, target: &Path) -> Folders {
        let ours = root().join("fuzz");
        let scratch = target.join("fuzz").join(name);
        Folders {
            committed: ours.join("corpus").join(name),
            found: scratch.join("corpus"),
            failures: scratch.join("failures"),
            log: scratch.join("log"),
            dictionary: ours.join("dictionaries").join(name),
        }
    }

    fn run(&self, program: &Path, options: &Options) -> Result<Ran> {
        for folder in [&self.found, &self.failures] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(program);
        command
            .arg(format!("-max_total_time={}", options.duration))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", self.failures.display()));
        if let Some(seed) = options.seed {
            command.arg(format!("-seed={seed}"));
        }
        if self.dictionary.exists() {
            command.arg(format!("-dict={}", self.dictionary.display()));
        }
        let status = command
            .args([&self.found, &self.committed])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .with_context(|| format!("cannot start {command:?}"))?;
        let log =
            fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(ran(status.success(), &String::from_utf8_lossy(&log)))
    }

    fn report(&self, name: &str, program: &Path, ran: &Ran) -> Result<()> {
        say(format_args!(
            "{name}: {} inputs tried; {}",
            ran.executed, ran.coverage
        ))?;
        if ran.passed {
            return Ok(());
        }
        say(format_args!(
            "{}\nTo see it again: {} FILE, with a file of {}. In {} it is tried by \
             `cargo test -p tracer-fuzz` as well. All it said: {}",
            ran.tail,
            program.display(),
            self.failures.display(),
            self.committed.display(),
            self.log.display()
        ))
    }

    /// Adds to the repository what reaches further than what is there.
    fn keep(&self, program: &Path) -> Result<()> {
        let merged = self.found.with_file_name("merged");
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        copy_all(&self.committed, &merged)?;
        let log = File::create(&self.log)?;
        run(Command::new(program)
            .args(["-merge=1", &format!("-timeout={INPUT_SECONDS}")])
            .args([&merged, &self.found])
            .stdout(Stdio::null())
            .stderr(log))?;
        let mut total = 0;
        let mut new = Vec::new();
        for entry in fs::read_dir(&merged)? {
            let entry = entry?;
            let (length, committed) = (
                entry.metadata()?.len(),
                self.committed.join(entry.file_name()),
            );
            if committed.exists() {
                total += length;
            } else {
                new.push((length, entry.path(), committed));
            }
        }
        new.sort();
        let step = new.len().div_ceil(ADDED).max(1);
        for (length, path, committed) in new.into_iter().step_by(step) {
            total += length;
            if total <= CORPUS_BYTES {
                fs::copy(&path, committed)?;
            }
        }
        Ok(())
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What libFuzzer's log says.
fn ran(passed: bool, log: &str) -> Ran {
    let statistic = |name: &str| {
        let line = log.lines().rfind(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
    };
    let progress = log.lines().rfind(|line| line.contains(" cov: "));
    let progress = progress.and_then(|line| line.split_once("cov: ")).map_or(
        "no progress".to_owned(),
        |(_, rest)| {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| *word == name)?;
                words.get(at + 1).copied()
            };
            format!(
                "edges {}, features {}, corpus {}",
                words.first().unwrap_or(&"?"),
                after("ft:").unwrap_or("?"),
                after("corp:").unwrap_or("?")
            )
        },
    );
    let told: Vec<&str> = log
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("stat::"))
        .collect();
    Ran {
        passed,
        coverage: progress,
        executed: statistic("stat::number_of_executed_units:")
            .unwrap_or("an unknown number of")
            .to_owned(),
        tail: told[told.len().saturating_sub(40)..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::ran;

    #[test]
    fn reads_what_libfuzzer_says() {
        let log = "\
INFO: Seed: 7
#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb
#131072\tpulse  cov: 437 ft: 1254 corp: 210/9Kb lim: 48 exec/s: 65536 rss: 60Mb
#140000\tDONE   cov: 440 ft: 1260 corp: 212/9Kb lim: 48 exec/s: 70000 rss: 60Mb
Done 140000 runs in 2 second(s)
stat::number_of_executed_units: 140000
stat::peak_rss_mb:              60
";
        let ran = ran(true, log);
        assert_eq!(ran.executed, "140000");
        assert_eq!(ran.coverage, "edges 440, features 1260, corpus 212/9Kb");
        assert!(ran.tail.starts_with("INFO: Seed: 7\nDone"), "{}", ran.tail);
    }
}
