//! A look at every socket from time to time, for what only the sockets say.
//!
//! It is no part of the counts: those come of events, and of seeds.

use std::time::Duration;

use anyhow::Result;
use log::debug;
use rustc_hash::{FxHashMap, FxHashSet};

use super::watch::Watch;
use crate::kernel::cgroup::Cgroups;
use crate::kernel::clock;
use crate::kernel::tracer::{Held, Met};
use crate::model::event::{Address, Moment, Netns};
use crate::model::found::Found;
use crate::model::happening::{Happening, Process};
use crate::model::ledger::Ledger;
use crate::model::owners::shown;
use crate::model::stock::{Beginning, Known, Listens, Look, Memory, Place, Stock};

/// No more than this share of one CPU is spent on looking: a look that took so long
/// is the last for so many times as long.
const SHARE: u32 = 50;

/// And there is no more than one in this time.
const EVERY: Duration = Duration::from_millis(400);

/// Nor is there none for longer than this, of however many sockets.
const SELDOM: Duration = Duration::from_secs(8);

/// Where nothing has happened meanwhile, once in this time is enough.
const QUIET: Duration = Duration::from_secs(5);

/// So many owners are remembered.
const OWNERS: usize = 65_536;

/// What was found last, and when the next look is due.
#[derive(Debug)]
pub(super) struct Looked {
    stock: Stock,
    at: Moment,
    due: Moment,
    /// Those of the kernel side that were read before.
    records: u64,
    memory: Memory,
    cgroups: Cgroups,
    /// Who holds sockets, by their addresses, as was asked for; with their cookies,
    /// because addresses are used again.
    owners: FxHashMap<Address, (u64, Process)>,
    owners_due: Moment,
    /// Those that nobody was found to hold.
    nobodys: FxHashSet<Address>,
}

impl Looked {
    pub(super) fn new() -> Looked {
        Looked {
            stock: Stock::default(),
            at: Moment(0),
            due: Moment(0),
            records: u64::MAX,
            memory: Memory::default(),
            cgroups: Cgroups::new(),
            owners: FxHashMap::default(),
            owners_due: Moment(0),
            nobodys: FxHashSet::default(),
        }
    }

    /// What is known of a socket: by its events, or else because it was asked for.
    fn known(&self, ledger: &Ledger, socket: &Found) -> Known {
        let known = ledger.known(socket);
        let asked = || {
            let (cookie, process) = self.owners.get(&socket.address)?;
            (*cookie == socket.cookie).then_some(*process)
        };
        Known {
            owner: known.owner.or_else(asked),
            ..known
        }
    }

    /// What was found last, as of `at`.
    pub(super) fn as_of(&self, at: Moment) -> Stock {
        Stock {
            ago_s: at.since(self.at).as_secs_f64(),
            ..self.stock.clone()
        }
    }
}

/// When the next look is due after one that took so much of a CPU.
fn due(began: Moment, took: Duration) -> Moment {
    let pause = (took * SHARE).clamp(EVERY, SELDOM);
    Moment(began.0 + pause.as_nanos() as u64)
}

impl Watch {
    /// Looks at every socket, unless it is too early for that.
    pub(super) fn look(
        &mut self,
        looked: &mut Looked,
        tell: &mut impl FnMut(&Happening),
    ) -> Result<()> {
        let (began, before) = (clock::now(), clock::spent());
        let records = self.tracer.records();
        let quiet = records == looked.records && began.since(looked.at) < QUIET;
        if began < looked.due || quiet {
            return Ok(());
        }
        looked.records = records;
        let mut look = Look::new(self.begin_look(looked)?);
        let only = self.only();
        let Watch { tracer, ledger, .. } = self;
        let outcome = tracer.look(only, |met| match met {
            Met::Event(event) => ledger.apply(event, tell),
            Met::Sockets(found) => {
                for socket in found {
                    let in_scope = ledger.is_in_scope(socket);
                    look.take(socket, in_scope, || looked.known(ledger, socket));
                }
            }
        })?;
        self.ask_for_owners(&mut look, looked, tell)?;
        let cgroups = &mut looked.cgroups;
        looked.stock = look.end(&mut looked.memory, &mut |id| {
            cgroups.path(id).map(str::to_owned)
        });
        looked.at = began;
        // Of sockets that have gone nobody needs to know any more.
        if looked.owners.len() > OWNERS {
            looked.owners.clear();
        }
        let took = clock::spent().saturating_sub(before);
        looked.due = due(began, took);
        debug!("looked at {} sockets for {took:?}", outcome.sockets);
        Ok(())
    }

    /// Who holds what the look met and no event told of: by all open files.
    fn ask_for_owners(
        &mut self,
        look: &mut Look,
        looked: &mut Looked,
        tell: &mut impl FnMut(&Happening),
    ) -> Result<()> {
        let (began, before) = (clock::now(), clock::spent());
        let unowned = look.unowned();
        // Who did not say whose it is last time will not say it now.
        if unowned.is_empty() || began < looked.owners_due || unowned == looked.nobodys {
            return Ok(());
        }
        let mut owners = FxHashMap::default();
        let Watch { tracer, ledger, .. } = self;
        tracer.owners(|held| match held {
            Held::Event(event) => ledger.apply(event, tell),
            Held::Owned(owned) => {
                let asked = owned.iter().filter(|owned| unowned.contains(&owned.socket));
                for owned in asked {
                    let process = Process {
                        pid: shown(owned.process.pid),
                        ..owned.process
                    };
                    owners
                        .entry(owned.socket)
                        .or_insert((owned.cookie, process));
                }
            }
        })?;
        let took = clock::spent().saturating_sub(before);
        debug!(
            "asked for {} owners for {took:?}, found {}",
            unowned.len(),
            owners.len()
        );
        look.own(
            &owners
                .iter()
                .map(|(socket, (_, by))| (*socket, *by))
                .collect(),
        );
        looked.nobodys = look.unowned();
        looked.owners.extend(owners);
        looked.owners_due = due(began, took);
        Ok(())
    }

    fn begin_look(&mut self, looked: &Looked) -> Result<Beginning> {
        let only = self.only();
        let mut listeners = Vec::new();
        let ledger = &self.ledger;
        let mut walk = self.tracer.walk()?;
        walk.listeners(only, |found| {
            listeners.extend(found.iter().map(|found| Listens {
                found: *found,
                owner: looked.known(ledger, found).owner,
                in_scope: ledger.is_in_scope(found),
            }));
            Ok(())
        })?;
        let ports = walk.ports(only)?;
        let mut places: FxHashMap<Netns, Place> = FxHashMap::default();
        for namespace in self.namespaces.all() {
            // What the ledger knows of it may be some seconds old.
            let Some(facts) = walk.facts(namespace)? else {
                continue;
            };
            let reserved = match facts.reserved_ports {
                0 => None,
                _ => walk.reserved(namespace)?,
            };
            let place = Place {
                facts,
                reserved: reserved.unwrap_or_default(),
            };
            places.insert(namespace.netns, place);
        }
        let (at, jiffies) = self.tracer.clocks()?;
        Ok(Beginning {
            at,
            jiffies,
            hz: self.ledger.hz(),
            secret: self.ledger.secret(),
            places,
            listeners,
            overflows: self.overflows.clone(),
            ports,
            refused: self.ledger.refused().collect(),
        })
    }
}
