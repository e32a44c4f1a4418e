//! Taking stock: the initial seed, later resyncs, and what they put right.
//!
//! The kernel's sockets are read while events go on, so a seed may be older or
//! newer than an event of its socket, and events from before it may come after
//! it. The first seed counts at once. What a resync disagrees about is kept
//! until the events of that time have passed: only then is it known what was
//! wrong and what was merely on its way.

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::event::{Address, Moment, Netns, Seed, State};
use super::super::happening::Happening;
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
    /// Who ended since it began: by cookie or address, and timer.
    tombstones: FxHashSet<(u64, Address)>,
    /// What the ledger disagrees with, so far.
    disagreements: Vec<Seed>,
    /// Namespaces that were not read, by index.
    unread: FxHashSet<u32>,
}

impl Seeding {
    pub(super) fn began(&self) -> Moment {
        self.began
    }

    fn has_tombstone(&self, seed: &Seed) -> bool {
        let story = Story::BLANK.identified(seed.socket);
        let timer = match seed.timer_expires {
            Some(_) => seed.socket.address,
            None => Address(0),
        };
        self.tombstones.contains(&(story.key, timer))
    }
}

impl Ledger {
    /// Stock is being taken from here on; the first time it is the initial
    /// seed, later it is a resync. The counts of losses should be fresh.
    pub fn begin_seed(&mut self, at: Moment, tell: &mut impl FnMut(&Happening)) {
        self.settle(tell);
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
            tombstones: FxHashSet::default(),
            disagreements: Vec::new(),
            unread: FxHashSet::default(),
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
        let index = self.namespace(netns);
        if let Some(seeding) = &mut self.seeding {
            seeding.unread.insert(index);
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
            if self.has_ended_since(seed) {
                return;
            }
            if !initial {
                self.disagree(seed);
            } else if !self.by_process {
                self.count_seed(seed, true);
            }
            return;
        };
        let story = self.stories.at_mut(slot);
        story.set(flag::FOUND, true);
        let (known, agrees, older) = (
            story.is(flag::TUPLE),
            story.state == seed.state,
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

    /// It has ended: a seed that found it, or is about to, is of the past.
    #[inline(always)]
    pub(super) fn bury(&mut self, story: &Story) {
        if let Some(seeding) = &mut self.seeding {
            seeding.tombstones.insert((story.key, story.timer));
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
            match self.seeded_slot(seed) {
                Some(slot) => wrong += u64::from(self.correct(slot, seed, tell)),
                None if seeding.has_tombstone(seed) => {}
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

    /// The story of a socket that a seed found. One without a cookie is the one
    /// without a cookie at its address; one that has been given a cookie since is
    /// still there, if its ends are the same.
    fn seeded_slot(&mut self, seed: &Seed) -> Option<Slot> {
        let minisocket = seed.timer_expires.is_some();
        let known = if minisocket {
            self.stories.minisocket(seed.socket)
        } else {
            self.stories.full(seed.socket)
        };
        if known.is_some() || seed.socket.cookie == 0 {
            return known;
        }
        let slot = self.stories.by_address(seed.socket.address, minisocket)?;
        let same = self.tuple(slot).is_none_or(|tuple| {
            tuple.local_port == 0
                || (tuple.local_port, tuple.remote_port)
                    == (seed.tuple.local_port, seed.tuple.remote_port)
        });
        if !same {
            return None;
        }
        self.stories.identify(slot, seed.socket.cookie);
        Some(slot)
    }

    /// The seed that runs has nothing more to find.
    pub(super) fn has_read_all(&self) -> bool {
        self.seeding.as_ref().is_some_and(|seeding| seeding.ended)
    }

    fn has_ended_since(&self, seed: &Seed) -> bool {
        let seeding = self.seeding.as_ref();
        seeding.is_some_and(|seeding| seeding.has_tombstone(seed))
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
            Some(expires) => self.found_minisocket(seed.socket, seed.at, seed.state, expires),
            None => Story {
                since: seed.at.0,
                seen: seed.at.0,
                state: seed.state,
                ..Story::BLANK.identified(seed.socket)
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
        if story.state == seed.state {
            return false;
        }
        if let Some(expires) = seed.timer_expires {
            if story.state == State::FinWait2 {
                // The silent step: nothing was missed, it makes no event.
                self.reading(seed.socket, seed.at, seed.state, expires, tell);
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
        for slot in slots {
            let story = self.stories.at_mut(slot);
            // A connect is traced before it has searched its port, and only then
            // can be found.
            let margin = if story.state == State::SynSent {
                UNHASHED
            } else {
                GRACE
            };
            let looked_for = !seeding.unread.contains(&story.namespace);
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
    /// that went and a minisocket of its cookie that came are one story.
    fn replace(
        &mut self,
        gone: Vec<Slot>,
        found: Vec<Seed>,
        tell: &mut impl FnMut(&Happening),
    ) -> u64 {
        let mut wrong = 0;
        let mut births: FxHashMap<u64, Seed> = FxHashMap::default();
        let mut others = Vec::new();
        for seed in found {
            let cookie = seed.socket.cookie;
            if seed.timer_expires.is_none() || cookie == 0 || births.contains_key(&cookie) {
                others.push(seed);
            } else {
                births.insert(cookie, seed);
            }
        }
        for slot in gone {
            wrong += 1;
            let story = self.stories.at(slot);
            let full = !story.is(flag::MINISOCKET) && !story.is(flag::BY_ADDRESS);
            match births.remove(&story.key).filter(|_| full) {
                Some(seed) => self.went_on(slot, &seed, tell),
                None => self.vanish(slot),
            }
        }
        others.extend(births.into_values());
        others.sort_by_key(|seed| (seed.at, seed.socket.address));
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
        if !self.stories.at(slot).is(flag::TUPLE) {
            // All of its steps that carry addresses were missed too.
            self.give_tuple(slot, &seed.tuple);
        }
        let earliest = self.stories.at(slot).since;
        let found = self.found_minisocket(seed.socket, seed.at, seed.state, expires);
        let at = Moment(found.since.max(earliest).min(seed.at.0.max(earliest)));
        let timeout = expires.wrapping_sub(self.clock.jiffies_at(at));
        let birth = Birth {
            minisocket: seed.socket,
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
