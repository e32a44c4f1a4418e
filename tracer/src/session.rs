//! The one loop: ring, tick, interval, signal -> ledger -> sink.
//!
//! It says when; what is done then is [`watch`]'s room, and what becomes of
//! snapshots and happenings is the sink's.

mod look;
mod namespaces;
mod stall;
mod watch;

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use aya_log::EbpfLogger;
use log::{debug, warn};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::look::Looked;
use self::watch::Watch;
use crate::kernel::cgroup::Cgroups;
use crate::kernel::clock;
use crate::kernel::netns::Namespace;
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::Distortion;
use crate::model::event::Moment;
use crate::model::happening::Happening;
use crate::model::ledger::{Frame, Sums};
use crate::model::snapshot::{self, Snapshot};
use crate::options::Scope;
use crate::recording::Ended;

/// How soon the ring is looked at again after something was in it; each time in
/// vain doubles it. The ring wakes us by itself when it fills.
const TICK: Duration = Duration::from_millis(20);

/// How often the kernel is asked what it does not say by itself, and doubts are
/// settled, however rarely snapshots are wanted; and how often where nothing
/// stirs, the ring being looked at as well.
const UPKEEP: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(1);

/// Where snapshots and happenings go; each says whether it wants more.
/// Who says nothing of happenings is not interested in them.
pub trait Sink {
    /// How late a happening may be told, at most, that ends a quiet time.
    const LATEST: Duration = REST;

    #[inline]
    fn happening(&mut self, _happening: &Happening, _names: &mut Names) -> Result<More> {
        Ok(More::Yes)
    }

    /// The happenings of this look at the ring are all told.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More>;
}

/// A snapshot, and what stands behind it.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    pub snapshot: &'a Snapshot,
    /// The moment it is of.
    pub at: Moment,
    pub sums: Sums<'a>,
    /// Those in scope, and the ways into them.
    pub namespaces: &'a [Namespace],
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
    /// Whether every socket is to be looked at for each snapshot, or about so.
    pub looks: bool,
    pub duration: Option<Duration>,
    pub ring_bytes: u32,
    /// For tests alone.
    #[doc(hidden)]
    pub distortion: Option<Distortion>,
}

/// Runs until the sink has enough, the time is over, or a signal asks to end.
pub fn run(facts: &Facts, plan: &Plan, sink: &mut impl Sink) -> Result<Ended> {
    run_until(facts, plan, std::future::pending(), sink)
}

/// The same, and no longer than something else takes: a command.
pub fn run_until(
    facts: &Facts,
    plan: &Plan,
    command: impl Future<Output = ()>,
    sink: &mut impl Sink,
) -> Result<Ended> {
    let _guard = stall::Guard::start()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(async { Session::start(facts, plan)?.run(plan, command, sink).await })
}

/// The watch, and what its snapshots are headed with.
struct Session {
    watch: Watch,
    looked: Option<Looked>,
    names: Names,
    scope: snapshot::Scope,
    host: snapshot::Host,
    started: Moment,
    last_snapshot: Moment,
    seq: u64,
}

impl Session {
    fn start(facts: &Facts, plan: &Plan) -> Result<Self> {
        let host = clock::host().context("cannot tell what host this is")?;
        let started = clock::now();
        let watch = Watch::start(facts, plan, host.hz)?;
        Ok(Self {
            watch,
            looked: plan.looks.then(Looked::new),
            names: Names {
                cgroups: Cgroups::new(),
                wall: clock::Wall::now(),
            },
            scope: snapshot::Scope {
                netns: plan.scope.netns.to_string(),
                filter: plan.scope.filter.to_string(),
            },
            host,
            started,
            last_snapshot: started,
            seq: 0,
        })
    }

    async fn run<S: Sink>(
        mut self,
        plan: &Plan,
        command: impl Future<Output = ()>,
        sink: &mut S,
    ) -> Result<Ended> {
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
        let (mut read, mut kept) = (0, 0);
        let tick = tokio::time::sleep(pause);
        tokio::pin!(tick);
        // The first tick is now: the first table comes at once.
        let mut snapshots = interval(plan.interval);
        snapshots.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let upkeep = tokio::time::sleep(UPKEEP);
        tokio::pin!(upkeep);
        let over = async {
            match plan.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        tokio::pin!(command);

        let ended = loop {
            let mut asked = false;
            let more = tokio::select! {
                biased;
                _ = interrupt.recv() => break Ended::Signal,
                _ = terminate.recv() => break Ended::Signal,
                _ = hangup.recv() => break Ended::Signal,
                () = &mut over => break Ended::Duration,
                () = &mut command => break Ended::Command,
                _ = snapshots.tick() => {
                    asked = true;
                    self.interval(sink)?
                }
                () = &mut upkeep => {
                    asked = true;
                    self.upkeep(sink)?
                }
                ready = ring.readable() => {
                    ready.context("cannot wait for the ring buffer")?.clear_ready();
                    self.drain(sink)?
                }
                () = &mut tick, if pause < REST => {
                    pause = S::LATEST.min(pause * 2);
                    tick.as_mut().reset(Instant::now() + pause);
                    self.drain(sink)?
                }
            };
            if let Some(logger) = &mut logger {
                logger.flush();
            }
            let records = self.watch.tracer.records();
            if records > read && pause > TICK {
                pause = TICK;
                tick.as_mut().reset(Instant::now() + pause);
            }
            read = records;
            if asked {
                let soon = if records > kept { UPKEEP } else { REST };
                upkeep.as_mut().reset(Instant::now() + soon);
                kept = records;
            }
            if more == More::Enough {
                return Ok(Ended::Enough);
            }
            if let Some(netns) = self.watch.is_over() {
                warn!(
                    "network namespace {} has ended, and with it this run",
                    netns.0
                );
                break Ended::Namespace;
            }
        };
        // The last word is not to lag behind the kernel's counters.
        self.watch.hasten();
        self.interval(sink)?;
        debug!("records read: {}", self.watch.tracer.records());
        Ok(ended)
    }

    /// Tells what waits in the ring.
    fn drain(&mut self, sink: &mut impl Sink) -> Result<More> {
        let mut told = Told::new(sink, &mut self.names);
        self.watch.drain(&mut |happening| told.tell(happening))?;
        told.end()
    }

    /// Asks the kernel what it does not say by itself, and puts right what is in
    /// doubt.
    fn upkeep(&mut self, sink: &mut impl Sink) -> Result<More> {
        let mut told = Told::new(sink, &mut self.names);
        self.watch.ask(&mut |happening| told.tell(happening))?;
        self.watch
            .settle_doubts(&mut |happening| told.tell(happening))?;
        self.watch
            .reread_facts(&mut |happening| told.tell(happening))?;
        told.end()
    }

    /// Takes a snapshot of what is known now.
    fn interval(&mut self, sink: &mut impl Sink) -> Result<More> {
        // Before all that is asked: nothing is drained after that and before a snapshot.
        if let Some(looked) = &mut self.looked {
            let mut told = Told::new(sink, &mut self.names);
            self.watch
                .look(looked, &mut |happening| told.tell(happening))?;
            if told.end()? == More::Enough {
                return Ok(More::Enough);
            }
        }
        if self.upkeep(sink)? == More::Enough {
            return Ok(More::Enough);
        }

        let at = clock::now();
        self.names.wall.follow();
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
        let mut told = Told::new(sink, &mut self.names);
        let ledger = &mut self.watch.ledger;
        ledger.settle(&mut |happening| told.tell(happening));
        if told.end()? == More::Enough {
            return Ok(More::Enough);
        }
        let cgroups = &mut self.names.cgroups;
        let mut snapshot = self
            .watch
            .ledger
            .snapshot(frame, &mut |id| cgroups.path(id).map(str::to_owned));
        snapshot.stock = self.looked.as_ref().map(|looked| looked.as_of(at));
        sink.snapshot(&Taken {
            snapshot: &snapshot,
            at,
            sums: self.watch.ledger.sums(),
            namespaces: self.watch.namespaces(),
        })
    }
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
