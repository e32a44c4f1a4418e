//! The network namespaces in scope: which there are, and what the ledger is
//! told of each. It refuses to know their sockets.

use anyhow::{Context, Result};
use log::debug;
use rustc_hash::FxHashMap;

use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::sysctl;
use crate::model::event::{Event, Netns};
use crate::model::happening::Happening;
use crate::model::ledger::Ledger;

/// The network namespaces in scope.
#[derive(Debug)]
pub(super) struct Known {
    /// The only one to see, or `None` for all.
    only: Option<Namespace>,
    /// The only one is not to be found any more.
    lost_sight: bool,
    /// Another has its inode now.
    replaced: bool,
    all: Vec<Namespace>,
    /// By inode, of those that were entered.
    cookies: FxHashMap<Netns, u64>,
}

impl Known {
    pub(super) fn new(only: Option<Namespace>) -> Known {
        Known {
            only,
            lost_sight: false,
            replaced: false,
            all: Vec::new(),
            cookies: FxHashMap::default(),
        }
    }

    /// As of the last look.
    pub(super) fn all(&self) -> &[Namespace] {
        &self.all
    }

    /// Whether there is but one to see.
    pub(super) fn is_one(&self) -> bool {
        self.only.is_some()
    }

    /// The only namespace to see, if nothing leads there any more: no process,
    /// mount or descriptor of this machine.
    pub(super) fn ended(&self) -> Option<Netns> {
        let gone = self.lost_sight || self.replaced;
        let only = self.only.as_ref().filter(|_| gone)?;
        Some(Netns(only.inode))
    }

    /// The only namespace has not just been lost sight of: another has its inode.
    pub(super) fn replaced(&self) -> bool {
        self.replaced
    }

    /// The namespace of this inode is not the one that was known by it: inodes
    /// are used again, and at once.
    pub(super) fn is_another(&mut self, netns: Netns, cookie: u64) -> Option<&Namespace> {
        let before = self.cookies.insert(netns, cookie)?;
        let is_here = |namespace: &&Namespace| namespace.inode == netns.0;
        self.all.iter().find(is_here).filter(|_| before != cookie)
    }

    /// Looks which there are, forgets those that have ended, and gives back
    /// those it did not know.
    pub(super) fn look(&mut self, search: Search) -> Result<Vec<Namespace>> {
        let mut found = match &self.only {
            Some(_) => self.look_for_only()?.into_iter().collect(),
            None => enumerate(search)?,
        };
        // A quick search does not find what only a thorough one does.
        for known in &self.all {
            if found.iter().all(|namespace| namespace.inode != known.inode)
                && netns::is_there(known)
            {
                found.push(known.clone());
            }
        }
        let new = found
            .iter()
            .filter(|namespace| self.all.iter().all(|known| known.inode != namespace.inode))
            .cloned()
            .collect();
        self.all = found;
        let all = &self.all;
        self.cookies
            .retain(|netns, _| all.iter().any(|known| known.inode == netns.0));
        Ok(new)
    }

    /// By the way it was named, or by any other if that has gone.
    fn look_for_only(&mut self) -> Result<Option<Namespace>> {
        let Some(only) = &mut self.only else {
            return Ok(None);
        };
        if !netns::is_there(only) {
            let others = enumerate(Search::Everywhere)?;
            let other = others.into_iter().find(|other| other.inode == only.inode);
            self.lost_sight = other.is_none();
            let Some(other) = other else {
                return Ok(None);
            };
            let cookie = netns::cookie_of(&other);
            if only.cookie.is_some() && cookie.is_some() && cookie != only.cookie {
                self.replaced = true;
                return Ok(None);
            }
            only.way = other.way;
        }
        Ok(Some(only.clone()))
    }
}

fn enumerate(search: Search) -> Result<Vec<Namespace>> {
    netns::enumerate(search).context("cannot list the network namespaces")
}

/// Tells the ledger what a namespace is like.
pub(super) fn introduce(
    ledger: &mut Ledger,
    namespace: &Namespace,
    tell: &mut impl FnMut(&Happening),
) {
    match sysctl::facts(namespace) {
        Ok(facts) => {
            ledger.apply(
                &Event::Namespace {
                    netns: Netns(namespace.inode),
                    facts,
                },
                tell,
            );
        }
        Err(error) => debug!("sysctls of namespace {}: {error}", namespace.inode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_is_told_from_a_later_one_of_its_inode() {
        let made = crate::lab::netns::Netns::new().expect("this test needs root");
        let here = netns::resolve(made.path().to_str().unwrap());
        let here = here.unwrap().unwrap();
        let mut known = Known::new(Some(here.clone()));
        assert_eq!(
            known.look(Search::Quick).unwrap(),
            std::slice::from_ref(&here)
        );
        assert_eq!(known.look(Search::Quick).unwrap(), []);
        assert_eq!((known.ended(), known.replaced()), (None, false));

        let Some(cookie) = here.cookie else {
            return;
        };
        let inode = Netns(here.inode);
        let mut known = Known::new(Some(Namespace {
            cookie: Some(cookie + 1),
            ..here
        }));
        assert_eq!(known.look(Search::Quick).unwrap(), []);
        assert_eq!((known.ended(), known.replaced()), (Some(inode), true));
    }
}
