//! Taking stock: the initial seed, later resyncs, and what they put right.
//!
//! The kernel's sockets are read while events go on, so a seed may be older or
//! newer than an event of its socket, and events from before it may come after
//! it. The first seed counts at once. What a resync disagrees about is kept
//! until the events of that time have passed: only then is it known what was
//! wrong and what was merely on its way.

use rustc_hash::FxHashMap;

use super::super::destinations::NOWHERE;
use super::super::event::{Moment, Netns, Seed, State, Tuple};
use super::super::happening::{Happening, Side};
use super::super::owners::NOBODY;
use super::births::Birth;
use super::stories::{Slot, Story, flag};
use super::{Arming, GRACE, Ledger, Lost};

/// Events stamped this much later than the end of a seed come after all those
/// that happened before it: the ring keeps order to within far less. Nanoseconds.
const SETTLED: u64 = 2_000_000;

/// A search for a free port, which takes milliseconds where they run out, may
/// last this long. Nanoseconds.
const UNHASHED: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Seeding {
    began: Moment,
    initial: bool,
    ended: bool,
    /// What was lost when it began.
    lost: Lost,
    /// Objects that ended since it began, by address.
    tombs: FxHashMap<u64, Moment>,
    /// What the ledger disagrees with, so far.
    disagreements: Vec<Seed>,
    /// Namespaces that were not read, by index.
    unread: FxHashMap<u32, Unread>,
}

/// Why a namespace was not read: what was not found there may live all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// It is there, and cannot be entered.
    Closed,
    /// Nothing leads there any more. The kernel ends its minisockets in its own
    /// time, and tells of it.
    Ended,
}

impl Seeding {
    pub(super) fn began(&self) -> Moment {
        self.began
    }
}

impl Ledger {
    /// Stock is being taken from here on; the first time it is the initial
    /// seed, later it is a resync. The counts of losses should be fresh.
    pub fn begin_seed(&mut self, at: Moment, tell: &mut impl FnMut(&Happening)) {
        self.settle(Moment(u64::MAX), tell);
        if self.seeding.is_some() {
            // One that never ended says nothing about what is gone.
            self.forget_marks();
        }
        self.doubts.seed_begins();
        self.seeding = Some(Seeding {
            began: at,
            initial: !self.seeded,
            ended: false,
            lost: self.lost,
            tombs: FxHashMap::default(),
            disagreements: Vec::new(),
            unread: FxHashMap::default(),
        });
    }

    /// Every namespace has been read. Events that happened meanwhile may still
    /// come; the ring should be drained before a snapshot is asked for.
    pub fn end_seed(&mut self, at: Moment) {
        let Some(seeding) = &mut self.seeding else {
            return;
        };
        seeding.ended = true;
        self.settle_after = at.0.saturating_add(SETTLED);
        self.tell_sides();
    }

    /// The seed that runs could not read this namespace to its end, though it is
    /// there: its sockets are left as they were known.
    pub fn passed_over(&mut self, netns: Netns) {
        self.was_not_read(netns, Unread::Closed);
    }

    /// The seed that runs knows of no way into this namespace: its minisockets
    /// are left until their time is over.
    pub fn out_of_reach(&mut self, netns: Netns) {
        self.was_not_read(netns, Unread::Ended);
    }

    fn was_not_read(&mut self, netns: Netns, why: Unread) {
        let index = self.namespace(netns);
        if let Some(seeding) = &mut self.seeding {
            seeding.unread.insert(index, why);
        }
    }

    pub(super) fn seed(&mut self, seed: &Seed) {
        let minisocket = seed.timer_expires.is_some();
        let sound = match seed.state {
            State::TimeWait => minisocket,
            State::FinWait2 => true,
            State::Close | State::NewSynRecv => false,
            _ => !minisocket,
        };
        if !sound || !self.config.filter.admits(&seed.tuple) {
            return;
        }
        let initial = self.seeding.as_ref().is_none_or(|seeding| seeding.initial);
        let Some(slot) = self.seeded_slot(seed) else {
            if self.buried_since(seed) {
                return;
            }
            if !initial {
                self.disagree(seed);
            } else if !self.by_process {
                self.count_seed(seed, true);
            }
            return;
        };
        let same_socket = self.may_be(slot, seed);
        let story = self.stories.at_mut(slot);
        story.set(flag::FOUND, true);
        let (known, agrees, older) = (
            story.is(flag::TUPLE),
            same_socket && story.state == seed.state,
            story.seen <= seed.at.0,
        );
        if !known {
            self.give_tuple(slot, &seed.tuple);
        }
        if !older {
            return;
        }
        match seed.timer_expires {
            _ if !agrees => self.disagree(seed),
            Some(expires) => self.notice_silent_rearm(slot, expires),
            None => {}
        }
    }

    /// The object at this address ended; a seed of it that comes later, or came
    /// earlier, is of the past.
    #[inline(always)]
    pub(super) fn bury(&mut self, key: u64, at: Moment) {
        if let Some(seeding) = &mut self.seeding {
            seeding.tombs.insert(key, at);
        }
    }

    /// Puts right what the seed still disagrees with, now that its time has passed.
    pub(super) fn settle_seed(&mut self, tell: &mut impl FnMut(&Happening)) {
        self.settle_after = u64::MAX;
        if self.seeding.as_ref().is_none_or(|seeding| !seeding.ended) {
            return;
        }
        let Some(seeding) = self.seeding.take() else {
            return;
        };
        let mut wrong = 0;
        let mut found = Vec::new();
        for seed in &seeding.disagreements {
            let tomb = seeding.tombs.get(&seed.address.0);
            match self.seeded_slot(seed) {
                Some(slot) => wrong += u64::from(self.correct(slot, seed, tell)),
                None if tomb.is_some_and(|at| at.0.saturating_add(GRACE) >= seed.at.0) => {}
                None => found.push(*seed),
            }
        }
        let gone = if seeding.initial {
            self.forget_marks();
            Vec::new()
        } else {
            self.not_found(&seeding)
        };
        wrong += self.replace(gone, found, tell);
        self.found_wrong_by_seed(wrong);
        self.judge();
        if !seeding.initial {
            self.resyncs += 1;
        }
        self.seeded = true;
        self.tell_sides();
        let overdue = self.overdue(seeding.began);
        self.doubts.seed_settled(seeding.lost, wrong == 0, overdue);
        for namespace in self.namespaces.iter_mut() {
            namespace.testimony.seed_settled(wrong == 0);
        }
    }

    fn seeded_slot(&self, seed: &Seed) -> Option<Slot> {
        if seed.timer_expires.is_some() {
            self.stories.minisocket(seed.address)
        } else {
            self.stories.full(seed.address)
        }
    }

    /// Whether the story at a seed's address is of that socket, as far as the
    /// ports tell.
    fn may_be(&self, slot: Slot, seed: &Seed) -> bool {
        self.tuple(slot).is_none_or(|tuple| {
            tuple.local_port == 0
                || (tuple.local_port, tuple.remote_port)
                    == (seed.tuple.local_port, seed.tuple.remote_port)
        })
    }

    fn buried_since(&self, seed: &Seed) -> bool {
        self.seeding
            .as_ref()
            .and_then(|seeding| seeding.tombs.get(&seed.address.0))
            .is_some_and(|at| at.0.saturating_add(GRACE) >= seed.at.0)
    }

    fn disagree(&mut self, seed: &Seed) {
        if let Some(seeding) = &mut self.seeding {
            seeding.disagreements.push(*seed);
        }
    }

    /// A socket that the seed found and nobody told of: seeded, or entered
    /// unseen if a resync finds it.
    fn count_seed(&mut self, seed: &Seed, seeded: bool) -> Slot {
        let namespace = self.namespace(seed.tuple.netns);
        let mut story = match seed.timer_expires {
            Some(expires) => self.found_minisocket(seed.address, seed.at, seed.state, expires),
            None => Story {
                key: seed.address.0,
                since: seed.at.0,
                seen: seed.at.0,
                state: seed.state,
                ..Story::BLANK
            },
        };
        story.namespace = namespace;
        story.set_tuple(&seed.tuple);
        story.flags |= flag::FROM_SEED | flag::FOUND;
        story.set(flag::SEEDED, seeded);
        let slot = self.admit(story);
        if seeded {
            self.count_seeded(namespace, seed.state);
        } else {
            self.count_entered(namespace, seed.state);
        }
        if seed.timer_expires.is_some() {
            self.count_found_minisocket(slot, seed.at, seeded);
            if !seeded {
                self.namespaces.at_mut(namespace).testimony.found_birth();
            }
        }
        self.sideless.push((slot, self.stories.at(slot).id));
        slot
    }

    /// The kernel has this socket in another state. True if an event was missed.
    fn correct(&mut self, slot: Slot, seed: &Seed, tell: &mut impl FnMut(&Happening)) -> bool {
        let story = *self.stories.at(slot);
        // The step may have been traced just before its state could be read.
        if story.seen.saturating_add(GRACE) > seed.at.0 {
            return false;
        }
        if !self.may_be(slot, seed) {
            if seed
                .timer_expires
                .is_some_and(|expires| expires.abs_diff(story.expires) <= 1)
            {
                self.mistook(slot, seed);
                return true;
            }
            // The address was given to another: an end and a beginning went unseen.
            self.vanish(slot);
            self.count_seed(seed, false);
            return true;
        }
        if story.state == seed.state {
            return false;
        }
        if let Some(expires) = seed.timer_expires {
            if story.state == State::FinWait2 {
                // The silent step: nothing was missed, it makes no event.
                self.reading(seed.address, seed.at, seed.state, expires, tell);
                return false;
            }
            self.vanish(slot);
            self.count_seed(seed, false);
            return true;
        }
        self.count_left(story.namespace, story.state);
        self.count_entered(story.namespace, seed.state);
        self.unlist_port(slot);
        let story = self.stories.at_mut(slot);
        story.state = seed.state;
        story.since = seed.at.0;
        story.seen = seed.at.0;
        story.flags = story.flags & !(flag::DATED | flag::SEEDED) | flag::FROM_SEED;
        self.list_port(slot);
        true
    }

    /// The birth of this minisocket was seen, for it is armed to the jiffy as it
    /// was then. But its full socket had been given the address of one whose end
    /// went unseen, and was taken for that one.
    fn mistook(&mut self, slot: Slot, seed: &Seed) {
        let story = *self.stories.at(slot);
        if story.destination != NOWHERE {
            if story.state == State::TimeWait {
                self.destinations.time_wait(story.destination, false);
            }
            self.destinations.release(story.destination);
        }
        self.own(slot, NOBODY);
        self.give_side(slot, Side::Unknown);
        let story = self.stories.at_mut(slot);
        story.destination = NOWHERE;
        story.local_port = 0;
        story.set_tuple(&seed.tuple);
        story.seen = seed.at.0;
        self.sideless.push((slot, story.id));
    }

    fn forget_marks(&mut self) {
        let slots: Vec<Slot> = self.stories.slots().collect();
        for slot in slots {
            self.stories.at_mut(slot).set(flag::FOUND, false);
        }
    }

    /// Stories that nothing was heard of since before the seed, nor found by it.
    fn not_found(&mut self, seeding: &Seeding) -> Vec<Slot> {
        let slots: Vec<Slot> = self.stories.slots().collect();
        let mut gone = Vec::new();
        let overdue = self.overdue_before(seeding.began);
        for slot in slots {
            let story = self.stories.at_mut(slot);
            // A connect is traced before it has searched its port, and only then
            // can be found.
            let margin = if story.state == State::SynSent {
                UNHASHED
            } else {
                GRACE
            };
            let looked_for = match seeding.unread.get(&story.namespace) {
                None => true,
                Some(Unread::Closed) => false,
                Some(Unread::Ended) => {
                    let left = story.expires.wrapping_sub(overdue) as i32;
                    !story.is(flag::MINISOCKET) || left < 0
                }
            };
            if looked_for
                && !story.is(flag::FOUND)
                && story.seen.saturating_add(margin) < seeding.began.0
            {
                gone.push(slot);
            }
            story.set(flag::FOUND, false);
        }
        gone
    }

    /// Sockets that are gone go, sockets that were found come; a full socket
    /// that went and a minisocket of its tuple that came are one story.
    fn replace(
        &mut self,
        gone: Vec<Slot>,
        found: Vec<Seed>,
        tell: &mut impl FnMut(&Happening),
    ) -> u64 {
        let mut wrong = 0;
        let mut births: FxHashMap<Tuple, Seed> = FxHashMap::default();
        let mut others = Vec::new();
        for seed in found {
            if seed.timer_expires.is_none() || births.contains_key(&seed.tuple) {
                others.push(seed);
            } else {
                births.insert(seed.tuple, seed);
            }
        }
        for slot in gone {
            wrong += 1;
            let full = !self.stories.at(slot).is(flag::MINISOCKET);
            let birth = self
                .tuple(slot)
                .filter(|_| full)
                .and_then(|tuple| births.remove(&tuple));
            match birth {
                Some(seed) => self.went_on(slot, &seed, tell),
                None => self.vanish(slot),
            }
        }
        others.extend(births.into_values());
        others.sort_by_key(|seed| (seed.at, seed.address));
        // Whose they are, a seed does not tell.
        others.retain(|_| !self.by_process);
        for seed in others {
            if self.seeded_slot(&seed).is_none() {
                wrong += 1;
                let slot = self.count_seed(&seed, false);
                self.stories.at_mut(slot).set(flag::FOUND, false);
            }
        }
        wrong
    }

    /// The birth of this minisocket was missed; its expiry dates it, but not
    /// to better than a re-arm, so that its life does not count as whole.
    fn went_on(&mut self, slot: Slot, seed: &Seed, tell: &mut impl FnMut(&Happening)) {
        let expires = seed.timer_expires.unwrap_or_default();
        let earliest = self.stories.at(slot).since;
        let found = self.found_minisocket(seed.address, seed.at, seed.state, expires);
        let at = Moment(found.since.max(earliest).min(seed.at.0.max(earliest)));
        let timeout = expires.wrapping_sub(self.clock.jiffies_at(at));
        let birth = Birth {
            timer: seed.address,
            at,
            substate: seed.state,
            netns: seed.tuple.netns,
            arming: Arming { expires, timeout },
        };
        self.become_minisocket(slot, birth, tell);
        let namespace = self.stories.at(slot).namespace;
        self.namespaces.at_mut(namespace).testimony.found_birth();
        let story = self.stories.at_mut(slot);
        story.seen = seed.at.0;
        story.flags = story.flags & !flag::WHOLE | flag::FROM_SEED;
    }
}
