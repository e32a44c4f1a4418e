//! What every story touches besides its count: the namespace's gauges, its
//! owner, its side, the port it takes or listens on, its timer.

use super::super::destinations::NOWHERE;
use super::super::event::{Netns, State, Tuple};
use super::super::happening::Side;
use super::stories::{Slot, Story, flag};
use super::{Ledger, UNKNOWN};

impl Ledger {
    /// Takes a story in: everything but its state's count.
    pub(super) fn admit(&mut self, story: Story) -> Slot {
        let namespace = self.namespaces.at_mut(story.namespace);
        let minisocket = story.is(flag::MINISOCKET);
        *(if minisocket {
            &mut namespace.minisockets
        } else {
            &mut namespace.full_sockets
        }) += 1;
        self.owners.hold(story.owner);
        let slot = self.stories.insert(story);
        if minisocket {
            self.expiries.add(story.expires);
            if story.state == State::FinWait2 {
                self.orphans.insert(slot, story.since());
            }
        }
        self.list_port(slot);
        slot
    }

    /// Lets a story go: everything but its state's count.
    pub(super) fn dismiss(&mut self, slot: Slot) {
        self.unlist_port(slot);
        let story = *self.stories.at(slot);
        let namespace = self.namespaces.at_mut(story.namespace);
        if story.is(flag::MINISOCKET) {
            namespace.minisockets -= 1;
            self.expiries.remove(story.expires);
            if story.state == State::FinWait2 {
                self.orphans.remove(&slot);
            }
        } else {
            namespace.full_sockets -= 1;
        }
        self.owners.release(story.owner);
        self.destinations.release(story.destination);
        self.stories.remove(slot);
    }

    pub(super) fn own(&mut self, slot: Slot, owner: u32) {
        let before = std::mem::replace(&mut self.stories.at_mut(slot).owner, owner);
        if before != owner {
            self.owners.hold(owner);
            self.owners.release(before);
        }
    }

    pub(super) fn give_side(&mut self, slot: Slot, side: Side) {
        let story = self.stories.at_mut(slot);
        let before = story.side();
        story.set_side(side);
        if story.state == State::TimeWait && before != side {
            *self.tally.side(before) -= 1;
            *self.tally.side(side) += 1;
        }
    }

    /// A client's local port is known: it counts towards its destination.
    pub(super) fn take_port(&mut self, slot: Slot, connects: bool) {
        let story = self.stories.at(slot);
        // A connect has a port, or asks for one, before it is told which.
        let has_port = story.local_port != 0 || story.state == State::SynSent;
        if story.side() != Side::Client || !has_port || story.destination != NOWHERE {
            return;
        }
        let time_wait = story.state == State::TimeWait;
        let Some(tuple) = self.tuple(slot) else {
            return;
        };
        let destination = self.destinations.take(&tuple, connects);
        self.stories.at_mut(slot).destination = destination;
        if time_wait {
            self.destinations.time_wait(destination, true);
        }
    }

    pub(super) fn list_port(&mut self, slot: Slot) {
        let story = self.stories.at_mut(slot);
        if story.state == State::Listen && story.local_port != 0 && !story.is(flag::LISTED) {
            story.set(flag::LISTED, true);
            *self
                .listeners
                .entry((story.namespace, story.local_port))
                .or_default() += 1;
        }
    }

    pub(super) fn unlist_port(&mut self, slot: Slot) {
        let story = self.stories.at_mut(slot);
        if story.is(flag::LISTED) {
            story.set(flag::LISTED, false);
            let key = (story.namespace, story.local_port);
            if let Some(count) = self.listeners.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.listeners.remove(&key);
                }
            }
        }
    }

    /// Tells sides from ports: a local port that somebody listens on is a
    /// server's, one of the ephemeral range a client's.
    pub(super) fn tell_sides(&mut self) {
        for (slot, id) in std::mem::take(&mut self.sideless) {
            let story = *self.stories.at(slot);
            if story.id != id || story.side() != Side::Unknown {
                continue;
            }
            let namespace = self.namespaces.at(story.namespace);
            let side = if story.state == State::Listen
                || self
                    .listeners
                    .contains_key(&(story.namespace, story.local_port))
            {
                Side::Server
            } else if let Some(facts) = &namespace.facts {
                let (first, last) = facts.ports;
                if (first..=last).contains(&story.local_port) {
                    Side::Client
                } else {
                    continue;
                }
            } else {
                self.sideless.push((slot, id));
                continue;
            };
            self.give_side(slot, side);
            self.take_port(slot, false);
        }
    }

    pub(super) fn tuple(&self, slot: Slot) -> Option<Tuple> {
        let story = self.stories.at(slot);
        story.tuple(self.namespaces.at(story.namespace).netns)
    }

    /// What is heard of the addresses of a story that had none.
    pub(super) fn give_tuple(&mut self, slot: Slot, tuple: &Tuple) {
        if self.stories.at(slot).is(flag::TUPLE) {
            return;
        }
        self.settle_in(slot, tuple.netns);
        let namespace = self.stories.at(slot).namespace;
        if self.namespaces.at(namespace).netns != tuple.netns {
            return;
        }
        self.stories.at_mut(slot).set_tuple(tuple);
        self.list_port(slot);
        if self.stories.at(slot).side() == Side::Unknown {
            self.sideless.push((slot, self.stories.at(slot).id));
        }
    }

    /// What is heard of the namespace of a story. If none was known it moves
    /// there, and so does its count.
    pub(super) fn settle_in(&mut self, slot: Slot, netns: Netns) {
        let &Story {
            namespace: before,
            state,
            flags,
            ..
        } = self.stories.at(slot);
        if self.namespaces.at(before).netns != UNKNOWN || netns == UNKNOWN {
            return;
        }
        let namespace = self.namespace(netns);
        let minisocket = flags & flag::MINISOCKET != 0;
        for (index, here) in [(before, false), (namespace, true)] {
            let it = self.namespaces.at_mut(index);
            let live = if minisocket {
                &mut it.minisockets
            } else {
                &mut it.full_sockets
            };
            let count = it.counts.of(state);
            if here {
                *live += 1;
                count.into_iter().for_each(|count| count.seeded += 1);
            } else {
                *live -= 1;
                count.into_iter().for_each(|count| count.left += 1);
            }
        }
        self.stories.at_mut(slot).namespace = namespace;
    }
}
