//! The one loop: ring, tick, interval, signal -> ledger -> sink.
//!
//! It takes stock of the machine, keeps the ledger fed, listens to the
//! witnesses and takes stock anew when they doubt the counts. What becomes of
//! snapshots and happenings is the sink's affair.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya_log::EbpfLogger;
use log::{debug, warn};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::kernel::cgroup::Cgroups;
use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::{Tracer, Wanted};
use crate::kernel::{clock, counters, sysctl};
use crate::model::event::{Address, Event, Lost, Moment, Netns, Tick};
use crate::model::happening::Happening;
use crate::model::ledger::{Config, Frame, Ledger};
use crate::model::snapshot::{self, Snapshot};
use crate::options::Scope;

/// How soon the ring is looked at again after something was in it, and how late
/// at most where nothing is. It wakes us by itself when it fills.
const TICK: Duration = Duration::from_millis(20);
const IDLE_TICK: Duration = Duration::from_millis(160);

/// How often at least the kernel is asked what it does not say by itself, and
/// doubts are settled, however rarely snapshots are wanted.
const UPKEEP: Duration = Duration::from_millis(500);

/// How often the kernel's own counters are asked, at most.
const WITNESS: Duration = Duration::from_millis(900);

/// The sysctls of namespaces already known are read once in so many witnesses.
const FACTS_EVERY: u32 = 10;

/// A resync costs what `ss` does, so there is no more than one in this time.
const RESYNC: Duration = Duration::from_millis(400);

/// Half-open requests are counted at rest no more often than this.
const COUNT_REQUESTS: Duration = Duration::from_secs(1);

/// Where snapshots and happenings go; each says whether it wants more.
pub trait Sink {
    fn happening(&mut self, happening: &Happening, names: &mut Names) -> Result<More>;

    /// The happenings of this look at the ring are all told.
    fn flush(&mut self) -> Result<()>;

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<More>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Yes,
    /// The run is over as far as the sink is concerned.
    Enough,
}

/// What a happening needs beyond itself to be told.
#[derive(Debug)]
pub struct Names {
    pub cgroups: Cgroups,
    pub wall: clock::Wall,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scope: Scope,
    pub interval: Duration,
    pub duration: Option<Duration>,
    pub ring_bytes: u32,
}

/// Runs until the sink has enough, the time is over, or a signal asks to end.
pub fn run(facts: &Facts, plan: &Plan, sink: &mut impl Sink) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(async { Session::start(facts, plan)?.run(plan, sink).await })
}

/// The watch, and what its snapshots are headed with.
struct Session {
    watch: Watch,
    names: Names,
    scope: snapshot::Scope,
    host: snapshot::Host,
    started: Moment,
    last_snapshot: Moment,
    seq: u64,
}

/// The kernel side and the ledger it feeds.
struct Watch {
    tracer: Tracer,
    ledger: Ledger,
    map: NamespaceMap,
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

impl Session {
    fn start(facts: &Facts, plan: &Plan) -> Result<Self> {
        let only = netns::resolve(&plan.scope.netns.to_string()).map_err(|error| anyhow!(error))?;
        let filter = plan.scope.filter.clone();
        let mut tracer = Tracer::load(
            facts,
            &Wanted {
                netns: only.as_ref().map(|namespace| Netns(namespace.inode)),
                family: filter.family(),
                tell_all: filter.needs_addresses(),
                ring_bytes: plan.ring_bytes,
            },
        )?;
        let host = clock::host().context("cannot tell what host this is")?;
        let (moment, jiffies) = tracer.clocks()?;
        let started = clock::now();
        let tick = Tick {
            hz: host.hz,
            moment,
            jiffies,
        };
        let config = Config::new(tick, filter.clone(), started);
        let mut watch = Watch {
            tracer,
            ledger: Ledger::new(config),
            map: NamespaceMap {
                only,
                known: Vec::new(),
            },
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
        Ok(Self {
            watch,
            names: Names {
                cgroups: Cgroups::new(),
                wall: clock::Wall::now(),
            },
            scope: snapshot::Scope {
                netns: plan.scope.netns.to_string(),
                filter: filter.to_string(),
            },
            host,
            started,
            last_snapshot: started,
            seq: 0,
        })
    }

    async fn run(mut self, plan: &Plan, sink: &mut impl Sink) -> Result<()> {
        let mut logger = match EbpfLogger::init(self.watch.tracer.ebpf_mut()) {
            Ok(logger) => Some(logger),
            Err(error) => {
                warn!("the kernel side's log is not to be had: {error}");
                None
            }
        };
        let ring = self
            .watch
            .tracer
            .readable()
            .context("cannot wait for the ring buffer")?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut pause = TICK;
        let tick = tokio::time::sleep(pause);
        tokio::pin!(tick);
        // The first tick is now: the first table comes at once.
        let mut snapshots = interval(plan.interval);
        snapshots.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = async {
            match plan.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);

        loop {
            let more = tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
                () = &mut over => break,
                _ = snapshots.tick() => {
                    upkeep.reset();
                    self.interval(sink)?
                }
                _ = upkeep.tick() => self.upkeep(sink)?,
                ready = ring.readable() => {
                    ready.context("cannot wait for the ring buffer")?.clear_ready();
                    self.drain(sink)?.1
                }
                () = &mut tick => {
                    if let Some(logger) = &mut logger {
                        logger.flush();
                    }
                    let (told, more) = self.drain(sink)?;
                    pause = if told { TICK } else { IDLE_TICK.min(pause * 2) };
                    tick.as_mut().reset(tokio::time::Instant::now() + pause);
                    more
                }
            };
            if more == More::Enough {
                return Ok(());
            }
        }
        // The last word is not to lag behind the kernel's counters.
        self.watch.last_witness = Moment(0);
        self.interval(sink)?;
        Ok(())
    }

    /// Tells what waits in the ring, and whether anything did.
    fn drain(&mut self, sink: &mut impl Sink) -> Result<(bool, More)> {
        let mut told = Told::new(sink, &mut self.names);
        let records = self.watch.drain(&mut |happening| told.tell(happening));
        Ok((records > 0, told.end()?))
    }

    /// Asks the kernel what it does not say by itself, and puts right what is in
    /// doubt.
    fn upkeep(&mut self, sink: &mut impl Sink) -> Result<More> {
        let mut told = Told::new(sink, &mut self.names);
        self.watch.ask(&mut |happening| told.tell(happening))?;
        self.watch
            .settle_doubts(&mut |happening| told.tell(happening))?;
        told.end()
    }

    /// Takes a snapshot of what is known now.
    fn interval(&mut self, sink: &mut impl Sink) -> Result<More> {
        if self.upkeep(sink)? == More::Enough {
            return Ok(More::Enough);
        }

        let at = clock::now();
        let frame = Frame {
            seq: self.seq,
            at,
            time: self.names.wall.at(at),
            elapsed_s: at.since(self.started).as_secs_f64(),
            interval_s: at.since(self.last_snapshot).as_secs_f64(),
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION"),
            scope: self.scope.clone(),
        };
        self.seq += 1;
        self.last_snapshot = at;
        let cgroups = &mut self.names.cgroups;
        let snapshot = self
            .watch
            .ledger
            .snapshot(frame, &mut |id| cgroups.path(id));
        sink.snapshot(&snapshot)
    }
}

impl Watch {
    /// Tells what waits in the ring.
    fn drain(&mut self, tell: &mut impl FnMut(&Happening)) -> u64 {
        let ledger = &mut self.ledger;
        self.tracer.drain(|event| ledger.apply(event, tell))
    }

    /// Puts the kernel's own figures, the silent steps, the half-open requests
    /// and the losses to the ledger.
    fn ask(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
        let Self {
            tracer,
            ledger,
            map,
            ..
        } = self;
        // Asked before the ring is drained and told after: no answer is then
        // newer than what the ledger knows.
        let mut answers = Vec::new();
        let now = clock::now();
        if now.since(self.last_witness) >= WITNESS {
            self.last_witness = now;
            let new = map.look(Search::Quick)?;
            let anew = self.witnessed.is_multiple_of(FACTS_EVERY);
            self.witnessed += 1;
            for namespace in if anew { &map.known } else { &new } {
                introduce(ledger, namespace, tell);
            }
            for (netns, counters) in counters::read(&map.known) {
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
            for namespace in &map.known {
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
    fn settle_doubts(&mut self, tell: &mut impl FnMut(&Happening)) -> Result<()> {
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
            map,
            ..
        } = self;
        ledger.begin_seed(clock::now());
        map.look(Search::Everywhere)?;
        for namespace in &map.known {
            introduce(ledger, namespace, tell);
            count_requests(tracer, namespace, ledger, true, tell)?;
        }
        ledger.end_seed(clock::now());
        tracer.tell_all(false)?;
        self.drain(tell);
        Ok(())
    }
}

/// Goes through the sockets of a namespace: all of them if `seed`, else only
/// the half-open requests. A namespace that has ended has none.
fn count_requests(
    tracer: &mut Tracer,
    namespace: &Namespace,
    ledger: &mut Ledger,
    seed: bool,
    tell: &mut impl FnMut(&Happening),
) -> Result<()> {
    let netns = Netns(namespace.inode);
    let before = tracer.requests_of(netns)?;
    let found = match tracer.seed(namespace, |event| {
        if seed {
            ledger.apply(event, tell);
        }
    }) {
        Ok(found) => found,
        Err(error) => {
            debug!("namespace {netns:?} is passed over: {error:#}");
            return Ok(());
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
    Ok(())
}

/// Tells the ledger what a namespace is like.
fn introduce(ledger: &mut Ledger, namespace: &Namespace, tell: &mut impl FnMut(&Happening)) {
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

/// The network namespaces in scope.
struct NamespaceMap {
    /// The only one to see, or `None` for all.
    only: Option<Namespace>,
    known: Vec<Namespace>,
}

/// Happenings on their way to a sink, and whether it wants more.
struct Told<'a, S> {
    sink: &'a mut S,
    names: &'a mut Names,
    result: Result<More>,
}

impl<'a, S: Sink> Told<'a, S> {
    fn new(sink: &'a mut S, names: &'a mut Names) -> Self {
        Self {
            sink,
            names,
            result: Ok(More::Yes),
        }
    }

    fn tell(&mut self, happening: &Happening) {
        if let Ok(More::Yes) = self.result {
            self.result = self.sink.happening(happening, self.names);
        }
    }

    fn end(self) -> Result<More> {
        let more = self.result?;
        self.sink.flush()?;
        Ok(more)
    }
}

impl NamespaceMap {
    /// Looks which there are, forgets those that have ended, and gives back
    /// those it did not know.
    fn look(&mut self, search: Search) -> Result<Vec<Namespace>> {
        let mut found = match &self.only {
            Some(only) => vec![only.clone()],
            None => netns::enumerate(search).context("cannot list the network namespaces")?,
        };
        // A quick search does not find what only a thorough one does.
        for known in &self.known {
            let inode = u64::from(known.inode);
            if found.iter().all(|namespace| namespace.inode != known.inode)
                && std::fs::metadata(&known.path).is_ok_and(|file| file.ino() == inode)
            {
                found.push(known.clone());
            }
        }
        let new = found
            .iter()
            .filter(|namespace| {
                self.known
                    .iter()
                    .all(|known| known.inode != namespace.inode)
            })
            .cloned()
            .collect();
        self.known = found;
        Ok(new)
    }
}
