//! `twtrace doctor`: what this host offers, what it lacks to run the tracer, how
//! near its limits are, and what its network namespaces are set to.
//!
//! It reads, watches for a few seconds, and has the analyses judge;
//! [`report::Report`] is the whole answer as one value.

mod report;
mod text;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use log::warn;

use self::report::{Band, Boot, Inspected, Look, Memory, Report, Revert};
use super::live::CANNOT_WRITE;
use crate::analysis::findings::{Findings, Judgement};
use crate::analysis::headroom::{Buckets, Ports};
use crate::analysis::myths::{self, AtBoot, Place, Seen};
use crate::kernel::counters::Reading;
use crate::kernel::netns::{self, Search};
use crate::kernel::requirements::{self, Check, Facts, Probe, Reach, Verdict};
use crate::kernel::sysctl::{self, Values};
use crate::kernel::sysctl_d::{Files, Setting};
use crate::kernel::{cgroup, cgroup_v1, clock, counters, slab};
use crate::knowledge::sysctls::{self, Value};
use crate::model::event::Netns;
use crate::model::snapshot::Snapshot;
use crate::options::{DEFAULT_RING_BYTES, DoctorOptions, NetnsChoice, Scope};
use crate::output;
use crate::selftest::{self, Tried};
use crate::session::{self, More, Plan, Sink, Taken};

/// Keys that articles on TIME_WAIT set, by their last word: where a file sets
/// one, its other lines were likely meant for the same.
const ARTICLE: [&str; 4] = [
    "tcp_tw_reuse",
    "tcp_tw_recycle",
    "tcp_fin_timeout",
    "tcp_max_tw_buckets",
];

/// Tells what the host offers; a negative answer if something hurts, something needed
/// is missing, or an assumption does not hold.
pub fn run(options: &DoctorOptions) -> Result<ExitCode> {
    let mut report = examine(options.look)?;
    // It says more of what a start refuses.
    if options.self_test
        && let Ok(facts) = requirements::check(Reach::Other)
    {
        report.self_test = Some(selftest::run(&facts));
    }
    let mut out = output::stdout(options.color);
    let written = if options.json {
        out.json(&report)
    } else {
        out.page(&text::page(&report))
    };
    written.context(CANNOT_WRITE)?;
    Ok(if report.ready && !report.has_failed() && !report.hurts() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn examine(look: Duration) -> Result<Report> {
    let probe = Probe {
        shared_cgroups: cgroup_v1::shared(),
        ..requirements::probe()
    };
    let mut checks = requirements::judge(&probe);
    if let Ok(facts) = requirements::facts(&probe, Reach::Own) {
        checks.push(seen(selftest::at_start(&facts)));
    }
    let ready = checks.iter().all(|check| check.verdict != Verdict::Missing);
    let own = netns::current()
        .context("cannot tell this network namespace")?
        .inode;
    let namespaces =
        netns::enumerate(Search::Everywhere).context("cannot list the network namespaces")?;
    let host = clock::host().context("cannot tell what host this is")?;
    let time_wait = Band::at(host.hz);

    let earlier = by_netns(counters::read(&namespaces));
    let watched = ready.then(|| watch(&probe, look)).flatten();
    let counted = by_netns(counters::read(&namespaces));
    let values = sysctl::studied(&namespaces).context("cannot read sysctls")?;
    let inspected: Vec<Inspected> = namespaces
        .iter()
        .zip(values)
        // One that has gone since is no longer this host's.
        .filter(|(_, values)| !matches!(values, Err(e) if e.kind() == io::ErrorKind::NotFound))
        .map(|(namespace, values)| {
            let mut inspected = Inspected::of(namespace, own, values);
            let netns = Netns(namespace.inode);
            inspected.minisockets = counted.get(&netns).and_then(|counted| {
                let limit = inspected.facts.as_ref()?.max_tw_buckets;
                // An inode number may have become another namespace's.
                let same = |earlier: &&Reading| earlier.cookie == counted.cookie;
                let earlier = watched.as_ref().and(earlier.get(&netns)).filter(same);
                Some(Buckets::of(
                    limit,
                    earlier.map(|earlier| &earlier.counters),
                    &counted.counters,
                    time_wait.mean_s(),
                ))
            });
            inspected
        })
        .collect();

    let files = Files::find(Path::new("/"));
    let at_boot = at_boot(&files);
    let places: Vec<Place<'_>> = inspected
        .iter()
        .filter(|n| n.error.is_none())
        .map(|n| Place {
            netns: n.netns,
            values: &n.sysctls,
        })
        .collect();
    let first = netns::of_process_one().unwrap_or(own);
    let seen = watched.as_ref().map_or(Seen::default(), |watched| {
        let side = watched.snapshot.time_wait.side;
        Seen {
            client: side.client,
            server: side.server,
        }
    });
    let myths = myths::suggested(&places, &at_boot, first, seen);
    let boot = Boot {
        program: files.program.name(),
        reverts: inspected
            .iter()
            .find(|n| n.netns == first)
            .map_or(Vec::new(), |n| reverts(&files, &n.sysctls)),
        files: files.read,
    };
    let facts: HashMap<u32, _> = inspected
        .iter()
        .filter_map(|n| Some((n.netns, n.facts.as_ref()?)))
        .collect();
    let ports = watched.as_ref().map(|watched| {
        let of = |to| Ports::of(to, facts.get(&to.netns).copied());
        watched.snapshot.ports.iter().map(of).collect()
    });
    let memory = watched
        .as_ref()
        .map(|watched| Memory::of(&watched.snapshot, slab::read()));
    Ok(Report {
        schema: report::SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        ready,
        checks,
        judgement: watched.as_ref().map(|look| look.judgement.clone()),
        time_wait,
        cgroup2: cgroup::mount().map(|path| path.display().to_string()),
        look: watched.as_ref().map(|watched| Look {
            duration_s: watched.snapshot.elapsed_s,
            netns: watched.netns,
            exactness: watched.snapshot.exactness,
        }),
        ports,
        memory,
        first_netns: first,
        namespaces: inspected,
        boot,
        myths,
        self_test: None,
        host,
    })
}

/// What a start finds out about itself.
fn seen(tried: Result<Tried>) -> Check {
    let (verdict, found, remedy) = match tried {
        Ok(Tried::Held) => (
            Verdict::Ok,
            "connections of its own are seen as they are made".to_owned(),
            None,
        ),
        Ok(Tried::Untried(why)) => (
            Verdict::Unknown,
            format!("a start cannot check itself: {why}"),
            Some("run it as root"),
        ),
        Err(error) => (
            Verdict::Missing,
            format!("{error:#}"),
            Some("report it with the kernel's version and configuration"),
        ),
    };
    Check {
        name: "start check",
        verdict,
        found,
        remedy: remedy.map(str::to_owned),
    }
}

fn by_netns(read: Vec<Reading>) -> HashMap<Netns, Reading> {
    read.into_iter()
        .map(|reading| (reading.netns, reading))
        .collect()
}

/// What is set at boot, of the keys that something is known of.
fn at_boot(files: &Files) -> Vec<AtBoot> {
    let article = ARTICLE.map(|key| format!("net.ipv4.{key}"));
    let article: Vec<&str> = article.iter().map(String::as_str).collect();
    let set = sysctls::ALL.iter().filter_map(|key| {
        let setting = files.setting(key.name)?;
        Some(AtBoot {
            key: key.key(),
            value: setting.value.clone(),
            at: setting.place(),
            among_others: files.sets_any(&setting.file, &article),
        })
    });
    set.collect()
}

/// What the next boot would set otherwise than it is.
fn reverts(files: &Files, values: &Values) -> Vec<Revert> {
    let mut reverts = Vec::new();
    for key in sysctls::ALL {
        let Some(now) = values.get(key.key()) else {
            continue;
        };
        let setting = files.setting(key.name);
        let at_boot = match (setting, key.default) {
            (Some(setting), _) => setting.value.clone(),
            (None, Value::Always(default)) => default.to_owned(),
            (None, _) if key.key() == "tcp_max_tw_buckets" => {
                match values.get(sysctl::EHASH_ENTRIES).map(|n| n.parse::<i64>()) {
                    Some(Ok(entries)) => (entries.abs() / 2).to_string(),
                    _ => continue,
                }
            }
            (None, _) => continue,
        };
        if *now == at_boot {
            continue;
        }
        reverts.push(Revert {
            name: key.name,
            now: now.clone(),
            at_boot,
            at: setting.map(Setting::place),
            unread_at: match setting {
                Some(_) => None,
                None => files.unread_setting(key.name).map(Setting::place),
            },
        });
    }
    reverts
}

/// What a look found.
struct Watched {
    snapshot: Snapshot,
    judgement: Judgement,
    /// Whose it was: `all`, or `self`.
    netns: &'static str,
}

/// The last snapshot of a look at every namespace, or where that is not allowed
/// at this one. `None` where the tracer does not run at all.
fn watch(probe: &Probe, look: Duration) -> Option<Watched> {
    let all = requirements::facts(probe, Reach::All).map(|facts| (facts, NetnsChoice::All));
    let own = || requirements::facts(probe, Reach::Own).map(|facts| (facts, NetnsChoice::Own));
    let (facts, netns) = all.or_else(|_| own()).ok()?;
    let word = match netns {
        NetnsChoice::All => "all",
        _ => "self",
    };
    match last_snapshot(&facts, netns, look) {
        Ok((snapshot, judgement)) => Some(Watched {
            snapshot,
            judgement,
            netns: word,
        }),
        Err(error) => {
            warn!("no look at connections: {error:#}");
            None
        }
    }
}

fn last_snapshot(
    facts: &Facts,
    netns: NetnsChoice,
    look: Duration,
) -> Result<(Snapshot, Judgement)> {
    let plan = Plan {
        scope: Scope {
            netns,
            ..Scope::default()
        },
        // Findings of what moves need more than one snapshot.
        interval: look.min(Duration::from_secs(1)),
        looks: true,
        duration: Some(look),
        ring_bytes: DEFAULT_RING_BYTES,
        distortion: None,
    };
    let mut last = Last::default();
    session::run(facts, &plan, &mut last)?;
    last.newest.context("the session gave no snapshot")
}

/// Keeps the newest snapshot, and what it means.
#[derive(Default)]
struct Last {
    findings: Findings,
    newest: Option<(Snapshot, Judgement)>,
}

impl Sink for Last {
    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        let judgement = self.findings.judge(taken.snapshot);
        self.newest = Some((taken.snapshot.clone(), judgement));
        Ok(More::Yes)
    }
}

#[cfg(test)]
mod tests;
