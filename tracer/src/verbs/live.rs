//! `twtrace live`: chooses how snapshots are shown, and has a session make them.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::analysis::condition::Condition;
use crate::analysis::findings::{Findings, Judged};
use crate::kernel::requirements;
use crate::kernel::tracer::Distortion;
use crate::model::state_set::StateSet;
use crate::options::{Color, LiveForm, LiveOptions};
use crate::output;
use crate::render::json::JsonLines;
use crate::render::live::{PLAIN_WIDTH, PlainTables, Redrawn, Size, Snapshots};
use crate::session::{self, More, Plan, Sink, Taken};

/// Conditions that were waited for did not come about in time.
const IN_VAIN: u8 = 3;

/// Shows one snapshot an interval and one at the end, until the options or a
/// signal say stop; a negative answer of its own where conditions were waited for
/// in vain.
pub fn run(options: &LiveOptions) -> Result<ExitCode> {
    run_distorted(options, None)
}

/// The same of events as a test distorts them.
#[doc(hidden)]
pub fn run_distorted(options: &LiveOptions, distortion: Option<Distortion>) -> Result<ExitCode> {
    let facts = requirements::check(options.scope.netns.reach())?;
    let mut live = Live {
        shown: sink(options.form, options.scope.states, options.color),
        findings: Findings::new(),
        left: options.count,
        until: &options.until,
        outlook: None,
        came_about: false,
    };
    let plan = Plan {
        scope: options.scope.clone(),
        interval: options.interval,
        looks: true,
        duration: match (options.duration, options.timeout) {
            (Some(duration), Some(timeout)) => Some(duration.min(timeout)),
            (duration, timeout) => duration.or(timeout),
        },
        ring_bytes: options.ring_bytes,
        distortion,
    };
    session::run(&facts, &plan, &mut live)?;
    if options.until.is_empty() || live.came_about {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(outlook) = &live.outlook {
        output::say(&format!("in vain: {outlook}"))?;
    }
    Ok(ExitCode::from(IN_VAIN))
}

pub(super) const CANNOT_WRITE: &str = "cannot write to the standard output";

struct Live<'o> {
    shown: Box<dyn Snapshots>,
    findings: Findings,
    /// All of these end the run.
    until: &'o [Condition],
    /// How the first that does not hold stands.
    outlook: Option<String>,
    came_about: bool,
    /// Snapshots yet to come, where their number is bounded.
    left: Option<u64>,
}

impl Sink for Live<'_> {
    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        let judged = Judged {
            snapshot: taken.snapshot,
            judgement: &self.findings.judge(taken.snapshot),
        };
        self.shown.snapshot(&judged).context(CANNOT_WRITE)?;
        if !self.until.is_empty() {
            let missed = self.until.iter().find(|until| !until.holds(&judged));
            let Some(missed) = missed else {
                self.came_about = true;
                return Ok(More::Enough);
            };
            let outlook = missed.outlook(&judged);
            // Once, and not among tables that are redrawn.
            if self.outlook.is_none() && !output::is_screen() {
                output::say(&format!("waiting for {missed}: {outlook}"))?;
            }
            self.outlook = Some(outlook);
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(if self.left == Some(0) {
            More::Enough
        } else {
            More::Yes
        })
    }
}

fn sink(form: LiveForm, states: StateSet, color: Color) -> Box<dyn Snapshots> {
    let out = output::stdout(color);
    match form {
        LiveForm::Json => Box::new(JsonLines::new(out)),
        LiveForm::Auto if output::is_screen() => Box::new(Redrawn::new(out, size, states)),
        LiveForm::Auto | LiveForm::Plain => Box::new(PlainTables::new(out, states)),
    }
}

/// A terminal that does not know its size is taken for a classic one.
fn size() -> Size {
    output::size().filter(|size| size.rows > 0).unwrap_or(Size {
        columns: PLAIN_WIDTH,
        rows: 24,
    })
}
