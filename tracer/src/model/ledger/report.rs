//! The ledger at one moment, as a snapshot.

use jiff::Timestamp;

use super::super::event::{Moment, Reason, State};
use super::super::snapshot::{
    Count, Distribution, Exactness, FinWait2Orphan, Host, LeftOut, Lifetime, Lost, Namespace,
    Owner, Remote, SCHEMA, Scope, Snapshot, States, TimeWait, Timer, Transition, WithoutPort,
};
use super::Ledger;
use super::namespaces::HalfOpen;
use super::tally::end_name;
use crate::units;

/// What a snapshot says that the ledger cannot know.
#[derive(Clone, Debug)]
pub struct Frame {
    pub seq: u64,
    /// The moment it is of; every event before has been applied.
    pub at: Moment,
    pub time: Timestamp,
    /// Since the start of the run.
    pub elapsed_s: f64,
    /// Since the last snapshot.
    pub interval_s: f64,
    pub host: Host,
    pub version: &'static str,
    pub scope: Scope,
}

/// A namespace without sockets is listed for this long after its last event, nanoseconds.
const LISTED_FOR: u64 = 2_000_000_000;

/// Every state there is, in the order in which transitions are listed.
const ORDER: [State; 11] = {
    let mut order = [State::Close; 11];
    let mut i = 0;
    while i < State::COUNTED.len() {
        order[i] = State::COUNTED[i];
        i += 1;
    }
    order
};

impl Ledger {
    /// The state of affairs at `frame.at`, up to which all is settled
    /// ([`Ledger::settle`]). Rates run from one snapshot to the
    /// next. `cgroup_path` gives the path of a cgroup id where it still has one.
    pub fn snapshot(
        &mut self,
        frame: Frame,
        cgroup_path: &mut dyn FnMut(u64) -> Option<String>,
    ) -> Snapshot {
        self.destinations.tick(frame.interval_s);
        let forgotten = self.namespaces.forget_idle(frame.at);
        self.forget_closed_in(&forgotten);
        let exact = self.seeded && self.seeding.is_none() && self.doubts(frame.at).is_none();

        let states = self.states();
        let (owners, owners_left_out) = self.shown_owners(cgroup_path);
        let (remotes, remotes_left_out) = self.remotes.top(self.config.limits.rows);
        let hold_s = self.clock.nominal_s() + self.clock.slack_s() / 2.0;
        let ports = self
            .destinations
            .worst(self.config.limits.ports, hold_s, |netns| {
                self.namespaces.find(netns)?.facts.as_ref()
            });
        let mut closes = self.tally.closes;
        closes.via_time_wait = states.get(State::TimeWait).map_or(0, |count| count.entered);

        Snapshot {
            schema: SCHEMA,
            seq: frame.seq,
            time: frame.time,
            elapsed_s: frame.elapsed_s,
            interval_s: frame.interval_s,
            states,
            transitions: self.transitions(),
            closes,
            connect_failures: self.tally.connect_failures,
            last_without_port: self.without_port.map(|(at, tuple)| WithoutPort {
                netns: tuple.netns.0,
                local: tuple.local_addr(),
                remote: tuple.remote_addr(),
                remote_port: tuple.remote_port,
                ago_s: frame.at.since(at).as_secs_f64(),
            }),
            last_reset: self.reset.map(|(_, tuple)| tuple),
            connects: self
                .destinations
                .attempts(self.config.limits.ports, cgroup_path),
            stock: None,
            connect_latency_s: self.tally.connect_latency.distribution(),
            syn_ack_timeouts: self.syn_ack_timeouts,
            time_wait: self.time_wait(&states, frame.at, frame.elapsed_s),
            fin_wait2_orphan: self.fin_wait2_orphan(),
            in_state_s: ORDER
                .into_iter()
                .map(|state| {
                    (
                        state.name(),
                        self.tally.in_state[state as usize].distribution(),
                    )
                })
                .filter(|(_, distribution)| distribution.count > 0)
                .collect(),
            ports,
            owners,
            remotes: remotes
                .into_iter()
                .map(|(addr, time_wait_entered)| Remote {
                    addr,
                    time_wait_entered,
                })
                .collect(),
            left_out: LeftOut {
                destinations: self.destinations.left_out(),
                owners_time_wait_entered: owners_left_out,
                remotes_time_wait_entered: remotes_left_out,
            },
            namespaces: self.listed_namespaces(frame.at),
            lost: Lost {
                ring: self.lost.ring,
                // Part of the format; no map is left that could be full.
                map: 0,
                recursion: self.lost.recursion,
                unseen: self.doubts.unseen,
            },
            resyncs: self.resyncs,
            exactness: if exact {
                Exactness::Exact
            } else {
                Exactness::Approximate
            },
            host: frame.host,
            version: frame.version.into(),
            scope: frame.scope,
        }
    }

    fn states(&self) -> States {
        let mut states = self.tally.states.rendered();
        for namespace in self.namespaces.iter() {
            add_half_open(&mut states, &namespace.half_open);
        }
        states
    }

    fn transitions(&self) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for from in ORDER {
            for to in ORDER {
                let count = self.tally.transitions[from as usize][to as usize];
                if count > 0 {
                    transitions.push(Transition {
                        from: from.name(),
                        to: to.name(),
                        count,
                    });
                }
            }
        }
        transitions
    }

    fn time_wait(&self, states: &States, at: Moment, elapsed_s: f64) -> TimeWait {
        let count = states.get(State::TimeWait).copied().unwrap_or_default();
        let overflowed = self
            .namespaces
            .iter()
            .map(|namespace| namespace.testimony.overflowed)
            .fold(self.namespaces.forgotten_overflowed, u64::saturating_add);
        TimeWait {
            now: count.now,
            seeded: count.seeded,
            entered: count.entered,
            side: self.tally.sides,
            rearmed: self.tally.rearmed,
            overflowed,
            ended: self.tally.ended,
            ended_seeded: self.tally.ended_seeded,
            lifetime_s: Lifetime {
                distribution: self.tally.lives.distribution(),
                complete_from_s: elapsed_s,
                buckets: self.tally.lives.buckets(),
            },
            lifetime_by_reason_s: Reason::ALL
                .into_iter()
                .map(|reason| {
                    (
                        reason,
                        self.tally.lives_by_reason[reason as usize].distribution(),
                    )
                })
                .filter(|(_, Distribution { count, .. })| *count > 0)
                .map(|(reason, distribution)| (end_name(State::TimeWait, reason), distribution))
                .collect(),
            life_table: self
                .tally
                .ages
                .table(at, self.clock.nominal_ns(), self.clock.slack_ns()),
            timer: Timer {
                nominal_s: self.clock.measured_nominal_s(),
                slack_s: self.clock.slack_s(),
            },
        }
    }

    fn fin_wait2_orphan(&self) -> FinWait2Orphan {
        let orphans = &self.tally.orphans;
        FinWait2Orphan {
            now: self.orphans.len() as u64,
            seeded: orphans.seeded,
            entered: orphans.entered,
            became_time_wait: orphans.became_time_wait,
            ended: orphans.ended,
            lifetime_s: orphans.lives.distribution(),
        }
    }

    fn shown_owners(
        &self,
        cgroup_path: &mut dyn FnMut(u64) -> Option<String>,
    ) -> (Vec<Owner>, u64) {
        let (owners, left_out) = self.owners.top(self.config.limits.rows);
        let shown = owners
            .into_iter()
            .map(|(process, time_wait_entered)| Owner {
                pid: process.pid,
                comm: process.comm.as_ref().map(units::comm).unwrap_or_default(),
                cgroup: process.cgroup.and_then(&mut *cgroup_path),
                time_wait_entered,
            })
            .collect();
        (shown, left_out)
    }

    fn listed_namespaces(&self, at: Moment) -> Vec<Namespace> {
        let mut listed: Vec<Namespace> = self
            .namespaces
            .iter()
            // Inode 0 stands for sockets whose namespace was never told.
            .filter(|namespace| namespace.netns.0 != 0)
            .filter(|namespace| {
                let stirring = namespace.last_event.0 > 0
                    && at.0 <= namespace.last_event.0.saturating_add(LISTED_FOR);
                stirring || !namespace.counts.is_empty() || namespace.half_open.now() > 0
            })
            .map(|namespace| {
                let mut states = namespace.counts.rendered();
                add_half_open(&mut states, &namespace.half_open);
                let name = namespace
                    .facts
                    .as_ref()
                    .and_then(|facts| facts.name.clone());
                Namespace {
                    netns: namespace.netns.0,
                    name,
                    states,
                }
            })
            .collect();
        listed.sort_by_key(|namespace| namespace.netns);
        listed
    }
}

/// `ss` and netstat list half-open requests as SYN_RECV.
fn add_half_open(states: &mut States, half_open: &HalfOpen) {
    let place = State::COUNTED
        .iter()
        .position(|&state| state == State::SynRecv);
    if let Some(Count {
        now,
        seeded,
        entered,
        left,
    }) = place.map(|place| &mut states.0[place])
    {
        *seeded += half_open.seeded;
        *entered += half_open.entered;
        *left += half_open.left;
        *now += half_open.now();
    }
}
