//! Cuts a run into frames: what a snapshot and the sums behind it have moved
//! since the ones before.

use std::collections::BTreeMap;

use super::frame::{Ages, Connect, Count, FinWait2Orphan, Frame, Namespace, States, TimeWait};
use crate::model::event::{Moment, State};
use crate::model::histogram::{Durations, Lives};
use crate::model::ledger::Sums;
use crate::model::life_table::{AGE, AGES, AgeSums};
use crate::model::snapshot::{
    self, Closes, ConnectFailures, Destination, FinWait2Ends, Lost, Snapshot, TimeWaitEnds,
    Transition,
};

/// Destinations in a frame.
const PORTS: usize = 5;

/// Where the last frame ended; at first, before anything happened.
#[derive(Debug, Default)]
pub struct Cutter {
    frames: u64,
    elapsed_s: f64,
    states: snapshot::States,
    transitions: BTreeMap<(&'static str, &'static str), u64>,
    closes: Closes,
    failures: ConnectFailures,
    latency: Durations,
    rearmed: u64,
    overflowed: u64,
    ended: TimeWaitEnds,
    ended_seeded: u64,
    lives: Lives,
    lives_by_reason: BTreeMap<&'static str, Durations>,
    ages: Box<AgeSums>,
    /// What rounding has kept back so far.
    kept: Box<Kept>,
    orphans: Orphans,
    /// TIME_WAITs entered in each namespace.
    namespaces: BTreeMap<u32, u64>,
    syn_ack_timeouts: u64,
    lost: Lost,
    resyncs: u64,
}

#[derive(Debug)]
struct Kept {
    exposure_s: [f64; AGES],
    lived_s: [f64; AGES],
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            exposure_s: [0.0; AGES],
            lived_s: [0.0; AGES],
        }
    }
}

#[derive(Debug, Default)]
struct Orphans {
    seeded: u64,
    entered: u64,
    became_time_wait: u64,
    ended: FinWait2Ends,
    lives: Durations,
}

impl Cutter {
    /// The frame from the last cut to this snapshot; `sums` are those of the
    /// moment `at` that it is of.
    pub fn cut(&mut self, snapshot: &Snapshot, sums: &Sums<'_>, at: Moment) -> Frame {
        let elapsed_s = microseconds(snapshot.elapsed_s);
        let frame = Frame {
            seq: self.frames,
            time: snapshot.time,
            elapsed_s,
            interval_s: microseconds(elapsed_s - self.elapsed_s),
            states: self.states(&snapshot.states),
            transitions: self.transitions(&snapshot.transitions),
            closes: snapshot.closes.since(&self.closes),
            connect: Connect {
                failures: snapshot.connect_failures.since(&self.failures),
                latency_s: moved(&mut self.latency, sums.connect_latency),
            },
            time_wait: self.time_wait(&snapshot.time_wait, sums, at),
            fin_wait2_orphan: self.fin_wait2_orphan(&snapshot.fin_wait2_orphan, sums),
            ports: snapshot.ports.iter().take(PORTS).map(rounded).collect(),
            namespaces: self.namespaces(&snapshot.namespaces),
            kernel: None,
            syn_ack_timeouts: difference(snapshot.syn_ack_timeouts, self.syn_ack_timeouts),
            lost: snapshot.lost.since(&self.lost),
            resyncs: difference(snapshot.resyncs, self.resyncs),
            exactness: snapshot.exactness,
        };
        self.frames += 1;
        self.elapsed_s = elapsed_s;
        self.states = snapshot.states;
        self.closes = snapshot.closes;
        self.failures = snapshot.connect_failures;
        self.syn_ack_timeouts = snapshot.syn_ack_timeouts;
        self.lost = snapshot.lost;
        self.resyncs = snapshot.resyncs;
        frame
    }

    fn states(&self, now: &snapshot::States) -> States {
        let mut states = States::default();
        for (moved, (now, before)) in states.0.iter_mut().zip(now.0.iter().zip(&self.states.0)) {
            *moved = Count {
                now: now.now,
                seeded: difference(now.seeded, before.seeded),
                entered: difference(now.entered, before.entered),
                left: difference(now.left, before.left),
            };
        }
        states
    }

    fn transitions(&mut self, now: &[Transition]) -> Vec<Transition<i64>> {
        // One that was taken back altogether is not in the snapshot any more.
        let mut before = std::mem::take(&mut self.transitions);
        let mut moved = Vec::new();
        for &Transition { from, to, count } in now {
            self.transitions.insert((from, to), count);
            moved.push((
                from,
                to,
                difference(count, before.remove(&(from, to)).unwrap_or(0)),
            ));
        }
        moved.extend(
            before
                .into_iter()
                .map(|((from, to), count)| (from, to, difference(0, count))),
        );
        moved
            .into_iter()
            .filter(|&(_, _, count)| count != 0)
            .map(|(from, to, count)| Transition { from, to, count })
            .collect()
    }

    fn time_wait(&mut self, now: &snapshot::TimeWait, sums: &Sums<'_>, at: Moment) -> TimeWait {
        let mut lives_s = BTreeMap::new();
        for (reason, lives) in sums.lives_by_reason() {
            let sparse = moved(self.lives_by_reason.entry(reason).or_default(), lives);
            if sparse.count > 0 {
                lives_s.insert(reason.to_owned(), sparse);
            }
        }
        let time_wait = TimeWait {
            side: now.side,
            rearmed: difference(now.rearmed, self.rearmed),
            overflowed: difference(now.overflowed, self.overflowed),
            ended: now.ended.since(&self.ended),
            ended_seeded: difference(now.ended_seeded, self.ended_seeded),
            lives_s,
            bands: sums.lives.since(&self.lives),
            ages: self.ages(sums.ages(at)),
            timer: now.timer,
        };
        self.rearmed = now.rearmed;
        self.overflowed = now.overflowed;
        self.ended = now.ended;
        self.ended_seeded = now.ended_seeded;
        self.lives.clone_from(sums.lives);
        time_wait
    }

    fn ages(&mut self, now: AgeSums) -> Ages {
        let mut ages = Ages {
            width_s: AGE as f64 / 1e9,
            exposure_s: Vec::with_capacity(AGES),
            deaths: Vec::with_capacity(AGES),
            lived_s: Vec::with_capacity(AGES),
        };
        for age in 0..AGES {
            let exposure_s = now.exposure_s[age] - self.ages.exposure_s[age];
            let lived_s = now.lived_s[age] - self.ages.lived_s[age];
            ages.exposure_s
                .push(round(exposure_s, &mut self.kept.exposure_s[age]));
            ages.deaths.push(now.deaths[age] - self.ages.deaths[age]);
            ages.lived_s
                .push(round(lived_s, &mut self.kept.lived_s[age]));
        }
        *self.ages = now;
        let seen = |age: &usize| ages.exposure_s[*age] > 0.0 || ages.deaths[*age] > 0;
        let end = (0..AGES).rfind(seen).map_or(0, |last| last + 1);
        ages.exposure_s.truncate(end);
        ages.deaths.truncate(end);
        ages.lived_s.truncate(end);
        ages
    }

    fn fin_wait2_orphan(
        &mut self,
        now: &snapshot::FinWait2Orphan,
        sums: &Sums<'_>,
    ) -> FinWait2Orphan {
        let before = &mut self.orphans;
        let frame = FinWait2Orphan {
            now: now.now,
            seeded: difference(now.seeded, before.seeded),
            entered: difference(now.entered, before.entered),
            became_time_wait: difference(now.became_time_wait, before.became_time_wait),
            ended: now.ended.since(&before.ended),
            lives_s: moved(&mut before.lives, sums.orphan_lives),
        };
        before.seeded = now.seeded;
        before.entered = now.entered;
        before.became_time_wait = now.became_time_wait;
        before.ended = now.ended;
        frame
    }

    fn namespaces(&mut self, now: &[snapshot::Namespace]) -> Vec<Namespace> {
        now.iter()
            .map(|namespace| {
                let entered = namespace
                    .states
                    .get(State::TimeWait)
                    .map_or(0, |count| count.entered);
                let before = self.namespaces.insert(namespace.netns, entered);
                Namespace {
                    netns: namespace.netns,
                    name: namespace.name.clone(),
                    now: namespace
                        .states
                        .iter()
                        .filter(|(_, count)| count.now > 0)
                        .map(|(state, count)| (state.name().to_owned(), count.now))
                        .collect(),
                    time_wait_entered: difference(entered, before.unwrap_or(0)),
                }
            })
            .collect()
    }
}

fn difference(now: u64, before: u64) -> i64 {
    now as i64 - before as i64
}

/// What was recorded since `before`, which catches up.
fn moved(before: &mut Durations, now: &Durations) -> crate::model::histogram::Sparse {
    let sparse = now.since(before);
    if sparse.count > 0 {
        before.clone_from(now);
    }
    sparse
}

/// Seconds to three figures, and to no less than a millisecond. `kept` is what
/// was rounded off before, and then what is rounded off now.
fn round(s: f64, kept: &mut f64) -> f64 {
    let wanted = s + *kept;
    let ms = (wanted * 1000.0).round().max(0.0) as u64;
    let figures = ms.checked_ilog10().unwrap_or(0) + 1;
    let unit = 10_u64.pow(figures.saturating_sub(3));
    let told = ((ms + unit / 2) / unit * unit) as f64 / 1000.0;
    *kept = wanted - told;
    told
}

fn microseconds(s: f64) -> f64 {
    (s * 1e6).round() / 1e6
}

/// Rates and times to a tenth.
fn rounded(destination: &Destination) -> Destination {
    let tenth = |x: f64| (x * 10.0).round() / 10.0;
    Destination {
        connects_per_s: tenth(destination.connects_per_s),
        limit_per_s: tenth(destination.limit_per_s),
        exhausted_in_s: destination.exhausted_in_s.map(tenth),
        ..destination.clone()
    }
}
