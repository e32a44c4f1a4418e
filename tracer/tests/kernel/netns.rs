//! The one namespace that a run is about: when it ends, and when the next is
//! given its number.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;
use tracer::kernel::clock::kernel_version;
use tracer::lab::churn::{self, Churn};
use tracer::lab::netns::Netns;

use super::truth;
use super::twtrace::{self, PATIENCE};
use super::{Outcome, Verdict};

/// Who watches one namespace is told when it has gone.
pub(crate) fn an_end_is_told() -> Outcome {
    ends_with(Netns::new()?, |_| Ok(()))?;
    Ok(Verdict::Held)
}

/// The kernel gives a namespace's number to the next at once: nothing of that
/// one is this run's.
pub(crate) fn a_number_that_is_used_again() -> Outcome {
    if kernel_version() < (5, 14) {
        let why = "this kernel tells no namespace from a later one of its number";
        return Ok(Verdict::Impossible(why.to_owned()));
    }
    let last = ends_with(Netns::new()?, |inode| {
        let again = of_number(inode)?;
        churn::prepare(&again)?;
        let load = Churn {
            connections: 500,
            ..Churn::default()
        };
        again.run(|| load.run())??;
        Ok(again)
    })?;
    let seen =
        truth::count(&last, &["time_wait", "entered"]) + truth::count(&last, &["time_wait", "now"]);
    ensure!(
        seen == 0 && truth::lost(&last) == 0 && last["transitions"] == serde_json::json!([]),
        "what happened in another namespace was counted: {last:#}"
    );
    Ok(Verdict::Held)
}

/// The last snapshot of a run about this namespace, which ends while twtrace is
/// stopped: it sees at once, as where it waits for a CPU, that and what comes
/// then, which stays until it has ended.
fn ends_with<T>(netns: Netns, then: impl FnOnce(u32) -> Result<T>) -> Result<Value> {
    let inode = netns.inode();
    let mut child = twtrace::command()
        .args(["live", "--json", "--netns", &inode.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut first = String::new();
    stdout.read_line(&mut first)?;
    let rest = std::thread::spawn(move || std::io::read_to_string(stdout));
    let done = stop_outside(&child, inode).and_then(|()| {
        drop(netns);
        then(inode)
    });
    kill_process(Pid::from_child(&child), Signal::CONT)?;
    let status = truth::wait("the end of twtrace", PATIENCE, || {
        Ok(child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
    });
    if status.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    drop(done?);
    let said = String::from_utf8_lossy(&output.stderr);
    let told = format!("network namespace {inode} has ended");
    ensure!(
        status?.code() == Some(0) && said.contains(&told),
        "it ended with {}: {said}",
        output.status
    );
    let rest = rest.join().map_err(|_| anyhow!("its reader panicked"))??;
    let last = rest.lines().last();
    let last = last.with_context(|| format!("no last snapshot after {first}"))?;
    serde_json::from_str(last).with_context(|| format!("the last line is {last:?}"))
}

/// Stops it while none of its threads visits that namespace and keeps it alive.
fn stop_outside(twtrace: &Child, inode: u32) -> Result<()> {
    let pid = Pid::from_child(twtrace);
    let inside = format!("net:[{inode}]");
    truth::wait("a moment outside the namespace", PATIENCE, || {
        kill_process(pid, Signal::STOP)?;
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
        for task in tasks {
            let task = task?.path();
            let state = fs::read_to_string(task.join("stat"))?;
            let stopped = state
                .rsplit(") ")
                .next()
                .is_some_and(|s| s.starts_with('T'));
            let here = fs::read_link(task.join("ns/net"))?;
            if !stopped || here.as_os_str() == inside.as_str() {
                kill_process(pid, Signal::CONT)?;
                return Ok(Err(format!("{} in {}", state.trim(), here.display())));
            }
        }
        Ok(Ok(()))
    })
}

/// A network namespace of this number. Numbers are given out lowest first, to
/// namespaces of every kind and to entries of `/proc/net`: all that are free
/// below it are taken until it is next.
fn of_number(inode: u32) -> Result<Netns> {
    let mut taken: Vec<(u32, File)> = Vec::new();
    // Some kernels give a new namespace's entries their numbers before its own.
    let mut ahead = (0..=3).cycle();
    truth::wait("a namespace of the same number", PATIENCE, || {
        loop {
            let (number, held) = smallest_namespace()?;
            if number > inode {
                let what = format!("{} taken, and then {number}", taken.len());
                return Ok(Err(what));
            }
            taken.push((number, held));
            if number == inode {
                break;
            }
        }
        let kept = taken.len() - 1 - ahead.next().unwrap_or(0).min(taken.len() - 1);
        taken.truncate(kept);
        let netns = Netns::new()?;
        if netns.inode() == inode {
            return Ok(Ok(netns));
        }
        Ok(Err(format!("{} instead", netns.inode())))
    })
}

/// One of the kind that takes up one number and nothing else.
fn smallest_namespace() -> Result<(u32, File)> {
    let made = std::thread::spawn(|| {
        // SAFETY: only the host's name is unshared, and the thread ends at once.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?;
        File::open("/proc/thread-self/ns/uts")
    });
    let file = made.join().map_err(|_| anyhow!("its maker panicked"))??;
    let number = file.metadata()?.ino();
    Ok((u32::try_from(number)?, file))
}
