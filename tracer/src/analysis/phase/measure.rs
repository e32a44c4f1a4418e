//! From the frames of a stretch to its numbers, and to what can be checked
//! about them: the kernel's counters, and Little's law.

use std::borrow::Borrow;

use super::Phase;
use crate::model::event::State;
use crate::model::histogram::Durations;
use crate::model::life_table::AGE;
use crate::recording::{Count, Frame, Kernel, Stock, Sum};

/// Of fewer values than these, a quantile is one of them by chance.
const P50_FROM: u64 = 10;
const P99_FROM: u64 = 100;

/// What one stretch may differ from the kernel's counters, which are read a few
/// milliseconds away from the frame's own: a part, and a number.
const READ_APART: f64 = 0.01;
const FEW: f64 = 10.0;
/// The share of the events that may be missing from a number: half of what the
/// tightest margin lets it move.
const LOST: f64 = 0.005;
/// Frames whose stock is looked at. Each means going back over all that were born
/// in two minutes, and the mean over so many has little to gain from more.
const LOOKED_AT: usize = 1_000;
/// From how many frames on a mean stock is one.
const ENOUGH_FRAMES: usize = 5;
/// By so much may a stock differ from Little's law: in it, births of a whole
/// frame come evenly spread.
const LITTLE: f64 = 0.05;

/// What the figures may be checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Whether the kernel's counters are of the same sockets: no filter.
    pub counters: bool,
    /// Whether TW and TWKilled count births (Linux 6.1 and later).
    pub births: bool,
}

impl Phase {
    /// The stretch that these frames cover. `history` is what came right before
    /// it, as long as sockets live; where it is shorter, Little's law is left unchecked.
    #[must_use]
    pub fn of(
        name: impl Into<String>,
        history: &[Stock],
        frames: impl IntoIterator<Item: Borrow<Frame>>,
        witness: Witness,
    ) -> Phase {
        let mut stocks = history.to_vec();
        let noted = frames
            .into_iter()
            .inspect(|frame| stocks.push(Stock::of(frame.borrow())));
        let sum = Sum::of(noted);
        let mut phase = Phase {
            name: name.into(),
            seconds: sum.interval_s,
            ..Phase::default()
        };
        phase.rates(&sum);
        phase.connects(&sum);
        phase.lives(&sum);
        phase.loss(&sum);
        if witness.counters {
            phase.kernel(&sum, witness);
        }
        phase.little(&stocks, history.len(), &sum);
        phase
    }

    fn rates(&mut self, sum: &Sum) {
        let seconds = sum.interval_s;
        let rate = |n: u64| (seconds > 0.0).then(|| n as f64 / seconds);
        let connections = entered(sum, State::Established);
        self.read("connections_per_s", rate(connections), connections);
        let born = entered(sum, State::TimeWait);
        self.read("time_wait_entered_per_s", rate(born), born);
        self.read("time_wait_live_mean", sum.mean_time_waits(), born);

        let closes = &sum.closes;
        let straight: i64 = closes.straight_to_closed.named().map(|(_, n)| n).sum();
        let active = unsigned(closes.via_time_wait + straight);
        let share = part(closes.via_time_wait, active);
        self.read("time_wait_per_close", share, active);
        self.read("rearms_per_time_wait", part(sum.rearmed, born), born);
        let ends = unsigned(sum.ended.named().map(|(_, n)| n).sum());
        for (reason, n) in sum.ended.named() {
            let name = format!("time_wait_ended_share.{reason}");
            self.read(name, part(n, ends), ends);
        }
    }

    fn connects(&mut self, sum: &Sum) {
        let tried = entered(sum, State::SynSent);
        for (kind, n) in sum.connect_failures.named() {
            let name = format!("connect_failures_per_1000.{kind}");
            self.read(name, part(n, tried).map(|share| 1000.0 * share), tried);
        }
        let latency = &sum.connect_latency;
        let quantile = |q: f64, from: u64| {
            let enough = latency.count() >= from;
            latency.quantile_s(q).filter(|_| enough)
        };
        let count = latency.count();
        self.read("connect_latency_p50_s", quantile(0.50, P50_FROM), count);
        self.read("connect_latency_p99_s", quantile(0.99, P99_FROM), count);
    }

    fn lives(&mut self, sum: &Sum) {
        let table = sum.life_table();
        let deaths = sum.ages.deaths.iter().sum();
        let mean = table.mean_s.map(|mean| mean.estimate);
        self.read("time_wait_life_mean_s", mean, deaths);
        self.read("time_wait_life_p50_s", sum.median_life_s(), deaths);
        let share = table.reaches_2msl.map(|reaches| reaches.share);
        self.read("time_wait_reaches_2msl_share", share, deaths);
        let orphans = &sum.orphans.lives;
        self.read(
            "fin_wait2_orphan_life_mean_s",
            mean_s(orphans),
            orphans.count(),
        );
    }

    /// What did not arrive is missing from every number.
    fn loss(&mut self, sum: &Sum) {
        let seen: i64 = sum.states.iter().map(|(_, count)| count.entered).sum();
        let lost: i64 = sum.lost.named().map(|(_, n)| n).sum();
        let all = unsigned(seen) + unsigned(lost);
        self.check(
            "events seen and events sent",
            unsigned(seen) as f64,
            all as f64,
            LOST,
            1.0,
        );
    }

    fn kernel(&mut self, sum: &Sum, witness: Witness) {
        let counted = |name: &str| sum.kernel.get(name).map(|n| *n as f64);
        let orphans = &sum.orphans;
        if witness.births
            && let (Some(long), Some(short)) = (counted("TW"), counted("TWKilled"))
        {
            let born = unsigned(sum.states.get(State::TimeWait).map_or(0, |c| c.entered));
            let stepped = unsigned(orphans.became_time_wait);
            let seen = born.saturating_sub(stepped) + unsigned(orphans.entered);
            let expected = long + short;
            self.check(
                "births and the kernel's TW + TWKilled",
                seen as f64,
                expected,
                READ_APART,
                FEW,
            );
        }
        if let Some(expected) = counted("TWRecycled") {
            let seen = sum.ended.reused_by_connect
                + sum.ended.reused_by_bound_connect
                + orphans.ended.reused_by_connect
                + orphans.ended.reused_by_bound_connect;
            let seen = unsigned(seen) as f64;
            self.check(
                "reuse and the kernel's TWRecycled",
                seen,
                expected,
                READ_APART,
                FEW,
            );
        }
        if let Some(expected) = counted("TCPTimeWaitOverflow") {
            let seen = unsigned(sum.overflowed) as f64;
            self.check(
                "overflow and the kernel's TCPTimeWaitOverflow",
                seen,
                expected,
                READ_APART,
                FEW,
            );
        }
        let last = sum.last.as_deref();
        if let Some((frame, Kernel { minisockets, .. })) =
            last.and_then(|frame| Some((frame, frame.kernel.as_ref()?)))
        {
            let seen = now(frame) + frame.fin_wait2_orphan.now;
            let expected = *minisockets as f64;
            self.check(
                "minisockets and sockstat's tw",
                seen as f64,
                expected,
                READ_APART,
                FEW,
            );
        }
    }

    /// The stock is what was born before, as far as it lives that long. With a
    /// steady load that is Little's law; so written it needs no steady load.
    fn little(&mut self, all: &[Stock], first: usize, sum: &Sum) {
        let Some(alive) = sum.surviving() else {
            return;
        };
        let step = AGE as f64 / 1e9;
        let oldest = alive.len() as f64 * step;
        let reaches = |age: f64| {
            let place = age / step;
            let index = place as usize;
            let at = |index: usize| alive.get(index).copied().unwrap_or(0.0);
            at(index) + (at(index + 1) - at(index)) * place.fract()
        };
        let (mut seen, mut expected, mut counted) = (0.0, 0.0, 0);
        let stride = (all.len() - first).div_ceil(LOOKED_AT).max(1);
        for last in (first..all.len()).step_by(stride) {
            let mut stock = 0.0;
            let mut back = 0.0;
            for frame in all[..=last].iter().rev() {
                stock += frame.born as f64 * reaches(back + frame.interval_s / 2.0);
                back += frame.interval_s;
                if back > oldest {
                    break;
                }
            }
            // What was there before the first frame is not known to have been born.
            if back > oldest {
                expected += stock;
                seen += all[last].time_waits as f64;
                counted += 1;
            }
        }
        if counted >= ENOUGH_FRAMES {
            let (seen, expected) = (seen / counted as f64, expected / counted as f64);
            let few = FEW.max(4.0 * expected.sqrt());
            self.check("stock and Little's law", seen, expected, LITTLE, few);
        }
    }
}

fn entered(sum: &Sum, state: State) -> u64 {
    unsigned(
        sum.states
            .get(state)
            .map_or(0, |count: &Count| count.entered),
    )
}

fn now(frame: &Frame) -> u64 {
    frame
        .states
        .get(State::TimeWait)
        .map_or(0, |count| count.now)
}

fn part(n: i64, of: u64) -> Option<f64> {
    (of > 0).then(|| unsigned(n) as f64 / of as f64)
}

fn mean_s(durations: &Durations) -> Option<f64> {
    let count = durations.count();
    (count > 0).then(|| durations.sum_s() / count as f64)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
