//! Long and rough: load that starts and stops, namespaces that come and go, a
//! second tracer with too small a ring beside. At every rest the counts of all
//! namespaces equal ss's, and memory stays what so many sockets need.
//!
//! `cargo xtask soak` gives it an hour; among the other tests it takes a few
//! rounds. What it does follows from a seed, which it prints.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tracer::lab::churn::{self, Churn, First};
use tracer::lab::netns::Netns;

use super::programs::SS;
use super::truth;
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, number};

/// Seconds, and the seed of what is done in them.
const DURATION: &str = "TWTRACE_SOAK_SECONDS";
const SEED: &str = "TWTRACE_SOAK_SEED";

/// Namespaces at once.
const MOST: usize = 6;

/// So many bytes for each live socket are the ledger's business, four times
/// what a TIME_WAIT is meant to cost there: tables double as they grow.
const EACH: u64 = 512;

/// What a tracer takes before it knows a socket, the whole ring mapped twice,
/// its histograms and what the allocator keeps included.
const BASE: u64 = 96 << 20;

/// Memory is held against what it was once the first TIME_WAITs have ended.
const SETTLED: Duration = Duration::from_secs(180);

#[expect(clippy::disallowed_methods, reason = "a run's lot is drawn here")]
pub(crate) fn counts_and_memory() -> Outcome {
    let seconds = number(DURATION)?.unwrap_or(10);
    let seed = number(SEED)?.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    say(&format!("soak: {seconds} s, seed {seed}"))?;
    let done = run(Duration::from_secs(seconds), Lot(seed | 1));
    done.with_context(|| format!("{SEED}={seed} {DURATION}={seconds}"))?;
    Ok(Verdict::Held)
}

#[expect(clippy::disallowed_methods, reason = "a soak lasts a time")]
fn run(duration: Duration, mut lot: Lot) -> Result<()> {
    let start = Instant::now();
    let live = Twtrace::all(&[])?;
    let mut places = vec![churn::namespace()?];
    let mut memory = Memory::default();
    let (mut rounds, mut connections) = (0, 0);
    while rounds == 0 || start.elapsed() < duration {
        rounds += 1;
        connections += round(&mut places, &mut lot).with_context(|| format!("round {rounds}"))?;
        let live_sockets = rest(&live, &places).with_context(|| format!("rest {rounds}"))?;
        memory.look(live.rss_bytes()?, live_sockets, start.elapsed())?;
    }
    let last = live.last()?;
    allowance::check(&last, connections)?;
    say(&format!(
        "soak: {rounds} rounds, {} TIME_WAITs entered, {} resyncs, lost {}; {} MiB at most",
        truth::count(&last, &["time_wait", "entered"]),
        last["resyncs"],
        last["lost"],
        memory.most >> 20
    ))
}

/// So many connections in some namespaces, while others come and go and another tracer watches
/// one of them through a ring that is too small.
fn round(places: &mut Vec<Netns>, lot: &mut Lot) -> Result<u64> {
    if places.len() < MOST && lot.one_of(2) == 0 {
        places.push(churn::namespace()?);
    }
    let ring = ["4K", "8K", "64K", "1M"][lot.one_of(4)];
    let watched = lot.one_of(places.len());
    let second = if lot.one_of(2) == 0 {
        Some(Twtrace::live(&places[watched], &["--ring-size", ring])?)
    } else {
        None
    };
    // One dies as soon as its load is done: its TIME_WAITs go with it.
    let doomed = (places.len() > 1 && lot.one_of(3) == 0)
        .then(|| places.len() - 1)
        .filter(|&index| index != watched);
    let loads: Vec<(usize, Churn)> = (0..places.len())
        .filter_map(|index| {
            let load = Churn {
                connections: 200 + lot.one_of(4_000) as u64,
                duration: Some(Duration::from_millis(100 + lot.one_of(1_500) as u64)),
                first: [First::Client, First::Server][lot.one_of(2)],
                ..Churn::default()
            };
            (lot.one_of(3) > 0 || index == watched).then_some((index, load))
        })
        .collect();
    let connections = thread::scope(|scope| {
        let running: Vec<_> = loads
            .iter()
            .map(|&(index, load)| {
                let netns = &places[index];
                scope.spawn(move || netns.run(|| load.run())?)
            })
            .collect();
        running.into_iter().try_fold(0, |sum, load| {
            let done = load.join().map_err(|_| anyhow!("a load panicked"))??;
            anyhow::Ok(sum + done.connections)
        })
    })?;
    if let Some(second) = second {
        second
            .equals_ss(&places[watched])
            .with_context(|| format!("the second tracer, with a ring of {ring}"))?;
        second.last()?;
    }
    if let Some(index) = doomed {
        drop(places.swap_remove(index));
    }
    Ok(connections)
}

/// Waits until the counts of each namespace are ss's; how many sockets live.
fn rest(live: &Twtrace, places: &[Netns]) -> Result<u64> {
    SS.needed()?;
    let snapshot = live.snapshot("counts of every namespace that equal ss", |snapshot| {
        if !truth::is_exact(snapshot) {
            return Err(format!("approximate, lost {}", snapshot["lost"]));
        }
        for netns in places {
            let ss = truth::ss(netns).map_err(|error| format!("{error:?}"))?;
            let now = truth::now_in(snapshot, netns.inode());
            if now != ss {
                return Err(format!("{}: twtrace {now:?}, ss {ss:?}", netns.inode()));
            }
        }
        Ok(())
    })?;
    truth::check_sums(&snapshot)?;
    Ok(truth::now(&snapshot).values().sum())
}

/// What memory the tracer was seen to take.
#[derive(Default)]
struct Memory {
    most: u64,
    most_sockets: u64,
    /// Both as they were when the first TIME_WAITs had ended.
    settled: Option<(u64, u64)>,
}

impl Memory {
    fn look(&mut self, bytes: u64, sockets: u64, elapsed: Duration) -> Result<()> {
        self.most = self.most.max(bytes);
        self.most_sockets = self.most_sockets.max(sockets);
        let allowed = BASE + EACH * self.most_sockets;
        ensure!(
            bytes <= allowed,
            "{bytes} bytes after {elapsed:?}, {allowed} are enough for {} sockets",
            self.most_sockets
        );
        if elapsed < SETTLED {
            return Ok(());
        }
        let (settled, then) = *self.settled.get_or_insert((self.most, self.most_sockets));
        let more = EACH * self.most_sockets.saturating_sub(then);
        let allowed = settled + settled / 10 + more;
        ensure!(
            bytes <= allowed,
            "{bytes} bytes after {elapsed:?} where {settled} were enough after {SETTLED:?}"
        );
        Ok(())
    }
}

/// Numbers that follow from a seed (xorshift64).
struct Lot(u64);

impl Lot {
    fn one_of(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{line}").context("cannot write to stderr")
}
