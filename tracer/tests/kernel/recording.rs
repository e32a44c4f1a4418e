//! A recording of a real run: its frames add up to what the session counted and
//! to what the kernel counted, and it ends as it should however it is ended.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer::kernel::clock::kernel_version;
use tracer::kernel::requirements;
use tracer::lab::churn::{self, Churn, First};
use tracer::lab::netns::Netns;
use tracer::model::event::State;
use tracer::model::snapshot::Snapshot;
use tracer::options::{DEFAULT_RING_BYTES, NetnsChoice, Scope};
use tracer::recorder::file;
use tracer::recording::{Cutter, Ended, Frame, Line, Recording, Sum};
use tracer::session::{self, More, Plan, Sink, Taken};

use super::twtrace::{PATIENCE, command};
use super::{Outcome, Verdict, allowance};

const CONNECTIONS: u64 = 5_000;

/// Cuts frames beside the snapshots that they are cut from.
#[derive(Default)]
struct Beside {
    cutter: Cutter,
    frames: Vec<Frame>,
    last: Option<Snapshot>,
    ages: Option<Box<tracer::model::life_table::AgeSums>>,
    /// Connections to see before it is enough.
    wanted: u64,
}

impl Sink for Beside {
    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        let frame = self.cutter.cut(taken.snapshot, &taken.sums, taken.at);
        self.frames.push(frame);
        self.ages = Some(Box::new(taken.sums.ages(taken.at)));
        // The first of them may be there before the session is.
        let time_wait = &taken.snapshot.time_wait;
        let seen = time_wait.seeded + time_wait.entered;
        self.last = Some(taken.snapshot.clone());
        Ok(if seen + allowance::of(self.wanted) >= self.wanted {
            More::Enough
        } else {
            More::Yes
        })
    }
}

/// The counts of a snapshot's JSON, and what does not hang on the order of adding.
fn compared(snapshot: &Snapshot) -> serde_json::Value {
    let mut snapshot = snapshot.clone();
    // Of the end of a run alone, or rounded.
    snapshot.seq = 0;
    snapshot.elapsed_s = 0.0;
    snapshot.interval_s = 0.0;
    snapshot.time_wait.lifetime_s.complete_from_s = 0.0;
    snapshot.time_wait.life_table = tracer::model::snapshot::LifeTable::default();
    snapshot.ports.clear();
    snapshot.owners.clear();
    snapshot.remotes.clear();
    snapshot.namespaces.clear();
    snapshot.in_state_s.clear();
    snapshot.left_out = tracer::model::snapshot::LeftOut::default();
    serde_json::to_value(snapshot).unwrap_or_default()
}

pub(crate) fn frames_add_up_to_the_snapshot() -> Outcome {
    let netns = churn::namespace()?;
    let plan = Plan {
        scope: Scope {
            netns: NetnsChoice::Inode(netns.inode()),
            ..Scope::default()
        },
        interval: std::time::Duration::from_millis(50),
        looks: false,
        duration: Some(PATIENCE),
        ring_bytes: DEFAULT_RING_BYTES,
        distortion: None,
    };
    let facts = requirements::check(plan.scope.netns.reach())?;
    let mut sink = Beside {
        wanted: CONNECTIONS,
        ..Beside::default()
    };
    let load = Churn {
        connections: CONNECTIONS,
        first: First::Client,
        ..Churn::default()
    };
    thread::scope(|scope| -> Result<()> {
        let run = scope.spawn(|| session::run(&facts, &plan, &mut sink));
        let loaded = netns.run(|| load.run())?;
        let ended = run.join().expect("the session does not panic")?;
        loaded?;
        ensure!(
            ended == Ended::Enough,
            "{CONNECTIONS} connections were not seen in time"
        );
        Ok(())
    })?;
    let whole = sink.last.context("no snapshot")?;
    let sum = Sum::of(&sink.frames);
    let header = header_of(&whole);
    let summed = sum.snapshot(&header, None).context("no frame")?;
    let (whole, summed) = (compared(&whole), compared(&summed));
    ensure!(
        whole == summed,
        "the snapshot says {whole:#}\nits {} frames add up to {summed:#}",
        sink.frames.len()
    );
    let ages = sink.ages.context("no snapshot")?;
    ensure!(ages.deaths == sum.ages.deaths, "other deaths");
    let (whole, summed): (f64, f64) = (
        ages.exposure_s.iter().sum(),
        sum.ages.exposure_s.iter().sum(),
    );
    ensure!(
        (whole - summed).abs() <= 0.01 * whole + 0.1,
        "{whole} socket-seconds, {summed} by the frames"
    );
    Ok(Verdict::Held)
}

fn header_of(snapshot: &Snapshot) -> tracer::recording::Header {
    tracer::recording::Header {
        schema: tracer::recording::SCHEMA.to_owned(),
        version: snapshot.version.clone().into_owned(),
        time: snapshot.time,
        host: snapshot.host.clone(),
        clock: tracer::recording::Anchor {
            monotonic_ns: 0,
            time: snapshot.time,
        },
        scope: snapshot.scope.clone(),
        interval_s: 0.05,
        duration_s: None,
        command: None,
        events: false,
        seeded: std::collections::BTreeMap::new(),
        namespaces: Vec::new(),
    }
}

/// A recording whose command has said that it runs: all from here on is in it.
struct Recorder {
    child: Child,
}

impl Recorder {
    fn start(netns: &Netns, file: &Path, script: &str) -> Result<Recorder> {
        let mut child = command()
            .args(["record", "--interval", "200ms", "-o"])
            .arg(file)
            .args(["--netns", &netns.inode().to_string()])
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start twtrace")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ready\n" {
            let output = child.wait_with_output()?;
            anyhow::bail!("its command did not run: {output:?}");
        }
        Ok(Recorder { child })
    }

    /// What it says at the end, which must be a good one.
    fn wait(self) -> Result<String> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {said}", output.status);
        Ok(said)
    }
}

fn whole(file: &Path) -> Result<Recording> {
    let recording = file::read(file)?;
    ensure!(recording.torn.is_none(), "{:?}", recording.torn);
    Ok(recording)
}

pub(crate) fn holds_what_the_kernel_counted() -> Outcome {
    let netns = churn::namespace()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.jsonl.zst");
    let mut recorder = Recorder::start(&netns, &path, "echo ready; read line; exit 7")?;
    netns.set_sysctl("ipv4.tcp_fin_timeout", "17")?;
    let load = Churn {
        connections: CONNECTIONS,
        first: First::Client,
        ..Churn::default()
    };
    netns.run(|| load.run())??;
    recorder
        .child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(b"go\n")?;
    let said = recorder.wait()?;
    ensure!(said.contains("sh ended with exit status: 7"), "{said}");

    let recording = whole(&path)?;
    let end = recording.end.as_ref().context("no end")?;
    ensure!(end.ended == Ended::Command, "{end:?}");
    ensure!(
        end.command_status.as_deref() == Some("exit status: 7"),
        "{end:?}"
    );
    ensure!(end.frames == recording.frames.len() as u64, "{end:?}");
    let settings = &recording.header.namespaces[0];
    ensure!(settings.netns == netns.inode(), "{settings:?}");
    ensure!(
        settings.sysctls["net.ipv4.tcp_fin_timeout"] == "60",
        "{settings:?}"
    );
    let changes: Vec<_> = recording
        .changes
        .iter()
        .map(|change| (change.netns, &*change.key, &*change.before, &*change.after))
        .collect();
    ensure!(
        changes == [(netns.inode(), "net.ipv4.tcp_fin_timeout", "60", "17")],
        "{changes:?}"
    );

    let sum = Sum::of(recording.frames.iter());
    let no_room = sum.lost.ring + sum.lost.map;
    ensure!(no_room == 0, "lost at the default buffer: {:?}", sum.lost);
    let missed = sum.lost.recursion + sum.lost.unseen;
    ensure!(
        missed as u64 <= allowance::of(CONNECTIONS) && sum.resyncs <= missed,
        "{} resyncs, lost {:?}",
        sum.resyncs,
        sum.lost
    );
    let entered = sum
        .states
        .get(State::TimeWait)
        .map_or(0, |count| count.entered);
    let births = entered + sum.orphans.entered - sum.orphans.became_time_wait;
    ensure!(
        entered as u64 + allowance::of(CONNECTIONS) >= CONNECTIONS,
        "{entered} entered"
    );
    if kernel_version() >= (6, 1) {
        let kernel = sum.kernel["TW"] + sum.kernel["TWKilled"];
        allowance::check_seen("births", births as u64, kernel, CONNECTIONS)?;
    }
    ensure!(sum.kernel["ActiveOpens"] == CONNECTIONS, "{:?}", sum.kernel);
    let connected = sum.transitions(State::SynSent, State::Established);
    allowance::check_seen("connects", connected, CONNECTIONS, CONNECTIONS)?;
    let mut by_namespace = 0;
    for line in file::open(&path)? {
        if let Line::Frame(frame) = line? {
            let entered = frame.namespaces.iter().map(|n| n.time_wait_entered);
            by_namespace += entered.sum::<i64>();
        }
    }
    ensure!(
        by_namespace == entered,
        "{by_namespace} by namespace, {entered} in all"
    );
    Ok(Verdict::Held)
}

pub(crate) fn an_interrupted_one_is_whole() -> Outcome {
    let netns = churn::namespace()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.jsonl");
    let recorder = Recorder::start(&netns, &path, "echo ready; exec sleep 600")?;
    let pid = Pid::from_child(&recorder.child);
    kill_process(pid, Signal::INT).context("cannot signal twtrace")?;
    let said = recorder.wait()?;
    ensure!(
        said.contains("sh ended with signal: 15 (SIGTERM)"),
        "{said}"
    );
    let recording = whole(&path)?;
    let ended = recording.end.as_ref().map(|end| end.ended);
    ensure!(ended == Some(Ended::Signal), "{:?}", recording.end);
    Ok(Verdict::Held)
}

pub(crate) fn a_command_that_is_not_there_is_told() -> Outcome {
    let netns = churn::namespace()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.jsonl");
    std::fs::write(&path, "what was recorded before\n")?;
    let output = command()
        .args(["record", "-o"])
        .arg(&path)
        .args(["--netns", &netns.inode().to_string()])
        .args(["--", "no-such-command"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}", output.status);
    ensure!(
        said.contains("cannot run no-such-command: No such file"),
        "{said}"
    );
    let kept = std::fs::read_to_string(&path)?;
    ensure!(kept == "what was recorded before\n", "written over: {kept}");
    Ok(Verdict::Held)
}
