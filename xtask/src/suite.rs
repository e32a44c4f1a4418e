//! `test`: the one command that runs every test there is.
//!
//! Integration tests whose name begins with `kernel` need root: they load the
//! programs and make network namespaces of their own. Without root they cannot
//! run, and that is never passed over in silence. Neither is a test that wants a
//! program which is not installed: it is named, with what would install it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{output, run};
use crate::say;
use crate::toolchain::root;
use crate::verdict::{self, Verdict};

/// Begins the name of each integration test that needs root.
const KERNEL: &str = "kernel";

pub(crate) fn test(unprivileged: bool) -> Result<()> {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    let whole = privileged()?;
    let (kernel, other) = targets()?;
    if !whole && ci {
        bail!(
            "the tests must run as root here (CI is set): without it these cannot: {}",
            kernel.join(", ")
        );
    }

    let mut tally = Tally::default();
    if whole {
        tally.add(&mut cargo_test(&[]))?;
    } else {
        say(format_args!(
            "NOT ROOT: the tests against the kernel cannot run: {}",
            kernel.join(", ")
        ))?;
        let mut arguments = vec!["--lib", "--bins"];
        for target in &other {
            arguments.extend(["--test", target]);
        }
        tally.add(&mut cargo_test(&arguments))?;
        tally.add(&mut cargo_test(&["--doc"]))?;
    }

    say(format_args!(
        "\n{} passed, {} failed, {} ignored, in {} test programs",
        tally.passed, tally.failed, tally.ignored, tally.programs
    ))?;
    for (test, why) in &tally.passed_over {
        say(format_args!("did not run: {test}: {why}"))?;
    }
    if let Some(command) = what_installs(&tally.passed_over) {
        say(format_args!("so that they run: {command}"))?;
    }
    for test in &tally.failures {
        say(format_args!("failed: {test}"))?;
    }
    if !tally.commands_ok || tally.failed > 0 {
        bail!("tests failed, or could not be built; what they said stands above");
    }
    if ci && tally.ignored > 0 {
        bail!(
            "{} tests were ignored; a test that CI skips protects nothing",
            tally.ignored
        );
    }
    if !whole {
        let missing = format!("did not run, for want of root: {}", kernel.join(", "));
        if !unprivileged {
            bail!("{missing}; run it as root, or say --unprivileged if that will do");
        }
        say(format_args!("{missing}"))?;
    }
    Ok(())
}

/// What a test says in its reason before the package that it wants.
const INSTALL: &str = "apt-get install ";

/// One command for all that tests were passed over for.
fn what_installs(passed_over: &[(String, String)]) -> Option<String> {
    let packages: BTreeSet<&str> = passed_over
        .iter()
        .filter_map(|(_, why)| Some(why.split_once(INSTALL)?.1))
        .collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    (!packages.is_empty()).then(|| format!("{INSTALL}{}", packages.join(" ")))
}

/// The self-test against wrong facts about this machine's kernel.
pub(crate) fn mutate() -> Result<()> {
    run(Command::new("cargo")
        .args(["run", "--quiet", "--locked", "--package", "tracer"])
        .args(["--example", "mutations"])
        .current_dir(root()))
}

/// A soak: the same test that is among the others, for longer.
pub(crate) fn soak(seconds: u64, seed: Option<u64>) -> Result<()> {
    let mut command = kernel_test("soak::");
    command.env("TWTRACE_SOAK_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command.env("TWTRACE_SOAK_SEED", seed.to_string());
    }
    run(&mut command)
}

/// The size of a recording under load: the same test that is among the others,
/// for longer and with more load.
pub(crate) fn recording(seconds: u64, rate: u64) -> Result<()> {
    let mut command = kernel_test("size::");
    command
        .env("TWTRACE_RECORDING_SECONDS", seconds.to_string())
        .env("TWTRACE_RECORDING_RATE", rate.to_string());
    run(&mut command)
}

/// So many TIME_WAITs on this machine's kernel. By an optimised twtrace: it also
/// says how long things take.
pub(crate) fn crowd(time_waits: u64) -> Result<()> {
    let mut command = kernel_test("scale::");
    command.env("TWTRACE_SCALE", time_waits.to_string());
    run(&mut command)
}

fn kernel_test(filter: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--release", "--locked", "--package", "tracer"])
        .args(["--test", KERNEL, "--", filter])
        .current_dir(root());
    command
}

fn cargo_test(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--workspace", "--no-fail-fast", "--locked"])
        .args(arguments)
        .current_dir(root());
    command
}

fn privileged() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim_end() == "0")
}

/// Integration tests that need root, and those that do not.
fn targets() -> Result<(Vec<String>, Vec<String>)> {
    let metadata = output(
        Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(root()),
    )?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("`cargo metadata` wrote no JSON")?;
    let every = |value: &Value| value.as_array().cloned().unwrap_or_default();
    Ok(every(&metadata["packages"])
        .iter()
        .flat_map(|package| every(&package["targets"]))
        .filter(|target| target["kind"] == serde_json::json!(["test"]))
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .partition(|name| name.starts_with(KERNEL)))
}

/// What the test programs said, added up.
#[derive(Debug)]
struct Tally {
    programs: u32,
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
    /// With their reasons.
    passed_over: Vec<(String, String)>,
    commands_ok: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            programs: 0,
            passed: 0,
            failed: 0,
            ignored: 0,
            failures: Vec::new(),
            passed_over: Vec::new(),
            commands_ok: true,
        }
    }
}

impl Tally {
    /// Runs `command`, shows what it writes as it comes, and counts.
    fn add(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let said = child.stdout.take().context("the child has no stdout")?;
        let mut out = std::io::stdout();
        for line in BufReader::new(said).split(b'\n') {
            let line = line.with_context(|| format!("cannot read what {command:?} says"))?;
            out.write_all(&line)
                .and_then(|()| out.write_all(b"\n"))
                .context("cannot write to stdout")?;
            self.count(&String::from_utf8_lossy(&line));
        }
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for {command:?}"))?;
        self.commands_ok &= status.success();
        Ok(())
    }

    /// One line of a test program: its verdict on a test, or on all of them.
    fn count(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.programs += 1;
            for part in counts.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let number = words.next().and_then(|word| word.parse::<u64>().ok());
                match (number, words.next()) {
                    (Some(number), Some("passed")) => self.passed += number,
                    (Some(number), Some("failed")) => self.failed += number,
                    (Some(number), Some("ignored")) => self.ignored += number,
                    _ => {}
                }
            }
            return;
        }
        match verdict::of(line) {
            Some((name, Verdict::Failed)) => self.failures.push(name.to_owned()),
            Some((name, Verdict::Ignored(why))) => {
                self.passed_over.push((name.to_owned(), why.to_owned()));
            }
            Some((_, Verdict::Passed)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_test_programs_say() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test a::d ... ignored",
            "test a::e ... ignored (nft is not installed: apt-get install nftables)",
            "test a::f ... ignored (ss is not installed: apt-get install iproute2)",
            "test a::g ... ignored (ss is not installed: apt-get install iproute2)",
            "test result: FAILED. 1 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 64.10s",
        ] {
            tally.count(line);
        }
        assert_eq!(
            (tally.programs, tally.passed, tally.failed, tally.ignored),
            (2, 42, 1, 4)
        );
        assert_eq!(tally.failures, ["a::c"]);
        assert_eq!(tally.passed_over.len(), 4);
        assert_eq!(
            what_installs(&tally.passed_over).as_deref(),
            Some("apt-get install iproute2 nftables")
        );
        assert_eq!(what_installs(&tally.passed_over[..1]), None);
    }
}
