//! What the kernel's counters of one namespace say, reading by reading, held
//! against what was seen there.

use std::collections::VecDeque;

use super::super::event::{Counters, Moment};
use super::GRACE;
use super::namespaces::Span;

/// What the kernel's counters of one namespace said, reading by reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Testimony {
    /// When counters were last read: from when, and to when.
    pub(super) read_from: Moment,
    pub(super) heard: Moment,
    pub(super) readings: u64,
    /// Births: the kernel's count and ours, to count from; and its last.
    births_then: Option<(u64, u64)>,
    births_last: u64,
    /// Births known up to the last reading, and those seen since by the millisecond.
    births: u64,
    recent: VecDeque<(u64, u64)>,
    /// Births known to be missing.
    missing: u64,
    /// Overflows: the kernel's count at the last reading.
    overflows_then: Option<u64>,
    /// `TCPTimeWaitOverflow` since the run began.
    pub(super) overflowed: u64,
    pub(super) minisockets: Balance,
    pub(super) full_sockets: Balance,
}

impl Testimony {
    /// `newborn`: nothing came before, the kernel counted from 0.
    pub(super) fn new(newborn: bool) -> Testimony {
        let zero = newborn.then_some(0);
        Testimony {
            births_then: zero.map(|n| (n, n)),
            overflows_then: zero,
            ..Testimony::default()
        }
    }

    #[inline]
    pub(super) fn saw_birth(&mut self, at: Moment) {
        let ms = at.0 / GRACE;
        match self.recent.back_mut() {
            Some((last, count)) if *last >= ms => *count += 1,
            _ => {
                // Nobody reads counters here: what was seen need not be kept apart.
                if self.recent.len() >= 65_536
                    && let Some((_, count)) = self.recent.pop_front()
                {
                    self.births += count;
                }
                self.recent.push_back((ms, 1));
            }
        }
    }

    pub(super) fn seed_settled(&mut self, nothing_wrong: bool) {
        self.minisockets.seed_settled(nothing_wrong);
        self.full_sockets.seed_settled(nothing_wrong);
    }

    /// A birth that nobody saw, but whose minisocket was found since.
    pub(super) fn found_birth(&mut self) {
        self.births += 1;
        self.missing = self.missing.saturating_sub(1);
    }

    /// Takes a reading. Returns the births that the kernel counted and nobody
    /// saw, beyond those known to be missing.
    pub(super) fn take(&mut self, counters: &Counters) -> u64 {
        let before = self.overflowed_before(counters.overflowed);
        let overflowed = counters.overflowed - before;
        self.overflowed = self.overflowed.saturating_add(overflowed);

        // What the kernel had surely counted, for the first reading; what it may
        // have counted, for the others: a race is never taken for a loss.
        let surely = counters.from.0 / GRACE;
        let ours_first = self.births
            + self
                .recent
                .iter()
                .filter(|&&(ms, _)| ms < surely)
                .map(|&(_, count)| count)
                .sum::<u64>();
        let until = counters.to.0 / GRACE + 1;
        while let Some(&(ms, count)) = self.recent.front()
            && ms <= until
        {
            self.births += count;
            self.recent.pop_front();
        }
        let Some(kernel) = counters.births else {
            return 0;
        };
        if kernel < self.births_last {
            // Another namespace has the inode now: it is counted from here on.
            self.births_then = None;
            self.missing = 0;
        }
        self.births_last = kernel;
        let (kernel_then, ours_then) = *self.births_then.get_or_insert((kernel, ours_first));
        let missing = kernel
            .saturating_sub(kernel_then)
            .saturating_sub(self.births.saturating_sub(ours_then));
        let fresh = missing.saturating_sub(self.missing);
        self.missing = self.missing.saturating_add(fresh);
        fresh
    }

    /// Up to where the kernel's overflows are in the sum already.
    fn overflowed_before(&mut self, now: u64) -> u64 {
        match self.overflows_then.replace(now) {
            None => now,
            // A counter that begins anew is another namespace's.
            Some(then) if then > now => 0,
            Some(then) => then,
        }
    }
}

/// One of sockstat's gauges against the ledger's.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    /// How far the kernel's figure lay outside what the ledger counted, at the last
    /// reading; how often in a row on that side.
    beyond: i64,
    readings: u32,
    /// Kernel less ledger, at the last reading.
    difference: i64,
    /// It has been doubted; by how many seeds in vain.
    doubted: bool,
    in_vain: u32,
    /// A difference that two seeds could not explain: how the two count, not
    /// what was missed.
    accepted: i64,
}

impl Balance {
    /// In a busy namespace it is only telling if it stays.
    const TELLING: u32 = 3;

    /// Whether there is a difference. What the ledger has counted since the kernel
    /// was asked is none: which of those figures the answer is nobody knows.
    pub(super) fn weigh(&mut self, kernel: u64, ledger: Span, quiet: bool) -> bool {
        let kernel = i64::try_from(kernel).unwrap_or(i64::MAX);
        let beyond = match ledger.beyond(kernel) {
            0 => 0,
            _ => ledger.beyond(kernel.saturating_sub(self.accepted)),
        };
        if beyond == 0 || beyond.signum() != self.beyond.signum() {
            *self = Balance {
                accepted: self.accepted,
                ..Balance::default()
            };
        }
        self.beyond = beyond;
        self.difference = kernel - ledger.last as i64;
        self.readings += 1;
        let doubtful = beyond != 0 && (quiet || self.readings >= Self::TELLING);
        self.doubted |= doubtful;
        doubtful
    }

    fn seed_settled(&mut self, nothing_wrong: bool) {
        if !std::mem::take(&mut self.doubted) || !nothing_wrong {
            self.in_vain = 0;
            return;
        }
        self.in_vain += 1;
        self.readings = 0;
        if self.in_vain >= 2 {
            self.accepted = self.difference;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(ms: u64, births: u64) -> Counters {
        let at = Moment(ms * GRACE);
        Counters {
            from: at,
            to: at,
            births: Some(births),
            reused_by_connect: 0,
            overflowed: 0,
            listen_overflows: 0,
            minisockets: 0,
            full_sockets: 0,
        }
    }

    #[test]
    fn what_the_kernel_counted_beyond_what_was_seen_is_missing() {
        let mut testimony = Testimony::default();
        testimony.saw_birth(Moment(GRACE));
        assert_eq!(testimony.take(&reading(10, 1)), 0);
        testimony.saw_birth(Moment(21 * GRACE));
        testimony.saw_birth(Moment(22 * GRACE));
        assert_eq!(testimony.take(&reading(30, 2)), 0);
        assert_eq!(testimony.take(&reading(40, 4)), 1);
    }
}
