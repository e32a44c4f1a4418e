//! Witnesses: what else the kernel says about its sockets, and whether it
//! agrees with the ledger.
//!
//! No counter of losses is complete, so births are held against the kernel's
//! own count, live sockets against sockstat, and timers against the time. A
//! disagreement is a doubt: it asks for a resync, it mends nothing itself. What
//! the kernel says is somebody else's figure: however odd, it overflows nothing.

use std::fmt;

use super::super::event::{Counters, Lost, Moment, Netns};
use super::Ledger;

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
            Doubt::Lost(Lost { ring, recursion }) => write!(
                f,
                "events were lost since the last seed ({ring} for want of room in the ring, {recursion} skipped by \
                 the kernel)"
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
    /// Births that only the kernel counted, and what else did not fit: not judged
    /// yet, because the counters of losses may be about to explain them.
    missing: u64,
    wrong: u64,
    /// Losses that explain no missing birth any more: they have explained one, or
    /// all they hid has been missed by now.
    spent: u64,
    /// Losses told by when the kernel's counters were asked last, and the time before.
    told: [u64; 2],
    /// Minisockets past their expiry that a seed still found alive.
    tolerated: u64,
}

impl Doubts {
    /// The kernel's counters are asked anew, after so many losses. A birth that a
    /// loss hides is missing from the next answer, so what was told two answers ago
    /// is no excuse for what is missing from now on.
    fn counters_are_asked(&mut self, lost: u64) {
        let [last, before] = self.told;
        self.spent = self.spent.max(before);
        self.told = [lost, last];
    }

    fn saw_none_of(&mut self, n: u64) {
        self.unseen = self.unseen.saturating_add(n);
    }

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

impl Ledger {
    /// Why the counts may be wrong, and a resync is wanted; `None` where they
    /// are exact as far as anybody can tell.
    #[must_use]
    pub fn doubts(&self, now: Moment) -> Option<Doubt> {
        if self.lost != self.doubts.mended {
            let Lost { ring, recursion } = self.doubts.mended;
            return Some(Doubt::Lost(Lost {
                ring: self.lost.ring.saturating_sub(ring),
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
        self.expiries.before(self.overdue_before(now))
    }

    /// Who expires earlier than this jiffy is overdue.
    pub(super) fn overdue_before(&self, now: Moment) -> u32 {
        let late = self.clock.slack() + self.clock.hz();
        self.clock.jiffies_at(now).wrapping_sub(late)
    }

    /// Judges what was found wrong, now that the counters of losses have been
    /// told: each loss explains one missing birth, and any loss whatever else
    /// did not fit. The rest went unseen.
    pub(super) fn judge(&mut self) {
        let missing = std::mem::take(&mut self.doubts.missing);
        let explained = missing.min(self.unspent_losses());
        self.doubts.spent += explained;
        self.doubts.saw_none_of(missing - explained);
        self.doubts.announced = self.doubts.announced.saturating_add(missing);
        let wrong = std::mem::take(&mut self.doubts.wrong);
        if self.lost == self.doubts.mended {
            self.doubts.saw_none_of(wrong);
        }
    }

    fn unspent_losses(&self) -> u64 {
        self.lost_records().saturating_sub(self.doubts.spent)
    }

    /// Losses that may have been births.
    fn lost_records(&self) -> u64 {
        let Lost { ring, recursion } = self.lost;
        ring.saturating_add(recursion)
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
        self.doubts.announced = self.doubts.announced.saturating_add(1);
    }

    /// Something was missed, and it is not known yet whether a counter told of it.
    pub(super) fn found_wrong(&mut self, n: u64) {
        self.doubts.wrong = self.doubts.wrong.saturating_add(n);
    }

    /// The same, of what a seed put right: part of it may have been counted
    /// when it was noticed.
    pub(super) fn found_wrong_by_seed(&mut self, n: u64) {
        let announced = self.doubts.announced;
        self.found_wrong(n.saturating_sub(announced));
    }

    /// The kernel's counters are being read from now on: what happens later than
    /// this may not be in them.
    pub fn asks(&mut self, now: Moment) {
        self.doubts.counters_are_asked(self.lost_records());
        for namespace in self.namespaces.iter_mut() {
            namespace.is_asked(now);
        }
    }

    pub(super) fn counters(&mut self, netns: Netns, counters: &Counters) {
        let index = self.namespace(netns);
        let taking_stock = self.seeding.is_some() || !self.seeded;
        let filtering = !self.config.filter.is_empty();
        let namespace = self.namespaces.at_mut(index);
        let minisockets = namespace.minisockets_then();
        let full_sockets = namespace.full_sockets_then();
        let testimony = &mut namespace.testimony;
        let missing = testimony.take(counters);
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
        self.doubts.missing = self.doubts.missing.saturating_add(missing);
        if missing > 0 && self.doubts.missing > self.unspent_losses() {
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
                ledger: minisockets.last,
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
                ledger: full_sockets.last,
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
