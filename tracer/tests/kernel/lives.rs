//! How long a TIME_WAIT lives: whole lives within the timer wheel's band, and
//! what is said after five seconds of sockets that were there before.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;
use rustix::net::getsockname;
use serde_json::Value;
use tracer::lab::churn::{self, Listener};
use tracer::lab::destroy::Destroyer;
use tracer::lab::netns::Netns;

use super::truth::{self, count, number};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, guest, story};

/// How late the timer wheel may be at 60 s: the granularity of the level of the
/// wheel that such a timeout falls into.
fn slack(hz: f64) -> f64 {
    let timeout = 60.0 * hz;
    let level = (1..9)
        .rev()
        .find(|&level| timeout >= 63.0 * 8_f64.powi(level - 1))
        .unwrap_or(0);
    8_f64.powi(level) / hz
}

pub(crate) fn expired_ones_lie_in_the_band() -> Outcome {
    let each = guest::lighter(2_000);
    let netns = churn::namespace()?;
    let mut live = Twtrace::live(&netns, &[])?;
    let mut events = Twtrace::events(&netns, &["--state", "time-wait"])?;
    story::listening(&events, &netns)?;

    let listener = netns.run(|| Listener::new(Ipv4Addr::UNSPECIFIED))??;
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.port);
    netns.run(|| {
        for n in 0..2 * each {
            let (client, server) = listener.connect(target)?;
            // One half waits in FIN_WAIT2 as full sockets, the other as orphans.
            if n % 2 == 0 {
                rustix::net::shutdown(&client, rustix::net::Shutdown::Write)?;
                drop(server);
            } else {
                drop(client);
            }
        }
        anyhow::Ok(())
    })??;

    let mine = u64::from(listener.port);
    live.be_patient(Duration::from_secs(100));
    events.be_patient(Duration::from_secs(100));
    let none_left = live.snapshot("the last TIME_WAIT's end", |snapshot| {
        let (now, entered) = (
            count(snapshot, &["time_wait", "now"]),
            count(snapshot, &["time_wait", "entered"]),
        );
        if now == 0 && entered >= 2 * each {
            Ok(())
        } else {
            Err(format!("{now} of {entered} are left"))
        }
    })?;
    allowance::check_in_company(&none_left, 2 * each)?;
    // Mostly the client's; where a FIN waits in a backlog, the other end closes first.
    let is_mine = |e: &&Value| {
        [&e["local"], &e["remote"]]
            .iter()
            .any(|end| end["port"] == mine)
    };
    let mut whole = 0;
    let ends = events
        .until("every end", |lines| {
            let ends: Vec<Value> = lines
                .iter()
                .filter(|e| e["kind"] == "minisocket_end")
                .filter(is_mine)
                .cloned()
                .collect();
            whole = ends
                .iter()
                .filter(|e| e.get("lifetime_s").is_some())
                .count() as u64;
            (whole + allowance::of(2 * each) >= 2 * each).then_some(ends)
        })
        .map_err(|error| error.context(format!("{whole} whole lives of {}", 2 * each)))?;
    events.stop()?;
    let last = live.last()?;

    let hz = number(&last, &["host", "hz"]);
    let g = slack(hz);
    let said = number(&last, &["time_wait", "timer", "slack_s"]);
    ensure!(
        (said - g).abs() < 1e-6,
        "the timer's slack at HZ={hz} is {g} s, not {said}"
    );
    let nominal = number(&last, &["time_wait", "timer", "nominal_s"]);
    ensure!(
        (nominal - 60.0).abs() < 0.02,
        "the timer is armed for 60 s, not {nominal}"
    );

    let mut late = 0;
    for end in ends.iter().filter(|end| end.get("lifetime_s").is_some()) {
        ensure!(
            end["reason"] == "expired" && end["rearmed"] == 0,
            "something else happened to it: {end:#}"
        );
        let life = end["lifetime_s"]
            .as_f64()
            .context("a life that is no number")?;
        ensure!(life >= 60.0, "a life of {life} s: {end:#}");
        late += u64::from(life > 60.0 + g + 0.05);
    }
    ensure!(
        late * 1000 <= ends.len() as u64,
        "{late} of {} lives are later than the wheel may be",
        ends.len()
    );
    let buckets = last["time_wait"]["lifetime_s"]["buckets"]
        .as_array()
        .context("no buckets")?;
    let reported: u64 = buckets
        .iter()
        .filter(|b| number(b, &["ge"]) >= 60.0 + g - 0.001)
        .map(|b| count(b, &["count"]))
        .sum();
    ensure!(
        reported >= late,
        "{late} lives were late, {reported} reported as such: {last:#}"
    );
    let below: u64 = buckets
        .iter()
        .filter(|b| number(b, &["ge"]) < 60.0)
        .map(|b| count(b, &["count"]))
        .sum();
    ensure!(below == 0, "{below} lives below 60 s: {last:#}");
    Ok(Verdict::Held)
}

/// The peer's last FIN came between these: a busy machine may lie between.
type Armed = (Timestamp, Timestamp);

/// Births at a steady rate; of each five, one is destroyed before its time.
struct Steady {
    /// When the TIME_WAITs between two ends were last armed: a port whose socket
    /// was destroyed is free again.
    armed: Mutex<HashMap<(SocketAddr, SocketAddr), Vec<Armed>>>,
    go_on: AtomicBool,
}

impl Steady {
    const PER_SECOND: u32 = 400;
    const ONE_IN: u64 = 5;
    const SHARE: f64 = 1.0 - 1.0 / Self::ONE_IN as f64;
    /// The ages at which they are destroyed are spread over this.
    const AGES: (f64, f64) = (1.0, 55.0);

    #[expect(
        clippy::disallowed_methods,
        reason = "a pace, and the truth that the tracer is held to"
    )]
    fn run(&self, hosts: u8) -> Result<()> {
        let listener = Listener::new(Ipv4Addr::UNSPECIFIED)?;
        let destroyer = Destroyer::new()?;
        let start = Instant::now();
        // Few enough that a walk finds the due ones.
        let mut doomed: Vec<(Instant, SocketAddr, SocketAddr)> = Vec::new();
        let (mut made, mut missing) = (0_u64, 0_u64);
        while self.go_on.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * f64::from(Self::PER_SECOND)) as u64;
            while made < due {
                let host = Ipv4Addr::new(127, 0, 0, (made % u64::from(hosts)) as u8 + 1);
                let target = SocketAddrV4::new(host, listener.port);
                let (client, server) = listener.connect(target)?;
                let local: SocketAddr = SocketAddrV4::try_from(getsockname(&client)?)?.into();
                let client = TcpStream::from(client);
                client.shutdown(Shutdown::Write)?;
                let before = Timestamp::now();
                drop(server);
                let armed = (before, Timestamp::now());
                drop(client);
                self.armed
                    .lock()
                    .map_err(|_| anyhow!("a reader panicked"))?
                    .entry((local, target.into()))
                    .or_default()
                    .push(armed);
                if made.is_multiple_of(Self::ONE_IN) {
                    // The golden ratio's multiples: even over the ages at any length.
                    let (from, to) = Self::AGES;
                    let age = from
                        + (to - from) * (made as f64 / Self::ONE_IN as f64 * 0.618_034).fract();
                    doomed.push((
                        Instant::now() + Duration::from_secs_f64(age),
                        local,
                        target.into(),
                    ));
                }
                made += 1;
            }
            let now = Instant::now();
            let mut failed = None;
            doomed.retain(|&(at, local, remote)| {
                if at > now {
                    return true;
                }
                match destroyer.destroy(local, remote) {
                    Ok(()) => {}
                    // A late segment's answer was reset by its peer, whose socket is gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
                    Err(error) => failed = Some(error),
                }
                false
            });
            if let Some(error) = failed {
                return Err(error).context("cannot destroy a TIME_WAIT");
            }
            ensure!(
                missing * 100 <= made,
                "{missing} of {made} were gone before they were to be destroyed"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// When the minisockets between the ends of an event were last armed, in truth.
    fn truth(&self, event: &Value) -> Option<Vec<Armed>> {
        self.armed
            .lock()
            .ok()?
            .get(&(truth::end(event, "local")?, truth::end(event, "remote")?))
            .cloned()
    }
}

/// 20,000 stand when the tracer starts; four of five reach 2MSL.
pub(crate) fn seeded_ones_are_dated_and_share_is_known() -> Outcome {
    let netns = churn::namespace()?;
    let steady = Steady {
        armed: Mutex::new(HashMap::new()),
        go_on: AtomicBool::new(true),
    };
    let (live, events) = thread::scope(|scope| {
        let load = scope.spawn(|| netns.run(|| steady.run(8))?);
        let watched = watch(&netns, || load.is_finished());
        steady.go_on.store(false, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("the load panicked"))??;
        watched
    })?;

    // What is left is destroyed, so that every date is told now.
    netns.run(|| {
        let destroyer = Destroyer::new()?;
        for (local, remote) in steady
            .armed
            .lock()
            .map_err(|_| anyhow!("the load panicked"))?
            .keys()
        {
            // Some have ended by themselves; where both closed at once, both wait.
            let _ = destroyer.destroy(*local, *remote);
            let _ = destroyer.destroy(*remote, *local);
        }
        anyhow::Ok(())
    })??;
    let of_seeded = |snapshot: &Value, key| count(snapshot, &["time_wait", key]);
    let end = live.snapshot("the end of every seeded one", |snapshot| {
        let (seeded, ended) = (
            of_seeded(snapshot, "seeded"),
            of_seeded(snapshot, "ended_seeded"),
        );
        if ended == seeded {
            Ok(())
        } else {
            Err(format!("{ended} of {seeded} ended"))
        }
    })?;
    let seeded = of_seeded(&end, "seeded");
    let mut dated = events.stop()?;
    dated.retain(|e| e["kind"] == "minisocket_end" && e["since_last_arm_s"].is_f64());
    // It started a moment apart from the other.
    ensure!(
        dated.len() as u64 * 10 >= seeded * 9,
        "of {seeded} seeded ones {} were dated",
        dated.len()
    );
    let made: usize = (steady.armed.lock())
        .map_err(|_| anyhow!("the load panicked"))?
        .values()
        .map(Vec::len)
        .sum();
    allowance::check_in_company(&live.last()?, made as u64)?;
    let mut known = 0;
    for event in &dated {
        let ended: Timestamp = event["time"]
            .as_str()
            .context("an event without a time")?
            .parse()?;
        let age = event["since_last_arm_s"]
            .as_f64()
            .context("checked above")?;
        // The few that made sure that the tracer listens are not known.
        let Some(truth) = steady.truth(event) else {
            continue;
        };
        known += 1;
        let since = |moment: Timestamp| ended.duration_since(moment).as_secs_f64();
        let right = |&(from, to): &Armed| since(to) - 0.020 <= age && age <= since(from) + 0.020;
        ensure!(
            truth.iter().any(right),
            "{age} s since its last arm, in truth {:?}: {event:#}",
            truth
                .iter()
                .map(|&(from, to)| (since(from), since(to)))
                .collect::<Vec<_>>()
        );
    }
    ensure!(
        known * 100 >= dated.len() * 99,
        "of {} dates only {known} could be checked",
        dated.len()
    );
    Ok(Verdict::Held)
}

/// Starts both verbs on the population once it is full; checks the share after
/// five seconds.
fn watch(netns: &Netns, load_ended: impl Fn() -> bool) -> Result<(Twtrace, Twtrace)> {
    // Some expire before the tracer has started.
    const FULL: u64 = 20_500;
    truth::wait("a standing population", Duration::from_secs(120), || {
        ensure!(!load_ended(), "the load has ended");
        let tw = truth::minisockets(netns)?;
        thread::sleep(Duration::from_millis(200));
        Ok(if tw >= FULL {
            Ok(())
        } else {
            Err(format!("{tw} TIME_WAITs"))
        })
    })?;
    let events = Twtrace::events(netns, &["--state", "time-wait"])?;
    let live = Twtrace::live(netns, &[])?;
    story::listening(&events, netns)?;
    let after = live.snapshot("five seconds", |snapshot| {
        let elapsed = number(snapshot, &["elapsed_s"]);
        if elapsed >= 5.0 {
            Ok(())
        } else {
            Err(format!("{elapsed} s"))
        }
    })?;
    let seeded = count(&after, &["time_wait", "seeded"]);
    ensure!(seeded >= 20_000, "seeded {seeded}: {after:#}");
    let share = number(
        &after,
        &["time_wait", "life_table", "reaches_2msl", "share"],
    );
    ensure!(
        (share - Steady::SHARE).abs() <= 0.03,
        "after 5 s {share} reach 2MSL; in truth {} do: {:#}",
        Steady::SHARE,
        after["time_wait"]
    );
    Ok((live, events))
}
