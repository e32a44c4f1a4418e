//! What one look at every socket adds up to: listeners and their queues, local ports
//! by destination and by source, ports whose listener has gone, and sockets that wait
//! for their own program.
//!
//! The ledger counts what happens; this is what stands, with what only the sockets
//! themselves say: options, queues, timestamps, and when a segment came last.

mod look;
mod memory;
mod rows;

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::event::{Moment, NamespaceFacts, Netns, Tuple};
use super::found::{BoundPort, Found};
use super::happening::{Process, Side};
use super::ports::PortSet;
use super::snapshot::Holder;

pub use look::Look;
pub use memory::Memory;

/// Of each kind the worst so many are kept.
const ROWS: usize = 50;

/// Destinations that are told apart; of a host with more some are left out.
const ROUTES: usize = 65_536;

/// A socket whose own program is to close it is looked for this long before anybody
/// says so, seconds.
pub const PATIENT_S: f64 = 10.0;
pub const LONG_S: f64 = 60.0;

/// Source addresses that are told apart: each takes 8 KiB.
const SOURCES: usize = 1_024;

/// Remote addresses that are told apart.
const REMOTES: usize = 65_536;

/// Of a destination with fewer nobody asks whose they are.
const PRESSED: u64 = 50;

/// TIME_WAITs that end later are counted with the last: 2MSL and some.
const SECONDS: usize = 256;

/// What the NFS client and `bindresvport` take, of the ports that only the privileged
/// may bind.
const PRIVILEGED: std::ops::Range<u16> = 665..1024;

/// How many these are.
pub const PRIVILEGED_PORTS: u64 = (PRIVILEGED.end - PRIVILEGED.start) as u64;

/// What a look found. Absent rows are not known to be empty: each list has the worst.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stock {
    /// How long before the snapshot.
    #[serde(rename = "looked_ago_s")]
    pub ago_s: f64,
    /// Most in need of attention first.
    pub listeners: Vec<Listening>,
    /// Of the TIME_WAITs that there are now, those of the remote addresses that have
    /// most.
    pub time_wait_by_remote: Vec<RemoteNow>,
    /// What has been longest in a state that its program has to end; oldest first.
    pub held: Vec<Held>,
    #[serde(skip)]
    pub routes: Vec<Route>,
    #[serde(skip)]
    pub sources: Vec<Source>,
    #[serde(skip)]
    pub closed_ports: Vec<ClosedPort>,
    #[serde(skip)]
    pub self_connected: Vec<SelfConnected>,
    #[serde(skip)]
    pub taken: Vec<TakenPort>,
    /// How many TIME_WAITs end in each of the seconds to come.
    #[serde(skip)]
    pub time_wait_ends: Vec<u64>,
    /// Of every namespace.
    #[serde(skip)]
    pub pools: Vec<Pool>,
    /// Of namespaces with minisockets.
    #[serde(skip)]
    pub buckets: Vec<Buckets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteNow {
    pub addr: IpAddr,
    pub now: u64,
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listening {
    pub netns: u32,
    pub local: IpAddr,
    pub port: u16,
    /// Connections that wait for `accept()`, and how many may.
    pub accept_queue: u32,
    pub accept_limit: u32,
    /// Requests whose handshake is not finished.
    pub half_open: u32,
    /// SYNs and ACKs dropped since the start, for whatever reason.
    pub dropped: u64,
    /// Since some were dropped while the accept queue was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_ago_s: Option<f64>,
    pub dropped_per_s: f64,
    /// Connections from its port, by state.
    pub states: BTreeMap<&'static str, u64>,
    /// The program asked for this port, rather than for any.
    pub port_chosen: bool,
    /// The port lies in `ip_local_port_range` and is not reserved.
    pub in_range: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
}

/// Sockets in a state that only their program ends, of one listener or destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    pub netns: u32,
    pub state: &'static str,
    /// Of connections that were accepted: the port that was listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listening_port: Option<u16>,
    /// Of connections that were made: where to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    pub now: u64,
    /// How long ago a segment last came to the one that waits longest.
    pub oldest_s: f64,
    /// How many have waited 10 s, and a minute.
    pub over_10s: u64,
    pub over_60s: u64,
    /// Of those in FIN_WAIT2: whose other ends are here, in CLOSE_WAIT.
    pub peers_in_close_wait: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
}

/// A destination, and what stands in the way of one more `connect()` to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub netns: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_port: u16,
    /// Ports that a plain `connect()` may choose from.
    pub usable: u64,
    /// Of these: in TIME_WAIT, and among them with timestamps.
    pub time_wait: u64,
    pub with_timestamps: u64,
    pub close_wait: u64,
    /// Orphans in FIN_WAIT2, which nothing takes over.
    pub fin_wait2: u64,
    pub open: u64,
    /// Of these: held by `bind()` or `listen()`, whatever the destination.
    pub bound: u64,
    /// Towards it from ports outside of the range.
    pub outside: u64,
    /// From ports below 1024, and among them from 665 on.
    pub privileged: u64,
    /// Until the first TIME_WAIT ends.
    pub free_in_s: Option<f64>,
    /// Whether a TIME_WAIT with timestamps that is old enough serves again.
    pub reuse: bool,
    /// tcp_tw_reuse is set so that it would, and tcp_timestamps is not 0.
    pub reuse_set: bool,
    pub timestamps: bool,
    pub holder: Option<Holder>,
}

impl Route {
    /// Of the usable ports those that are not free.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.time_wait + self.close_wait + self.fin_wait2 + self.open + self.bound
    }
}

/// A source address from which programs bind before they connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub netns: u32,
    pub local: IpAddr,
    pub usable: u64,
    /// Ports of the range that `bind()` took on this address.
    pub bound: u64,
    pub destinations: u64,
    pub holder: Option<Holder>,
}

/// A local port that nothing listens on, and that a `bind()` may not get.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedPort {
    pub netns: u32,
    pub local: IpAddr,
    pub port: u16,
    pub time_wait: u64,
    /// In any other state.
    pub other: u64,
    /// All of them have SO_REUSEADDR, or all SO_REUSEPORT.
    pub shared: bool,
    /// Until the last TIME_WAIT ends.
    pub free_in_s: Option<f64>,
    pub holder: Option<Holder>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SelfConnected {
    pub netns: u32,
    pub local: IpAddr,
    pub port: u16,
    pub holder: Option<Holder>,
}

/// A 4-tuple that a program chose and did not get, and what holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenPort {
    pub netns: u32,
    pub local: IpAddr,
    pub local_port: u16,
    pub remote: IpAddr,
    pub remote_port: u16,
    /// Since the connect failed.
    pub ago_s: f64,
    /// Absent where it is free by now.
    pub state: Option<&'static str>,
    pub free_in_s: Option<f64>,
    pub holder: Option<Holder>,
}

/// The ports of a namespace that a plain `connect()` may choose from, and how many of
/// them `bind()` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub netns: u32,
    pub usable: u64,
    pub bound: u64,
}

/// Minisockets of a namespace against `tcp_max_tw_buckets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub netns: u32,
    pub now: u64,
    pub limit: u64,
}

impl Buckets {
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.now as f64 / self.limit.max(1) as f64
    }
}

/// A connect that failed so, as the ledger remembers it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    pub at: Moment,
    pub tuple: Tuple,
    pub owner: Option<Process>,
}

/// What a namespace is set to.
#[derive(Clone, Debug)]
pub struct Place {
    pub facts: NamespaceFacts,
    pub reserved: PortSet,
}

impl Place {
    /// Whether a plain `connect()` may choose this port.
    fn offers(&self, port: u16) -> bool {
        let (first, last) = self.facts.ports;
        (first..=last).contains(&port) && !self.reserved.has(port)
    }
}

/// What the ledger knows of a socket that a look met.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub side: Side,
    pub owner: Option<Process>,
}

/// A listener as a look met it.
#[derive(Clone, Copy, Debug)]
pub struct Listens {
    pub found: Found,
    pub owner: Option<Process>,
    /// The filter admits it.
    pub in_scope: bool,
}

/// What a look begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    pub at: Moment,
    /// Of that moment, low 32 bits.
    pub jiffies: u32,
    pub hz: u32,
    /// What tables are hashed by whose keys a peer may choose.
    pub secret: u64,
    pub places: FxHashMap<Netns, Place>,
    pub listeners: Vec<Listens>,
    /// How often a listener's accept queue was full, of namespaces whose counters can
    /// be read.
    pub overflows: FxHashMap<Netns, u64>,
    pub ports: Vec<BoundPort>,
    pub refused: Vec<Refused>,
}
