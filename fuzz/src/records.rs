//! Records of the kernel side, with the ledger behind the decoder and every
//! way out behind the ledger.
//!
//! The input is a program for a session: an operation is a byte and what that
//! needs. Few addresses, and times that mostly go on, so that records meet.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracer::analysis::findings::{Findings, Judged};
use tracer::kernel::decode::{self, Found};
use tracer::model::event::{
    Counters, Event, Identity, Lost, Moment, NamespaceFacts, Netns, State, Tick,
};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;
use tracer::model::ledger::{Config, Frame, Ledger};
use tracer::model::snapshot::{Host, Scope, Snapshot};
use tracer::model::state_set::StateSet;
use tracer::recording::{Anchor, Cutter, Header, SCHEMA, Sum};
use tracer::render::events::{Happenings as _, Json, Show, Text};
use tracer::render::terminal::Terminal;
use tracer::render::text;
use tracer_common::wire::{SWEEP_BATCH, kind};

use crate::identities;
use crate::input::Input;

/// The clock begins here, so that times before can be told.
const START: u64 = 1_000_000_000_000;
const JIFFIES: u32 = 1_000_000;
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// A session: the first byte chooses HZ and a filter, then come operations.
/// After each snapshot the identities hold, and the frames add up to it.
pub fn records(bytes: &[u8]) {
    drop(play(bytes));
}

/// What the session came to; `None` without a first byte.
fn play(bytes: &[u8]) -> Option<Snapshot> {
    let mut input = Input(bytes);
    let setup = input.byte()?;
    let filter = if setup & 4 == 0 {
        Filter::default()
    } else {
        Filter::new(None, vec![40_001], vec![], vec![], vec![])
    };
    let mut session = Session::new(RATES[usize::from(setup & 3)], filter);
    while let Some(operation) = input.byte() {
        if session.act(operation, &mut input).is_none() {
            break;
        }
    }
    Some(session.end())
}

struct Session {
    hz: u32,
    now: u64,
    ledger: Ledger,
    told: Told,
    cutter: Cutter,
    sum: Sum,
    frames: u64,
}

/// What the ledger tells, as lines for programs and for people.
struct Told {
    json: Json<Vec<u8>>,
    text: Text<Vec<u8>>,
}

impl Told {
    fn write(&mut self, happening: &Happening) {
        let time = Timestamp::UNIX_EPOCH;
        let cgroup = happening.owner.and_then(|owner| owner.cgroup);
        let cgroup = cgroup.map(|id| format!("/cg{id}"));
        let lines = self.json.happening(happening, time, cgroup.as_deref());
        lines.expect("memory is never full");
        let lines = self.text.happening(happening, time, cgroup.as_deref());
        lines.expect("memory is never full");
    }
}

impl Session {
    fn new(hz: u32, filter: Filter) -> Session {
        let tick = Tick {
            hz,
            moment: Moment(START),
            jiffies: JIFFIES,
        };
        let show = Show { netns: true };
        let terminal = || Terminal::new(Vec::new(), false);
        Session {
            hz,
            now: START,
            ledger: Ledger::new(Config::new(tick, filter, Moment(START))),
            told: Told {
                json: Json::new(terminal()),
                text: Text::new(terminal(), TimeZone::UTC, show),
            },
            cutter: Cutter::default(),
            sum: Sum::default(),
            frames: 0,
        }
    }

    /// `None` where the input ends.
    fn act(&mut self, operation: u8, input: &mut Input<'_>) -> Option<()> {
        let now = Moment(self.now);
        let Session { ledger, told, .. } = self;
        let tell = &mut |happening: &Happening| told.write(happening);
        match operation {
            0..=159 => {
                let bytes = self.record(1 + operation % 9, input)?;
                self.decode(&bytes);
            }
            160..=175 => {
                let (at, xor) = (input.byte()?, input.byte()?);
                let mut bytes = self.record(1 + operation % 9, input)?;
                if let Some(byte) = bytes.get_mut(usize::from(at)) {
                    *byte ^= xor;
                }
                self.decode(&bytes);
            }
            176..=183 => {
                let length = usize::from(input.byte()?);
                self.decode(input.bytes(length));
            }
            184..=199 => {
                let bytes = self.seed(input)?;
                self.find(&bytes);
            }
            200..=203 => {
                let length = usize::from(input.byte()?);
                self.find(input.bytes(length));
            }
            204..=207 => ledger.begin_seed(now, tell),
            208..=211 => ledger.end_seed(now),
            212..=215 => drop(self.snapshot()),
            216 => ledger.passed_over(netns(input.byte()?)),
            217..=218 => ledger.asks(now),
            219 => ledger.pass(now, tell),
            220 => ledger.settle(tell),
            221..=227 => self.sweep(input)?,
            228..=235 => self.apply(&Event::HalfOpen {
                netns: netns(input.byte()?),
                now: u64::from(input.u16()?),
            }),
            236..=241 => {
                let counters = Counters {
                    from: now,
                    to: now,
                    births: operation
                        .is_multiple_of(2)
                        .then_some(u64::from(input.u16()?)),
                    reused_by_connect: u64::from(input.byte()?),
                    overflowed: u64::from(input.byte()?),
                    listen_overflows: 0,
                    minisockets: u64::from(input.byte()?),
                    full_sockets: u64::from(input.byte()?),
                };
                let netns = netns(input.byte()?);
                self.apply(&Event::Counters { netns, counters });
            }
            242 => {
                let mut counter = || count(input);
                let counters = Counters {
                    from: now,
                    to: now,
                    births: Some(counter()?),
                    reused_by_connect: counter()?,
                    overflowed: counter()?,
                    listen_overflows: 0,
                    minisockets: counter()?,
                    full_sockets: counter()?,
                };
                let netns = netns(input.byte()?);
                self.apply(&Event::Counters { netns, counters });
            }
            243..=244 => self.apply(&Event::Lost(Lost {
                ring: count(input)?,
                recursion: count(input)?,
            })),
            245..=247 => self.apply(&Event::Lost(Lost {
                ring: u64::from(input.byte()?),
                recursion: u64::from(input.byte()?),
            })),
            248..=250 => {
                let netns = netns(input.byte()?);
                let facts = facts(input)?;
                self.apply(&Event::Namespace { netns, facts });
            }
            251..=253 => self.now = self.now.saturating_add(u64::from(input.u32()?) << 4),
            254 => self.now = self.now.saturating_sub(u64::from(input.u32()?)),
            255 => self.now = input.u64()?,
        }
        Some(())
    }

    fn decode(&mut self, bytes: &[u8]) {
        if let Some(event) = decode::record(bytes, Moment(self.now)) {
            self.apply(&event);
        }
    }

    fn find(&mut self, bytes: &[u8]) {
        if let Some(Found::Socket(seed)) = decode::seed(bytes, 0) {
            self.apply(&Event::Seed(seed));
        }
    }

    fn apply(&mut self, event: &Event) {
        let told = &mut self.told;
        self.ledger
            .apply(event, &mut |happening: &Happening| told.write(happening));
    }

    /// A reading of each undecided minisocket, up to a batch.
    fn sweep(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (states, expires) = (input.byte()?, self.expires(input)?);
        let undecided: Vec<Identity> = self.ledger.undecided().take(SWEEP_BATCH).collect();
        for (minisocket, n) in undecided.into_iter().zip(0..) {
            let substate = if states >> (n % 8) & 1 == 0 {
                State::TimeWait
            } else {
                State::FinWait2
            };
            self.apply(&Event::Reading {
                minisocket,
                at: Moment(self.now),
                substate,
                expires,
            });
        }
        Some(())
    }

    /// A record as the kernel side lays it out. Some kinds are none.
    fn record(&mut self, kind: u8, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let which = input.byte()?;
        let stamp = self.stamp(input)?;
        let (pid, detail) = (input.byte()?, input.byte()?);
        let pid = match kind {
            kind::BIRTH | kind::FULL_BIRTH | kind::REARM | kind::CHILD => netns(pid).0,
            _ => u32::from(pid % 8),
        };
        let (detail, error) = match kind {
            kind::END => (detail % 10, 0),
            kind::PROCESS => (detail % 2, 0),
            kind::STEP | kind::FULL_STEP => (family(detail), input.u16()?),
            _ => (family(detail), 0),
        };
        let mut bytes = Vec::with_capacity(96);
        bytes.extend(cookie(which).to_ne_bytes());
        bytes.extend(stamp.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend([kind, detail]);
        bytes.extend(error.to_ne_bytes());
        match kind {
            kind::PROCESS => {}
            kind::BIRTH | kind::FULL_BIRTH | kind::REARM | kind::END => {
                bytes.extend((1 << 40 | address(input.byte()?)).to_ne_bytes());
            }
            _ => bytes.extend(address(which).to_ne_bytes()),
        }
        match kind {
            kind::FULL_STEP => tuple(input, &mut bytes)?,
            kind::BIRTH | kind::FULL_BIRTH => {
                self.arming(input, &mut bytes)?;
                if kind == kind::FULL_BIRTH {
                    tuple(input, &mut bytes)?;
                }
            }
            kind::REARM => {
                self.arming(input, &mut bytes)?;
            }
            kind::END => {
                bytes.extend(self.expires(input)?.to_ne_bytes());
                bytes.extend(netns(input.byte()?).0.to_ne_bytes());
            }
            kind::PROCESS => {
                let mut comm = [0; 16];
                let length = usize::from(input.byte()? % 17);
                let name = input.bytes(length);
                comm[..name.len()].copy_from_slice(name);
                bytes.extend(comm);
            }
            _ => {}
        }
        Some(bytes)
    }

    /// A socket as the iterator lays it out.
    fn seed(&mut self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let (which, states, number) = (input.byte()?, input.byte()?, input.byte()?);
        let mut bytes = Vec::with_capacity(72);
        let timer = if states & 15 == State::TimeWait as u8 {
            1 << 40
        } else {
            0
        };
        bytes.extend(cookie(which).to_ne_bytes());
        bytes.extend((timer | address(which)).to_ne_bytes());
        bytes.extend(self.now.to_ne_bytes());
        bytes.extend(self.jiffies().to_ne_bytes());
        bytes.extend(self.expires(input)?.to_ne_bytes());
        bytes.extend([states & 15, states >> 4, family(number), 0]);
        bytes.extend([0; 4]);
        tuple(input, &mut bytes)?;
        Some(bytes)
    }

    /// Time goes on by up to 16 s, mostly by far less; then the states of a step.
    fn stamp(&mut self, input: &mut Input<'_>) -> Option<u64> {
        let (later, states) = (input.byte()?, input.byte()?);
        self.now = self.now.saturating_add(u64::from(later).pow(3) * 1000);
        Some(self.now << 8 | u64::from(states))
    }

    fn arming(&mut self, input: &mut Input<'_>, bytes: &mut Vec<u8>) -> Option<()> {
        let expires = self.expires(input)?;
        let timeout = match input.byte()? {
            0 => input.u32()?,
            seconds => u32::from(seconds) * self.hz,
        };
        bytes.extend(expires.to_ne_bytes());
        bytes.extend(timeout.to_ne_bytes());
        Some(())
    }

    /// Jiffies, mostly within two minutes.
    fn expires(&self, input: &mut Input<'_>) -> Option<u32> {
        Some(match input.byte()? {
            0 => input.u32()?,
            half_seconds => {
                let away = (u32::from(half_seconds) * self.hz / 2).wrapping_sub(2 * self.hz);
                self.jiffies().wrapping_add(away)
            }
        })
    }

    fn jiffies(&self) -> u32 {
        let tick = u64::from(1_000_000_000 / self.hz);
        let ticks = (self.now / tick).wrapping_sub(START / tick);
        JIFFIES.wrapping_add(ticks as u32)
    }

    fn snapshot(&mut self) -> Snapshot {
        let at = Moment(self.now);
        let Session { ledger, told, .. } = self;
        ledger.settle(&mut |happening: &Happening| told.write(happening));
        let _ = ledger.doubts(at).map(|doubt| doubt.to_string());
        let frame = Frame {
            seq: self.frames,
            at,
            time: Timestamp::UNIX_EPOCH,
            elapsed_s: at.since(Moment(START)).as_secs_f64(),
            interval_s: 1.0,
            host: host(self.hz),
            version: "0",
            scope: scope(),
        };
        let snapshot = ledger.snapshot(frame, &mut |cgroup| Some(format!("/cg{cgroup}")));
        self.frames += 1;
        identities::check(&snapshot);
        let frame = self.cutter.cut(&snapshot, &self.ledger.sums(), at);
        self.sum.add(&frame);
        let summed = self.sum.snapshot(&header(self.hz), None);
        let summed = summed.expect("there is a frame");
        assert_eq!(summed.states, snapshot.states);
        assert_eq!(summed.transitions, snapshot.transitions);
        assert_eq!(summed.closes, snapshot.closes);
        assert_eq!(summed.connect_failures, snapshot.connect_failures);
        assert_eq!(summed.time_wait.ended, snapshot.time_wait.ended);
        assert_eq!(
            summed.fin_wait2_orphan.ended,
            snapshot.fin_wait2_orphan.ended
        );
        assert_eq!(summed.resyncs, snapshot.resyncs);
        snapshot
    }

    fn end(&mut self) -> Snapshot {
        let snapshot = self.snapshot();
        let json = serde_json::to_string(&snapshot).expect("a snapshot is JSON");
        let _: serde_json::Value = serde_json::from_str(&json).expect("JSON is read");
        let judged = Judged {
            snapshot: &snapshot,
            judgement: &Findings::new().judge(&snapshot),
        };
        drop(text::plain(&judged, None, StateSet::default(), 80));
        self.told.json.flush().expect("memory is never full");
        let lines = std::mem::take(self.told.json.get_mut());
        for line in lines
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let read: Result<serde_json::Value, _> = serde_json::from_slice(line);
            read.unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)));
        }
        snapshot
    }
}

/// Of two sockets at an address one after the other; one in eight has none.
fn cookie(which: u8) -> u64 {
    match which {
        0..32 => 0,
        _ => u64::from(which),
    }
}

fn address(number: u8) -> u64 {
    u64::from(number % 16) << 8
}

fn netns(number: u8) -> Netns {
    Netns(u32::from(number % 4))
}

/// What a kernel can have counted (`kernel::counters` takes no more for a count).
fn count(input: &mut Input<'_>) -> Option<u64> {
    Some(input.u64()? >> 16)
}

fn family(number: u8) -> u8 {
    match number {
        0..=127 => 2,
        128..=251 => 10,
        other => other,
    }
}

/// Few addresses; ports that a filter and a range of local ports know.
fn tuple(input: &mut Input<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let (addresses, ports) = (input.byte()?, input.byte()?);
    let mut local = [0; 16];
    let mut remote = [0; 16];
    (local[0], remote[0]) = (10 + (addresses & 3), 10 + (addresses >> 2 & 3));
    if addresses & 16 != 0 {
        local.fill(0xff);
    }
    let port = |number: u8| match number & 7 {
        0 => 0,
        7 => u16::MAX,
        number => 40_000 + u16::from(number),
    };
    bytes.extend(local);
    bytes.extend(remote);
    bytes.extend(netns(addresses >> 5).0.to_ne_bytes());
    bytes.extend(port(ports).to_ne_bytes());
    bytes.extend(port(ports >> 4).to_ne_bytes());
    Some(())
}

fn facts(input: &mut Input<'_>) -> Option<NamespaceFacts> {
    let flags = input.byte()?;
    Some(NamespaceFacts {
        name: (flags & 1 == 0).then(|| "\u{1b}[31mred".to_owned()),
        ports: (input.u16()?, input.u16()?),
        reserved_ports: u32::from(input.byte()?),
        max_tw_buckets: u64::from(input.byte()?),
        tw_reuse: flags >> 1 & 3,
        tw_reuse_delay: std::time::Duration::from_millis(u64::from(input.u16()?)),
        timestamps: flags & 8 == 0,
    })
}

fn host(hz: u32) -> Host {
    Host {
        name: "h".into(),
        kernel: "6.18".into(),
        boot_id: "b".into(),
        hz,
    }
}

fn scope() -> Scope {
    Scope {
        netns: "all".into(),
        filter: String::new(),
    }
}

fn header(hz: u32) -> Header {
    Header {
        schema: SCHEMA.to_owned(),
        version: "0".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        host: host(hz),
        clock: Anchor {
            monotonic_ns: START,
            time: Timestamp::UNIX_EPOCH,
        },
        scope: scope(),
        interval_s: 1.0,
        duration_s: None,
        command: None,
        events: false,
        seeded: [].into(),
        namespaces: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::wire::Reason;

    use super::*;

    /// Of an input of the corpus: one that no longer decodes as it was meant to finds
    /// nothing.
    fn played(name: &str) -> Snapshot {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/records/");
        play(&std::fs::read(format!("{corpus}{name}")).unwrap()).unwrap()
    }

    fn count(snapshot: &Snapshot, state: State) -> (u64, u64) {
        let count = snapshot.states.get(state).unwrap();
        (count.entered, count.left)
    }

    #[test]
    fn clients_wait_and_end_for_each_reason() {
        for n in 0..Reason::ALL.len() {
            let snapshot = played(&format!("client_{n}"));
            for state in [State::SynSent, State::Established, State::TimeWait] {
                assert_eq!(count(&snapshot, state), (1, 1), "{n} {state:?}");
            }
            let ended = snapshot.time_wait.ended;
            let of = [
                ended.unknown,
                ended.expired,
                ended.reused_by_connect,
                ended.reused_by_bound_connect,
                ended.reused_by_syn,
                ended.reset,
                ended.destroyed,
                ended.netns_exit,
                ended.tproxy,
            ];
            let alone: Vec<u64> = (0..of.len()).map(|of| u64::from(of == n)).collect();
            assert_eq!(of[..], alone);
        }
    }

    #[test]
    fn sockets_of_every_other_kind_are_counted() {
        let server = played("server");
        assert_eq!((server.closes.passive, server.closes.via_time_wait), (1, 1));
        let seeded = played("seeded");
        assert_eq!(count(&seeded, State::CloseWait), (1, 0));
        assert_eq!((seeded.time_wait.seeded, seeded.time_wait.entered), (1, 1));
        assert_eq!(seeded.time_wait.ended.expired, 1);
        // One was met at its step, the other passes no filter unseen.
        assert_eq!(count(&played("birth_first"), State::TimeWait), (1, 0));
        assert_eq!(count(&played("birth_of_unknown"), State::TimeWait), (1, 1));
        let lost = played("lost").lost;
        assert_eq!((lost.ring, lost.recursion), (1, 2));
        let failures = played("failed").connect_failures;
        assert_eq!(
            (failures.refused, failures.timed_out, failures.abandoned),
            (1, 1, 1)
        );
        assert_eq!(played("facts").connect_failures.other, 1);
        assert_eq!(count(&played("raw"), State::FinWait1), (1, 0));
    }
}
