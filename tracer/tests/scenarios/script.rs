//! A scenario is text: one line an event, what is expected beside it.
//!
//! ```text
//! 1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
//! > A CLOSED->SYN_SENT client
//! = states.SYN_SENT.now 1
//! ? doubts none
//! ```
//!
//! A line that begins with a time (seconds) is an event; `>` is the next thing
//! the ledger tells, `=` a value of the snapshot's JSON, `?` a doubt. Names of
//! sockets and timers are any words; HZ is 250. `until=` says when a timer
//! expires, in seconds. A timer belongs to the socket that its birth names, here
//! or further down, or `of=` does; a socket whose name begins with `@` has no
//! cookie, and goes by its address.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tracer::model::event::{
    Address, Arming, Counters, Event, Family, Identity, Lost, Moment, NamespaceFacts, Netns,
    Reason, Seed, State, Step, Tick, Tuple,
};
use tracer::model::filter::Filter;
use tracer::model::happening::{Happening, Side, What};
use tracer::model::ledger::{Config, Frame, Ledger};
use tracer::model::snapshot::{Host, Scope, Snapshot};

/// The clock of scenarios begins here, so that times before 0 can be told.
const ZERO: u64 = 1_000_000_000_000;
const NETNS: Netns = Netns(4_026_531_840);
const HZ: u32 = 250;

pub(crate) fn run(script: &str) {
    run_filtered(Filter::default(), script);
}

pub(crate) fn run_filtered(filter: Filter, script: &str) {
    let mut stage = Stage::new(filter);
    for line in script.lines() {
        if let [_, "birth", socket, timer, ..] = line.split_whitespace().collect::<Vec<_>>()[..] {
            let first = stage.sockets.entry(timer.to_owned());
            first.or_insert_with(|| socket.to_owned());
        }
    }
    for (number, line) in script.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            stage.play(line, &format!("line {}: {line}", number + 1));
        }
    }
}

struct Stage {
    ledger: Ledger,
    now: Moment,
    told: VecDeque<String>,
    /// Names given to stories, in the order of their first happening.
    names: HashMap<u64, String>,
    /// Whose each timer is.
    sockets: HashMap<String, String>,
    snapshots: u64,
}

pub(crate) fn moment(seconds: f64) -> Moment {
    Moment((ZERO as f64 + seconds * 1e9).round() as u64)
}

pub(crate) fn jiffies(seconds: f64) -> u32 {
    ((seconds * f64::from(HZ)).round() as i64 as u32).wrapping_add(1000)
}

pub(crate) fn new_ledger(filter: Filter) -> Ledger {
    Ledger::new(config(filter))
}

pub(crate) fn config(filter: Filter) -> Config {
    let tick = Tick {
        hz: HZ,
        moment: Moment(ZERO),
        jiffies: 1000,
    };
    Config::new(tick, filter, Moment(ZERO))
}

pub(crate) fn snapshot(ledger: &mut Ledger, seq: u64, at: Moment) -> Snapshot {
    let frame = Frame {
        seq,
        at,
        time: jiff::Timestamp::UNIX_EPOCH,
        elapsed_s: at.since(Moment(ZERO)).as_secs_f64(),
        interval_s: 1.0,
        host: Host {
            name: "h".into(),
            kernel: "6.18".into(),
            boot_id: "b".into(),
            hz: HZ,
        },
        version: "0",
        scope: Scope {
            netns: "all".into(),
            filter: String::new(),
        },
    };
    ledger.settle(&mut |_: &Happening| {});
    ledger.snapshot(frame, &mut |cgroup| Some(format!("/cg{cgroup}")))
}

impl Stage {
    fn new(filter: Filter) -> Stage {
        Stage {
            ledger: new_ledger(filter),
            now: Moment(ZERO),
            told: VecDeque::new(),
            names: HashMap::new(),
            sockets: HashMap::new(),
            snapshots: 0,
        }
    }

    fn play(&mut self, line: &str, place: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            ">" => {
                let told = self.told.pop_front();
                assert_eq!(told.as_deref(), Some(line[1..].trim()), "{place}");
            }
            "=" => self.expect(&words[1..], place),
            "?" => {
                let doubt = self.ledger.doubts(self.now).map(|doubt| doubt.to_string());
                match &words[2..] {
                    ["none"] => assert_eq!(doubt, None, "{place}"),
                    fragment => {
                        let fragment = fragment.join(" ");
                        assert!(
                            doubt.as_ref().is_some_and(|d| d.contains(&fragment)),
                            "{place}: {doubt:?}"
                        );
                    }
                }
            }
            time => {
                let seconds: f64 = time.parse().unwrap_or_else(|_| panic!("{place}: no time"));
                self.now = moment(seconds);
                self.event(&words[1..], place);
            }
        }
    }

    fn expect(&mut self, words: &[&str], place: &str) {
        self.snapshots += 1;
        self.hear("?", |ledger, mut tell| ledger.settle(&mut tell));
        let snapshot = snapshot(&mut self.ledger, self.snapshots, self.now);
        let json = serde_json::to_value(&snapshot).expect("a snapshot is JSON");
        let found = words[0]
            .split('.')
            .try_fold(&json, |value, key| match key.parse::<usize>() {
                Ok(index) if value.is_array() => value.get(index),
                _ => value.get(key),
            });
        let wanted: Value =
            serde_json::from_str(words[1]).unwrap_or_else(|_| Value::String(words[1].into()));
        let found = found.unwrap_or(&Value::Null);
        let equal = match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => (found - wanted).abs() < 5e-4,
            _ => *found == wanted,
        };
        assert!(equal, "{place}: it is {found}\n{json:#}");
    }

    fn event(&mut self, words: &[&str], place: &str) {
        let at = self.now;
        let options: HashMap<&str, &str> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        let number = |key: &str| {
            options.get(key).map_or(0, |text| {
                text.parse()
                    .unwrap_or_else(|_| panic!("{place}: {key} is no number"))
            })
        };
        let tuple = words.iter().find_map(|word| tuple(word));
        let until = options
            .get("until")
            .map(|text| jiffies(text.parse().expect("until= takes seconds")));
        let seconds = at.0 as f64 / 1e9 - ZERO as f64 / 1e9;
        let arming = {
            let expires = until.unwrap_or_else(|| jiffies(seconds + 60.0));
            Arming {
                expires,
                timeout: expires.wrapping_sub(jiffies(seconds)),
            }
        };
        let netns = NETNS;
        if let ["birth", socket, timer, ..] = words {
            self.sockets
                .insert((*timer).to_owned(), (*socket).to_owned());
        }
        let minisocket = |timer: &str| {
            let known = self.sockets.get(timer).map(String::as_str);
            Identity {
                cookie: cookie(options.get("of").copied().or(known).unwrap_or(timer)),
                address: address(timer),
            }
        };
        let event = match words {
            ["ask"] => return self.ledger.asks(at),
            ["begin"] => {
                return self.hear("?", |ledger, mut tell| ledger.begin_seed(at, &mut tell));
            }
            ["end-seed"] => return self.ledger.end_seed(at),
            ["pass"] => return,
            ["passed-over"] => return self.ledger.passed_over(NETNS),
            ["step", socket, from, to, ..] => Event::Step(Step {
                socket: identity(socket, words.contains(&"child")),
                at,
                from: state(from),
                to: state(to),
                pid: number("pid") as u32,
                error: number("err") as u16,
                linger2_negative: words.contains(&"linger2<0"),
                never_hashed: words.contains(&"unhashed"),
                tuple,
            }),
            ["birth", _, timer, substate, ..] => Event::Birth {
                minisocket: minisocket(timer),
                at,
                substate: state(substate),
                netns,
                arming,
                tuple,
            },
            ["rearm", timer, substate, ..] => Event::Rearm {
                minisocket: minisocket(timer),
                at,
                substate: state(substate),
                arming,
                netns,
            },
            ["end", timer, substate, reason, ..] => Event::End {
                minisocket: minisocket(timer),
                at,
                substate: state(substate),
                reason: cause(reason),
                expires: until.unwrap_or(arming.expires),
                netns,
                pid: number("pid") as u32,
            },
            ["read", timer, substate, ..] => Event::Reading {
                minisocket: minisocket(timer),
                at,
                substate: state(substate),
                expires: arming.expires,
            },
            ["seed", socket, state_name, ..] => Event::Seed(Seed {
                socket: match until {
                    Some(_) => minisocket(socket),
                    None => identity(socket, false),
                },
                at,
                state: state(state_name),
                timer_expires: until,
                tuple: tuple.expect("a seed has addresses"),
            }),
            ["process", pid, comm, ..] => Event::Process {
                pid: pid.parse().expect("a pid"),
                comm: {
                    let mut bytes = [0; 16];
                    bytes[..comm.len()].copy_from_slice(comm.as_bytes());
                    bytes
                },
                cgroup: number("cgroup"),
                kernel_thread: words.contains(&"kthread"),
            },
            ["facts", ..] => Event::Namespace {
                netns,
                facts: NamespaceFacts {
                    name: None,
                    ports: (number("first") as u16, number("last") as u16),
                    reserved_ports: 0,
                    max_tw_buckets: options
                        .get("max_tw")
                        .map_or(262_144, |n| n.parse().expect("a number")),
                    tw_reuse: number("reuse") as u8,
                    tw_reuse_delay: Duration::from_secs(1),
                    timestamps: true,
                },
            },
            ["counters", ..] => Event::Counters {
                netns,
                counters: Counters {
                    from: Moment(at.0 - 1_000_000),
                    to: at,
                    births: Some(number("births")),
                    reused_by_connect: 0,
                    overflowed: number("overflowed"),
                    listen_overflows: 0,
                    minisockets: number("tw"),
                    full_sockets: number("inuse"),
                },
            },
            ["half-open", ..] => Event::HalfOpen {
                netns,
                now: number("now"),
            },
            ["lost", ..] => Event::Lost(Lost {
                ring: number("ring"),
                recursion: number("recursion"),
            }),
            _ => panic!("{place}: not an event"),
        };
        let named = words.get(1).copied().unwrap_or_default();
        self.hear(named, |ledger, mut tell| ledger.apply(&event, &mut tell));
    }

    /// What the ledger tells is kept. Sockets without a name get this one.
    fn hear(&mut self, named: &str, act: impl FnOnce(&mut Ledger, &mut dyn FnMut(&Happening))) {
        let Stage {
            ledger,
            told,
            names,
            ..
        } = self;
        act(ledger, &mut |happening| {
            let name = names
                .entry(happening.socket.0)
                .or_insert_with(|| named.to_owned());
            told.push_back(text(happening, name));
        });
    }
}

fn text(happening: &Happening, name: &str) -> String {
    let mut text = match happening.what {
        What::Transition {
            from, to, reason, ..
        } => {
            let mut text = format!("{name} {}->{}", from.name(), to.name());
            if let Some(reason) = reason {
                text += &format!(" ({})", reason.name());
            }
            text
        }
        What::MinisocketStart { state, timeout } => {
            format!("{name} starts {} {}s", state.name(), timeout.as_secs_f64())
        }
        What::MinisocketRearm { state } => format!("{name} re-armed {}", state.name()),
        What::MinisocketEnd {
            state,
            reason,
            lifetime,
            since_last_arm,
            rearmed,
            ..
        } => {
            let mut text = format!("{name} ends {} {reason}", state.name());
            if let Some(life) = lifetime {
                text += &format!(" after {:.3}s", life.as_secs_f64());
            }
            if let Some(time) = since_last_arm {
                text += &format!(" {:.3}s since armed", time.as_secs_f64());
            }
            if rearmed > 0 {
                text += &format!(" re-armed {rearmed}");
            }
            text
        }
    };
    match happening.side {
        Side::Client => text += " client",
        Side::Server => text += " server",
        Side::Unknown => {}
    }
    if let Some(owner) = happening.owner {
        text += &format!(" by {}", owner.pid);
    }
    text
}

/// `child`: it has no cookie yet.
fn identity(name: &str, child: bool) -> Identity {
    Identity {
        cookie: if child { 0 } else { cookie(name) },
        address: address(name.trim_start_matches('@')),
    }
}

fn cookie(name: &str) -> u64 {
    if name.starts_with('@') {
        return 0;
    }
    name.bytes()
        .fold(7, |sum, byte| sum * 131 + u64::from(byte))
}

pub(crate) fn address(name: &str) -> Address {
    Address(
        name.bytes()
            .fold(0xffff_8880, |sum, byte| (sum << 8 ^ u64::from(byte)) << 3),
    )
}

fn state(name: &str) -> State {
    if name == "CLOSE" {
        return State::Close;
    }
    State::COUNTED
        .into_iter()
        .find(|s| s.name() == name)
        .unwrap_or_else(|| panic!("{name} is no state"))
}

fn cause(name: &str) -> Reason {
    match name {
        "expired" => Reason::Expired,
        "connect" => Reason::ReusedByConnect,
        "bound" => Reason::ReusedByBoundConnect,
        "received" => Reason::Received,
        "reset" => Reason::Reset,
        "destroyed" => Reason::Destroyed,
        "netns" => Reason::NetnsExit,
        "tproxy" => Reason::Tproxy,
        "unknown" => Reason::Unknown,
        _ => panic!("{name} is no reason"),
    }
}

/// `10.0.0.1:40000-10.0.0.9:443`.
fn tuple(word: &str) -> Option<Tuple> {
    let (local, remote) = word.split_once('-')?;
    let (local, remote): (SocketAddr, SocketAddr) = (local.parse().ok()?, remote.parse().ok()?);
    let bytes = |addr: SocketAddr| {
        let mut bytes = [0; 16];
        match addr {
            SocketAddr::V4(addr) => bytes[..4].copy_from_slice(&addr.ip().octets()),
            SocketAddr::V6(addr) => bytes.copy_from_slice(&addr.ip().octets()),
        }
        bytes
    };
    Some(Tuple {
        netns: NETNS,
        family: if local.is_ipv4() {
            Family::Inet
        } else {
            Family::Inet6
        },
        local: bytes(local),
        remote: bytes(remote),
        local_port: local.port(),
        remote_port: remote.port(),
    })
}
