//! A run in a few rows, however long it was.

use super::Frame;
use crate::model::event::State;
use crate::model::histogram::Durations;

/// Rows are put together two by two when there would be more.
const ROWS: usize = 16;

/// Frames come one by one, and nobody knows yet how many.
#[derive(Clone, Debug, Default)]
pub struct Course {
    rows: Vec<Row>,
    /// Frames in a full row.
    frames: u64,
}

/// Some frames in a row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    frames: u64,
    /// From the start of the run to the end of the row.
    pub until_s: f64,
    pub interval_s: f64,
    /// TIME_WAITs at its end.
    pub time_waits: u64,
    pub entered: i64,
    /// Ended before their time.
    pub early: i64,
    /// Connections that came to be ESTABLISHED, at either end.
    pub opened: i64,
    pub failed: i64,
    pub connect_latency: Durations,
    pub lost: i64,
}

impl Course {
    /// The first frame covers the start, which is no time to speak of.
    pub fn add(&mut self, frame: &Frame) {
        if frame.seq == 0 {
            return;
        }
        let full = self.frames.max(1);
        if self.rows.last().is_none_or(|row| row.frames >= full) {
            if self.rows.len() == ROWS {
                self.halve();
            }
            self.rows.push(Row::default());
        }
        if let Some(row) = self.rows.last_mut() {
            row.add(frame);
        }
    }

    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn halve(&mut self) {
        self.frames = self.frames.max(1) * 2;
        let rows = std::mem::take(&mut self.rows);
        let mut rows = rows.into_iter();
        while let Some(mut row) = rows.next() {
            if let Some(next) = rows.next() {
                row.append(&next);
            }
            self.rows.push(row);
        }
    }
}

impl Row {
    fn add(&mut self, frame: &Frame) {
        let time_waits = frame.states.get(State::TimeWait);
        let ended = &frame.time_wait.ended;
        let failures = &frame.connect.failures;
        let lost = &frame.lost;
        self.frames += 1;
        self.until_s = frame.elapsed_s;
        self.interval_s += frame.interval_s;
        self.time_waits = time_waits.map_or(0, |count| count.now);
        self.entered += time_waits.map_or(0, |count| count.entered);
        self.early += time_waits.map_or(0, |count| count.left) - ended.expired;
        self.opened += frame
            .states
            .get(State::Established)
            .map_or(0, |count| count.entered);
        self.failed += failures.ports_exhausted
            + failures.refused
            + failures.timed_out
            + failures.abandoned
            + failures.unreachable
            + failures.other;
        self.connect_latency.add(&frame.connect.latency_s);
        self.lost += lost.ring + lost.map + lost.recursion + lost.unseen;
    }

    fn append(&mut self, next: &Row) {
        self.frames += next.frames;
        self.until_s = next.until_s;
        self.interval_s += next.interval_s;
        self.time_waits = next.time_waits;
        self.entered += next.entered;
        self.early += next.early;
        self.opened += next.opened;
        self.failed += next.failed;
        self.connect_latency
            .add(&next.connect_latency.since(&Durations::default()));
        self.lost += next.lost;
    }
}
