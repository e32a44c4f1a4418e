//! What has to be remembered from one look to the next.

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::event::{Address, Moment, Netns};
use super::super::found::{Found, Listener};
use super::Beginning;

/// The kernel's counters tell of what happened this long before, at most.
const WITNESSED_WITHIN: Duration = Duration::from_secs(2);

/// How a listener's drops went from look to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops {
    pub(super) first: u32,
    pub(super) last: u32,
    /// When there were more than before, and when so while an accept queue was full.
    pub(super) dropped: Option<Moment>,
    pub(super) rose: Option<Moment>,
    pub(super) per_s: f64,
    pub(super) seen: u64,
}

/// What has to be remembered from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    drops: FxHashMap<(Netns, u16, Address), Drops>,
    looks: u64,
    last: Option<Moment>,
    overflows: FxHashMap<Netns, u64>,
    /// Namespaces where an accept queue was full since the last look, and those of
    /// which nobody can say.
    overflowing: FxHashSet<Netns>,
    /// Ports that programs asked for and listened on.
    chosen: FxHashSet<(Netns, u16)>,
}

/// So many of these are remembered.
const CHOSEN: usize = 65_536;

impl Memory {
    /// How long ago the last look was.
    pub(super) fn begin(&mut self, look: &Beginning) -> Option<Duration> {
        self.looks += 1;
        self.overflowing = look
            .places
            .keys()
            .copied()
            .filter(|netns| match look.overflows.get(netns) {
                Some(now) => self.overflows.get(netns).is_some_and(|then| then < now),
                None => true,
            })
            .collect();
        self.overflows.clone_from(&look.overflows);
        let last = self.last.replace(look.at);
        last.map(|last| look.at.since(last))
    }

    pub(super) fn choose(&mut self, netns: Netns, port: u16) {
        if self.chosen.len() < CHOSEN {
            self.chosen.insert((netns, port));
        }
    }

    pub(super) fn chose(&self, netns: Netns, port: u16) -> bool {
        self.chosen.contains(&(netns, port))
    }

    /// All listeners that there are have been followed.
    pub(super) fn end(&mut self) {
        let looks = self.looks;
        self.drops.retain(|_, drops| drops.seen == looks);
    }

    /// What a listener has dropped by now.
    pub(super) fn follow(
        &mut self,
        found: &Found,
        queues: Listener,
        at: Moment,
        since_last: Option<Duration>,
    ) -> Drops {
        let looks = self.looks;
        // A cookie may be asked for meanwhile; its address stays.
        let key = (found.tuple.netns, found.tuple.local_port, found.address);
        // A listener that is new since the last look dropped nothing before it was.
        let first = if looks > 1 && !self.drops.contains_key(&key) {
            0
        } else {
            queues.drops
        };
        let drops = self.drops.entry(key).or_insert(Drops {
            first,
            last: first,
            dropped: None,
            rose: None,
            per_s: 0.0,
            seen: looks,
        });
        if queues.drops < drops.last {
            // Another listener was given its address.
            (drops.first, drops.last) = (0, 0);
        }
        let more = queues.drops - drops.last;
        drops.per_s = match since_last {
            Some(since) if since.as_secs_f64() > 0.0 => f64::from(more) / since.as_secs_f64(),
            _ => 0.0,
        };
        if more > 0 {
            drops.dropped = Some(at);
        }
        // The namespace's counter is read more rarely.
        let recent = |dropped: Moment| at.since(dropped) <= WITNESSED_WITHIN;
        if self.overflowing.contains(&found.tuple.netns) && drops.dropped.is_some_and(recent) {
            drops.rose = Some(at);
        }
        drops.last = queues.drops;
        drops.seen = looks;
        *drops
    }
}
