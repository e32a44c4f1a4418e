//! From the phases of a trial to one metric's difference: on which scale it is
//! taken, what the estimate is, and what chance alone would have made of it.

use super::super::metric::{Metric, Scale};
use super::super::phase::{Phase, Reading};
use super::super::stats::{self, Estimate};
use super::super::switch;
use super::{Trial, Values};
use crate::units;

/// How values become numbers whose differences are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ruler {
    /// Logarithms: a difference is a ratio.
    Log,
    /// Parts of this value: a ratio where some value is 0.
    PartsOf(f64),
    /// As they are.
    Plain,
}

impl Ruler {
    fn measure(self, value: f64) -> f64 {
        match self {
            Ruler::Log => value.ln(),
            Ruler::PartsOf(whole) => value / whole,
            Ruler::Plain => value,
        }
    }

    /// A difference as a ratio, or as it is.
    pub(super) fn tell(self, difference: f64) -> f64 {
        match self {
            Ruler::Log => difference.exp(),
            Ruler::PartsOf(_) => 1.0 + difference,
            Ruler::Plain => difference,
        }
    }

    pub(super) fn is_ratio(self) -> bool {
        self != Ruler::Plain
    }

    /// Where a difference begins to matter, below and above.
    pub(super) fn margin(self, margin: f64) -> (f64, f64) {
        match self {
            Ruler::Log => ((1.0 - margin).max(f64::MIN_POSITIVE).ln(), margin.ln_1p()),
            Ruler::PartsOf(_) | Ruler::Plain => (-margin, margin),
        }
    }
}

/// One metric's difference.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) ruler: Ruler,
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) estimate: Estimate,
    /// Under every rearrangement, the real one first; empty where there are none.
    pub(super) rearranged: Vec<f64>,
    /// Standard deviation of pair differences, or what stands for it.
    pub(super) spread: f64,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Missing {
    /// As a clause.
    NotComparable(String),
    /// It was 0 throughout; of how many, in the arm with fewer.
    NoneSeen { of: u64 },
}

/// Whether the trial has so few phases that not even the most extreme outcome
/// could be told from chance.
pub(super) fn is_only_an_estimate(trial: &Trial) -> bool {
    let ways = match trial {
        Trial::Pairs { pairs, .. } => 1_u64 << pairs.len().min(20),
        Trial::Parallel { replicas, .. } => {
            let chosen: Vec<bool> = replicas.iter().map(|replica| replica.changed).collect();
            stats::splits(&chosen).len() as u64
        }
        Trial::Switch { placebos, .. } => return placebos.len() < switch::ENOUGH,
    };
    2.0 / ways as f64 > stats::ALPHA
}

/// Phase by phase.
pub(super) fn values(trial: &Trial, name: &str) -> Values {
    let of = |phase: &Phase| phase.value(name);
    match trial {
        Trial::Pairs { pairs, .. } => Values {
            before: pairs.iter().map(|pair| of(&pair.before)).collect(),
            after: pairs.iter().map(|pair| of(&pair.after)).collect(),
            placebos: Vec::new(),
        },
        Trial::Parallel { replicas, .. } => {
            let arm = |changed: bool| {
                let arm = replicas.iter().filter(|r| r.changed == changed);
                arm.map(|replica| of(&replica.phase)).collect()
            };
            Values {
                before: arm(false),
                after: arm(true),
                placebos: Vec::new(),
            }
        }
        Trial::Switch {
            before,
            after,
            placebos,
            ..
        } => Values {
            before: vec![of(before)],
            after: vec![of(after)],
            placebos: placebos.iter().map(|[a, b]| [of(a), of(b)]).collect(),
        },
    }
}

pub(super) fn of(
    trial: &Trial,
    name: &str,
    metric: &Metric,
    values: &Values,
) -> Result<Evidence, Missing> {
    let all_of = |values: &[Option<f64>]| values.iter().copied().collect::<Option<Vec<f64>>>();
    let (Some(before), Some(after)) = (all_of(&values.before), all_of(&values.after)) else {
        return Err(Missing::NotComparable(unknown_in(trial, name, metric)));
    };
    let placebos: Vec<[f64; 2]> = values
        .placebos
        .iter()
        .filter_map(|[a, b]| a.zip(*b).map(|(a, b)| [a, b]))
        .collect();
    let all = || before.iter().chain(&after).chain(placebos.iter().flatten());
    if before.is_empty() || after.is_empty() {
        return Err(Missing::NotComparable(
            "one side was not measured".to_owned(),
        ));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let ruler = match metric.scale {
        Scale::Ratio if all().all(|value| *value > 0.0) => Ruler::Log,
        Scale::Ratio if mean(&before) > 0.0 => Ruler::PartsOf(mean(&before)),
        Scale::Ratio if all().all(|value| *value == 0.0) => {
            return Err(Missing::NotComparable(format!(
                "there were no {}",
                metric.of
            )));
        }
        Scale::Ratio => {
            let why = format!("there were no {} before", metric.of);
            return Err(Missing::NotComparable(why));
        }
        Scale::PerThousand if all().all(|value| *value == 0.0) => {
            return Err(Missing::NoneSeen {
                of: fewest(trial, name),
            });
        }
        Scale::PerThousand | Scale::Points => Ruler::Plain,
    };
    let centre = |values: &[f64]| match ruler {
        Ruler::Log => mean(&values.iter().map(|v| v.ln()).collect::<Vec<_>>()).exp(),
        _ => mean(values),
    };
    let (estimate, rearranged, spread) = weigh(trial, name, ruler, &before, &after, &placebos)
        .ok_or_else(|| Missing::NotComparable("there are too few phases".to_owned()))?;
    Ok(Evidence {
        ruler,
        before: centre(&before),
        after: centre(&after),
        estimate,
        rearranged,
        spread,
    })
}

fn weigh(
    trial: &Trial,
    name: &str,
    ruler: Ruler,
    before: &[f64],
    after: &[f64],
    placebos: &[[f64; 2]],
) -> Option<(Estimate, Vec<f64>, f64)> {
    let numbers =
        |values: &[f64]| -> Vec<f64> { values.iter().map(|&value| ruler.measure(value)).collect() };
    let (first, second) = (numbers(before), numbers(after));
    match trial {
        Trial::Pairs { .. } => {
            let differences: Vec<f64> = second.iter().zip(&first).map(|(b, a)| b - a).collect();
            let rearranged = stats::flips(differences.len())
                .iter()
                .map(|way| stats::t_of_flip(&differences, way))
                .collect();
            let spread = stats::standard_deviation(&differences)?;
            Some((Estimate::of(&differences)?, rearranged, spread))
        }
        Trial::Parallel { replicas, .. } => {
            let chosen: Vec<bool> = replicas.iter().map(|replica| replica.changed).collect();
            let values: Option<Vec<f64>> = replicas
                .iter()
                .map(|replica| replica.phase.value(name).map(|value| ruler.measure(value)))
                .collect();
            let values = values?;
            let rearranged = stats::splits(&chosen)
                .iter()
                .map(|way| stats::t_of_split(&values, way))
                .collect();
            let estimate = Estimate::between(&first, &second)?;
            // Two of them are a pair whose difference has twice the variance.
            let within = [&first, &second].map(|arm| stats::standard_deviation(arm));
            let spread = (within[0]?.powi(2) + within[1]?.powi(2)).sqrt();
            Some((estimate, rearranged, spread))
        }
        Trial::Switch { .. } => {
            let differences: Vec<f64> = placebos
                .iter()
                .map(|[a, b]| ruler.measure(*b) - ruler.measure(*a))
                .collect();
            let estimate = Estimate::against(second[0] - first[0], &differences)?;
            Some((estimate, Vec::new(), estimate.standard_error))
        }
    }
}

/// How far replicas of one setting differ in the load they bear, as a part of it.
pub(super) fn noise(trial: &Trial) -> Option<f64> {
    let values = values(trial, "connections_per_s");
    let within = |arm: &[Option<f64>]| {
        let logs: Vec<f64> = arm.iter().flatten().map(|value| value.ln()).collect();
        stats::standard_deviation(&logs).filter(|noise| noise.is_finite())
    };
    let (before, after) = (within(&values.before)?, within(&values.after)?);
    Some(f64::midpoint(before.powi(2), after.powi(2)).sqrt())
}

/// What a metric was taken over, in the arm where it is fewer.
fn fewest(trial: &Trial, name: &str) -> u64 {
    let of = |changed: bool| -> u64 {
        let phases = trial.phases().into_iter().filter(|(_, c)| *c == changed);
        phases
            .filter_map(|(phase, _)| phase.readings.get(name))
            .map(|Reading { of, .. }| of)
            .sum()
    };
    of(false).min(of(true))
}

/// A clause: in how many phases a metric could not be told.
fn unknown_in(trial: &Trial, name: &str, metric: &Metric) -> String {
    let phases = trial.phases();
    let unknown: Vec<&Phase> = phases
        .iter()
        .filter(|(phase, _)| phase.value(name).is_none())
        .map(|(phase, _)| *phase)
        .collect();
    let seen: u64 = unknown
        .iter()
        .filter_map(|phase| phase.readings.get(name))
        .map(|Reading { of, .. }| of)
        .sum();
    let which = match unknown.as_slice() {
        all if all.len() == phases.len() => "any phase".to_owned(),
        [one] => one.name.clone(),
        some => format!("{} of {} phases", some.len(), phases.len()),
    };
    match seen {
        0 => format!("there were no {} in {which}", metric.of),
        seen => format!(
            "too few {} in {which} to tell: {}",
            metric.of,
            units::count(seen)
        ),
    }
}
