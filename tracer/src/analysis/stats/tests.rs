//! Held against published figures where there are some, and else against SciPy
//! 1.17 (`ttest_1samp`, `ttest_ind(equal_var=False)`, `permutation_test` with
//! `n_resamples=inf`, `false_discovery_control`, `t.ppf`).

use super::*;

fn near(found: f64, truth: f64) {
    assert!(
        (found - truth).abs() <= 1e-6 * truth.abs().max(1e-3),
        "{found}, not {truth}"
    );
}

/// Darwin's maize, crossed less self-fertilised, in eighths of an inch (Fisher,
/// The Design of Experiments, 1935, sections 17 and 21).
const MAIZE: [f64; 15] = [
    49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0, -48.0,
];

/// Student's sleep (Biometrika 1908): hours gained by two drugs.
const SLEEP: [[f64; 10]; 2] = [
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
];

const EIGHT: [f64; 8] = [0.031, -0.012, 0.054, 0.047, 0.008, 0.061, -0.003, 0.022];

fn flipped(differences: &[f64]) -> Vec<f64> {
    flips(differences.len())
        .iter()
        .map(|flips| t_of_flip(differences, flips))
        .collect()
}

fn split(values: &[f64], chosen: &[bool]) -> Vec<f64> {
    splits(chosen)
        .iter()
        .map(|way| t_of_split(values, way))
        .collect()
}

#[test]
fn quantiles_of_t() {
    for (p, freedom, scipy) in [
        (0.975, 3.0, 3.182_446_305_283_708),
        (0.975, 7.0, 2.364_624_251_592_784),
        (0.95, 7.0, 1.894_578_605_090_006),
        (0.95, 6.0, 1.943_180_280_515_304),
        (0.975, 4.37, 2.686_148_100_040_885),
        (0.95, 5.0, 2.015_048_373_333_023),
        (0.975, 60.0, 2.000_297_822_014_26),
    ] {
        near(t_quantile(p, freedom), scipy);
    }
}

#[test]
fn darwins_maize() {
    // Fisher found 863 of the 32,768 arrangements as far on this side; SciPy
    // counts 1,726 on both.
    let row = flipped(&MAIZE);
    assert_eq!(row.len(), 32_768);
    near(step_down(&[row])[0].p, 1726.0 / 32_768.0);
    let estimate = Estimate::of(&MAIZE).unwrap();
    near(
        estimate.mean / estimate.standard_error,
        2.147_987_461_331_120_5,
    );
    near(estimate.p(), 0.049_702_944_021_800_866);
    let (low, high) = estimate.interval(0.95);
    near(low, 0.031_193_318_392_979_563);
    near(high, 41.835_473_348_273_69);
}

#[test]
fn students_sleep() {
    // As in R's help of t.test: t = −1.8608, df = 17.776, p = 0.07939,
    // −3.3654832 to 0.2054832.
    let estimate = Estimate::between(&SLEEP[0], &SLEEP[1]).unwrap();
    near(estimate.freedom, 17.776_473_516_178_488);
    near(estimate.p(), 0.079_394_140_187_358_3);
    let (low, high) = estimate.interval(0.95);
    near(low, -0.205_483_230_711_701_37);
    near(high, 3.365_483_230_711_701);

    let pairs: Vec<f64> = SLEEP[1].iter().zip(SLEEP[0]).map(|(b, a)| b - a).collect();
    near(Estimate::of(&pairs).unwrap().p(), 0.002_832_890_197_384_273);
    near(step_down(&[flipped(&pairs)])[0].p, 4.0 / 1024.0);
}

#[test]
fn eight_pairs() {
    assert_eq!(flips(8).len(), 256);
    near(step_down(&[flipped(&EIGHT)])[0].p, 12.0 / 256.0);
    let estimate = Estimate::of(&EIGHT).unwrap();
    near(estimate.p(), 0.029_573_907_406_853_28);
    for (confidence, low, high) in [
        (0.95, 0.003_434_071_178_138_563, 0.048_565_928_821_861_44),
        (0.90, 0.007_919_780_311_360_362, 0.044_080_219_688_639_635),
    ] {
        let found = estimate.interval(confidence);
        near(found.0, low);
        near(found.1, high);
    }
}

#[test]
fn seventy_splits() {
    let values = [10.1, 9.8, 10.4, 10.0, 10.9, 10.2, 11.3, 10.6];
    let chosen = [false, false, false, false, true, true, true, true];
    let row = split(&values, &chosen);
    assert_eq!(row.len(), 70);
    near(row[0], 2.555_065_206_399_879_8);
    near(step_down(&[row])[0].p, 4.0 / 70.0);
    let estimate = Estimate::between(&values[..4], &values[4..]).unwrap();
    near(estimate.freedom, 4.597_814_953_909_18);
    near(estimate.p(), 0.055_111_210_265_802_84);
    // Which ones the lot chose makes no difference, only what they show.
    let order = [4, 0, 5, 1, 6, 2, 7, 3];
    let shuffled = order.map(|i| values[i]);
    let chosen = order.map(|i| chosen[i]);
    near(step_down(&[split(&shuffled, &chosen)])[0].p, 4.0 / 70.0);
}

#[test]
fn what_never_varies_is_no_evidence_and_what_never_overlaps_is_all_there_is() {
    let chosen = [true, false, true, false, true, false, true, false];
    let same = split(&[1.0; 8], &chosen);
    assert_eq!(step_down(&[same])[0].p, 1.0);
    let apart = chosen.map(|c| if c { 2.0 } else { 1.0 });
    assert_eq!(step_down(&[split(&apart, &chosen)])[0].p, 2.0 / 70.0);
    assert_eq!(step_down(&[flipped(&[0.5; 8])])[0].p, 2.0 / 256.0);
    assert_eq!(step_down(&[flipped(&[0.0; 8])])[0].p, 1.0);
    let between = Estimate::between(&[1.0; 3], &[2.0; 4]).unwrap();
    assert_eq!((between.standard_error, between.freedom), (0.0, 5.0));
}

#[test]
fn one_clear_difference_among_three_numbers_is_still_found() {
    // Holm would ask for 0.05 / 3 and the 70 splits have nothing below 2 / 70.
    let chosen = [true, false, true, false, true, false, true, false];
    let clear = [1.05, 1.0, 1.06, 1.01, 1.05, 1.0, 1.07, 0.99];
    let noise = [
        [1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.01, 1.0],
        [61.0, 61.1, 60.9, 61.0, 61.2, 60.8, 61.0, 61.1],
    ];
    let rows = [
        split(&noise[0], &chosen),
        split(&clear, &chosen),
        split(&noise[1], &chosen),
    ];
    let chances = step_down(&rows);
    near(chances[1].p, 2.0 / 70.0);
    near(chances[1].adjusted, 2.0 / 70.0);
    assert!(
        chances[0].adjusted > 0.3 && chances[2].adjusted > 0.3,
        "{chances:?}"
    );
    for chance in &chances {
        assert!(chance.adjusted >= chance.p, "{chances:?}");
    }
}

#[test]
fn step_down_by_hand() {
    // Four rearrangements of two numbers. The larger real one, 5, is reached by
    // itself and by 6 of the other row: 2 of 4. The smaller, 2, is reached in
    // its own row three times, 3 of 4, and is no less adjusted than 5.
    let rows = [vec![2.0, 1.0, 6.0, 3.0], vec![5.0, 4.0, 1.0, 0.0]];
    let chances = step_down(&rows);
    assert_eq!((chances[1].p, chances[1].adjusted), (0.25, 0.5));
    assert_eq!((chances[0].p, chances[0].adjusted), (0.75, 0.75));
}

#[test]
fn several_numbers_at_once() {
    // The example of Benjamini and Hochberg's paper: 15 hypotheses, of which
    // their method at 0.05 rejects four and Holm's three.
    let ps = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
        0.5719, 0.6528, 0.7590, 1.0,
    ];
    let scipy = [
        0.0015,
        0.003,
        0.0095,
        0.035_625,
        0.0603,
        0.063_857_142_857_142_86,
        0.063_857_142_857_142_86,
        0.0645,
        0.0765,
        0.486,
        0.581_181_818_181_818_2,
        0.714_875,
        0.753_230_769_230_769_2,
        0.813_214_285_714_285_7,
        1.0,
    ];
    for (found, truth) in benjamini_hochberg(&ps).into_iter().zip(scipy) {
        near(found, truth);
    }
    let adjusted = holm(&ps);
    for (found, by_hand) in adjusted.iter().zip([0.0015, 0.0056, 0.0247, 0.114]) {
        near(*found, by_hand);
    }
    assert_eq!(adjusted.iter().filter(|p| **p <= 0.05).count(), 3);
    // In any order.
    let (forward, mut ps) = (benjamini_hochberg(&ps), ps);
    ps.reverse();
    let mut backward = benjamini_hochberg(&ps);
    backward.reverse();
    assert_eq!(forward, backward);
}

#[test]
fn a_difference_against_placebos() {
    // By hand: the placebos' mean square is (1 + 4 + 1 + 4 + 0) / 5 = 2.
    let estimate = Estimate::against(4.0, &[1.0, -2.0, -1.0, 2.0, 0.0]).unwrap();
    near(estimate.standard_error, 2.0_f64.sqrt());
    assert_eq!((estimate.mean, estimate.freedom), (4.0, 5.0));
    // scipy: 2 * t.sf(4 / sqrt(2), 5)
    near(estimate.p(), 0.036_742_598_005_152_47);
    assert_eq!(Estimate::against(1.0, &[]), None);
}

#[test]
fn small_numbers() {
    near(rule_of_three(1000), 0.003);
    assert_eq!((rule_of_three(0), rule_of_three(2)), (1.0, 1.0));
    // statistics.md's example: an interval of −14 to +9 % from 8 pairs.
    let spread = 0.115 * 8.0_f64.sqrt() / t_quantile(0.975, 7.0);
    assert_eq!(pairs_needed(spread, 0.1), 19);
    assert_eq!(Estimate::of(&[1.0]), None);
    assert_eq!(standard_deviation(&[1.0, 2.0, 3.0]), Some(1.0));
}
