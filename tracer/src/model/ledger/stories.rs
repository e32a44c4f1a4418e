//! Live sockets, one compact story each, found by their cookies.
//!
//! A slab in chunks (it never moves, it grows by 96 KB) and two indices into
//! it: full sockets, and minisockets. A birth moves a story from one to the
//! other. A story takes 96 bytes, and at the emptiest an index takes 11.5 more:
//! within the budget of 128 for a TIME_WAIT. It counts nothing and knows no rule.

use hashbrown::HashTable;

use super::super::event::{Address, Family, Identity, Moment, Netns, State, Tuple};
use super::super::happening::Side;
use super::super::hash::fold;
use super::super::{destinations, owners};

const CHUNK: usize = 1024;

/// Where a story lies.
pub(super) type Slot = u32;

/// What is known about a story, one bit each.
pub(super) mod flag {
    /// It goes on as a minisocket.
    pub(in super::super) const MINISOCKET: u16 = 1;
    /// Its addresses are known.
    pub(in super::super) const TUPLE: u16 = 1 << 1;
    pub(in super::super) const INET6: u16 = 1 << 2;
    /// `since` is when it entered its state, not when it was first seen there.
    pub(in super::super) const DATED: u16 = 1 << 3;
    /// Of a minisocket: its life in this state is known from its beginning.
    pub(in super::super) const WHOLE: u16 = 1 << 4;
    /// It stands in `seeded` and has not stepped since.
    pub(in super::super) const SEEDED: u16 = 1 << 5;
    /// What was last heard of it is a seed, at `seen`.
    pub(in super::super) const FROM_SEED: u16 = 1 << 6;
    /// The seed that runs found it.
    pub(in super::super) const FOUND: u16 = 1 << 7;
    pub(in super::super) const CLIENT: u16 = 1 << 8;
    pub(in super::super) const SERVER: u16 = 1 << 9;
    /// It listens, and its port stands in the table of listeners.
    pub(in super::super) const LISTED: u16 = 1 << 10;
    /// It has no cookie: its key is its address.
    pub(in super::super) const BY_ADDRESS: u16 = 1 << 11;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Story {
    /// Its cookie, or its address ([`flag::BY_ADDRESS`]).
    pub(super) key: u64,
    pub(super) id: u64,
    pub(super) local: [u8; 16],
    pub(super) remote: [u8; 16],
    /// When it entered its state; a seeded TIME_WAIT: when it was last armed.
    pub(super) since: u64,
    /// Minisockets: the address of its timer. A socket that connects anew has the
    /// cookie that it had, so the two together tell its minisockets apart.
    pub(super) timer: Address,
    /// When it was last heard of.
    pub(super) seen: u64,
    /// Minisockets: what the timer was last known to be set to.
    pub(super) expires: u32,
    pub(super) owner: u32,
    pub(super) destination: u32,
    /// Index of its namespace.
    pub(super) namespace: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    pub(super) flags: u16,
    pub(super) state: State,
    pub(super) rearmed: u8,
}

const _: () = assert!(size_of::<Story>() == 96);

impl Story {
    pub(super) const BLANK: Story = Story {
        key: 0,
        id: 0,
        local: [0; 16],
        remote: [0; 16],
        since: 0,
        timer: Address(0),
        seen: 0,
        expires: 0,
        owner: owners::NOBODY,
        destination: destinations::NOWHERE,
        namespace: 0,
        local_port: 0,
        remote_port: 0,
        flags: 0,
        state: State::Close,
        rearmed: 0,
    };

    #[inline(always)]
    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub(super) fn set(&mut self, flag: u16, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    pub(super) fn side(&self) -> Side {
        match self.flags & (flag::CLIENT | flag::SERVER) {
            flag::CLIENT => Side::Client,
            flag::SERVER => Side::Server,
            _ => Side::Unknown,
        }
    }

    pub(super) fn set_side(&mut self, side: Side) {
        self.flags &= !(flag::CLIENT | flag::SERVER);
        self.flags |= match side {
            Side::Client => flag::CLIENT,
            Side::Server => flag::SERVER,
            Side::Unknown => 0,
        };
    }

    /// Takes the addresses; a local port that is known already stays. A
    /// listener's child has none yet at its first step.
    pub(super) fn set_tuple(&mut self, tuple: &Tuple) {
        if tuple.is_nameless() {
            return;
        }
        self.local = tuple.local;
        self.remote = tuple.remote;
        self.remote_port = tuple.remote_port;
        if tuple.local_port != 0 {
            self.local_port = tuple.local_port;
        }
        self.flags |= flag::TUPLE;
        self.set(flag::INET6, tuple.family == Family::Inet6);
    }

    #[inline(always)]
    pub(super) fn tuple(&self, netns: Netns) -> Option<Tuple> {
        self.is(flag::TUPLE).then(|| Tuple {
            netns,
            family: if self.is(flag::INET6) {
                Family::Inet6
            } else {
                Family::Inet
            },
            local: self.local,
            remote: self.remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
        })
    }

    pub(super) fn since(&self) -> Moment {
        Moment(self.since)
    }

    /// What this identity is called by here.
    pub(super) fn identified(self, identity: Identity) -> Story {
        let mut story = self;
        story.set(flag::BY_ADDRESS, identity.cookie == 0);
        story.key = match identity.cookie {
            0 => identity.address.0,
            cookie => cookie,
        };
        story
    }

    /// Of a minisocket.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            cookie: if self.is(flag::BY_ADDRESS) {
                0
            } else {
                self.key
            },
            address: self.timer,
        }
    }

    fn is_full(&self, identity: Identity) -> bool {
        if identity.cookie == 0 {
            self.is(flag::BY_ADDRESS) && self.key == identity.address.0
        } else {
            !self.is(flag::BY_ADDRESS) && self.key == identity.cookie
        }
    }

    /// Whether it is this one, a minisocket; both have their kind of key.
    pub(super) fn is_minisocket(&self, identity: Identity) -> bool {
        self.is_full(identity) && self.timer == identity.address
    }
}

#[derive(Debug)]
pub(super) struct Stories {
    chunks: Vec<Box<[Story]>>,
    free: Vec<Slot>,
    /// Slots ever used.
    used: u32,
    full: HashTable<Slot>,
    minisockets: HashTable<Slot>,
    /// How many have no cookie.
    by_address: usize,
    next_id: u64,
}

impl Stories {
    pub(super) fn new() -> Stories {
        Stories {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            full: HashTable::new(),
            minisockets: HashTable::new(),
            by_address: 0,
            next_id: 1,
        }
    }

    #[inline(always)]
    pub(super) fn at(&self, slot: Slot) -> &Story {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut Story {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    #[inline]
    pub(super) fn full(&self, socket: Identity) -> Option<Slot> {
        self.full
            .find(hash_of(socket), |&slot| self.at(slot).is_full(socket))
            .copied()
    }

    #[inline]
    pub(super) fn minisocket(&self, minisocket: Identity) -> Option<Slot> {
        self.minisockets
            .find(hash_of(minisocket), |&slot| {
                self.at(slot).is_minisocket(minisocket)
            })
            .copied()
    }

    /// Whether the full socket of this cookie has gone on as a minisocket.
    pub(super) fn has_minisocket_of(&self, cookie: u64) -> bool {
        let of = |&slot: &Slot| {
            let story = self.at(slot);
            story.key == cookie && !story.is(flag::BY_ADDRESS)
        };
        self.minisockets.find(mixed(cookie), of).is_some()
    }

    /// The one at this address that is known by nothing else; asked of an event
    /// with a cookie that is new here.
    pub(super) fn by_address(&self, address: Address, minisocket: bool) -> Option<Slot> {
        if self.by_address == 0 {
            return None;
        }
        let index = if minisocket {
            &self.minisockets
        } else {
            &self.full
        };
        let is_here = |&slot: &Slot| {
            let story = self.at(slot);
            story.is(flag::BY_ADDRESS) && story.key == address.0
        };
        index.find(mixed(address.0), is_here).copied()
    }

    /// It has a cookie now, or is known to have had it all the time.
    pub(super) fn identify(&mut self, slot: Slot, cookie: u64) {
        self.unindex(slot);
        let story = self.at_mut(slot);
        story.key = cookie;
        story.set(flag::BY_ADDRESS, false);
        self.index(slot);
    }

    /// Begins a story, or takes one up again that has its number already; its
    /// key must not be in use.
    pub(super) fn insert(&mut self, mut story: Story) -> Slot {
        if story.id == 0 {
            story.id = self.next_id;
            self.next_id += 1;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.used as usize == self.chunks.len() * CHUNK {
                self.chunks
                    .push(vec![Story::BLANK; CHUNK].into_boxed_slice());
            }
            self.used += 1;
            self.used - 1
        });
        *self.at_mut(slot) = story;
        self.index(slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.unindex(slot);
        *self.at_mut(slot) = Story::BLANK;
        self.free.push(slot);
    }

    /// The full socket goes on as this minisocket.
    pub(super) fn move_to_minisocket(&mut self, slot: Slot, minisocket: Identity) {
        self.unindex(slot);
        let story = self.at_mut(slot);
        *story = story.identified(minisocket);
        story.timer = minisocket.address;
        story.flags |= flag::MINISOCKET;
        self.index(slot);
    }

    /// Full sockets that have no cookie; there are some only from before the start.
    pub(super) fn without_cookie(&self) -> impl Iterator<Item = Slot> + '_ {
        let all = if self.by_address == 0 {
            None
        } else {
            Some(self.full.iter().copied())
        };
        all.into_iter()
            .flatten()
            .filter(|&slot| self.at(slot).is(flag::BY_ADDRESS))
    }

    /// Every live story; for seeds and for what is rare.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.full.iter().chain(&self.minisockets).copied()
    }

    fn index(&mut self, slot: Slot) {
        let Story { key, flags, .. } = *self.at(slot);
        let chunks = &self.chunks;
        let index = if flags & flag::MINISOCKET == 0 {
            &mut self.full
        } else {
            &mut self.minisockets
        };
        index.insert_unique(mixed(key), slot, |&slot| {
            mixed(chunks[slot as usize / CHUNK][slot as usize % CHUNK].key)
        });
        self.by_address += usize::from(flags & flag::BY_ADDRESS != 0);
    }

    fn unindex(&mut self, slot: Slot) {
        let Story { key, flags, .. } = *self.at(slot);
        let index = if flags & flag::MINISOCKET == 0 {
            &mut self.full
        } else {
            &mut self.minisockets
        };
        if let Ok(entry) = index.find_entry(mixed(key), |&found| found == slot) {
            entry.remove();
            self.by_address -= usize::from(flags & flag::BY_ADDRESS != 0);
        }
    }
}

#[inline(always)]
fn hash_of(identity: Identity) -> u64 {
    mixed(match identity.cookie {
        0 => identity.address.0,
        cookie => cookie,
    })
}

/// Spreads a cookie, of which one is the next one's neighbour, or an address, whose
/// low bits are alignment: the index wants both ends of the hash to differ.
#[inline(always)]
fn mixed(key: u64) -> u64 {
    fold(key ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::{Stories, Story, flag};
    use crate::model::event::{Address, Identity};

    fn identity(cookie: u64, address: u64) -> Identity {
        Identity {
            cookie,
            address: Address(address),
        }
    }

    #[test]
    fn a_birth_moves_a_story_and_keeps_its_number() {
        let mut stories = Stories::new();
        let slot = stories.insert(Story::BLANK.identified(identity(7, 0x1000)));
        let id = stories.at(slot).id;
        stories.move_to_minisocket(slot, identity(7, 0x2000));
        assert_eq!(stories.full(identity(7, 0x1000)), None);
        assert_eq!(stories.minisocket(identity(7, 0x2000)), Some(slot));
        assert_eq!(stories.minisocket(identity(7, 0x3000)), None);
        assert!(stories.has_minisocket_of(7) && !stories.has_minisocket_of(8));
        assert_eq!(stories.at(slot).id, id);
        assert!(stories.at(slot).is(flag::MINISOCKET));
    }

    #[test]
    fn one_without_a_cookie_goes_by_its_address_until_it_has_one() {
        let mut stories = Stories::new();
        let slot = stories.insert(Story::BLANK.identified(identity(0, 0x1000)));
        assert_eq!(stories.full(identity(0, 0x1000)), Some(slot));
        assert_eq!(stories.full(identity(7, 0x1000)), None);
        assert_eq!(stories.by_address(Address(0x1000), false), Some(slot));
        stories.identify(slot, 7);
        assert_eq!(stories.full(identity(7, 0x1000)), Some(slot));
        assert_eq!(stories.full(identity(0, 0x1000)), None);
        assert_eq!(stories.by_address(Address(0x1000), false), None);
    }

    #[test]
    fn a_cookie_is_never_taken_for_an_address() {
        let mut stories = Stories::new();
        let slot = stories.insert(Story::BLANK.identified(identity(0, 0x1000)));
        assert_eq!(stories.full(identity(0x1000, 0x2000)), None);
        stories.remove(slot);
        assert_eq!(stories.by_address, 0);
    }

    #[test]
    fn every_cookie_is_found_again_after_growth_and_removal() {
        let named = |n: u64| identity(n + 1, 0);
        let mut stories = Stories::new();
        for n in 0..5000 {
            stories.insert(Story::BLANK.identified(named(n)));
        }
        for n in (0..5000).step_by(2) {
            let slot = stories.full(named(n)).expect("it is live");
            stories.remove(slot);
        }
        for n in 5000..7500 {
            stories.insert(Story::BLANK.identified(named(n)));
        }
        assert_eq!(stories.slots().count(), 5000);
        assert_eq!(stories.chunks.len(), 5, "freed slots are used again");
        for n in 0..7500 {
            let found = stories.full(named(n)).is_some();
            assert_eq!(found, n >= 5000 || n % 2 == 1, "{n}");
        }
    }
}
