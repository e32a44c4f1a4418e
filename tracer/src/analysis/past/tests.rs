//! Recordings of an invented machine: so many connections a second, each of
//! which leaves a TIME_WAIT that lives for 61 s.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::analysis::compare::{Finding, Verdict, compare};
use crate::model::event::State;
use crate::model::snapshot::{Closes, Exactness, Host, Lost, Scope, Timer};
use crate::recording::{
    Anchor, Connect, FinWait2Orphan, Frame, Header, Kernel, NamespaceSettings, States, TimeWait,
};

const LIFE_S: f64 = 61.0;
const NETNS: u32 = 4_026_531_840;

fn start() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

fn later(seconds: f64) -> Timestamp {
    start() + SignedDuration::from_secs_f64(seconds)
}

/// Noise of about one in a hundred, the same each time.
fn noise(n: usize) -> f64 {
    1.0 + (((n * 7919) % 101) as f64 - 50.0) / 5000.0
}

fn frame(seq: u64, from_s: f64, elapsed_s: f64, rate: f64, life_s: f64) -> Frame {
    let born = rate.round() as i64;
    let stock = (rate * life_s).round() as u64;
    let mut states = States::default();
    for (state, count) in State::COUNTED.into_iter().zip(&mut states.0) {
        match state {
            State::TimeWait => {
                count.now = stock;
                count.entered = born;
                count.left = born;
            }
            State::Established | State::SynSent => count.entered = born,
            _ => {}
        }
    }
    let mut time_wait = TimeWait {
        timer: Timer {
            nominal_s: Some(60.0),
            slack_s: 2.048,
        },
        ..TimeWait::default()
    };
    time_wait.ended.expired = born;
    let last = (life_s * 2.0) as usize;
    time_wait.ages.exposure_s = vec![rate * 0.5; last];
    time_wait.ages.exposure_s.push(0.01);
    time_wait.ages.deaths = vec![0; last + 1];
    time_wait.ages.lived_s = vec![0.0; last + 1];
    time_wait.ages.deaths[last] = born as u64;
    let closes = Closes {
        via_time_wait: born,
        ..Closes::default()
    };
    let kernel = Kernel {
        counters: BTreeMap::from([
            ("TW".to_owned(), born as u64),
            ("TWKilled".to_owned(), 0),
            ("TWRecycled".to_owned(), 0),
            ("TCPTimeWaitOverflow".to_owned(), 0),
        ]),
        minisockets: stock,
        full_sockets: 10,
    };
    Frame {
        seq,
        time: later(from_s + elapsed_s),
        elapsed_s,
        interval_s: 1.0,
        states,
        transitions: Vec::new(),
        closes,
        connect: Connect::default(),
        time_wait,
        fin_wait2_orphan: FinWait2Orphan::default(),
        ports: Vec::new(),
        namespaces: Vec::new(),
        kernel: Some(kernel),
        syn_ack_timeouts: 0,
        lost: Lost::default(),
        resyncs: 0,
        exactness: Exactness::Exact,
    }
}

/// From `from_s` on, `seconds` long, `rate` by the second of the recording.
fn recording(from_s: f64, seconds: usize, rate: impl Fn(usize) -> f64) -> Recording {
    let time = later(from_s);
    let sysctls = BTreeMap::from([
        ("net.ipv4.tcp_fin_timeout".to_owned(), "60".to_owned()),
        ("net.ipv4.tcp_tw_reuse".to_owned(), "2".to_owned()),
    ]);
    Recording {
        header: Header {
            schema: "twtrace.recording/1".to_owned(),
            version: "0.1.0".to_owned(),
            time,
            host: Host {
                name: "db01".to_owned(),
                kernel: "6.18.44".to_owned(),
                boot_id: "a".to_owned(),
                hz: 250,
            },
            clock: Anchor {
                monotonic_ns: 0,
                time,
            },
            scope: Scope {
                netns: "all".to_owned(),
                filter: String::new(),
            },
            interval_s: 1.0,
            duration_s: None,
            command: None,
            events: false,
            seeded: BTreeMap::new(),
            namespaces: vec![NamespaceSettings {
                time,
                elapsed_s: 0.0,
                netns: NETNS,
                name: None,
                sysctls: sysctls.into(),
            }],
        },
        frames: (0..=seconds)
            .map(|n| frame(n as u64, from_s, n as f64 + 0.1, rate(n) * noise(n), LIFE_S))
            .collect(),
        namespaces: Vec::new(),
        changes: Vec::new(),
        end: None,
        torn: None,
    }
}

fn steady(from_s: f64, seconds: usize) -> Recording {
    recording(from_s, seconds, |_| 300.0)
}

fn change(elapsed_s: f64, key: &str, before: &str, after: &str) -> SysctlChange {
    SysctlChange {
        time: later(elapsed_s),
        elapsed_s,
        unchanged_s: elapsed_s - 1.0,
        netns: NETNS,
        name: None,
        key: key.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    }
}

fn each_frame(recording: &mut Recording, change: impl Fn(&mut Frame)) {
    let frames = recording.frames.iter().map(|frame| {
        let mut frame = (*frame).clone();
        change(&mut frame);
        frame
    });
    recording.frames = frames.collect();
}

fn set(recording: &mut Recording, key: &str, value: &str) {
    let settings = &mut recording.header.namespaces[0];
    let sysctls = std::sync::Arc::make_mut(&mut settings.sysctls);
    sysctls.insert(key.to_owned(), value.to_owned());
}

fn shape(past: &Past) -> (f64, usize, f64) {
    match &past.trial {
        Trial::Switch {
            placebos,
            measured_s,
            settle_s,
            ..
        } => (*measured_s, placebos.len(), *settle_s),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_recordings_with_a_change_between_them() {
    let before = steady(0.0, 1300);
    let mut after = recording(1310.0, 300, |_| 390.0);
    set(&mut after, "net.ipv4.tcp_tw_reuse", "1");
    let past = of_two(&before, &after).unwrap();
    // 60 s and the wheel's slack, and two more.
    assert_eq!(shape(&past), (60.0, 6, 64.048));
    assert_eq!(past.notes, [""; 0]);
    let comparison = compare(&past.plan, &past.trial);
    assert_eq!(comparison.withheld, [""; 0]);
    assert_eq!(comparison.verdict, Verdict::Better);
    let changed = &comparison.sysctls_changed;
    assert_eq!(changed.len(), 1);
    assert_eq!(
        (changed[0].key.as_str(), changed[0].netns),
        ("net.ipv4.tcp_tw_reuse", None)
    );
    let connections = &comparison.metrics[0];
    assert_eq!(connections.verdict, Finding::Higher);
    assert!(
        connections.words.starts_with("higher by 30 %"),
        "{}",
        connections.words
    );
    for phase in &comparison.phases {
        assert!(phase.checks.len() >= 5, "{:?}", phase.checks);
    }
}

#[test]
fn a_stretch_has_what_lives_at_its_start_before_it() {
    let stocks: Vec<Stock> = (0..=1_000)
        .map(|seq| Stock {
            elapsed_s: f64::from(seq),
            interval_s: 1.0,
            born: 0,
            time_waits: 0,
        })
        .collect();
    let of = |from, to| frames_of(&stocks, Span { from, to });
    let history = HISTORY_S as usize;
    assert_eq!(of(500.0, 600.0), [501 - history, 501, 601]);
    // The first frame, which is the seeding, is never part of it.
    assert_eq!(of(50.0, 60.0), [1, 51, 61]);
    assert_eq!(of(50.0, 40.0), [1, 51, 51]);
}

#[test]
fn what_has_settled_between_two_recordings_settles_no_more() {
    // 64 s before the second begins, 10 s in it, and 74 s of it if it settled twice.
    let between = |gap_s: f64, seconds| {
        let mut after = recording(1300.0 + gap_s, seconds, |_| 390.0);
        set(&mut after, "net.ipv4.tcp_tw_reuse", "1");
        of_two(&steady(0.0, 1300), &after)
    };
    assert_eq!(shape(&between(100.0, 62).unwrap()).0, 60.0);
    assert_eq!(shape(&between(54.0, 72).unwrap()).0, 60.0);
    assert!(shape(&between(0.0, 72).unwrap()).0 < 10.0);
}

#[test]
fn nothing_changed_and_nothing_moved() {
    let past = of_two(&steady(0.0, 1300), &steady(1310.0, 300)).unwrap();
    assert_eq!(past.notes.len(), 1, "{:?}", past.notes);
    let comparison = compare(&past.plan, &past.trial);
    assert_eq!(comparison.verdict, Verdict::Unchanged);
}

#[test]
fn one_recording_is_split_where_its_sysctls_changed() {
    let mut one = recording(0.0, 1600, |n| if n < 1400 { 300.0 } else { 240.0 });
    one.changes = vec![
        change(1400.1, "net.ipv4.tcp_fin_timeout", "60", "15"),
        change(1401.1, "net.ipv4.tcp_tw_reuse", "2", "1"),
    ];
    let past = of_one(&one, None).unwrap();
    // An orphan that waits keeps its minute.
    assert_eq!(shape(&past).2, 124.048);
    assert_eq!(past.plan.sysctls_changed.len(), 2);
    assert_eq!(of_one(&one, Some(1400.0)).unwrap(), past);
    let comparison = compare(&past.plan, &past.trial);
    let connections = comparison
        .metrics
        .iter()
        .find(|metric| metric.name == "connections_per_s")
        .unwrap();
    assert!(
        connections.words.starts_with("lower by 20 %"),
        "{}",
        connections.words
    );

    // Another time is another question.
    let past = of_one(&one, Some(1000.0)).unwrap();
    assert_eq!(past.plan.sysctls_changed, []);
    assert!(past.notes[0].starts_with("No sysctl in its scope changed"));

    one.changes
        .push(change(500.1, "net.ipv4.tcp_rfc1337", "0", "1"));
    one.changes
        .sort_by(|a, b| a.elapsed_s.total_cmp(&b.elapsed_s));
    let refused = of_one(&one, None).unwrap_err();
    assert_eq!(
        refused,
        [
            "sysctls changed 2 times while it was recorded: choose one with --at: 500s \
             (tcp_rfc1337); 1400s (tcp_fin_timeout, tcp_tw_reuse)"
        ]
    );
    // What lies before the other change is not used: too short now for a verdict.
    let past = of_one(&one, Some(1400.0)).unwrap();
    assert_eq!(shape(&past).1, 3);
}

#[test]
fn little_before_the_change_is_an_estimate() {
    let mut after = recording(140.0, 130, |_| 600.0);
    set(&mut after, "net.ipv4.tcp_tw_reuse", "1");
    let past = of_two(&steady(0.0, 130), &after).unwrap();
    assert_eq!(shape(&past).1, 3);
    let comparison = compare(&past.plan, &past.trial);
    assert_eq!(comparison.verdict, Verdict::Undecided);
    assert!(
        comparison.metrics[0]
            .words
            .ends_with("an estimate from 3 placebos, too few for a verdict"),
        "{}",
        comparison.metrics[0].words
    );
}

#[test]
fn what_cannot_be_compared_is_refused_and_why() {
    let before = steady(0.0, 1300);
    let mut after = steady(1310.0, 300);
    after.header.host.kernel = "6.19.0".to_owned();
    after.header.host.hz = 1000;
    after.header.scope.filter = "dport = :443".to_owned();
    after.header.interval_s = 2.0;
    let refused = of_two(&before, &after).unwrap_err();
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert_eq!(
        refused[0],
        "the kernel is not the same (6.18.44 and 6.19.0): another kernel changes more than a sysctl \
         does"
    );
    assert!(
        refused[2].contains("(none and dport = :443)"),
        "{refused:?}"
    );
    let refused = of_two(&steady(1310.0, 300), &before).unwrap_err();
    assert!(
        refused[0].starts_with("the second recording begins before"),
        "{refused:?}"
    );
    let refused = of_one(&before, None).unwrap_err();
    assert!(refused[0].starts_with("no sysctl changed"), "{refused:?}");
    assert!(of_one(&before, Some(5000.0)).is_err());
    let refused = of_two(&before, &steady(1310.0, 20)).unwrap_err();
    assert!(
        refused[0].starts_with("too little to compare"),
        "{refused:?}"
    );
}

#[test]
fn figures_that_the_kernel_denies_give_no_verdict() {
    let before = steady(0.0, 1300);
    let mut after = recording(1310.0, 300, |_| 390.0);
    each_frame(&mut after, |frame| {
        if let Some(kernel) = &mut frame.kernel {
            kernel.counters.insert("TW".to_owned(), 500);
        }
    });
    let past = of_two(&before, &after).unwrap();
    let comparison = compare(&past.plan, &past.trial);
    assert_eq!(comparison.verdict, Verdict::Undecided);
    assert!(
        comparison.withheld[0]
            .starts_with("births and the kernel's TW + TWKilled do not agree in after"),
        "{:?}",
        comparison.withheld
    );

    // Births that were not seen: the stock is larger than what was born.
    let mut after = steady(1310.0, 300);
    each_frame(&mut after, |frame| {
        let place = State::COUNTED
            .iter()
            .position(|s| *s == State::TimeWait)
            .unwrap();
        frame.states.0[place].entered /= 2;
        frame.kernel = None;
    });
    let past = of_two(&before, &after).unwrap();
    let comparison = compare(&past.plan, &past.trial);
    assert!(
        comparison.withheld[0].starts_with("stock and Little's law do not agree in after"),
        "{:?}",
        comparison.withheld
    );
}
