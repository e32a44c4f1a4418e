//! `test`: the one command that runs every test there is.
//!
//! Integration tests whose name begins with `kernel` need root: they load the
//! programs and make network namespaces of their own. Without root they cannot
//! run, and that is never passed over in silence.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{output, run};
use crate::say;
use crate::toolchain::root;

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
    for program in &tally.failures {
        say(format_args!("failed: {program}"))?;
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
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
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
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 64.10s",
        ] {
            tally.count(line);
        }
        assert_eq!(
            (tally.programs, tally.passed, tally.failed, tally.ignored),
            (2, 42, 1, 1)
        );
        assert_eq!(tally.failures, ["a::c"]);
    }
}
