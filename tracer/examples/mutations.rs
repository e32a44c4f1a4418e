//! Wrong facts about this kernel, one at a time: each must be refused or named by
//! the self-test, so that none yields a wrong figure unnoticed.
//!
//! `cargo xtask mutate` runs it, as root. Each offset is moved by 8 bytes either
//! way, each symbol renamed, each row of the table of callers taken out. What
//! holds all the same is listed here with the reason why no figure suffers.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use tracer::kernel::kallsyms::{self, Symbols};
use tracer::kernel::netns;
use tracer::kernel::requirements::{self, Facts, Probe, Reach, Verdict as Checked};
use tracer::selftest::{self, Verdict};
use tracer_common::layout::{Callers, Layout};

/// Self-tests side by side: each waits more than it works.
const SIDE_BY_SIDE: usize = 4;

/// What may go unnoticed, by the beginning of the mutation's name.
const HARMLESS: &[(&str, &str)] = &[
    (
        "sk_cookie -8",
        "an address is there, which minisocket and full socket share as well",
    ),
    (
        "walk: tb_fastreuse -8",
        "fastreuseport says the same of a port that bind() took",
    ),
    (
        "walk: tb_fastreuseport -8",
        "fastreuse says the same of a port that bind() took",
    ),
    (
        "walk: tw_ts_recent_stamp -8",
        "tw_ts_recent is there, which is 0 without timestamps as well",
    ),
    (
        "walk: task_real_parent +8",
        "parent is there, which is the same but for a process that is traced",
    ),
    (
        "task_flags",
        "it only says of an owner that it is a kernel thread",
    ),
    (
        "pid_level",
        "the first number is the one here; in a PID namespace further down it is missed",
    ),
    (
        "row mod_timer",
        "__mod_timer is on the same stack, further inside",
    ),
    (
        "rename mod_timer",
        "__mod_timer is on the same stack, further inside",
    ),
    (
        "row tcp_diag_destroy",
        "tcp_abort is on the same stack, further inside",
    ),
    (
        "rename tcp_diag_destroy",
        "tcp_abort is on the same stack, further inside",
    ),
    (
        "row tcp_abort",
        "tcp_diag_destroy is on the same stack, further out",
    ),
    (
        "row tcp_twsk_purge",
        "inet_twsk_purge is on the same stack, further inside",
    ),
    (
        "rename tcp_twsk_purge",
        "inet_twsk_purge is on the same stack, further inside",
    ),
    (
        "row inet_twsk_purge",
        "tcp_twsk_purge is on the same stack, further out",
    ),
    (
        "row migrate_timer_list",
        "only a CPU that goes offline calls it",
    ),
    (
        "row timers_dead_cpu",
        "only a CPU that goes offline calls it",
    ),
    (
        "rename timers_dead_cpu",
        "migrate_timer_list is on the same stack, further inside",
    ),
    (
        "rename migrate_timer_list",
        "timers_dead_cpu is on the same stack, further out",
    ),
    (
        "walk: task_start_boottime",
        "what stands beside it tells a task from another too, but not which was first: a process \
         may be without an owner where another ended",
    ),
    ("row nf_tproxy", "a TPROXY rule is needed to come there"),
    ("rename nf_tproxy", "a TPROXY rule is needed to come there"),
];

struct Mutation {
    name: String,
    facts: Result<Facts, String>,
}

/// What became of a mutation.
enum Outcome {
    /// The tracer does not start, or says from the start what it lacks.
    Refused(String),
    /// The self-test fails.
    Named(String),
    Unnoticed,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let facts = requirements::check(Reach::Other)?;
    if let Some(failed) = failed(&facts) {
        return Err(anyhow!(
            "the self-test fails without any mutation: {failed}"
        ));
    }
    let text = fs::read_to_string(kallsyms::PATH).context("cannot read the symbols")?;
    let mut mutations = VecDeque::new();
    mutations.extend(offsets(&facts));
    mutations.extend(offsets_of_the_walk(&facts));
    mutations.extend(rows(&facts, &text)?);
    mutations.extend(renames(&text));
    let all = mutations.len();

    let queue = Mutex::new(mutations);
    let next = || queue.lock().ok()?.pop_front();
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(mutation) = next() {
                    let outcome = try_one(&mutation);
                    if let Ok(mut done) = done.lock() {
                        done.push((mutation.name, outcome));
                    }
                }
            });
        }
    });

    let mut done = done
        .into_inner()
        .map_err(|_| anyhow!("a self-test panicked"))?;
    done.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = io::stdout().lock();
    let mut unnoticed = all - done.len();
    for (name, outcome) in &done {
        let harmless = HARMLESS.iter().find(|(of, _)| name.starts_with(of));
        let (word, why) = match (outcome, harmless) {
            (Outcome::Refused(why), _) => ("refused", why.as_str()),
            (Outcome::Named(why), _) => ("named", why.as_str()),
            (Outcome::Unnoticed, Some((_, why))) => ("harmless", *why),
            (Outcome::Unnoticed, None) => {
                unnoticed += 1;
                ("UNNOTICED", "")
            }
        };
        writeln!(out, "{word:<10} {name:<38} {}", why.trim_end())?;
    }
    writeln!(out, "\n{all} mutations, {unnoticed} unnoticed")?;
    Ok(unnoticed == 0)
}

fn try_one(mutation: &Mutation) -> Outcome {
    match &mutation.facts {
        Err(why) => Outcome::Refused(why.clone()),
        Ok(facts) => failed(facts).map_or(Outcome::Unnoticed, Outcome::Named),
    }
}

/// The trials that fail, and what the first of them saw.
fn failed(facts: &Facts) -> Option<String> {
    let trials = selftest::run(facts);
    let failed = || {
        trials
            .iter()
            .filter(|trial| trial.verdict == Verdict::Failed)
    };
    let first = failed().next()?;
    let found = first.found.lines().next().unwrap_or_default();
    let short: String = found.chars().take(90).collect();
    Some(match failed().count() {
        1 => format!("{}: {short}", first.name),
        n => format!("{} and {} more: {short}", first.name, n - 1),
    })
}

fn offsets(facts: &Facts) -> Vec<Mutation> {
    type Member = (&'static str, fn(&mut Layout) -> &mut u32);
    macro_rules! members {
        ($($name:ident)*) => {
            [$((stringify!($name), |layout| &mut layout.$name),)*]
        };
    }
    let members: &[Member] = &members!(
        sk_family sk_cookie sk_addrpair sk_state sk_num sk_dport sk_net sk_v6_daddr
        sk_v6_rcv_saddr sk_protocol sk_err inet_sport tcp_linger2 net_inum net_cookie tw_timer
        tw_substate rsk_timer timer_expires timer_function timer_flags task_flags
        task_pid pid_level pid_numbers upid_nr upid_ns pid_ns_inum
    );
    // What leads to the numbers of a PID namespace is followed there alone: this one
    // will do.
    let pid_namespace = fs::metadata("/proc/self/ns/pid").ok();
    let pid_namespace = pid_namespace.and_then(|file| u32::try_from(file.ino()).ok());
    let mut mutations = Vec::new();
    for (name, member) in members {
        // Where a namespace's cookie cannot be asked for, its member is not read.
        if *name == "net_cookie" && netns::cookie().is_none() {
            continue;
        }
        for by in [-8_i32, 8] {
            let mut layout = facts.layout;
            let offset = member(&mut layout);
            let Some(moved) = offset.checked_add_signed(by) else {
                continue;
            };
            *offset = moved;
            mutations.push(Mutation {
                name: format!("{name} {by:+}"),
                facts: Ok(Facts {
                    layout,
                    pid_namespace,
                    ..facts.clone()
                }),
            });
        }
    }
    mutations
}

/// What the walk over the kernel's tables reads by.
fn offsets_of_the_walk(facts: &Facts) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    let members = facts.clone().walk.offsets().len();
    for member in 0..members {
        for by in [-8_i32, 8] {
            let mut moved = facts.clone();
            let mut offsets = moved.walk.offsets();
            let (name, offset) = offsets.swap_remove(member);
            let Some(to) = offset.checked_add_signed(by) else {
                continue;
            };
            *offset = to;
            mutations.push(Mutation {
                name: format!("walk: {name} {by:+}"),
                facts: Ok(moved),
            });
        }
    }
    mutations
}

/// Each row of the table of callers taken out behind the back of all checks.
fn rows(facts: &Facts, text: &str) -> Result<Vec<Mutation>> {
    let table = facts.callers.table;
    let used = table.iter().filter(|row| row.start != 0).count();
    (0..used)
        .map(|gone| {
            let mut rest: Vec<_> = table.to_vec();
            let row = rest.remove(gone);
            rest.push(Default::default());
            let address = format!("{:016x}", row.start);
            let name = text
                .lines()
                .filter(|line| line.starts_with(&address))
                .filter_map(|line| line.split_whitespace().nth(2))
                .find(|name| KNOWN.contains(&name.split('.').next().unwrap_or(name)))
                .with_context(|| format!("no symbol at {address}"))?;
            let callers = Callers {
                table: rest.try_into().map_err(|_| anyhow!("another length"))?,
            };
            Ok(Mutation {
                name: format!("row {name}"),
                facts: Ok(Facts {
                    callers,
                    ..facts.clone()
                }),
            })
        })
        .collect()
}

const KNOWN: [&str; 19] = [
    "__mod_timer",
    "mod_timer",
    "mod_timer_pending",
    "migrate_timer_list",
    "timers_dead_cpu",
    "__inet_hash_connect",
    "__inet_check_established",
    "__inet6_check_established",
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    "tcp_timewait_state_process",
    "tcp_abort",
    "tcp_diag_destroy",
    "inet_twsk_purge",
    "tcp_twsk_purge",
    "nf_tproxy_handle_time_wait4",
    "nf_tproxy_handle_time_wait6",
    kallsyms::TW_TIMER_HANDLER,
    kallsyms::REQSK_TIMER_HANDLER,
];

/// Each symbol under another name, all of its copies too.
fn renames(text: &str) -> Vec<Mutation> {
    KNOWN
        .iter()
        .map(|known| {
            let renamed: String = text
                .lines()
                .map(|line| {
                    let name = line.split_whitespace().nth(2).unwrap_or_default();
                    if name.split('.').next() == Some(known) {
                        line.replacen(known, "renamed", 1) + "\n"
                    } else {
                        line.to_owned() + "\n"
                    }
                })
                .collect();
            Mutation {
                name: format!("rename {known}"),
                facts: judged(Symbols::read(renamed.as_bytes())),
            }
        })
        .collect()
}

/// The facts, unless `doctor` says that something is missing.
fn judged(symbols: Result<Symbols, kallsyms::Error>) -> Result<Facts, String> {
    let probe = Probe {
        symbols,
        ..requirements::probe()
    };
    let lacking = requirements::judge(&probe)
        .into_iter()
        .find(|check| check.name == "symbols" && check.verdict != Checked::Ok);
    match (lacking, requirements::facts(&probe, Reach::Other)) {
        (Some(check), _) => Err(check.found),
        (None, Err(unmet)) => Err(unmet.to_string()),
        (None, Ok(facts)) => Ok(facts),
    }
}
