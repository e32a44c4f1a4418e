//! The eBPF object on its way into the kernel: what it is given of this kernel and
//! of what is wanted, and its programs, verified side by side.

use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use aya::programs::{BtfTracePoint, Iter, Program, RawTracePoint};
use aya::util::nr_cpus;
use aya::{Btf, Ebpf, EbpfLoader};
use tracer_common::layout::{End, Options};
use tracer_common::seat;
use tracer_common::wire::BATCH_BYTES;

use super::{TRACEPOINTS, Tracer, Wanted, as_kind};
use crate::kernel::requirements::Facts;
use crate::model::event::Family;
use crate::model::filter::Network;

/// Run on demand, but for [`seat::FLUSH`]: no event comes by one of these.
const NO_EVENTS: [&str; 7] = [
    seat::SEED,
    seat::READ,
    seat::WALK_NAMESPACES,
    seat::WALK_COPY,
    seat::WALK_CHAINS,
    seat::WALK_KNOWN,
    seat::WALK_OWNERS,
];

/// The ring holds at least so many batches: a small one has small ones.
const BATCHES_IN_RING: u32 = 8;

/// What the object is given of one wish.
pub(super) struct Globals<'w> {
    wanted: &'w Wanted,
    options: Options,
    /// What the logger would let through.
    log_level: u8,
}

impl<'w> Globals<'w> {
    pub(super) fn new(facts: &Facts, wanted: &'w Wanted) -> Self {
        let only = wanted.only.as_ref();
        Globals {
            wanted,
            options: Options {
                netns_cookie: only
                    .and_then(|only| only.cookie)
                    .filter(|_| facts.layout.net_cookie != 0)
                    .unwrap_or(0),
                netns: only.map_or(0, |only| only.inode),
                family: match wanted.filter.family() {
                    None => 0,
                    Some(Family::Inet) => 2,
                    Some(Family::Inet6) => 10,
                },
                tell_all: u32::from(wanted.tell_all),
                pid_ns: facts.pid_namespace.unwrap_or(0),
                wake_at: wanted.ring_bytes / 4,
                batch_bytes: (wanted.ring_bytes / BATCHES_IN_RING).min(BATCH_BYTES as u32),
                local: end(wanted.filter.local()),
                remote: end(wanted.filter.remote()),
            },
            log_level: log::max_level() as u8,
        }
    }
}

/// The object and the kernel's types, which take longer to read than all else but
/// the programs to be verified.
pub(super) struct Loader<'a> {
    facts: &'a Facts,
    loader: EbpfLoader<'a>,
    btf: Btf,
    cpus: usize,
}

impl<'a> Loader<'a> {
    pub(super) fn new(facts: &'a Facts) -> Result<Self> {
        let cpus = nr_cpus().map_err(|(what, error)| {
            anyhow!("cannot tell how many CPUs there are: {what}: {error}")
        })?;
        // aya's loader reads and parses the kernel's type information by itself, and
        // keeps it to itself: ours is read beside it.
        let (mut loader, btf) = thread::scope(|scope| {
            let btf = scope.spawn(Btf::from_sys_fs);
            let loader = EbpfLoader::new();
            let btf = btf.join().unwrap_or_else(|panic| resume_unwind(panic));
            (loader, btf)
        });
        let btf = btf.context("cannot read the kernel's type information")?;
        loader
            .override_global(seat::LAYOUT, &facts.layout, true)
            .override_global(seat::CALLERS, &facts.callers, true)
            .override_global(seat::WALK, &facts.walk.object, true)
            .map_max_entries(seat::BATCHES, cpus as u32);
        Ok(Loader {
            facts,
            loader,
            btf,
            cpus,
        })
    }

    pub(super) fn load(&mut self, globals: &'a Globals<'_>) -> Result<Tracer> {
        let wanted = globals.wanted;
        let mut ebpf = self
            .loader
            .override_global(seat::OPTIONS, &globals.options, true)
            .override_global("AYA_LOG_LEVEL", &globals.log_level, false)
            .map_max_entries(seat::RECORDS, wanted.ring_bytes)
            .load(aya::include_bytes_aligned!("../../../bpf/twtrace.bpf.o"))
            .context("cannot load the tracer into the kernel")?;
        load_programs(&mut ebpf, &self.btf, wanted.events_alone)?;
        Tracer::of(ebpf, self.facts, wanted, self.cpus)
    }
}

/// Has the kernel verify all programs side by side, which is most of the time
/// that a start takes.
fn load_programs(ebpf: &mut Ebpf, btf: &Btf, events_alone: bool) -> Result<()> {
    let load = |name: &str, program: &mut Program| -> Result<()> {
        let tracepoint = TRACEPOINTS.iter().find(|(here, _)| *here == name);
        match (tracepoint, name) {
            (Some((_, tracepoint)), _) => as_kind::<BtfTracePoint>(program)?.load(tracepoint, btf),
            (None, seat::SEED) => as_kind::<Iter>(program)?.load("tcp", btf),
            (None, _) if name == seat::FLUSH || NO_EVENTS.contains(&name) => {
                as_kind::<RawTracePoint>(program)?.load()
            }
            (None, _) => bail!("the eBPF object has {name}, which nobody attaches"),
        }
        .with_context(|| format!("the kernel refused program {name}"))
    };
    let programs = ebpf
        .programs_mut()
        .filter(|(name, _)| !(events_alone && NO_EVENTS.contains(name)));
    thread::scope(|scope| {
        let loads: Vec<_> = programs
            .map(|(name, program)| scope.spawn(move || load(name, program)))
            .collect();
        loads
            .into_iter()
            .try_for_each(|load| load.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// What the kernel side is to leave out by itself. The filter judges again, so
/// what is more than it has room for is all let through.
fn end((ports, networks): (&[u16], &[Network])) -> End {
    let mut end = End::ANY;
    if ports.len() <= end.ports.len() {
        end.ports[..ports.len()].copy_from_slice(ports);
        end.port_count = ports.len() as u32;
    }
    if networks.len() <= end.prefixes.len() {
        for (prefix, network) in end.prefixes.iter_mut().zip(networks) {
            (prefix.bits, prefix.mask) = network.mapped();
        }
        end.prefix_count = networks.len() as u32;
    }
    end
}

/// Gives freed memory back to the kernel: what a start took for type information
/// and symbols is most of what a tracer would hold at rest.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it releases what nobody holds, and has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
