//! How much may go unseen of a load that the ring can bear, and why any may.
//!
//! twtrace itself loses nothing there. But some guests' kernels run no BPF
//! program while a thread of process 1 is current (docs/kernel.md, "Transitions";
//! the machines that these tests run on are such guests). Whatever a softirq does
//! that interrupts process 1 is then seen by no tracer: a timer that runs out, and
//! with steered packets (RPS) half of each connection. So a few of many may be
//! missing, and each that is asks for a resync: as large a part of the load as
//! process 1 had of a CPU while the test ran, by the scheduler's account, but one in
//! a thousand at least, since it wakes once a second even at rest, and one in 250 at
//! most: a canary drops one in a hundred, and has to be noticed. What the kernel
//! skips of a program that it interrupts is rescued by the other program.
//!
//! The load is what the kernel says that it was, or what the test did; never what
//! twtrace counted of it, and least of all what twtrace counted as lost.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer::kernel::clock;
use tracer::model::event::Moment;

use super::guest;
use super::truth::count;

/// A load of so few that its number does not matter.
pub(crate) const FEW: u64 = 0;

thread_local! {
    /// When the test of this thread began, and what process 1 had had of the CPUs.
    static BEGUN: Cell<Option<(Moment, Duration)>> = const { Cell::new(None) };
}

/// This thread begins a test.
pub(crate) fn begin() -> Result<()> {
    // Process 1 of a guest is the test program itself, and its kernels run programs.
    if !guest::is_guest() {
        BEGUN.set(Some((clock::now(), of_process_1()?)));
    }
    Ok(())
}

/// How many of `load` may be missing.
pub(crate) fn of(load: u64) -> u64 {
    let share = BEGUN.get().map_or(0.0, |(begun, before)| {
        let now = of_process_1().unwrap_or(before);
        now.saturating_sub(before).as_secs_f64() / clock::now().since(begun).as_secs_f64()
    });
    ((load as f64 * share) as u64)
        .clamp(load / 1000, load / 250)
        .max(3)
}

/// The CPU time that the threads of process 1 have had.
fn of_process_1() -> Result<Duration> {
    let mut total = 0;
    for thread in fs::read_dir("/proc/1/task")? {
        let path = thread?.path().join("schedstat");
        // A thread may end meanwhile.
        if let Ok(text) = fs::read_to_string(&path) {
            let time = text.split_whitespace().next();
            let time = time.and_then(|time| time.parse::<u64>().ok());
            total += time.with_context(|| format!("{} says {text:?}", path.display()))?;
        }
    }
    Ok(Duration::from_nanos(total))
}

/// That no more was lost of `load` than may be, and that no resync hid anything:
/// there was none but for what was missed.
pub(crate) fn check(snapshot: &Value, load: u64) -> Result<()> {
    check_lost(snapshot, load)?;
    check_resyncs(snapshot)
}

/// The same beside tests that make the kernel skip programs: of events that are
/// not this test's.
pub(crate) fn check_in_company(snapshot: &Value, load: u64) -> Result<()> {
    check_room(snapshot)?;
    check_missed(snapshot, count(snapshot, &["lost", "unseen"]), load)?;
    check_resyncs(snapshot)
}

/// What is told lost, of a snapshot or an event.
pub(crate) fn check_lost(told: &Value, load: u64) -> Result<()> {
    check_room(told)?;
    check_missed(told, missed(told), load)
}

/// That so many were seen, but for those that may be missing, and none that never
/// were.
pub(crate) fn check_seen(what: &str, seen: u64, truth: u64, load: u64) -> Result<()> {
    ensure!(
        seen <= truth && truth - seen <= of(load),
        "{seen} {what} were seen; in truth there were {truth}, of which {} may be missing",
        of(load)
    );
    Ok(())
}

fn missed(told: &Value) -> u64 {
    count(told, &["lost", "recursion"]) + count(told, &["lost", "unseen"])
}

fn check_room(told: &Value) -> Result<()> {
    ensure!(
        count(told, &["lost", "ring"]) == 0 && count(told, &["lost", "map"]) == 0,
        "lost for want of room, at the default buffer: {told:#}"
    );
    Ok(())
}

fn check_missed(told: &Value, missed: u64, load: u64) -> Result<()> {
    ensure!(
        missed <= of(load),
        "{missed} events were missed of a load of {load}, {} may be: {told:#}",
        of(load)
    );
    Ok(())
}

fn check_resyncs(snapshot: &Value) -> Result<()> {
    let (resyncs, missed) = (count(snapshot, &["resyncs"]), missed(snapshot));
    ensure!(
        resyncs <= missed,
        "{resyncs} resyncs where {missed} events were missed: {snapshot:#}"
    );
    Ok(())
}
