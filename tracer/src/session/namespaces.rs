//! The network namespaces in scope: which there are, by the kernel's own list, and
//! the ways that lead into them, for what can only be read inside. It refuses to
//! know their sockets.

use anyhow::{Context, Result};
use rustc_hash::FxHashMap;

use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::walk::{self, NetnsFacts};
use crate::model::event::Netns;

/// The network namespaces in scope.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// The only one to see, or `None` for all.
    only: Option<Namespace>,
    /// The only one has ended, or another has its inode now.
    ended: bool,
    replaced: bool,
    /// As of the last look at the kernel's list.
    all: Vec<NetnsFacts>,
    /// Those that can be entered.
    ways: Vec<Namespace>,
}

impl Namespaces {
    pub(super) fn new(only: Option<Namespace>) -> Namespaces {
        Namespaces {
            only,
            ended: false,
            replaced: false,
            all: Vec::new(),
            ways: Vec::new(),
        }
    }

    pub(super) fn only(&self) -> Option<Netns> {
        self.only.as_ref().map(|only| Netns(only.inode))
    }

    /// As of the last look at the kernel's list.
    pub(super) fn all(&self) -> &[NetnsFacts] {
        &self.all
    }

    /// Those that can be entered, as of the last look for ways.
    pub(super) fn ways(&self) -> &[Namespace] {
        &self.ways
    }

    pub(super) fn name(&self, netns: Netns) -> Option<String> {
        let way = self.ways.iter().find(|way| way.inode == netns.0)?;
        way.name.clone()
    }

    /// The only namespace to see, if it has ended.
    pub(super) fn ended(&self) -> Option<Netns> {
        self.only().filter(|_| self.ended)
    }

    /// Another namespace has the inode of the only one to see.
    pub(super) fn replaced(&self) -> bool {
        self.replaced
    }

    /// Takes the kernel's list, and gives back those that are new in it: inodes are
    /// used again, and at once.
    pub(super) fn list(&mut self, found: walk::Namespaces) -> Vec<NetnsFacts> {
        let mut all = found.all;
        if let Some(only) = &self.only {
            all.retain(|net| net.netns.0 == only.inode);
            let is_it = |net: &NetnsFacts| {
                only.cookie
                    .is_none_or(|cookie| net.cookie == 0 || net.cookie == cookie)
            };
            self.replaced = !all.is_empty() && !all.iter().any(is_it);
            all.retain(is_it);
            self.ended = all.is_empty();
        }
        let is_new = |net: &&NetnsFacts| {
            let same = |known: &NetnsFacts| (known.netns, known.cookie) == (net.netns, net.cookie);
            !self.all.iter().any(same)
        };
        let new = all.iter().filter(is_new).copied().collect();
        self.all = all;
        new
    }

    /// Looks for ways into those on the list.
    pub(super) fn look_for_ways(&mut self, search: Search) -> Result<()> {
        let mut found = match &self.only {
            Some(only) if netns::is_there(only) => vec![only.clone()],
            _ => netns::enumerate(search).context("cannot look for network namespaces")?,
        };
        // A quick search does not find what only a thorough one does.
        for way in std::mem::take(&mut self.ways) {
            if found.iter().all(|other| other.inode != way.inode) && netns::is_there(&way) {
                found.push(way);
            }
        }
        let cookies: FxHashMap<u32, u64> = self
            .all
            .iter()
            .map(|net| (net.netns.0, net.cookie))
            .collect();
        found.retain(|way| cookies.contains_key(&way.inode));
        self.ways = found;
        Ok(())
    }

    /// Those on the list that no known way leads into.
    pub(super) fn without_way(&self) -> impl Iterator<Item = Netns> + '_ {
        let all = self.all.iter().map(|net| net.netns);
        all.filter(|netns| self.ways.iter().all(|way| way.inode != netns.0))
    }

    /// Whether the namespace with this inode and cookie is the one on the list.
    pub(super) fn is_listed(&self, netns: Netns, cookie: Option<u64>) -> bool {
        let is_it = |net: &&NetnsFacts| net.netns == netns;
        let listed = self.all.iter().find(is_it);
        listed
            .is_some_and(|net| cookie.is_none_or(|cookie| net.cookie == 0 || net.cookie == cookie))
    }
}
