//! Whose code a `timer_cancel` was called from.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_stack, programs::BtfTracePointContext};
use tracer_common::{
    layout::{CALLERS as N, FRAMES},
    wire::Reason,
};

use crate::facts::CALLERS;

/// Frames that are always the tracing's own, and are not stored: this program and who
/// runs it. Where the interpreter runs it there are more. Another tracer on the
/// tracepoint puts one between these and the kernel's, which is not always there.
const SKIPPED: u64 = 2;

/// What the innermost known frame means: a [`Reason`] or `MEANS_REARM`.
///
/// Inlining moves frames from kernel to kernel, so no place on the stack is
/// trusted: the first frame, from the inside, that lies in a known function
/// decides.
#[inline(always)]
pub fn meaning(ctx: &BtfTracePointContext) -> u32 {
    let mut frames = MaybeUninit::<[u64; FRAMES]>::uninit();
    // SAFETY: the buffer is ours and its size is given.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.as_ptr(),
            frames.as_mut_ptr().cast(),
            size_of::<[u64; FRAMES]>() as u32,
            SKIPPED,
        )
    };
    if bytes <= 0 {
        return Reason::Unknown as u32;
    }
    let found = bytes as usize / size_of::<u64>();
    // SAFETY: the verifier takes all of the buffer for written; only what the
    // helper filled in is looked at.
    let frames = unsafe { frames.assume_init_ref() };
    let mut frame = 0;
    while frame < FRAMES {
        if frame >= found {
            break;
        }
        let address = frames[frame];
        let mut i = 0;
        while i < N {
            // SAFETY: read-only data that the loader filled in.
            let caller = unsafe { core::ptr::read_volatile(&raw const CALLERS.table[i]) };
            if caller.start == 0 {
                break;
            }
            if address.wrapping_sub(caller.start) < u64::from(caller.length) {
                return caller.meaning;
            }
            i += 1;
        }
        frame += 1;
    }
    Reason::Unknown as u32
}
