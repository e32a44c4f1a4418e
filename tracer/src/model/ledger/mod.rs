//! The ledger: every event becomes part of a socket's story, and every story
//! is counted.
//!
//! Pure and deterministic. It does no I/O and asks no clock: seeds, readings
//! and the kernel's own counters come to it as events like any other. For
//! every state and namespace, after every event, `now = seeded + entered −
//! left`.

mod births;
mod expiries;
mod joining;
mod known;
mod minisockets;
mod namespaces;
mod report;
mod seeding;
mod steps;
mod stories;
mod sums;
mod tally;
mod testimony;
mod upkeep;
mod witness;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use self::expiries::Expiries;
use self::joining::Closed;
use self::namespaces::Namespaces;
use self::seeding::Seeding;
use self::stories::{Slot, Stories};
use self::tally::Tally;
use self::witness::Doubts;
use super::clock::Clock;
use super::destinations::Destinations;
use super::event::{Arming, Event, Identity, Lost, Moment, Netns, State, Tick, Tuple};
use super::filter::Filter;
use super::happening::{Happening, SocketId, What};
use super::hash::{Keyed, Map};
use super::owners::{Owners, Remotes};
use super::stock::Refused;

pub use self::report::Frame;
pub use self::sums::Sums;
pub use self::witness::Doubt;

/// A step is traced before the state is stored, and a seed reads it without a lock:
/// this close together either may have been first. Nanoseconds.
const GRACE: u64 = 1_000_000;

/// Where sockets are counted whose namespace was never told: no inode is 0.
const UNKNOWN: Netns = Netns(0);

/// What a ledger needs to know before the first event.
#[derive(Clone, Debug)]
pub struct Config {
    pub tick: Tick,
    pub filter: Filter,
    /// When the run began.
    pub started: Moment,
    pub limits: Limits,
    /// What tables are hashed by whose keys somebody else may choose: to be drawn
    /// by chance for each run, as nothing that is told hangs on it.
    pub secret: u64,
}

impl Config {
    #[must_use]
    pub fn new(tick: Tick, filter: Filter, started: Moment) -> Config {
        Config {
            tick,
            filter,
            started,
            limits: Limits::default(),
            secret: 0,
        }
    }
}

/// Bounds of the tables that a busy host would grow without end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processes remembered, live owners included.
    pub processes: usize,
    /// Remote addresses remembered.
    pub remotes: usize,
    /// Destinations remembered.
    pub destinations: usize,
    /// Owners and remotes in a snapshot.
    pub rows: usize,
    /// Destinations in a snapshot.
    pub ports: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            processes: 65_536,
            remotes: 4096,
            destinations: 65_536,
            rows: 100,
            ports: 20,
        }
    }
}

#[derive(Debug)]
pub struct Ledger {
    config: Config,
    /// A filter judges by addresses or processes: what has none known is not
    /// wanted. (The family alone is pruned before anything reaches the ledger.)
    judging: bool,
    /// It judges by processes: only their own deeds bring sockets into sight.
    by_process: bool,
    clock: Clock,
    stories: Stories,
    namespaces: Namespaces,
    tally: Tally,
    owners: Owners,
    remotes: Remotes,
    destinations: Destinations,
    /// The newest connect that found no free port.
    without_port: Option<(Moment, Tuple)>,
    /// Connects from ports that their programs chose and that were taken, newest last.
    taken: VecDeque<Refused>,
    /// The newest TIME_WAIT that a RST ended.
    reset: Option<(Moment, Tuple)>,
    /// Listening sockets by namespace and port.
    listeners: Map<(u32, u16), u32>,
    /// Minisockets in FIN_WAIT2, and since when they are minisockets: they may step
    /// without an event.
    orphans: FxHashMap<Slot, Moment>,
    expiries: Expiries,
    /// Stories whose side is yet to be told from their ports.
    sideless: Vec<(Slot, u64)>,
    closed: VecDeque<Closed>,
    seeding: Option<Seeding>,
    /// An event later than this comes after all that the seed could clash with.
    settle_after: u64,
    /// The initial seed is done.
    seeded: bool,
    resyncs: u64,
    syn_ack_timeouts: u64,
    lost: Lost,
    doubts: Doubts,
}

/// So many connects from ports that were taken are remembered.
const TAKEN: usize = 16;

impl Ledger {
    #[must_use]
    pub fn new(config: Config) -> Ledger {
        let clock = Clock::new(config.tick);
        let hash = Keyed::new(config.secret);
        Ledger {
            judging: config.filter.judges(),
            by_process: !config.filter.processes().is_empty(),
            tally: Tally::new(&clock),
            stories: Stories::new(),
            namespaces: Namespaces::default(),
            owners: Owners::new(config.limits.processes, hash),
            remotes: Remotes::new(config.limits.remotes, hash),
            destinations: Destinations::new(config.limits.destinations, hash),
            without_port: None,
            taken: VecDeque::new(),
            reset: None,
            listeners: Map::with_hasher(hash),
            orphans: FxHashMap::default(),
            expiries: Expiries::new(config.tick.hz),
            sideless: Vec::new(),
            closed: VecDeque::new(),
            seeding: None,
            settle_after: u64::MAX,
            seeded: false,
            resyncs: 0,
            syn_ack_timeouts: 0,
            lost: Lost::default(),
            doubts: Doubts::default(),
            clock,
            config,
        }
    }

    /// Adds one event, and tells what it means for whose story.
    #[inline]
    pub fn apply(&mut self, event: &Event, tell: &mut impl FnMut(&Happening)) {
        match *event {
            Event::Step(ref step) => {
                self.pass(step.at, tell);
                self.step(step, tell);
            }
            Event::Birth {
                minisocket,
                at,
                substate,
                netns,
                arming,
                ref tuple,
            } => {
                self.pass(at, tell);
                let birth = births::Birth {
                    minisocket,
                    at,
                    substate,
                    netns,
                    arming,
                };
                self.birth(birth, tuple.as_ref(), tell);
            }
            Event::Rearm {
                minisocket,
                at,
                substate,
                arming,
                netns,
            } => {
                self.pass(at, tell);
                self.rearm(minisocket, at, substate, arming, netns, tell);
            }
            Event::End {
                minisocket,
                at,
                substate,
                reason,
                expires,
                netns,
                pid,
            } => {
                self.pass(at, tell);
                let end = minisockets::End {
                    at,
                    substate,
                    reason,
                    expires,
                    pid,
                };
                self.end(minisocket, netns, end, tell);
            }
            Event::Process {
                pid,
                comm,
                cgroup,
                kernel_thread,
            } => {
                self.owners.name(pid, comm, cgroup, kernel_thread);
            }
            Event::Seed(ref seed) => self.seed(seed),
            Event::Reading {
                minisocket,
                at,
                substate,
                expires,
            } => {
                self.reading(minisocket, at, substate, expires, tell);
            }
            Event::HalfOpen { netns, now } => {
                if !self.judging {
                    let initial = !self.seeded && !self.has_read_all();
                    let namespace = self.namespace(netns);
                    let half_open = &mut self.namespaces.at_mut(namespace).half_open;
                    half_open.read(now, initial);
                }
            }
            Event::Namespace { netns, ref facts } => {
                let namespace = self.namespace(netns);
                let namespace = self.namespaces.at_mut(namespace);
                namespace.facts = Some(facts.clone());
                namespace.doubts_facts = false;
                if !self.sideless.is_empty() && self.seeding.is_none() {
                    self.tell_sides();
                }
            }
            Event::Counters {
                netns,
                ref counters,
            } => self.counters(netns, counters),
            Event::SynAckTimeouts(total) => {
                self.syn_ack_timeouts = self.syn_ack_timeouts.max(total);
            }
            Event::Lost(lost) => self.lost.rise_to(lost),
        }
    }

    /// The minisockets that may have stepped to TIME_WAIT in silence.
    pub fn undecided(&self) -> impl Iterator<Item = Identity> + '_ {
        self.orphans
            .keys()
            .map(|&slot| self.stories.at(slot).identity())
    }

    /// Where it matters now what is set in a namespace: ports are taken there, or
    /// minisockets wait.
    #[must_use]
    pub fn goes_by_facts(&self) -> FxHashSet<Netns> {
        let waiting = self.namespaces.iter();
        let waiting = waiting.filter(|namespace| namespace.minisockets > 0);
        waiting
            .map(|namespace| namespace.netns)
            .chain(self.destinations.namespaces())
            .collect()
    }

    /// Whether a connect found no free port since a namespace's facts were told: its
    /// ports may be others by now.
    #[must_use]
    pub fn doubts_facts(&self, netns: Netns) -> bool {
        let namespace = self.namespaces.find(netns);
        namespace.is_some_and(|namespace| namespace.doubts_facts)
    }

    /// Those that sockets are known in, or were.
    pub fn namespaces(&self) -> impl Iterator<Item = Netns> + '_ {
        let all = self.namespaces.iter().map(|namespace| namespace.netns);
        all.filter(|&netns| netns != UNKNOWN)
    }

    /// Live sockets of a namespace, half-open requests aside.
    #[must_use]
    pub fn sockets_in(&self, netns: Netns) -> u64 {
        self.namespaces.find(netns).map_or(0, |namespace| {
            namespace.full_sockets + namespace.minisockets
        })
    }

    /// Time has come to `at`, and every event before has been applied: what
    /// waited for that is settled.
    #[inline(always)]
    pub fn pass(&mut self, at: Moment, tell: &mut impl FnMut(&Happening)) {
        if at.0 > self.settle_after {
            self.settle_seed(tell);
        }
    }

    /// Nothing is on its way any more: what waited for that is settled, and what was found wrong is judged.
    pub fn settle(&mut self, tell: &mut impl FnMut(&Happening)) {
        self.settle_seed(tell);
        self.judge();
    }

    fn namespace(&mut self, netns: Netns) -> u32 {
        let newborn = self.seeded && self.seeding.is_none();
        self.namespaces.index(netns, newborn)
    }

    #[inline(always)]
    fn count_seeded(&mut self, namespace: u32, state: State) {
        if let Some(count) = self.tally.states.of(state) {
            count.seeded += 1;
        }
        if let Some(count) = self.namespaces.at_mut(namespace).counts.of(state) {
            count.seeded += 1;
        }
    }

    #[inline(always)]
    fn count_entered(&mut self, namespace: u32, state: State) {
        if let Some(count) = self.tally.states.of(state) {
            count.entered += 1;
        }
        if let Some(count) = self.namespaces.at_mut(namespace).counts.of(state) {
            count.entered += 1;
        }
    }

    #[inline(always)]
    fn count_left(&mut self, namespace: u32, state: State) {
        if let Some(count) = self.tally.states.of(state) {
            count.left += 1;
        }
        if let Some(count) = self.namespaces.at_mut(namespace).counts.of(state) {
            count.left += 1;
        }
    }

    #[inline(always)]
    fn happening(&self, slot: Slot, at: Moment, what: What) -> Happening {
        let story = self.stories.at(slot);
        Happening {
            at,
            socket: SocketId(story.id),
            side: story.side(),
            tuple: self.tuple(slot),
            owner: self.owners.process(story.owner),
            what,
        }
    }
}
