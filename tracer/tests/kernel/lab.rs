//! `lab`: the load is what was asked for, and nothing of it remains.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tracer::kernel::netns::{self, Namespace, Search};

use super::allowance::{self, FEW};
use super::truth::{count, number};
use super::twtrace::{self, Twtrace};
use super::{Outcome, Verdict};

/// A running `twtrace lab … -- live --json …`.
struct Lab {
    child: Child,
    snapshots: std::io::Lines<BufReader<std::process::ChildStdout>>,
    told: BufReader<ChildStderr>,
    /// Inodes of the client's and the server's namespace.
    namespaces: Vec<u32>,
}

impl Lab {
    fn start(shape: &[&str], live: &[&str]) -> Result<Lab> {
        let mut child = twtrace::command()
            .arg("lab")
            .args(shape)
            .args(["--", "live", "--json", "--interval", "200ms"])
            .args(live)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start twtrace lab")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut told = BufReader::new(child.stderr.take().context("no stderr")?);
        // lab: client /proc/7/fd/3, server /proc/7/fd/4, 100 connections a second
        let mut line = String::new();
        told.read_line(&mut line)?;
        let namespaces = line
            .split([' ', ','])
            .filter(|word| word.starts_with("/proc/"))
            .map(|path| Ok(u32::try_from(fs::metadata(path)?.ino())?))
            .collect::<Result<Vec<u32>>>()
            .with_context(|| format!("the lab said {line:?}"))?;
        ensure!(namespaces.len() == 2, "the lab said {line:?}");
        Ok(Lab {
            child,
            snapshots: stdout.lines(),
            told,
            namespaces,
        })
    }

    /// The first snapshot that `look` accepts.
    fn until(&mut self, look: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        for line in self.snapshots.by_ref().take(600) {
            last = serde_json::from_str(&line?)?;
            if look(&last) {
                return Ok(last);
            }
        }
        anyhow::bail!("no snapshot is as it should be; the last: {last:#}")
    }

    fn end(mut self, signal: Signal) -> Result<(ExitStatus, String)> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the lab")?;
        // Whatever it still has to say must find a reader.
        self.snapshots.by_ref().for_each(drop);
        let mut told = String::new();
        while self.told.read_line(&mut told)? > 0 {}
        Ok((self.child.wait()?, told))
    }
}

/// What `ip link` and `ip netns` list of the machine.
fn machine() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for directory in ["/sys/class/net", "/run/netns"] {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            names.insert(entry?.path().display().to_string());
        }
    }
    Ok(names)
}

/// Which namespace it is, of all that ever were; `None` before 5.14.
fn cookie(namespace: &Namespace) -> Option<u64> {
    netns::within(namespace, netns::cookie).ok().flatten()
}

/// However it ends: the TIME_WAITs go because the kernel takes the namespace
/// back, and nothing leads to one any more.
pub(crate) fn nothing_remains() -> Outcome {
    let before = machine()?;
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut lab = Lab::start(&["--rate", "200"], &[])?;
        lab.until(|snapshot| count(snapshot, &["time_wait", "now"]) > 20)?;
        let [client, server] = lab.namespaces[..] else {
            anyhow::bail!("a lab has two ends")
        };
        // Inodes are used again, by the tests beside this one too.
        let ours: Vec<(u32, Option<u64>)> = netns::enumerate(Search::Everywhere)?
            .iter()
            .filter(|n| [client, server].contains(&n.inode))
            .map(|n| (n.inode, cookie(n)))
            .collect();
        ensure!(ours.len() == 2, "both ends are there: {ours:?}");
        let witness = Twtrace::events_of(client, &["--state", "time-wait"])?;
        witness.until("a TIME_WAIT", |lines| lines.first().map(|_| ()))?;

        let (status, told) = lab.end(signal)?;
        ensure!(
            status.success() == (signal != Signal::KILL),
            "{signal:?} ended the lab with {status}: {told}"
        );
        witness.until("the end of the namespace", |lines| {
            lines
                .iter()
                .find(|line| line["reason"] == "netns_exit")
                .map(|_| ())
        })?;
        witness.stop()?;
        let there = netns::enumerate(Search::Everywhere)?;
        let left = there.iter().find(|n| {
            ours.iter().any(|&(inode, before)| {
                inode == n.inode && (before.is_none() || cookie(n) == before)
            })
        });
        ensure!(left.is_none(), "{signal:?} left {left:?} of {ours:?}");
    }
    let after = machine()?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    Ok(Verdict::Held)
}

/// Ports, the end that closes first, and ends that never close show in what the
/// tracer counts.
pub(crate) fn the_load_has_its_shape() -> Outcome {
    let mut short = Lab::start(&["--rate", "200", "--ports", "20"], &[])?;
    let snapshot =
        short.until(|snapshot| count(snapshot, &["connect_failures", "ports_exhausted"]) > 100)?;
    ensure!(
        count(&snapshot, &["time_wait", "side", "client"]) <= 20,
        "more TIME_WAITs than ports: {snapshot:#}"
    );
    allowance::check_in_company(&snapshot, FEW)?;
    let (status, told) = short.end(Signal::INT)?;
    ensure!(
        status.success() && told.contains("found no free local port"),
        "{status}: {told}"
    );

    let shape = [
        "--close",
        "server",
        "--close-wait",
        "50",
        "--destinations",
        "2",
    ];
    let mut server = Lab::start(&shape, &["--netns", "server"])?;
    let snapshot = server.until(|snapshot| {
        count(snapshot, &["time_wait", "side", "server"]) > 100
            && count(snapshot, &["fin_wait2_orphan", "now"]) > 50
    })?;
    ensure!(
        count(&snapshot, &["time_wait", "side", "client"]) == 0
            && count(&snapshot, &["states", "LISTEN", "now"]) == 2,
        "the server does not close first at two ports: {snapshot:#}"
    );
    // One half of them each.
    let (waiting, orphans) = (
        number(&snapshot, &["time_wait", "now"]),
        number(&snapshot, &["fin_wait2_orphan", "now"]),
    );
    ensure!(
        (0.8..1.25).contains(&(waiting / orphans)),
        "{waiting} TIME_WAITs, {orphans} orphans: {snapshot:#}"
    );
    allowance::check_in_company(&snapshot, FEW)?;
    server.end(Signal::INT)?;
    Ok(Verdict::Held)
}

/// What a limit of TIME_WAITs does is found, whichever half the lot fell on; a
/// steady load is not waited for, since what grows differs just as well.
pub(crate) fn a_trial_finds_what_differs() -> Outcome {
    let mut command: Command = twtrace::command();
    let output = command
        .args(["lab", "--rate", "50", "--", "trial", "--json"])
        .args([
            "--set",
            "tcp_max_tw_buckets=100",
            "--set",
            "tcp_tw_recycle=1",
        ])
        .args(["--settle", "4s", "--measure", "10s", "--seed", "7"])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let comparison: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {told}"))?;
    let design = &comparison["design"];
    ensure!(
        design["kind"] == "parallel" && design["replicas"] == 8 && design["seed"] == 7,
        "the design is {design:#}"
    );
    let changed = &comparison["sysctls_changed"];
    ensure!(
        changed.as_array().is_some_and(|keys| keys.len() == 1)
            && changed[0]["key"] == "net.ipv4.tcp_max_tw_buckets"
            && changed[0]["after"] == "100",
        "changed: {changed:#}"
    );
    let stock = comparison["metrics"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|metric| metric["name"] == "time_wait_live_mean")
        .with_context(|| format!("no stock in {comparison:#}"))?;
    ensure!(
        stock["verdict"] == "lower"
            && stock["role"] == "primary"
            && number(stock, &["after"]) <= 100.0,
        "the stock is {stock:#}"
    );
    // On a machine too busy for the load, figures may contradict each other.
    let withheld = comparison["withheld"]
        .as_array()
        .is_some_and(|why| !why.is_empty());
    let (code, verdict) = if withheld {
        (3, "undecided")
    } else {
        (0, "changed")
    };
    ensure!(
        output.status.code() == Some(code) && comparison["verdict"] == verdict,
        "ended with {}: {comparison:#}",
        output.status
    );
    ensure!(
        comparison["notes"]
            .to_string()
            .contains("TCPTimeWaitOverflow"),
        "the overflow is not named: {}",
        comparison["notes"]
    );
    ensure!(
        told.contains("net.ipv4.tcp_tw_recycle is gone: Linux 4.11 was the last to have it"),
        "told: {told}"
    );
    Ok(Verdict::Held)
}

/// A key that is not there, and a load that is too much.
pub(crate) fn what_cannot_be_is_said_first() -> Outcome {
    for (words, sentence) in [
        (
            ["--sysctl", "tcp_tw_recycle=1"],
            "this kernel has no net.ipv4.tcp_tw_recycle",
        ),
        (
            ["--sysctl", "tcp_mem=1 2 3"],
            "one value for the whole machine",
        ),
        (["--sysctl", "tcp_tw_reuse=9"], "does not take 9"),
    ] {
        let mut command: Command = twtrace::command();
        let output = command.arg("lab").args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && said.contains(sentence) && output.stdout.is_empty(),
            "{words:?} ended with {}: {said}",
            output.status
        );
    }
    Ok(Verdict::Held)
}
