//! What one CPU remembers from one tracepoint to the next.
//!
//! The kernel does related things in a row on one CPU: CANCEL, then START of a
//! re-arm; CANCEL, then EXPIRE. The pending half of such a pair decides what the
//! second means. Both halves know their minisocket by cookie and address, so one
//! that stays pending is never taken for another's.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_common::handled::Handled;

/// A minisocket's timer was cancelled, and what it means depends on what follows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PendingCancel {
    /// 0: none.
    pub timer: u64,
    pub cookie: u64,
    pub time_ns: u64,
    pub expires: u32,
    pub netns: u32,
    pub substate: u32,
    pub pid: u32,
}

#[repr(C)]
pub struct Cpu {
    pub cancel: PendingCancel,
    /// Cookie of the full socket whose minisocket was born here last, until its
    /// step to CLOSE, which says nothing new then; 0: none.
    pub born: u64,
    pub handled: Handled,
}

#[map]
pub static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's memory.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: per-CPU memory that lives as long as the programs. A softirq may
    // interrupt a program of process context and change it; every sequence of
    // reads and writes here is written to survive that.
    CPU.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}
