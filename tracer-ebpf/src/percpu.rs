//! What one CPU remembers from one tracepoint to the next.
//!
//! The kernel does related things in a row on one CPU: START of a minisocket,
//! then CLOSE of its full socket; CANCEL, then START of a re-arm; CANCEL, then
//! EXPIRE. A note of the first tells what the second means.

use aya_ebpf::{macros::map, maps::PerCpuArray};

/// A minisocket was born; its full socket's step to CLOSE comes next.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct BirthNote {
    /// 0: no note.
    pub timer: u64,
    pub time_ns: u64,
    pub net: u64,
    pub addrpair: u64,
    pub v6_daddr_end: u64,
    pub hash: u32,
    pub expires: u32,
    pub timeout: u32,
    pub dport: u16,
    pub family: u16,
    pub substate: u32,
    pub unused: u32,
}

/// A minisocket's timer was cancelled and what it means depends on what follows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CancelNote {
    /// 0: no note.
    pub timer: u64,
    pub time_ns: u64,
    pub expires: u32,
    pub netns: u32,
    pub substate: u32,
    pub pid: u32,
}

#[repr(C)]
pub struct Cpu {
    pub birth: BirthNote,
    pub cancel: CancelNote,
    /// Timer of the half-open request whose handler is running; 0: none.
    pub request_expiring: u64,
    /// Whether the first program on the transitions is at work here, or was
    /// interrupted at it.
    pub first_runs: u64,
}

#[map]
pub static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's notes.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: per-CPU memory that lives as long as the programs. A softirq may
    // interrupt a program of process context and change the notes; every
    // sequence of reads and writes here is written to survive that.
    CPU.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}
