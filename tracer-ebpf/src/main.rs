//! The kernel side of twtrace: tracepoints, nothing else.
//!
//! Each program filters early, reads facts of fixed size, and counts what it
//! could not deliver; whatever userspace can decide, it leaves to userspace.
//! Member offsets and symbol addresses come in as read-only data (`facts.rs`),
//! because no two kernels agree on them.
#![no_std]
#![no_main]
// `static` items here are maps and read-only data: their layout is the loader's.
#![allow(non_upper_case_globals)]

mod emit;
mod facts;
mod minisocket;
mod percpu;
mod process;
mod read;
mod request;
mod seed;
mod stack;
mod state;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::facts::{TimerOwner, timer_owner};

/// A transition of a full socket.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state(ctx: BtfTracePointContext) -> i32 {
    state::first(&ctx);
    0
}

/// The second chance. The kernel does not run a program that is interrupted on
/// its CPU by a softirq which fires the same tracepoint; it does run this one,
/// which does the work where `set_state` did not. Userspace attaches it while it
/// is needed.
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
    match timer_owner(timer) {
        TimerOwner::Minisocket => minisocket::start(&ctx, timer),
        TimerOwner::Request => request::start(timer),
        TimerOwner::Other => {}
    }
    0
}

/// A timer is taken off the wheel: to be re-armed, to expire, or for good.
#[btf_tracepoint(function = "timer_cancel")]
pub fn timer_cancel(ctx: BtfTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    match timer_owner(timer) {
        TimerOwner::Minisocket => minisocket::cancel(&ctx, timer),
        TimerOwner::Request => request::cancel(timer),
        TimerOwner::Other => {}
    }
    0
}

/// A timer's handler is about to run.
#[btf_tracepoint(function = "timer_expire_entry")]
pub fn timer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    match timer_owner(timer) {
        TimerOwner::Minisocket => minisocket::expire(timer),
        TimerOwner::Request => request::expire(timer),
        TimerOwner::Other => {}
    }
    0
}

/// A timer's handler has run. Its timer may be gone: only the address counts.
#[btf_tracepoint(function = "timer_expire_exit")]
pub fn timer_expire_exit(ctx: BtfTracePointContext) -> i32 {
    request::expired(ctx.arg(0));
    0
}

/// Reads a batch of minisockets in place; run by `BPF_PROG_TEST_RUN`, attached
/// to nothing.
#[raw_tracepoint]
pub fn read_minisockets(_ctx: RawTracePointContext) -> i32 {
    read::batch();
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
