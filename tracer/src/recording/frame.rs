//! One interval of a run. Gauges (`now`, `side`, `ports`) are of its end; every
//! other count says how far it moved within the interval.
//!
//! Moves are signed: the ledger takes a step back where a birth that came to
//! light late shows that a socket did not close. Over all frames they add up to
//! the totals of a snapshot.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::ser::Serializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::event::State;
use crate::model::histogram::{Bands, Sparse};
use crate::model::snapshot::{
    Closes, ConnectFailures, Destination, Exactness, FinWait2Ends, Lost, Sides, TimeWaitEnds,
    Timer, Transition, to_milliseconds,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// From 0 on; the first covers the start of the run, in which sockets that
    /// were there are seeded.
    pub seq: u64,
    /// Of its end.
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    /// From the start of the run to its end.
    pub elapsed_s: f64,
    pub interval_s: f64,
    pub states: States,
    pub transitions: Vec<Transition<i64>>,
    pub closes: Closes<i64>,
    pub connect: Connect,
    pub time_wait: TimeWait,
    pub fin_wait2_orphan: FinWait2Orphan,
    /// The worst few, at its end.
    pub ports: Vec<Destination>,
    /// Those with sockets, by inode.
    pub namespaces: Vec<Namespace>,
    /// Absent in the first frame: there is nothing to count from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub syn_ack_timeouts: i64,
    pub lost: Lost<i64>,
    pub resyncs: i64,
    pub exactness: Exactness,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Gauge.
    pub now: u64,
    pub seeded: i64,
    pub entered: i64,
    pub left: i64,
}

/// The ten counted states; serializes as a map from name to [`Count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(pub [Count; 10]);

impl States {
    /// `None` for a state that is not counted.
    #[must_use]
    pub fn get(&self, state: State) -> Option<&Count> {
        self.iter()
            .find(|(counted, _)| *counted == state)
            .map(|(_, count)| count)
    }

    pub fn iter(&self) -> impl Iterator<Item = (State, &Count)> {
        State::COUNTED.into_iter().zip(&self.0)
    }
}

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(state, count)| (state.name(), count)))
    }
}

impl<'de> Deserialize<'de> for States {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<States, D::Error> {
        let by_name = BTreeMap::<String, Count>::deserialize(deserializer)?;
        let count = |state: State| by_name.get(state.name()).copied().unwrap_or_default();
        Ok(States(State::COUNTED.map(count)))
    }
}

/// Connections that were asked for from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    pub failures: ConnectFailures<i64>,
    /// SYN_SENT to ESTABLISHED.
    pub latency_s: Sparse,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeWait {
    /// Of those there are, by the end that closed first.
    pub side: Sides,
    pub rearmed: i64,
    pub overflowed: i64,
    pub ended: TimeWaitEnds<i64>,
    pub ended_seeded: i64,
    /// Whole lives by the reason of their end; reasons nobody ended by are absent.
    pub lives_s: BTreeMap<String, Sparse>,
    /// All of them by the bands that `live` shows.
    pub bands: Bands,
    pub ages: Ages,
    pub timer: Timer,
}

/// What a life table is drawn up from: at each age, whoever was looked at
/// during the interval. Ages that nobody had at the end are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ages {
    /// The first age begins at 0, the last one holds all that are older.
    pub width_s: f64,
    /// Socket-seconds, to three figures; what one frame rounds off the next one
    /// makes good.
    pub exposure_s: Vec<f64>,
    pub deaths: Vec<u64>,
    /// How far into the age those that died had come, summed.
    pub lived_s: Vec<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinWait2Orphan {
    /// Gauge.
    pub now: u64,
    pub seeded: i64,
    pub entered: i64,
    pub became_time_wait: i64,
    pub ended: FinWait2Ends<i64>,
    pub lives_s: Sparse,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number.
    pub netns: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Sockets at the end; states without any are absent.
    pub now: BTreeMap<String, u64>,
    pub time_wait_entered: i64,
}

/// What the kernel itself counted, in all namespaces of the scope together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Within the interval, by the kernel's names (`TW`, `ActiveOpens`); those
    /// that this kernel has.
    pub counters: BTreeMap<String, u64>,
    /// sockstat's gauges: `tw`, and `inuse` of both families.
    pub minisockets: u64,
    pub full_sockets: u64,
}
