//! A change that somebody made: two recordings, or one in which a sysctl
//! changed, as the trial that they amount to.
//!
//! What cannot be compared is refused, in sentences that say why and what to do.
//! It reads no file and knows no verdict.

use std::collections::{BTreeMap, HashSet};

use super::compare::{Plan, SysctlChanged, Trial};
use super::phase::{Phase, Witness};
use super::switch::{Span, windows};
use crate::knowledge::sysctls::{self, Bites, Version};
use crate::recording::{Reader, Recording, Stock, SysctlChange};
use crate::units;

/// 2MSL where no frame measured it, seconds.
const NOMINAL_S: f64 = 60.0;
/// Beyond the last TIME_WAIT of the old setting.
const BEYOND_S: f64 = 2.0;
/// Changes this close together are one, such as a file that `sysctl -p` applies.
const TOGETHER_S: f64 = 10.0;
/// Frames before a stretch whose births still live in it.
const HISTORY_S: f64 = 150.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    pub plan: Plan,
    pub trial: Trial,
    /// What has to be known beside the verdict, in sentences.
    pub notes: Vec<String>,
}

/// Why not, in sentences.
pub type Refused = Vec<String>;

/// One recording before and one after.
pub fn of_two(before: &Recording, after: &Recording) -> Result<Past, Refused> {
    let refused = differences(before, after);
    if !refused.is_empty() {
        return Err(refused);
    }
    let gap_s = after.header.time.as_second() as f64 - ends_at(before);
    if gap_s < -1.0 {
        return Err(vec![
            "the second recording begins before the first one ends: give the one from before the \
             change first"
                .to_owned(),
        ]);
    }
    let changed = changed_between(before, after);
    let settle_s = settle(before, &changed);
    let gap_s = gap_s.max(0.0);
    let mut notes = Vec::new();
    let mut first = whole(before);
    let mut second = whole(after);
    if let Some(change) = before.changes.last() {
        first.from = change.elapsed_s + settle_s;
        notes.push(within(change, "first", "after"));
    }
    if let Some(change) = after.changes.first() {
        second.to = change.unchanged_s;
        notes.push(within(change, "second", "before"));
    }
    second.from = second.from.max(settle_s - gap_s);
    notes.extend(cut_off(before, "first"));
    notes.extend(cut_off(after, "second"));
    if before.header.host.boot_id != after.header.host.boot_id {
        notes.push("The machine was booted between the two recordings.".to_owned());
    }
    if changed.is_empty() {
        notes.push(
            "No sysctl of a namespace that is in both differs: whatever moved was moved by \
             something else."
                .to_owned(),
        );
    }
    let apart = Apart {
        before: (before, first),
        after: (after, second),
        gap_s: gap_s + second.from,
        settle_s,
    };
    apart.past(changed, notes)
}

/// One recording, split where its sysctls changed or, `at`, seconds from its start.
pub fn of_one(recording: &Recording, at: Option<f64>) -> Result<Past, Refused> {
    let groups = together(&recording.changes);
    let chosen: &[SysctlChange] = match (at, groups.as_slice()) {
        (None, [only]) => only,
        (None, []) => {
            return Err(vec![
                "no sysctl changed while it was recorded: name the time of the change with --at, \
                 or give a second recording"
                    .to_owned(),
            ]);
        }
        (None, several) => {
            const TOLD: usize = 20;
            let mut times: Vec<String> = several.iter().take(TOLD).map(|g| told(g)).collect();
            if several.len() > TOLD {
                times.push("…".to_owned());
            }
            return Err(vec![format!(
                "sysctls changed {} times while it was recorded: choose one with --at: {}",
                several.len(),
                times.join("; ")
            )]);
        }
        (Some(at), groups) => groups
            .iter()
            .find(|group| near(group, at, recording.header.interval_s))
            .copied()
            .unwrap_or_default(),
    };
    let (begins, ends) = match (chosen.first(), chosen.last(), at) {
        // When between two readings it came, nobody saw.
        (Some(first), Some(last), _) => (first.unchanged_s, last.elapsed_s),
        (_, _, Some(at)) => (at, at),
        _ => return Err(vec!["no time is named".to_owned()]),
    };
    let mut changed: Vec<SysctlChanged> = Vec::new();
    for change in chosen {
        changed.push(SysctlChanged {
            netns: Some(change.netns),
            name: change.name.clone(),
            key: change.key.clone(),
            before: Some(change.before.clone()),
            after: Some(change.after.clone()),
        });
    }
    let settle_s = settle(recording, &changed);
    let all = whole(recording);
    if begins <= all.from || ends >= all.to {
        return Err(vec![format!(
            "that is outside of the recording, which goes from its start to {}",
            units::seconds(all.to)
        )]);
    }
    let mut first = Span {
        from: all.from,
        to: begins,
    };
    let mut second = Span {
        from: ends + settle_s,
        to: all.to,
    };
    for other in groups.iter().filter(|group| **group != chosen) {
        for change in *other {
            if change.elapsed_s <= begins {
                first.from = first.from.max(change.elapsed_s + settle_s);
            } else if change.elapsed_s > ends {
                second.to = second.to.min(change.unchanged_s);
            }
        }
    }
    let mut notes: Vec<String> = cut_off(recording, "").into_iter().collect();
    if changed.is_empty() {
        notes.push(
            "No sysctl in its scope changed at that time: whatever moved was moved by something \
             else."
                .to_owned(),
        );
    }
    let apart = Apart {
        before: (recording, first),
        after: (recording, second),
        gap_s: second.from - first.to,
        settle_s,
    };
    apart.past(changed, notes)
}

/// Two stretches, each of its recording's own clock.
struct Apart<'a> {
    before: (&'a Recording, Span),
    after: (&'a Recording, Span),
    gap_s: f64,
    settle_s: f64,
}

impl Apart<'_> {
    fn past(self, changed: Vec<SysctlChanged>, notes: Vec<String>) -> Result<Past, Refused> {
        let (recording, before) = self.before;
        let (later, after) = self.after;
        let windows = windows(before, after, self.gap_s).ok_or_else(|| {
            vec![format!(
                "too little to compare: {} before the change, and {} after it once {} of settling \
                 are over",
                units::seconds(before.length()),
                units::seconds(after.length()),
                units::edge(self.settle_s)
            )]
        })?;
        let release = &recording.header.host.kernel;
        let kernel = version(release);
        let witness = Witness {
            counters: recording.header.scope.filter.is_empty(),
            births: kernel >= (6, 1),
        };
        let phase = |of: &Reader<'_>, stocks: &[Stock], name: String, span: Span| {
            let [oldest, first, last] = frames_of(stocks, span);
            Phase::of(name, &stocks[oldest..first], of.range(first..last), witness)
        };
        let stocks = recording.frames.stocks();
        let reader = recording.frames.reader();
        let placebos = windows.placebos.iter().enumerate().map(|(i, pair)| {
            let mut half = 0;
            pair.map(|span| {
                half += 1;
                phase(&reader, stocks, format!("placebo {}.{half}", i + 1), span)
            })
        });
        Ok(Past {
            trial: Trial::Switch {
                placebos: placebos.collect(),
                before: phase(&reader, stocks, "before".to_owned(), windows.before),
                after: phase(
                    &later.frames.reader(),
                    later.frames.stocks(),
                    "after".to_owned(),
                    windows.after,
                ),
                measured_s: windows.measured_s,
                settle_s: self.settle_s,
            },
            plan: Plan::of(everywhere(recording, changed), kernel),
            notes,
        })
    }
}

/// The places of those whose middle lies in it, from and to, before which that of the
/// oldest whose births still live then.
fn frames_of(frames: &[Stock], span: Span) -> [usize; 3] {
    let middle = |frame: &Stock| frame.elapsed_s - frame.interval_s / 2.0;
    let first = frames.partition_point(|frame| middle(frame) < span.from);
    let last = frames.partition_point(|frame| middle(frame) < span.to);
    let oldest = frames.partition_point(|frame| middle(frame) < span.from - HISTORY_S);
    // The first frame is the seeding.
    let oldest = oldest.max(1).min(first);
    [oldest, first, last.max(first)]
}

/// All of it but the seeding.
fn whole(recording: &Recording) -> Span {
    let end = |frame: Option<&Stock>| frame.map_or(0.0, |frame| frame.elapsed_s);
    let stocks = recording.frames.stocks();
    Span {
        from: end(stocks.first()),
        to: end(stocks.last()),
    }
}

/// Seconds since the epoch.
fn ends_at(recording: &Recording) -> f64 {
    recording.header.time.as_second() as f64 + whole(recording).to
}

/// Until no socket of the old setting is left.
fn settle(recording: &Recording, changed: &[SysctlChanged]) -> f64 {
    let timer = recording.frames.last().map(|frame| frame.time_wait.timer);
    let timer = timer.unwrap_or_default();
    let life = timer.nominal_s.unwrap_or(NOMINAL_S) + timer.slack_s;
    let waits = changed
        .iter()
        .filter(|change| sysctls::find(&change.key).is_some_and(|s| s.bites == Bites::NextWait))
        .filter_map(|change| change.before.as_ref()?.parse::<f64>().ok())
        .fold(0.0, f64::max);
    life + BEYOND_S + waits.min(NOMINAL_S)
}

/// What keeps two recordings from being compared.
fn differences(before: &Recording, after: &Recording) -> Refused {
    let (a, b) = (&before.header, &after.header);
    let mut refused = Vec::new();
    let mut differ = |what: &str, one: &dyn ToString, other: &dyn ToString, why: &str| {
        let (one, other) = (one.to_string(), other.to_string());
        if one != other {
            let told = |text: &str| match text {
                "" => "none".to_owned(),
                text => text.to_owned(),
            };
            refused.push(format!(
                "the {what} is not the same ({} and {}): {why}",
                told(&one),
                told(&other)
            ));
        }
    };
    differ(
        "machine",
        &a.host.name,
        &b.host.name,
        "what differs between machines is not what a change did",
    );
    differ(
        "kernel",
        &a.host.kernel,
        &b.host.kernel,
        "another kernel changes more than a sysctl does",
    );
    differ(
        "kernel's HZ",
        &a.host.hz,
        &b.host.hz,
        "timers end at other times",
    );
    differ(
        "scope",
        &a.scope.netns,
        &b.scope.netns,
        "record both with the same --netns",
    );
    differ(
        "filter",
        &a.scope.filter,
        &b.scope.filter,
        "record both with the same filters",
    );
    differ(
        "interval",
        &a.interval_s,
        &b.interval_s,
        "record both with the same --interval",
    );
    for (recording, which) in [(before, "first"), (after, "second")] {
        if recording.frames.len() < 2 {
            refused.push(format!("the {which} recording holds no whole interval"));
        }
    }
    refused
}

fn changed_between(before: &Recording, after: &Recording) -> Vec<SysctlChanged> {
    let mut changed = Vec::new();
    let end = whole(before).to;
    for settings in after.settings_at_start() {
        let Some(earlier) = before.sysctls_at(settings.netns, end) else {
            continue;
        };
        let keys: std::collections::BTreeSet<&String> =
            earlier.keys().chain(settings.sysctls.keys()).collect();
        for key in keys {
            let (one, other) = (earlier.get(key), settings.sysctls.get(key));
            if one != other {
                changed.push(SysctlChanged {
                    netns: Some(settings.netns),
                    name: settings.name.clone(),
                    key: key.clone(),
                    before: one.cloned(),
                    after: other.cloned(),
                });
            }
        }
    }
    changed
}

/// What changed alike in every namespace is told once.
fn everywhere(recording: &Recording, changed: Vec<SysctlChanged>) -> Vec<SysctlChanged> {
    let mut alike: BTreeMap<(String, Option<String>, Option<String>), Vec<SysctlChanged>> =
        BTreeMap::new();
    for change in changed {
        let which = (
            change.key.clone(),
            change.before.clone(),
            change.after.clone(),
        );
        alike.entry(which).or_default().push(change);
    }
    let all = recording.settings_at_start().count();
    alike
        .into_values()
        .flat_map(|mut changes| {
            if changes.len() == all {
                changes.truncate(1);
                for change in &mut changes {
                    change.netns = None;
                    change.name = None;
                }
            }
            changes
        })
        .collect()
}

/// Changes that are close together, in their order.
fn together(changes: &[SysctlChange]) -> Vec<&[SysctlChange]> {
    changes
        .chunk_by(|one, next| next.elapsed_s - one.elapsed_s <= TOGETHER_S)
        .collect()
}

fn near(group: &[SysctlChange], at: f64, interval_s: f64) -> bool {
    let reach = interval_s + TOGETHER_S;
    group
        .iter()
        .any(|change| (change.elapsed_s - at).abs() <= reach)
}

/// `2 min 5 s (tcp_tw_reuse, tcp_fin_timeout)`.
fn told(group: &[SysctlChange]) -> String {
    const TOLD: usize = 5;
    let mut seen = HashSet::new();
    let mut keys: Vec<&str> = group
        .iter()
        .map(|change| change.key.rsplit('.').next().unwrap_or(&change.key))
        .filter(|key| seen.insert(*key))
        .collect();
    if keys.len() > TOLD {
        keys.truncate(TOLD);
        keys.push("…");
    }
    let at = group.first().map_or(0.0, |change| change.elapsed_s);
    format!("{at:.0}s ({})", keys.join(", "))
}

fn within(change: &SysctlChange, which: &str, used: &str) -> String {
    format!(
        "{} changed within the {which} recording, {} from its start: only what came {used} it is \
         used.",
        change.key,
        units::seconds(change.elapsed_s)
    )
}

fn cut_off(recording: &Recording, which: &str) -> Option<String> {
    let torn = recording.torn.as_ref()?;
    let which = if which.is_empty() {
        ""
    } else {
        &format!("{which} ")
    };
    Some(format!(
        "The {which}recording is cut off in its line {}: {}.",
        torn.line, torn.why
    ))
}

/// `6.18.44-cloud` -> (6, 18).
fn version(release: &str) -> Version {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests;
