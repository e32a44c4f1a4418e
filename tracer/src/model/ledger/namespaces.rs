//! Network namespaces: their counts, what is known of them, and the gauge of
//! half-open requests, which is read and not made up of events.

use rustc_hash::FxHashMap;

use super::super::event::{Moment, NamespaceFacts, Netns};
use super::tally::Counts;
use super::testimony::Testimony;

/// A namespace without sockets is forgotten after this much silence, nanoseconds.
const FORGET_AFTER: u64 = 300_000_000_000;

#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) netns: Netns,
    pub(super) facts: Option<NamespaceFacts>,
    /// A connect found no free port since they were told.
    pub(super) doubts_facts: bool,
    pub(super) counts: Counts,
    /// Live, of both kinds.
    pub(super) minisockets: u64,
    pub(super) full_sockets: u64,
    pub(super) half_open: HalfOpen,
    pub(super) last_event: Moment,
    /// When the kernel's counters were asked for last, and between what the
    /// gauges were at each event from then on: the answer is one of those figures.
    asked: Moment,
    minisockets_since: Option<Span>,
    full_sockets_since: Option<Span>,
    /// Closes from FIN_WAIT2 and CLOSING that a full table of TIME_WAITs and
    /// `SO_LINGER 0` both leave without an error, and how many of them were
    /// put down to the former.
    pub(super) silent_closes: u64,
    pub(super) overflows: u64,
    pub(super) last_silent_close: Moment,
    pub(super) testimony: Testimony,
}

impl Namespace {
    /// Something happens in it, and the gauges are about to show it.
    #[inline(always)]
    pub(super) fn stirs(&mut self, at: Moment) {
        self.last_event = at;
        if at >= self.asked {
            self.minisockets_since = Some(Span::over(self.minisockets_since, self.minisockets));
            self.full_sockets_since = Some(Span::over(self.full_sockets_since, self.full_sockets));
        }
    }

    pub(super) fn is_asked(&mut self, at: Moment) {
        self.asked = at;
        self.minisockets_since = None;
        self.full_sockets_since = None;
    }

    /// What the ledger has counted since the kernel was asked.
    pub(super) fn minisockets_then(&self) -> Span {
        Span::over(self.minisockets_since, self.minisockets)
    }

    pub(super) fn full_sockets_then(&self) -> Span {
        Span::over(self.full_sockets_since, self.full_sockets)
    }
}

/// A gauge over some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    low: u64,
    high: u64,
    pub(super) last: u64,
}

impl Span {
    /// By how much a figure exceeds all of its, or falls short of them.
    pub(super) fn beyond(&self, figure: i64) -> i64 {
        figure.saturating_sub(figure.clamp(self.low as i64, self.high as i64))
    }

    #[inline(always)]
    fn over(before: Option<Span>, now: u64) -> Span {
        let Span { low, high, .. } = before.unwrap_or(Span {
            low: now,
            high: now,
            last: now,
        });
        Span {
            low: low.min(now),
            high: high.max(now),
            last: now,
        }
    }
}

/// Half-open requests, as the namespace's listeners count them: `now = seeded +
/// entered − left`. What came and went between two readings is in none of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HalfOpen {
    pub(super) seeded: u64,
    pub(super) entered: u64,
    pub(super) left: u64,
}

impl HalfOpen {
    /// There are so many now; `initial`: and were before the run began.
    pub(super) fn read(&mut self, now: u64, initial: bool) {
        let before = self.now();
        *(if initial {
            &mut self.seeded
        } else {
            &mut self.entered
        }) += now.saturating_sub(before);
        self.left += before.saturating_sub(now);
    }

    pub(super) fn now(&self) -> u64 {
        self.seeded + self.entered - self.left
    }
}

#[derive(Debug, Default)]
pub(super) struct Namespaces {
    all: Vec<Namespace>,
    by_inode: FxHashMap<Netns, u32>,
    free: Vec<u32>,
    /// The last one looked up: events come in runs.
    last: (Netns, u32),
    /// `TCPTimeWaitOverflow` of forgotten namespaces.
    pub(super) forgotten_overflowed: u64,
}

impl Namespaces {
    /// The index of a namespace, which stays its own as long as it has sockets.
    /// `newborn`: it can only have come into being since the seed.
    #[inline]
    pub(super) fn index(&mut self, netns: Netns, newborn: bool) -> u32 {
        if self.last.0 == netns && !self.all.is_empty() {
            return self.last.1;
        }
        let index = match self.by_inode.get(&netns) {
            Some(&index) => index,
            None => self.insert(netns, newborn),
        };
        self.last = (netns, index);
        index
    }

    #[inline(always)]
    pub(super) fn at(&self, index: u32) -> &Namespace {
        &self.all[index as usize]
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut Namespace {
        &mut self.all[index as usize]
    }

    pub(super) fn find(&self, netns: Netns) -> Option<&Namespace> {
        self.by_inode.get(&netns).map(|&index| self.at(index))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.by_inode.values().map(|&index| self.at(index))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.all.iter_mut()
    }

    /// Forgets what has been empty and silent for long; the indices that name
    /// nothing any more.
    pub(super) fn forget_idle(&mut self, now: Moment) -> Vec<u32> {
        let mut forgotten = Vec::new();
        for index in 0..self.all.len() as u32 {
            let it = self.at(index);
            let silent = now
                .0
                .saturating_sub(it.last_event.0.max(it.testimony.heard.0))
                > FORGET_AFTER;
            // What it has counted of them would be forgotten with it.
            let half_open = it.half_open.seeded + it.half_open.entered > 0;
            let empty = it.minisockets == 0 && it.full_sockets == 0 && !half_open;
            if !(silent && empty && it.counts.is_empty())
                || self.by_inode.get(&it.netns) != Some(&index)
            {
                continue;
            }
            let overflowed = self.at(index).testimony.overflowed;
            self.forgotten_overflowed = self.forgotten_overflowed.saturating_add(overflowed);
            self.by_inode.remove(&self.all[index as usize].netns);
            self.free.push(index);
            forgotten.push(index);
            self.last = (Netns(0), u32::MAX);
        }
        if self.last.1 == u32::MAX {
            // The cache must name one that exists; any will do.
            self.last = self
                .by_inode
                .iter()
                .min()
                .map_or((Netns(0), 0), |(&netns, &index)| (netns, index));
            if self.by_inode.is_empty() {
                self.all.clear();
                self.free.clear();
            }
        }
        forgotten
    }

    fn insert(&mut self, netns: Netns, newborn: bool) -> u32 {
        let fresh = Namespace {
            netns,
            facts: None,
            doubts_facts: false,
            counts: Counts::default(),
            minisockets: 0,
            full_sockets: 0,
            half_open: HalfOpen::default(),
            last_event: Moment(0),
            asked: Moment(u64::MAX),
            minisockets_since: None,
            full_sockets_since: None,
            silent_closes: 0,
            overflows: 0,
            last_silent_close: Moment(0),
            testimony: Testimony::new(newborn),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.all[index as usize] = fresh;
                index
            }
            None => {
                self.all.push(fresh);
                (self.all.len() - 1) as u32
            }
        };
        self.by_inode.insert(netns, index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::HalfOpen;

    #[test]
    fn what_is_read_is_what_was_there_and_came_and_went() {
        let mut half_open = HalfOpen::default();
        half_open.read(3, true);
        half_open.read(5, false);
        half_open.read(1, false);
        half_open.read(1, false);
        assert_eq!(
            (half_open.seeded, half_open.entered, half_open.left),
            (3, 2, 4)
        );
        assert_eq!(half_open.now(), 1);
    }
}
