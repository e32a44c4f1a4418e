//! What the changed keys can and cannot have done: chosen metrics before a
//! comparison, and doubts after it where something moved that they do not move.

use std::collections::{BTreeMap, HashSet};

use super::{Compared, Finding, Plan, SysctlChanged};
use crate::knowledge::sysctls::{self, Sysctl, Version, metric};
use crate::units;

/// In the lab, where the load is steady: what no change of the keys can move is
/// called unchanged only where it is so within a hundredth.
const TIGHT: f64 = 0.01;

impl Plan {
    /// What decides where these keys were changed.
    #[must_use]
    pub fn of(sysctls_changed: Vec<SysctlChanged>, kernel: Version) -> Plan {
        let keys = sysctls_changed.iter().map(|change| change.key.as_str());
        let primary = sysctls::primary_metrics(keys);
        Plan {
            primary: primary.into_iter().map(str::to_owned).collect(),
            sysctls_changed,
            margins: BTreeMap::new(),
            kernel: Some(kernel),
        }
    }

    /// The same for replicas under a load of our own.
    #[must_use]
    pub fn in_the_lab(sysctls_changed: Vec<SysctlChanged>, kernel: Version) -> Plan {
        let mut plan = Plan::of(sysctls_changed, kernel);
        let known = plan.known();
        let all_known = known.len() == plan.keys().len();
        if all_known && !known.is_empty() && able(&known, metric::LIFE).is_empty() {
            plan.margins.insert(metric::LIFE.to_owned(), TIGHT);
        }
        plan
    }

    /// Each key once, in their order.
    fn keys(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let keys = self.sysctls_changed.iter().map(|change| &*change.key);
        keys.filter(|key| seen.insert(*key)).collect()
    }

    fn known(&self) -> Vec<&'static Sysctl> {
        self.keys().into_iter().filter_map(sysctls::find).collect()
    }
}

/// Those that can move a metric, and under which condition alone.
fn able(known: &[&'static Sysctl], metric: &str) -> Vec<(&'static Sysctl, Option<&'static str>)> {
    known
        .iter()
        .filter_map(|sysctl| Some((*sysctl, sysctl.effect_on(metric)?.only)))
        .collect()
}

/// Whole sentences.
pub(super) fn notes(plan: &Plan, metrics: &[Compared]) -> Vec<String> {
    const TOLD: usize = 10;
    let known = plan.known();
    let mut notes = Vec::new();
    let mut unknown = 0;
    for key in plan.keys() {
        match sysctls::find(key) {
            None if unknown < TOLD => {
                unknown += 1;
                notes.push(format!(
                    "{key} was not studied: what it can move is not known here."
                ));
            }
            None => unknown += 1,
            Some(sysctl) => {
                notes.extend(plan.kernel.and_then(|kernel| sysctl.absent_from(kernel)));
            }
        }
    }
    if unknown > TOLD {
        notes.push(format!(
            "Nor were {} others.",
            units::count(unknown as u64 - TOLD as u64)
        ));
    }
    // What is not known of one key may have moved anything.
    if known.len() == plan.keys().len() && !known.is_empty() {
        let moved = metrics
            .iter()
            .filter(|metric| matches!(metric.verdict, Finding::Lower | Finding::Higher));
        notes.extend(moved.filter_map(|metric| doubt(&known, &metric.name)));
    }
    notes
}

/// Where what moved cannot come from the keys, or only in a special case.
fn doubt(known: &[&'static Sysctl], metric: &str) -> Option<String> {
    let able = able(known, metric);
    let keys = |known: &[&'static Sysctl]| {
        let keys: Vec<&str> = known.iter().map(|sysctl| sysctl.key()).collect();
        keys.join(" or ")
    };
    if able.is_empty() {
        return Some(format!(
            "{metric} moved, but not by {}, which cannot move it: look for what else changed.",
            keys(known)
        ));
    }
    let conditions: Option<Vec<String>> = able
        .iter()
        .map(|(sysctl, only)| only.map(|only| format!("{} can do so only {only}", sysctl.key())))
        .collect();
    conditions.map(|conditions| format!("{metric} moved: {}.", conditions.join("; ")))
}
