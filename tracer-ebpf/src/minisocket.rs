//! Births, re-arms and ends of minisockets, from the tracepoints of their timer.
//!
//! docs/kernel.md has the sequences; the programs see, on one CPU:
//! birth = START; re-arm = CANCEL, START; expiry = CANCEL, EXPIRE; early end =
//! CANCEL alone, with the cause on the stack.

use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use tracer_common::{
    layout::MEANS_REARM,
    wire::{Arming, Birth, End, FullBirth, Head, Rearm, Reason, Stamp, kind},
};

use crate::{
    emit::{emit, tell_all},
    facts::{Minisocket, Object, layout, member, tuple_at},
    percpu::{Cpu, PendingCancel, cpu},
    process, stack,
};

/// The upper bits of `timer_list.flags` are the wheel's bucket, 64 to a level.
const TIMER_ARRAYSHIFT: u32 = 22;
const LVL_BITS: u32 = 6;
const LVL_CLK_SHIFT: u32 = 3;

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// START: a birth, or the second half of a re-arm.
#[inline(always)]
pub fn start(timer: Object) {
    let minisocket = Minisocket::around(timer);
    if !minisocket.is_wanted() {
        return;
    }
    let Some(cpu) = cpu() else { return };
    let expires: u64 = member(timer, layout!(timer_expires));
    let arming = Arming {
        expires: expires as u32,
        timeout: expires.wrapping_sub(jiffies()) as u32,
    };
    let substate = minisocket.substate();
    let head = Head {
        cookie: minisocket.cookie(),
        stamp: Stamp::new(now_ns(), substate, substate),
        pid: minisocket.netns(),
        kind: kind::BIRTH,
        detail: 0,
        error: 0,
    };
    let timer = timer as u64;
    if cpu.cancel.timer == timer && cpu.cancel.cookie == head.cookie {
        cpu.cancel.timer = 0;
        emit(Rearm {
            head: Head {
                kind: kind::REARM,
                ..head
            },
            timer,
            arming,
        });
        return;
    }
    flush_cancel(cpu);
    cpu.born = head.cookie;
    let family: u16 = minisocket.member(layout!(sk_family));
    let birth = Birth {
        head: Head {
            detail: family as u8,
            ..head
        },
        timer,
        arming,
    };
    if head.cookie == 0 || tell_all() {
        emit(FullBirth {
            birth: Birth {
                head: Head {
                    kind: kind::FULL_BIRTH,
                    ..birth.head
                },
                ..birth
            },
            tuple: tuple_at(minisocket.address, family),
        });
    } else {
        emit(birth);
    }
}

/// CANCEL: before the moment its wheel bucket runs out it cannot be an expiry,
/// so the stack tells which end it is, or that it is a re-arm. After that
/// moment it is an expiry, and EXPIRE follows: no stack, which would cost more
/// than all else.
#[inline(always)]
pub fn cancel(ctx: &BtfTracePointContext, timer: Object) {
    let minisocket = Minisocket::around(timer);
    if !minisocket.is_wanted() {
        return;
    }
    let Some(cpu) = cpu() else { return };
    flush_cancel(cpu);
    let expires: u64 = member(timer, layout!(timer_expires));
    let pending = PendingCancel {
        timer: timer as u64,
        cookie: minisocket.cookie(),
        time_ns: now_ns(),
        expires: expires as u32,
        netns: minisocket.netns(),
        substate: u32::from(minisocket.substate()),
        pid: process::current_pid(),
    };
    let flags: u32 = member(timer, layout!(timer_flags));
    if jiffies() >= bucket_end(expires, flags) {
        cpu.cancel = pending;
        return;
    }
    let meaning = stack::meaning(ctx);
    if meaning == MEANS_REARM {
        cpu.cancel = pending;
        return;
    }
    if meaning == Reason::ReusedByConnect as u32 || meaning == Reason::ReusedByBoundConnect as u32 {
        process::name(ctx, pending.pid, pending.time_ns);
    }
    if meaning == Reason::Unknown as u32 {
        debug!(
            ctx,
            "a minisocket ended and nothing known is on the stack, pid {}", pending.pid
        );
    }
    end(&pending, meaning as u8);
}

/// EXPIRE: the handler runs; the CANCEL just before gave the time.
#[inline(always)]
pub fn expire(timer: Object) {
    let Some(cpu) = cpu() else { return };
    if cpu.cancel.timer == timer as u64 {
        let pending = cpu.cancel;
        cpu.cancel.timer = 0;
        end(&pending, Reason::Expired as u8);
        return;
    }
    flush_cancel(cpu);
    let minisocket = Minisocket::around(timer);
    if !minisocket.is_wanted() {
        return;
    }
    let expires: u64 = member(timer, layout!(timer_expires));
    end(
        &PendingCancel {
            timer: timer as u64,
            cookie: minisocket.cookie(),
            time_ns: now_ns(),
            expires: expires as u32,
            netns: minisocket.netns(),
            substate: u32::from(minisocket.substate()),
            pid: process::current_pid(),
        },
        Reason::Expired as u8,
    );
}

/// The jiffy at which the wheel's bucket of this timer runs out.
#[inline(always)]
fn bucket_end(expires: u64, flags: u32) -> u64 {
    let level = (flags >> (TIMER_ARRAYSHIFT + LVL_BITS)) & 15;
    let shift = level * LVL_CLK_SHIFT;
    ((expires >> shift) + 1) << shift
}

#[inline(always)]
fn end(pending: &PendingCancel, reason: u8) {
    emit(End {
        head: Head {
            cookie: pending.cookie,
            stamp: Stamp::new(
                pending.time_ns,
                pending.substate as u8,
                pending.substate as u8,
            ),
            pid: pending.pid,
            kind: kind::END,
            detail: reason,
            error: 0,
        },
        timer: pending.timer,
        expires: pending.expires,
        netns: pending.netns,
    });
}

/// A pending CANCEL that neither START nor EXPIRE followed: it ended, and why is
/// not known.
#[inline(always)]
fn flush_cancel(cpu: &mut Cpu) {
    if cpu.cancel.timer != 0 {
        let pending = cpu.cancel;
        cpu.cancel.timer = 0;
        end(&pending, Reason::Unknown as u8);
    }
}
