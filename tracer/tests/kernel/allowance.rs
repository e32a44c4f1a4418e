//! How much may go unseen of a load that the ring can bear, and why any may.
//!
//! twtrace itself loses nothing there. But some guests' kernels run no BPF
//! program while a thread of process 1 is current (docs/kernel.md, "Transitions";
//! the machines that these tests run on are such guests). Whatever a softirq does
//! that interrupts process 1 is then seen by no tracer: a timer that runs out, and
//! with steered packets (RPS) half of each connection. Process 1 was seen to wake
//! once a second there, for about a millisecond, and to take 0.2 % of a CPU. So a
//! few of many may be missing, and each that is asks for a resync. What the
//! kernel skips of a program that it interrupts is among them: it says how often,
//! and not whose events they were, so that it is held to the whole machine's load.
//!
//! The load is what the kernel says that it was, or what the test did; never what
//! twtrace counted of it, and least of all what twtrace counted as lost.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::truth::count;

/// A load of so few that its number does not matter.
pub(crate) const FEW: u64 = 0;

/// How many of `load` may be missing.
pub(crate) fn of(load: u64) -> u64 {
    (load / 1000).max(3)
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
