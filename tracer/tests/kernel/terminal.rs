//! `twtrace live` on a terminal, and in what state it leaves it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use tracer::lab::{churn, mounts};

use super::twtrace::{self, PATIENCE};
use super::{Outcome, Verdict, truth};

/// Both ends of a terminal, of which no path is asked for: a bare root has none.
fn pair() -> Result<(File, OwnedFd)> {
    let ours = mounts::privately(|| {
        mount("devpts", "/tmp", "devpts", MountFlags::empty(), None)?;
        let ours = File::options().read(true).write(true).open("/tmp/ptmx");
        Ok(ours?)
    })?;
    unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((ours, theirs))
}

/// A program on a terminal of its own, and what the terminal was sent.
struct OnTerminal {
    child: Child,
    terminal: File,
    sent: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl OnTerminal {
    /// `live` of a namespace, which has drawn its first page.
    fn live(netns: u32, more: &[&str]) -> Result<OnTerminal> {
        let (terminal, theirs) = pair()?;
        let child = twtrace::command()
            .args(["live", "--interval", "200ms", "--netns", &netns.to_string()])
            .args(more)
            .env("TERM", "xterm")
            // In a group whose every parent is of it too, nothing is suspended.
            .process_group(0)
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start twtrace")?;
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (terminal.try_clone()?, Arc::clone(&sent));
        // The read fails once nobody has the other end open.
        let reader = thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut part) {
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&part[..length]);
            }
        });
        let on = OnTerminal {
            child,
            terminal,
            sent,
            reader,
        };
        truth::wait("the first page", PATIENCE, || {
            let sent = on.sent();
            Ok(if sent.contains("\x1b[J") {
                Ok(())
            } else {
                Err(sent)
            })
        })?;
        Ok(on)
    }

    fn sent(&self) -> String {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&sent).into_owned()
    }

    /// Waits for its end; how it ended, and all that the terminal was sent.
    fn ended(mut self) -> Result<(ExitStatus, String)> {
        let ended = truth::wait("the end of twtrace", PATIENCE, || {
            Ok(self.child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
        });
        if ended.is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        let status = ended?;
        drop(self.terminal);
        self.reader
            .join()
            .map_err(|_| anyhow!("the reader of the terminal panicked"))?;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((status, String::from_utf8_lossy(&sent).into_owned()))
    }
}

/// Whether a terminal that was sent this is as it was: modes that were set are
/// reset, but for that of the cursor, which is there when it is set.
fn is_left_as_it_was(sent: &str) -> Result<()> {
    const CURSOR: &str = "25";
    let mut modes = BTreeMap::new();
    for sequence in sent.split("\x1b[?").skip(1) {
        let end = sequence
            .find(|c: char| !c.is_ascii_digit())
            .context("a torn sequence")?;
        modes.insert(&sequence[..end], &sequence[end..=end]);
    }
    for (mode, set) in modes {
        let as_it_was = if mode == CURSOR { "h" } else { "l" };
        ensure!(set == as_it_was, "mode {mode} is left at {set:?}: {sent:?}");
    }
    Ok(())
}

/// However it ends, and while it is suspended.
pub(crate) fn keeps_its_cursor() -> Outcome {
    let netns = churn::namespace()?;
    let live = |more: &[&str]| OnTerminal::live(netns.inode(), more);
    let signals = [
        (Signal::INT, true),
        (Signal::TERM, true),
        (Signal::HUP, true),
        (Signal::QUIT, false),
        (Signal::ABORT, false),
        (Signal::KILL, false),
    ];
    for (signal, by_itself) in signals {
        let live = live(&[])?;
        kill_process(Pid::from_child(&live.child), signal)?;
        let (status, sent) = live.ended()?;
        ensure!(status.success() == by_itself, "{signal:?}: {status}");
        is_left_as_it_was(&sent).with_context(|| format!("ended by {signal:?}"))?;
    }
    let (status, sent) = live(&["--count", "2"])?.ended()?;
    ensure!(status.success(), "{status}");
    is_left_as_it_was(&sent).context("ended by itself")?;

    let suspended = live(&[])?;
    let pid = Pid::from_child(&suspended.child);
    kill_process(pid, Signal::TSTP)?;
    waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED)?;
    is_left_as_it_was(&suspended.sent()).context("while it is suspended")?;
    kill_process(pid, Signal::KILL)?;
    suspended.ended()?;

    // Ctrl-S: what it writes waits for Ctrl-Q, which nobody presses.
    let mut held = live(&[])?;
    held.terminal.write_all(b"\x13")?;
    let pid = Pid::from_child(&held.child);
    truth::wait("a write that waits", PATIENCE, || {
        // The number of the call, and its arguments: the standard output is written to.
        let call = fs::read_to_string(format!("/proc/{}/syscall", pid.as_raw_nonzero()))?;
        Ok(if call.split(' ').nth(1) == Some("0x1") {
            Ok(())
        } else {
            Err(call)
        })
    })?;
    kill_process(pid, Signal::TERM)?;
    let (status, sent) = held.ended()?;
    ensure!(status.code() == Some(2), "{status}");
    is_left_as_it_was(&sent).context("ended while the terminal was held")?;
    Ok(Verdict::Held)
}
