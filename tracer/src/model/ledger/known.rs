//! What the ledger knows of a socket that somebody else met.

use super::super::event::Identity;
use super::super::found::Found;
use super::super::happening::Side;
use super::super::stock::{Known, Refused};
use super::Ledger;
use super::stories::Slot;

impl Ledger {
    /// Whose side it is on, and who owns it, as far as events told.
    #[must_use]
    pub fn known(&self, found: &Found) -> Known {
        let Some(slot) = self.met(found) else {
            return Known {
                side: Side::Unknown,
                owner: None,
            };
        };
        let story = self.stories.at(slot);
        Known {
            side: story.side(),
            owner: self.owners.process(story.owner),
        }
    }

    /// Whether the filter admits it.
    #[must_use]
    pub fn is_in_scope(&self, found: &Found) -> bool {
        self.config.filter.admits(&found.tuple) && (!self.by_process || self.met(found).is_some())
    }

    /// Ticks a second.
    #[must_use]
    pub fn hz(&self) -> u32 {
        self.config.tick.hz
    }

    /// What tables are hashed by whose keys a peer may choose.
    #[must_use]
    pub fn secret(&self) -> u64 {
        self.config.secret
    }

    /// The newest connects from ports that were taken.
    pub fn refused(&self) -> impl Iterator<Item = Refused> + '_ {
        self.taken.iter().copied()
    }

    fn met(&self, found: &Found) -> Option<Slot> {
        let address = found.timer.map_or(found.address, |timer| timer.address);
        let identity = Identity {
            cookie: found.cookie,
            address,
        };
        let minisocket = found.is_minisocket();
        let known = if minisocket {
            self.stories.minisocket(identity)
        } else {
            self.stories.full(identity)
        };
        known.or_else(|| self.stories.by_address(address, minisocket))
    }
}
