//! What is measured, each with all that it needs made ready beforehand: the
//! same work for the clock (`benches/speed.rs`) and for the count of
//! instructions (`main.rs`).

use std::hint::black_box;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tracer::analysis::findings::{Findings, Judged};
use tracer::kernel::decode;
use tracer::kernel::merge::Merge;
use tracer::kernel::walk::Decoder;
use tracer::model::event::{Event, Moment, NamespaceFacts, Netns};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;
use tracer::model::histogram::Durations;
use tracer::model::ledger::{Config, Frame, Ledger};
use tracer::model::snapshot::{Host, Scope, Snapshot};
use tracer::model::state_set::StateSet;
use tracer::render::events::{self, Happenings, Show};
use tracer::render::json::JsonLines;
use tracer::render::live::{PlainTables, Snapshots};
use tracer::render::terminal::Terminal;
use tracer_common::layout::Layout;
use tracer_common::walk::SocketRecord;

use crate::stream::{NETNS, Records, Stream};

/// TIME_WAITs that live while a load goes on.
const LIVE: u64 = 2_000;

/// Something to be done once.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Work {
    /// Units it is made of.
    pub units: u64,
    run: Box<dyn FnOnce()>,
}

impl Work {
    fn new(units: u64, run: impl FnOnce() + 'static) -> Work {
        Work {
            units,
            run: Box::new(run),
        }
    }

    #[inline(never)]
    pub fn run(self) {
        (self.run)();
    }
}

/// A name, what its unit is, and how it is made ready.
pub type Named = (&'static str, &'static str, fn() -> Work);

pub const ALL: [Named; 9] = [
    ("decode", "record", decode),
    ("decode_and_apply", "record", decode_and_apply),
    ("seed", "socket", seed),
    ("resync", "socket", resync),
    ("histogram", "duration", histogram),
    ("snapshot", "snapshot", snapshot),
    ("events_json", "line", events_json),
    ("events_text", "line", events_text),
    ("live", "snapshot", live),
];

/// A ledger, and the way that records take to it.
#[expect(missing_debug_implementations, reason = "nobody prints it")]
pub struct Reader {
    pub ledger: Ledger,
    merge: Merge,
}

impl Reader {
    pub fn new(ledger: Ledger) -> Reader {
        Reader {
            ledger,
            merge: Merge::default(),
        }
    }

    /// As the session does it.
    pub fn apply(&mut self, records: &Records, now: Moment, tell: &mut impl FnMut(&Happening)) {
        for batch in records.batches() {
            self.merge.push(batch);
        }
        self.merge
            .emit(now, now, |event| self.ledger.apply(event, tell));
    }
}

/// One that has seen `LIVE` connections begin to wait, and the records of as
/// many more.
fn steady() -> (Reader, Stream, Records) {
    let mut stream = Stream::new(LIVE);
    let mut records = Records::default();
    let mut ledger = Ledger::new(Config::new(Stream::tick(), Filter::default(), stream.now()));
    ledger.begin_seed(stream.now(), &mut |_| {});
    ledger.end_seed(stream.now());
    ledger.apply(
        &Event::Namespace {
            netns: Netns(NETNS),
            facts: facts(),
        },
        &mut |_| {},
    );
    let mut reader = Reader::new(ledger);
    stream.processes(&mut records);
    for _ in 0..LIVE {
        stream.connection(&mut records);
    }
    reader.apply(&records, stream.now(), &mut |_| {});
    records.clear();
    for _ in 0..LIVE {
        stream.connection(&mut records);
    }
    (reader, stream, records)
}

pub fn facts() -> NamespaceFacts {
    NamespaceFacts {
        name: None,
        ports: (1024, 65_535),
        reserved_ports: 0,
        max_tw_buckets: 8_388_608,
        tw_reuse: 0,
        tw_reuse_delay: Duration::from_secs(1),
        timestamps: true,
    }
}

fn decode() -> Work {
    let (_, stream, records) = steady();
    Work::new(records.count(), move || {
        for record in records.iter() {
            black_box(decode::record(record, stream.now()));
        }
    })
}

fn decode_and_apply() -> Work {
    let (mut reader, stream, records) = steady();
    Work::new(records.count(), move || {
        reader.apply(&records, stream.now(), &mut |happening| {
            black_box(happening);
        });
        black_box(&reader);
    })
}

fn seed() -> Work {
    const SOCKETS: u64 = 20_000;
    let stream = Stream::new(LIVE);
    let found: Vec<_> = (0..SOCKETS).map(|n| stream.found(n, 2)).collect();
    let mut ledger = Ledger::new(Config::new(Stream::tick(), Filter::default(), stream.now()));
    Work::new(SOCKETS, move || {
        take_stock(&mut ledger, &found, stream.now());
        black_box(&ledger);
    })
}

/// A second look at sockets that are known.
fn resync() -> Work {
    const SOCKETS: u64 = 20_000;
    let stream = Stream::new(LIVE);
    let found: Vec<_> = (0..SOCKETS).map(|n| stream.found(n, 2)).collect();
    let mut ledger = Ledger::new(Config::new(Stream::tick(), Filter::default(), stream.now()));
    take_stock(&mut ledger, &found, stream.now());
    Work::new(SOCKETS, move || {
        take_stock(&mut ledger, &found, Moment(stream.now().0 + 1_000_000_000));
        black_box(&ledger);
    })
}

/// As the session does it, with what the walk reports.
fn take_stock(ledger: &mut Ledger, found: &[SocketRecord], at: Moment) {
    ledger.begin_seed(at, &mut |_| {});
    seed_all(ledger, found);
    ledger.end_seed(at);
    ledger.pass(Moment(at.0 + 1_000_000_000), &mut |_| {});
}

pub fn seed_all(ledger: &mut Ledger, found: &[SocketRecord]) {
    let decoder = Decoder::new(&Layout {
        tw_timer: 160,
        ..Layout::default()
    });
    for record in found {
        let socket = decoder
            .decode(record)
            .expect("a record that can be decoded");
        let seed = socket.seed().expect("no half-open request");
        ledger.apply(&Event::Seed(seed), &mut |_: &Happening| {});
    }
}

fn histogram() -> Work {
    const DURATIONS: u64 = 50_000;
    let mut durations = Durations::default();
    durations.record(Duration::ZERO);
    Work::new(DURATIONS, move || {
        for n in 0..DURATIONS {
            durations.record(Duration::from_micros(n * 1_237));
        }
        black_box(&durations);
    })
}

fn snapshot() -> Work {
    let (mut reader, stream, records) = steady();
    reader.apply(&records, stream.now(), &mut |_| {});
    Work::new(1, move || {
        black_box(reader.ledger.snapshot(frame(stream.now()), &mut |_| None));
    })
}

fn events_json() -> Work {
    told(|out| Box::new(events::Json::new(out)))
}

fn events_text() -> Work {
    let show = Show { netns: true };
    told(move |out| Box::new(events::Text::new(out, TimeZone::UTC, show)))
}

/// What the ledger told of a load, as lines.
fn told(lines: impl FnOnce(Terminal<Nowhere>) -> Box<dyn Happenings>) -> Work {
    let (mut reader, stream, records) = steady();
    let mut happenings = Vec::new();
    reader.apply(&records, stream.now(), &mut |happening| {
        happenings.push(*happening);
    });
    let mut lines = lines(Terminal::new(Nowhere, false));
    let noon: Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
    Work::new(happenings.len() as u64, move || {
        for happening in &happenings {
            let time = noon + SignedDuration::from_nanos(happening.at.0 as i64);
            lines
                .happening(happening, time, Some("/system.slice/client.service"))
                .expect("nowhere takes everything");
        }
        lines.flush().expect("nowhere takes everything");
    })
}

/// One snapshot as a table and as JSON.
fn live() -> Work {
    let (mut reader, stream, records) = steady();
    reader.apply(&records, stream.now(), &mut |_| {});
    let snapshot: Snapshot = reader.ledger.snapshot(frame(stream.now()), &mut |_| None);
    Work::new(1, move || {
        let shown: [Box<dyn Snapshots>; 2] = [
            Box::new(JsonLines::new(Terminal::new(Nowhere, false))),
            Box::new(PlainTables::new(
                Terminal::new(Nowhere, false),
                StateSet::default(),
            )),
        ];
        for mut shown in shown {
            let judged = Judged {
                snapshot: &snapshot,
                judgement: &Findings::new().judge(&snapshot),
            };
            shown.snapshot(&judged).expect("nowhere takes everything");
        }
    })
}

pub fn frame(at: Moment) -> Frame {
    Frame {
        seq: 0,
        at,
        time: Timestamp::UNIX_EPOCH,
        elapsed_s: 60.0,
        interval_s: 1.0,
        host: Host {
            name: Ipv4Addr::LOCALHOST.to_string(),
            kernel: "6.18".to_owned(),
            boot_id: String::new(),
            hz: Stream::tick().hz,
        },
        version: "0",
        scope: Scope {
            netns: "all".to_owned(),
            filter: String::new(),
        },
    }
}

/// Takes all and keeps nothing.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        black_box(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
