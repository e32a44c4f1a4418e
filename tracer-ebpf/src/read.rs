//! The sweep: minisockets read in place, for the step no tracepoint sees.

use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};
use tracer_common::wire::{SWEEP_BATCH, Sweep};

use crate::facts::{layout, probe};

#[map]
static SWEEP: Array<Sweep> = Array::with_max_entries(1, 0);

/// Fills in the batch that userspace put into SWEEP; an address of 0 ends it.
#[inline(always)]
pub fn batch() {
    let Some(sweep) = SWEEP.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: userspace runs one sweep at a time and waits for it.
    let sweep = unsafe { &mut *sweep };
    // SAFETY: the helpers have no preconditions.
    unsafe {
        sweep.time_ns = bpf_ktime_get_ns();
        sweep.jiffies = bpf_jiffies64();
    }
    let mut i = 0;
    while i < SWEEP_BATCH {
        let reading = &mut sweep.readings[i];
        if reading.timer == 0 {
            break;
        }
        // The slab is type-safe: what was a minisocket is one still, if perhaps
        // another, which its cookie says.
        let function: u64 = probe(reading.timer, layout!(timer_function));
        reading.substate = if function == layout!(tw_timer_handler) {
            let minisocket = reading.timer.wrapping_sub(u64::from(layout!(tw_timer)));
            reading.cookie = probe(minisocket, layout!(sk_cookie));
            let substate: u8 = probe(minisocket, layout!(tw_substate));
            u32::from(substate)
        } else {
            0
        };
        let expires: u64 = probe(reading.timer, layout!(timer_expires));
        reading.expires = expires as u32;
        i += 1;
    }
}
