//! Joining a full socket and its minisocket by their addresses, where the
//! kernel side could not do it: whichever of the two is told first waits for
//! the other a moment.

use super::super::destinations::NOWHERE;
use super::super::event::{Address, Moment, State, Tuple};
use super::super::happening::{CloseReason, Happening};
use super::births::Birth;
use super::stories::{Slot, Story, flag};
use super::{GRACE, Ledger};

/// A loose birth waits this long for its socket's step to CLOSED, nanoseconds.
const JOIN_WITHIN: u64 = 300_000_000;
/// Loose births and closed sockets kept to be joined.
const KEPT: usize = 64;
/// A birth whose full socket is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loose {
    pub(super) birth: Birth,
    pub(super) tuple: Tuple,
}

/// A full socket that just went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) story: Story,
    pub(super) at: Moment,
    /// What its close was counted as, where a birth may yet turn up for it.
    pub(super) reason: Option<CloseReason>,
}

impl Ledger {
    pub(super) fn loose_birth(&mut self, loose: Loose, tell: &mut impl FnMut(&Happening)) {
        if !self.config.filter.admits(&loose.tuple) {
            return;
        }
        let namespace = self.namespace(loose.tuple.netns);
        let netns = loose.tuple.netns;
        let testimony = &mut self.namespaces.at_mut(namespace).testimony;
        testimony.saw_birth(loose.birth.at);
        let closed = self.closed.iter().rposition(|closed| {
            closed.reason.is_some()
                && loose.birth.at.0.abs_diff(closed.at.0) <= JOIN_WITHIN
                && closed.story.namespace == namespace
                && closed
                    .story
                    .tuple(netns)
                    .is_some_and(|tuple| same_ends(&tuple, &loose.tuple))
        });
        if let Some(closed) = closed.and_then(|index| self.closed.remove(index)) {
            self.revive(&closed, loose, tell);
            return;
        }
        if self.loose.len() >= KEPT {
            self.settle_loose(Moment(u64::MAX), tell);
        }
        self.loose.push_back(loose);
    }

    /// A close that was taken for final was not.
    fn revive(&mut self, closed: &Closed, loose: Loose, tell: &mut impl FnMut(&Happening)) {
        let from = closed.story.state;
        if let Some(count) = closed
            .reason
            .and_then(|reason| self.tally.close(from, reason))
        {
            *count = count.saturating_sub(1);
        }
        self.tally
            .redirect(from, State::Close, loose.birth.substate);
        self.begin_as_minisocket(closed.story, loose, tell);
        self.owners.release(closed.story.owner);
    }

    /// The loose birth that goes with this socket, if there is one.
    pub(super) fn take_loose(&mut self, slot: Slot) -> Option<Birth> {
        let tuple = self.tuple(slot)?;
        let index = self
            .loose
            .iter()
            .position(|loose| same_ends(&loose.tuple, &tuple))?;
        let birth = self.loose.remove(index)?.birth;
        self.stories
            .minisocket(birth.timer)
            .is_none()
            .then_some(birth)
    }

    /// The birth of this timer is told again, and better; its addresses stay.
    pub(super) fn forget_loose(&mut self, timer: Address) -> Option<Tuple> {
        let index = self
            .loose
            .iter()
            .position(|loose| loose.birth.timer == timer)?;
        let tuple = self.loose.remove(index)?.tuple;
        let namespace = self.namespace(tuple.netns);
        self.namespaces.at_mut(namespace).testimony.told_again();
        Some(tuple)
    }

    /// Is this timer one of a loose birth? Then it waits no longer.
    pub(super) fn hasten_loose(
        &mut self,
        timer: Address,
        tell: &mut impl FnMut(&Happening),
    ) -> Option<Slot> {
        if self.loose.iter().any(|loose| loose.birth.timer == timer) {
            self.settle_loose(Moment(u64::MAX), tell);
        }
        self.stories.minisocket(timer)
    }

    /// Loose births that waited long enough: their sockets' closes were lost,
    /// or never seen.
    pub(super) fn settle_loose(&mut self, now: Moment, tell: &mut impl FnMut(&Happening)) {
        let due = |loose: &Loose| now.0.saturating_sub(loose.birth.at.0) > JOIN_WITHIN;
        if !self.loose.iter().any(due) {
            return;
        }
        let (due, kept): (Vec<Loose>, Vec<Loose>) = self.loose.iter().partition(|loose| due(loose));
        self.loose = kept.into();
        let mut sockets = vec![None; due.len()];
        for slot in self.stories.slots() {
            let story = self.stories.at(slot);
            let waits = matches!(
                story.state,
                State::FinWait1 | State::FinWait2 | State::Closing
            );
            if !waits || story.is(flag::MINISOCKET) {
                continue;
            }
            if let Some(tuple) = self.tuple(slot)
                && let Some(index) = due.iter().position(|loose| same_ends(&loose.tuple, &tuple))
            {
                sockets[index] = Some(slot);
            }
        }
        for (loose, socket) in due.into_iter().zip(sockets) {
            if self.stories.minisocket(loose.birth.timer).is_some() {
                continue;
            }
            match socket {
                Some(slot) => self.become_minisocket(slot, loose.birth, tell),
                None if self.by_process => {}
                None => self.begin_as_minisocket(Story::BLANK, loose, tell),
            }
        }
    }

    /// A story that goes on, or begins, as a minisocket without a full socket.
    fn begin_as_minisocket(
        &mut self,
        past: Story,
        loose: Loose,
        tell: &mut impl FnMut(&Happening),
    ) {
        let Loose {
            birth:
                Birth {
                    timer,
                    at,
                    substate,
                    arming,
                    netns: _,
                },
            tuple,
        } = loose;
        let namespace = self.namespace(tuple.netns);
        let mut story = Story {
            key: timer.0,
            namespace,
            since: at.0,
            born: at.0,
            seen: at.0,
            state: substate,
            expires: arming.expires,
            destination: NOWHERE,
            flags: past.flags & (flag::CLIENT | flag::SERVER)
                | flag::MINISOCKET
                | flag::DATED
                | flag::WHOLE,
            ..past
        };
        story.set_tuple(&tuple);
        self.namespaces.at_mut(namespace).stirs(at);
        let slot = self.admit(story);
        self.count_entered(namespace, substate);
        if substate == State::TimeWait {
            self.entered_time_wait(slot, at, true);
        } else {
            self.tally.orphans.entered += 1;
        }
        self.sideless.push((slot, self.stories.at(slot).id));
        if self.seeding.is_none() {
            self.tell_sides();
        }
        self.take_port(slot, false);
        tell(&self.start(slot, at, substate, arming));
    }

    pub(super) fn remember_closed(&mut self, closed: Closed) {
        // One that may be revived still refers to its owner.
        if closed.reason.is_some() {
            self.owners.hold(closed.story.owner);
        }
        self.closed.push_back(closed);
        if self.closed.len() > KEPT
            && let Some(Closed {
                story,
                reason: Some(_),
                ..
            }) = self.closed.pop_front()
        {
            self.owners.release(story.owner);
        }
    }

    /// Did the object at this address go only just now?
    pub(super) fn told_twice(&self, key: u64, at: Moment) -> bool {
        self.closed
            .iter()
            .any(|closed| closed.story.key == key && closed.at.0.abs_diff(at.0) <= GRACE)
    }
}

/// The same connection; a local port of 0 was given back before it was read.
fn same_ends(a: &Tuple, b: &Tuple) -> bool {
    a.netns == b.netns
        && a.family == b.family
        && a.remote_port == b.remote_port
        && (a.local_port == b.local_port || a.local_port == 0 || b.local_port == 0)
        && a.local == b.local
        && a.remote == b.remote
}
