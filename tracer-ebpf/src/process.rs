//! Who the current process is: the number it goes by, and its name, told once.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task,
        generated::bpf_get_current_comm,
    },
    macros::map,
    maps::PerCpuArray,
};
use tracer_common::wire::{Head, OUTSIDE, Process, Stamp, kind};

use crate::{
    emit::{emit, lost_here},
    facts::{layout, option, probe},
};

const PF_KTHREAD: u32 = 0x0020_0000;
const PLACES: u32 = 64;
/// A thread found to be known is not looked at again for so long: asking for its
/// name and cgroup costs as much as a record. Nanoseconds.
const TRUSTED: u64 = 50_000_000;

/// `MAX_PID_NS_LEVEL`: as deep as PID namespaces nest.
const DEEPEST: u32 = 32;

#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    /// The thread's own name, which changes with an exec.
    comm: [u64; 2],
    cgroup: u64,
    thread: u64,
    /// When this was last compared with the thread; 0: never.
    time_ns: u64,
    /// What this CPU had lost then: a name may have been among what it lost since.
    lost: u64,
}

/// Threads whose processes this CPU has told of, by the low bits of their id.
#[map]
static PROCESSES: PerCpuArray<Known> = PerCpuArray::with_max_entries(PLACES, 0);

/// The number of the current process, 0 for the idle task.
#[inline(always)]
pub fn current_pid() -> u32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    pid_of(pid, || {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task() };
        probe(task, layout!(task_group_leader))
    })
}

/// The number that the process `pid` of the machine is told by.
#[inline(always)]
pub fn pid_of(pid: u32, leader: impl FnOnce() -> u64) -> u32 {
    if option!(pid_ns) == 0 || pid == 0 {
        pid
    } else {
        number_there(leader()).unwrap_or(pid | OUTSIDE)
    }
}

/// The same in the PID namespace that userspace named, for a process that is in it
/// or in one below: it has a number in each from its own up to the machine's.
#[inline(always)]
fn number_there(leader: u64) -> Option<u32> {
    let pid: u64 = probe(leader, layout!(task_pid));
    let level: u32 = probe(pid, layout!(pid_level));
    let size = layout!(upid_ns) + size_of::<u64>() as u32;
    for depth in 0..=DEEPEST {
        if depth > level {
            break;
        }
        let upid = layout!(pid_numbers) + depth * size;
        let namespace: u64 = probe(pid, upid + layout!(upid_ns));
        if probe::<u32>(namespace, layout!(pid_ns_inum)) == option!(pid_ns) {
            return Some(probe(pid, upid + layout!(upid_nr)));
        }
    }
    None
}

/// Sends the name and cgroup of the current process, whose number is `pid`, unless
/// this CPU has sent just that for the current thread before.
#[inline(always)]
pub fn name(_ctx: &impl EbpfContext, pid: u32, now_ns: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(known) = PROCESSES.get_ptr_mut(thread as u32 % PLACES) else {
        return;
    };
    // SAFETY: per-CPU memory; an interrupt that writes here at worst makes us
    // tell once more.
    let known = unsafe { &mut *known };
    if known.thread == thread && now_ns.wrapping_sub(known.time_ns) < TRUSTED {
        return;
    }
    let comm = comm();
    // SAFETY: the helper has no preconditions.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let lost = lost_here();
    if known.time_ns != 0
        && known.thread == thread
        && known.cgroup == cgroup
        && known.comm == comm
        && known.lost == lost
    {
        known.time_ns = now_ns;
        return;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let flags: u32 = probe(task, layout!(task_flags));
    emit(Process {
        head: Head {
            cookie: cgroup,
            stamp: Stamp::new(now_ns, 0, 0),
            pid,
            kind: kind::PROCESS,
            detail: u8::from(flags & PF_KTHREAD != 0),
            error: 0,
        },
        // Threads have names of their own; a process goes by its first one's.
        comm: probe(probe(task, layout!(task_group_leader)), layout!(task_comm)),
    });
    *known = Known {
        comm,
        cgroup,
        thread,
        time_ns: now_ns,
        lost,
    };
}

/// The current process's name, in machine words: BPF compares and copies those
/// in two instructions, bytes in sixteen.
#[inline(always)]
fn comm() -> [u64; 2] {
    let mut comm = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the buffer is ours and its size is given; the helper writes all of
    // it, with zeros where it fails.
    unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), size_of::<[u64; 2]>() as u32);
        comm.assume_init()
    }
}
