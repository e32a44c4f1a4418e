//! `twtrace lab -- trial`: eight pairs of namespaces side by side under the same
//! load, four of them changed by lot, and what sets the four apart.
//!
//! It makes the replicas and has each of them recorded; what the frames mean is
//! the analysis's affair, and how that reads is the renderer's.

mod side_by_side;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::side_by_side::Recorded;
use super::live::CANNOT_WRITE;
use crate::analysis::compare::{self, Comparison, SysctlChanged, Trial};
use crate::analysis::lot::Lot;
use crate::analysis::phase::{Phase, Witness};
use crate::kernel::requirements::{self, Reach};
use crate::kernel::{clock, counters};
use crate::knowledge::sysctls;
use crate::lab::replicas;
use crate::lab::setting::{Refused, Setting, Why};
use crate::lab::shape::{Shape, raise_descriptor_limit};
use crate::model::clock::{ASSUMED_NOMINAL_S, wheel_slack};
use crate::options::TrialOptions;
use crate::output;
use crate::recording::Stock;
use crate::render::{self, live::PLAIN_WIDTH};
use crate::units;

/// Four against four: the lot has 70 ways to fall, so that chance alone looks
/// like the rarest of them in 3 of 100 trials.
const REPLICAS: usize = 8;

/// Tries the change, and says what it did.
pub fn run(shape: &Shape, options: &TrialOptions) -> Result<ExitCode> {
    let settings = what_can_be_set(&options.settings)?;
    let facts = requirements::check(Reach::Other)?;
    raise_descriptor_limit(shape, REPLICAS)?;
    let seed = options.seed.unwrap_or_else(any_seed);
    let lot = Lot::new(seed).half(REPLICAS);
    let (replicas, before) = replicas::prepare(shape, &settings, &lot)?;
    let settle = options
        .settle
        .unwrap_or_else(|| settling_time(&settings, &before));
    tell(&format!(
        "lab: {REPLICAS} pairs of namespaces, {} connections a second each; settles for {} s, then measures for {} s",
        shape.rate,
        settle.as_secs(),
        options.measure.as_secs()
    ))?;
    let recorded = side_by_side::measure(&facts, shape, &replicas, options, settle)?;
    let witness = Witness {
        counters: true,
        births: clock::kernel_version() >= counters::COUNTS_BIRTHS,
    };
    let replicas = replicas
        .iter()
        .zip(&recorded)
        .enumerate()
        .map(
            |(n, (replica, Recorded { before, measured }))| compare::Replica {
                phase: {
                    let before: Vec<Stock> = before.iter().map(Stock::of).collect();
                    Phase::of(format!("replica {}", n + 1), &before, measured, witness)
                },
                changed: replica.changed,
            },
        )
        .collect();
    let trial = Trial::Parallel {
        replicas,
        measured_s: options.measure.as_secs_f64(),
        settle_s: settle.as_secs_f64(),
        seed,
    };
    let plan = compare::Plan::in_the_lab(changes(&settings, &before), clock::kernel_version());
    let mut comparison = compare::compare(&plan, &trial);
    comparison.notes.extend(like_with_like(&settings, &before));
    comparison.notes.extend(overflow(&lot, &recorded));
    show(&comparison, options)?;
    Ok(ExitCode::from(comparison.verdict.exit_code()))
}

fn changes(settings: &[Setting], before: &[String]) -> Vec<SysctlChanged> {
    let change = |(setting, before): (&Setting, &String)| SysctlChanged {
        netns: None,
        name: None,
        key: setting.key.clone(),
        before: Some(before.clone()),
        after: Some(setting.value.clone()),
    };
    settings.iter().zip(before).map(change).collect()
}

/// Of keys that had the value already.
fn like_with_like(settings: &[Setting], before: &[String]) -> Vec<String> {
    settings
        .iter()
        .zip(before)
        .filter(|(setting, before)| setting.value == **before)
        .map(|(Setting { key, value }, _)| {
            format!(
                "{key} was {value} before, too: like is held against like. `lab --sysctl KEY=VALUE` says \
                 what to begin with."
            )
        })
        .collect()
}

/// Where a limit of TIME_WAITs was reached, and so what "no TIME_WAIT" is due to.
fn overflow(lot: &[bool], recorded: &[Recorded]) -> Vec<String> {
    [(false, "before"), (true, "after")]
        .into_iter()
        .filter_map(|(changed, value)| {
            let arm = lot.iter().zip(recorded).filter(|(c, _)| **c == changed);
            let overflowed: i64 = arm
                .flat_map(|(_, recorded)| &recorded.measured)
                .map(|frame| frame.time_wait.overflowed)
                .sum();
            let overflowed = u64::try_from(overflowed).ok().filter(|n| *n > 0)?;
            Some(format!(
                "With the value {value}, {} closes left no TIME_WAIT because tcp_max_tw_buckets was reached \
                 (TCPTimeWaitOverflow).",
                units::count(overflowed)
            ))
        })
        .collect()
}

fn show(comparison: &Comparison, options: &TrialOptions) -> Result<()> {
    let mut out = output::stdout(options.color);
    let shown = if options.json {
        out.json(comparison)
    } else {
        let width = output::size().map_or(PLAIN_WIDTH, |size| size.columns);
        out.page(&render::comparison::text(comparison, width))
    };
    shown.context(CANNOT_WRITE)
}

/// Says of those that cannot be set why not, and gives back the others.
fn what_can_be_set(settings: &[Setting]) -> Result<Vec<Setting>> {
    let mut can = Vec::new();
    let mut cannot = Vec::new();
    for (setting, tried) in settings.iter().zip(replicas::rehearse(settings)?) {
        match tried {
            Ok(()) => can.push(setting.clone()),
            // As `sysctl -p` goes on after a line that names no key.
            Err(refused) if refused.why == Why::NoSuchKey => cannot.push(gone(&refused)),
            Err(refused) => return Err(refused.into()),
        }
    }
    if can.is_empty() {
        bail!("{}", cannot.join(" "));
    }
    for sentence in cannot {
        tell(&sentence)?;
    }
    Ok(can)
}

/// Why there is no such key here.
fn gone(refused: &Refused) -> String {
    let key = &refused.setting.key;
    let Some(sysctl) = sysctls::find(key) else {
        return format!("{refused}; `sysctl -a | grep '^net'` lists those it has");
    };
    let mut said = match sysctl.absent_from(clock::kernel_version()) {
        Some(sentence) => sentence,
        None => format!("{refused}: it may have been built without."),
    };
    for claim in sysctl.cannot {
        said.push_str(&format!(" It cannot {}.", claim.says));
    }
    said
}

/// What std seeds its hash maps with; short enough to be typed again.
#[expect(clippy::disallowed_methods, reason = "a trial's lot is drawn here")]
fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000
}

/// From when on a load that begins with nothing is steady: the longest life, the
/// timer's slack, and a little.
fn settling_time(settings: &[Setting], before: &[String]) -> Duration {
    const A_LITTLE: Duration = Duration::from_secs(2);
    let orphans = settings
        .iter()
        .zip(before)
        .filter(|(setting, _)| setting.key == "net.ipv4.tcp_fin_timeout")
        .flat_map(|(setting, before)| [setting.value.parse().ok(), before.parse().ok()])
        .flatten();
    let longest_s: u32 = orphans.fold(ASSUMED_NOMINAL_S, u32::max);
    let hz = clock::hz();
    let slack_s = f64::from(wheel_slack(longest_s.saturating_mul(hz))) / f64::from(hz);
    Duration::from_secs_f64((f64::from(longest_s) + slack_s).ceil()) + A_LITTLE
}

fn tell(line: &str) -> io::Result<()> {
    output::say(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> Vec<Setting> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_load_settles_for_as_long_as_its_longest_life() {
        let seconds = |set: &[&str], before: &[&str]| {
            let before: Vec<String> = before.iter().map(|&value| value.to_owned()).collect();
            settling_time(&settings(set), &before).as_secs_f64()
        };
        // 60 s, up to 5.12 s of slack at HZ=100, and 2 s.
        let usual = seconds(&["tcp_tw_reuse=1"], &["2"]);
        assert!((63.0..=68.0).contains(&usual), "{usual}");
        assert_eq!(seconds(&["tcp_fin_timeout=15"], &["60"]), usual);
        for (after, before) in [("120", "60"), ("15", "120")] {
            let long = seconds(&[&format!("tcp_fin_timeout={after}")], &[before]);
            assert!((122.0..=163.0).contains(&long), "{long}");
        }
    }

    #[test]
    fn a_key_that_is_no_more_is_explained() {
        let refused = |text: &str| Refused {
            setting: text.parse().unwrap(),
            why: Why::NoSuchKey,
        };
        let said = gone(&refused("tcp_tw_recycle=1"));
        assert!(
            said.starts_with("net.ipv4.tcp_tw_recycle is gone: Linux 4.11"),
            "{said}"
        );
        assert!(said.contains("It cannot be set"), "{said}");
        assert_eq!(
            gone(&refused("tcp_tw_reause=1")),
            "this kernel has no net.ipv4.tcp_tw_reause; `sysctl -a | grep '^net'` lists those it has"
        );
    }

    #[test]
    fn a_key_that_keeps_its_value_is_told() {
        let settings = settings(&["tcp_syncookies=1", "tcp_fin_timeout=30"]);
        let notes = like_with_like(&settings, &["1".to_owned(), "60".to_owned()]);
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].starts_with("net.ipv4.tcp_syncookies was 1 before, too"),
            "{notes:?}"
        );
    }
}
