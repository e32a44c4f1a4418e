//! Under load every birth is counted: the kernel's MIBs say how many there were.

use anyhow::{Result, ensure};
use serde_json::Value;
use tracer::kernel::clock::kernel_version;
use tracer::kernel::requirements::{self, Reach};
use tracer::kernel::tracer::{Tracer, Wanted};
use tracer::lab::churn::{self, Churn, First, Listener};
use tracer::lab::link::Pair;
use tracer::lab::netns::Netns;

use super::truth::{self, Mib, count};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, guest};

const CONNECTIONS: u64 = 20_000;

/// Births by the kernel's counters since `before` are those seen and those lost.
pub(crate) fn check_births(netns: &Netns, before: &Mib, snapshot: &Value) -> Result<()> {
    let kernel = if kernel_version() < (6, 1) {
        // There TW counts expiries: births are what stands and what has ended.
        let ended = ["time_wait", "fin_wait2_orphan"]
            .iter()
            .flat_map(|of| truth::ended(snapshot, of).into_values());
        truth::minisockets(netns)? + ended.sum::<u64>()
    } else {
        Mib::read(netns)?.births() - before.births()
    };
    let (seen, lost) = (truth::births(snapshot), truth::lost(snapshot));
    ensure!(
        seen <= kernel && kernel - seen <= lost,
        "the kernel made {kernel} births; {seen} were seen and {lost} reported lost: {snapshot:#}"
    );
    Ok(())
}

pub(crate) fn births_equal_the_counters() -> Outcome {
    let connections = guest::lighter(CONNECTIONS);
    let netns = churn::namespace()?;
    let before = Mib::read(&netns)?;
    let live = Twtrace::live(&netns, &[])?;
    for first in [First::Client, First::Server] {
        let half = Churn {
            connections: connections / 2,
            first,
            ..Churn::default()
        };
        netns.run(|| half.run())??;
    }
    live.equals_ss(&netns)?;
    let last = live.last()?;
    check_births(&netns, &before, &last)?;
    ensure!(
        truth::told_loss(&last) == 0,
        "lost at the default buffer: {last:#}"
    );
    // Where both close at once, both wait.
    let (entered, unseen) = (
        count(&last, &["time_wait", "entered"]),
        count(&last, &["lost", "unseen"]),
    );
    ensure!(
        entered + unseen >= connections,
        "{connections} connections, {entered} entered TIME_WAIT, {unseen} unseen: {last:#}"
    );
    Ok(Verdict::Held)
}

/// Receive packet steering runs the stack in interrupts that land in the
/// middle of programs, as a busy network card does.
pub(crate) fn rps_on_both_ends_of_a_veth() -> Outcome {
    let pair = Pair::new()?;
    for end in [&pair.near, &pair.far] {
        churn::prepare(end)?;
        end.set_rps_cpus(Pair::INTERFACE, "3")?;
    }
    let before = [Mib::read(&pair.near)?, Mib::read(&pair.far)?];
    let lives = [
        Twtrace::live(&pair.near, &[])?,
        Twtrace::live(&pair.far, &[])?,
    ];

    let mut beside = Tracer::load(
        &requirements::check(Reach::Other)?,
        &Wanted {
            ring_bytes: 1 << 20,
            ..Wanted::default()
        },
    )?;
    beside.attach()?;

    let listeners = pair.far.run(|| {
        (0..16)
            .map(|_| Listener::new([0, 0, 0, 0].into()))
            .collect::<Result<Vec<_>>>()
    })??;
    let far = [Pair::FAR[0].parse()?];
    for first in [First::Client, First::Server] {
        let half = Churn {
            connections: guest::lighter(CONNECTIONS) / 2,
            first,
            ..Churn::default()
        };
        pair.near.run(|| half.run_towards(&listeners, &far))??;
    }
    let (skipped, rescued) = beside.rescues()?;
    let skipped = skipped.unwrap_or(0);
    // All but what falls between the kernel's mark and ours; of a few it may be most.
    ensure!(
        rescued <= skipped && (skipped < 10 || rescued * 2 >= skipped),
        "{skipped} transitions skipped, {rescued} rescued"
    );
    for ((netns, live), before) in [&pair.near, &pair.far].into_iter().zip(lives).zip(&before) {
        live.equals_ss(netns)?;
        check_births(netns, before, &live.last()?)?;
    }
    Ok(Verdict::Held)
}
