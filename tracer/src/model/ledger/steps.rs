//! Transitions of full sockets, from the first to the one to CLOSED.

use super::super::event::{Moment, State, Step};
use super::super::happening::{CloseReason, Happening, Side, What};
use super::super::owners::NOBODY;
use super::super::stock::Refused;
use super::joining::Closed;
use super::stories::{Slot, Story, flag};
use super::{GRACE, Ledger, TAKEN, UNKNOWN};

/// The kernel's errno, as `sk_err` has it.
mod errno {
    pub(super) const EPIPE: u16 = 32;
    pub(super) const ENETUNREACH: u16 = 101;
    pub(super) const ECONNABORTED: u16 = 103;
    pub(super) const ECONNRESET: u16 = 104;
    pub(super) const ETIMEDOUT: u16 = 110;
    pub(super) const ECONNREFUSED: u16 = 111;
    pub(super) const EHOSTUNREACH: u16 = 113;
}

/// The kernel's `tw_count` is read without a lock on each CPU; a table this
/// close to its limit was full.
const FULL_WITHIN: u64 = 8;

impl Ledger {
    #[inline]
    pub(super) fn step(&mut self, step: &Step, tell: &mut impl FnMut(&Happening)) {
        let (from, to) = (of_full_socket(step.from), of_full_socket(step.to));
        // MPTCP tells steps that are none; TIME_WAIT is no state of a full socket.
        if from == to || from == State::TimeWait || to == State::TimeWait {
            return;
        }
        let Some(slot) = self.full_socket(step, from, to) else {
            self.step_of_unknown(step, from, to, tell);
            return;
        };
        let &Story {
            state, seen, flags, ..
        } = self.stories.at(slot);
        if flags & flag::FROM_SEED != 0 {
            let before = step.at.0 <= seen && state != from;
            let around = step.at.0 <= seen.saturating_add(GRACE) && state == to;
            if before || around {
                self.adopt(slot, step, from, to);
                return;
            }
        }
        if state == from {
            self.advance(slot, to, step, tell);
        } else if begins(from, to) {
            // Its last step went unseen, and it connects anew.
            self.vanish(slot);
            self.mismatched(step.at);
            self.step_of_unknown(step, from, to, tell);
        } else if state != to {
            self.mismatched(step.at);
            self.advance(slot, to, step, tell);
        }
    }

    /// The full socket that steps: by its cookie, or by its address if it had
    /// none when it was heard of last.
    #[inline(always)]
    fn full_socket(&mut self, step: &Step, from: State, to: State) -> Option<Slot> {
        if let Some(slot) = self.stories.full(step.socket) {
            return Some(slot);
        }
        if step.socket.cookie == 0 {
            return None;
        }
        let slot = self.stories.by_address(step.socket.address, false)?;
        if begins(from, to) {
            // Its end went unseen: who begins there is another.
            self.vanish(slot);
            self.mismatched(step.at);
            return None;
        }
        self.stories.identify(slot, step.socket.cookie);
        Some(slot)
    }

    /// A step that the seed of this socket shows already: it only says who and when.
    fn adopt(&mut self, slot: Slot, step: &Step, from: State, to: State) {
        if let Some(tuple) = step.tuple.filter(|tuple| tuple.local_port != 0) {
            self.give_tuple(slot, &tuple);
        }
        if self.stories.at(slot).state == to {
            let story = self.stories.at_mut(slot);
            story.since = step.at.0;
            story.set(flag::DATED, true);
        }
        self.learn_owner(slot, step, from, to);
        let side = side_of(from, to);
        if side != Side::Unknown && self.stories.at(slot).side() == Side::Unknown {
            self.give_side(slot, side);
            self.take_port(slot, false);
        }
    }

    /// The first that is heard of a socket.
    fn step_of_unknown(
        &mut self,
        step: &Step,
        from: State,
        to: State,
        tell: &mut impl FnMut(&Happening),
    ) {
        if self.by_process && !(acts(from, to) && self.is_of_wanted_process(step.pid)) {
            return;
        }
        // With its port, or with its owner's own deed, a filter can judge it:
        // what came before was not its.
        let comes_into_sight = self.by_process
            || self.judging
                && self.seeding.is_none()
                && matches!(from, State::SynSent | State::SynRecv)
                && to != State::Close;
        let first = begins(from, to) || comes_into_sight;
        let admitted = match &step.tuple {
            Some(tuple) => self.config.filter.admits(tuple),
            None => !self.judging,
        };
        if !admitted
            || !first && (self.judging && self.seeding.is_none() || self.has_gone(step, to))
        {
            return;
        }
        let namespace = self.namespace(step.tuple.map_or(UNKNOWN, |tuple| tuple.netns));
        let mut story = Story {
            namespace,
            since: step.at.0,
            seen: step.at.0,
            state: if first { to } else { from },
            ..Story::BLANK.identified(step.socket)
        };
        if let Some(tuple) = &step.tuple {
            story.set_tuple(tuple);
        }
        if first {
            story.set_side(side_of(from, to));
            story.set(flag::DATED, true);
            self.namespaces.at_mut(namespace).stirs(step.at);
            let slot = self.admit(story);
            self.learn_owner(slot, step, from, to);
            self.count_entered(namespace, to);
            self.tally.transition(from, to);
            self.take_port(slot, true);
            let what = What::Transition {
                from,
                to,
                in_state: None,
                reason: None,
            };
            let mut happening = self.happening(slot, step.at, what);
            // A child has a namespace before it has addresses.
            happening.tuple = happening.tuple.or(step.tuple);
            tell(&happening);
        } else {
            let slot = self.admit_unseen(story);
            self.advance(slot, to, step, tell);
        }
    }

    /// Whether this step says only that a socket closes which has closed, or has gone
    /// on as a minisocket.
    fn has_gone(&self, step: &Step, to: State) -> bool {
        self.has_just_closed(step.socket)
            || to == State::Close && self.stories.has_minisocket_of(step.socket.cookie)
    }

    /// A story that began unseen counts as seeded; after the initial seed is
    /// through, something must have been missed, unless no seed could find it.
    pub(super) fn admit_unseen(&mut self, mut story: Story) -> Slot {
        story.set(flag::SEEDED, true);
        if self.seeded && self.seeding.is_none() && !self.was_out_of_sight(&story) {
            self.found_wrong(1);
        }
        let slot = self.admit(story);
        self.count_seeded(story.namespace, story.state);
        if story.is(flag::TUPLE) {
            self.sideless.push((slot, self.stories.at(slot).id));
            if self.seeding.is_none() {
                self.tell_sides();
            }
        }
        slot
    }

    /// From the state that it is in, whatever the event says it left.
    fn advance(&mut self, slot: Slot, to: State, step: &Step, tell: &mut impl FnMut(&Happening)) {
        if let Some(tuple) = &step.tuple {
            self.learn_tuple(slot, tuple);
        }
        let &Story {
            state: from,
            since,
            flags,
            namespace,
            ..
        } = self.stories.at(slot);
        self.namespaces.at_mut(namespace).stirs(step.at);
        if to == State::Close {
            self.close(slot, step, tell);
            return;
        }
        let in_state = (flags & flag::DATED != 0).then(|| step.at.since(Moment(since)));
        if let Some(time) = in_state {
            self.tally.spent(from, time);
            if from == State::Established {
                let destination = self.stories.at(slot).destination;
                self.destinations.lived(destination, time);
            }
            if from == State::SynSent && to == State::Established {
                self.tally.connect_latency.record(time);
                let story = self.stories.at(slot);
                let owner = self.owners.process(story.owner);
                self.destinations
                    .connected(story.destination, step.at, time, owner);
            }
        }
        self.count_left(namespace, from);
        self.count_entered(namespace, to);
        self.tally.transition(from, to);
        if from == State::Listen {
            self.unlist_port(slot);
        }
        let story = self.stories.at_mut(slot);
        story.state = to;
        story.since = step.at.0;
        story.seen = step.at.0;
        story.flags = story.flags & !(flag::FROM_SEED | flag::SEEDED) | flag::DATED;
        if to == State::Listen {
            self.list_port(slot);
        }
        self.learn_owner(slot, step, from, to);
        tell(&self.happening(
            slot,
            step.at,
            What::Transition {
                from,
                to,
                in_state,
                reason: None,
            },
        ));
    }

    /// Takes what a later step tells of the addresses.
    fn learn_tuple(&mut self, slot: Slot, tuple: &super::Tuple) {
        let story = self.stories.at(slot);
        if story.local_port != 0 && story.is(flag::TUPLE) {
            return;
        }
        self.give_tuple(slot, tuple);
        // A step to CLOSED may have lost the local port, never the rest.
        self.stories.at_mut(slot).set_tuple(tuple);
        self.list_port(slot);
        self.take_port(slot, true);
    }

    fn is_of_wanted_process(&self, pid: u32) -> bool {
        let process = self.owners.current(pid);
        let wanted = self.config.filter.processes();
        wanted.admit(pid, process.comm, process.cgroup)
    }

    fn learn_owner(&mut self, slot: Slot, step: &Step, from: State, to: State) {
        if acts(from, to) {
            let actor = self.owners.actor(step.pid);
            if actor != NOBODY {
                self.own(slot, actor);
            }
        }
    }

    fn close(&mut self, slot: Slot, step: &Step, tell: &mut impl FnMut(&Happening)) {
        let story = *self.stories.at(slot);
        let from = story.state;
        let waits = matches!(from, State::FinWait1 | State::FinWait2 | State::Closing);
        let reason = self.close_reason(&story, step);
        if waits && step.error == 0 && !step.linger2_negative && from != State::FinWait1 {
            let namespace = self.namespaces.at_mut(story.namespace);
            namespace.silent_closes += 1;
            namespace.overflows += u64::from(reason == CloseReason::Overflow);
            namespace.last_silent_close = step.at;
        }
        if let Some(count) = self.tally.close(from, reason) {
            *count += 1;
        }
        if reason == CloseReason::PortsExhausted {
            let namespace = self.namespaces.at_mut(story.namespace);
            namespace.doubts_facts = true;
            let netns = namespace.netns;
            self.without_port = story.tuple(netns).map(|tuple| (step.at, tuple));
        }
        let in_state = story.is(flag::DATED).then(|| step.at.since(story.since()));
        if let Some(time) = in_state {
            self.tally.spent(from, time);
        }
        if from == State::SynSent {
            let owner = self.owners.process(story.owner);
            self.destinations
                .failed(story.destination, step.at, reason, in_state, owner);
            if reason == CloseReason::AddressInUse
                && let Some(tuple) = self.tuple(slot)
            {
                if self.taken.len() == TAKEN {
                    self.taken.pop_front();
                }
                self.taken.push_back(Refused {
                    at: step.at,
                    tuple,
                    owner,
                });
            }
        }
        self.count_left(story.namespace, from);
        self.tally.transition(from, State::Close);
        let what = What::Transition {
            from,
            to: State::Close,
            in_state,
            reason: Some(reason),
        };
        tell(&self.happening(slot, step.at, what));
        self.remember_closed(Closed {
            story,
            reason: waits.then_some(reason),
        });
        self.bury(&story);
        self.dismiss(slot);
    }

    fn close_reason(&self, story: &Story, step: &Step) -> CloseReason {
        let aborted = step.linger2_negative || step.error == errno::ECONNABORTED;
        match (story.state, step.error) {
            (State::Listen, _) => CloseReason::StoppedListening,
            (State::SynSent, errno::ECONNREFUSED) => CloseReason::Refused,
            (State::SynSent, errno::EHOSTUNREACH | errno::ENETUNREACH) => CloseReason::Unreachable,
            (_, errno::ETIMEDOUT) => CloseReason::TimedOut,
            // The search for a free port may take long; who gives up later has one.
            (State::SynSent, 0) if story.local_port == 0 && story.is(flag::DATED) => {
                CloseReason::PortsExhausted
            }
            (State::SynSent, 0) if step.never_hashed => CloseReason::AddressInUse,
            (State::SynSent, 0) => CloseReason::Abandoned,
            (State::SynSent, _) => CloseReason::Other,
            (_, errno::ECONNRESET | errno::EPIPE) => CloseReason::Reset,
            (State::SynRecv, _) => CloseReason::Other,
            (State::LastAck, 0) => CloseReason::Passive,
            _ if aborted => CloseReason::Aborted,
            (State::FinWait2 | State::Closing, 0) if self.table_is_full(story.namespace) => {
                CloseReason::Overflow
            }
            (_, 0) => CloseReason::Aborted,
            _ => CloseReason::Other,
        }
    }

    fn table_is_full(&self, namespace: u32) -> bool {
        let namespace = self.namespaces.at(namespace);
        namespace.facts.as_ref().is_some_and(|facts| {
            namespace.minisockets.saturating_add(FULL_WITHIN) >= facts.max_tw_buckets
        })
    }
}

/// A half-open request is never a full socket; where a kernel calls a child so,
/// it is in SYN_RECV.
fn of_full_socket(state: State) -> State {
    if state == State::NewSynRecv {
        State::SynRecv
    } else {
        state
    }
}

/// The first step of a story. The listener stays behind when its child steps.
fn begins(from: State, to: State) -> bool {
    from == State::Close || from == State::Listen && to == State::SynRecv
}

/// Who opens and who closes acts in his own context at these steps alone.
fn acts(from: State, to: State) -> bool {
    matches!(
        (from, to),
        (State::Close, State::SynSent | State::Listen)
            | (State::Established, State::FinWait1)
            | (State::CloseWait, State::LastAck)
    )
}

fn side_of(from: State, to: State) -> Side {
    match (from, to) {
        (State::Close, State::Listen) | (State::Listen | State::SynRecv, _) => Side::Server,
        (State::Close | State::SynSent, _) => Side::Client,
        _ => Side::Unknown,
    }
}
