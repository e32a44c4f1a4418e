//! The binary as its users run it: started on one namespace, read line by line,
//! ended by a signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tracer::lab::netns::Netns;

use super::programs::SS;
use super::{canaries, truth};

/// For whatever the program owes us on a machine that is busy with other tests,
/// and may be emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `twtrace live --json` or `twtrace events --json`.
pub(crate) struct Twtrace {
    child: Child,
    said: Arc<(Mutex<Said>, Condvar)>,
    readers: Vec<thread::JoinHandle<()>>,
    patience: Duration,
}

#[derive(Default)]
struct Said {
    lines: Vec<Value>,
    torn: Option<String>,
    errors: String,
    ended: bool,
}

/// The binary under test. In a guest it is not where it was built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("TWTRACE").map_or_else(|| env!("CARGO_BIN_EXE_twtrace").into(), PathBuf::from)
}

pub(crate) fn command() -> Command {
    canaries::command().unwrap_or_else(|| Command::new(binary()))
}

impl Twtrace {
    /// `live`, taken stock: its first snapshot is there.
    pub(crate) fn live(netns: &Netns, more: &[&str]) -> Result<Twtrace> {
        Twtrace::live_of(&netns.inode().to_string(), more)
    }

    /// `live` of every namespace of the machine.
    pub(crate) fn all(more: &[&str]) -> Result<Twtrace> {
        Twtrace::live_of("all", more)
    }

    fn live_of(netns: &str, more: &[&str]) -> Result<Twtrace> {
        let mut arguments = vec!["live", "--json"];
        if !more.contains(&"--interval") {
            arguments.extend(["--interval", "200ms"]);
        }
        arguments.extend(more);
        let live = Twtrace::start(&arguments, netns)?;
        live.until("its first snapshot", |lines| lines.first().map(|_| ()))?;
        Ok(live)
    }

    /// `events`, not yet known to listen: see [`Twtrace::until`].
    pub(crate) fn events(netns: &Netns, more: &[&str]) -> Result<Twtrace> {
        Twtrace::events_of(netns.inode(), more)
    }

    /// Of a namespace that this does not keep alive.
    pub(crate) fn events_of(inode: u32, more: &[&str]) -> Result<Twtrace> {
        let mut arguments = vec!["events", "--json", "--interval", "200ms"];
        arguments.extend(more);
        Twtrace::start(&arguments, &inode.to_string())
    }

    fn start(arguments: &[&str], netns: &str) -> Result<Twtrace> {
        let mut command = command();
        command.args(arguments).args(["--netns", netns]);
        Twtrace::spawned(&mut command, |command| Ok(command.spawn()?))
    }

    /// Started by whoever knows where.
    pub(crate) fn spawned(
        command: &mut Command,
        spawn: impl FnOnce(&mut Command) -> Result<Child>,
    ) -> Result<Twtrace> {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).context("cannot start twtrace")?;
        let said = Arc::new((Mutex::new(Said::default()), Condvar::new()));
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        let tell = |said: &Arc<(Mutex<Said>, Condvar)>, change: &mut dyn FnMut(&mut Said)| {
            change(&mut said.0.lock().unwrap_or_else(PoisonError::into_inner));
            said.1.notify_all();
        };
        let (out, err) = (Arc::clone(&said), Arc::clone(&said));
        let readers = vec![
            thread::spawn(move || {
                for line in stdout.lines() {
                    let line = line.unwrap_or_else(|error| error.to_string());
                    match serde_json::from_str(&line) {
                        Ok(value) => tell(&out, &mut |said| said.lines.push(Value::clone(&value))),
                        Err(_) => tell(&out, &mut |said| said.torn = Some(line.clone())),
                    }
                }
                tell(&out, &mut |said| said.ended = true);
            }),
            thread::spawn(move || {
                for line in stderr.lines() {
                    let line = line.unwrap_or_else(|error| error.to_string()) + "\n";
                    tell(&err, &mut |said| said.errors += &line);
                }
            }),
        ];
        Ok(Twtrace {
            child,
            said,
            readers,
            patience: PATIENCE,
        })
    }

    /// Of the waits from here on.
    pub(crate) fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Waits until what it printed so far satisfies `look`.
    #[expect(clippy::disallowed_methods, reason = "a deadline")]
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&[Value]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.patience;
        let mut said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&said.lines) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                let (errors, torn) = (said.errors.clone(), said.torn.clone());
                bail!(
                    "twtrace did not print {what} ({}); of {} lines the last: {:#}; torn: {torn:?}; stderr: {errors}",
                    if said.ended { "it ended" } else { "in time" },
                    said.lines.len(),
                    said.lines.last().unwrap_or(&Value::Null),
                );
            }
            said = self
                .said
                .1
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until it has ended by itself; its last snapshot.
    #[expect(clippy::disallowed_methods, reason = "a deadline")]
    pub(crate) fn ends(self) -> Result<Value> {
        let deadline = Instant::now() + self.patience;
        let mut said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !said.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "twtrace did not end by itself in time");
            said = self
                .said
                .1
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(said);
        self.last()
    }

    /// Memory it takes now.
    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .context("twtrace's status names no VmRSS")?;
        Ok(kib * 1024)
    }

    pub(crate) fn printed(&self) -> usize {
        self.said
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .len()
    }

    /// The first snapshot from now on that `look` accepts: `Err` says what is
    /// amiss with it.
    pub(crate) fn snapshot(
        &self,
        what: &str,
        mut look: impl FnMut(&Value) -> Result<(), String>,
    ) -> Result<Value> {
        let mut seen = self.printed();
        let mut amiss = String::from("nothing");
        self.until(what, |lines| {
            while let Some(snapshot) = lines.get(seen) {
                seen += 1;
                match look(snapshot) {
                    Ok(()) => return Some(snapshot.clone()),
                    Err(why) => amiss = why,
                }
            }
            None
        })
        .map_err(|error| error.context(format!("amiss: {amiss}")))
    }

    /// Waits until all counts are exact and equal ss's; `now` of the namespace.
    pub(crate) fn equals_ss(&self, netns: &Netns) -> Result<Value> {
        SS.needed()?;
        self.snapshot("counts that equal ss", |snapshot| {
            // Sockets end meanwhile: the truth is asked after each snapshot, and
            // before too, so that a change in between is not held against it.
            let ss = truth::ss(netns).map_err(|error| format!("{error:?}"))?;
            let now = truth::now(snapshot);
            if !truth::is_exact(snapshot) {
                return Err(format!("approximate, lost {}", snapshot["lost"]));
            }
            if now == ss {
                Ok(())
            } else {
                Err(format!("twtrace {now:?}, ss {ss:?}"))
            }
        })
    }

    /// Ends it as Ctrl-C does; what it printed, the last snapshot at the end.
    pub(crate) fn stop(self) -> Result<Vec<Value>> {
        Ok(self.stop_with_log()?.0)
    }

    /// The same, and what it said to stderr.
    pub(crate) fn stop_with_log(mut self) -> Result<(Vec<Value>, String)> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).context("cannot signal twtrace")?;
        let status = self.child.wait()?;
        for reader in self.readers.drain(..) {
            reader
                .join()
                .map_err(|_| anyhow!("a reader of twtrace's output panicked"))?;
        }
        let said = std::mem::take(&mut *self.said.0.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(
            status.success(),
            "twtrace ended with {status} at SIGINT: {}",
            said.errors
        );
        ensure!(
            said.torn.is_none(),
            "twtrace printed what is not JSON: {:?}",
            said.torn
        );
        Ok((said.lines, said.errors))
    }

    /// Ends it and gives the last snapshot, whose sums have been checked.
    pub(crate) fn last(self) -> Result<Value> {
        let last = self.stop()?.pop().context("twtrace printed nothing")?;
        truth::check_sums(&last)?;
        Ok(last)
    }
}

impl Drop for Twtrace {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
