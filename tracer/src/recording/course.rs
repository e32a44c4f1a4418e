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

    /// `frames` stays: only the last row is asked whether it is full, and after this
    /// there is another.
    fn append(&mut self, next: &Row) {
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

#[cfg(test)]
mod tests {
    use super::{Course, ROWS, Row};
    use crate::model::event::State;
    use crate::model::histogram::Sparse;
    use crate::recording::Frame;
    use crate::recording::sample::quiet;

    /// A frame in which each number is another, and other ones than in the others.
    fn frame(seq: u64) -> Frame {
        let mut frame = quiet(seq);
        let n = seq as i64;
        frame.interval_s = 0.5;
        frame.elapsed_s = 0.5 * seq as f64 + 0.25;
        for (state, count) in State::COUNTED.into_iter().zip(&mut frame.states.0) {
            let more = state as i64;
            count.now = 1000 * seq + state as u64;
            count.entered = 10 * n + more;
            count.left = 20 * n + more;
        }
        frame.time_wait.ended.expired = 3 * n;
        let failures = &mut frame.connect.failures;
        failures.ports_exhausted = n;
        failures.refused = 100;
        failures.timed_out = 1_000;
        failures.abandoned = 10_000;
        failures.unreachable = 100_000;
        failures.other = 1_000_000;
        let lost = &mut frame.lost;
        (lost.ring, lost.map, lost.recursion, lost.unseen) = (n, 100, 1_000, 10_000);
        frame.connect.latency_s = Sparse {
            count: 1,
            sum_s: 0.001 * seq as f64,
            min_s: Some(0.001 * seq as f64),
            max_s: Some(0.001 * seq as f64),
            us: vec![1000 * seq],
            n: vec![1],
        };
        frame
    }

    fn course(frames: u64) -> Vec<Row> {
        let mut course = Course::default();
        for seq in 0..=frames {
            course.add(&frame(seq));
        }
        course.rows().to_vec()
    }

    #[test]
    fn a_run_of_any_length_is_a_few_rows_that_add_up() {
        assert_eq!(course(0).len(), 0, "the first frame is the start");
        for frames in [1, 2, 15, 16, 17, 31, 32, 33, 34, 100, 500] {
            let rows = course(frames);
            let most = if frames <= 16 { frames as usize } else { ROWS };
            assert!(rows.len() <= most, "{frames}: {}", rows.len());
            assert!(rows.len() > most / 2, "{frames}: {}", rows.len());
            // Each but the last covers as many frames, a power of two.
            let each = (rows[0].interval_s / 0.5) as u64;
            assert!(each.is_power_of_two(), "{frames}: {each}");
            let mut seen = 0;
            for row in &rows {
                let first = seen + 1;
                seen = (seen + each).min(frames);
                let n = (seen + 1 - first) as i64;
                // Of first + … + seen.
                let total = n * (first + seen) as i64 / 2;
                assert_eq!(row.until_s, 0.5 * seen as f64 + 0.25, "{frames}");
                assert_eq!(row.interval_s, 0.5 * n as f64);
                assert_eq!(row.time_waits, 1000 * seen + 6, "TIME_WAITs at its end");
                assert_eq!(row.entered, 10 * total + 6 * n);
                assert_eq!(row.early, 20 * total + 6 * n - 3 * total);
                assert_eq!(row.opened, 10 * total + n);
                assert_eq!(row.failed, total + 1_111_100 * n);
                assert_eq!(row.lost, total + 11_100 * n);
                assert_eq!(row.connect_latency.count(), n as u64);
                let sum_s = row.connect_latency.sum_s();
                assert!((sum_s - 0.001 * total as f64).abs() < 1e-9, "{sum_s}");
            }
            assert_eq!(seen, frames);
        }
    }
}
