//! What goes wrong is a sentence that says what to do, and an exit code.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer::lab::churn::{self, Churn};

use super::truth;
use super::twtrace::{self, PATIENCE};
use super::{Outcome, Verdict};

/// Of a user who may do nothing.
const NOBODY: u32 = 65_534;

pub(crate) fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2),
        "ended with {}, saying: {said}",
        output.status
    );
    ensure!(
        output.stdout.is_empty(),
        "printed {} bytes before it failed",
        output.stdout.len()
    );
    ensure!(
        !said.contains("panicked") && !said.contains("Error {"),
        "no sentence: {said}"
    );
    for word in words {
        ensure!(said.contains(word), "does not say {word:?}: {said}");
    }
    Ok(())
}

pub(crate) fn an_unprivileged_user() -> Outcome {
    // A copy, since nobody may not enter every target directory.
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("twtrace");
    fs::copy(twtrace::binary(), &copy)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let output = Command::new(&copy)
        .args(["live", "--json", "--duration", "1s"])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .context("cannot start twtrace as another user")?;
    refused(&output, &["root", "cap_bpf"])?;
    Ok(Verdict::Held)
}

pub(crate) fn an_unknown_namespace() -> Outcome {
    for name in ["no-such-namespace", "/nowhere/net", "1"] {
        let output = twtrace::command()
            .args(["live", "--json", "--duration", "1s", "--netns", name])
            .output()?;
        refused(&output, &[name])?;
    }
    Ok(Verdict::Held)
}

pub(crate) fn a_bad_filter() -> Outcome {
    for (flag, word) in [
        ("--state", "time-weight"),
        ("--dst", "10.0.0.0/33"),
        ("--dport", "65536"),
    ] {
        let output = twtrace::command()
            .args(["live", "--json", "--duration", "1s", flag, word])
            .output()?;
        refused(&output, &[word])?;
    }
    Ok(Verdict::Held)
}

/// `twtrace … | head -1` is a normal end.
pub(crate) fn a_closed_pipe() -> Outcome {
    let netns = churn::namespace()?;
    for verb in ["live", "events"] {
        let mut child = twtrace::command()
            .args([
                verb,
                "--json",
                "--interval",
                "200ms",
                "--netns",
                &netns.inode().to_string(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let load = Churn {
            connections: 50,
            ..Churn::default()
        };
        let reader = std::thread::spawn(move || stdout.read_line(&mut String::new()));
        // Something to print, until it has printed and once more after.
        let status = truth::wait(&format!("the end of {verb}"), PATIENCE, || {
            netns.run(|| load.run())??;
            let status = child.try_wait()?;
            Ok(status.ok_or_else(|| {
                format!("it runs; the reader has its line: {}", reader.is_finished())
            }))
        });
        if status.is_err() {
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            status?.code() == Some(0),
            "{verb} ended with {}: {said}",
            output.status
        );
        ensure!(
            said.is_empty(),
            "{verb} complained of a closed pipe: {said}"
        );
    }
    Ok(Verdict::Held)
}

/// A reader who has stopped, as `less` does, keeps nobody from ending it.
pub(crate) fn a_stalled_reader() -> Outcome {
    let netns = churn::namespace()?;
    let mut child = twtrace::command()
        .args(["events", "--json", "--netns", &netns.inode().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let load = Churn {
        connections: 500,
        ..Churn::default()
    };
    // A write waits for room once the pipe holds what is less than one from full.
    let room = rustix::pipe::fcntl_getpipe_size(&stdout)? as u64;
    let full = truth::wait("a full pipe", PATIENCE, || {
        netns.run(|| load.run())??;
        let held = rustix::io::ioctl_fionread(&stdout)?;
        Ok(if held + 4096 > room {
            Ok(())
        } else {
            Err(format!("{held} bytes of {room}"))
        })
    });
    let ended = full.and_then(|()| {
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        truth::wait("the end of twtrace", PATIENCE, || {
            Ok(child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
        })
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        ended?.code() == Some(2) && said.contains("nobody takes the output"),
        "it ended with {}: {said}",
        output.status
    );
    Ok(Verdict::Held)
}
