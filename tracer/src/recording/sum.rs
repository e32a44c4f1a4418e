//! What frames add up to: the totals of a whole run, or of any stretch of it.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

use super::frame::{self, Frame};
use super::header::{End, Header};
use crate::model::clock::ASSUMED_NOMINAL_S;
use crate::model::event::State;
use crate::model::histogram::{Durations, Lives};
use crate::model::life_table::AgeSums;
use crate::model::snapshot::{
    self, Closes, ConnectFailures, Exactness, FinWait2Ends, LifeTable, Lifetime, Lost, Snapshot,
    TimeWaitEnds, Transition,
};

#[derive(Clone, Debug, Default)]
pub struct Sum {
    pub frames: u64,
    /// Of the frames, summed.
    pub interval_s: f64,
    /// Frames whose counts were approximate.
    pub approximate: u64,
    /// Counts, and the gauges of the last frame.
    pub states: frame::States,
    transitions: BTreeMap<(&'static str, &'static str), i64>,
    pub closes: Closes<i64>,
    pub connect_failures: ConnectFailures<i64>,
    pub connect_latency: Durations,
    pub rearmed: i64,
    pub overflowed: i64,
    pub ended: TimeWaitEnds<i64>,
    pub ended_seeded: i64,
    /// Whole lives in TIME_WAIT.
    pub lives: Lives,
    pub lives_by_reason: BTreeMap<&'static str, Durations>,
    pub ages: Box<AgeSums>,
    pub orphans: Orphans,
    /// What the kernel counted, by its names.
    pub kernel: BTreeMap<String, u64>,
    pub syn_ack_timeouts: i64,
    pub lost: Lost<i64>,
    pub resyncs: i64,
    /// The newest frame.
    pub last: Option<Box<Frame>>,
}

/// Orphans in FIN_WAIT2 that went on as minisockets.
#[derive(Clone, Debug, Default)]
pub struct Orphans {
    pub seeded: i64,
    pub entered: i64,
    pub became_time_wait: i64,
    pub ended: FinWait2Ends<i64>,
    pub lives: Durations,
}

impl Sum {
    #[must_use]
    pub fn of(frames: impl IntoIterator<Item: Borrow<Frame>>) -> Sum {
        let mut sum = Sum::default();
        for frame in frames {
            sum.add(frame.borrow());
        }
        sum
    }

    /// Adds a frame; those of a stretch come in their order.
    pub fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.interval_s += frame.interval_s;
        self.approximate += u64::from(frame.exactness == Exactness::Approximate);
        for (sum, moved) in self.states.0.iter_mut().zip(&frame.states.0) {
            sum.now = moved.now;
            sum.seeded += moved.seeded;
            sum.entered += moved.entered;
            sum.left += moved.left;
        }
        for &Transition { from, to, count } in &frame.transitions {
            *self.transitions.entry((from, to)).or_default() += count;
        }
        self.closes.add(&frame.closes);
        self.connect_failures.add(&frame.connect.failures);
        self.connect_latency.add(&frame.connect.latency_s);

        let time_wait = &frame.time_wait;
        self.rearmed += time_wait.rearmed;
        self.overflowed += time_wait.overflowed;
        self.ended.add(&time_wait.ended);
        self.ended_seeded += time_wait.ended_seeded;
        self.lives.add(time_wait.lives_s.values(), &time_wait.bands);
        for (reason, lives) in &time_wait.lives_s {
            // One that is not known is among all lives, and nowhere else.
            if let Some(name) = TimeWaitEnds::NAMES.iter().find(|name| *name == reason) {
                self.lives_by_reason.entry(name).or_default().add(lives);
            }
        }
        let ages = &time_wait.ages;
        for (sum, s) in self.ages.exposure_s.iter_mut().zip(&ages.exposure_s) {
            *sum += s;
        }
        for (sum, deaths) in self.ages.deaths.iter_mut().zip(&ages.deaths) {
            *sum += deaths;
        }
        for (sum, s) in self.ages.lived_s.iter_mut().zip(&ages.lived_s) {
            *sum += s;
        }

        let orphans = &frame.fin_wait2_orphan;
        self.orphans.seeded += orphans.seeded;
        self.orphans.entered += orphans.entered;
        self.orphans.became_time_wait += orphans.became_time_wait;
        self.orphans.ended.add(&orphans.ended);
        self.orphans.lives.add(&orphans.lives_s);
        for (name, n) in frame.kernel.iter().flat_map(|kernel| &kernel.counters) {
            match self.kernel.get_mut(name) {
                Some(sum) => *sum += n,
                None => drop(self.kernel.insert(name.clone(), *n)),
            }
        }
        self.syn_ack_timeouts += frame.syn_ack_timeouts;
        self.lost.add(&frame.lost);
        self.resyncs += frame.resyncs;
        self.last = Some(Box::new(frame.clone()));
    }

    #[must_use]
    pub fn transitions(&self, from: State, to: State) -> u64 {
        let count = self.transitions.get(&(from.name(), to.name()));
        count.copied().map_or(0, unsigned)
    }

    /// Socket-seconds in TIME_WAIT over seconds: the mean stock, of all that
    /// were not older than the last age.
    #[must_use]
    pub fn mean_time_waits(&self) -> Option<f64> {
        (self.interval_s > 0.0).then(|| self.ages.exposure_s.iter().sum::<f64>() / self.interval_s)
    }

    #[must_use]
    pub fn life_table(&self) -> LifeTable {
        let (nominal, slack) = self.two_msl();
        self.ages.table(nominal, slack)
    }

    /// The age that half of the TIME_WAITs reach.
    #[must_use]
    pub fn median_life_s(&self) -> Option<f64> {
        let (nominal, slack) = self.two_msl();
        self.ages.median_s(nominal, slack)
    }

    /// The share of TIME_WAITs that reaches each age (`AgeSums::surviving`).
    #[must_use]
    pub fn surviving(&self) -> Option<Vec<f64>> {
        let (nominal, slack) = self.two_msl();
        self.ages.surviving(nominal, slack)
    }

    /// Nominal length and slack, nanoseconds.
    fn two_msl(&self) -> (u64, u64) {
        let timer = self.timer();
        let nominal_s = timer.nominal_s.unwrap_or(f64::from(ASSUMED_NOMINAL_S));
        (nanoseconds(nominal_s), nanoseconds(timer.slack_s))
    }

    fn timer(&self) -> snapshot::Timer {
        self.last
            .as_ref()
            .map(|frame| frame.time_wait.timer)
            .unwrap_or_default()
    }

    /// The same in the shape of a snapshot, as `live` would have shown it at the
    /// end of the last frame. Owners, remotes, namespaces and the time spent in
    /// other states are only told at the end of a run. `None` without a frame.
    #[must_use]
    pub fn snapshot(&self, header: &Header, end: Option<&End>) -> Option<Snapshot> {
        let last = self.last.as_deref()?;
        let states = self.snapshot_states();
        Some(Snapshot {
            schema: snapshot::SCHEMA,
            seq: last.seq,
            time: last.time,
            elapsed_s: self.interval_s,
            interval_s: last.interval_s,
            host: header.host.clone(),
            version: Cow::Owned(header.version.clone()),
            scope: header.scope.clone(),
            states,
            last_without_port: None,
            transitions: self.snapshot_transitions(),
            closes: self.closes.total(),
            connect_failures: self.connect_failures.total(),
            connect_latency_s: self.connect_latency.distribution(),
            syn_ack_timeouts: unsigned(self.syn_ack_timeouts),
            time_wait: self.time_wait(&states, last),
            fin_wait2_orphan: snapshot::FinWait2Orphan {
                now: last.fin_wait2_orphan.now,
                seeded: unsigned(self.orphans.seeded),
                entered: unsigned(self.orphans.entered),
                became_time_wait: unsigned(self.orphans.became_time_wait),
                ended: self.orphans.ended.total(),
                lifetime_s: self.orphans.lives.distribution(),
            },
            in_state_s: by_known_name(end.map(|end| &end.in_state_s), &state_names()),
            last_reset: None,
            connects: Vec::new(),
            stock: None,
            ports: last.ports.clone(),
            owners: end.map(|end| end.owners.clone()).unwrap_or_default(),
            remotes: end.map(|end| end.remotes.clone()).unwrap_or_default(),
            left_out: end.map(|end| end.left_out).unwrap_or_default(),
            namespaces: end.map(|end| end.namespaces.clone()).unwrap_or_default(),
            lost: self.lost.total(),
            resyncs: unsigned(self.resyncs),
            exactness: last.exactness,
        })
    }

    fn snapshot_states(&self) -> snapshot::States {
        let mut states = snapshot::States::default();
        for (shown, sum) in states.0.iter_mut().zip(&self.states.0) {
            *shown = snapshot::Count {
                now: sum.now,
                seeded: unsigned(sum.seeded),
                entered: unsigned(sum.entered),
                left: unsigned(sum.left),
            };
        }
        states
    }

    /// In the order of the states, as a snapshot has them.
    fn snapshot_transitions(&self) -> Vec<Transition> {
        let names = state_names();
        let mut transitions = Vec::new();
        for &from in &names {
            for &to in &names {
                let count = self
                    .transitions
                    .get(&(from, to))
                    .copied()
                    .map_or(0, unsigned);
                if count > 0 {
                    transitions.push(Transition { from, to, count });
                }
            }
        }
        transitions
    }

    fn time_wait(&self, states: &snapshot::States, last: &Frame) -> snapshot::TimeWait {
        let count = states.get(State::TimeWait).copied().unwrap_or_default();
        snapshot::TimeWait {
            now: count.now,
            seeded: count.seeded,
            entered: count.entered,
            side: last.time_wait.side,
            rearmed: unsigned(self.rearmed),
            overflowed: unsigned(self.overflowed),
            ended: self.ended.total(),
            ended_seeded: unsigned(self.ended_seeded),
            lifetime_s: Lifetime {
                distribution: self.lives.distribution(),
                complete_from_s: self.interval_s,
                buckets: self.lives.buckets(),
            },
            lifetime_by_reason_s: self
                .lives_by_reason
                .iter()
                .map(|(reason, lives)| (*reason, lives.distribution()))
                .collect(),
            life_table: self.life_table(),
            timer: last.time_wait.timer,
        }
    }
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn nanoseconds(s: f64) -> u64 {
    (s * 1e9).round() as u64
}

/// In the order in which a snapshot lists transitions.
fn state_names() -> Vec<&'static str> {
    State::COUNTED
        .into_iter()
        .chain([State::Close])
        .map(State::name)
        .collect()
}

/// The values whose names are among the known.
fn by_known_name<T: Copy>(
    values: Option<&BTreeMap<String, T>>,
    known: &[&'static str],
) -> BTreeMap<&'static str, T> {
    let values = values.into_iter().flatten();
    values
        .filter_map(|(name, value)| {
            let name = known.iter().find(|known| *known == name)?;
            Some((*name, *value))
        })
        .collect()
}
