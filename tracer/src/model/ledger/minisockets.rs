//! The life of a minisocket: re-armed, stepped in silence, ended, vanished.

use super::super::event::{Arming, Identity, Moment, Netns, Reason, State, Tuple};
use super::super::happening::{Happening, What};
use super::stories::{Slot, Story, flag};
use super::tally::end_name;
use super::{Ledger, UNKNOWN};

/// How a minisocket ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) at: Moment,
    pub(super) substate: State,
    pub(super) reason: Reason,
    pub(super) expires: u32,
    pub(super) pid: u32,
}

impl Ledger {
    pub(super) fn saw_timeout(&mut self, timeout: u32) {
        if self.clock.saw_timeout(timeout) {
            self.tally
                .lives
                .retune(self.clock.nominal_ns(), self.clock.slack_ns());
        }
    }

    pub(super) fn rearm(
        &mut self,
        minisocket: Identity,
        at: Moment,
        substate: State,
        arming: Arming,
        netns: Netns,
        tell: &mut impl FnMut(&Happening),
    ) {
        if !matches!(substate, State::TimeWait | State::FinWait2) {
            return;
        }
        if substate == State::TimeWait {
            self.saw_timeout(arming.timeout);
        }
        let slot = match self.find_minisocket(minisocket) {
            Some(slot) => slot,
            None if self.judging => return,
            None => {
                self.admit_unseen_minisocket(minisocket, at, substate, arming.expires, netns);
                return;
            }
        };
        let story = *self.stories.at(slot);
        if story.is(flag::FROM_SEED) && at.0 < story.seen {
            return;
        }
        self.namespaces.at_mut(story.namespace).stirs(at);
        if story.state == State::FinWait2 && substate == State::TimeWait {
            self.step_to_time_wait(slot, at, arming.expires, tell);
            return;
        }
        self.set_expires(slot, arming.expires);
        self.stories.at_mut(slot).seen = at.0;
        self.count_rearm(slot);
        tell(&self.happening(slot, at, What::MinisocketRearm { state: story.state }));
    }

    /// A minisocket read in place.
    pub(super) fn reading(
        &mut self,
        minisocket: Identity,
        at: Moment,
        substate: State,
        expires: u32,
        tell: &mut impl FnMut(&Happening),
    ) {
        let Some(slot) = self.find_minisocket(minisocket) else {
            return;
        };
        let story = self.stories.at(slot);
        match (story.state, substate) {
            (State::FinWait2, State::TimeWait) => {
                let then = self.date_of_step(slot, expires, at);
                self.step_to_time_wait(slot, then, expires, tell);
            }
            (State::TimeWait, State::TimeWait) => self.notice_silent_rearm(slot, expires),
            _ => {}
        }
    }

    pub(super) fn end(
        &mut self,
        minisocket: Identity,
        netns: Netns,
        end: End,
        tell: &mut impl FnMut(&Happening),
    ) {
        let End {
            at,
            substate,
            expires,
            ..
        } = end;
        if !matches!(substate, State::TimeWait | State::FinWait2) {
            return;
        }
        let known = self.find_minisocket(minisocket);
        let slot = match known {
            Some(slot) => slot,
            None if self.judging || self.has_just_ended(minisocket) => return,
            None => self.admit_unseen_minisocket(minisocket, at, substate, expires, netns),
        };
        self.namespaces
            .at_mut(self.stories.at(slot).namespace)
            .stirs(at);
        match (self.stories.at(slot).state, substate) {
            (State::FinWait2, State::TimeWait) => {
                let then = self.date_of_step(slot, expires, at);
                self.step_to_time_wait(slot, then, expires, tell);
            }
            (State::TimeWait, State::TimeWait) => self.notice_silent_rearm(slot, expires),
            _ => {}
        }
        self.finish(slot, &end, known.is_some(), tell);
    }

    /// The fixed timeout makes the expiry tell when it was armed.
    fn date_of_step(&self, slot: Slot, expires: u32, now: Moment) -> Moment {
        let story = self.stories.at(slot);
        let earliest = if story.is(flag::FROM_SEED) {
            story.seen
        } else {
            self.orphaned_at(slot).0
        };
        Moment(
            self.clock
                .armed_at(expires, now)
                .0
                .max(earliest)
                .min(now.0.max(earliest)),
        )
    }

    /// An orphan's FIN arrived: from here on it is a TIME_WAIT.
    fn step_to_time_wait(
        &mut self,
        slot: Slot,
        at: Moment,
        expires: u32,
        tell: &mut impl FnMut(&Happening),
    ) {
        let story = *self.stories.at(slot);
        if story.is(flag::WHOLE) {
            let began = self.orphaned_at(slot);
            self.tally.orphans.lives.record(at.since(began));
        }
        let in_state = story.is(flag::DATED).then(|| at.since(story.since()));
        if let Some(time) = in_state {
            self.tally.spent(State::FinWait2, time);
        }
        self.orphans.remove(&slot);
        self.tally.orphans.became_time_wait += 1;
        self.count_left(story.namespace, State::FinWait2);
        self.count_entered(story.namespace, State::TimeWait);
        self.tally.transition(State::FinWait2, State::TimeWait);
        self.set_expires(slot, expires);
        let story = self.stories.at_mut(slot);
        story.state = State::TimeWait;
        story.since = at.0;
        story.seen = story.seen.max(at.0);
        story.flags = story.flags & !(flag::FROM_SEED | flag::SEEDED) | flag::DATED | flag::WHOLE;
        self.entered_time_wait(slot, at, true);
        let what = What::Transition {
            from: State::FinWait2,
            to: State::TimeWait,
            in_state,
            reason: None,
        };
        tell(&self.happening(slot, at, what));
    }

    /// When an orphan in FIN_WAIT2 became a minisocket, or was found.
    fn orphaned_at(&self, slot: Slot) -> Moment {
        let at = self.orphans.get(&slot).copied();
        at.unwrap_or_else(|| self.stories.at(slot).since())
    }

    /// It is counted among the TIME_WAITs. `entered`: just now, rather than found.
    pub(super) fn entered_time_wait(&mut self, slot: Slot, at: Moment, entered: bool) {
        let story = *self.stories.at(slot);
        *self.tally.side(story.side()) += 1;
        self.destinations.time_wait(story.destination, true);
        self.tally.ages.enter(story.since(), at);
        if entered {
            self.owners.entered_time_wait(story.owner);
            if let Some(tuple) = self.tuple(slot) {
                self.remotes
                    .entered_time_wait(tuple.remote_addr().to_canonical());
            }
        }
    }

    fn left_time_wait(&mut self, story: &Story, at: Moment, died: bool) {
        *self.tally.side(story.side()) -= 1;
        self.destinations.time_wait(story.destination, false);
        self.tally.ages.leave(story.since(), at, died);
    }

    /// `observed`: it was known before its end. Only then is its end a death in
    /// the life table: of those that were not, only the dying would be counted.
    fn finish(&mut self, slot: Slot, end: &End, observed: bool, tell: &mut impl FnMut(&Happening)) {
        let story = *self.stories.at(slot);
        let at = end.at;
        let (state, whole) = (story.state, story.is(flag::WHOLE));
        self.count_left(story.namespace, state);
        self.tally.transition(state, State::Close);
        let since_then = at.since(if state == State::TimeWait {
            story.since()
        } else {
            self.orphaned_at(slot)
        });
        if state == State::TimeWait {
            self.tally.time_wait_ended(end.reason);
            if end.reason == Reason::Reset
                && let Some(tuple) = self.tuple(slot)
            {
                let rank = |at: Moment, of: &Tuple| (at, of.local_port, of.remote_port);
                if self
                    .reset
                    .as_ref()
                    .is_none_or(|(then, of)| rank(*then, of) <= rank(at, &tuple))
                {
                    self.reset = Some((at, tuple));
                }
            }
            if whole {
                self.tally.lives.record_ns(since_then.as_nanos() as u64);
                self.tally.lives_by_reason[end.reason as usize].record(since_then);
            } else {
                self.tally.ended_seeded += 1;
            }
            self.left_time_wait(&story, at, observed);
        } else {
            self.tally.orphan_ended(end.reason);
            if whole {
                self.tally.orphans.lives.record(since_then);
            }
            if story.is(flag::DATED) {
                self.tally.spent(State::FinWait2, at.since(story.since()));
            }
        }
        let dated = whole || state == State::TimeWait;
        let what = What::MinisocketEnd {
            state,
            reason: end_name(state, end.reason),
            lifetime: whole.then_some(since_then),
            since_last_arm: (dated && !whole).then_some(since_then),
            rearmed: u32::from(story.rearmed),
            by: self.owners.current(end.pid),
        };
        tell(&self.happening(slot, at, what));
        self.remember_closed(super::joining::Closed {
            story,
            reason: None,
        });
        self.bury(&story);
        self.dismiss(slot);
    }

    /// It is gone, and nobody saw how.
    pub(super) fn vanish(&mut self, slot: Slot) {
        let story = *self.stories.at(slot);
        self.count_left(story.namespace, story.state);
        self.tally.transition(story.state, State::Close);
        match story.state {
            State::TimeWait => {
                self.tally.time_wait_ended(Reason::Unknown);
                self.tally.ended_seeded += 1;
                // Until when it lived is not known; until then it did.
                self.left_time_wait(&story, Moment(story.seen.max(story.since)), false);
            }
            State::FinWait2 if story.is(flag::MINISOCKET) => {
                self.tally.orphan_ended(Reason::Unknown);
            }
            _ => {}
        }
        self.dismiss(slot);
    }

    /// Takes back what a seed counted twice. It has not changed since.
    pub(super) fn unseed(&mut self, slot: Slot) {
        let story = *self.stories.at(slot);
        let seeded = story.is(flag::SEEDED);
        let counts = [
            self.tally.states.of(story.state),
            self.namespaces
                .at_mut(story.namespace)
                .counts
                .of(story.state),
        ];
        for count in counts.into_iter().flatten() {
            *(if seeded {
                &mut count.seeded
            } else {
                &mut count.entered
            }) -= 1;
        }
        if story.state == State::TimeWait {
            self.left_time_wait(&story, Moment(story.seen), false);
        } else {
            let orphans = &mut self.tally.orphans;
            *(if seeded {
                &mut orphans.seeded
            } else {
                &mut orphans.entered
            }) -= 1;
        }
        self.dismiss(slot);
    }

    /// A minisocket that is told of without having been born in sight.
    fn admit_unseen_minisocket(
        &mut self,
        minisocket: Identity,
        at: Moment,
        state: State,
        expires: u32,
        netns: Netns,
    ) -> Slot {
        let namespace = self.namespace(netns);
        let story = Story {
            namespace,
            ..self.found_minisocket(minisocket, at, state, expires)
        };
        let slot = self.admit_unseen(story);
        if self.seeded && self.seeding.is_none() {
            self.namespaces.at_mut(namespace).testimony.found_birth();
        }
        self.count_found_minisocket(slot, at, true);
        slot
    }

    /// Whether it waited before the run began, in a namespace that nothing leads
    /// into: that of a container which has gone, while one of its sockets still
    /// says goodbye.
    pub(super) fn was_out_of_sight(&self, story: &Story) -> bool {
        let namespace = self.namespaces.at(story.namespace);
        story.is(flag::MINISOCKET)
            && story.since < self.config.started.0
            && namespace.netns != UNKNOWN
            && namespace.facts.is_none()
    }

    /// The story of a minisocket that was alive before it was found at `at`.
    pub(super) fn found_minisocket(
        &self,
        minisocket: Identity,
        at: Moment,
        state: State,
        expires: u32,
    ) -> Story {
        let armed = match state {
            State::TimeWait => self.clock.armed_at(expires, at).min(at),
            _ => at,
        };
        Story {
            timer: minisocket.address,
            since: armed.0,
            seen: at.0,
            state,
            expires,
            flags: flag::MINISOCKET,
            ..Story::BLANK
        }
        .identified(minisocket)
    }

    /// Everything but its state's count.
    pub(super) fn count_found_minisocket(&mut self, slot: Slot, at: Moment, seeded: bool) {
        if self.stories.at(slot).state == State::TimeWait {
            let at = at.max(self.stories.at(slot).since());
            self.entered_time_wait(slot, at, false);
        } else if seeded {
            self.tally.orphans.seeded += 1;
        } else {
            self.tally.orphans.entered += 1;
        }
    }

    fn set_expires(&mut self, slot: Slot, expires: u32) {
        let before = std::mem::replace(&mut self.stories.at_mut(slot).expires, expires);
        self.expiries.remove(before);
        self.expiries.add(expires);
    }

    /// An expiry later than the last known arming's, by more than the jiffy
    /// that reading it may be off: the timer was set anew without an event.
    pub(super) fn notice_silent_rearm(&mut self, slot: Slot, expires: u32) {
        let later = expires.wrapping_sub(self.stories.at(slot).expires) as i32;
        if later > 1 {
            self.set_expires(slot, expires);
            self.count_rearm(slot);
        }
    }

    fn count_rearm(&mut self, slot: Slot) {
        let story = self.stories.at_mut(slot);
        story.rearmed = story.rearmed.saturating_add(1);
        if story.state == State::TimeWait {
            self.tally.rearmed += 1;
        }
    }
}
