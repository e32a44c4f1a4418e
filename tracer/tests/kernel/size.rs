//! How large a recording gets: twenty namespaces under a steady load, and the
//! size of a day of it by the frames that were written.
//!
//! `cargo xtask recording` gives it half an hour at 10,000 connections a second; among
//! the other tests it takes a few seconds at a tenth of that.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracer::lab::churn::First;
use tracer::lab::link::Pair;
use tracer::lab::shape::Shape;
use tracer::lab::workload::Workload;
use tracer::model::event::State;
use tracer::recorder::file::{self, Writer};
use tracer::recording::{Line, Recording, Sum};

use super::twtrace::command;
use super::{Outcome, Verdict, allowance, number};

/// Seconds of recording, and connections a second of all namespaces together.
const DURATION: &str = "TWTRACE_RECORDING_SECONDS";
const RATE: &str = "TWTRACE_RECORDING_RATE";

/// Of two namespaces each.
const PAIRS: u32 = 10;

const DAY: f64 = 86_400.0;

/// What a day of it may take.
const MOST: f64 = 100e6;

/// The same among the other tests, whose namespaces and their load it records too.
const MOST_IN_COMPANY: f64 = 200e6;

pub(crate) fn of_a_day() -> Outcome {
    let asked_for = number(DURATION)?;
    let seconds = asked_for.unwrap_or(12);
    let most = asked_for.map_or(MOST_IN_COMPANY, |_| MOST);
    let rate = number(RATE)?.unwrap_or(1_000) as u32;
    let shape = Shape {
        rate: (rate / PAIRS).max(1),
        first: First::Client,
        ports: None,
        // A destination's ports are used up by 460 connections a second.
        destinations: 8,
        left_open: 0.0,
        settings: Vec::new(),
    };
    // All that may be had: connections that last a round trip need far fewer.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let pairs: Vec<Pair> = (0..PAIRS)
        .map(|_| {
            let pair = Pair::new()?;
            shape.prepare(&pair)?;
            Ok(pair)
        })
        .collect::<Result<_>>()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.jsonl.zst");
    let loads: Vec<Workload> = (pairs.iter().enumerate())
        .map(|(n, pair)| Workload::start(pair, &shape, n as f64 / f64::from(PAIRS)))
        .collect::<Result<_>>()?;
    let output = command()
        .args(["record", "--interval", "1s", "--duration"])
        .arg(format!("{seconds}s"))
        .arg("-o")
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .context("cannot start twtrace")?;
    let mut begun = 0;
    for load in loads {
        begun += load.stop()?.begun;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);

    let recording = file::read(&path)?;
    ensure!(recording.torn.is_none(), "{:?}", recording.torn);
    let frames = recording.frames.len() as f64;
    let header = header_bytes(&recording, folder.path())?;
    let all = path.metadata()?.len() as f64;
    let frame = (all - header) / frames;
    let (plain, namespaces) = plain(&path)?;
    let sum = Sum::of(recording.frames.iter());
    let opened = sum.transitions(State::SynSent, State::Established) as f64 / sum.interval_s;
    say(&format!(
        "{frames} frames of {namespaces} namespaces, {:.0} connections a second, {} TIME_WAITs at the end, lost {:?}, {} resyncs",
        opened,
        (recording.frames.last()).map_or(0, |frame| frame
            .states
            .get(State::TimeWait)
            .map_or(0, |count| count.now)),
        sum.lost,
        sum.resyncs,
    ))?;
    say(&format!(
        "header {header:.0} bytes, {frame:.0} bytes a frame ({plain:.0} as JSON): a day of 1 s frames takes {:.1} MB ({:.0} MB)",
        (header + frame * DAY) / 1e6,
        plain * DAY / 1e6,
    ))?;
    let missed = sum.lost.recursion + sum.lost.unseen;
    ensure!(
        sum.lost.ring + sum.lost.map == 0
            && missed as u64 <= allowance::of(begun)
            && sum.resyncs <= missed,
        "{begun} connections, {} resyncs, lost {:?}",
        sum.resyncs,
        sum.lost
    );
    ensure!(namespaces >= 2 * PAIRS as usize, "{namespaces} namespaces");
    ensure!(
        frames >= 0.9 * seconds as f64 && opened >= 0.9 * f64::from(rate),
        "{frames} frames in {seconds} s, {opened:.0} connections a second instead of {rate}"
    );
    ensure!(header + frame * DAY <= most, "more than {most} bytes a day");
    Ok(Verdict::Held)
}

/// What the header takes when it is compressed by itself, as it is.
fn header_bytes(recording: &Recording, folder: &Path) -> Result<f64> {
    let mut writer = Writer::open(&folder.join("header.jsonl.zst"))?;
    writer.write(&Line::Header(Box::new(recording.header.clone())))?;
    Ok(writer.finish()? as f64)
}

/// Bytes of a frame that is not compressed, on average, and how many namespaces
/// the fullest one tells of.
fn plain(path: &Path) -> Result<(f64, usize)> {
    let mut bytes = Vec::new();
    let (mut frames, mut namespaces) = (0.0, 0);
    for line in file::open(path)? {
        let line = line?;
        if let Line::Frame(frame) = &line {
            namespaces = namespaces.max(frame.namespaces.len());
            frames += 1.0;
            line.write(&mut bytes)?;
        }
    }
    Ok((bytes.len() as f64 / frames, namespaces))
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "recording: {line}").context("cannot write to stderr")
}
