//! Faults put into what twtrace reads, and the tests that must notice them: a
//! test that no fault makes fail protects nothing.
//!
//! For a canary this program is started anew, to run one test alone, with the
//! canary's name in its environment. Where that test starts twtrace it gets this
//! program in a role instead: the same verbs, with a distortion between the ring
//! and the ledger.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser as _;
use tracer::cli::{Cli, Request};
use tracer::kernel::tracer::Distortion;
use tracer::model::event::Event;
use tracer::verbs;

use super::{Outcome, Verdict};

/// The first argument that makes this program a distorted twtrace.
pub(crate) const ROLE: &str = "twtrace";

/// Names the canary.
const CANARY: &str = "TWTRACE_CANARY";

/// About one in a hundred, and out of step with the ten records of a connection.
const ONE_IN: u64 = 97;

struct Canary {
    name: &'static str,
    distortion: Distortion,
    /// The tests that must fail, and what they must say.
    noticed: &'static [(&'static str, &'static str)],
}

const BIRTHS: &str = "churn::births_equal_the_counters";
const REUSES: &str = "ends::every_reuse_is_an_end";
const ORDER: &str = "story::each_step_follows_the_last";

const MISSED: &str = "events were missed of a load of";

/// What each test must notice.
const CANARIES: [Canary; 7] = [
    Canary {
        name: "births_dropped",
        distortion: drop_births,
        noticed: &[(BIRTHS, MISSED)],
    },
    Canary {
        name: "ends_dropped",
        distortion: drop_ends,
        noticed: &[(REUSES, MISSED)],
    },
    Canary {
        name: "expiries_dropped",
        distortion: drop_ends,
        noticed: &[("lives::expired_ones_lie_in_the_band", MISSED)],
    },
    Canary {
        name: "transitions_dropped",
        distortion: drop_transitions,
        noticed: &[(BIRTHS, MISSED), (ORDER, "does not follow")],
    },
    Canary {
        name: "births_twice",
        distortion: repeat_births,
        noticed: &[(REUSES, MISSED)],
    },
    Canary {
        name: "records_swapped",
        distortion: swap,
        noticed: &[(BIRTHS, MISSED), (ORDER, "does not follow")],
    },
    // What fails by itself proves nothing.
    Canary {
        name: NO_FAULT,
        distortion: pass_on,
        noticed: &[(BIRTHS, ""), (REUSES, ""), (ORDER, "")],
    },
];

const NO_FAULT: &str = "no_fault";

/// The canary that this program was started with, if it was.
fn asked() -> Option<&'static Canary> {
    let name = std::env::var(CANARY).ok()?;
    CANARIES.iter().find(|canary| canary.name == name)
}

/// twtrace as the canary has it, where this program was started with one.
pub(crate) fn command() -> Option<Command> {
    asked()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLE);
    Some(command)
}

/// twtrace, but for what it reads.
pub(crate) fn be_twtrace() -> ExitCode {
    let run = || -> Result<()> {
        let canary = asked().context("no canary has this name")?;
        let (request, _) = Cli::try_parse_from(std::env::args_os().skip(1))?.into_request()?;
        match request {
            Request::Live(options) => {
                verbs::live::run_distorted(&options, Some(canary.distortion)).map(drop)
            }
            Request::Events(options) => {
                verbs::events::run_distorted(&options, Some(canary.distortion))
            }
            other => bail!("no canary for {other:?}"),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if that fails too; the exit code says it.
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests that must notice this fault, and has them fail.
pub(crate) fn notice(name: &str) -> Outcome {
    let canary = CANARIES.iter().find(|canary| canary.name == name);
    let canary = canary.with_context(|| format!("no canary {name}"))?;
    for &(test, why) in canary.noticed {
        let output = Command::new("/proc/self/exe")
            .args(["--exact", test])
            .env(CANARY, name)
            .output()
            .context("cannot start this program anew")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if let Some((_, why)) = said.split_once(" ... ignored (") {
            let why = why.lines().next().unwrap_or_default();
            return Ok(Verdict::Impossible(why.trim_end_matches(')').to_owned()));
        }
        let ran = said.contains("running 1 test");
        let as_it_should = if name == NO_FAULT {
            output.status.success()
        } else {
            output.status.code() == Some(FAILED) && said.contains(why)
        };
        ensure!(
            ran && as_it_should,
            "with {name}, {test} ended with {}: {said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(Verdict::Held)
}

/// How a test program ends one of whose tests failed.
const FAILED: i32 = 101;

thread_local! {
    /// Events so far of the kind that is meant.
    static MET: Cell<u64> = const { Cell::new(0) };
    static HELD: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

fn is_one_in_a_hundred() -> bool {
    MET.set(MET.get() + 1);
    MET.get().is_multiple_of(ONE_IN)
}

fn pass_on(event: &Event, take: &mut dyn FnMut(&Event)) {
    take(event);
}

fn drop_births(event: &Event, take: &mut dyn FnMut(&Event)) {
    if !(matches!(event, Event::Birth { .. }) && is_one_in_a_hundred()) {
        take(event);
    }
}

fn drop_ends(event: &Event, take: &mut dyn FnMut(&Event)) {
    if !(matches!(event, Event::End { .. }) && is_one_in_a_hundred()) {
        take(event);
    }
}

fn drop_transitions(event: &Event, take: &mut dyn FnMut(&Event)) {
    if !(matches!(event, Event::Step(_)) && is_one_in_a_hundred()) {
        take(event);
    }
}

/// The second time after its end: as long as the minisocket lives, it is known by
/// its cookie, and a second birth changes nothing (`scenarios` hold that).
fn repeat_births(event: &Event, take: &mut dyn FnMut(&Event)) {
    take(event);
    match event {
        Event::Birth { .. } if is_one_in_a_hundred() => hold(event),
        Event::End { minisocket, .. } => HELD.with_borrow_mut(|held| {
            let ended = |event: &mut Event| {
                matches!(event, Event::Birth { minisocket: born, .. } if born == minisocket)
            };
            held.extract_if(.., ended).for_each(|birth| take(&birth));
        }),
        _ => {}
    }
}

fn swap(event: &Event, take: &mut dyn FnMut(&Event)) {
    if is_one_in_a_hundred() {
        hold(event);
        return;
    }
    take(event);
    HELD.take().iter().for_each(take);
}

fn hold(event: &Event) {
    HELD.with_borrow_mut(|held| held.push(event.clone()));
}
