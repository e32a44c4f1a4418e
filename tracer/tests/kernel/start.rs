//! A start checks itself on connections of its own: wrong facts are refused before
//! the first figure, and of the connections nothing is told.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;
use tracer::kernel::requirements::{self, Facts, Reach};
use tracer::kernel::tracer::{Distortion, Tracer, Wanted};
use tracer::model::event::{Event, Reason, State};
use tracer::options::{DEFAULT_RING_BYTES, NetnsChoice, Scope};
use tracer::selftest::{self, Tried};
use tracer::session::{self, More, Plan, Sink, Taken};
use tracer_common::layout::Layout;

use super::{Outcome, Verdict, truth, twtrace};

const REFUSED: &str = "were not seen as they were in 5 tries, so counts would be wrong";

/// Starts side by side: one that refuses waits more than it works.
const SIDE_BY_SIDE: usize = 8;

type Member = (&'static str, fn(&mut Layout) -> &mut u32);

macro_rules! members {
    ($($name:ident)*) => {
        &[$((stringify!($name), |layout| &mut layout.$name),)*]
    };
}

/// All that a birth, an end or a step is read by.
const MEMBERS: &[Member] = members!(
    sk_family sk_cookie sk_addrpair sk_num sk_dport sk_net sk_v6_daddr sk_v6_rcv_saddr
    sk_protocol sk_err inet_sport tcp_linger2 net_inum net_cookie tw_timer tw_substate
    timer_expires timer_function timer_flags pid_numbers upid_nr upid_ns pid_ns_inum task_pid
);

/// One wrong fact at a time: each offset moved to the members beside it, and a handler
/// that is not the timer's function.
fn wrong(facts: &Facts) -> Vec<(String, Facts)> {
    let mut wrong = Vec::new();
    for (name, member) in MEMBERS {
        for by in [-8, -4, 4, 8] {
            let mut layout = facts.layout;
            let offset = member(&mut layout);
            // A kernel without IPv6 or without cookies of namespaces has none of these.
            let absent =
                *offset == 0 && ["sk_v6_daddr", "sk_v6_rcv_saddr", "net_cookie"].contains(name);
            let Some(moved) = offset.checked_add_signed(by).filter(|_| !absent) else {
                continue;
            };
            *offset = moved;
            wrong.push((
                format!("{name} {by:+}"),
                Facts {
                    layout,
                    ..facts.clone()
                },
            ));
        }
    }
    for (name, handler) in [
        (
            "a handler that is nobody's",
            facts.layout.tw_timer_handler + 16,
        ),
        ("another's handler", facts.layout.reqsk_timer_handler),
    ] {
        let mut layout = facts.layout;
        layout.tw_timer_handler = handler;
        wrong.push((
            name.to_owned(),
            Facts {
                layout,
                ..facts.clone()
            },
        ));
    }
    wrong
}

pub(crate) fn wrong_facts_are_refused() -> Outcome {
    // What leads to the numbers of a PID namespace is followed there alone: this one
    // will do.
    let pid_namespace = u32::try_from(fs::metadata("/proc/self/ns/pid")?.ino())?;
    let facts = Facts {
        pid_namespace: Some(pid_namespace),
        ..requirements::check(Reach::Other)?
    };
    let tried = selftest::at_start(&facts)?;
    ensure!(tried == Tried::Held, "{tried:?}");
    let wrong = Mutex::new(wrong(&facts));
    let unnoticed = Mutex::new(Vec::new());
    let next = || wrong.lock().ok()?.pop();
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((what, facts)) = next() {
                    let told = match selftest::at_start(&facts) {
                        Err(error) => format!("{error:#}"),
                        Ok(tried) => format!("{tried:?}"),
                    };
                    // The verifier knows some members by their types.
                    if !told.contains(REFUSED)
                        && !told.contains("the kernel refused program")
                        && let Ok(mut unnoticed) = unnoticed.lock()
                    {
                        unnoticed.push(format!("{what}: {told}"));
                    }
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap_or_default();
    ensure!(unnoticed.is_empty(), "{unnoticed:#?}");
    Ok(Verdict::Held)
}

/// As if no program were run where some of this happens: once is a chance, always is
/// a kernel on which counts would be wrong.
pub(crate) fn what_is_never_seen_is_refused() -> Outcome {
    /// Of the distortion that drops one birth.
    static DROPPED: AtomicBool = AtomicBool::new(false);
    let cases: [(&str, Distortion, Option<&str>); 5] = [
        (
            "no expiry",
            |event, take| {
                if !matches!(
                    event,
                    Event::End {
                        reason: Reason::Expired,
                        ..
                    }
                ) {
                    take(event);
                }
            },
            Some("the end of a minisocket in FinWait2 was not seen"),
        ),
        (
            "no early end",
            |event, take| {
                let is_early =
                    matches!(event, Event::End { reason, .. } if *reason != Reason::Expired);
                if !is_early {
                    take(event);
                }
            },
            Some("the end of a minisocket in TimeWait was not seen"),
        ),
        (
            "no birth",
            |event, take| {
                if !matches!(event, Event::Birth { .. }) {
                    take(event);
                }
            },
            Some("the birth of a minisocket"),
        ),
        (
            "no step in a softirq",
            |event, take| {
                let is_step = matches!(event, Event::Step(step) if step.to == State::CloseWait);
                if !is_step {
                    take(event);
                }
            },
            Some("was seen to take"),
        ),
        (
            "one birth",
            |event, take| {
                let is_birth = matches!(event, Event::Birth { .. });
                if !is_birth || DROPPED.swap(true, Relaxed) {
                    take(event);
                }
            },
            None,
        ),
    ];
    let facts = requirements::check(Reach::Other)?;
    for (what, distortion, refused) in cases {
        let told = match selftest::at_start_distorted(&facts, Some(distortion)) {
            Err(error) => format!("{error:#}"),
            Ok(tried) => format!("{tried:?}"),
        };
        let as_it_should = match refused {
            Some(words) => told.contains(REFUSED) && told.contains(words),
            None => told == "Held",
        };
        ensure!(as_it_should, "{what}: {told}");
    }
    Ok(Verdict::Held)
}

/// A session's first figure comes after the check, so there is none.
pub(crate) fn a_refusal_says_what_was_not_seen() -> Outcome {
    struct Never;
    impl Sink for Never {
        fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
            bail!("there is a figure: {:?}", taken.snapshot.states)
        }
    }
    let mut facts = requirements::check(Reach::Own)?;
    facts.layout.tw_timer_handler += 16;
    let plan = Plan {
        scope: Scope {
            netns: NetnsChoice::Own,
            ..Scope::default()
        },
        interval: Duration::from_secs(1),
        looks: false,
        duration: None,
        ring_bytes: DEFAULT_RING_BYTES,
        distortion: None,
    };
    let Err(error) = session::run(&facts, &plan, &mut Never) else {
        bail!("it ran");
    };
    let said = format!("{error:#}");
    for words in [
        REFUSED,
        "twtrace doctor --self-test",
        "the birth of a minisocket",
        "was not seen",
    ] {
        ensure!(said.contains(words), "{said} does not say: {words}");
    }
    Ok(Verdict::Held)
}

/// What twtrace said of the start, line by line; of what kind the kernel is says
/// nothing of that.
fn said(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| !line.contains("a real-time kernel"))
        .map(str::to_owned)
        .collect()
}

/// When it is over nothing stands in its namespace that could be told of later: its
/// end would be told to whoever watches everything.
pub(crate) fn nothing_of_it_remains() -> Outcome {
    let mut beside = Tracer::load(
        &requirements::check(Reach::Other)?,
        &Wanted {
            ring_bytes: 16 << 20,
            tell_all: true,
            ..Wanted::default()
        },
    )?;
    beside.attach()?;
    let child = twtrace::command()
        .args(["live", "--json", "--count", "1", "--netns", "all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let said = said(&output);
    ensure!(
        output.status.success() && said.is_empty(),
        "{}: {said:?}",
        output.status
    );

    let mut events = Vec::new();
    beside.drain(|event| events.push(event.clone()))?;
    let connects = events.iter().filter_map(|event| match event {
        Event::Step(step) if step.pid == pid && step.to == State::SynSent => step.tuple,
        _ => None,
    });
    let netns = connects.map(|tuple| tuple.netns).next();
    let netns = netns.context("it made no connection")?;
    let (mut sockets, mut minisockets, mut ends) = (HashSet::new(), HashSet::new(), Vec::new());
    for event in &events {
        match event {
            // Of a child the first step has no cookie.
            Event::Step(step)
                if step.socket.cookie != 0
                    && step.tuple.is_some_and(|tuple| tuple.netns == netns) =>
            {
                if step.to == State::Close {
                    sockets.remove(&step.socket.cookie);
                } else {
                    sockets.insert(step.socket.cookie);
                }
            }
            Event::Birth {
                minisocket,
                netns: of,
                ..
            } if *of == netns => {
                sockets.remove(&minisocket.cookie);
                minisockets.insert(*minisocket);
            }
            Event::End {
                minisocket,
                netns: of,
                reason,
                ..
            } if *of == netns => {
                minisockets.remove(minisocket);
                ends.push(*reason);
            }
            _ => {}
        }
    }
    // On a slow machine the orphan expires before the port is connected from anew.
    ends.sort_by_key(|reason| *reason as u8);
    ensure!(
        sockets.is_empty()
            && minisockets.is_empty()
            && ends == [Reason::Expired, Reason::ReusedByBoundConnect],
        "{sockets:?} {minisockets:?} {ends:?}"
    );
    let snapshot: Value = serde_json::from_slice(&output.stdout)?;
    let listed = snapshot["namespaces"].as_array();
    let listed = listed.context("it lists no namespaces")?;
    ensure!(
        listed.iter().all(|row| row["netns"] != netns.0)
            && truth::lost(&snapshot) == 0
            && truth::is_exact(&snapshot),
        "{snapshot:#}"
    );
    Ok(Verdict::Held)
}

/// Where it may not make a namespace it starts all the same, and says so.
pub(crate) fn where_it_cannot_it_says_so() -> Outcome {
    let mut command = twtrace::command();
    command.args(["live", "--json", "--count", "1", "--netns", "self"]);
    let drop_admin = || {
        Ok(remove_capability_from_bounding_set(
            CapabilitySet::SYS_ADMIN,
        )?)
    };
    // SAFETY: it makes one system call and allocates nothing.
    unsafe { command.pre_exec(drop_admin) };
    let output = command.output().context("cannot start twtrace")?;
    let said = said(&output);
    ensure!(
        output.status.success() && said.len() == 1 && said[0].contains("has not checked itself"),
        "{}: {said:?}",
        output.status
    );
    let snapshot: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(snapshot["seq"] == 0, "{snapshot:#}");
    Ok(Verdict::Held)
}
