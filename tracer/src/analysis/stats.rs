//! The arithmetic of a comparison: exact tests by rearrangement, intervals by
//! Student's t, and what to do about looking at several numbers at once.
//!
//! Pure: it knows numbers, not what they measure. Where each comes from, and
//! why this and not another, is docs/statistics.md.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// A difference is called one at this probability of being chance.
pub const ALPHA: f64 = 0.05;

/// Rearrangements that come out as far as the real one but for rounding do
/// come out as far.
const ROUNDING: f64 = 1e-9;

/// An estimate and what may be wrong about it by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub standard_error: f64,
    pub freedom: f64,
}

impl Estimate {
    /// The mean of these, such as differences of pairs. `None` of fewer than two.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let (mean, variance) = moments(values)?;
        Some(Estimate {
            mean,
            standard_error: (variance / values.len() as f64).sqrt(),
            freedom: values.len() as f64 - 1.0,
        })
    }

    /// Of the second group over the first, whose spreads may differ (Welch 1947).
    #[must_use]
    pub fn between(first: &[f64], second: &[f64]) -> Option<Estimate> {
        let (mean1, variance1) = moments(first)?;
        let (mean2, variance2) = moments(second)?;
        let (n1, n2) = (first.len() as f64, second.len() as f64);
        let (of1, of2) = (variance1 / n1, variance2 / n2);
        let error = of1 + of2;
        let freedom = if error > 0.0 {
            error.powi(2) / (of1.powi(2) / (n1 - 1.0) + of2.powi(2) / (n2 - 1.0))
        } else {
            n1 + n2 - 2.0
        };
        Some(Estimate {
            mean: mean2 - mean1,
            standard_error: error.sqrt(),
            freedom,
        })
    }

    /// A difference on the scale of differences that nothing caused, whose mean
    /// is known to be 0. `None` without any of those.
    #[must_use]
    pub fn against(difference: f64, placebos: &[f64]) -> Option<Estimate> {
        let n = placebos.len() as f64;
        (n > 0.0).then(|| Estimate {
            mean: difference,
            standard_error: (placebos.iter().map(|d| d.powi(2)).sum::<f64>() / n).sqrt(),
            freedom: n,
        })
    }

    /// Two-sided, at this confidence such as 0.95.
    #[must_use]
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let reach = t_quantile(0.5 + confidence / 2.0, self.freedom) * self.standard_error;
        (self.mean - reach, self.mean + reach)
    }

    /// Two-sided, of no difference.
    #[must_use]
    pub fn p(&self) -> f64 {
        if self.standard_error > 0.0 {
            let t = (self.mean / self.standard_error).abs();
            2.0 * students_t(self.freedom).map_or(0.5, |d| d.sf(t))
        } else {
            f64::from(u8::from(self.mean == 0.0))
        }
    }
}

/// Mean and variance (n − 1); `None` of fewer than two.
fn moments(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((mean, squares / (n - 1.0)))
}

#[must_use]
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    moments(values).map(|(_, variance)| variance.sqrt())
}

#[must_use]
pub fn t_quantile(p: f64, freedom: f64) -> f64 {
    students_t(freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(p))
}

fn students_t(freedom: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, freedom).ok()
}

/// Every way in which chance could have named the members of `n` pairs, as
/// signs of their differences; the real one first.
#[must_use]
pub fn flips(n: usize) -> Vec<Vec<bool>> {
    (0..1_u32 << n.min(20))
        .map(|mask| (0..n).map(|i| mask >> i & 1 == 1).collect())
        .collect()
}

/// Every way in which the lot could have chosen as many of them as it did; the
/// real one first.
#[must_use]
pub fn splits(chosen: &[bool]) -> Vec<Vec<bool>> {
    let k = chosen.iter().filter(|&&c| c).count();
    let all = 0..1_u32 << chosen.len().min(20);
    let ways = all
        .filter(|mask| mask.count_ones() as usize == k)
        .map(|mask| (0..chosen.len()).map(|i| mask >> i & 1 == 1).collect())
        .filter(|way: &Vec<bool>| way != chosen);
    std::iter::once(chosen.to_vec()).chain(ways).collect()
}

/// Student's t of these differences with those of `flipped` turned round, as a
/// distance from 0.
#[must_use]
pub fn t_of_flip(differences: &[f64], flipped: &[bool]) -> f64 {
    let turned: Vec<f64> = differences
        .iter()
        .zip(flipped)
        .map(|(d, &turn)| if turn { -d } else { *d })
        .collect();
    match moments(&turned) {
        Some((mean, variance)) => distance(mean, variance / turned.len() as f64),
        None => 0.0,
    }
}

/// Student's t between the chosen ones and the others, as a distance from 0.
#[must_use]
pub fn t_of_split(values: &[f64], chosen: &[bool]) -> f64 {
    let of = |which: bool| -> Vec<f64> {
        let group = values.iter().zip(chosen).filter(|(_, c)| **c == which);
        group.map(|(v, _)| *v).collect()
    };
    let (first, second) = (of(false), of(true));
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    match (moments(&first), moments(&second)) {
        (Some((mean1, variance1)), Some((mean2, variance2))) => {
            let pooled = ((n1 - 1.0) * variance1 + (n2 - 1.0) * variance2) / (n1 + n2 - 2.0);
            distance(mean2 - mean1, pooled * (1.0 / n1 + 1.0 / n2))
        }
        _ => 0.0,
    }
}

fn distance(mean: f64, squared_error: f64) -> f64 {
    if mean == 0.0 {
        0.0
    } else {
        mean.abs() / squared_error.sqrt()
    }
}

/// How likely chance alone is to come out as far, in this one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    pub p: f64,
    /// The same, where the number was one of several that were looked at.
    pub adjusted: f64,
}

/// Each row is one number under every rearrangement, the real one first. The
/// rearrangements are of all numbers at once, so that how they hang together
/// counts: step-down by the largest (Westfall and Young 1993, algorithm 4.1).
/// It does what Holm's method does, but does not run out of rearrangements:
/// with 70 of them, Holm could never call one of two numbers moved.
#[must_use]
pub fn step_down(rows: &[Vec<f64>]) -> Vec<Chance> {
    let real = |row: &Vec<f64>| row.first().copied().unwrap_or(0.0);
    let share = |as_far: &dyn Fn(usize) -> bool, ways: usize| {
        (0..ways).filter(|&way| as_far(way)).count() as f64 / ways.max(1) as f64
    };
    let reaches = |value: f64, real: f64| value >= real * (1.0 - ROUNDING);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| real(&rows[b]).total_cmp(&real(&rows[a])));
    let mut chances = vec![
        Chance {
            p: 1.0,
            adjusted: 1.0
        };
        rows.len()
    ];
    let mut so_far = 0.0_f64;
    for (place, &this) in order.iter().enumerate() {
        let row = &rows[this];
        let left = &order[place..];
        let as_far = |way: usize| left.iter().any(|&i| reaches(rows[i][way], real(row)));
        so_far = so_far.max(share(&as_far, row.len()));
        chances[this] = Chance {
            p: share(&|way| reaches(row[way], real(row)), row.len()),
            adjusted: so_far,
        };
    }
    chances
}

/// Holm's method (1979): the adjusted probabilities, in the order given.
#[must_use]
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let mut adjusted = vec![1.0; ps.len()];
    let mut so_far = 0.0_f64;
    for (place, &i) in order.iter().enumerate() {
        so_far = so_far.max((ps[i] * (ps.len() - place) as f64).min(1.0));
        adjusted[i] = so_far;
    }
    adjusted
}

/// Benjamini and Hochberg (1995): the adjusted probabilities, in the order given.
#[must_use]
pub fn benjamini_hochberg(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[b].total_cmp(&ps[a]));
    let mut adjusted = vec![1.0; ps.len()];
    let mut so_far = 1.0_f64;
    for (place, &i) in order.iter().enumerate() {
        let rank = (ps.len() - place) as f64;
        so_far = so_far.min(ps[i] * ps.len() as f64 / rank);
        adjusted[i] = so_far;
    }
    adjusted
}

/// None was seen among `n`: 95 % sure that it is at most this share, since
/// `e^-3` is 5 % (Hanley and Lippman-Hand 1983).
#[must_use]
pub fn rule_of_three(n: u64) -> f64 {
    if n == 0 {
        1.0
    } else {
        (3.0 / n as f64).min(1.0)
    }
}

/// How many pairs find a difference of `x` four times in five, where pair
/// differences have this standard deviation.
#[must_use]
pub fn pairs_needed(standard_deviation: f64, x: f64) -> u64 {
    let n = (2.93 * standard_deviation / x).powi(2) + 2.0;
    n.ceil().min(1e6) as u64
}

#[cfg(test)]
mod tests;
