//! One look, as it goes on.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::event::{Address, Netns, State, Tuple};
use super::super::found::Found;
use super::super::happening::{Process, Side};
use super::super::hash::{Keyed, Map, Set};
use super::super::ports::PortSet;
use super::super::snapshot::Holder;
use super::{
    Beginning, Known, LONG_S, Memory, PATIENT_S, PRESSED, PRIVILEGED, REMOTES, ROUTES, ROWS,
    SECONDS, SOURCES, SelfConnected, Stock, TakenPort,
};

/// Whose some sockets are: a process, or one of them of which it can be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct By {
    pub(super) process: Option<Process>,
    socket: Option<Address>,
}

impl By {
    fn or(mut self, found: &Found, process: Option<Process>) -> By {
        self.process = self.process.or(process);
        // A minisocket has no program any more.
        if self.process.is_none() && self.socket.is_none() && found.timer.is_none() {
            self.socket = Some(found.address);
        }
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct To {
    pub(super) netns: Netns,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
}

/// In as few words as it takes.
impl Hash for To {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let address = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => u128::from(addr.to_bits()),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        state.write_u128(address(self.local));
        state.write_u128(address(self.remote));
        state.write_u64(u64::from(self.netns.0) << 32 | u64::from(self.remote_port));
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Towards {
    pub(super) in_scope: bool,
    pub(super) fin_wait2: u64,
    pub(super) time_wait: u64,
    pub(super) with_timestamps: u64,
    pub(super) close_wait: u64,
    pub(super) open: u64,
    pub(super) outside: u64,
    pub(super) privileged: u64,
    pub(super) free_in: Option<i32>,
    pub(super) owner: By,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) local: IpAddr,
    pub(super) time_wait: u64,
    pub(super) other: u64,
    pub(super) reuseaddr: bool,
    pub(super) reuseport: bool,
    /// The port of the first peer, and whether others have other ports: clients do.
    peer: u16,
    pub(super) several: bool,
    pub(super) server: bool,
    pub(super) in_scope: bool,
    pub(super) free_in: Option<i32>,
    pub(super) owner: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Group {
    Listener(u16),
    Destination(IpAddr, u16),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub(super) now: u64,
    pub(super) oldest: u32,
    pub(super) over_10s: u64,
    pub(super) over_60s: u64,
    pub(super) peers: u64,
    pub(super) owner: By,
}

/// Ports that `bind()` took on one address, and what they are connected to.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) in_scope: bool,
    pub(super) ports: PortSet,
    pub(super) destinations: Set<(IpAddr, u16)>,
    pub(super) owner: By,
}

/// An address that is listened on, and what came in by it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) local: IpAddr,
    pub(super) states: BTreeMap<&'static str, u64>,
}

/// Local address and port, remote address and port.
type Ends = (IpAddr, u16, IpAddr, u16);

/// One look, as it goes on.
#[derive(Debug)]
pub struct Look {
    pub(super) begin: Beginning,
    pub(super) bound: FxHashMap<Netns, PortSet>,
    pub(super) doors: FxHashMap<(Netns, u16), Vec<Door>>,
    pub(super) routes: Map<To, Towards>,
    pub(super) sources: Map<(Netns, IpAddr), Bound>,
    pub(super) left: FxHashMap<(Netns, u16), Left>,
    pub(super) waiting: Map<(Netns, State, Group), Waiting>,
    /// Ends in CLOSE_WAIT, and those in FIN_WAIT2 whose other ends may be among them.
    pub(super) close_waits: Set<Ends>,
    pub(super) fin_waits: Vec<(Netns, Group, Ends)>,
    pub(super) self_connected: Vec<(Tuple, By)>,
    pub(super) found: FxHashMap<(Netns, Ends), (State, Option<i32>)>,
    time_wait_ends: [u64; SECONDS],
    pub(super) remotes: Map<IpAddr, u64>,
    hash: Keyed,
    pub(super) minisockets: FxHashMap<Netns, u64>,
}

pub(super) fn canonical(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

impl Look {
    #[must_use]
    pub fn new(begin: Beginning) -> Look {
        let mut bound: FxHashMap<Netns, PortSet> = FxHashMap::default();
        for port in begin.ports.iter().filter(|port| !port.shared) {
            if let Some(place) = begin.places.get(&port.netns)
                && place.offers(port.port)
            {
                bound.entry(port.netns).or_default().add(port.port);
            }
        }
        let mut doors: FxHashMap<(Netns, u16), Vec<Door>> = FxHashMap::default();
        for listens in &begin.listeners {
            let tuple = &listens.found.tuple;
            let local = canonical(tuple.local_addr());
            let doors = doors.entry((tuple.netns, tuple.local_port)).or_default();
            // Listeners that share a port have their connections together.
            if doors.iter().all(|door| door.local != local) {
                doors.push(Door {
                    local,
                    states: BTreeMap::new(),
                });
            }
        }
        let found = begin
            .refused
            .iter()
            .map(|refused| (key(&refused.tuple), (State::Close, None)))
            .collect();
        let hash = Keyed::new(begin.secret);
        Look {
            begin,
            bound,
            doors,
            routes: Map::with_hasher(hash),
            sources: Map::with_hasher(hash),
            left: FxHashMap::default(),
            waiting: Map::with_hasher(hash),
            close_waits: Set::with_hasher(hash),
            fin_waits: Vec::new(),
            self_connected: Vec::new(),
            found,
            time_wait_ends: [0; SECONDS],
            remotes: Map::with_hasher(hash),
            hash,
            minisockets: FxHashMap::default(),
        }
    }

    /// Adds a socket, be it one that the filter admits or not: a port is taken
    /// whosoever has it. `known` says what the ledger knows of it.
    pub fn take(&mut self, found: &Found, in_scope: bool, known: impl FnOnce() -> Known) {
        let tuple = &found.tuple;
        if matches!(found.state, State::Listen | State::NewSynRecv) {
            return;
        }
        if !self.found.is_empty()
            && let Some(holds) = self.found.get_mut(&key(tuple))
        {
            let expires = found.timer.map(|timer| timer.expires);
            *holds = (
                found.state,
                expires.map(|expires| expires.wrapping_sub(self.begin.jiffies) as i32),
            );
        }
        if let Some(timer) = found.timer {
            if found.state == State::TimeWait && in_scope {
                let left = timer.expires.wrapping_sub(self.begin.jiffies) as i32;
                let second = left.max(0) as usize / self.begin.hz as usize;
                self.time_wait_ends[second.min(SECONDS - 1)] += 1;
                let remote = canonical(tuple.remote_addr());
                if self.remotes.len() < REMOTES || self.remotes.contains_key(&remote) {
                    *self.remotes.entry(remote).or_default() += 1;
                }
            }
            *self.minisockets.entry(tuple.netns).or_default() += 1;
        }
        let (local, remote) = (
            canonical(tuple.local_addr()),
            canonical(tuple.remote_addr()),
        );
        if let Some(door) = self.door(tuple, local) {
            if in_scope {
                *door.states.entry(found.state.name()).or_default() += 1;
                self.wait(found, Group::Listener(tuple.local_port), known);
            }
            return;
        }
        let known = known();
        if known.side != Side::Client {
            self.leave(found, in_scope, known, local);
        }
        let server = known.side == Side::Server;
        if in_scope {
            let group = if server {
                Group::Listener(tuple.local_port)
            } else {
                Group::Destination(remote, tuple.remote_port)
            };
            self.wait(found, group, || known);
        }
        if server {
            return;
        }
        self.route(found, in_scope, known, local, remote);
        if in_scope
            && self.self_connected.len() < ROWS
            && (local, tuple.local_port) == (remote, tuple.remote_port)
            && found.state == State::Established
        {
            let by = By::default().or(found, known.owner);
            self.self_connected.push((*tuple, by));
        }
    }

    /// The listener that its connection came through: that of its address, or else of
    /// any.
    fn door(&mut self, tuple: &Tuple, local: IpAddr) -> Option<&mut Door> {
        let doors = self.doors.get_mut(&(tuple.netns, tuple.local_port))?;
        let place = doors
            .iter()
            .position(|door| door.local == local)
            .or_else(|| doors.iter().position(|door| door.local.is_unspecified()))?;
        doors.get_mut(place)
    }

    /// It holds a local port towards its destination.
    fn route(
        &mut self,
        found: &Found,
        in_scope: bool,
        known: Known,
        local: IpAddr,
        remote: IpAddr,
    ) {
        let tuple = &found.tuple;
        let Some(place) = self.begin.places.get(&tuple.netns) else {
            return;
        };
        let to = To {
            netns: tuple.netns,
            local,
            remote,
            remote_port: tuple.remote_port,
        };
        let bound = self.bound.get(&tuple.netns);
        let by_bind = bound.is_some_and(|bound| bound.has(tuple.local_port));
        // Who names each port may give it to several destinations.
        let any = by_bind && !found.flags.bound_port;
        let source = (tuple.netns, local);
        if any && (self.sources.len() < SOURCES || self.sources.contains_key(&source)) {
            let hash = self.hash;
            let source = self.sources.entry(source).or_insert_with(|| Bound {
                in_scope: false,
                ports: PortSet::default(),
                destinations: Set::with_hasher(hash),
                owner: By::default(),
            });
            source.in_scope |= in_scope;
            source.ports.add(tuple.local_port);
            if source.destinations.len() < ROUTES {
                source.destinations.insert((remote, tuple.remote_port));
            }
            source.owner = source.owner.or(found, known.owner);
        }
        if self.routes.len() >= ROUTES && !self.routes.contains_key(&to) {
            return;
        }
        let towards = self.routes.entry(to).or_default();
        towards.in_scope |= in_scope;
        towards.owner = towards.owner.or(found, known.owner);
        towards.privileged += u64::from(PRIVILEGED.contains(&tuple.local_port));
        if !place.offers(tuple.local_port) {
            towards.outside += 1;
            return;
        }
        // What `bind()` holds is counted once, for all destinations.
        if by_bind {
            return;
        }
        match (found.timer, found.state) {
            (Some(_), State::FinWait2) => towards.fin_wait2 += 1,
            (Some(timer), _) => {
                towards.time_wait += 1;
                towards.with_timestamps += u64::from(found.flags.timestamps);
                let left = timer.expires.wrapping_sub(self.begin.jiffies) as i32;
                towards.free_in = Some(towards.free_in.map_or(left, |least| least.min(left)));
            }
            (None, State::CloseWait) => towards.close_wait += 1,
            (None, _) => towards.open += 1,
        }
    }

    /// Nothing listens on its local port.
    fn leave(&mut self, found: &Found, in_scope: bool, known: Known, local: IpAddr) {
        let tuple = &found.tuple;
        let left = self
            .left
            .entry((tuple.netns, tuple.local_port))
            .or_insert(Left {
                local,
                time_wait: 0,
                other: 0,
                reuseaddr: true,
                reuseport: true,
                peer: tuple.remote_port,
                several: false,
                server: false,
                in_scope: false,
                free_in: None,
                owner: By::default(),
            });
        left.several |= left.peer != tuple.remote_port;
        left.server |= known.side == Side::Server;
        left.in_scope |= in_scope;
        left.reuseaddr &= found.flags.reuseaddr;
        left.reuseport &= found.flags.reuseport;
        left.owner = left.owner.or(found, known.owner);
        match found.timer {
            Some(timer) => {
                left.time_wait += 1;
                let until = timer.expires.wrapping_sub(self.begin.jiffies) as i32;
                left.free_in = Some(left.free_in.map_or(until, |most| most.max(until)));
            }
            None => left.other += 1,
        }
    }

    /// Whether its own program has to end the state that it is in.
    fn wait(&mut self, found: &Found, group: Group, known: impl FnOnce() -> Known) {
        let Some(full) = found.full.filter(|full| !full.orphan) else {
            return;
        };
        if !matches!(found.state, State::CloseWait | State::FinWait2) {
            return;
        }
        let tuple = &found.tuple;
        let idle = self.begin.jiffies.wrapping_sub(full.received);
        // Received since the look began, unless it was weeks ago.
        let since = 10 * self.begin.hz;
        let idle = if idle > u32::MAX - since { 0 } else { idle };
        let idle_s = f64::from(idle) / f64::from(self.begin.hz);
        let waiting = self
            .waiting
            .entry((tuple.netns, found.state, group))
            .or_default();
        waiting.now += 1;
        waiting.oldest = waiting.oldest.max(idle);
        waiting.over_10s += u64::from(idle_s >= PATIENT_S);
        waiting.over_60s += u64::from(idle_s >= LONG_S);
        if waiting.owner.process.is_none() {
            waiting.owner = waiting.owner.or(found, known().owner);
        }
        let ends = ends(tuple);
        if found.state == State::CloseWait && self.close_waits.len() < ROUTES {
            self.close_waits.insert(ends);
        } else if found.state == State::FinWait2 && self.fin_waits.len() < ROUTES {
            self.fin_waits.push((tuple.netns, group, ends));
        }
    }

    /// Sockets whose process is worth asking for: of each row that has none, one.
    #[must_use]
    pub fn unowned(&self) -> FxHashSet<Address> {
        let listeners = self.begin.listeners.iter();
        let listeners = listeners
            .filter(|listens| listens.owner.is_none() && listens.in_scope)
            .map(|listens| listens.found.address);
        let pressed = |towards: &&Towards| {
            towards.open + towards.close_wait >= PRESSED || towards.privileged >= PRESSED
        };
        let rows = (self.waiting.values().map(|waiting| waiting.owner))
            .chain(self.self_connected.iter().map(|(_, by)| *by))
            .chain(self.sources.values().map(|source| source.owner))
            .chain(
                self.left
                    .values()
                    .filter(|left| left.server)
                    .map(|left| left.owner),
            )
            .chain(self.routes.values().filter(pressed).map(|to| to.owner))
            .filter(|by| by.process.is_none());
        listeners.chain(rows.filter_map(|by| by.socket)).collect()
    }

    /// Takes what was found out about these.
    pub fn own(&mut self, owners: &FxHashMap<Address, Process>) {
        for listens in &mut self.begin.listeners {
            let asked = || owners.get(&listens.found.address).copied();
            listens.owner = listens.owner.or_else(asked);
        }
        let rows = (self.waiting.values_mut().map(|waiting| &mut waiting.owner))
            .chain(self.self_connected.iter_mut().map(|(_, by)| by))
            .chain(self.sources.values_mut().map(|source| &mut source.owner))
            .chain(self.left.values_mut().map(|left| &mut left.owner))
            .chain(self.routes.values_mut().map(|to| &mut to.owner));
        for by in rows {
            if by.process.is_none() {
                by.process = by.socket.and_then(|socket| owners.get(&socket).copied());
            }
        }
    }

    /// All sockets have been added.
    #[must_use]
    pub fn end(
        mut self,
        memory: &mut Memory,
        cgroup_path: &mut dyn FnMut(u64) -> Option<String>,
    ) -> Stock {
        let fin_waits = std::mem::take(&mut self.fin_waits);
        for (netns, group, (local, local_port, remote, remote_port)) in fin_waits {
            let other = (remote, remote_port, local, local_port);
            if self.close_waits.contains(&other)
                && let Some(waiting) = self.waiting.get_mut(&(netns, State::FinWait2, group))
            {
                waiting.peers += 1;
            }
        }
        let hz = f64::from(self.begin.hz);
        let seconds = |ticks: i32| f64::from(ticks.max(0)) / hz;
        let mut named = |owner: Option<Process>| owner.map(|by| Holder::of(&by, cgroup_path));
        Stock {
            ago_s: 0.0,
            listeners: self.listeners(memory, &mut named),
            time_wait_by_remote: self.remotes_now(),
            held: self.held(&mut named),
            routes: self.worst_routes(&mut named),
            sources: self.worst_sources(&mut named),
            closed_ports: self.closed_ports(memory, &mut named),
            self_connected: self
                .self_connected
                .iter()
                .take(ROWS)
                .map(|(tuple, owner)| SelfConnected {
                    netns: tuple.netns.0,
                    local: canonical(tuple.local_addr()),
                    port: tuple.local_port,
                    holder: named(owner.process),
                })
                .collect(),
            taken: self
                .begin
                .refused
                .iter()
                .map(|refused| {
                    let (state, left) = self.found[&key(&refused.tuple)];
                    let tuple = &refused.tuple;
                    TakenPort {
                        netns: tuple.netns.0,
                        local: canonical(tuple.local_addr()),
                        local_port: tuple.local_port,
                        remote: canonical(tuple.remote_addr()),
                        remote_port: tuple.remote_port,
                        ago_s: self.begin.at.since(refused.at).as_secs_f64(),
                        state: (state != State::Close).then(|| state.name()),
                        free_in_s: left.map(seconds),
                        holder: named(refused.owner),
                    }
                })
                .collect(),
            time_wait_ends: self.time_wait_ends.to_vec(),
            pools: self.pools(),
            buckets: self.buckets(),
        }
    }
}

fn key(tuple: &Tuple) -> (Netns, Ends) {
    (tuple.netns, ends(tuple))
}

fn ends(tuple: &Tuple) -> Ends {
    (
        canonical(tuple.local_addr()),
        tuple.local_port,
        canonical(tuple.remote_addr()),
        tuple.remote_port,
    )
}
