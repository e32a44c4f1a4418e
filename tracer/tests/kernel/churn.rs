//! Under load every birth is counted, and every opening: the kernel's MIBs say
//! how many there were.

use std::collections::VecDeque;
use std::hint;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::read;
use rustix::net::sockopt;
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tracer::kernel::clock::kernel_version;
use tracer::kernel::requirements::{self, Reach};
use tracer::kernel::tracer::{Tracer, Wanted};
use tracer::lab::churn::{self, Churn, First, Listener};
use tracer::lab::link::Pair;
use tracer::lab::netns::Netns;

use super::truth::{self, Mib, count};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, guest};

const CONNECTIONS: u64 = 20_000;

/// Births seen are the kernel's since `before`. What twtrace calls lost excuses
/// none: its witness counts the very same.
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
    allowance::check_seen("births", truth::births(snapshot), kernel, kernel)
        .with_context(|| format!("{snapshot:#}"))
}

/// The same of connections: each that was opened went its first two steps.
fn check_opens(netns: &Netns, before: &Mib, snapshot: &Value, load: u64) -> Result<()> {
    let now = Mib::read(netns)?;
    let [active, passive] = ["ActiveOpens", "PassiveOpens"].map(|n| now.get(n) - before.get(n));
    let step = |from, to| truth::transitions(snapshot, from, to);
    for (from, to, truth) in [
        ("CLOSED", "SYN_SENT", active),
        ("SYN_SENT", "ESTABLISHED", active),
        ("LISTEN", "SYN_RECV", passive),
        ("SYN_RECV", "ESTABLISHED", passive),
    ] {
        allowance::check_seen(&format!("{from} -> {to}"), step(from, to), truth, load)
            .with_context(|| format!("{snapshot:#}"))?;
    }
    Ok(())
}

pub(crate) fn births_equal_the_counters() -> Outcome {
    let part = guest::lighter(CONNECTIONS) / 2;
    let connections = 3 * part;
    let netns = churn::namespace()?;
    let before = Mib::read(&netns)?;
    let live = Twtrace::live(&netns, &[])?;
    for first in [First::Client, First::Server] {
        let load = Churn {
            connections: part,
            first,
            ..Churn::default()
        };
        netns.run(|| load.run())??;
    }
    netns.run(|| orphans(part))??;
    live.equals_ss(&netns)?;
    let last = live.last()?;
    // Nothing interrupts anybody on loopback but the timers.
    check(&netns, &before, &last, connections)?;
    // Where both close at once, both wait.
    let entered = count(&last, &["time_wait", "entered"]);
    ensure!(
        entered + allowance::of(connections) >= connections,
        "{connections} connections, {entered} entered TIME_WAIT: {last:#}"
    );
    // Some are acknowledged so late that the server's FIN is there as well.
    let orphans = count(&last, &["fin_wait2_orphan", "entered"]);
    let stepped = count(&last, &["fin_wait2_orphan", "became_time_wait"]);
    ensure!(
        orphans >= part / 2 && stepped == orphans,
        "{part} orphans, {orphans} were seen, {stepped} to step to TIME_WAIT: {last:#}"
    );
    Ok(Verdict::Held)
}

/// That of so many connections, each of which ends in TIME_WAIT, births and
/// openings were seen, and each birth joined with its socket: whose it is stays known.
fn check(netns: &Netns, before: &Mib, last: &Value, connections: u64) -> Result<()> {
    allowance::check(last, connections)?;
    check_births(netns, before, last)?;
    check_opens(netns, before, last, connections)?;
    let nobodys = count(last, &["time_wait", "side", "unknown"]);
    let straight: u64 = ["overflow", "reset", "aborted", "other"]
        .iter()
        .map(|how| count(last, &["closes", "straight_to_closed", how]))
        .sum();
    ensure!(
        nobodys + straight <= allowance::of(connections),
        "{nobodys} TIME_WAITs of no known side, {straight} closes that led to none: {last:#}"
    );
    Ok(())
}

/// A close and the birth that it leads to need not be seen by one CPU, nor one right
/// after the other: who closes is moved from CPU to CPU all the time, and has to
/// give way to busy others.
pub(crate) fn closers_that_are_preempted_and_moved() -> Outcome {
    const LESS_URGENT: i32 = 4;
    const BETWEEN_MOVES: Duration = Duration::from_micros(100);
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    if cpus.len() < 2 {
        return Ok(Verdict::Impossible("there is but one CPU".to_owned()));
    }
    let part = guest::lighter(CONNECTIONS) / 2;
    let netns = churn::namespace()?;
    let before = Mib::read(&netns)?;
    let live = Twtrace::live(&netns, &[])?;

    let over = AtomicBool::new(false);
    let moved = thread::scope(|scope| {
        for _ in &cpus {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let (begun, loads) = mpsc::channel();
        let closers = [First::Client, First::Server].map(|first| {
            let (begun, netns) = (begun.clone(), &netns);
            let load = Churn {
                connections: part,
                first,
                ..Churn::default()
            };
            let close = move || {
                setpriority_process(Some(gettid()), LESS_URGENT)?;
                begun.send(gettid())?;
                load.run().map(drop)
            };
            scope.spawn(move || netns.run(close)?)
        });
        drop(begun);
        // One that failed before has sent nothing.
        let loads: Vec<Pid> = loads.iter().take(closers.len()).collect();
        let mut moved = 0;
        for &cpu in cpus.iter().cycle() {
            if closers.iter().all(ScopedJoinHandle::is_finished) {
                break;
            }
            let mut there = CpuSet::new();
            there.set(cpu);
            for &load in &loads {
                // One may have ended.
                moved += u64::from(sched_setaffinity(Some(load), &there).is_ok());
            }
            thread::sleep(BETWEEN_MOVES);
        }
        over.store(true, Ordering::Relaxed);
        for closer in closers {
            closer.join().map_err(|_| anyhow!("a closer panicked"))??;
        }
        Ok::<u64, anyhow::Error>(moved)
    })?;
    ensure!(moved > part / 100, "they were moved but {moved} times");
    live.equals_ss(&netns)?;
    check(&netns, &before, &live.last()?, 2 * part)?;
    Ok(Verdict::Held)
}

/// Orphans that wait in FIN_WAIT2 until some more have come, and then step to
/// TIME_WAIT, most of them in silence: while some are read in place, others step.
fn orphans(connections: u64) -> Result<()> {
    const WAITING: usize = 200;
    let listener = Listener::new(Ipv4Addr::UNSPECIFIED)?;
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.port);
    let mut servers = VecDeque::new();
    for _ in 0..connections {
        let (client, server) = listener.connect(target)?;
        drop(client);
        // Acknowledged once it is here: else a timer does it, for all that wait in
        // one softirq, which may interrupt anybody.
        ensure!(
            read(&server, &mut [0; 1])? == 0,
            "there was more than a FIN"
        );
        sockopt::set_tcp_quickack(&server, true)?;
        servers.push_back(server);
        if servers.len() > WAITING {
            servers.pop_front();
        }
    }
    Ok(())
}

/// Transitions that the kernel has to skip before what came of them is judged.
const SKIPS: u64 = 100;
/// Rounds in which it has to have skipped so many.
const ROUNDS: u64 = 12;

/// A wire of which both ends are watched. Receive packet steering runs the stack in
/// interrupts that land in the middle of programs, as a busy network card does.
pub(crate) struct Steered {
    pub(crate) pair: Pair,
    /// Of the near end, and of the far one.
    pub(crate) before: [Mib; 2],
    pub(crate) lives: [Twtrace; 2],
}

impl Steered {
    pub(crate) fn new() -> Result<Steered> {
        let pair = Pair::new()?;
        for end in [&pair.near, &pair.far] {
            churn::prepare(end)?;
            end.set_rps_cpus(Pair::INTERFACE, "3")?;
        }
        Ok(Steered {
            before: [Mib::read(&pair.near)?, Mib::read(&pair.far)?],
            lives: [
                Twtrace::live(&pair.near, &[])?,
                Twtrace::live(&pair.far, &[])?,
            ],
            pair,
        })
    }
}

pub(crate) fn rps_on_both_ends_of_a_veth() -> Outcome {
    let Steered {
        pair,
        before,
        lives,
    } = Steered::new()?;
    let ends = [&pair.near, &pair.far];

    let mut beside = Tracer::load(
        &requirements::check(Reach::Other)?,
        &Wanted {
            ring_bytes: 1 << 20,
            ..Wanted::default()
        },
    )?;
    beside.attach()?;

    let each = guest::lighter(CONNECTIONS) / 4;
    let mut connections = 0;
    let (mut skipped, mut rescued) = (None, 0);
    for round in 0..ROUNDS {
        let load = Churn {
            connections: each,
            first: [First::Client, First::Server][round as usize % 2],
            ..Churn::default()
        };
        both_ways(&pair, &load)?;
        connections += 2 * each;
        (skipped, rescued) = beside.rescues()?;
        // Either end has closed first by then.
        if round >= 1 && skipped.is_none_or(|n| n >= SKIPS) {
            break;
        }
    }
    if let Some(skipped) = skipped {
        ensure!(
            rescued == skipped,
            "{skipped} transitions skipped, {rescued} rescued"
        );
        // Nothing else is ever skipped: interrupts are off at the timers' tracepoints.
        let lost = beside.lost()?;
        ensure!(
            lost.recursion == 0,
            "{skipped} transitions skipped, all rescued; in all {lost:?}"
        );
    }
    // Each connection has five transitions at either end, and most of them happen
    // in interrupts that may interrupt anybody.
    let steps = 5 * connections;
    for ((netns, live), before) in ends.into_iter().zip(lives).zip(&before) {
        live.equals_ss(netns)?;
        let last = live.last()?;
        allowance::check(&last, 2 * steps)?;
        check_births(netns, before, &last)?;
        check_opens(netns, before, &last, steps)?;
    }
    Ok(match skipped {
        // One CPU alone has nowhere to steer packets to, nor have two that take turns.
        Some(skipped) if skipped < SKIPS => Verdict::Impossible(format!(
            "the kernel skipped but {skipped} transitions of {connections} connections"
        )),
        _ => Verdict::Held,
    })
}

/// From each end of the pair to the other at once.
fn both_ways(pair: &Pair, load: &Churn) -> Result<()> {
    let towards = |from: &Netns, to: &Netns, host: &str| -> Result<()> {
        let listeners = to.run(|| {
            (0..16)
                .map(|_| Listener::new(Ipv4Addr::UNSPECIFIED))
                .collect::<Result<Vec<_>>>()
        })??;
        let host = [host.parse()?];
        from.run(|| load.run_towards(&listeners, &host))??;
        Ok(())
    };
    thread::scope(|scope| {
        let there = scope.spawn(|| towards(&pair.near, &pair.far, Pair::FAR[0]));
        let back = towards(&pair.far, &pair.near, Pair::NEAR[0]);
        there.join().map_err(|_| anyhow!("the load panicked"))??;
        back
    })
}
