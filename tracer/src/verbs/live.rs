//! `twtrace live`: chooses how snapshots are shown, and has a session make them.

use anyhow::{Context as _, Result};

use crate::kernel::requirements;
use crate::kernel::tracer::Distortion;
use crate::model::state_set::StateSet;
use crate::options::{Color, LiveForm, LiveOptions};
use crate::output;
use crate::render::json::JsonLines;
use crate::render::live::{PLAIN_WIDTH, PlainTables, Redrawn, Size, Snapshots};
use crate::session::{self, More, Plan, Sink, Taken};

/// Shows one snapshot an interval and one at the end, until the options or a
/// signal say stop.
pub fn run(options: &LiveOptions) -> Result<()> {
    run_distorted(options, None)
}

/// The same of events as a test distorts them.
#[doc(hidden)]
pub fn run_distorted(options: &LiveOptions, distortion: Option<Distortion>) -> Result<()> {
    let facts = requirements::check(options.scope.netns.reach())?;
    let mut live = Live {
        shown: sink(options.form, options.scope.states, options.color),
        left: options.count,
    };
    let plan = Plan {
        scope: options.scope.clone(),
        interval: options.interval,
        duration: options.duration,
        ring_bytes: options.ring_bytes,
        distortion,
    };
    session::run(&facts, &plan, &mut live)?;
    Ok(())
}

pub(super) const CANNOT_WRITE: &str = "cannot write to the standard output";

struct Live {
    shown: Box<dyn Snapshots>,
    /// Snapshots yet to come, where their number is bounded.
    left: Option<u64>,
}

impl Sink for Live {
    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        self.shown.snapshot(taken.snapshot).context(CANNOT_WRITE)?;
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
