//! The life table held against populations whose truth is known.

use super::{Ages, Moment};

const S: u64 = 1_000_000_000;
const NOMINAL: u64 = 60 * S;
const SLACK: u64 = 2_048_000_000;

/// Numbers that look random and are the same each time.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Closes at a steady rate; `early` of them end evenly between 0 and 60 s.
/// Looked at from 1000 s on, for `seconds`.
fn watched(sockets: u32, early: f64, seconds: u64) -> Ages {
    let mut random = Lcg(7);
    let (start, end) = (1000 * S, (1000 + seconds) * S);
    let mut ages = Ages::default();
    // As many a second as give that many alive at the start.
    let rate = f64::from(sockets) / (61.0 - early * 31.0);
    let births = (rate * (64.0 + seconds as f64)) as u32;
    for _ in 0..births {
        let born = start - 64 * S + (random.unit() * (64 + seconds) as f64 * S as f64) as u64;
        let life = if random.unit() < early {
            random.unit() * 60.0
        } else {
            60.0 + random.unit() * 2.048
        };
        let died = born + (life * S as f64) as u64;
        if died > start && born < end {
            ages.enter(Moment(born), Moment(born.max(start)));
            if died <= end {
                ages.leave(Moment(born), Moment(died), true);
            }
        }
    }
    ages
}

#[test]
fn five_seconds_tell_the_share_that_lives_sixty() {
    for early in [0.05, 0.2, 0.5] {
        let table = watched(20_000, early, 5).table(Moment(1005 * S), NOMINAL, SLACK);
        let share = table.reaches_2msl.expect("every age was seen");
        assert!(
            (share.share - (1.0 - early)).abs() < 0.03,
            "{early}: {share:?}"
        );
        assert!(
            share.low < 1.0 - early && 1.0 - early < share.high,
            "{early}: {share:?}"
        );
        let mean = table.mean_s.expect("every age was seen");
        let truth = early * 30.0 + (1.0 - early) * 61.024;
        assert!(
            (mean.estimate - truth).abs() < 1.0,
            "{early}: {mean:?}, not {truth}"
        );
        assert!(
            mean.low < truth && truth < mean.high,
            "{early}: {mean:?}, not {truth}"
        );
    }
}

#[test]
fn no_early_end_is_a_bound_not_a_certainty() {
    let table = watched(20_000, 0.0, 5).table(Moment(1005 * S), NOMINAL, SLACK);
    let share = table.reaches_2msl.expect("every age was seen");
    assert_eq!((share.share, share.high), (1.0, 1.0));
    assert!(share.low > 0.98 && share.low < 1.0, "{share:?}");
    let few = watched(200, 0.0, 5).table(Moment(1005 * S), NOMINAL, SLACK);
    let low = few.reaches_2msl.expect("every age was seen").low;
    assert!(
        low < share.low,
        "fewer sockets bound worse: {low} against {}",
        share.low
    );
}

#[test]
fn ages_that_nobody_was_seen_at_leave_it_unsaid() {
    let mut ages = Ages::default();
    for i in 0..1000 {
        ages.enter(Moment(1000 * S + i), Moment(1000 * S + i));
    }
    let table = ages.table(Moment(1005 * S), NOMINAL, SLACK);
    assert_eq!((table.reaches_2msl, table.mean_s), (None, None));
    assert_eq!(table.seen_to_s, Some(5.0));
    assert!((table.socket_seconds - 5000.0).abs() < 1.0, "{table:?}");
}

#[test]
fn exposure_is_the_time_that_sockets_were_watched() {
    let mut ages = Ages::default();
    // Seeded at age 10.25 s, gone at 12.5 s; and one born, still alive at 3.75 s.
    ages.enter(Moment(100 * S), Moment(110 * S + S / 4));
    ages.leave(Moment(100 * S), Moment(112 * S + S / 2), true);
    ages.enter(Moment(109 * S + S / 4), Moment(109 * S + S / 4));
    let table = ages.table(Moment(113 * S), NOMINAL, SLACK);
    assert!((table.socket_seconds - 6.0).abs() < 1e-9, "{table:?}");
}

#[test]
fn an_expiry_is_no_early_end() {
    let mut ages = Ages::default();
    for i in 0..100 {
        let born = Moment(100 * S + i * 10_000_000);
        ages.enter(born, born);
        ages.leave(
            born,
            Moment(born.0 + NOMINAL + i * 20_000_000 + 4_000_000),
            true,
        );
    }
    let table = ages.table(Moment(300 * S), NOMINAL, SLACK);
    assert_eq!(table.reaches_2msl.map(|s| s.share), Some(1.0));
    let mean = table.mean_s.expect("all were seen");
    assert!((mean.estimate - 60.994).abs() < 0.3, "{mean:?}");
}

/// Lives as a client has them whose ports are all reused: `count` ends between
/// `shortest` and `longest` seconds, one after the other.
fn reused(count: u64, shortest: f64, longest: f64) -> Ages {
    let mut random = Lcg(7);
    let mut ages = Ages::default();
    for i in 0..count {
        let born = Moment(1000 * S + i * 5_000_000);
        let life = shortest + random.unit() * (longest - shortest);
        ages.enter(born, born);
        ages.leave(born, Moment(born.0 + (life * S as f64) as u64), true);
    }
    ages
}

#[test]
fn where_all_end_early_none_reaches_2msl() {
    for (shortest, longest) in [(1.0, 1.6), (0.0, 3.3), (0.001, 0.002)] {
        let table = reused(890, shortest, longest).table(Moment(1010 * S), NOMINAL, SLACK);
        let share = table.reaches_2msl.expect("they died out");
        assert_eq!((share.share, share.low), (0.0, 0.0));
        assert!(share.high > 0.0 && share.high < 0.03, "{share:?}");
        let mean = table.mean_s.expect("they died out");
        let truth = f64::midpoint(shortest, longest);
        assert!(
            (mean.estimate - truth).abs() < 0.02 * truth,
            "{mean:?}, not {truth}"
        );
        assert!(
            mean.low < truth && truth < mean.high,
            "{mean:?}, not {truth}"
        );
        // Of 890 that all ended, one in 240 may have been spared by chance.
        assert!(mean.high < 1.1 * truth + 62.0 / 240.0, "{mean:?}");
    }
}

#[test]
fn half_of_them_reach_the_median() {
    let median = |ages: Ages, now: u64| ages.sums(Moment(now * S)).median_s(NOMINAL, SLACK);
    let near = |found: Option<f64>, truth: f64, by: f64| {
        assert!(
            found.is_some_and(|median| (median - truth).abs() < by),
            "{found:?}, not {truth}"
        );
    };
    // None ends early: the middle of the wheel's slack, seen or deduced.
    near(median(watched(20_000, 0.0, 5), 1005), 61.024, 0.1);
    near(median(watched(300, 0.0, 5), 1005), 61.024, 0.01);
    // 20 % early: 30 of the other 80 % expire before the median.
    near(
        median(watched(20_000, 0.2, 5), 1005),
        60.0 + 2.048 * 0.375,
        0.1,
    );
    near(median(watched(20_000, 0.8, 5), 1005), 60.0 * 0.5 / 0.8, 4.0);
    near(median(reused(890, 1.0, 1.6), 1010), 1.3, 0.05);
    assert_eq!(median(Ages::default(), 1010), None);
}

#[test]
fn a_few_early_ends_are_not_the_end_of_all() {
    for count in [1, 2, 5] {
        let table = reused(count, 0.001, 0.002).table(Moment(1010 * S), NOMINAL, SLACK);
        assert_eq!((table.reaches_2msl, table.mean_s), (None, None), "{count}");
    }
    // All seen to end, but for those that may yet live to 2MSL: one in fifty.
    let mut ages = reused(890, 1.0, 1.6);
    for i in 0..18 {
        ages.enter(Moment(1000 * S + i), Moment(1000 * S + i));
    }
    let table = ages.table(Moment(1010 * S), NOMINAL, SLACK);
    assert_eq!((table.reaches_2msl, table.seen_to_s), (None, Some(10.0)));
}

#[test]
fn an_age_between_that_nobody_was_seen_at_is_no_oldest() {
    let mut ages = Ages::default();
    ages.enter(Moment(1000 * S), Moment(1000 * S));
    ages.enter(Moment(970 * S), Moment(1000 * S));
    let table = ages.table(Moment(1005 * S), NOMINAL, SLACK);
    assert_eq!((table.reaches_2msl, table.seen_to_s), (None, None));
}
