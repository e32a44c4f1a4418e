//! The eBPF object, loaded, attached, and asked.
//!
//! Everything that speaks to the kernel side goes through here: what comes out
//! are events. It refuses to know what they add up to.

mod load;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::{
    BtfTracePoint, Iter, Program, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracer_common::wire::{self, Losses, SWEEP_BATCH, Sweep};
use tracer_common::{layout, seat};

use super::batches::Batches;
use super::decode::{self, Found};
use super::netns::{self, Namespace};
use super::requirements::Facts;
use super::ring::Ring;
use super::walk::{self, Walk};
use crate::model::event::{Address, Event, Identity, Lost, Moment, Netns, State};
use crate::model::filter::Filter;
use crate::model::found;
use load::{Globals, Loader, give_back};

/// What a look at every socket meets, in order.
#[derive(Clone, Copy, Debug)]
pub enum Met<'a> {
    Event(&'a Event),
    Sockets(&'a [found::Found]),
}

/// What a walk over all open files meets, in order.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    Event(&'a Event),
    Owned(&'a [found::Owned]),
}

/// The tracepoints, in the order in which they are attached: a birth must not
/// be seen by its CLOSE alone, so timers come first, and the second chance after
/// the program that it makes up for.
const TRACEPOINTS: [(&str, &str); 5] = [
    (seat::TIMER_START, "timer_start"),
    (seat::TIMER_CANCEL, "timer_cancel"),
    (seat::TIMER_EXPIRE_ENTRY, "timer_expire_entry"),
    (seat::SET_STATE, SET_STATE),
    (seat::SET_STATE_AGAIN, SET_STATE),
];

const SET_STATE: &str = "inet_sock_set_state";

/// What a test puts between the ring and whoever takes its events, to see which
/// other tests notice: it passes on an event as it is, changed, twice, or not.
#[doc(hidden)]
pub type Distortion = fn(&Event, &mut dyn FnMut(&Event));

/// What is to be seen.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Nothing of any other namespace, or `None` for all.
    pub only: Option<Namespace>,
    pub filter: Filter,
    /// Every transition has to carry its addresses.
    pub tell_all: bool,
    /// A power-of-two multiple of the page size.
    pub ring_bytes: u32,
    /// Neither seeds, nor sweeps, nor walks: to have their programs verified takes
    /// the longer part of a load.
    pub events_alone: bool,
    /// For tests alone.
    #[doc(hidden)]
    pub distortion: Option<Distortion>,
}

#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Tracer {
    ebpf: Ebpf,
    ring: Ring,
    control: Array<MapData, u32>,
    losses: PerCpuArray<MapData, Losses>,
    sweep: Array<MapData, Sweep>,
    sweep_batch: Box<Sweep>,
    timer_offset: u32,
    /// What the kernel says of each program whose skipped runs are losses.
    statistics: Vec<(&'static str, File)>,
    /// Sockets that could not be decoded.
    malformed: u64,
    walk: walk::Maps,
    walk_layout: walk::Layout,
    walk_decoder: walk::Decoder,
}

impl Tracer {
    /// Loads the object into the kernel; nothing is attached yet.
    pub fn load(facts: &Facts, wanted: &Wanted) -> Result<Self> {
        let globals = Globals::new(facts, wanted);
        let tracer = Loader::new(facts)?.load(&globals);
        give_back();
        tracer
    }

    /// Loads one for `first` and has `meanwhile` use it while one for `wanted` is
    /// loaded, all of it with one reading of the kernel's types.
    pub fn load_beside<T: Send>(
        facts: &Facts,
        first: &Wanted,
        meanwhile: impl FnOnce(Tracer) -> T + Send,
        wanted: &Wanted,
    ) -> Result<(T, Self)> {
        let (first, wanted) = (Globals::new(facts, first), Globals::new(facts, wanted));
        let mut loader = Loader::new(facts)?;
        let first = loader.load(&first)?;
        let both = thread::scope(|scope| {
            let used = scope.spawn(|| meanwhile(first));
            let tracer = loader.load(&wanted);
            let used = used.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok((used, tracer?))
        });
        drop(loader);
        give_back();
        both
    }

    fn of(mut ebpf: Ebpf, facts: &Facts, wanted: &Wanted, cpus: usize) -> Result<Self> {
        Ok(Self {
            ring: Ring::new(
                RingBuf::try_from(map(&mut ebpf, seat::RECORDS)?)?,
                wanted.ring_bytes as usize,
                Batches::map(&map(&mut ebpf, seat::BATCHES)?, cpus)?,
                wanted.distortion,
            ),
            control: Array::try_from(map(&mut ebpf, seat::CONTROL)?)?,
            losses: PerCpuArray::try_from(map(&mut ebpf, seat::LOSSES)?)?,
            sweep: Array::try_from(map(&mut ebpf, seat::SWEEP)?)?,
            sweep_batch: Box::new(Sweep {
                time_ns: 0,
                jiffies: 0,
                readings: [wire::Reading::default(); SWEEP_BATCH],
            }),
            timer_offset: facts.layout.tw_timer,
            statistics: statistics(&ebpf)?,
            malformed: 0,
            walk: walk::Maps::take(&mut ebpf)?,
            walk_layout: facts.walk,
            walk_decoder: walk::Decoder::new(&facts.layout),
            ebpf,
        })
    }

    /// Attaches the tracepoints, back to back.
    pub fn attach(&mut self) -> Result<()> {
        for (name, tracepoint) in TRACEPOINTS {
            program::<BtfTracePoint>(&mut self.ebpf, name)?
                .attach()
                .with_context(|| format!("cannot attach to the tracepoint {tracepoint}"))?;
        }
        Ok(())
    }

    /// The kernel side's log, for whoever forwards it.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Becomes readable when the ring fills faster than it is looked at. Within
    /// a tokio runtime only.
    pub fn readable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let ring = self.ring.descriptor().try_clone_to_owned()?;
        // SAFETY: the descriptor is a duplicate that the `AsyncFd` alone owns, so
        // it stays open and the same as long as that lives.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| error.into_parts().1)
    }

    /// Hands over, in order, all that was made before this was called, as
    /// [`Ring::drain`].
    pub fn drain(&mut self, take: impl FnMut(&Event)) -> Result<()> {
        let flush = raw_program(&self.ebpf, seat::FLUSH)?;
        self.ring.drain(flush, take)
    }

    /// Every TCP socket there is, of one namespace or of all, each after all that
    /// happened before it was read.
    pub fn look(
        &mut self,
        only: Option<Netns>,
        mut take: impl FnMut(Met<'_>),
    ) -> Result<walk::Outcome> {
        let flush = raw_program(&self.ebpf, seat::FLUSH)?;
        let ring = &mut self.ring;
        let mut walk = Walk::new(
            &self.ebpf,
            &mut self.walk,
            &self.walk_layout,
            self.walk_decoder,
        )?;
        walk.sockets(only, |found| {
            ring.drain(flush, |event| take(Met::Event(event)))?;
            take(Met::Sockets(found));
            Ok(())
        })
    }

    /// Every TCP socket that a process holds, with that process, as
    /// [`Walk::owners`], and what happened before each piece was read.
    pub fn owners(&mut self, mut take: impl FnMut(Held<'_>)) -> Result<walk::OwnersOutcome> {
        let flush = raw_program(&self.ebpf, seat::FLUSH)?;
        let ring = &mut self.ring;
        let mut walk = Walk::new(
            &self.ebpf,
            &mut self.walk,
            &self.walk_layout,
            self.walk_decoder,
        )?;
        walk.owners(|owned| {
            ring.drain(flush, |event| take(Held::Event(event)))?;
            take(Held::Owned(owned));
            Ok(())
        })
    }

    /// The walk over the kernel's own tables.
    pub fn walk(&mut self) -> Result<Walk<'_>> {
        Walk::new(
            &self.ebpf,
            &mut self.walk,
            &self.walk_layout,
            self.walk_decoder,
        )
    }

    /// How many records were read so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.ring.records()
    }

    /// Whether each step is to carry its addresses, from now on.
    pub fn tell_all(&mut self, on: bool) -> Result<()> {
        let word = if on { layout::CONTROL_TELL_ALL } else { 0 };
        self.control
            .set(0, word, 0)
            .context("cannot set the kernel side's control word")
    }

    /// Every TCP socket of a namespace, by the kernel's iterator, and in between what
    /// waits in the ring. Half-open requests come as their number alone.
    pub fn seed(&mut self, namespace: &Namespace, mut take: impl FnMut(&Event)) -> Result<u64> {
        let program = program::<Iter>(&mut self.ebpf, seat::SEED)?;
        let link = program
            .attach()
            .context("cannot attach the socket iterator")?;
        let link = program.take_link(link)?;
        // The iterator sees the namespace of the thread that makes it.
        let mut iterator: File = netns::within(namespace, move || link.into_file())
            .with_context(|| format!("cannot enter the network namespace {}", namespace.inode))?
            .context("cannot make a socket iterator")?;

        let mut requests = 0;
        let mut buffer = vec![0; 1 << 16];
        let mut filled = 0;
        loop {
            let read = iterator
                .read(&mut buffer[filled..])
                .context("cannot read the sockets")?;
            self.drain(&mut take)?;
            if read == 0 {
                break;
            }
            filled += read;
            let whole = filled - filled % decode::SEED_BYTES;
            for bytes in buffer[..whole].chunks_exact(decode::SEED_BYTES) {
                match decode::seed(bytes, self.timer_offset) {
                    Some(Found::Socket(seed)) => take(&Event::Seed(seed)),
                    Some(Found::Request) => requests += 1,
                    Some(Found::Uncounted) => {}
                    None => self.malformed += 1,
                }
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
        Ok(requests)
    }

    /// Reads minisockets in place and hands over what they are now.
    pub fn sweep(&mut self, minisockets: &[Identity], mut take: impl FnMut(&Event)) -> Result<()> {
        for batch in minisockets.chunks(SWEEP_BATCH) {
            let sweep = &mut *self.sweep_batch;
            for (reading, minisocket) in sweep.readings.iter_mut().zip(batch) {
                *reading = wire::Reading {
                    timer: minisocket.address.0,
                    ..wire::Reading::default()
                };
            }
            if let Some(end) = sweep.readings.get_mut(batch.len()) {
                end.timer = 0;
            }
            let sweep: &Sweep = sweep;
            self.sweep
                .set(0, sweep, 0)
                .context("cannot hand over a sweep")?;
            program::<RawTracePoint>(&mut self.ebpf, seat::READ)?
                .test_run(RawTracePointRunOptions::new())
                .context("cannot run a sweep")?;
            let sweep = self.sweep.get(&0, 0).context("cannot take back a sweep")?;
            for reading in &sweep.readings[..batch.len()] {
                let substate = match u8::try_from(reading.substate)
                    .ok()
                    .and_then(State::from_kernel)
                {
                    Some(state @ (State::TimeWait | State::FinWait2)) => state,
                    // No minisocket's timer any more: its end is on its way.
                    _ => continue,
                };
                take(&Event::Reading {
                    minisocket: Identity {
                        cookie: reading.cookie,
                        address: Address(reading.timer),
                    },
                    at: Moment(sweep.time_ns),
                    substate,
                    expires: reading.expires,
                });
            }
        }
        Ok(())
    }

    /// The kernel's two clocks at one moment, and jiffies' low 32 bits.
    pub fn clocks(&mut self) -> Result<(Moment, u32)> {
        self.sweep_batch.readings[0].timer = 0;
        let sweep: &Sweep = &self.sweep_batch;
        self.sweep.set(0, sweep, 0)?;
        program::<RawTracePoint>(&mut self.ebpf, seat::READ)?
            .test_run(RawTracePointRunOptions::new())
            .context("cannot run a sweep")?;
        let sweep = self.sweep.get(&0, 0)?;
        Ok((Moment(sweep.time_ns), sweep.jiffies as u32))
    }

    /// What has been lost since the attach, as near as counters that are read one
    /// after the other tell.
    pub fn lost(&self) -> Result<Lost> {
        Ok(self.counted()?.0)
    }

    /// The same, and how often the timer of a half-open request ran out: the SYN-ACK
    /// is then sent again, or the request given up.
    pub(crate) fn counted(&self) -> Result<(Lost, u64)> {
        // Skips first: what is rescued meanwhile must not look lost.
        let mut skipped = 0;
        for (_, file) in &self.statistics {
            skipped += recursion_misses(file)?.unwrap_or(0);
        }
        let cpus = self.losses()?;
        let sum = |pick: fn(&Losses) -> u64| cpus.iter().map(pick).sum::<u64>();
        let lost = Lost {
            ring: sum(|losses| losses.ring) + self.ring.malformed() + self.malformed,
            recursion: skipped.saturating_sub(sum(|losses| losses.rescued)),
        };
        Ok((lost, sum(|losses| losses.syn_ack_timeouts)))
    }

    /// Transitions since the attach that the kernel skipped the first program
    /// for, where it says so, and that the second told instead.
    pub fn rescues(&self) -> Result<(Option<u64>, u64)> {
        let mut statistics = self.statistics.iter();
        let set_state = statistics.find(|(name, _)| *name == seat::SET_STATE);
        let (_, file) = set_state.ok_or_else(|| missing(seat::SET_STATE))?;
        let skipped = recursion_misses(file)?;
        let rescued = self.losses()?.iter().map(|losses| losses.rescued).sum();
        Ok((skipped, rescued))
    }

    fn losses(&self) -> Result<PerCpuValues<Losses>> {
        self.losses.get(&0, 0).context("cannot read the losses")
    }
}

/// The statistics of the programs whose skipped runs are losses, open: they are
/// read once a second even if nothing happens. The second chance is none of them:
/// it is skipped where the first has run.
fn statistics(ebpf: &Ebpf) -> Result<Vec<(&'static str, File)>> {
    TRACEPOINTS
        .iter()
        .filter(|(name, _)| *name != seat::SET_STATE_AGAIN)
        .map(|&(name, _)| {
            let program: &BtfTracePoint = ebpf
                .program(name)
                .ok_or_else(|| missing(name))?
                .try_into()?;
            let path = format!("/proc/self/fdinfo/{}", program.fd()?.as_fd().as_raw_fd());
            let file = File::open(path)
                .with_context(|| format!("cannot read the statistics of program {name}"))?;
            Ok((name, file))
        })
        .collect()
}

/// How often the kernel skipped a program because it was running already;
/// `None` before 5.12, which runs it again.
fn recursion_misses(statistics: &File) -> Result<Option<u64>> {
    // A dozen lines of a word and a number each.
    let mut text = [0; 1024];
    let read = statistics
        .read_at(&mut text, 0)
        .context("cannot read the statistics of a program")?;
    Ok(text[..read]
        .split(|&byte| byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|number| number.trim().parse().ok()))
}

/// A program that is run on demand.
fn raw_program<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e RawTracePoint> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    Ok(program.try_into()?)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    as_kind(ebpf.program_mut(name).ok_or_else(|| missing(name))?)
}

fn as_kind<'a, P>(program: &'a mut Program) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    Ok(program.try_into()?)
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!("the eBPF object has no {name}: it does not belong to this binary")
}

fn map(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    match ebpf.take_map(name) {
        Some(map) => Ok(map),
        None => bail!(missing(name)),
    }
}
