//! How far a recording is: a line on the terminal, kept in place.

use std::io::Stderr;
use std::time::Duration;

use crate::model::event::State;
use crate::output;
use crate::recording::Frame;
use crate::render::line::{Line, Tone};
use crate::render::terminal::Terminal;
use crate::units;

/// Nobody reads faster.
const REDRAWN_EVERY_S: f64 = 0.2;

#[derive(Debug)]
pub(super) struct Progress {
    /// `None` where nobody watches, or a command has the terminal.
    out: Option<Terminal<Stderr>>,
    duration: Option<Duration>,
    drawn_s: f64,
    elapsed_s: f64,
    time_waits: i64,
    lost: i64,
}

impl Progress {
    /// Shown if `alone`: what a command prints would be torn by it.
    pub(super) fn new(duration: Option<Duration>, alone: bool) -> Progress {
        Progress {
            out: (alone && output::errors_are_watched()).then(output::stderr),
            duration,
            drawn_s: 0.0,
            elapsed_s: 0.0,
            time_waits: 0,
            lost: 0,
        }
    }

    pub(super) fn frame(&mut self, frame: &Frame) {
        self.elapsed_s = frame.elapsed_s;
        let time_waits = frame.states.get(State::TimeWait);
        self.time_waits += time_waits.map_or(0, |count| count.seeded + count.entered);
        let lost = &frame.lost;
        self.lost += lost.ring + lost.map + lost.recursion + lost.unseen;
        if self.elapsed_s - self.drawn_s >= REDRAWN_EVERY_S {
            self.drawn_s = self.elapsed_s;
            let left = self.duration.map(|duration| {
                let left_s = (duration.as_secs_f64() - self.elapsed_s).max(0.0);
                format!(", {} left", units::roughly(left_s))
            });
            let line = format!(
                "recording: {}{}; {}",
                units::roughly(self.elapsed_s),
                left.unwrap_or_default(),
                self.seen()
            );
            self.draw(&line);
        }
    }

    /// Takes the line away.
    pub(super) fn end(&mut self) {
        self.draw("");
    }

    pub(super) fn elapsed_s(&self) -> f64 {
        self.elapsed_s
    }

    /// `5,204 TIME_WAITs seen, nothing lost`.
    pub(super) fn seen(&self) -> String {
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        let time_waits = units::counted(unsigned(self.time_waits), "TIME_WAIT", "TIME_WAITs");
        match unsigned(self.lost) {
            0 => format!("{time_waits} seen, nothing lost"),
            lost => format!(
                "{time_waits} seen, {} lost",
                units::counted(lost, "event", "events")
            ),
        }
    }

    fn draw(&mut self, line: &str) {
        if let Some(out) = &mut self.out {
            // A terminal that has gone needs no progress.
            let _ = out.in_place(&Line::of(Tone::Plain, line));
        }
    }
}
