//! Half a million TIME_WAITs: found at the start, born in sight, found anew
//! after losses, and ended with their namespaces. Not among the other tests,
//! which it would starve: `cargo xtask scale` runs it.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tracer::lab::churn::{self, Churn};
use tracer::lab::netns::Netns;

use super::truth::{self, count};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, number};

/// Set to how many TIME_WAITs there shall be, it asks for this test.
pub(crate) const WANTED: &str = "TWTRACE_SCALE";

const PLACES: usize = 4;

/// Seconds that a listing of half a million sockets may take, and then some.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn a_crowd() -> Outcome {
    let wanted = number(WANTED)?.with_context(|| format!("{WANTED} is not set"))?;
    let places = (0..PLACES)
        .map(|_| churn::namespace())
        .collect::<Result<Vec<_>>>()?;
    fill(&places, wanted / 2)?;
    say(&format!("{} stand before the start", standing(&places)?))?;

    let (mut live, first) = timed(|| Twtrace::all(&[]))?;
    live.be_patient(PATIENCE);
    say(&format!("first table after {first:.2?}"))?;
    let (mut hurried, _) = timed(|| Twtrace::all(&["--ring-size", "16K"]))?;
    hurried.be_patient(PATIENCE);
    agrees(&live, &places)?;

    let begun = live.rss_bytes()?;
    let ((), load) = timed(|| fill(&places, wanted / 2))?;
    let snapshot = agrees(&live, &places)?;
    allowance::check(&snapshot, wanted / 2)?;
    let now = count(&snapshot, &["time_wait", "now"]);
    say(&format!(
        "{now} TIME_WAITs after {load:.2?} of load, lost {}; twtrace takes {} MiB, {} when it began",
        snapshot["lost"],
        live.rss_bytes()? >> 20,
        begun >> 20,
    ))?;
    let (anew, settled) = timed(|| agrees(&hurried, &places))?;
    ensure!(
        count(&anew, &["resyncs"]) > 0,
        "a ring of 16K lost nothing: {anew:#}"
    );
    say(&format!(
        "a ring of 16K: lost {}, {} resyncs, right {settled:.2?} after the other",
        anew["lost"], anew["resyncs"],
    ))?;

    let inodes: Vec<u32> = places.iter().map(Netns::inode).collect();
    drop(places);
    for live in [live, hurried] {
        let ((), ended) = timed(|| {
            let here = |snapshot: &Value, inode| truth::now_in(snapshot, inode)["TIME_WAIT"];
            let none = |snapshot: &Value| {
                let left: u64 = inodes.iter().map(|&inode| here(snapshot, inode)).sum();
                match left {
                    0 if truth::is_exact(snapshot) => Ok(()),
                    n => Err(format!("{n}, {}", snapshot["exactness"])),
                }
            };
            live.snapshot("no TIME_WAIT", none).map(drop)
        })?;
        let last = live.last()?;
        say(&format!(
            "all ended after {ended:.2?}, lost {}",
            last["lost"]
        ))?;
    }
    Ok(Verdict::Held)
}

/// So many connections more, by as many threads as there are CPUs to spare.
fn fill(places: &[Netns], connections: u64) -> Result<()> {
    let load = Churn {
        connections: connections / places.len() as u64,
        ..Churn::default()
    };
    thread::scope(|scope| {
        let loads: Vec<_> = places
            .iter()
            .map(|netns| scope.spawn(move || netns.run(|| load.run())?.map(drop)))
            .collect();
        loads
            .into_iter()
            .try_for_each(|load| load.join().map_err(|_| anyhow!("a load panicked"))?)
    })
}

fn standing(places: &[Netns]) -> Result<u64> {
    places.iter().map(truth::minisockets).sum()
}

/// Waits for an exact snapshot with as many minisockets as sockstat says. They
/// expire meanwhile: it is asked before and after.
fn agrees(live: &Twtrace, places: &[Netns]) -> Result<Value> {
    let mut before = standing(places)?;
    live.snapshot("the kernel's number of minisockets", |snapshot| {
        let after = standing(places).map_err(|error| format!("{error:?}"))?;
        let seen: u64 = places
            .iter()
            .map(|netns| {
                let now = truth::now_in(snapshot, netns.inode());
                now["TIME_WAIT"] + now["FIN_WAIT2"]
            })
            .sum();
        let (least, most) = (before.min(after), before.max(after));
        before = after;
        if !truth::is_exact(snapshot) {
            return Err(format!("approximate, lost {}", snapshot["lost"]));
        }
        if (least..=most).contains(&seen) {
            Ok(())
        } else {
            Err(format!("{seen}, the kernel {least} to {most}"))
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "it says how long it took")]
fn timed<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let done = f()?;
    Ok((done, start.elapsed()))
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "scale: {line}").context("cannot write to stderr")
}
