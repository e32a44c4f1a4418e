//! `twtrace events`: which happenings are worth a line, and how it is written.

use std::io::BufWriter;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

use super::live::CANNOT_WRITE;
use crate::kernel::requirements;
use crate::kernel::tracer::Distortion;
use crate::model::happening::Happening;
use crate::model::snapshot::Lost;
use crate::model::state_set::StateSet;
use crate::options::{EventsOptions, NetnsChoice};
use crate::output;
use crate::render::events::{Happenings, Json, Show, Text};
use crate::session::{self, More, Names, Plan, Sink, Taken};

/// Prints events until the options or a signal say stop.
pub fn run(options: &EventsOptions) -> Result<()> {
    run_distorted(options, None)
}

/// The same of events as a test distorts them.
#[doc(hidden)]
pub fn run_distorted(options: &EventsOptions, distortion: Option<Distortion>) -> Result<()> {
    let facts = requirements::check(options.scope.netns.reach())?;
    let plan = Plan {
        scope: options.scope.clone(),
        interval: options.interval,
        looks: false,
        duration: options.duration,
        ring_bytes: options.ring_bytes,
        distortion,
    };
    session::run(&facts, &plan, &mut Printer::new(options))?;
    Ok(())
}

/// Prints happenings to the standard output until there were enough.
struct Printer {
    lines: Box<dyn Happenings>,
    states: StateSet,
    left: Option<u64>,
    lost: Lost,
}

impl Printer {
    fn new(options: &EventsOptions) -> Printer {
        let out = output::stdout(options.color);
        let lines: Box<dyn Happenings> = if options.json {
            // It hands over many lines at once.
            Box::new(Json::new(out))
        } else {
            let show = Show {
                netns: options.scope.netns == NetnsChoice::All,
            };
            Box::new(Text::new(
                out.map(|out| BufWriter::with_capacity(1 << 16, out)),
                TimeZone::system(),
                show,
            ))
        };
        Printer {
            lines,
            states: options.scope.states,
            left: options.count,
            lost: Lost::default(),
        }
    }
}

impl Sink for Printer {
    const LATEST: Duration = Duration::from_millis(320);

    fn happening(&mut self, happening: &Happening, names: &mut Names) -> Result<More> {
        if self.left == Some(0) {
            return Ok(More::Enough);
        }
        if self.states.concerns(&happening.what) {
            let cgroup = happening.owner.and_then(|owner| owner.cgroup);
            let cgroup = cgroup.and_then(|id| names.cgroups.path(id));
            let time = names.wall.at(happening.at);
            self.lines
                .happening(happening, time, cgroup)
                .context(CANNOT_WRITE)?;
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
        }
        Ok(if self.left == Some(0) {
            More::Enough
        } else {
            More::Yes
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.lines.flush().context(CANNOT_WRITE)
    }

    /// Says what was lost, where that grew.
    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        let snapshot = taken.snapshot;
        if snapshot.lost != self.lost {
            self.lost = snapshot.lost;
            self.lines
                .lost(snapshot.time, &snapshot.lost)
                .context(CANNOT_WRITE)?;
            self.lines.flush().context(CANNOT_WRITE)?;
        }
        Ok(More::Yes)
    }
}
