//! One boot of one kernel: QEMU's console, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Boot;
use crate::say;
use crate::verdict::{self, Verdict};

/// What the guest says of itself; the tests' lines are between these.
const READY: &str = "guest: ready";
const DONE: &str = "guest: done";

/// Each test ends with a line. A machine may be as busy as it likes, but one that
/// says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(600);

/// Mebibytes. The programs live in it too.
const MEMORY: &str = "1536";

/// Left out of each boot for what it costs: the kernel's tests of its ciphers, and
/// the clearing of memory twice.
const BOOT: &str = "quiet panic=-1 cryptomgr.notests init_on_alloc=0";

/// What came of a boot.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// Until the tests could start.
    pub(crate) boot: Duration,
    pub(crate) total: Duration,
    /// What it took of this machine's CPUs, however busy they are.
    pub(crate) cpu: Duration,
    pub(crate) passed: u64,
    pub(crate) failed: Vec<String>,
    /// With their reasons.
    pub(crate) skipped: Vec<String>,
    /// Why the run did not come to its end.
    pub(crate) broken: Option<String>,
}

/// Ends the machine with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "boots are timed, and have a limit"
)]
pub(crate) fn run(boot: &Boot<'_>) -> Result<Ran> {
    let Boot { kernel, lane, .. } = boot;
    say(format_args!("{} boots: {}", kernel.series.name, lane.name))?;
    let start = Instant::now();
    let mut machine = Running(
        command(boot)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?,
    );
    let console = machine.0.stdout.take().context("QEMU has no stdout")?;
    let (send, lines) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                break;
            }
        }
    });

    let mut ran = Ran::default();
    let mut done = false;
    let mut log =
        File::create(&boot.log).with_context(|| format!("cannot write {}", boot.log.display()))?;
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                writeln!(log, "{line}")
                    .with_context(|| format!("cannot write {}", boot.log.display()))?;
                if line.contains(READY) {
                    ran.boot = start.elapsed();
                } else if let Some(at) = line.find(DONE) {
                    done = line[at + DONE.len()..].trim() == "0" || !ran.failed.is_empty();
                } else {
                    ran.count(&line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                ran.broken = Some(format!("not a line for {SILENCE:?}"));
                break;
            }
        }
    }
    ran.total = start.elapsed();
    ran.cpu = cpu_time(machine.0.id()).unwrap_or_default();
    if ran.boot.is_zero() {
        ran.broken = Some("the guest did not get as far as its tests".to_owned());
    } else if !done && ran.broken.is_none() {
        ran.broken = Some("the guest ended before its tests did".to_owned());
    } else if ran.passed == 0 && ran.failed.is_empty() && boot.only.is_none() {
        ran.broken.get_or_insert("no test ran".to_owned());
    }
    drop(machine);
    // It ends with the console.
    let _ = reader.join();
    say(format_args!(
        "{} is done: {}, {} passed, {} failed, {:.0} s",
        kernel.series.name,
        lane.name,
        ran.passed,
        ran.failed.len(),
        ran.total.as_secs_f64()
    ))?;
    Ok(ran)
}

/// Of a child, until it is waited for: fields 14 and 15 of its `stat`, in
/// hundredths of a second; those before them end with a name in brackets.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut spent = fields.split_whitespace().skip(11);
    let hundredths = spent.next()?.parse::<u64>().ok()? + spent.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(hundredths * 10))
}

fn command(boot: &Boot<'_>) -> Command {
    let Boot {
        kernel,
        lane,
        initramfs,
        only,
        ..
    } = boot;
    let arch = kernel.series.arch;
    let mut words = format!("{BOOT} {} {} --", arch.boot, lane.boot);
    words += &format!(" --color=never --test-threads={}", lane.threads);
    // One word each: the kernel hands on 32, and panics where there are more.
    for (test, _) in lane.skipped {
        words += &format!(" --skip={test}");
    }
    if let Some(word) = only {
        words += &format!(" {word}");
    }
    let mut command = Command::new(arch.qemu);
    command
        .args(arch.machine)
        // One thread: with one for each CPU the emulator may run an int3 that the
        // kernel has already taken back, from patching the call of a tracepoint.
        .args(["-accel", "tcg,thread=single", "-m", MEMORY])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        .args(lane.qemu)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(words);
    command
}

impl Ran {
    /// A line of the test program.
    fn count(&mut self, line: &str) {
        match verdict::of(line) {
            Some((_, Verdict::Passed)) => self.passed += 1,
            Some((name, Verdict::Failed)) => self.failed.push(name.to_owned()),
            Some((name, Verdict::Ignored(why))) => self.skipped.push(format!("{name} ({why})")),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ran;

    #[test]
    fn lines_of_the_test_program_are_counted() {
        let mut ran = Ran::default();
        for line in [
            "running 3 tests",
            "test ends::a   ... ok",
            "test ends::bcd ... FAILED",
            "test ends::e   ... ignored (no such module)",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored;",
        ] {
            ran.count(line);
        }
        assert_eq!(ran.passed, 1);
        assert_eq!(ran.failed, ["ends::bcd"]);
        assert_eq!(ran.skipped, ["ends::e (no such module)"]);
    }
}
