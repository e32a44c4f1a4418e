//! Tables small enough to be drawn up by hand: 2MSL is a second or two, and
//! each age half a second.

use crate::model::life_table::{AGE, AgeSums};
use crate::model::snapshot::{MeanEstimate, ShareEstimate};

const S: u64 = 1_000_000_000;
const HALF: u64 = S / 2;

/// By age: socket-seconds, deaths, and the seconds that those had lived in it.
fn sums(ages: &[(f64, u64, f64)]) -> AgeSums {
    let mut sums = AgeSums::default();
    for (age, &(exposure_s, deaths, lived_s)) in ages.iter().enumerate() {
        sums.exposure_s[age] = exposure_s;
        sums.deaths[age] = deaths;
        sums.lived_s[age] = lived_s;
    }
    sums
}

/// An age that `heads` entered, of which `deaths` died after `after_s` each and
/// the others came through.
fn age(heads: u64, deaths: u64, after_s: f64) -> (f64, u64, f64) {
    let lived_s = deaths as f64 * after_s;
    ((heads - deaths) as f64 * 0.5 + lived_s, deaths, lived_s)
}

fn near(found: f64, truth: f64) {
    assert!((found - truth).abs() < 1e-9, "{found}, not {truth}");
}

fn share_is(found: Option<ShareEstimate>, share: f64, low: f64, high: f64) {
    let found = found.expect("it is known");
    near(found.share, share);
    near(found.low, low);
    near(found.high, high);
}

fn mean_is(found: Option<MeanEstimate>, estimate: f64, low: f64, high: f64) {
    let found = found.expect("it is known");
    near(found.estimate, estimate);
    near(found.low, low);
    near(found.high, high);
}

/// 100 sockets: 40 die after 0.2 s, the others 0.1 s after 2MSL of one second.
fn generation() -> AgeSums {
    sums(&[age(100, 40, 0.2), age(60, 0, 0.0), age(60, 60, 0.1)])
}

#[test]
fn of_a_generation_watched_whole_the_share_and_the_mean_are_its_own() {
    let table = generation().table(S, HALF);
    near(table.socket_seconds, 74.0);
    // Greenwood's variance of 60 of 100 is the binomial one: 0.4 / (100 · 0.6).
    let hazard = -0.6_f64.ln();
    let spread = (1.96 * (0.4 / 60.0_f64).sqrt() / hazard).exp();
    share_is(
        table.reaches_2msl,
        0.6,
        (-hazard * spread).exp(),
        (-hazard / spread).exp(),
    );
    // A death of the first age costs the 0.18 s that the others have there, and
    // 0.36 s later on. Where in their ages the deaths lie is known by their sums
    // alone: at 0.4 and 0.2 of half a second.
    let variance = 0.54_f64.powi(2) * 40.0 / (100.0 * 60.0)
        + 0.4_f64.powi(2) * (0.4 * 0.6 * 0.25) / 40.0
        + 0.6_f64.powi(2) * (0.2 * 0.8 * 0.25) / 60.0;
    let reach = 1.96 * variance.sqrt();
    mean_is(table.mean_s, 0.74, 0.74 - reach, 0.74 + reach);
}

#[test]
fn the_median_and_the_curve_go_straight_through_each_age() {
    let sums = generation();
    near(sums.median_s(S, HALF).unwrap(), 1.0 + 0.5 * 0.1 / 0.6);
    assert_eq!(sums.surviving(S, HALF), Some(vec![1.0, 0.6, 0.6, 0.0]));
    // 60 of 100 die in the first age.
    let sums = self::sums(&[age(100, 60, 0.2), age(40, 0, 0.0), age(40, 40, 0.1)]);
    near(sums.median_s(S, HALF).unwrap(), 0.5 * 0.5 / 0.6);
    // Half of them: the median is where the age ends.
    let sums = self::sums(&[age(100, 50, 0.2), age(50, 0, 0.0), age(50, 50, 0.1)]);
    near(sums.median_s(S, HALF).unwrap(), 0.5);
    // A fifth, and then a half of the others: 0.3 of the 0.4 that die there.
    let sums = self::sums(&[age(100, 20, 0.2), age(80, 40, 0.1), age(40, 40, 0.1)]);
    near(sums.median_s(S, HALF).unwrap(), 0.5 + 0.5 * 0.3 / 0.4);
}

#[test]
fn thirty_deaths_past_2msl_are_a_tail_and_fewer_are_the_wheels_slack() {
    let with = |tail: u64| sums(&[age(100, 20, 0.2), age(80, 0, 0.0), age(80, tail, 0.25)]);
    let measured = with(30);
    // 50 of the 80 are not seen to end: it is where the curve ends.
    assert_eq!(
        measured.surviving(S, S),
        Some(vec![1.0, 0.8, 0.8, 1.0 - 0.2 - 0.3])
    );
    let deduced = with(29);
    // Evenly over a second of slack, in two ages.
    assert_eq!(deduced.surviving(S, S), Some(vec![1.0, 0.8, 0.8, 0.4, 0.0]));
    near(deduced.median_s(S, S).unwrap(), 1.0 + (1.0 - 0.5 / 0.8));
    near(
        deduced.table(S, S).mean_s.unwrap().estimate,
        0.2 * 0.2 + 0.8 * (1.0 + 0.5),
    );
    // A slack of a little more than an age takes two.
    assert_eq!(deduced.surviving(S, AGE + 1).unwrap().len(), 5);
    // Half or more have ended by then: the median lies before.
    let early = sums(&[age(100, 50, 0.25), age(50, 0, 0.0)]);
    near(early.median_s(S, S).unwrap(), 0.5);
}

#[test]
fn where_nobody_died_the_age_that_was_looked_at_least_bounds_both() {
    let table = sums(&[(50.0, 0, 0.0), (20.0, 0, 0.0)]).table(S, HALF);
    share_is(
        table.reaches_2msl,
        1.0,
        (-3.689_f64 * 0.5 / 20.0).exp(),
        1.0,
    );
    // From the middle of the second age on half a second is left to live: its
    // 0.25 s, and 0.25 s in the mean of the slack.
    mean_is(table.mean_s, 1.25, 1.25 - 3.689 * 0.5 * (0.5 / 20.0), 1.25);
}

#[test]
fn what_may_have_been_spared_bounds_a_share_of_none() {
    // 100 of 200 die in the first age, the others in the second.
    let table = sums(&[age(200, 100, 0.25), age(100, 100, 0.25)]).table(2 * S, HALF);
    let hazard = -0.5_f64.ln();
    let spread = (1.96 * (0.5 / 100.0_f64).sqrt() / hazard).exp();
    let left = (-hazard / spread).exp() * 3.689 / 100.0;
    share_is(table.reaches_2msl, 0.0, 0.0, left);
    // A death in the first age costs 0.25 s there and 0.25 s in the second.
    let variance = (0.5 * 0.25 + 0.5 * 0.25_f64).powi(2) * 100.0 / (200.0 * 100.0)
        + 2.0 * (0.5_f64.powi(2) * (0.5 * 0.5 * 0.25) / 100.0);
    let reach = 1.96 * variance.sqrt();
    // Who was spared may live through the second that was not watched, and the slack.
    mean_is(
        table.mean_s,
        0.5,
        0.5 - reach,
        0.5 + reach + left * (1.0 + 0.5),
    );
    near(
        sums(&[age(200, 100, 0.25), age(100, 100, 0.25)])
            .median_s(2 * S, HALF)
            .unwrap(),
        0.5,
    );
}

#[test]
fn the_last_of_a_generation_is_read_together_with_the_age_before() {
    // One of 201 lives 0.1 s longer than the first age.
    let early = sums(&[age(201, 200, 0.25), age(1, 1, 0.1)]);
    let table = early.table(2 * S, HALF);
    let mean = (200.0 * 0.25 + 0.6) / 201.0;
    near(table.mean_s.unwrap().estimate, mean);
    share_is(table.reaches_2msl, 0.0, 0.0, 3.689 / 201.0);
    // Both ages as one, evenly from its beginning to its end.
    assert_eq!(early.surviving(2 * S, HALF).unwrap()[..3], [1.0, 0.5, 0.0]);
    // Few are not the end of all, nor are many whom one in fifty outlives.
    for left in [
        sums(&[age(1, 1, 0.25)]),
        sums(&[age(200, 199, 0.25)]),
        sums(&[age(100, 98, 0.25), age(2, 0, 0.0)]),
    ] {
        assert_eq!(left.table(2 * S, HALF).mean_s, None, "{left:?}");
        assert_eq!(left.median_s(2 * S, HALF), None);
        assert_eq!(left.surviving(2 * S, HALF), None);
    }
}

#[test]
fn an_age_that_hardly_anybody_was_seen_at_is_read_together_with_the_next() {
    // 0.3 s at the first age, where one died; ten heads at the second, of which
    // two died 0.15 s into it.
    let ages = [(0.3, 1, 0.2), (0.15 * 2.0 + 8.0 * 0.5, 2, 0.3)];
    let exposure = 0.3 + 4.3;
    // Seconds from the beginning of the first age to each death.
    let into: f64 = 0.2 + 2.0 * (0.5 + 0.15);
    let heads = exposure + (1.0 - into / 3.0) * 3.0;
    let survive = 1.0 - 3.0 / heads;
    let table = sums(&ages).table(S, HALF);
    near(table.reaches_2msl.unwrap().share, survive);
    near(
        table.mean_s.unwrap().estimate,
        into / 3.0 + survive * (1.0 - into / 3.0) + survive * 0.25,
    );
    near(table.socket_seconds, exposure);
    let curve = sums(&ages).surviving(S, HALF).unwrap();
    assert_eq!(curve.len(), 4);
    near(curve[1], f64::midpoint(1.0, survive));
    near(curve[2], survive);
    // One that was there from the beginning of an age to its end is enough.
    let alone = [(0.5, 0, 0.0), age(10, 5, 0.25)];
    assert_eq!(
        sums(&alone).surviving(S, HALF).unwrap(),
        [1.0, 1.0, 0.5, 0.0]
    );
}

#[test]
fn a_2msl_between_two_ages_ends_the_last_of_them() {
    // 1.25 s: of the third age only its first half counts.
    let sums = sums(&[(50.0, 0, 0.0), (50.0, 0, 0.0), (25.0, 0, 0.0)]);
    let table = sums.table(S + S / 4, HALF);
    near(table.mean_s.unwrap().estimate, 1.25 + 0.25);
    near(sums.median_s(S + S / 4, HALF).unwrap(), 1.25 + 0.5 * 0.5);
    assert_eq!(
        sums.surviving(S + S / 4, HALF).unwrap(),
        [1.0, 1.0, 1.0, 1.0, 0.0]
    );
    share_is(
        table.reaches_2msl,
        1.0,
        (-3.689_f64 * (0.5 / 50.0_f64).max(0.25 / 25.0)).exp(),
        1.0,
    );
}

#[test]
fn what_nobody_was_seen_at_is_a_gap_wherever_it_lies() {
    let seen = (50.0, 0, 0.0);
    let nobody = (0.0, 0, 0.0);
    let seen_to = |ages: &[(f64, u64, f64)]| {
        let table = sums(ages).table(2 * S, HALF);
        assert_eq!((table.reaches_2msl, table.mean_s), (None, None));
        table.seen_to_s
    };
    assert_eq!(seen_to(&[seen, seen, seen]), Some(1.5));
    assert_eq!(seen_to(&[seen, nobody, seen, seen]), None);
    assert_eq!(seen_to(&[nobody, seen, seen, seen]), None);
    assert_eq!(seen_to(&[]), None);
    // The rounding of a cohort is nobody.
    assert_eq!(seen_to(&[seen, (1e-6, 0, 0.0)]), Some(0.5));
    // Past 2MSL a gap ends the tail, and nothing else.
    let tail = [seen, seen, nobody, age(50, 50, 0.25)];
    near(sums(&tail).median_s(S, HALF).unwrap(), 1.0 + 0.5 * 0.5);
}

#[test]
fn a_thin_age_stands_alone_from_thirty_deaths_on() {
    // All that come through the first age die at once in the second.
    let with = |last: u64| sums(&[age(200, 200 - last, 0.2), age(last, last, 0.01)]);
    near(with(30).median_s(2 * S, HALF).unwrap(), 0.5 * 0.5 / 0.85);
    // Of fewer both ages are one, of a second, in which all die.
    near(with(29).median_s(2 * S, HALF).unwrap(), 0.5);
}
