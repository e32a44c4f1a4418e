//! The kernel side and the ledger that it feeds.
//!
//! Takes stock of every socket in scope, drains the ring, asks the witnesses,
//! and takes stock anew when they doubt the counts. It knows no sink, and
//! nobody tells it when but its caller.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use log::{debug, warn};
use rustc_hash::FxHashMap;

use super::Plan;
use super::namespaces::Namespaces;
use crate::kernel::counters::Reading;
use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::{Met, Tracer, Wanted};
use crate::kernel::walk::{NetnsFacts, Stuck};
use crate::kernel::{cgroup, clock, counters};
use crate::model::event::{Event, Identity, Lost, Moment, Netns, Tick};
use crate::model::found::Found;
use crate::model::happening::Happening;
use crate::model::ledger::{Config, Ledger};
use crate::selftest;

/// How often the kernel's own counters are asked, at most.
const WITNESS: Duration = Duration::from_millis(900);

/// Once in so many witnesses all of /proc is gone through for ways into namespaces,
/// and what is set in each of them is read. Where it matters, it is read at each.
const WAYS_EVERY: u32 = 20;

/// A resync reads every socket, so there is no more than one in this time.
const RESYNC: Duration = Duration::from_millis(400);

/// The kernel side and the ledger it feeds.
pub(super) struct Watch {
    pub(super) tracer: Tracer,
    pub(super) ledger: Ledger,
    pub(super) namespaces: Namespaces,
    /// Where half-open requests were found last.
    half_open: FxHashMap<Netns, u64>,
    /// How often accept queues were full, as of the last witness.
    pub(super) overflows: FxHashMap<Netns, u64>,
    last_witness: Moment,
    witnessed: u32,
    last_resync: Moment,
    last_lost: Lost,
    undecided: Vec<Identity>,
}

impl Watch {
    /// Attaches the tracer and takes the first stock.
    pub(super) fn start(facts: &Facts, plan: &Plan, hz: u32) -> Result<Watch> {
        let only = netns::resolve(&plan.scope.netns.to_string()).map_err(|error| anyhow!(error))?;
        let mut filter = plan.scope.filter.clone();
        filter.look_up_cgroups(cgroup::ids)?;
        let mut tracer = selftest::load_checked(
            facts,
            &Wanted {
                only: only.clone(),
                filter: filter.clone(),
                tell_all: filter.judges(),
                ring_bytes: plan.ring_bytes,
                events_alone: false,
                distortion: plan.distortion,
            },
        )?;
        let (moment, jiffies) = tracer.clocks()?;
        let started = clock::now();
        let tick = Tick {
            hz,
            moment,
            jiffies,
        };
        let mut watch = Watch {
            tracer,
            ledger: Ledger::new(Config {
                secret: secret(),
                ..Config::new(tick, filter, started)
            }),
            namespaces: Namespaces::new(only),
            half_open: FxHashMap::default(),
            overflows: FxHashMap::default(),
            last_witness: Moment(0),
            witnessed: 1,
            last_resync: started,
            last_lost: Lost::default(),
            undecided: Vec::new(),
        };
        // From the first event on each step carries its addresses, so that none
        // is of a socket unheard of.
        watch.tracer.tell_all(true)?;
        watch.tracer.attach()?;
        watch.take_stock(&mut |_| ())?;
        debug!("took stock in {:?}", clock::now().since(started));
        Ok(watch)
    }

    /// The only namespace to be seen has ended, and all is told of it.
    pub(super) fn is_over(&self) -> Option<Netns> {
        self.namespaces
            .ended()
            .filter(|&netns| self.namespaces.replaced() || self.ledger.sockets_in(netns) == 0)
    }

    /// The only namespace to be seen.
    pub(super) fn only(&self) -> Option<Netns> {
        self.namespaces.only()
    }

    /// The next [`Watch::ask`] is not to lag behind the kernel's counters.
    pub(super) fn hasten(&mut self) {
        self.last_witness = Moment(0);
    }

    /// Those in scope that can be entered, as of the last look.
    pub(super) fn namespaces(&self) -> &[Namespace] {
        self.namespaces.ways()
    }

    /// Tells what waits in the ring.
    pub(super) fn drain(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let ledger = &mut self.ledger;
        self.tracer.drain(|event| ledger.apply(event, tell))
    }

    /// Puts the kernel's own figures, the silent steps, the half-open requests
    /// and the losses to the ledger.
    pub(super) fn ask(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        // Asked before the ring is drained and applied after: no answer is then
        // newer than what the ledger knows.
        let now = clock::now();
        let mut answers = self.listeners()?;
        if now.since(self.last_witness) >= WITNESS {
            self.last_witness = now;
            self.look_at_namespaces(tell)?;
            self.ledger.asks(clock::now());
            self.overflows.clear();
            for reading in counters::read(self.namespaces.ways()) {
                let Reading {
                    netns,
                    cookie,
                    counters,
                } = reading;
                // A way may lead elsewhere by now.
                if self.namespaces.is_listed(netns, cookie) {
                    self.overflows.insert(netns, counters.listen_overflows);
                    answers.push(Event::Counters { netns, counters });
                }
            }
        }
        let Self { tracer, ledger, .. } = self;
        self.undecided.clear();
        self.undecided.extend(ledger.undecided());
        tracer.sweep(&self.undecided, |event| answers.push(event.clone()))?;
        tracer.drain(|event| ledger.apply(event, tell))?;
        ledger.pass(now, tell);
        // First of all the losses: what the witnesses miss may be among them.
        let (lost, timeouts) = tracer.counted()?;
        if lost != self.last_lost {
            debug!("lost since the start: {lost:?}");
            self.last_lost = lost;
        }
        ledger.apply(&Event::Lost(lost), tell);
        ledger.apply(&Event::SynAckTimeouts(timeouts), tell);
        for answer in &answers {
            ledger.apply(answer, tell);
        }
        Ok(())
    }

    /// Reads again what is set where ports have run out: they may be others than
    /// those last read. Nothing is drained after this and before a snapshot.
    pub(super) fn reread_facts(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let all = self.namespaces.all().iter();
        let doubted = all.filter(|net| self.ledger.doubts_facts(net.netns));
        let doubted: Vec<NetnsFacts> = doubted.copied().collect();
        self.register(&doubted, tell)
    }

    /// Which namespaces there are now, what is set in them, and the ways in.
    fn look_at_namespaces(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let found = self.tracer.walk()?.namespaces()?;
        let new = self.namespaces.list(found);
        let anew = self.witnessed.is_multiple_of(WAYS_EVERY);
        self.witnessed += 1;
        // All of /proc is gone through: not each time, where none is new.
        if anew || !new.is_empty() {
            self.namespaces.look_for_ways(Search::Quick)?;
        }
        let bound = self.ledger.goes_by_facts();
        let all = self.namespaces.all().iter();
        let due = all.filter(|net| anew || bound.contains(&net.netns) || new.contains(net));
        let due: Vec<NetnsFacts> = due.copied().collect();
        self.register(&due, tell)
    }

    /// Registers with the ledger what is set in these namespaces.
    fn register(
        &mut self,
        namespaces: &[NetnsFacts],
        tell: &mut impl FnMut(&Happening),
    ) -> Result<()> {
        let mut walk = self.tracer.walk()?;
        for namespace in namespaces {
            let netns = namespace.netns;
            // One that has ended has nothing set any more.
            if let Some(mut facts) = walk.facts(namespace)? {
                facts.name = self.namespaces.name(netns);
                self.ledger.apply(&Event::Namespace { netns, facts }, tell);
            }
        }
        Ok(())
    }

    /// The half-open requests of every namespace, as its listeners count them.
    fn listeners(&mut self) -> Result<Vec<Event>> {
        let mut counted = HalfOpen::default();
        let only = self.namespaces.only();
        self.tracer.walk()?.listeners(only, |found| {
            counted.count(found);
            Ok(())
        })?;
        Ok(self.half_open_since(counted))
    }

    /// What is counted now, as events; of a namespace where none is left, too.
    fn half_open_since(&mut self, counted: HalfOpen) -> Vec<Event> {
        let before = std::mem::replace(&mut self.half_open, counted.0);
        let gone = before
            .into_keys()
            .filter(|netns| !self.half_open.contains_key(netns))
            .map(|netns| (netns, 0));
        let now = self.half_open.iter().map(|(&netns, &now)| (netns, now));
        now.chain(gone)
            .map(|(netns, now)| Event::HalfOpen { netns, now })
            .collect()
    }

    /// Takes stock anew where the ledger has reason to doubt its counts.
    pub(super) fn settle_doubts(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let now = clock::now();
        let Some(doubt) = self.ledger.doubts(now) else {
            return Ok(());
        };
        if now.since(self.last_resync) < RESYNC {
            return Ok(());
        }
        debug!("taking stock anew: {doubt}");
        self.last_resync = now;
        self.tracer.tell_all(true)?;
        self.take_stock(tell)?;
        // What was lost meanwhile is in doubt still.
        self.ledger.apply(&Event::Lost(self.tracer.lost()?), tell);
        Ok(())
    }

    /// Seeds the ledger with every socket of every namespace in scope, and then
    /// lets it catch up with what happened meanwhile. Steps carry their
    /// addresses before this is called; they no longer do afterwards.
    fn take_stock(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        self.drain(tell)?;
        self.ledger.begin_seed(clock::now(), tell);
        let only = self.namespaces.only();
        let mut counted = HalfOpen::default();
        let ledger = &mut self.ledger;
        let outcome = self.tracer.look(only, |met| match met {
            Met::Event(event) => ledger.apply(event, tell),
            Met::Sockets(found) => {
                counted.count(found);
                for seed in found.iter().filter_map(Found::seed) {
                    ledger.apply(&Event::Seed(seed), tell);
                }
            }
        })?;
        debug!(
            "{} sockets in {} namespaces, {} chains begun again, {} runs of {:?} at most",
            outcome.sockets,
            outcome.namespaces.all.len(),
            outcome.restarts,
            outcome.runs,
            outcome.longest
        );
        let new = self.namespaces.list(outcome.namespaces);
        if !new.is_empty() {
            self.namespaces.look_for_ways(Search::Quick)?;
            self.register(&new, tell)?;
        }
        for event in self.half_open_since(counted) {
            self.ledger.apply(&event, tell);
        }
        if !outcome.stuck.is_empty() {
            self.iterate(&outcome.stuck, tell)?;
        }
        self.ledger.end_seed(clock::now());
        self.tracer.tell_all(false)?;
        self.drain(tell)
    }

    /// What the walk could not read, by the kernel's iterator: namespace after
    /// namespace, of those that can be entered.
    fn iterate(&mut self, stuck: &[Stuck], tell: &mut impl FnMut(&Happening)) -> Result<()> {
        warn!(
            "{} chains of the kernel's tables could not be read (the first: bucket {}): \
             its iterator is asked instead",
            stuck.len(),
            stuck[0].bucket
        );
        self.namespaces.look_for_ways(Search::Everywhere)?;
        let Self {
            tracer,
            ledger,
            namespaces,
            ..
        } = self;
        let closed: Vec<Netns> = namespaces.without_way().collect();
        for namespace in namespaces.ways() {
            match tracer.seed(namespace, |event| ledger.apply(event, tell)) {
                // It has ended, and its sockets with it.
                Err(error) if has_gone(&error) => {}
                Err(error) => {
                    warn!("{error:#}: what the walk did not see there is not known");
                    ledger.passed_over(Netns(namespace.inode));
                }
                Ok(_) => {}
            }
        }
        if !closed.is_empty() {
            warn!(
                "{} network namespaces cannot be entered for that",
                closed.len()
            );
        }
        for netns in closed {
            ledger.passed_over(netns);
        }
        Ok(())
    }
}

/// Drawn by chance.
#[expect(clippy::disallowed_methods, reason = "a run's secret is drawn here")]
fn secret() -> u64 {
    RandomState::new().hash_one(0)
}

/// Half-open requests by namespace.
#[derive(Debug, Default)]
struct HalfOpen(FxHashMap<Netns, u64>);

impl HalfOpen {
    fn count(&mut self, found: &[Found]) {
        for socket in found {
            if let Some(listener) = socket.listener
                && listener.half_open > 0
            {
                *self.0.entry(socket.tuple.netns).or_default() += u64::from(listener.half_open);
            }
        }
    }
}

/// Nothing leads to that namespace any more, or to another one.
fn has_gone(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    })
}
