//! Another tracer on the same tracepoints, taking kernel stacks: it makes the
//! kernel skip other programs' runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer::lab::churn::{self, Churn};

use super::churn::check_births;
use super::truth::Mib;
use super::twtrace::Twtrace;
use super::{Outcome, Verdict};

/// The interval stands last: when it fires, the others are attached.
const SCRIPT: &str = "
    tracepoint:sock:inet_sock_set_state { @s[kstack] = count(); }
    tracepoint:timer:timer_start { @t[kstack] = count(); }
    tracepoint:timer:timer_cancel { @c[kstack] = count(); }
    END { clear(@s); clear(@t); clear(@c); }
    interval:ms:500 { printf(\"attached\\n\"); }";

struct Bystander(Child);

impl Bystander {
    fn start() -> Result<Bystander> {
        // It finds tracepoints in tracefs, which a host need not have mounted:
        // mounted where only it sees it.
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount -t debugfs debugfs /sys/kernel/debug && exec bpftrace -e \"$0\"")
            .arg(SCRIPT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start bpftrace; this test needs it installed")?;
        let mut bystander = Bystander(child);
        let stdout = bystander.0.stdout.take().context("no stdout")?;
        let attached = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "attached");
        ensure!(attached, "bpftrace ended before it was attached");
        Ok(bystander)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // A signal rather than a kill, so that it takes its programs down.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

pub(crate) fn stacks_on_the_same_tracepoints() -> Outcome {
    let netns = churn::namespace()?;
    let before = Mib::read(&netns)?;
    let live = Twtrace::live(&netns, &[])?;
    let bystander = Bystander::start()?;
    let load = Churn {
        connections: 20_000,
        ..Churn::default()
    };
    netns.run(|| load.run())??;
    drop(bystander);
    live.equals_ss(&netns)?;
    // A difference without reported loss fails there too: it exceeds 0.
    check_births(&netns, &before, &live.last()?)?;
    Ok(Verdict::Held)
}
