//! The state of the ledger at one moment, in the shape of `twtrace.snapshot/1`.
//!
//! This is the one value every renderer consumes, and field for field what
//! `live --json` prints. Fields may be added; none is ever removed or renamed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracer_common::state::State;

use super::counters::counters;
use super::event::Tuple;
use super::happening::{CloseReason, Process};
use super::stock::Stock;
use crate::units;

pub const SCHEMA: &str = "twtrace.snapshot/1";

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    pub schema: &'static str,
    pub seq: u64,
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    /// Since the start of the run.
    pub elapsed_s: f64,
    /// Since the last snapshot.
    pub interval_s: f64,
    pub host: Host,
    /// Of the twtrace that counted.
    pub version: Cow<'static, str>,
    pub scope: Scope,
    /// All ten states, by netstat's names, in netstat's order.
    pub states: States,
    pub transitions: Vec<Transition>,
    pub closes: Closes,
    pub connect_failures: ConnectFailures,
    /// The newest connect that found no free port; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_without_port: Option<WithoutPort>,
    /// The newest TIME_WAIT that a RST ended.
    #[serde(skip)]
    pub last_reset: Option<Tuple>,
    /// What became of connects lately, by destination: most failures first.
    pub connects: Vec<Connects>,
    /// What a look at every socket found; absent where nobody looks.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stock: Option<Stock>,
    pub connect_latency_s: Distribution,
    /// How often no ACK came in time for a SYN-ACK: it was sent again, or the
    /// half-open request given up.
    pub syn_ack_timeouts: u64,
    pub time_wait: TimeWait,
    pub fin_wait2_orphan: FinWait2Orphan,
    /// Time spent in each other state, of the sockets that left it; states
    /// nobody left are absent.
    pub in_state_s: BTreeMap<&'static str, Distribution>,
    /// Worst first.
    pub ports: Vec<Destination>,
    /// Most TIME_WAITs first.
    pub owners: Vec<Owner>,
    /// Most TIME_WAITs first.
    pub remotes: Vec<Remote>,
    /// What the bounded tables above could not keep.
    pub left_out: LeftOut,
    /// By inode.
    pub namespaces: Vec<Namespace>,
    pub lost: Lost,
    pub resyncs: u64,
    pub exactness: Exactness,
}

/// Always three decimals, so that times of one width sort as text.
pub(crate) fn to_milliseconds<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub boot_id: String,
    pub hz: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `all`, or the namespace as it was asked for.
    pub netns: String,
    /// The filter in canonical words; empty: none.
    pub filter: String,
}

/// `now = seeded + entered − left`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub now: u64,
    pub seeded: u64,
    pub entered: u64,
    pub left: u64,
}

/// The ten counted states; serializes as a map from name to [`Count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(pub [Count; 10]);

impl States {
    /// `None` for a state that is not counted.
    #[must_use]
    pub fn get(&self, state: State) -> Option<&Count> {
        State::COUNTED
            .iter()
            .position(|&s| s == state)
            .map(|i| &self.0[i])
    }

    pub fn iter(&self) -> impl Iterator<Item = (State, &Count)> {
        State::COUNTED.into_iter().zip(&self.0)
    }
}

impl<'de> Deserialize<'de> for States {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<States, D::Error> {
        let by_name = BTreeMap::<String, Count>::deserialize(deserializer)?;
        let count = |state: State| by_name.get(state.name()).copied().unwrap_or_default();
        Ok(States(State::COUNTED.map(count)))
    }
}

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(state, count)| (state.name(), count)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transition<N = u64> {
    pub from: &'static str,
    pub to: &'static str,
    pub count: N,
}

impl<'de, N: Deserialize<'de>> Deserialize<'de> for Transition<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named<N> {
            from: String,
            to: String,
            count: N,
        }
        let Named { from, to, count } = Named::deserialize(deserializer)?;
        let known = |name: &str| {
            let mut states = State::COUNTED.into_iter().chain([State::Close]);
            let unknown = || serde::de::Error::custom(format_args!("no state is called {name:?}"));
            states
                .find(|state| state.name() == name)
                .map(State::name)
                .ok_or_else(unknown)
        };
        Ok(Transition {
            from: known(&from)?,
            to: known(&to)?,
            count,
        })
    }
}

/// How connections came to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closes<N = u64> {
    /// Active closes that went into TIME_WAIT.
    pub via_time_wait: N,
    /// LAST_ACK -> CLOSED.
    pub passive: N,
    pub straight_to_closed: StraightToClosed<N>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StraightToClosed<N = u64> {
    pub overflow: N,
    pub reset: N,
    pub aborted: N,
    pub other: N,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFailures<N = u64> {
    pub ports_exhausted: N,
    pub refused: N,
    pub timed_out: N,
    pub abandoned: N,
    pub unreachable: N,
    /// The port that the program chose is taken towards this destination. Recordings
    /// of earlier versions have these among the abandoned.
    #[serde(default)]
    pub address_in_use: N,
    pub other: N,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeWait {
    pub now: u64,
    pub seeded: u64,
    pub entered: u64,
    /// Of those there are now, by the end that closed first.
    pub side: Sides,
    pub rearmed: u64,
    /// Never born: `TCPTimeWaitOverflow`.
    pub overflowed: u64,
    pub ended: TimeWaitEnds,
    /// Ends of sockets without a whole life: seeded, or found by a resync.
    pub ended_seeded: u64,
    /// Whole lives only.
    pub lifetime_s: Lifetime,
    /// The same by reason of the end; reasons nobody ended by are absent.
    pub lifetime_by_reason_s: BTreeMap<&'static str, Distribution>,
    pub life_table: LifeTable,
    pub timer: Timer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    pub client: u64,
    pub server: u64,
    pub unknown: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWaitEnds<N = u64> {
    pub expired: N,
    pub reused_by_connect: N,
    pub reused_by_bound_connect: N,
    pub reused_by_syn: N,
    pub reset: N,
    pub tproxy: N,
    pub destroyed: N,
    pub netns_exit: N,
    pub unknown: N,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FinWait2Orphan {
    pub now: u64,
    pub seeded: u64,
    pub entered: u64,
    pub became_time_wait: u64,
    pub ended: FinWait2Ends,
    pub lifetime_s: Distribution,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinWait2Ends<N = u64> {
    pub expired: N,
    pub data_after_close: N,
    pub reset: N,
    pub reused_by_connect: N,
    pub reused_by_bound_connect: N,
    pub tproxy: N,
    pub destroyed: N,
    pub netns_exit: N,
    pub unknown: N,
}

/// Seconds. Where `count` is 0 nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    pub sum: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lifetime {
    #[serde(flatten)]
    pub distribution: Distribution,
    /// A run cannot have seen a life longer than this: the plain histogram is
    /// complete only below it.
    pub complete_from_s: f64,
    pub buckets: Vec<Bucket>,
}

/// Lives in `ge <= life < lt`, seconds; `lt` is absent in the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    pub ge: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
    pub count: u64,
}

/// The period life table (docs/statistics.md): what the plain histogram of a
/// short run cannot say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LifeTable {
    /// Time at risk that stands behind the estimates.
    pub socket_seconds: f64,
    /// `None` where too little was seen to say.
    pub reaches_2msl: Option<ShareEstimate>,
    pub mean_s: Option<MeanEstimate>,
    /// The age that nobody has passed yet, where that is why nothing is said:
    /// a word for people, which follows from the members above.
    #[serde(skip)]
    pub seen_to_s: Option<f64>,
}

/// 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShareEstimate {
    pub share: f64,
    pub low: f64,
    pub high: f64,
}

/// 95 % interval, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanEstimate {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timer {
    /// What the kernel asked for at an arming; `None` until one was seen.
    pub nominal_s: Option<f64>,
    /// How late the timer wheel may be at that timeout.
    pub slack_s: f64,
}

/// A connect that found no free local port.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WithoutPort {
    pub netns: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_port: u16,
    /// Before the snapshot.
    pub ago_s: f64,
}

/// Port headroom of one client-side destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    pub netns: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_port: u16,
    /// Local ports taken towards it, in any state.
    pub used: u64,
    pub time_wait: u64,
    /// Ports of `ip_local_port_range` that are not reserved.
    pub usable: u64,
    pub connects_per_s: f64,
    /// What the ports can sustain: `usable / (2MSL + g/2)`, with reuse `usable / delay`.
    pub limit_per_s: f64,
    /// At the present rates; absent where the ports suffice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_in_s: Option<f64>,
}

/// What became of the connects to one destination within the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connects {
    pub netns: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_port: u16,
    /// The seconds that this is of.
    pub window_s: f64,
    pub established: u64,
    /// Of these, how many took about as long as a SYN sent again takes: 1 or 2 s, 3 or
    /// 4 s, 6 or 7 s.
    pub late_1s: u64,
    pub late_3s: u64,
    pub late_7s: u64,
    pub failed: ConnectFailures,
    /// Of those abandoned, those that had waited a second or more for an answer.
    pub given_up: u64,
    /// Connections that closed, and how long they were established on average.
    pub closed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_life_s: Option<f64>,
    /// Who connected last, and who failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Holder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<Holder>,
}

/// The process that a socket belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// 0: it has no number in the PID namespace of `/proc`.
    pub pid: u32,
    pub comm: String,
    /// Path below the cgroup v2 mount; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

impl Holder {
    pub(super) fn of(
        process: &Process,
        cgroup_path: &mut dyn FnMut(u64) -> Option<String>,
    ) -> Holder {
        Holder {
            pid: process.pid,
            comm: process.comm.as_ref().map(units::comm).unwrap_or_default(),
            cgroup: process.cgroup.and_then(cgroup_path),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// 0: it has no number in the PID namespace of `/proc`.
    pub pid: u32,
    pub comm: String,
    /// Path below the cgroup v2 mount; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    pub time_wait_entered: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub addr: IpAddr,
    pub time_wait_entered: u64,
}

/// Entries that bounded tables dropped; TIME_WAITs they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub destinations: u64,
    pub owners_time_wait_entered: u64,
    pub remotes_time_wait_entered: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    pub netns: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub states: States,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost<N = u64> {
    pub ring: N,
    pub map: N,
    pub recursion: N,
    /// What no counter told and a witness found.
    pub unseen: N,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exactness {
    #[default]
    Exact,
    /// Something was lost and has not been put right from the kernel yet.
    Approximate,
}

impl ConnectFailures {
    /// The counter of connects that failed for this reason.
    pub(super) fn by(&mut self, reason: CloseReason) -> &mut u64 {
        match reason {
            CloseReason::PortsExhausted => &mut self.ports_exhausted,
            CloseReason::Refused => &mut self.refused,
            CloseReason::TimedOut => &mut self.timed_out,
            CloseReason::Abandoned => &mut self.abandoned,
            CloseReason::Unreachable => &mut self.unreachable,
            CloseReason::AddressInUse => &mut self.address_in_use,
            _ => &mut self.other,
        }
    }
}

counters!(StraightToClosed {
    overflow,
    reset,
    aborted,
    other
});
counters!(Closes { via_time_wait, passive; straight_to_closed });
counters!(ConnectFailures {
    ports_exhausted,
    refused,
    timed_out,
    abandoned,
    unreachable,
    address_in_use,
    other
});
counters!(TimeWaitEnds {
    expired,
    reused_by_connect,
    reused_by_bound_connect,
    reused_by_syn,
    reset,
    tproxy,
    destroyed,
    netns_exit,
    unknown
});
counters!(FinWait2Ends {
    expired,
    data_after_close,
    reset,
    reused_by_connect,
    reused_by_bound_connect,
    tproxy,
    destroyed,
    netns_exit,
    unknown
});
counters!(Lost {
    ring,
    map,
    recursion,
    unseen
});
