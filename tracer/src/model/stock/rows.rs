//! The rows of a look that has ended, worst first.

use super::super::event::{NamespaceFacts, Netns};
use super::super::happening::Process;
use super::super::ports::PortSet;
use super::super::snapshot::Holder;
use super::look::{Group, Left, Look, canonical};
use super::{
    Buckets, ClosedPort, Held, Listening, Memory, PRIVILEGED_PORTS, Pool, ROWS, RemoteNow, Route,
    Source,
};

impl Look {
    pub(super) fn buckets(&self) -> Vec<Buckets> {
        let all = self.minisockets.iter();
        let mut buckets: Vec<Buckets> = all
            .filter_map(|(netns, &now)| {
                let limit = self.begin.places.get(netns)?.facts.max_tw_buckets;
                let netns = netns.0;
                Some(Buckets { netns, now, limit })
            })
            .collect();
        buckets.sort_by_key(|buckets| buckets.netns);
        buckets
    }

    pub(super) fn listeners(
        &self,
        memory: &mut Memory,
        named: &mut impl FnMut(Option<Process>) -> Option<Holder>,
    ) -> Vec<Listening> {
        let since_last = memory.begin(&self.begin);
        let mut listeners: Vec<Listening> = self
            .begin
            .listeners
            .iter()
            .filter_map(|listens| {
                let found = &listens.found;
                let tuple = &found.tuple;
                let queues = found.listener?;
                let drops = memory.follow(found, queues, self.begin.at, since_last);
                let place = self.begin.places.get(&tuple.netns);
                if found.flags.bound_port {
                    memory.choose(tuple.netns, tuple.local_port);
                }
                let local = canonical(tuple.local_addr());
                let doors = self.doors.get(&(tuple.netns, tuple.local_port));
                let door = doors.and_then(|doors| doors.iter().find(|door| door.local == local));
                listens.in_scope.then(|| Listening {
                    netns: tuple.netns.0,
                    local: canonical(tuple.local_addr()),
                    port: tuple.local_port,
                    accept_queue: queues.accept_queue,
                    accept_limit: queues.accept_limit,
                    half_open: queues.half_open,
                    dropped: u64::from(drops.last.wrapping_sub(drops.first)),
                    dropped_ago_s: drops
                        .rose
                        .map(|rose| self.begin.at.since(rose).as_secs_f64()),
                    dropped_per_s: drops.per_s,
                    states: door.map(|door| door.states.clone()).unwrap_or_default(),
                    port_chosen: found.flags.bound_port,
                    in_range: place.is_some_and(|place| place.offers(tuple.local_port)),
                    holder: named(listens.owner),
                })
            })
            .collect();
        memory.end();
        listeners.sort_by_key(|listener| {
            (
                std::cmp::Reverse((
                    listener.dropped_ago_s.is_some(),
                    listener.accept_queue,
                    listener.half_open,
                    listener.states.values().sum::<u64>(),
                )),
                (listener.netns, listener.port, listener.local),
            )
        });
        listeners.truncate(ROWS * 4);
        listeners
    }

    pub(super) fn pools(&self) -> Vec<Pool> {
        let all = self.begin.places.iter();
        let mut pools: Vec<Pool> = all
            .map(|(netns, place)| Pool {
                netns: netns.0,
                usable: place.facts.usable_ports(),
                bound: self.bound.get(netns).map_or(0, PortSet::count),
            })
            .collect();
        pools.sort_by_key(|pool| pool.netns);
        pools
    }

    pub(super) fn remotes_now(&self) -> Vec<RemoteNow> {
        let all = self.remotes.iter();
        let mut all: Vec<RemoteNow> = all.map(|(&addr, &now)| RemoteNow { addr, now }).collect();
        all.sort_by_key(|remote| (std::cmp::Reverse(remote.now), remote.addr));
        all.truncate(ROWS);
        all
    }

    pub(super) fn held(
        &self,
        named: &mut impl FnMut(Option<Process>) -> Option<Holder>,
    ) -> Vec<Held> {
        let mut held: Vec<_> = self.waiting.iter().collect();
        held.sort_by_key(|((netns, state, group), waiting)| {
            (
                std::cmp::Reverse((waiting.over_60s, waiting.oldest)),
                (*netns, *state as u8, *group),
            )
        });
        let hz = f64::from(self.begin.hz);
        held.iter()
            .take(ROWS)
            .map(|((netns, state, group), waiting)| {
                let (listening_port, remote, remote_port) = match *group {
                    Group::Listener(port) => (Some(port), None, None),
                    Group::Destination(remote, port) => (None, Some(remote), Some(port)),
                };
                Held {
                    netns: netns.0,
                    state: state.name(),
                    listening_port,
                    remote,
                    remote_port,
                    now: waiting.now,
                    oldest_s: f64::from(waiting.oldest) / hz,
                    over_10s: waiting.over_10s,
                    over_60s: waiting.over_60s,
                    peers_in_close_wait: waiting.peers,
                    holder: named(waiting.owner.process),
                }
            })
            .collect()
    }

    pub(super) fn worst_routes(
        &self,
        named: &mut impl FnMut(Option<Process>) -> Option<Holder>,
    ) -> Vec<Route> {
        let hz = f64::from(self.begin.hz);
        let mut routes: Vec<Route> = self
            .routes
            .iter()
            .filter(|(_, towards)| towards.in_scope)
            .filter_map(|(to, towards)| {
                let place = self.begin.places.get(&to.netns)?;
                let bound = self.bound.get(&to.netns).map_or(0, PortSet::count);
                Some(Route {
                    netns: to.netns.0,
                    local: to.local,
                    remote: to.remote,
                    remote_port: to.remote_port,
                    usable: place.facts.usable_ports(),
                    time_wait: towards.time_wait,
                    with_timestamps: towards.with_timestamps,
                    close_wait: towards.close_wait,
                    fin_wait2: towards.fin_wait2,
                    open: towards.open,
                    bound,
                    outside: towards.outside,
                    privileged: towards.privileged,
                    free_in_s: towards.free_in.map(|left| f64::from(left.max(0)) / hz),
                    reuse: place.facts.reuse_delay(to.local, to.remote).is_some(),
                    reuse_set: NamespaceFacts {
                        timestamps: true,
                        ..place.facts.clone()
                    }
                    .reuse_delay(to.local, to.remote)
                    .is_some(),
                    timestamps: place.facts.timestamps,
                    holder: named(towards.owner.process),
                })
            })
            .collect();
        routes.sort_by(|a, b| {
            let fill = |route: &Route| route.taken() as f64 / route.usable.max(1) as f64;
            let pressed =
                |route: &Route| fill(route).max(route.privileged as f64 / PRIVILEGED_PORTS as f64);
            pressed(b).total_cmp(&pressed(a)).then_with(|| {
                let key = |r: &Route| (r.netns, r.local, r.remote, r.remote_port);
                key(a).cmp(&key(b))
            })
        });
        routes.truncate(ROWS);
        routes
    }

    pub(super) fn worst_sources(
        &self,
        named: &mut impl FnMut(Option<Process>) -> Option<Holder>,
    ) -> Vec<Source> {
        let mut sources: Vec<Source> = self
            .sources
            .iter()
            .filter(|(_, source)| source.in_scope)
            .filter_map(|(&(netns, local), source)| {
                let place = self.begin.places.get(&netns)?;
                Some(Source {
                    netns: netns.0,
                    local,
                    usable: place.facts.usable_ports(),
                    bound: source.ports.count(),
                    destinations: source.destinations.len() as u64,
                    holder: named(source.owner.process),
                })
            })
            .collect();
        sources.sort_by_key(|source| {
            (
                std::cmp::Reverse(source.bound),
                (source.netns, source.local),
            )
        });
        sources.truncate(ROWS);
        sources
    }

    pub(super) fn closed_ports(
        &self,
        memory: &Memory,
        named: &mut impl FnMut(Option<Process>) -> Option<Holder>,
    ) -> Vec<ClosedPort> {
        let hz = f64::from(self.begin.hz);
        let served = |served: &(&(Netns, u16), &Left)| {
            let &(&(netns, port), left) = served;
            let place = self.begin.places.get(&netns);
            let ephemeral = place.is_none_or(|place| place.offers(port));
            // Of a port that nobody asked for nobody will ask again.
            let asked = !ephemeral || memory.chose(netns, port);
            left.in_scope && asked && (left.server || left.several)
        };
        let mut closed: Vec<ClosedPort> = self
            .left
            .iter()
            .filter(served)
            .map(|(&(netns, port), left)| ClosedPort {
                netns: netns.0,
                local: left.local,
                port,
                time_wait: left.time_wait,
                other: left.other,
                shared: left.reuseaddr || left.reuseport,
                free_in_s: left.free_in.map(|until| f64::from(until.max(0)) / hz),
                holder: named(left.owner.process),
            })
            .collect();
        closed.sort_by_key(|closed| {
            (
                std::cmp::Reverse(closed.time_wait + closed.other),
                (closed.netns, closed.port),
            )
        });
        closed.truncate(ROWS);
        closed
    }
}
