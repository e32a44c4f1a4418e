//! Stretches whose numbers follow from a few words.

use super::{Check, Phase, Witness};
use crate::model::event::State;
use crate::model::histogram::Sparse;
use crate::recording::sample::quiet;
use crate::recording::{Count, Frame, Kernel, Stock};

const ALL: Witness = Witness {
    counters: true,
    births: true,
};

fn count(frame: &mut Frame, state: State) -> &mut Count {
    let place = State::COUNTED.iter().position(|s| *s == state).unwrap();
    &mut frame.states.0[place]
}

/// Frames 1, 2, …, each filled in by its number.
fn frames(n: u64, fill: impl Fn(u64, &mut Frame)) -> Vec<Frame> {
    let frame = |seq| {
        let mut frame = quiet(seq);
        fill(seq, &mut frame);
        frame
    };
    (1..=n).map(frame).collect()
}

fn of(frames: &[Frame]) -> Phase {
    Phase::of("one", &[], frames, ALL)
}

fn reading(phase: &Phase, name: &str) -> (Option<f64>, u64) {
    let reading = phase.readings.get(name).expect(name);
    (reading.value, reading.of)
}

fn check<'a>(phase: &'a Phase, name: &str) -> Option<&'a Check> {
    phase.checks.iter().find(|check| check.name == name)
}

/// `n` of one second.
fn lasted_1s(n: u64) -> Sparse {
    Sparse {
        count: n,
        sum_s: n as f64,
        min_s: Some(1.0),
        max_s: Some(1.0),
        us: vec![1_000_000],
        n: vec![n],
    }
}

#[test]
fn rates_are_per_second_and_shares_are_of_what_they_are_shares_of() {
    let phase = of(&frames(4, |_, frame| {
        frame.interval_s = 0.5;
        count(frame, State::Established).entered = 60;
        count(frame, State::TimeWait).entered = 50;
        count(frame, State::SynSent).entered = 40;
        frame.closes.via_time_wait = 45;
        frame.closes.passive = 1000;
        frame.closes.straight_to_closed.reset = 3;
        frame.closes.straight_to_closed.aborted = 2;
        frame.connect.failures.refused = 4;
        frame.time_wait.rearmed = 10;
        frame.time_wait.ended.expired = 30;
        frame.time_wait.ended.reset = 10;
        frame.time_wait.ages.exposure_s = vec![3.0, 1.0];
        frame.fin_wait2_orphan.lives_s = lasted_1s(2);
    }));
    assert_eq!((phase.name.as_str(), phase.seconds), ("one", 2.0));
    for (name, value, of) in [
        ("connections_per_s", 120.0, 240),
        ("time_wait_entered_per_s", 100.0, 200),
        // 16 socket-seconds in 2 s.
        ("time_wait_live_mean", 8.0, 200),
        // Who answers the close of another closes nothing that could wait.
        ("time_wait_per_close", 0.9, 200),
        ("rearms_per_time_wait", 0.2, 200),
        ("time_wait_ended_share.expired", 0.75, 160),
        ("time_wait_ended_share.reset", 0.25, 160),
        ("time_wait_ended_share.destroyed", 0.0, 160),
        ("connect_failures_per_1000.refused", 100.0, 160),
        ("connect_failures_per_1000.timed_out", 0.0, 160),
        ("fin_wait2_orphan_life_mean_s", 1.0, 8),
    ] {
        assert_eq!(reading(&phase, name), (Some(value), of), "{name}");
    }
}

#[test]
fn what_did_not_happen_has_no_share() {
    let phase = of(&frames(2, |_, _| {}));
    for name in [
        "time_wait_per_close",
        "rearms_per_time_wait",
        "time_wait_ended_share.expired",
        "connect_failures_per_1000.refused",
        "connect_latency_p50_s",
        "fin_wait2_orphan_life_mean_s",
        "time_wait_life_mean_s",
        "time_wait_life_p50_s",
        "time_wait_reaches_2msl_share",
    ] {
        assert_eq!(reading(&phase, name), (None, 0), "{name}");
    }
    assert_eq!(reading(&phase, "connections_per_s"), (Some(0.0), 0));
    let phase = of(&[]);
    assert_eq!(reading(&phase, "connections_per_s"), (None, 0));
    assert_eq!(reading(&phase, "time_wait_live_mean"), (None, 0));
}

#[test]
fn a_quantile_takes_more_connects_than_would_make_it_chance() {
    let quantiles = |connects: u64| {
        let phase = of(&frames(1, |_, frame| {
            frame.connect.latency_s = lasted_1s(connects);
        }));
        ["connect_latency_p50_s", "connect_latency_p99_s"].map(|name| {
            let (value, of) = reading(&phase, name);
            assert_eq!(of, connects);
            value
        })
    };
    assert_eq!(quantiles(9), [None, None]);
    assert_eq!(quantiles(10), [Some(1.0), None]);
    assert_eq!(quantiles(99), [Some(1.0), None]);
    assert_eq!(quantiles(100), [Some(1.0), Some(1.0)]);
}

#[test]
fn lives_are_those_of_the_ages_that_were_watched() {
    // A tenth dies in the middle of the first age, the others live to 2MSL and
    // on evenly through the slack.
    let mut exposure_s = vec![50.0; 120];
    exposure_s[0] = 100.0 * (0.9 * 0.5 + 0.1 * 0.25);
    exposure_s[1..].fill(45.0);
    let phase = of(&frames(1, |_, frame| {
        let ages = &mut frame.time_wait.ages;
        ages.exposure_s.clone_from(&exposure_s);
        ages.deaths = vec![10];
        ages.lived_s = vec![2.5];
    }));
    let near = |name: &str, truth: f64| {
        let (value, of) = reading(&phase, name);
        let value = value.expect(name);
        assert!((value - truth).abs() < 1e-6, "{name}: {value}, not {truth}");
        assert_eq!(of, 10, "{name}");
    };
    near("time_wait_life_mean_s", 0.1 * 0.25 + 0.9 * 61.024);
    near("time_wait_life_p50_s", 60.0 + 2.048 * (1.0 - 0.5 / 0.9));
    near("time_wait_reaches_2msl_share", 0.9);
}

#[test]
fn a_loss_of_more_than_half_a_hundredth_is_told() {
    let agrees = |lost: i64| {
        let phase = of(&frames(1, |_, frame| {
            count(frame, State::Established).entered = 600;
            count(frame, State::TimeWait).entered = 395;
            frame.lost.ring = lost - 2;
            frame.lost.unseen = 2;
        }));
        let check = check(&phase, "events seen and events sent").unwrap();
        assert_eq!((check.seen, check.expected), (995.0, 995.0 + lost as f64));
        check.agrees
    };
    assert!(agrees(5));
    assert!(!agrees(6));
}

/// A stretch that agrees with the kernel in every counter.
fn agreeing(frame: &mut Frame) {
    count(frame, State::TimeWait).entered = 700;
    count(frame, State::TimeWait).now = 5_000;
    let orphans = &mut frame.fin_wait2_orphan;
    // Born in FIN_WAIT2, and 200 of them stepped: those are no births of theirs.
    orphans.entered = 300;
    orphans.became_time_wait = 200;
    orphans.now = 1_000;
    orphans.ended.reused_by_connect = 100;
    orphans.ended.reused_by_bound_connect = 200;
    frame.time_wait.ended.reused_by_connect = 300;
    frame.time_wait.ended.reused_by_bound_connect = 400;
    frame.time_wait.overflowed = 1_000;
    let counters = [
        ("TW", 600),
        ("TWKilled", 200),
        ("TWRecycled", 1_000),
        ("TCPTimeWaitOverflow", 1_000),
    ];
    frame.kernel = Some(Kernel {
        counters: counters.map(|(name, n)| (name.to_owned(), n)).into(),
        minisockets: 6_000,
        full_sockets: 0,
    });
}

const COUNTED: [&str; 4] = [
    "births and the kernel's TW + TWKilled",
    "reuse and the kernel's TWRecycled",
    "overflow and the kernel's TCPTimeWaitOverflow",
    "minisockets and sockstat's tw",
];

#[test]
fn each_counter_of_the_kernel_is_a_check_of_its_own() {
    let phase = of(&frames(1, |_, frame| agreeing(frame)));
    let found = COUNTED.map(|name| {
        let check = check(&phase, name).expect(name);
        (check.seen, check.expected, check.agrees)
    });
    assert_eq!(
        found,
        [
            (800.0, 800.0, true),
            (1_000.0, 1_000.0, true),
            (1_000.0, 1_000.0, true),
            (6_000.0, 6_000.0, true)
        ]
    );
    // By more than a hundredth, and by more than ten.
    for (broken, name) in COUNTED.into_iter().enumerate() {
        let phase = of(&frames(1, |_, frame| {
            agreeing(frame);
            let kernel = frame.kernel.as_mut().unwrap();
            let mut add = |name: &str| *kernel.counters.get_mut(name).unwrap() += 20;
            match broken {
                0 => add("TWKilled"),
                1 => add("TWRecycled"),
                2 => add("TCPTimeWaitOverflow"),
                _ => kernel.minisockets += 80,
            }
        }));
        let wrong: Vec<&str> = phase
            .checks
            .iter()
            .filter(|c| !c.agrees)
            .map(|c| c.name)
            .collect();
        assert_eq!(wrong, [name]);
    }
}

#[test]
fn counters_of_other_sockets_or_of_other_things_check_nothing() {
    let frames = frames(1, |_, frame| agreeing(frame));
    let names = |witness: Witness| -> Vec<&str> {
        let phase = Phase::of("one", &[], &frames, witness);
        let names = phase.checks.iter().map(|check| check.name);
        names.filter(|name| COUNTED.contains(name)).collect()
    };
    assert_eq!(names(ALL), COUNTED);
    // Before 6.1, TW counts something else.
    let older = Witness {
        births: false,
        ..ALL
    };
    assert_eq!(names(older), COUNTED[1..]);
    let filtered = Witness {
        counters: false,
        ..ALL
    };
    assert_eq!(names(filtered), [""; 0]);
}

/// Two seconds of 2MSL and half a second of slack; of those born `k` frames of
/// half a second ago, so many are still there in the middle of theirs.
const THERE: [f64; 5] = [1.0, 1.0, 1.0, 1.0, 0.5];

fn born(seq: u64) -> i64 {
    // A load that nobody would call steady.
    10_000 * (1 + (seq as i64 * 7) % 5)
}

fn living(seq: u64, frame: &mut Frame) {
    frame.interval_s = 0.5;
    frame.time_wait.timer.nominal_s = Some(2.0);
    frame.time_wait.timer.slack_s = 0.5;
    frame.time_wait.ages.exposure_s = vec![100.0; 4];
    let stock: f64 = THERE
        .iter()
        .enumerate()
        .map(|(back, there)| {
            let earlier = seq.checked_sub(back as u64).filter(|earlier| *earlier > 0);
            earlier.map_or(0, born) as f64 * there
        })
        .sum();
    let count = count(frame, State::TimeWait);
    count.entered = born(seq);
    count.now = stock as u64;
}

#[test]
fn the_stock_is_what_was_born_before_and_still_lives() {
    let frames = frames(20, living);
    let (history, rest) = frames.split_at(8);
    let little = |history: &[Frame], frames: &[Frame]| {
        let history: Vec<Stock> = history.iter().map(Stock::of).collect();
        let phase = Phase::of("one", &history, frames, ALL);
        check(&phase, "stock and Little's law").cloned()
    };
    let found = little(history, rest).unwrap();
    let seen: u64 = rest
        .iter()
        .map(|frame| frame.states.get(State::TimeWait).unwrap().now)
        .sum();
    assert!((found.seen - seen as f64 / 12.0).abs() < 1e-9, "{found:?}");
    assert!((found.expected - found.seen).abs() < 1e-9, "{found:?}");
    assert!(found.agrees);
    // A tenth of the births unseen.
    let mut fewer = frames.clone();
    for frame in &mut fewer {
        let entered = &mut count(frame, State::TimeWait).entered;
        *entered -= *entered / 10;
    }
    let found = little(&fewer[..8], &fewer[8..]).unwrap();
    assert!(
        (found.expected - 0.9 * found.seen).abs() < 1e-9,
        "{found:?}"
    );
    assert!(!found.agrees);
    // Nobody knows when what was there at first was born: of these, six frames
    // are three seconds from the first, and more than all can have lived.
    assert!(little(&[], &frames[..11]).is_some());
    assert_eq!(little(&[], &frames[..10]), None);
    // Where no curve is known, there is no law.
    let mut unwatched = frames.clone();
    for frame in &mut unwatched {
        frame.time_wait.ages.exposure_s.clear();
    }
    assert_eq!(little(&unwatched[..8], &unwatched[8..]), None);
}

#[test]
fn a_check_bears_a_part_or_a_few_whichever_is_more() {
    let agrees = |seen: f64, expected: f64| {
        let mut phase = Phase::default();
        phase.check("it", seen, expected, 0.1, 5.0);
        phase.checks[0].agrees
    };
    assert!(agrees(90.0, 100.0) && agrees(110.0, 100.0));
    assert!(!agrees(89.9, 100.0) && !agrees(110.1, 100.0));
    assert!(agrees(5.0, 0.0) && agrees(15.0, 10.0));
    assert!(!agrees(5.1, 0.0) && !agrees(15.1, 10.0));
}

#[test]
fn what_is_no_number_is_no_value() {
    let mut phase = Phase::default();
    phase.read("it", Some(f64::NAN), 7);
    assert_eq!(phase.value("it"), None);
    phase.read("it", Some(2.0), 7);
    assert_eq!(phase.value("it"), Some(2.0));
    assert_eq!(phase.value("else"), None);
}
