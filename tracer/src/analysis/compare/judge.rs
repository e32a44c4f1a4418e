//! What a difference amounts to: of each metric, and of the whole.

use super::super::metric::{self, Better, Metric, Scale};
use super::super::stats::{self, Chance};
use super::evidence::{self, Evidence, Missing};
use super::{Change, Compared, Finding, Plan, Role, Trial, Values, Verdict, words};

/// Of a share of what there was, for failures that are not rare.
const NOT_RARE: f64 = 0.10;

struct Case {
    name: String,
    role: Role,
    metric: Metric,
    values: Values,
    evidence: Result<Evidence, Missing>,
}

pub(super) fn metrics(plan: &Plan, trial: &Trial) -> Vec<Compared> {
    let names = trial.metric_names();
    let primary: Vec<&str> = plan
        .primary
        .iter()
        .map(String::as_str)
        .take(super::PRIMARIES)
        .collect();
    let others = names.iter().copied().filter(|name| !primary.contains(name));
    let cases: Vec<Case> = primary
        .iter()
        .map(|name| Case::new(plan, trial, name, Role::Primary))
        .chain(
            others
                .map(|name| Case::new(plan, trial, name, Role::Secondary))
                .filter(Case::is_worth_telling),
        )
        .collect();
    let chances = chances(trial, &cases);
    let only_an_estimate = evidence::is_only_an_estimate(trial);
    cases
        .into_iter()
        .zip(chances)
        .map(|(case, chance)| case.judged(trial, chance, only_an_estimate))
        .collect()
}

/// How likely chance alone is, in the order of the cases. Those that decide
/// are taken together, and so are the others.
fn chances(trial: &Trial, cases: &[Case]) -> Vec<Option<Chance>> {
    let mut chances = vec![None; cases.len()];
    let of_role = |role: Role| -> Vec<(usize, &Evidence)> {
        let told = cases
            .iter()
            .enumerate()
            .filter(|(_, case)| case.role == role);
        told.filter_map(|(i, case)| Some((i, case.evidence.as_ref().ok()?)))
            .collect()
    };
    let by_t = |told: &[(usize, &Evidence)]| -> Vec<f64> {
        told.iter().map(|(_, e)| e.estimate.p()).collect()
    };
    let primary = of_role(Role::Primary);
    let found = if matches!(trial, Trial::Switch { .. }) {
        let ps = by_t(&primary);
        zipped(&ps, stats::holm(&ps))
    } else {
        let rows: Vec<Vec<f64>> = primary.iter().map(|(_, e)| e.rearranged.clone()).collect();
        stats::step_down(&rows)
    };
    for ((i, _), chance) in primary.iter().zip(found) {
        chances[*i] = Some(chance);
    }
    let others = of_role(Role::Secondary);
    let ps = by_t(&others);
    for ((i, _), chance) in others
        .iter()
        .zip(zipped(&ps, stats::benjamini_hochberg(&ps)))
    {
        chances[*i] = Some(chance);
    }
    chances
}

fn zipped(ps: &[f64], adjusted: Vec<f64>) -> Vec<Chance> {
    ps.iter()
        .zip(adjusted)
        .map(|(&p, adjusted)| Chance { p, adjusted })
        .collect()
}

impl Case {
    fn new(plan: &Plan, trial: &Trial, name: &str, role: Role) -> Case {
        let mut metric = metric::of(name);
        if let Some(margin) = plan.margins.get(name) {
            metric.margin = *margin;
        }
        let values = evidence::values(trial, name);
        let evidence = evidence::of(trial, name, &metric, &values);
        if let (Scale::PerThousand, Ok(found)) = (metric.scale, &evidence) {
            metric.margin = metric.margin.max(NOT_RARE * found.before);
        }
        Case {
            name: name.to_owned(),
            role,
            metric,
            values,
            evidence,
        }
    }

    /// Reasons nobody ended by and failures that did not happen are not told
    /// where nothing hangs on them.
    fn is_worth_telling(&self) -> bool {
        let told = self.values.before.iter().chain(&self.values.after);
        told.flatten().any(|value| *value != 0.0)
    }

    fn judged(self, trial: &Trial, chance: Option<Chance>, only_an_estimate: bool) -> Compared {
        let mut compared = Compared {
            name: self.name,
            unit: self.metric.unit,
            role: self.role,
            better: self.metric.better,
            before: None,
            after: None,
            change: None,
            margin: self.metric.margin,
            p: chance.map(|chance| chance.p),
            p_adjusted: chance.map(|chance| chance.adjusted),
            verdict: Finding::NotComparable,
            words: String::new(),
            at_most: None,
            more: None,
            values: self.values,
        };
        match self.evidence {
            Err(Missing::NotComparable(why)) => compared.words = words::not_comparable(&why),
            Err(Missing::NoneSeen { of: 0 }) => {
                let why = format!("there were no {}", self.metric.of);
                compared.words = words::not_comparable(&why);
            }
            Err(Missing::NoneSeen { of }) => {
                let at_most = 1000.0 * stats::rule_of_three(of);
                compared.before = Some(0.0);
                compared.after = Some(0.0);
                compared.at_most = Some(at_most);
                compared.verdict = if at_most <= self.metric.margin && !only_an_estimate {
                    Finding::Unchanged
                } else {
                    Finding::Undecided
                };
                compared.words = words::none_seen(at_most, of, self.metric.of);
            }
            Ok(evidence) => {
                compared.before = Some(evidence.before);
                compared.after = Some(evidence.after);
                compared.change = Some(change(&evidence));
                let adjusted = chance.map_or(1.0, |chance| chance.adjusted);
                compared.verdict = if only_an_estimate {
                    Finding::Undecided
                } else {
                    finding(&evidence, self.metric.margin, adjusted)
                };
                if compared.verdict == Finding::Undecided {
                    compared.more = more(trial, &evidence, self.metric.margin);
                }
                compared.words = words::of(&compared, trial, only_an_estimate);
            }
        }
        compared
    }
}

fn finding(evidence: &Evidence, margin: f64, adjusted: f64) -> Finding {
    let (low, high) = evidence.estimate.interval(0.95);
    // Chance has to be unlikely by the test and by the interval that is shown.
    let moved = adjusted <= stats::ALPHA && (low > 0.0 || high < 0.0);
    let (low, high) = evidence.estimate.interval(0.90);
    let (below, above) = evidence.ruler.margin(margin);
    let within = below < low && high < above;
    match (moved, within) {
        (true, true) => Finding::TooSmallToMatter,
        (true, false) if evidence.estimate.mean < 0.0 => Finding::Lower,
        (true, false) => Finding::Higher,
        (false, true) => Finding::Unchanged,
        (false, false) => Finding::Undecided,
    }
}

fn change(evidence: &Evidence) -> Change {
    let ruler = evidence.ruler;
    let value = ruler.tell(evidence.estimate.mean);
    let ends = |confidence: f64| {
        let (low, high) = evidence.estimate.interval(confidence);
        // Nothing falls by more than all of it.
        let floor = if ruler.is_ratio() { 0.0 } else { f64::MIN };
        (ruler.tell(low).max(floor), ruler.tell(high))
    };
    let ((low, high), (low_90, high_90)) = (ends(0.95), ends(0.90));
    if ruler.is_ratio() {
        Change::Ratio {
            ratio: value,
            ratio_low: low,
            ratio_high: high,
            ratio_low_90: low_90,
            ratio_high_90: high_90,
        }
    } else {
        Change::Difference {
            difference: value,
            difference_low: low,
            difference_high: high,
            difference_low_90: low_90,
            difference_high_90: high_90,
        }
    }
}

/// Pairs or replicas beyond those there are.
fn more(trial: &Trial, evidence: &Evidence, margin: f64) -> Option<u64> {
    let (_, matters) = evidence.ruler.margin(margin);
    let needed = stats::pairs_needed(evidence.spread, matters);
    match trial {
        Trial::Pairs { pairs, .. } => Some(needed.saturating_sub(pairs.len() as u64).max(1)),
        Trial::Parallel { replicas, .. } => {
            let more = (2 * needed).saturating_sub(replicas.len() as u64);
            Some(more.max(2))
        }
        Trial::Switch { .. } => None,
    }
}

/// The primary metrics alone decide. Where one is worse, no other makes it good.
pub(super) fn whole(metrics: &[Compared]) -> Verdict {
    let primary = || metrics.iter().filter(|metric| metric.role == Role::Primary);
    let news = |metric: &Compared| match (metric.verdict, metric.better) {
        (Finding::Higher, Better::Higher) | (Finding::Lower, Better::Lower) => {
            Some(Verdict::Better)
        }
        (Finding::Higher, Better::Lower) | (Finding::Lower, Better::Higher) => Some(Verdict::Worse),
        (Finding::Higher | Finding::Lower, Better::Neither) => Some(Verdict::Changed),
        _ => None,
    };
    let any = |verdict: Verdict| primary().any(|metric| news(metric) == Some(verdict));
    for verdict in [Verdict::Worse, Verdict::Better, Verdict::Changed] {
        if any(verdict) {
            return verdict;
        }
    }
    let mut comparable = primary()
        .filter(|metric| metric.verdict != Finding::NotComparable)
        .peekable();
    let settled = |metric: &Compared| {
        matches!(
            metric.verdict,
            Finding::Unchanged | Finding::TooSmallToMatter
        )
    };
    if comparable.peek().is_some() && comparable.all(settled) {
        Verdict::Unchanged
    } else {
        Verdict::Undecided
    }
}
