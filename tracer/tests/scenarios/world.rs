//! An invented host: connections come and go as TCP has them, what a kernel
//! side would tell of it is written down, and so is the truth.
//!
//! Everything happens at whole jiffies of 4 ms, so that times are exact.

use std::collections::{BTreeMap, VecDeque};

use tracer::model::event::{
    Address, Arming, Counters, Event, Family, Identity, Moment, NamespaceFacts, Netns, Reason,
    Seed, State, Step, Tuple,
};

use super::script::moment;

pub(crate) const NAMESPACES: [Netns; 2] = [Netns(4_026_531_840), Netns(4_026_532_500)];

const JIFFY_MS: u64 = 4;
/// 2MSL, and what an orphan waits, milliseconds.
const WAIT_MS: u64 = 60_000;
/// Expiries are late by up to the wheel's slack.
const SLACK_MS: u64 = 2_048;

/// A socket of the host.
#[derive(Clone, Debug)]
struct Socket {
    /// 0: from before the watching, and nobody has asked for it.
    cookie: u64,
    address: u64,
    /// It goes on as the minisocket with this timer.
    timer: Option<u64>,
    state: State,
    tuple: Tuple,
    client: bool,
    pid: Option<u32>,
    /// When it entered its state, if that was while anybody watched.
    entered_ms: Option<u64>,
    /// When it became a minisocket, if that was.
    born_ms: Option<u64>,
    expires_ms: u64,
    /// It went on from FIN_WAIT2 without an event, and was not looked at since.
    silent: bool,
}

impl Socket {
    fn identity(&self) -> Identity {
        Identity {
            cookie: self.cookie,
            address: Address(self.timer.unwrap_or(self.address)),
        }
    }
}

/// What a snapshot has to say, since the watching began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Truth {
    pub(crate) states: BTreeMap<(Netns, &'static str), [u64; 4]>,
    pub(crate) transitions: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) passive: u64,
    pub(crate) reset: u64,
    pub(crate) aborted: u64,
    pub(crate) refused: u64,
    pub(crate) timed_out: u64,
    /// Number and sum, milliseconds.
    pub(crate) latency: (u64, u64),
    pub(crate) in_state: BTreeMap<&'static str, (u64, u64)>,
    pub(crate) lives: (u64, u64),
    pub(crate) ended: BTreeMap<&'static str, u64>,
    pub(crate) ended_seeded: u64,
    pub(crate) rearmed: u64,
    pub(crate) orphans_seeded: u64,
    pub(crate) orphans_entered: u64,
    pub(crate) orphans_stepped: u64,
    pub(crate) orphans_ended: u64,
    pub(crate) orphan_lives: (u64, u64),
    pub(crate) owners: BTreeMap<u32, u64>,
    pub(crate) remotes: BTreeMap<u8, u64>,
    /// Gauges: by side, and by destination, used and waiting.
    pub(crate) sides: [u64; 2],
    pub(crate) ports: BTreeMap<(Netns, u8), [u64; 2]>,
}

const SEEDED: usize = 0;
const ENTERED: usize = 1;
const LEFT: usize = 2;
const NOW: usize = 3;

/// What may happen next: a number of something, whatever fits it first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) act: u8,
    pub(crate) which: u16,
    /// Jiffies that pass before.
    pub(crate) jiffies: u16,
}

#[derive(Debug)]
pub(crate) struct World {
    now_ms: u64,
    sockets: Vec<Socket>,
    fresh: u64,
    cookies: u64,
    /// Given back by what has gone. A slab hands out the newest first.
    free: Vec<u64>,
    /// Whether it does.
    reuse: bool,
    /// Whether anybody watches: the truth is of what happens from then on.
    watched: bool,
    told: VecDeque<Event>,
    truth: Truth,
    births: [u64; 2],
    port: u16,
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn jiffies(ms: u64) -> u32 {
    (ms / JIFFY_MS) as u32 + 1000
}

fn add(sum: &mut (u64, u64), ms: u64) {
    sum.0 += 1;
    sum.1 += ms;
}

impl World {
    /// With a listener in each namespace. `reuse`: addresses are given anew.
    pub(crate) fn new(reuse: bool) -> World {
        let mut world = World {
            now_ms: 1_000,
            sockets: Vec::new(),
            fresh: 1,
            cookies: 0,
            free: Vec::new(),
            reuse,
            watched: false,
            told: VecDeque::new(),
            truth: Truth::default(),
            births: [100, 7],
            port: 32_768,
        };
        for netns in NAMESPACES {
            let listens = Tuple {
                local_port: 80,
                ..Tuple::nameless(netns, Family::Inet)
            };
            world.open(State::Listen, listens, false, Some(3));
        }
        world
    }

    pub(crate) fn now(&self) -> Moment {
        moment(seconds(self.now_ms))
    }

    /// What was told since it was asked for last.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        self.told.drain(..).collect()
    }

    /// What is, in sums and in gauges.
    pub(crate) fn truth(&self) -> Truth {
        let mut truth = self.truth.clone();
        for socket in &self.sockets {
            let netns = socket.tuple.netns;
            truth
                .states
                .entry((netns, socket.state.name()))
                .or_default()[NOW] += 1;
            let waits = u64::from(socket.state == State::TimeWait);
            truth.sides[usize::from(!socket.client)] += waits;
            if socket.client {
                let [used, waiting] = truth
                    .ports
                    .entry((netns, socket.tuple.remote[3]))
                    .or_default();
                *used += 1;
                *waiting += waits;
            }
        }
        truth
    }

    /// From here on somebody watches. What is there will be found by a seed.
    pub(crate) fn watch(&mut self) {
        self.watched = true;
        self.told.clear();
        self.truth = Truth::default();
        for (number, socket) in self.sockets.iter_mut().enumerate() {
            socket.silent = false;
            if number % 2 == 0 {
                socket.cookie = 0;
            }
            (socket.entered_ms, socket.born_ms, socket.pid) = (None, None, None);
            let key = (socket.tuple.netns, socket.state.name());
            self.truth.states.entry(key).or_default()[SEEDED] += 1;
            let orphan = socket.timer.is_some() && socket.state == State::FinWait2;
            self.truth.orphans_seeded += u64::from(orphan);
        }
    }

    /// What a walk through the tables of the kernel finds.
    pub(crate) fn walk(&self) -> Vec<Event> {
        let at = self.now();
        let found = |socket: &Socket| {
            Event::Seed(Seed {
                socket: socket.identity(),
                at,
                state: socket.state,
                timer_expires: socket.timer.map(|_| jiffies(socket.expires_ms)),
                tuple: socket.tuple,
            })
        };
        self.sockets.iter().map(found).collect()
    }

    /// What each namespace is like.
    pub(crate) fn facts(&self) -> Vec<Event> {
        let facts = |netns| Event::Namespace {
            netns,
            facts: NamespaceFacts {
                name: None,
                ports: (32_768, 60_999),
                reserved_ports: 0,
                max_tw_buckets: 262_144,
                tw_reuse: 0,
                tw_reuse_delay: std::time::Duration::from_secs(1),
                timestamps: true,
            },
        };
        NAMESPACES.map(facts).into()
    }

    /// What the kernel has counted by now.
    pub(crate) fn counters(&self) -> Vec<Event> {
        let at = self.now();
        let counters = |index: usize| {
            let of = |minisockets: bool| {
                let there = self.sockets.iter().filter(|socket| {
                    socket.tuple.netns == NAMESPACES[index] && socket.timer.is_some() == minisockets
                });
                there.count() as u64
            };
            Event::Counters {
                netns: NAMESPACES[index],
                counters: Counters {
                    from: at,
                    to: at,
                    births: Some(self.births[index]),
                    reused_by_connect: 0,
                    overflowed: 0,
                    listen_overflows: 0,
                    minisockets: of(true),
                    full_sockets: of(false),
                },
            }
        };
        [0, 1].map(counters).into()
    }

    /// Each orphan is looked at in place, as a session does before a snapshot.
    pub(crate) fn sweep(&mut self) -> Vec<Event> {
        let at = self.now();
        let minisockets = self.sockets.iter_mut().filter_map(|socket| {
            socket.silent = false;
            socket.timer.map(|_| Event::Reading {
                minisocket: socket.identity(),
                at,
                substate: socket.state,
                expires: jiffies(socket.expires_ms),
            })
        });
        minisockets.collect()
    }

    /// Time passes, and timers run out in it.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms / JIFFY_MS * JIFFY_MS;
        loop {
            // Late by something that differs from one to the next.
            let fires =
                |socket: &Socket| socket.expires_ms + socket.address * 36 % SLACK_MS / 4 * 4;
            let next = self
                .sockets
                .iter()
                .enumerate()
                .filter(|(_, socket)| socket.timer.is_some())
                .map(|(index, socket)| (fires(socket), index))
                .min()
                .filter(|(at, _)| *at <= until);
            let Some((at, index)) = next else { break };
            self.now_ms = at.max(self.now_ms);
            self.end(index, Reason::Expired);
        }
        self.now_ms = until;
    }

    /// Something happens, if there is anything that it can happen to.
    pub(crate) fn play(&mut self, choice: Choice) {
        self.pass(u64::from(choice.jiffies) * JIFFY_MS);
        let which = usize::from(choice.which);
        let netns = NAMESPACES[which % 2];
        let pid = 7 + u32::from(choice.which / 2 % 3);
        let pick = |states: &[State], minisocket: bool| {
            let fit: Vec<usize> = (0..self.sockets.len())
                .filter(|&index| {
                    let socket = &self.sockets[index];
                    states.contains(&socket.state) && socket.timer.is_some() == minisocket
                })
                .collect();
            (!fit.is_empty()).then(|| fit[which % fit.len()])
        };
        let active = [State::FinWait2, State::Closing];
        match choice.act % 16 {
            0 | 1 => self.connect(netns, 9 + (which % 3) as u8, pid),
            2 => self.accept(netns, 20 + (which % 2) as u8),
            3 | 4 => {
                if let Some(index) = pick(&[State::SynSent], false) {
                    let tuple = self.sockets[index].tuple;
                    self.step(index, State::Established, 0, Some(tuple), 0);
                }
            }
            5 => {
                if let Some(index) = pick(&[State::SynSent], false) {
                    let (error, count) = if which.is_multiple_of(2) {
                        (111, &mut self.truth.refused)
                    } else {
                        (110, &mut self.truth.timed_out)
                    };
                    *count += u64::from(self.watched);
                    self.close(index, error);
                }
            }
            6 | 7 => {
                if let Some(index) = pick(&[State::Established], false) {
                    self.step(index, State::FinWait1, pid, None, 0);
                }
            }
            8 => {
                if let Some(index) = pick(&[State::FinWait1], false) {
                    let to = active[which % 2];
                    self.step(index, to, 0, None, 0);
                }
            }
            9 => {
                if let Some(index) = pick(&active, false) {
                    // An orphan has not heard its peer's FIN yet.
                    let closing = self.sockets[index].state == State::Closing;
                    let waits = closing || which.is_multiple_of(3);
                    self.birth(
                        index,
                        if waits {
                            State::TimeWait
                        } else {
                            State::FinWait2
                        },
                    );
                }
            }
            10 => {
                if let Some(index) = pick(&[State::FinWait2], true) {
                    self.step_in_silence(index);
                }
            }
            11 => {
                // Who had not heard of the silent step would take it for that.
                if let Some(index) = pick(&[State::TimeWait], true)
                    && !self.sockets[index].silent
                {
                    self.rearm(index);
                }
            }
            12 => {
                if let Some(index) = pick(&[State::TimeWait, State::FinWait2], true) {
                    let reasons = [Reason::Received, Reason::ReusedByConnect, Reason::Reset];
                    self.end(index, reasons[which % 3]);
                }
            }
            13 => {
                if let Some(index) = pick(&[State::Established], false) {
                    self.step(index, State::CloseWait, 0, None, 0);
                }
            }
            14 => {
                if let Some(index) = pick(&[State::CloseWait], false) {
                    self.step(index, State::LastAck, pid, None, 0);
                } else if let Some(index) = pick(&[State::LastAck], false) {
                    self.truth.passive += u64::from(self.watched);
                    self.close(index, 0);
                }
            }
            _ => {
                if let Some(index) = pick(&[State::Established, State::CloseWait], false) {
                    let (error, count) = if which.is_multiple_of(2) {
                        (104, &mut self.truth.reset)
                    } else {
                        (0, &mut self.truth.aborted)
                    };
                    *count += u64::from(self.watched);
                    self.close(index, error);
                }
            }
        }
    }

    fn address(&mut self) -> u64 {
        if self.reuse
            && let Some(address) = self.free.pop()
        {
            return address;
        }
        self.fresh += 1;
        self.fresh
    }

    fn connect(&mut self, netns: Netns, remote: u8, pid: u32) {
        self.port += 1;
        let mut tuple = Tuple {
            netns,
            family: Family::Inet,
            local: [0; 16],
            remote: [0; 16],
            local_port: self.port,
            remote_port: 443,
        };
        tuple.local[..4].copy_from_slice(&[10, 0, 0, 1]);
        tuple.remote[..4].copy_from_slice(&[10, 0, 0, remote]);
        let portless = Tuple {
            local_port: 0,
            ..tuple
        };
        let index = self.open(State::SynSent, tuple, true, Some(pid));
        self.tell_step(index, State::Close, pid, Some(portless), 0);
    }

    fn accept(&mut self, netns: Netns, remote: u8) {
        self.port += 1;
        let mut tuple = Tuple {
            netns,
            family: Family::Inet,
            local: [0; 16],
            remote: [0; 16],
            local_port: 80,
            remote_port: self.port,
        };
        tuple.local[..4].copy_from_slice(&[10, 0, 0, 1]);
        tuple.remote[..4].copy_from_slice(&[10, 0, 0, remote]);
        let index = self.open(State::SynRecv, tuple, false, None);
        let nameless = Tuple::nameless(netns, Family::Inet);
        self.tell_step(index, State::Listen, 0, Some(nameless), 0);
        self.step(index, State::Established, 0, Some(tuple), 0);
    }

    fn open(&mut self, state: State, tuple: Tuple, client: bool, pid: Option<u32>) -> usize {
        let address = self.address();
        self.cookies += 1;
        self.sockets.push(Socket {
            cookie: self.cookies,
            address: address << 11,
            timer: None,
            state,
            tuple,
            client,
            pid,
            entered_ms: Some(self.now_ms),
            born_ms: None,
            expires_ms: 0,
            silent: false,
        });
        self.count((tuple.netns, state.name()), ENTERED);
        self.sockets.len() - 1
    }

    fn count(&mut self, key: (Netns, &'static str), what: usize) {
        if self.watched {
            self.truth.states.entry(key).or_default()[what] += 1;
        }
    }

    fn spent(&mut self, index: usize) {
        let socket = &self.sockets[index];
        if let Some(entered_ms) = socket.entered_ms.filter(|_| self.watched) {
            let sum = self.truth.in_state.entry(socket.state.name()).or_default();
            add(sum, self.now_ms - entered_ms);
        }
    }

    /// To another state, in the sums and in the socket.
    fn moves(&mut self, index: usize, to: State) {
        self.spent(index);
        let Socket {
            state: from, tuple, ..
        } = self.sockets[index];
        self.count((tuple.netns, from.name()), LEFT);
        if to != State::Close {
            self.count((tuple.netns, to.name()), ENTERED);
        }
        self.transition(from, to);
        let socket = &mut self.sockets[index];
        socket.state = to;
        socket.entered_ms = Some(self.now_ms);
    }

    fn transition(&mut self, from: State, to: State) {
        if self.watched {
            let count = self.truth.transitions.entry((from.name(), to.name()));
            *count.or_default() += 1;
        }
    }

    fn step(&mut self, index: usize, to: State, pid: u32, tuple: Option<Tuple>, error: u16) {
        let from = self.sockets[index].state;
        if from == State::SynSent
            && to == State::Established
            && let Some(entered_ms) = self.sockets[index].entered_ms
            && self.watched
        {
            add(&mut self.truth.latency, self.now_ms - entered_ms);
        }
        self.moves(index, to);
        if pid != 0 {
            self.sockets[index].pid = Some(pid);
        }
        self.tell_step(index, from, pid, tuple, error);
    }

    fn tell_step(&mut self, index: usize, from: State, pid: u32, tuple: Option<Tuple>, error: u16) {
        // The kernel side asks for a cookie, which makes one where there is none.
        if self.sockets[index].cookie == 0 {
            self.cookies += 1;
            self.sockets[index].cookie = self.cookies;
        }
        let socket = &self.sockets[index];
        let (identity, to) = (socket.identity(), socket.state);
        // Of the first step nothing else has told.
        if matches!(from, State::Close | State::Listen) {
            self.transition(from, to);
        }
        self.told.push_back(Event::Step(Step {
            socket: identity,
            at: self.now(),
            from,
            to,
            pid,
            error,
            linger2_negative: false,
            never_hashed: false,
            tuple,
        }));
    }

    fn close(&mut self, index: usize, error: u16) {
        self.step(index, State::Close, 0, None, error);
        let socket = self.sockets.swap_remove(index);
        self.free.push(socket.address >> 11);
    }

    fn birth(&mut self, index: usize, substate: State) {
        let Socket {
            state: from,
            tuple,
            address,
            ..
        } = self.sockets[index];
        if from == substate {
            self.truth.orphans_entered += u64::from(self.watched);
        } else {
            self.moves(index, substate);
            self.entered_time_wait(index);
        }
        let timer = (1 << 40) + (self.address() << 11);
        let expires_ms = self.now_ms + WAIT_MS;
        let socket = &mut self.sockets[index];
        socket.timer = Some(timer);
        socket.born_ms = Some(self.now_ms);
        socket.expires_ms = expires_ms;
        self.births[NAMESPACES.iter().position(|n| *n == tuple.netns).unwrap()] += 1;
        let minisocket = socket.identity();
        self.told.push_back(Event::Birth {
            minisocket,
            at: self.now(),
            substate,
            netns: tuple.netns,
            arming: Arming {
                expires: jiffies(expires_ms),
                timeout: (WAIT_MS / JIFFY_MS) as u32,
            },
            tuple: Some(tuple),
        });
        self.free.push(address >> 11);
    }

    fn entered_time_wait(&mut self, index: usize) {
        let Socket { pid, tuple, .. } = self.sockets[index];
        if self.watched {
            if let Some(pid) = pid {
                *self.truth.owners.entry(pid).or_default() += 1;
            }
            *self.truth.remotes.entry(tuple.remote[3]).or_default() += 1;
        }
    }

    /// The FIN of its peer: a minisocket that waits for it goes on without an event.
    fn step_in_silence(&mut self, index: usize) {
        let born_ms = self.sockets[index].born_ms;
        if let Some(born_ms) = born_ms.filter(|_| self.watched) {
            add(&mut self.truth.orphan_lives, self.now_ms - born_ms);
        }
        self.truth.orphans_stepped += u64::from(self.watched);
        self.moves(index, State::TimeWait);
        self.entered_time_wait(index);
        let socket = &mut self.sockets[index];
        socket.expires_ms = self.now_ms + WAIT_MS;
        socket.silent = true;
    }

    fn rearm(&mut self, index: usize) {
        let expires_ms = self.now_ms + WAIT_MS;
        let socket = &mut self.sockets[index];
        socket.expires_ms = expires_ms;
        let minisocket = socket.identity();
        let netns = socket.tuple.netns;
        self.truth.rearmed += u64::from(self.watched);
        self.told.push_back(Event::Rearm {
            minisocket,
            at: self.now(),
            substate: State::TimeWait,
            arming: Arming {
                expires: jiffies(expires_ms),
                timeout: (WAIT_MS / JIFFY_MS) as u32,
            },
            netns,
        });
    }

    fn end(&mut self, index: usize, reason: Reason) {
        let socket = self.sockets[index].clone();
        let lived_ms = |since: Option<u64>| since.map(|since| self.now_ms - since);
        if self.watched {
            if socket.state == State::TimeWait {
                match lived_ms(socket.entered_ms) {
                    Some(ms) => add(&mut self.truth.lives, ms),
                    None => self.truth.ended_seeded += 1,
                }
                let name = match reason {
                    Reason::Expired => "expired",
                    Reason::Received => "reused_by_syn",
                    Reason::ReusedByConnect => "reused_by_connect",
                    _ => "reset",
                };
                *self.truth.ended.entry(name).or_default() += 1;
            } else {
                if let Some(ms) = lived_ms(socket.born_ms) {
                    add(&mut self.truth.orphan_lives, ms);
                }
                self.truth.orphans_ended += 1;
                self.spent(index);
            }
            self.count((socket.tuple.netns, socket.state.name()), LEFT);
            self.transition(socket.state, State::Close);
        }
        self.told.push_back(Event::End {
            minisocket: socket.identity(),
            at: self.now(),
            substate: socket.state,
            reason,
            expires: jiffies(socket.expires_ms),
            netns: socket.tuple.netns,
            pid: 0,
        });
        self.sockets.swap_remove(index);
        self.free.push((socket.timer.unwrap() & !(1 << 40)) >> 11);
    }
}
