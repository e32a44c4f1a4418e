//! The ledger with more sockets than any machine here has: how fast it takes
//! them, and how much memory each costs, as the kernel counts this process's.

use std::fs;
use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use tracer::kernel::clock;
use tracer::model::event::{Event, Moment, Netns, State};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;
use tracer::model::ledger::{Config, Ledger};

use crate::stream::{NETNS, Records, Stream};
use crate::work;

/// What became of a crowd.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Live sockets at the end.
    pub sockets: u64,
    /// Events until then, and in which time, decoding included.
    pub events: u64,
    pub seconds: f64,
    /// How much memory this process took meanwhile, and for each socket.
    pub rss_bytes: u64,
}

/// So many sockets, found by a seed as twtrace would find them at its start;
/// every `waiting`th is a TIME_WAIT.
pub fn seeded(sockets: u64, waiting: u64) -> Result<Crowd> {
    // As much as one read of the iterator holds.
    const BATCH: u64 = 900;
    let stream = Stream::new(1);
    let now = stream.now();
    let mut ledger = ledger(now);
    let before = rss_bytes()?;
    let mut spent = 0;
    let mut found = Vec::with_capacity(BATCH as usize);
    ledger.begin_seed(now, &mut nobody);
    for first in (0..sockets).step_by(BATCH as usize) {
        found.clear();
        found.extend((first..sockets.min(first + BATCH)).map(|n| stream.found(n, waiting)));
        spent += timed(|| work::seed_all(&mut ledger, &found));
    }
    spent += timed(|| {
        ledger.end_seed(now);
        ledger.pass(Moment(now.0 + 1_000_000_000), &mut nobody);
    });
    let rss_bytes = rss_bytes()? - before;
    let counted: u64 = State::COUNTED
        .iter()
        .map(|&state| in_state(&mut ledger, state, now))
        .sum();
    ensure!(
        counted == sockets,
        "the ledger counts {counted} of {sockets} sockets"
    );
    Ok(Crowd {
        sockets,
        events: sockets,
        seconds: spent as f64 / 1e9,
        rss_bytes,
    })
}

/// So many TIME_WAITs, each from a connection of its own, and then as many
/// connections again: each ends the oldest.
pub fn churned(waiting: u64) -> Result<Crowd> {
    const BATCH: u64 = 1_000;
    let mut stream = Stream::new(waiting);
    let mut records = Records::default();
    let mut ledger = ledger(stream.now());
    ledger.begin_seed(stream.now(), &mut nobody);
    ledger.end_seed(stream.now());
    ledger.pass(Moment(stream.now().0 + 1_000_000_000), &mut nobody);
    ledger.apply(
        &Event::Namespace {
            netns: Netns(NETNS),
            facts: work::facts(),
        },
        &mut nobody,
    );
    let mut reader = work::Reader::new(ledger);
    stream.processes(&mut records);
    let before = rss_bytes()?;
    let (mut spent, mut events) = (0, 0);
    for _ in (0..2 * waiting).step_by(BATCH as usize) {
        for _ in 0..BATCH {
            stream.connection(&mut records);
        }
        events += records.count();
        spent += timed(|| reader.apply(&records, stream.now(), &mut nobody));
        records.clear();
    }
    let rss_bytes = rss_bytes()? - before;
    // What happened at this very moment waits for the next look.
    let later = Moment(stream.now().0 + 1);
    reader.apply(&records, later, &mut nobody);
    let counted = in_state(&mut reader.ledger, State::TimeWait, later);
    ensure!(
        counted == waiting,
        "the ledger counts {counted} of {waiting} TIME_WAITs"
    );
    Ok(Crowd {
        sockets: waiting,
        events,
        seconds: spent as f64 / 1e9,
        rss_bytes,
    })
}

fn ledger(started: Moment) -> Ledger {
    Ledger::new(Config::new(Stream::tick(), Filter::default(), started))
}

fn nobody(happening: &Happening) {
    black_box(happening);
}

fn in_state(ledger: &mut Ledger, state: State, at: Moment) -> u64 {
    let snapshot = ledger.snapshot(work::frame(at), &mut |_| None);
    snapshot.states.get(state).map_or(0, |count| count.now)
}

/// Nanoseconds.
fn timed(f: impl FnOnce()) -> u64 {
    let before = clock::now();
    f();
    clock::now().0 - before.0
}

fn rss_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read our own status")?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .context("our own status names no VmRSS")?;
    Ok(kib * 1024)
}
