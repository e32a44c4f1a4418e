//! The kernel side of twtrace: tracepoints, nothing else.
//!
//! Each program filters early, reads facts of fixed size, and counts what it
//! could not deliver; whatever userspace can decide, it leaves to userspace.
//! Member offsets and symbol addresses come in as read-only data (`facts.rs`),
//! because no two kernels agree on them.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
// `static` items here are maps and read-only data: their layout is the loader's.
#![allow(non_upper_case_globals)]

mod emit;
mod facts;
mod minisocket;
mod percpu;
mod process;
mod read;
mod seed;
mod stack;
mod state;
mod walk;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::facts::{is_of_minisocket, is_of_request, request_wanted};

/// A transition of a full socket.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state(ctx: BtfTracePointContext) -> i32 {
    state::first(&ctx);
    0
}

/// The second chance. The kernel does not run a program that is interrupted on
/// its CPU by a softirq which fires the same tracepoint; it does run this one,
/// which does the work where `set_state` did not. It has to be attached after it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_again(ctx: BtfTracePointContext) -> i32 {
    state::second(&ctx);
    0
}

/// A timer is armed. Interrupts are off here and at `timer_cancel`, so neither
/// needs a second chance.
#[btf_tracepoint(function = "timer_start")]
pub fn timer_start(ctx: BtfTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    if is_of_minisocket(timer) {
        minisocket::start(timer);
    }
    0
}

/// A timer is taken off the wheel: to be re-armed, to expire, or for good.
#[btf_tracepoint(function = "timer_cancel")]
pub fn timer_cancel(ctx: BtfTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    if is_of_minisocket(timer) {
        minisocket::cancel(&ctx, timer);
    }
    0
}

/// A timer's handler is about to run.
#[btf_tracepoint(function = "timer_expire_entry")]
pub fn timer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    if is_of_minisocket(timer) {
        minisocket::expire(timer);
    } else if is_of_request(timer) && request_wanted(timer) {
        // Once a second and request at the most: cheap enough to be counted here.
        emit::lost(|losses| losses.syn_ack_timeouts += 1);
    }
    0
}

/// Sends what waits on the CPU that it is run on, by `BPF_PROG_TEST_RUN`.
#[raw_tracepoint]
pub fn flush(_ctx: RawTracePointContext) -> i32 {
    emit::flush() as i32
}

/// Reads a batch of minisockets in place; run by `BPF_PROG_TEST_RUN`, attached
/// to nothing.
#[raw_tracepoint]
pub fn read_minisockets(_ctx: RawTracePointContext) -> i32 {
    read::batch();
    0
}

/// Lists the network namespaces; run by `BPF_PROG_TEST_RUN`, as are all of the walk.
#[raw_tracepoint]
pub fn walk_namespaces(_ctx: RawTracePointContext) -> i32 {
    walk::namespaces();
    0
}

/// Copies kernel memory, such as the heads of a table's buckets.
#[raw_tracepoint]
pub fn walk_copy(_ctx: RawTracePointContext) -> i32 {
    walk::copy();
    0
}

/// Reads the sockets of the buckets that userspace lists.
#[raw_tracepoint]
pub fn walk_chains(_ctx: RawTracePointContext) -> i32 {
    walk::chains();
    0
}

/// Reads sockets at addresses that userspace knows.
#[raw_tracepoint]
pub fn walk_known(_ctx: RawTracePointContext) -> i32 {
    walk::known();
    0
}

/// Reads who holds TCP sockets.
#[raw_tracepoint]
pub fn walk_owners(_ctx: RawTracePointContext) -> i32 {
    walk::owners();
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}

/// bpf_get_stack, bpf_probe_read_kernel and others are for GPL-compatible
/// programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
