//! How a full socket goes on as a minisocket: one story, under another address.

use std::time::Duration;

use super::super::event::{Address, Arming, Moment, Netns, State, Tuple};
use super::super::happening::{Happening, What};
use super::joining::{Closed, Loose};
use super::stories::{Slot, flag};
use super::{GRACE, Ledger, SEED_GRACE};

/// The same birth may be told twice, this far apart at most; no minisocket
/// lives and is followed at its address within that. Nanoseconds.
const TOLD_TWICE: u64 = 50_000_000;

/// A minisocket's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) timer: Address,
    pub(super) at: Moment,
    pub(super) substate: State,
    pub(super) netns: Netns,
    pub(super) arming: Arming,
}

impl Ledger {
    #[inline]
    pub(super) fn birth(
        &mut self,
        socket: Option<Address>,
        from: Option<State>,
        tuple: Option<&Tuple>,
        birth: Birth,
        tell: &mut impl FnMut(&Happening),
    ) {
        if !matches!(birth.substate, State::TimeWait | State::FinWait2) {
            return;
        }
        if birth.substate == State::TimeWait {
            self.saw_timeout(birth.arming.timeout);
        }
        let full = socket
            .and_then(|socket| self.stories.full(socket))
            .filter(|&slot| {
                let story = self.stories.at(slot);
                // Not of a socket that was seeded at this address since.
                !(story.is(flag::FROM_SEED) && birth.at.0.saturating_add(SEED_GRACE) < story.seen)
            });
        if let Some(live) = self.stories.minisocket(birth.timer) {
            let story = *self.stories.at(live);
            if story.is(flag::FROM_SEED) && birth.at.0 <= story.seen.saturating_add(GRACE) {
                match full {
                    // The seed met it twice, before and after: once is enough.
                    Some(_) => self.unseed(live),
                    None => {
                        self.stories.at_mut(live).born = birth.at.0;
                        return;
                    }
                }
            } else if birth.at.0.abs_diff(story.born) <= TOLD_TWICE {
                if let Some(full) = full {
                    self.absorb(live, full);
                }
                return;
            } else {
                // An end went unseen, and the address was given anew.
                self.vanish(live);
                self.mismatched(birth.at);
            }
        }
        let told_loose = if self.loose.is_empty() {
            None
        } else {
            self.forget_loose(birth.timer)
        };
        let tuple = tuple.or(told_loose.as_ref());
        match (socket, full, tuple) {
            (_, Some(slot), _) => {
                match tuple {
                    Some(tuple) => self.give_tuple(slot, tuple),
                    None => self.settle_in(slot, birth.netns),
                }
                self.saw_birth(slot, birth.at);
                self.become_minisocket(slot, birth, tell);
            }
            (Some(socket), None, _) => self.birth_of_stranger(socket, from, tuple, birth, tell),
            (None, None, Some(tuple)) => self.loose_birth(
                Loose {
                    birth,
                    tuple: *tuple,
                },
                tell,
            ),
            (None, None, None) => {}
        }
    }

    /// For the witness: this birth needs no explanation.
    pub(super) fn saw_birth(&mut self, slot: Slot, at: Moment) {
        let namespace = self.stories.at(slot).namespace;
        self.namespaces.at_mut(namespace).testimony.saw_birth(at);
    }

    /// The story goes on under its timer's address.
    pub(super) fn become_minisocket(
        &mut self,
        slot: Slot,
        birth: Birth,
        tell: &mut impl FnMut(&Happening),
    ) {
        let Birth {
            timer,
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
            at,
            reason: None,
        });
        self.bury(before.key, at);
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
        self.stories.move_to_timer(slot, timer);
        let story = self.stories.at_mut(slot);
        story.state = substate;
        story.born = at.0;
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
            self.orphans.insert(slot);
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

    /// A minisocket that was told loose, and now with its socket: the socket's
    /// story goes on, the minisocket's own ends.
    fn absorb(&mut self, live: Slot, full: Slot) {
        let socket = *self.stories.at(full);
        if !matches!(
            socket.state,
            State::FinWait1 | State::FinWait2 | State::Closing
        ) {
            return;
        }
        self.count_left(socket.namespace, socket.state);
        let substate = self.stories.at(live).state;
        self.tally.transition(socket.state, substate);
        self.give_side(live, socket.side());
        self.take_port(live, false);
        if self.stories.at(live).owner != socket.owner {
            self.own(live, socket.owner);
            if substate == State::TimeWait {
                self.owners.entered_time_wait(socket.owner);
            }
        }
        self.stories.at_mut(live).id = socket.id;
        self.dismiss(full);
    }
}
