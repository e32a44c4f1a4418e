//! `twtrace events`: which happenings are worth a line, and how it is written.

use std::io::{self, BufWriter};
use std::ops::ControlFlow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::live::styled;
use crate::model::happening::Happening;
use crate::model::snapshot::Lost;
use crate::model::state_set::StateSet;
use crate::options::{EventsOptions, NetnsChoice};
use crate::render::events::{Happenings, Json, Show, Text};

/// Prints happenings to the standard output until there were enough.
#[expect(
    missing_debug_implementations,
    reason = "a sink behind a trait object has nothing to show"
)]
pub struct Printer {
    lines: Box<dyn Happenings>,
    states: StateSet,
    left: Option<u64>,
    lost: Lost,
}

impl Printer {
    #[must_use]
    pub fn new(options: &EventsOptions) -> Printer {
        let out = io::stdout();
        let styled = styled(&out, options.color);
        let out = BufWriter::with_capacity(1 << 16, out);
        let lines: Box<dyn Happenings> = if options.json {
            Box::new(Json::new(out))
        } else {
            let show = Show {
                netns: options.scope.netns == NetnsChoice::All,
                styled,
            };
            Box::new(Text::new(out, TimeZone::system(), show))
        };
        Printer {
            lines,
            states: options.scope.states,
            left: options.count,
            lost: Lost::default(),
        }
    }

    /// Breaks once `--count` lines were written. `time` gives the happening's
    /// time and `cgroup` the path of a cgroup; neither is asked without need.
    pub fn happening(
        &mut self,
        happening: &Happening,
        time: impl FnOnce() -> Timestamp,
        cgroup: impl FnOnce(u64) -> Option<String>,
    ) -> io::Result<ControlFlow<()>> {
        if self.left != Some(0) && self.states.concerns(&happening.what) {
            let cgroup = happening
                .owner
                .and_then(|owner| owner.cgroup)
                .and_then(cgroup);
            self.lines.happening(happening, time(), cgroup.as_deref())?;
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
        }
        Ok(if self.left == Some(0) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Says what was lost, where that grew.
    pub fn lost(&mut self, time: Timestamp, lost: &Lost) -> io::Result<()> {
        if *lost != self.lost {
            self.lost = *lost;
            self.lines.lost(time, lost)?;
        }
        Ok(())
    }

    /// Everything written so far reaches the reader.
    pub fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}
