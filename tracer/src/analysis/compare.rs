//! Whether a change did anything: phases under the old and the new setting go
//! in, verdicts come out (docs/statistics.md, "How a verdict is reached").
//!
//! The unit is a phase, never an instant within one: instants remember each
//! other. What may decide is chosen before anything was measured; everything
//! else can only be "also moved". Nothing here knows where phases come from.

mod attribution;
mod evidence;
mod judge;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::metric::{self, Better};
use super::phase::{Check, Phase};
use crate::knowledge::sysctls::Version;

pub const SCHEMA: &str = "twtrace.comparison/1";

/// Primary metrics at most: each one more makes all of them harder to decide.
pub const PRIMARIES: usize = 3;

/// What is chosen before anything is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub sysctls_changed: Vec<SysctlChanged>,
    /// Metrics that decide, at most [`PRIMARIES`].
    pub primary: Vec<String>,
    /// Margins other than the metric's own.
    pub margins: BTreeMap<String, f64>,
    /// Of the kernel that was measured, where what it has matters.
    pub kernel: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SysctlChanged {
    /// Inode number; absent where it is the same in all that were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub key: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// The phases, and how they came about.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// One after the other, two and two, in an order by lot.
    Pairs {
        pairs: Vec<Pair>,
        measured_s: f64,
        settle_s: f64,
        seed: u64,
    },
    /// All at once, some of them changed, by lot.
    Parallel {
        replicas: Vec<Replica>,
        measured_s: f64,
        settle_s: f64,
        seed: u64,
    },
    /// One switch that somebody made: what lies before it says how far two
    /// stretches differ that nothing came between.
    Switch {
        before: Phase,
        after: Phase,
        placebos: Vec<[Phase; 2]>,
        measured_s: f64,
        settle_s: f64,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub before: Phase,
    pub after: Phase,
    /// Whether the changed phase came first.
    pub changed_first: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub phase: Phase,
    pub changed: bool,
}

/// `twtrace.comparison/1`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub schema: &'static str,
    pub design: Design,
    pub sysctls_changed: Vec<SysctlChanged>,
    /// The primary ones first.
    pub metrics: Vec<Compared>,
    pub verdict: Verdict,
    /// Why the verdict is withheld, in sentences; empty: it is not.
    pub withheld: Vec<String>,
    /// What has to be known beside the verdict, in sentences.
    pub notes: Vec<String>,
    /// In the order in which they were taken.
    pub phases: Vec<PhaseReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Design {
    Pairs {
        pairs: usize,
        measured_s: f64,
        settle_s: f64,
        /// `BA AB …`: A is before, B is changed.
        order: String,
        seed: u64,
    },
    Parallel {
        replicas: usize,
        changed: usize,
        measured_s: f64,
        settle_s: f64,
        /// `ABBA…`: A is before, B is changed.
        order: String,
        seed: u64,
        /// How far replicas of one setting differ in connections a second, as
        /// a part of them: one standard deviation.
        #[serde(skip_serializing_if = "Option::is_none")]
        noise: Option<f64>,
    },
    Switch {
        placebos: usize,
        measured_s: f64,
        settle_s: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    Secondary,
}

/// Of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Lower,
    Higher,
    Unchanged,
    TooSmallToMatter,
    Undecided,
    NotComparable,
}

/// Of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Better,
    Worse,
    /// Something moved that is neither better nor worse in itself.
    Changed,
    Unchanged,
    Undecided,
}

impl Verdict {
    /// 0 decided and not worse, 1 worse, 3 undecided.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Better | Verdict::Changed | Verdict::Unchanged => 0,
            Verdict::Worse => 1,
            Verdict::Undecided => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub name: String,
    pub unit: &'static str,
    pub role: Role,
    pub better: Better,
    /// Means over the phases; of ratios, geometric ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    #[serde(flatten)]
    pub change: Option<Change>,
    pub margin: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// The same for one of several that were looked at: what is decided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_adjusted: Option<f64>,
    pub verdict: Finding,
    /// The verdict as a sentence says it.
    pub words: String,
    /// Where none was seen at all: at most so many per 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// How many more pairs, or replicas, would probably decide it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<u64>,
    /// Phase by phase; of pairs, the same place is the same pair.
    pub values: Values,
}

/// By the metric's scale; intervals of 95 %, and those of 90 % that lie inside
/// the margin where it is called unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Change {
    Ratio {
        ratio: f64,
        ratio_low: f64,
        ratio_high: f64,
        ratio_low_90: f64,
        ratio_high_90: f64,
    },
    Difference {
        difference: f64,
        difference_low: f64,
        difference_high: f64,
        difference_low_90: f64,
        difference_high_90: f64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Values {
    pub before: Vec<Option<f64>>,
    pub after: Vec<Option<f64>>,
    /// Before one switch: pairs of stretches that nothing came between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placebos: Vec<[Option<f64>; 2]>,
}

/// What stands beside the verdict of each phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    pub name: String,
    pub changed: bool,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_wait_live_mean: Option<f64>,
    pub checks: Vec<Check>,
}

/// What the phases say.
#[must_use]
pub fn compare(plan: &Plan, trial: &Trial) -> Comparison {
    let metrics = judge::metrics(plan, trial);
    let phases = reports(trial);
    let withheld = disagreements(&phases);
    let verdict = if withheld.is_empty() {
        judge::whole(&metrics)
    } else {
        Verdict::Undecided
    };
    Comparison {
        schema: SCHEMA,
        design: trial.design(),
        sysctls_changed: plan.sysctls_changed.clone(),
        notes: attribution::notes(plan, &metrics),
        metrics,
        verdict,
        withheld,
        phases,
    }
}

impl Comparison {
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Compared> {
        self.metrics
            .iter()
            .filter(move |metric| metric.role == role)
    }
}

impl Trial {
    /// All phases in the order in which they were taken, and whether each was changed.
    #[must_use]
    pub fn phases(&self) -> Vec<(&Phase, bool)> {
        match self {
            Trial::Pairs { pairs, .. } => pairs
                .iter()
                .flat_map(|pair| {
                    let mut both = [(&pair.before, false), (&pair.after, true)];
                    if pair.changed_first {
                        both.reverse();
                    }
                    both
                })
                .collect(),
            Trial::Parallel { replicas, .. } => replicas
                .iter()
                .map(|replica| (&replica.phase, replica.changed))
                .collect(),
            Trial::Switch {
                before,
                after,
                placebos,
                ..
            } => placebos
                .iter()
                .flatten()
                .map(|phase| (phase, false))
                .chain([(before, false), (after, true)])
                .collect(),
        }
    }

    fn design(&self) -> Design {
        let letter = |changed: bool| if changed { 'B' } else { 'A' };
        match *self {
            Trial::Pairs {
                ref pairs,
                measured_s,
                settle_s,
                seed,
            } => Design::Pairs {
                pairs: pairs.len(),
                measured_s,
                settle_s,
                order: pairs
                    .iter()
                    .map(|pair| if pair.changed_first { "BA" } else { "AB" })
                    .collect::<Vec<_>>()
                    .join(" "),
                seed,
            },
            Trial::Parallel {
                ref replicas,
                measured_s,
                settle_s,
                seed,
            } => Design::Parallel {
                replicas: replicas.len(),
                changed: replicas.iter().filter(|replica| replica.changed).count(),
                measured_s,
                settle_s,
                order: replicas.iter().map(|r| letter(r.changed)).collect(),
                seed,
                noise: evidence::noise(self),
            },
            Trial::Switch {
                ref placebos,
                measured_s,
                settle_s,
                ..
            } => Design::Switch {
                placebos: placebos.len(),
                measured_s,
                settle_s,
            },
        }
    }

    /// The names of all that was read, in the order in which they are told.
    fn metric_names(&self) -> Vec<&str> {
        let phases = self.phases();
        let names: BTreeSet<(usize, &str)> = phases
            .iter()
            .flat_map(|(phase, _)| phase.readings.keys())
            .map(|name| metric::order(name))
            .collect();
        names.into_iter().map(|(_, name)| name).collect()
    }
}

fn reports(trial: &Trial) -> Vec<PhaseReport> {
    let report = |(phase, changed): (&Phase, bool)| PhaseReport {
        name: phase.name.clone(),
        changed,
        seconds: phase.seconds,
        connections_per_s: phase.value("connections_per_s"),
        time_wait_live_mean: phase.value("time_wait_live_mean"),
        checks: phase.checks.clone(),
    };
    trial.phases().into_iter().map(report).collect()
}

/// One sentence for each check that failed, and in which phases.
fn disagreements(phases: &[PhaseReport]) -> Vec<String> {
    let mut by_check: BTreeMap<&str, Vec<(&PhaseReport, &Check)>> = BTreeMap::new();
    for phase in phases {
        for check in phase.checks.iter().filter(|check| !check.agrees) {
            by_check.entry(check.name).or_default().push((phase, check));
        }
    }
    let sentence = |failed: Vec<(&PhaseReport, &Check)>| {
        let (phase, check) = failed.first()?;
        let more = match failed.len() - 1 {
            0 => String::new(),
            n => format!(" (and in {n} more)"),
        };
        Some(words::disagreement(&phase.name, check) + &more + ".")
    };
    by_check.into_values().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests;
