//! The full sockets that closed last, so that a birth, a step or an end that
//! comes after the close it belongs to is still told whose it is: by its cookie.

use super::super::event::{Identity, State};
use super::super::happening::{CloseReason, Happening};
use super::Ledger;
use super::births::Birth;
use super::stories::Story;

/// A birth and its full socket's step to CLOSE are made on one CPU, in this order,
/// and put in order before they are applied; what crosses nevertheless does so
/// within far fewer closes than these.
const KEPT: usize = 64;

/// A full socket or a minisocket that just went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) story: Story,
    /// What its close was counted as, where a birth may yet turn up for it.
    pub(super) reason: Option<CloseReason>,
}

impl Ledger {
    /// The close that this birth should have come before, if there was one.
    pub(super) fn take_closed(&mut self, minisocket: Identity) -> Option<Closed> {
        if minisocket.cookie == 0 {
            return None;
        }
        let index = self
            .closed
            .iter()
            .rposition(|closed| closed.reason.is_some() && closed.story.key == minisocket.cookie)?;
        self.closed.remove(index)
    }

    /// A close that was taken for final was not: the socket goes on.
    pub(super) fn revive(
        &mut self,
        closed: &Closed,
        birth: Birth,
        tell: &mut impl FnMut(&Happening),
    ) {
        let from = closed.story.state;
        if let Some(count) = closed
            .reason
            .and_then(|reason| self.tally.close(from, reason))
        {
            *count = count.saturating_sub(1);
        }
        self.tally.redirect(from, State::Close, birth.substate);
        self.begin_as_minisocket(closed.story, birth, tell);
        self.owners.release(closed.story.owner);
    }

    pub(super) fn remember_closed(&mut self, closed: Closed) {
        // One that may be revived still refers to its owner.
        if closed.reason.is_some() {
            self.owners.hold(closed.story.owner);
        }
        self.closed.push_back(closed);
        if self.closed.len() > KEPT
            && let Some(oldest) = self.closed.pop_front()
        {
            self.forget_closed(&oldest);
        }
    }

    fn forget_closed(&mut self, closed: &Closed) {
        if closed.reason.is_some() {
            self.owners.release(closed.story.owner);
        }
    }

    /// Forgets what closed in namespaces that are forgotten themselves: their
    /// indices come to name others.
    pub(super) fn forget_closed_in(&mut self, namespaces: &[u32]) {
        if namespaces.is_empty() {
            return;
        }
        for closed in std::mem::take(&mut self.closed) {
            if namespaces.contains(&closed.story.namespace) {
                self.forget_closed(&closed);
            } else {
                self.closed.push_back(closed);
            }
        }
    }

    /// Whether this very minisocket ended just now.
    pub(super) fn has_just_ended(&self, minisocket: Identity) -> bool {
        self.closed
            .iter()
            .any(|closed| closed.story.is_minisocket(minisocket))
    }

    /// Whether this very full socket closed, or went on as a minisocket, just now.
    pub(super) fn has_just_closed(&self, socket: Identity) -> bool {
        socket.cookie != 0
            && self
                .closed
                .iter()
                .any(|closed| closed.story.key == socket.cookie)
    }
}
