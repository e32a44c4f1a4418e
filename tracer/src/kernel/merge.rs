//! Records of all CPUs, put in order by time.
//!
//! What one CPU sends is in order but for the records of interrupts; batches of
//! several come as they were filled or flushed. Once all CPUs have been flushed,
//! everything that was made before the flush began is here, and is handed over
//! in order; what is later waits for the next. It knows bytes and times alone.

use super::decode;
use crate::model::event::{Event, Moment};

/// A reader that was away for long finds more than it should keep: past so many
/// bytes the older half goes on, though an idle CPU may have older ones still.
const KEPT: usize = 4 << 20;

/// Nanoseconds that a stamp has room for.
const STAMP: u64 = (1 << 56) - 1;

#[derive(Debug, Default)]
pub struct Merge {
    bytes: Vec<u8>,
    /// When each was made, and where it begins and ends.
    records: Vec<Place>,
    /// Records that could not be told apart or decoded.
    pub(super) malformed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    begin: u32,
    end: u32,
}

impl Merge {
    /// Takes a batch in; returns how many records it held.
    pub fn push(&mut self, batch: &[u8]) -> u64 {
        let mut count = 0;
        for record in decode::records(batch) {
            count += 1;
            let Some(record) = record else {
                self.malformed += 1;
                continue;
            };
            let begin = self.bytes.len() as u32;
            self.bytes.extend_from_slice(record);
            self.records.push(Place {
                at: decode::made_at(record),
                begin,
                end: self.bytes.len() as u32,
            });
        }
        count
    }

    pub(super) fn is_large(&self) -> bool {
        self.bytes.len() >= KEPT
    }

    /// Hands over what was made before `horizon`, in order; `now` is later.
    pub fn emit(&mut self, horizon: Moment, now: Moment, take: impl FnMut(&Event)) {
        self.sort();
        let horizon = horizon.0 & STAMP;
        let due = self.records.partition_point(|place| place.at < horizon);
        self.hand_over(due, now, take);
    }

    /// Hands over the older half.
    pub(super) fn emit_half(&mut self, now: Moment, take: impl FnMut(&Event)) {
        self.sort();
        self.hand_over(self.records.len() / 2, now, take);
    }

    /// Stable: of one CPU's records of one moment, the first stays first.
    fn sort(&mut self) {
        if !self.records.is_sorted_by_key(|place| place.at) {
            self.records.sort_by_key(|place| place.at);
        }
    }

    fn hand_over(&mut self, due: usize, now: Moment, mut take: impl FnMut(&Event)) {
        for place in &self.records[..due] {
            match decode::record(&self.bytes[place.begin as usize..place.end as usize], now) {
                Some(event) => take(&event),
                None => self.malformed += 1,
            }
        }
        if due == self.records.len() {
            self.bytes.clear();
            self.records.clear();
            return;
        }
        let mut kept = Vec::new();
        self.records.drain(..due);
        for place in &mut self.records {
            let begin = kept.len() as u32;
            kept.extend_from_slice(&self.bytes[place.begin as usize..place.end as usize]);
            (place.begin, place.end) = (begin, kept.len() as u32);
        }
        self.bytes = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::state::State;
    use tracer_common::wire::{Head, Stamp, Step, kind};

    use super::*;

    const NOW: Moment = Moment(1_000_000);

    fn step(cookie: u64, at: u64) -> Vec<u8> {
        let stamp = Stamp::new(at, State::Established as u8, State::FinWait1 as u8);
        let head = [cookie.to_ne_bytes(), stamp.0.to_ne_bytes()].concat();
        let mut bytes = head;
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([kind::STEP, 2, 0, 0]);
        bytes.extend(0xffff_8880_0000_u64.to_ne_bytes());
        assert_eq!(bytes.len(), size_of::<Step>());
        assert_eq!(size_of::<Head>(), 24);
        bytes
    }

    fn emitted(merge: &mut Merge, horizon: u64) -> Vec<(u64, u64)> {
        let mut seen = Vec::new();
        merge.emit(Moment(horizon), NOW, |event| {
            let Event::Step(step) = event else {
                panic!("{event:?} is no step")
            };
            seen.push((step.socket.cookie, step.at.0));
        });
        seen
    }

    #[test]
    fn batches_of_two_cpus_are_put_in_order_and_what_is_later_waits() {
        let mut merge = Merge::default();
        assert_eq!(merge.push(&[step(1, 10), step(1, 30)].concat()), 2);
        assert_eq!(merge.push(&[step(2, 20), step(2, 40)].concat()), 2);
        assert_eq!(emitted(&mut merge, 35), [(1, 10), (2, 20), (1, 30)]);
        merge.push(&step(1, 38));
        assert_eq!(emitted(&mut merge, 41), [(1, 38), (2, 40)]);
        assert_eq!(emitted(&mut merge, 100), []);
    }

    #[test]
    fn a_batch_that_breaks_off_is_counted() {
        let mut merge = Merge::default();
        let batch = [step(1, 10), step(2, 20)[..20].to_vec()].concat();
        assert_eq!(merge.push(&batch), 2);
        assert_eq!(emitted(&mut merge, 100), [(1, 10)]);
        assert_eq!(merge.malformed, 1);
    }

    proptest! {
        #[test]
        fn every_record_comes_once_and_in_order_within_a_look(
            batches in prop::collection::vec((prop::collection::vec(1_u64..1000, 0..20), 1_u64..1100), 0..20),
        ) {
            let mut merge = Merge::default();
            let (mut cookie, mut seen) = (0, Vec::new());
            for (mut times, horizon) in batches {
                times.sort_unstable();
                let batch: Vec<u8> = times
                    .into_iter()
                    .flat_map(|at| {
                        cookie += 1;
                        step(cookie, at)
                    })
                    .collect();
                merge.push(&batch);
                let look = emitted(&mut merge, horizon);
                prop_assert!(look.is_sorted_by_key(|&(_, at)| at));
                prop_assert!(look.iter().all(|&(_, at)| at < horizon));
                seen.extend(look);
            }
            seen.extend(emitted(&mut merge, u64::MAX >> 8));
            seen.sort_unstable();
            let cookies: Vec<u64> = seen.into_iter().map(|(cookie, _)| cookie).collect();
            prop_assert_eq!(cookies, (1..=cookie).collect::<Vec<_>>());
        }
    }
}
