//! Do the TIME_WAITs hurt?
//!
//! They hurt where a client runs out of local ports towards one destination;
//! on the server side they cost memory only (docs/kernel.md, "What TIME_WAITs
//! cost"). So the answer is the destination that is closest to its limit, and
//! an honest "not enough data yet" where the facts for that are missing.

use crate::model::snapshot::{Destination, Snapshot};
use crate::units::{bytes, count, counted, endpoint, host, percent_of, roughly};

/// Above this share of the ports, `connect()` searches long for a free one:
/// its latency was seen to rise from microseconds to milliseconds.
pub const KNEE: f64 = 0.5;

/// A connect that found no port longer ago than this says nothing of now.
const NOW_S: f64 = 10.0;

/// Exhaustion within this time is near, whatever the share.
const SOON_S: f64 = 600.0;

/// 2MSL of mainline Linux, until the kernel was seen to ask for another.
const NOMINAL_S: f64 = 60.0;

/// A TIME_WAIT's slab object, and with its port's two bind buckets, in bytes.
const SERVER_BYTES: u64 = 256;
const CLIENT_BYTES: u64 = 614;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    DoesNotHurt,
    /// Not enough data yet.
    Undecided,
    Near,
    Hurts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub verdict: Verdict,
    /// How many there are, on whose side, and whether that hurts.
    pub headline: String,
    /// What the verdict stands on, in whole sentences.
    pub because: String,
}

#[must_use]
pub fn time_waits(snapshot: &Snapshot) -> Advice {
    let runs_out = runs_out(snapshot);
    let worst = snapshot
        .ports
        .iter()
        .map(|destination| Load::of(snapshot, destination))
        .max_by(|a, b| a.fill().total_cmp(&b.fill()));
    let verdict = match worst {
        _ if runs_out => Verdict::Hurts,
        Some(worst) if worst.is_full() => Verdict::Hurts,
        Some(worst) if worst.fill() >= KNEE => Verdict::Near,
        Some(_) if soonest(snapshot).is_some() => Verdict::Near,
        Some(_) => Verdict::DoesNotHurt,
        None if snapshot.time_wait.side.client + snapshot.time_wait.side.unknown > 0 => {
            Verdict::Undecided
        }
        None => Verdict::DoesNotHurt,
    };
    let near = match (verdict, soonest(snapshot)) {
        (Verdict::Hurts, _) if runs_out => failing(snapshot, worst),
        (_, Some(soonest)) if worst.is_some_and(|worst| worst.fill() < KNEE) => Some(soonest),
        _ => worst,
    };
    let because = match (verdict, near) {
        (Verdict::Undecided, _) => not_enough(snapshot),
        (Verdict::DoesNotHurt, worst) => harmless(snapshot, worst),
        (_, Some(near)) => pressed(near),
        (_, None) => String::new(),
    };
    let parts = [no_free_port(snapshot), because, overflow(snapshot)];
    Advice {
        verdict,
        headline: format!(
            "{}: {}",
            stock(snapshot),
            word(verdict, snapshot.time_wait.now, near)
        ),
        because: parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// Whether connects fail for want of a port now, and not only at some time since
/// the start.
fn runs_out(snapshot: &Snapshot) -> bool {
    snapshot.connect_failures.ports_exhausted > 0
        && snapshot
            .last_without_port
            .is_none_or(|last| last.ago_s <= NOW_S)
}

/// The destination whose ports ran out, if it is still listed; where that is not
/// known, the fullest.
fn failing<'a>(snapshot: &'a Snapshot, worst: Option<Load<'a>>) -> Option<Load<'a>> {
    let Some(last) = snapshot.last_without_port else {
        return worst;
    };
    let same = |to: &&Destination| {
        (to.netns, to.local, to.remote, to.remote_port)
            == (last.netns, last.local, last.remote, last.remote_port)
    };
    let listed = snapshot.ports.iter().find(same);
    listed.map(|to| Load::of(snapshot, to))
}

/// A destination, and how many of its ports are out of reach of `connect()`.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    to: &'a Destination,
    taken: u64,
    /// Ports in TIME_WAIT that `connect()` may take again.
    again: u64,
}

impl<'a> Load<'a> {
    /// With `tcp_tw_reuse` in force a port serves again after the reuse delay,
    /// far sooner than a TIME_WAIT ends, and its limit is the higher for it.
    /// A `connect()` that found no port all the same disproves that.
    #[must_use]
    pub fn of(snapshot: &Snapshot, to: &'a Destination) -> Load<'a> {
        let nominal_s = snapshot.time_wait.timer.nominal_s.unwrap_or(NOMINAL_S);
        let reused = !runs_out(snapshot) && to.limit_per_s * nominal_s > 2.0 * to.usable as f64;
        // The youngest cannot be taken yet: as many as came within the delay, of
        // which the limit tells.
        let young = || (to.connects_per_s * to.usable as f64 / to.limit_per_s).ceil() as u64;
        let again = if reused {
            to.time_wait.min(to.used).saturating_sub(young())
        } else {
            0
        };
        Load {
            to,
            taken: to.used - again,
            again,
        }
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken >= self.to.usable
    }

    /// 1 where none is free.
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.taken as f64 / self.to.usable.max(1) as f64
    }

    /// Whether its ports are rather taken by connections than by TIME_WAITs.
    fn is_mostly_open(&self) -> bool {
        let waiting = self.to.time_wait.saturating_sub(self.again);
        waiting * 2 < self.taken
    }

    /// A sentence of its own, or nothing.
    fn again(&self) -> String {
        match self.again {
            0 => String::new(),
            1 => " 1 port is in TIME_WAIT and can be taken again.".to_owned(),
            n => format!(
                " {} ports are in TIME_WAIT and can be taken again.",
                count(n)
            ),
        }
    }
}

/// The destination that runs out first, if any does soon.
fn soonest(snapshot: &Snapshot) -> Option<Load<'_>> {
    let in_s = |destination: &Destination| destination.exhausted_in_s.unwrap_or(f64::INFINITY);
    snapshot
        .ports
        .iter()
        .min_by(|a, b| in_s(a).total_cmp(&in_s(b)))
        .filter(|soonest| in_s(soonest) <= SOON_S)
        .map(|soonest| Load::of(snapshot, soonest))
}

/// `TIME_WAIT 5,204, 98 % of them on the client side`.
fn stock(snapshot: &Snapshot) -> String {
    let time_wait = &snapshot.time_wait;
    let side = time_wait.side;
    let known = side.client + side.server;
    let whose = match (time_wait.now, side.client, side.server, side.unknown) {
        (0, ..) => return "No TIME_WAIT now".to_owned(),
        (_, 0, 0, _) => ", side not known yet".to_owned(),
        (_, 0, _, 0) => ", all on the server side".to_owned(),
        (_, _, 0, 0) => ", all on the client side".to_owned(),
        (_, client, server, _) if client >= server => {
            format!(", {} on the client side", percent_of(client, known))
        }
        (_, _, server, _) => format!(", {} on the server side", percent_of(server, known)),
    };
    let unknown = match (known, side.unknown) {
        (0, _) | (_, 0) => String::new(),
        (_, unknown) => format!(" (not known of {})", count(unknown)),
    };
    format!("TIME_WAIT {}{whose}{unknown}", count(time_wait.now))
}

/// The verdict in words that finish the sentence about the stock.
fn word(verdict: Verdict, now: u64, worst: Option<Load<'_>>) -> &'static str {
    let mostly_open = worst.is_some_and(|worst| worst.is_mostly_open());
    match verdict {
        Verdict::Hurts if now == 0 || worst.is_none() => "but ports run out.",
        Verdict::DoesNotHurt if now == 0 => "none can hurt.",
        Verdict::Hurts if mostly_open => "ports run out, but not because of them.",
        Verdict::Hurts => "they hurt, ports run out.",
        Verdict::Near if mostly_open => "ports get scarce, but not because of them.",
        Verdict::Near => "they are close to hurting.",
        Verdict::DoesNotHurt => "they do not hurt.",
        Verdict::Undecided => "not enough data yet to say whether they hurt.",
    }
}

fn pressed(near: Load<'_>) -> String {
    let to = near.to;
    let exhausted = match to.exhausted_in_s {
        _ if near.is_full() => ", none is free".to_owned(),
        Some(in_s) => format!(", exhausted in {} at the present rate", roughly(in_s)),
        None => ", which the present rate does not exhaust".to_owned(),
    };
    let whose = if near.again > 0 {
        near.again()
    } else if near.is_mostly_open() {
        format!(
            " Most of these ports belong to open connections, only {} to TIME_WAITs.",
            count(to.time_wait)
        )
    } else {
        String::new()
    };
    format!(
        "Closest to its limit: {} -> {}, {} of {} ports used ({}){exhausted}.{whose}",
        host(to.local),
        endpoint(to.remote, to.remote_port),
        count(near.taken),
        count(to.usable),
        percent_of(near.taken, to.usable),
    )
}

fn no_free_port(snapshot: &Snapshot) -> String {
    let failed = snapshot.connect_failures.ports_exhausted;
    if failed == 0 {
        return String::new();
    }
    let connects = counted(failed, "connect", "connects");
    let last = match snapshot.last_without_port {
        Some(last) => {
            let to = endpoint(last.remote, last.remote_port);
            match last.ago_s {
                ..1.0 => format!(", the last one just now towards {to}"),
                ago_s => format!(", the last one {} ago towards {to}", roughly(ago_s)),
            }
        }
        None => String::new(),
    };
    format!("{connects} found no free port since the start{last}.")
}

fn harmless(snapshot: &Snapshot, worst: Option<Load<'_>>) -> String {
    let ports = match worst {
        Some(worst) => format!(
            "No destination uses {} of its local ports (the most: {}, {} of {}).{}",
            at_most(&percent_of(worst.taken, worst.to.usable)),
            endpoint(worst.to.remote, worst.to.remote_port),
            count(worst.taken),
            count(worst.to.usable),
            worst.again()
        ),
        None => "None takes a local port from a client.".to_owned(),
    };
    let side = snapshot.time_wait.side;
    let memory = match side.server {
        0 => String::new(),
        server => format!(
            " The {} on the server side cost memory only, about {}.",
            count(server),
            bytes(server * SERVER_BYTES)
        ),
    };
    let memory = match (snapshot.time_wait.now, side.server) {
        (0, _) => return ports,
        (now, 0) => format!(" They cost about {} of memory.", bytes(now * CLIENT_BYTES)),
        _ => memory,
    };
    ports + &memory
}

/// `more than 40 %`, `as much as 0.1 %`: what none of them uses.
fn at_most(share: &str) -> String {
    match share.strip_prefix('<') {
        Some(bound) => format!("as much as {bound}"),
        None => format!("more than {share}"),
    }
}

fn not_enough(snapshot: &Snapshot) -> String {
    let side = snapshot.time_wait.side;
    if side.client == 0 {
        format!(
            "{} began before twtrace did, and whose side they are on shows only from new connections.",
            counted(side.unknown, "TIME_WAIT", "TIME_WAITs")
        )
    } else {
        "How many local ports their destinations may use has not been read yet.".to_owned()
    }
}

fn overflow(snapshot: &Snapshot) -> String {
    match snapshot.time_wait.overflowed {
        0 => String::new(),
        n => format!(
            "{} skipped TIME_WAIT because tcp_max_tw_buckets was reached.",
            counted(n, "close", "closes")
        ),
    }
}

#[cfg(test)]
mod tests;
