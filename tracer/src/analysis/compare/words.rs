//! How a finding is said (docs/statistics.md, "Words"). Never "no measurable
//! effect": that is what too little data would say too.

use super::super::phase::Check;
use super::{Change, Compared, Comparison, Finding, Role, Trial, Verdict};
use crate::units;

/// `lower by 12 % (8 to 16 %, 8 pairs)` and its like.
pub(super) fn of(compared: &Compared, trial: &Trial, only_an_estimate: bool) -> String {
    let Some(change) = compared.change else {
        return String::new();
    };
    let by = By::of(compared, change);
    let direction = if by.estimate < 0.0 { "lower" } else { "higher" };
    match compared.verdict {
        Finding::Lower | Finding::Higher => {
            let (near, far) = by.reach();
            format!(
                "{direction} by {} ({}, {})",
                by.told(by.estimate.abs()),
                by.span(near, far),
                phases(trial)
            )
        }
        Finding::TooSmallToMatter => format!(
            "{direction} by {}: too small to matter (margin {})",
            by.told(by.estimate.abs()),
            by.told(by.margin)
        ),
        Finding::Unchanged => format!(
            "unchanged within ±{} ({})",
            by.told(by.margin),
            by.signed_span(by.low_90, by.high_90)
        ),
        Finding::Undecided if only_an_estimate => format!(
            "undecided: {}; an estimate from {}, too few for a verdict",
            by.signed_span(by.low, by.high),
            phases(trial)
        ),
        Finding::Undecided => format!(
            "undecided: {}{}",
            by.signed_span(by.low, by.high),
            more(compared, trial)
        ),
        Finding::NotComparable => String::new(),
    }
}

pub(super) fn not_comparable(why: &str) -> String {
    format!("not comparable: {why}")
}

pub(super) fn none_seen(at_most: f64, of: u64, what: &str) -> String {
    format!(
        "none seen: at most {} in 1,000 ({} {what})",
        number(at_most),
        units::count(of)
    )
}

/// A clause without its full stop.
pub(super) fn disagreement(phase: &str, check: &Check) -> String {
    format!(
        "{} do not agree in {phase}: {} seen, {} expected",
        check.name,
        number(check.seen),
        number(check.expected)
    )
}

/// `8 pairs`, `4 and 4 replicas`, `6 placebos`.
#[must_use]
pub fn phases(trial: &Trial) -> String {
    match trial {
        Trial::Pairs { pairs, .. } => units::counted(pairs.len() as u64, "pair", "pairs"),
        Trial::Parallel { replicas, .. } => {
            let changed = replicas.iter().filter(|replica| replica.changed).count();
            format!("{} and {changed} replicas", replicas.len() - changed)
        }
        Trial::Switch { placebos, .. } => {
            units::counted(placebos.len() as u64, "placebo", "placebos")
        }
    }
}

/// `; about 9 more pairs, 32 min`.
fn more(compared: &Compared, trial: &Trial) -> String {
    let Some(more) = compared.more else {
        return "; a longer recording before the change would tell more".to_owned();
    };
    match trial {
        Trial::Pairs {
            measured_s,
            settle_s,
            ..
        } => {
            let pair_s = 2.0 * (measured_s + settle_s);
            format!(
                "; about {} more {}, {}",
                units::count(more),
                if more == 1 { "pair" } else { "pairs" },
                units::roughly(more as f64 * pair_s)
            )
        }
        _ => format!("; about {} more replicas", units::count(more)),
    }
}

/// A change in per cent, points, or failures per 1,000.
struct By {
    estimate: f64,
    low: f64,
    high: f64,
    low_90: f64,
    high_90: f64,
    margin: f64,
    unit: &'static str,
}

impl By {
    fn of(compared: &Compared, change: Change) -> By {
        match change {
            Change::Ratio {
                ratio,
                ratio_low,
                ratio_high,
                ratio_low_90,
                ratio_high_90,
            } => By {
                estimate: 100.0 * (ratio - 1.0),
                low: 100.0 * (ratio_low - 1.0),
                high: 100.0 * (ratio_high - 1.0),
                low_90: 100.0 * (ratio_low_90 - 1.0),
                high_90: 100.0 * (ratio_high_90 - 1.0),
                margin: 100.0 * compared.margin,
                unit: "%",
            },
            Change::Difference {
                difference,
                difference_low,
                difference_high,
                difference_low_90,
                difference_high_90,
            } => {
                let (scale, unit) = match compared.unit {
                    "share" => (100.0, "points"),
                    "1/1000" => (1.0, "in 1,000"),
                    unit => (1.0, unit),
                };
                By {
                    estimate: scale * difference,
                    low: scale * difference_low,
                    high: scale * difference_high,
                    low_90: scale * difference_low_90,
                    high_90: scale * difference_high_90,
                    margin: scale * compared.margin,
                    unit,
                }
            }
        }
    }

    fn told(&self, x: f64) -> String {
        format!("{} {}", number(x), self.unit)
    }

    /// The interval as distances from no change, the nearer first.
    fn reach(&self) -> (f64, f64) {
        if self.estimate < 0.0 {
            (-self.high, -self.low)
        } else {
            (self.low, self.high)
        }
    }

    fn span(&self, low: f64, high: f64) -> String {
        format!("{} to {} {}", number(low), number(high), self.unit)
    }

    fn signed_span(&self, low: f64, high: f64) -> String {
        format!("{} to {} {}", signed(low), signed(high), self.unit)
    }
}

/// Two figures below 10, whole ones above.
#[must_use]
pub fn number(x: f64) -> String {
    let size = x.abs();
    if size < 0.0005 {
        "0".to_owned()
    } else {
        let decimals = match size {
            _ if size < 0.095 => 3,
            _ if size < 0.95 => 2,
            _ if size < 9.95 => 1,
            _ => 0,
        };
        let text = format!("{size:.decimals$}");
        let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
        let rest = rest.trim_end_matches('0');
        let whole = units::count(whole.parse().unwrap_or(u64::MAX));
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if x < 0.0 { "−" } else { "" };
        format!("{sign}{whole}{point}{rest}")
    }
}

fn signed(x: f64) -> String {
    if x > 0.0 {
        format!("+{}", number(x))
    } else {
        number(x)
    }
}

/// The verdict of the whole, and what it rests on.
#[must_use]
pub fn headline(comparison: &Comparison) -> String {
    let primary: Vec<&Compared> = comparison.of_role(Role::Primary).collect();
    let moved = |metric: &&&Compared| matches!(metric.verdict, Finding::Lower | Finding::Higher);
    let facts = |wanted: &dyn Fn(&&&Compared) -> bool| {
        let facts: Vec<String> = primary
            .iter()
            .filter(wanted)
            .map(|metric| format!("{} {}", metric.name, metric.words))
            .collect();
        facts.join("; ")
    };
    match comparison.verdict {
        _ if !comparison.withheld.is_empty() => {
            "No verdict: the figures contradict each other.".to_owned()
        }
        Verdict::Better => format!("Better: {}.", facts(&moved)),
        Verdict::Worse => format!("Worse: {}.", facts(&moved)),
        Verdict::Changed => format!(
            "Changed, which is neither better nor worse in itself: {}.",
            facts(&moved)
        ),
        Verdict::Unchanged => format!(
            "Unchanged: {}.",
            facts(&|metric| metric.verdict != Finding::NotComparable)
        ),
        Verdict::Undecided => format!("Undecided: {}.", facts(&|_| true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::compare::{Finding, Role, Values};
    use crate::analysis::metric::Better;

    fn compared(unit: &'static str) -> Compared {
        Compared {
            name: "it".to_owned(),
            unit,
            role: Role::Primary,
            better: Better::Higher,
            before: None,
            after: None,
            change: None,
            margin: 0.25,
            p: None,
            p_adjusted: None,
            verdict: Finding::Higher,
            words: String::new(),
            at_most: None,
            more: None,
            values: Values::default(),
        }
    }

    /// Estimate, the ends of both intervals, margin.
    fn figures(by: &By) -> [f64; 6] {
        [
            by.estimate,
            by.low,
            by.high,
            by.low_90,
            by.high_90,
            by.margin,
        ]
    }

    #[test]
    fn each_figure_of_a_change_is_in_its_unit() {
        let difference = Change::Difference {
            difference: 0.5,
            difference_low: 0.125,
            difference_high: 2.0,
            difference_low_90: 0.25,
            difference_high_90: 1.5,
        };
        let points = By::of(&compared("share"), difference);
        assert_eq!(figures(&points), [50.0, 12.5, 200.0, 25.0, 150.0, 25.0]);
        assert_eq!(points.unit, "points");
        let in_1000 = By::of(&compared("1/1000"), difference);
        assert_eq!(figures(&in_1000), [0.5, 0.125, 2.0, 0.25, 1.5, 0.25]);
        assert_eq!(in_1000.unit, "in 1,000");
        let ratio = Change::Ratio {
            ratio: 1.5,
            ratio_low: 0.5,
            ratio_high: 3.0,
            ratio_low_90: 1.25,
            ratio_high_90: 2.0,
        };
        let percent = By::of(&compared("/s"), ratio);
        assert_eq!(figures(&percent), [50.0, -50.0, 200.0, 25.0, 100.0, 25.0]);
        assert_eq!(percent.unit, "%");
    }
}
