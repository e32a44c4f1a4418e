//! The arithmetic of the benchmark: order by lot, medians, and the interval of
//! a paired ratio. Pure: it knows numbers, not what they measure.

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same everywhere, so
/// that a printed seed gives the same order again.
#[derive(Clone, Debug)]
pub(crate) struct Lot(u64);

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        Lot(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `count` − 1, each in its place by lot (Fisher and Yates).
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let other = (self.next() % (last as u64 + 1)) as usize;
            order.swap(last, other);
        }
        order
    }
}

/// `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// A ratio and the bounds of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) estimate: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The median of the ratios of pairs, and the 95 % interval of their geometric
/// mean by Student's t on their logarithms. `None` below two pairs, which have
/// no spread, or where a value is not positive.
pub(crate) fn paired_ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    if pairs.len() < 2 || pairs.iter().any(|&(a, b)| a <= 0.0 || b <= 0.0) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(a, b)| (a / b).ln()).collect();
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let reach = t_975(logs.len() - 1) * (variance / n).sqrt();
    Some(Ratio {
        estimate: median(&logs)?.exp(),
        low: (mean - reach).exp(),
        high: (mean + reach).exp(),
    })
}

/// The quotient of the means of pairs, and its 95 % interval by Fieller's theorem
/// (1954). `None` below two pairs, or where the divisor is not surely positive.
pub(crate) fn paired_quotient(pairs: &[(f64, f64)]) -> Option<Ratio> {
    if pairs.len() < 2 {
        return None;
    }
    let n = pairs.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| pairs.iter().map(value).sum::<f64>() / n;
    let (mean_a, mean_b) = (mean(|pair| pair.0), mean(|pair| pair.1));
    // Variances and the covariance of the means.
    let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs.iter().map(|(a, b)| (a - mean_a, b - mean_b)) {
        aa += a * a / (n - 1.0) / n;
        ab += a * b / (n - 1.0) / n;
        bb += b * b / (n - 1.0) / n;
    }
    let t = t_975(pairs.len() - 1);
    // The bounds are the roots of (a - r b)^2 = t^2 var(a - r b).
    let (square, half, constant) = (
        mean_b.powi(2) - t.powi(2) * bb,
        mean_a * mean_b - t.powi(2) * ab,
        mean_a.powi(2) - t.powi(2) * aa,
    );
    if square <= 0.0 || mean_b <= 0.0 {
        return None;
    }
    let reach = (half.powi(2) - square * constant).max(0.0).sqrt();
    Some(Ratio {
        estimate: mean_a / mean_b,
        low: (half - reach) / square,
        high: (half + reach) / square,
    })
}

/// The 97.5 % quantile of Student's t: tabled to 10 degrees of freedom, beyond
/// by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5), which is
/// right to a thousandth there.
fn t_975(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    ];
    if let Some(&t) = freedom.checked_sub(1).and_then(|row| TABLE.get(row)) {
        return t;
    }
    let z = 1.959_964_f64;
    let v = freedom as f64;
    z + (z.powi(3) + z) / (4.0 * v)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_drawn_and_drawn_again() {
        let mut lot = Lot::new(7);
        let orders: Vec<Vec<usize>> = (0..600).map(|_| lot.order(3)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
        }
        for first in 0..3 {
            let share = orders.iter().filter(|order| order[0] == first).count();
            assert!(
                (150..=250).contains(&share),
                "{first} came first {share} times"
            );
        }
        let mut again = Lot::new(7);
        assert_eq!(again.order(3), orders[0]);
        assert_eq!(again.order(3), orders[1]);
    }

    #[test]
    fn a_quotient_of_means_has_the_interval_of_both() {
        // A divisor that is known leaves the interval of the mean: 4 ± 4.303 / √3.
        let known = paired_quotient(&[(3.0, 2.0), (4.0, 2.0), (5.0, 2.0)]).expect("an interval");
        let reach = 4.303 / 3_f64.sqrt() / 2.0;
        for (is, should) in [
            (known.estimate, 2.0),
            (known.low, 2.0 - reach),
            (known.high, 2.0 + reach),
        ] {
            assert!((is - should).abs() < 1e-3, "{is} should be {should}");
        }
        // What moves both alike moves no quotient.
        let alike = paired_quotient(&[(2.0, 1.0), (4.0, 2.0), (3.0, 1.5)]).expect("an interval");
        assert!((alike.low - 2.0).abs() < 1e-6 && (alike.high - 2.0).abs() < 1e-6);
        // Nothing to divide by.
        assert_eq!(
            paired_quotient(&[(1.0, -1.0), (1.0, 1.0), (1.0, 0.1)]),
            None
        );
        assert_eq!(paired_quotient(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (freedom, table) in [
            (1, 12.706),
            (4, 2.776),
            (11, 2.201),
            (30, 2.042),
            (120, 1.980),
        ] {
            let t = t_975(freedom);
            assert!((t - table).abs() < 0.001, "t({freedom}) = {t}, not {table}");
        }
    }

    #[test]
    fn an_interval_holds_the_pairs_apart_from_their_drift() {
        // The machine doubles its speed on the way; the ratio does not care.
        let pairs = [
            (95.0, 100.0),
            (114.0, 120.0),
            (142.5, 150.0),
            (190.0, 200.0),
        ];
        let ratio = paired_ratio(&pairs).expect("four pairs");
        for value in [ratio.estimate, ratio.low, ratio.high] {
            assert!((value - 0.95).abs() < 1e-9, "{ratio:?}");
        }

        // By hand: logs −ln 2, 0, ln 2; mean 0, s = ln 2, t(2) = 4.303.
        let ratio = paired_ratio(&[(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)]).expect("three pairs");
        let reach = 4.303 * 2.0_f64.ln() / 3.0_f64.sqrt();
        assert!((ratio.estimate - 1.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.high.ln() - reach).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.low.ln() + reach).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn what_has_no_spread_or_no_ratio_has_no_interval() {
        assert_eq!(paired_ratio(&[(1.0, 2.0)]), None);
        assert_eq!(paired_ratio(&[(1.0, 2.0), (0.0, 2.0)]), None);
    }
}
