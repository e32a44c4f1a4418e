//! The kernel side and the ledger that it feeds.
//!
//! Takes stock of every socket in scope, drains the ring, asks the witnesses,
//! and takes stock anew when they doubt the counts. It knows no sink, and
//! nobody tells it when but its caller.

use std::io;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use log::{debug, warn};

use super::Plan;
use super::namespaces::{Known, introduce};
use crate::kernel::counters::Reading;
use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::{Tracer, Wanted};
use crate::kernel::{cgroup, clock, counters};
use crate::model::event::{Address, Event, Lost, Moment, Netns, Tick};
use crate::model::happening::Happening;
use crate::model::ledger::{Config, Ledger};

/// How often the kernel's own counters are asked, at most.
const WITNESS: Duration = Duration::from_millis(900);

/// Once in so many witnesses all of /proc is gone through for namespaces, and the
/// sysctls of those already known are read.
const FACTS_EVERY: u32 = 20;

/// A resync costs what `ss` does, so there is no more than one in this time.
const RESYNC: Duration = Duration::from_millis(400);

/// Half-open requests are counted at rest no more often than this.
const COUNT_REQUESTS: Duration = Duration::from_secs(1);

/// The kernel side and the ledger it feeds.
pub(super) struct Watch {
    pub(super) tracer: Tracer,
    pub(super) ledger: Ledger,
    known: Known,
    last_witness: Moment,
    witnessed: u32,
    last_resync: Moment,
    last_requests: Vec<(Netns, u64, u64)>,
    /// What stood when they were last counted at rest.
    counted_requests: Vec<(Netns, u64, u64)>,
    last_count: Moment,
    last_lost: Lost,
    undecided: Vec<Address>,
}

impl Watch {
    /// Attaches the tracer and takes the first stock.
    pub(super) fn start(facts: &Facts, plan: &Plan, hz: u32) -> Result<Watch> {
        let only = netns::resolve(&plan.scope.netns.to_string()).map_err(|error| anyhow!(error))?;
        let mut filter = plan.scope.filter.clone();
        filter.look_up_cgroups(cgroup::ids)?;
        let mut tracer = Tracer::load(
            facts,
            &Wanted {
                only: only.clone(),
                filter: filter.clone(),
                tell_all: filter.judges(),
                ring_bytes: plan.ring_bytes,
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
            ledger: Ledger::new(Config::new(tick, filter, started)),
            known: Known::new(only),
            last_witness: Moment(0),
            witnessed: 1,
            last_resync: started,
            last_requests: Vec::new(),
            counted_requests: Vec::new(),
            last_count: Moment(0),
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
        self.known
            .ended()
            .filter(|&netns| self.known.replaced() || self.ledger.sockets_in(netns) == 0)
    }

    /// The next [`Watch::ask`] is not to lag behind the kernel's counters.
    pub(super) fn hasten(&mut self) {
        self.last_witness = Moment(0);
    }

    /// Those in scope, as of the last look.
    pub(super) fn namespaces(&self) -> &[Namespace] {
        self.known.all()
    }

    /// Tells what waits in the ring.
    pub(super) fn drain(&mut self, tell: &mut impl FnMut(&Happening)) {
        let ledger = &mut self.ledger;
        self.tracer.drain(|event| ledger.apply(event, tell));
    }

    /// Puts the kernel's own figures, the silent steps, the half-open requests
    /// and the losses to the ledger.
    pub(super) fn ask(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let Self {
            tracer,
            ledger,
            known,
            ..
        } = self;
        // Asked before the ring is drained and told after: no answer is then
        // newer than what the ledger knows.
        let mut answers = Vec::new();
        let now = clock::now();
        if now.since(self.last_witness) >= WITNESS {
            self.last_witness = now;
            let anew = self.witnessed.is_multiple_of(FACTS_EVERY);
            self.witnessed += 1;
            // All of /proc is gone through: not each time, where nobody is new.
            let new = if anew || ledger.meets_strangers() {
                known.look(Search::Quick)?
            } else {
                Vec::new()
            };
            for namespace in if anew { known.all() } else { &new } {
                introduce(ledger, namespace, tell);
            }
            ledger.asks(clock::now());
            let readings = counters::read(known.all());
            // To read them is to enter: where that fails, another way is looked for.
            if known.is_one() && readings.is_empty() {
                for namespace in &known.look(Search::Quick)? {
                    introduce(ledger, namespace, tell);
                }
            }
            for reading in readings {
                let Reading {
                    netns,
                    cookie,
                    counters,
                } = reading;
                let another = cookie.and_then(|new| known.is_another(netns, new)).cloned();
                if let Some(namespace) = another {
                    debug!("another namespace has the inode of {netns:?}");
                    introduce(ledger, &namespace, tell);
                }
                answers.push(Event::Counters { netns, counters });
            }
        }
        let requests = tracer.requests()?;
        for &(netns, born, died) in &requests {
            answers.push(Event::Requests { netns, born, died });
        }
        self.undecided.clear();
        self.undecided.extend(ledger.undecided());
        tracer.sweep(&self.undecided, |event| answers.push(event.clone()))?;
        tracer.drain(|event| ledger.apply(event, tell));
        ledger.pass(now, tell);
        // First of all the losses: what the witnesses miss may be among them.
        let lost = tracer.lost()?;
        if lost != self.last_lost {
            debug!("lost since the start: {lost:?}");
            self.last_lost = lost;
        }
        ledger.apply(&Event::Lost(lost), tell);
        for answer in &answers {
            ledger.apply(answer, tell);
        }

        // Their gauge has no other witness: whenever it stands still after it
        // moved, they are counted. Until then an inexact anchor is good enough.
        if now.since(self.last_count) >= COUNT_REQUESTS {
            for namespace in known.all() {
                let is_here = |at: &&(Netns, u64, u64)| at.0 == Netns(namespace.inode);
                let here = requests.iter().find(is_here);
                let still = here.is_some() && here == self.last_requests.iter().find(is_here);
                if still && here != self.counted_requests.iter().find(is_here) {
                    self.last_count = now;
                    count_requests(tracer, namespace, ledger, false, tell)?;
                    self.counted_requests.retain(|at| !is_here(&at));
                    self.counted_requests.extend(here);
                }
            }
        }
        self.last_requests = requests;
        Ok(())
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
        self.drain(tell);
        let Self {
            tracer,
            ledger,
            known,
            ..
        } = self;
        ledger.begin_seed(clock::now(), tell);
        known.look(Search::Everywhere)?;
        tracer.drain(|event| ledger.apply(event, tell));
        let mut gone = Vec::new();
        for namespace in known.all() {
            introduce(ledger, namespace, tell);
            if count_requests(tracer, namespace, ledger, true, tell)? == Way::Gone {
                gone.push(Netns(namespace.inode));
            }
        }
        if !gone.is_empty() {
            // The process that led there may have ended, and others may live on.
            known.look(Search::Everywhere)?;
            for namespace in known.all() {
                if gone.contains(&Netns(namespace.inode))
                    && count_requests(tracer, namespace, ledger, true, tell)? == Way::Gone
                {
                    ledger.out_of_reach(Netns(namespace.inode));
                }
            }
        }
        let is_known = |netns: Netns| known.all().iter().any(|it| it.inode == netns.0);
        let unknown: Vec<Netns> = ledger.namespaces().filter(|&it| !is_known(it)).collect();
        for netns in unknown {
            ledger.out_of_reach(netns);
        }
        ledger.end_seed(clock::now());
        tracer.tell_all(false)?;
        self.drain(tell);
        Ok(())
    }
}

/// What came of a way into a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Its sockets were read, or nobody is let in.
    Tried,
    /// It leads nowhere any more.
    Gone,
}

/// Goes through the sockets of a namespace: all of them if `seed`, else only
/// the half-open requests; what waits in the ring is told meanwhile. Of a namespace
/// that cannot be entered nothing is known; one that is gone is the caller's business.
fn count_requests(
    tracer: &mut Tracer,
    namespace: &Namespace,
    ledger: &mut Ledger,
    seed: bool,
    tell: &mut impl FnMut(&Happening),
) -> Result<Way> {
    let netns = Netns(namespace.inode);
    let before = tracer.requests_of(netns)?;
    let found = match tracer.seed(namespace, |event| {
        if seed || !matches!(event, Event::Seed(_)) {
            ledger.apply(event, tell);
        }
    }) {
        Ok(found) => found,
        Err(error) if has_gone(&error) => return Ok(Way::Gone),
        Err(error) => {
            warn!("{error:#}: sockets there are not looked for");
            ledger.passed_over(netns);
            return Ok(Way::Tried);
        }
    };
    let (born, died) = tracer.requests_of(netns)?;
    let exact = (born, died) == before;
    ledger.apply(
        &Event::SeedRequests {
            netns,
            found,
            born,
            died,
            exact,
        },
        tell,
    );
    Ok(Way::Tried)
}

/// Nothing leads to that namespace any more, or to another one.
fn has_gone(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    })
}
