//! Witnesses: what else the kernel says about its sockets, and whether it
//! agrees with the ledger.
//!
//! No counter of losses is complete, so births are held against the kernel's
//! own count, live sockets against sockstat, and timers against the time. A
//! disagreement is a doubt: it asks for a resync, it mends nothing itself.

use std::collections::VecDeque;
use std::fmt;

use super::super::event::{Counters, Lost, Moment, Netns};
use super::{GRACE, Ledger};

/// Why the counts may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Events were lost.
    Lost(Lost),
    /// Steps that did not follow from what was known.
    Mismatches(u64),
    /// The kernel counted births that were not seen.
    Births { netns: Netns, missing: u64 },
    /// sockstat counts other live minisockets.
    Minisockets {
        netns: Netns,
        kernel: u64,
        ledger: u64,
    },
    /// sockstat counts other live full sockets.
    FullSockets {
        netns: Netns,
        kernel: u64,
        ledger: u64,
    },
    /// Timers that should have run out.
    Overdue(u64),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Doubt::Lost(Lost {
                ring,
                map,
                recursion,
            }) => write!(
                f,
                "events were lost since the last seed ({ring} for want of room in the ring, {map} of a map, {recursion} \
                 skipped by the kernel)"
            ),
            Doubt::Mismatches(n) => {
                write!(f, "{n} transitions did not follow from the states known")
            }
            Doubt::Births {
                netns: Netns(netns),
                missing,
            } => {
                write!(
                    f,
                    "the kernel counted {missing} minisocket births in namespace {netns} that were not seen"
                )
            }
            Doubt::Minisockets {
                netns: Netns(netns),
                kernel,
                ledger,
            } => {
                write!(
                    f,
                    "namespace {netns} has {kernel} minisockets by sockstat, {ledger} by events"
                )
            }
            Doubt::FullSockets {
                netns: Netns(netns),
                kernel,
                ledger,
            } => {
                write!(
                    f,
                    "namespace {netns} has {kernel} full sockets by sockstat, {ledger} by events"
                )
            }
            Doubt::Overdue(n) => write!(
                f,
                "{n} minisockets are past their expiry and were not seen to end"
            ),
        }
    }
}

/// The doubts of the ledger as a whole.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Raised since the last seed began.
    raised: Option<Doubt>,
    /// Raised before the seed that runs began.
    prior: Option<Doubt>,
    mismatches: u64,
    /// Losses that a completed seed has put right.
    mended: Lost,
    /// What nobody counted and a witness found.
    pub(super) unseen: u64,
    /// Found by a witness and counted, so that the resync it asks for does not
    /// count them again.
    announced: u64,
    /// Minisockets past their expiry that a seed still found alive.
    tolerated: u64,
}

impl Doubts {
    fn raise(&mut self, doubt: Doubt) {
        self.raised.get_or_insert(doubt);
    }

    pub(super) fn seed_begins(&mut self) {
        self.prior = self.raised.take().or(self.prior);
        self.mismatches = 0;
    }

    pub(super) fn seed_settled(&mut self, lost: Lost, nothing_wrong: bool, overdue: u64) {
        self.prior = None;
        self.mended = lost;
        self.announced = 0;
        if nothing_wrong || overdue < self.tolerated {
            self.tolerated = overdue;
        }
    }
}

/// What the kernel's counters of one namespace said, reading by reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Testimony {
    /// When counters were last read: from when, and to when.
    read_from: Moment,
    pub(super) heard: Moment,
    readings: u64,
    /// Births: the kernel's count and ours at the first reading.
    births_then: Option<(u64, u64)>,
    /// Births seen up to the last reading, and since, by the millisecond.
    births: u64,
    recent: VecDeque<(u64, u64)>,
    missing: u64,
    overflowed_then: Option<u64>,
    /// `TCPTimeWaitOverflow` since the run began.
    pub(super) overflowed: u64,
    minisockets: Balance,
    full_sockets: Balance,
}

impl Testimony {
    /// `newborn`: nothing came before, the kernel counted from 0.
    pub(super) fn new(newborn: bool) -> Testimony {
        let zero = newborn.then_some(0);
        Testimony {
            births_then: zero.map(|n| (n, n)),
            overflowed_then: zero,
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

    /// Births that the kernel counted and nobody saw, beyond those known to be missing.
    fn missing_births(&mut self, counters: &Counters) -> u64 {
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
        let (kernel_then, ours_then) = *self.births_then.get_or_insert((kernel, self.births));
        let missing = kernel
            .saturating_sub(kernel_then)
            .saturating_sub(self.births - ours_then);
        let fresh = missing.saturating_sub(self.missing);
        self.missing += fresh;
        fresh
    }
}

/// One of sockstat's gauges against the ledger's.
#[derive(Clone, Debug, Default)]
struct Balance {
    /// Kernel less ledger, at the last reading; how often in a row.
    difference: i64,
    readings: u32,
    /// It has been doubted; by how many seeds in vain.
    doubted: bool,
    in_vain: u32,
    /// A difference that two seeds could not explain: how the two count, not
    /// what was missed.
    accepted: i64,
}

impl Balance {
    /// In a busy namespace a difference is only telling if it stays the same.
    const TELLING: u32 = 3;

    fn weigh(&mut self, kernel: u64, ledger: u64, quiet: bool) -> bool {
        let difference = kernel as i64 - ledger as i64;
        if difference == self.difference {
            self.readings += 1;
        } else {
            *self = Balance {
                difference,
                readings: 1,
                accepted: self.accepted,
                ..Balance::default()
            };
        }
        let telling = quiet || self.readings >= Self::TELLING;
        let doubtful = telling && difference != 0 && difference != self.accepted;
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

impl Ledger {
    /// Why the counts may be wrong, and a resync is wanted; `None` where they
    /// are exact as far as anybody can tell.
    #[must_use]
    pub fn doubts(&self, now: Moment) -> Option<Doubt> {
        if self.lost != self.doubts.mended {
            let Lost {
                ring,
                map,
                recursion,
            } = self.doubts.mended;
            return Some(Doubt::Lost(Lost {
                ring: self.lost.ring.saturating_sub(ring),
                map: self.lost.map.saturating_sub(map),
                recursion: self.lost.recursion.saturating_sub(recursion),
            }));
        }
        if let Some(doubt) = self.doubts.raised.or(self.doubts.prior) {
            return Some(match doubt {
                Doubt::Mismatches(_) => Doubt::Mismatches(self.doubts.mismatches.max(1)),
                doubt => doubt,
            });
        }
        let overdue = self.overdue(now);
        (self.seeded && overdue > self.doubts.tolerated).then_some(Doubt::Overdue(overdue))
    }

    /// Minisockets whose timers should have run out a second ago, the wheel's
    /// slack included.
    pub(super) fn overdue(&self, now: Moment) -> u64 {
        let late = self.clock.slack() + self.clock.hz();
        self.expiries
            .before(self.clock.jiffies_at(now).wrapping_sub(late))
    }

    /// A step did not follow from the state known.
    pub(super) fn mismatched(&mut self, at: Moment) {
        self.found_wrong(1);
        // What a running seed will set right by itself is no reason for another.
        if self
            .seeding
            .as_ref()
            .is_none_or(|seeding| at >= seeding.began())
        {
            self.doubts.mismatches += 1;
            self.doubts.raise(Doubt::Mismatches(1));
        }
        self.doubts.announced += 1;
    }

    /// Something was missed; unless a counter told of losses, nobody counted it.
    pub(super) fn found_wrong(&mut self, n: u64) {
        if self.lost == self.doubts.mended {
            self.doubts.unseen += n;
        }
    }

    /// The same, of what a seed put right: part of it may have been counted
    /// when it was noticed.
    pub(super) fn found_wrong_by_seed(&mut self, n: u64) {
        let announced = self.doubts.announced;
        self.found_wrong(n.saturating_sub(announced));
    }

    pub(super) fn counters(&mut self, netns: Netns, counters: &Counters) {
        let index = self.namespace(netns);
        let taking_stock = self.seeding.is_some() || !self.seeded;
        let filtering = self.filtering;
        let namespace = self.namespaces.at_mut(index);
        let (minisockets, full_sockets) = (namespace.minisockets, namespace.full_sockets);
        let testimony = &mut namespace.testimony;
        let missing = testimony.missing_births(counters);
        let overflowed_then = *testimony.overflowed_then.get_or_insert(counters.overflowed);
        testimony.overflowed = counters.overflowed.saturating_sub(overflowed_then);
        let first = testimony.readings == 0;
        let quiet = !first && namespace.last_event < testimony.read_from;
        testimony.readings += 1;
        testimony.read_from = counters.from;
        testimony.heard = counters.to;
        self.reclassify(index, counters.from);
        // A filter hides births and sockets from us, not from the kernel's counters;
        // and while stock is taken, it is known that not all is counted yet.
        if filtering {
            return;
        }
        if missing > 0 {
            self.found_wrong(missing);
            self.doubts.announced += missing;
            self.doubts.raise(Doubt::Births { netns, missing });
        }
        if taking_stock {
            return;
        }
        let testimony = &mut self.namespaces.at_mut(index).testimony;
        if testimony
            .minisockets
            .weigh(counters.minisockets, minisockets, quiet)
        {
            let kernel = counters.minisockets;
            self.doubts.raise(Doubt::Minisockets {
                netns,
                kernel,
                ledger: minisockets,
            });
        }
        let testimony = &mut self.namespaces.at_mut(index).testimony;
        if testimony
            .full_sockets
            .weigh(counters.full_sockets, full_sockets, quiet)
        {
            let kernel = counters.full_sockets;
            self.doubts.raise(Doubt::FullSockets {
                netns,
                kernel,
                ledger: full_sockets,
            });
        }
    }

    /// A full table and `SO_LINGER 0` look alike at the close; the kernel's
    /// counter says how many were the former.
    fn reclassify(&mut self, namespace: u32, counted_at: Moment) {
        let namespace = self.namespaces.at_mut(namespace);
        let truth = namespace.testimony.overflowed.min(namespace.silent_closes);
        let straight = &mut self.tally.closes.straight_to_closed;
        if truth > namespace.overflows {
            let more = (truth - namespace.overflows).min(straight.aborted);
            straight.aborted -= more;
            straight.overflow += more;
            namespace.overflows += more;
        } else if namespace.last_silent_close < counted_at {
            // Those after the counter was read are not in it yet.
            let fewer = (namespace.overflows - truth).min(straight.overflow);
            straight.overflow -= fewer;
            straight.aborted += fewer;
            namespace.overflows -= fewer;
        }
    }
}
