//! How a full socket goes on as a minisocket: one story, by their one cookie.

use std::time::Duration;

use super::super::destinations::NOWHERE;
use super::super::event::{Arming, Identity, Moment, Netns, State, Tuple};
use super::super::happening::{Happening, What};
use super::Ledger;
use super::joining::Closed;
use super::stories::{Slot, Story, flag};

/// A minisocket's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) minisocket: Identity,
    pub(super) at: Moment,
    pub(super) substate: State,
    pub(super) netns: Netns,
    pub(super) arming: Arming,
}

impl Ledger {
    #[inline]
    pub(super) fn birth(
        &mut self,
        birth: Birth,
        tuple: Option<&Tuple>,
        tell: &mut impl FnMut(&Happening),
    ) {
        if !matches!(birth.substate, State::TimeWait | State::FinWait2) {
            return;
        }
        if birth.substate == State::TimeWait {
            self.saw_timeout(birth.arming.timeout);
        }
        let full = self.full_socket_of(birth.minisocket, tuple);
        if let Some(live) = self.find_minisocket(birth.minisocket) {
            let known = *self.stories.at(live);
            if known.is(flag::BY_ADDRESS) && !known.is(flag::FROM_SEED) {
                // One that has no cookie ended unseen: whoever is born here is another.
                self.vanish(live);
                self.mismatched(birth.at);
            } else if known.is(flag::FROM_SEED) && full.is_some() {
                // A seed met it before and after: once is enough.
                self.unseed(live);
            } else {
                // Emitted twice, or a seed was faster.
                return;
            }
        }
        if let Some(slot) = full {
            match tuple {
                Some(tuple) => self.give_tuple(slot, tuple),
                None => self.settle_in(slot, birth.netns),
            }
            self.saw_birth(slot, birth.at);
            self.become_minisocket(slot, birth, tell);
        } else if let Some(closed) = self.take_closed(birth.minisocket) {
            let testimony = &mut self.namespaces.at_mut(closed.story.namespace).testimony;
            testimony.saw_birth(birth.at);
            self.revive(&closed, birth, tell);
        } else {
            self.birth_of_unknown(birth, tuple, tell);
        }
    }

    /// The full socket that this minisocket was until now. Where neither has a
    /// cookie, their addresses have to do.
    fn full_socket_of(&self, minisocket: Identity, tuple: Option<&Tuple>) -> Option<Slot> {
        if minisocket.cookie != 0 {
            return self.stories.full(minisocket);
        }
        let tuple = tuple?;
        self.stories.without_cookie().find(|&slot| {
            let waits = matches!(
                self.stories.at(slot).state,
                State::FinWait1 | State::FinWait2 | State::Closing
            );
            waits && self.tuple(slot).as_ref() == Some(tuple)
        })
    }

    /// The minisocket that this event is of: by its cookie, or by its address if
    /// it had none when it was found.
    pub(super) fn find_minisocket(&mut self, minisocket: Identity) -> Option<Slot> {
        if let Some(slot) = self.stories.minisocket(minisocket) {
            return Some(slot);
        }
        if minisocket.cookie == 0 {
            return None;
        }
        let slot = self.stories.by_address(minisocket.address, true)?;
        self.stories.identify(slot, minisocket.cookie);
        Some(slot)
    }

    /// For the witness: this birth needs no explanation.
    pub(super) fn saw_birth(&mut self, slot: Slot, at: Moment) {
        let namespace = self.stories.at(slot).namespace;
        self.namespaces.at_mut(namespace).testimony.saw_birth(at);
    }

    /// A birth whose full socket nothing was heard of.
    fn birth_of_unknown(
        &mut self,
        birth: Birth,
        tuple: Option<&Tuple>,
        tell: &mut impl FnMut(&Happening),
    ) {
        let admitted = match tuple {
            Some(tuple) => {
                self.config.filter.admits(tuple)
                    && (!self.judging || self.seeding.is_some() && !self.by_process)
            }
            None => !self.judging,
        };
        if !admitted {
            return;
        }
        let mut story = Story {
            namespace: self.namespace(birth.netns),
            since: birth.at.0,
            seen: birth.at.0,
            // From which of three states it goes, the kernel does not say here.
            state: State::FinWait2,
            ..Story::BLANK.identified(birth.minisocket)
        };
        if let Some(tuple) = tuple {
            story.set_tuple(tuple);
        }
        let slot = self.admit_unseen(story);
        self.saw_birth(slot, birth.at);
        self.become_minisocket(slot, birth, tell);
    }

    /// A story that was taken for closed goes on as a minisocket.
    pub(super) fn begin_as_minisocket(
        &mut self,
        past: Story,
        birth: Birth,
        tell: &mut impl FnMut(&Happening),
    ) {
        let Birth {
            minisocket,
            at,
            substate,
            arming,
            netns: _,
        } = birth;
        let kept = flag::CLIENT | flag::SERVER | flag::TUPLE | flag::INET6;
        let story = Story {
            timer: minisocket.address,
            since: at.0,
            seen: at.0,
            state: substate,
            expires: arming.expires,
            destination: NOWHERE,
            flags: past.flags & kept | flag::MINISOCKET | flag::DATED | flag::WHOLE,
            ..past
        }
        .identified(minisocket);
        self.namespaces.at_mut(story.namespace).stirs(at);
        let slot = self.admit(story);
        self.count_entered(story.namespace, substate);
        if substate == State::TimeWait {
            self.entered_time_wait(slot, at, true);
        } else {
            self.orphans.insert(slot, at);
            self.tally.orphans.entered += 1;
        }
        self.take_port(slot, false);
        tell(&self.start(slot, at, substate, arming));
    }

    /// The story goes on as that minisocket.
    pub(super) fn become_minisocket(
        &mut self,
        slot: Slot,
        birth: Birth,
        tell: &mut impl FnMut(&Happening),
    ) {
        let Birth {
            minisocket,
            at,
            substate,
            arming,
            netns: _,
        } = birth;
        let before = *self.stories.at(slot);
        let (from, namespace) = (before.state, before.namespace);
        let in_state = before.is(flag::DATED).then(|| at.since(before.since()));
        self.remember_closed(Closed {
            story: before,
            reason: None,
        });
        self.bury(&before);
        self.unlist_port(slot);
        let stays = from == State::FinWait2 && substate == State::FinWait2;
        if !stays {
            if let Some(time) = in_state {
                self.tally.spent(from, time);
            }
            self.count_left(namespace, from);
            self.count_entered(namespace, substate);
            self.tally.transition(from, substate);
        }
        let counts = self.namespaces.at_mut(namespace);
        counts.stirs(at);
        counts.full_sockets -= 1;
        counts.minisockets += 1;
        self.stories.move_to_minisocket(slot, minisocket);
        let story = self.stories.at_mut(slot);
        story.state = substate;
        story.seen = at.0;
        story.expires = arming.expires;
        story.flags = story.flags & !(flag::FROM_SEED | flag::SEEDED) | flag::WHOLE;
        if !stays {
            story.since = at.0;
            story.flags |= flag::DATED;
        }
        self.expiries.add(arming.expires);
        // An orphan that stays in FIN_WAIT2 only changes its shape.
        if !stays {
            tell(&self.happening(
                slot,
                at,
                What::Transition {
                    from,
                    to: substate,
                    in_state,
                    reason: None,
                },
            ));
        }
        if substate == State::TimeWait {
            self.entered_time_wait(slot, at, true);
        } else {
            self.orphans.insert(slot, at);
            self.tally.orphans.entered += 1;
        }
        tell(&self.start(slot, at, substate, arming));
    }

    pub(super) fn start(
        &self,
        slot: Slot,
        at: Moment,
        substate: State,
        arming: Arming,
    ) -> Happening {
        let timeout = f64::from(arming.timeout) / f64::from(self.clock.hz());
        let what = What::MinisocketStart {
            state: substate,
            timeout: Duration::from_secs_f64(timeout),
        };
        self.happening(slot, at, what)
    }
}
