//! Births, re-arms and ends of minisockets, from the tracepoints of their timer.
//!
//! docs/kernel.md has the sequences; the programs see, on one CPU:
//! birth = START, then CLOSE of the full socket; re-arm = CANCEL, START;
//! expiry = CANCEL, EXPIRE; early end = CANCEL alone, with the cause on the stack.

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
    facts::{Minisocket, Object, layout, member, probe, tuple_at},
    percpu::{BirthNote, CancelNote, Cpu, cpu},
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
pub fn start(_ctx: &BtfTracePointContext, timer: Object) {
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
    let time_ns = now_ns();
    if cpu.cancel.timer == timer as u64 {
        cpu.cancel.timer = 0;
        let substate = minisocket.substate();
        emit(Rearm {
            head: Head {
                address: timer as u64,
                stamp: Stamp::new(time_ns, substate, substate),
                pid: minisocket.netns(),
                kind: kind::REARM,
                detail: 0,
                error: 0,
            },
            arming,
        });
        return;
    }
    flush_cancel(cpu);
    // A note still there means that its full socket was interrupted before its
    // step to CLOSE. Userspace will join the two by their addresses.
    flush_birth(cpu);
    cpu.birth = BirthNote {
        timer: timer as u64,
        time_ns,
        net: minisocket.member(layout!(sk_net)),
        addrpair: minisocket.member(layout!(sk_addrpair)),
        v6_daddr_end: if layout!(sk_v6_daddr) == 0 {
            0
        } else {
            minisocket.member(layout!(sk_v6_daddr) + 8)
        },
        hash: minisocket.member(layout!(sk_hash)),
        expires: arming.expires,
        timeout: arming.timeout,
        dport: minisocket.member(layout!(sk_dport)),
        family: minisocket.member(layout!(sk_family)),
        substate: u32::from(minisocket.substate()),
        unused: 0,
    };
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
    if cpu.birth.timer == timer as u64 {
        flush_birth(cpu);
    }
    let expires: u64 = member(timer, layout!(timer_expires));
    let note = CancelNote {
        timer: timer as u64,
        time_ns: now_ns(),
        expires: expires as u32,
        netns: minisocket.netns(),
        substate: u32::from(minisocket.substate()),
        pid: process::current_pid(),
    };
    let flags: u32 = member(timer, layout!(timer_flags));
    if jiffies() >= bucket_end(expires, flags) {
        cpu.cancel = note;
        return;
    }
    let meaning = stack::meaning(ctx);
    if meaning == MEANS_REARM {
        cpu.cancel = note;
        return;
    }
    if meaning == Reason::ReusedByConnect as u32 || meaning == Reason::ReusedByBoundConnect as u32 {
        process::name(ctx, note.pid, note.time_ns);
    }
    if meaning == Reason::Unknown as u32 {
        debug!(
            ctx,
            "a minisocket ended and nothing known is on the stack, pid {}", note.pid
        );
    }
    end(&note, meaning as u8);
}

/// EXPIRE: the handler runs; the CANCEL just before gave the time.
#[inline(always)]
pub fn expire(timer: Object) {
    let Some(cpu) = cpu() else { return };
    if cpu.cancel.timer == timer as u64 {
        let note = cpu.cancel;
        cpu.cancel.timer = 0;
        end(&note, Reason::Expired as u8);
        return;
    }
    flush_cancel(cpu);
    let minisocket = Minisocket::around(timer);
    if !minisocket.is_wanted() {
        return;
    }
    let expires: u64 = member(timer, layout!(timer_expires));
    end(
        &CancelNote {
            timer: timer as u64,
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
fn end(note: &CancelNote, reason: u8) {
    emit(End {
        head: Head {
            address: note.timer,
            stamp: Stamp::new(note.time_ns, note.substate as u8, note.substate as u8),
            pid: note.pid,
            kind: kind::END,
            detail: reason,
            error: 0,
        },
        expires: note.expires,
        netns: note.netns,
    });
}

/// A noted CANCEL that neither START nor EXPIRE followed: it ended, and why is
/// not known.
#[inline(always)]
fn flush_cancel(cpu: &mut Cpu) {
    if cpu.cancel.timer != 0 {
        let note = cpu.cancel;
        cpu.cancel.timer = 0;
        end(&note, Reason::Unknown as u8);
    }
}

/// Tells a noted birth without its full socket.
#[inline(always)]
fn flush_birth(cpu: &mut Cpu) {
    let note = cpu.birth;
    if note.timer != 0 {
        cpu.birth.timer = 0;
        tell_birth(
            &note,
            0,
            note.substate as u8,
            probe(note.net, layout!(net_inum)),
        );
    }
}

/// Tells a birth: of the full socket at that address, which left `from`; or of
/// one not known, address 0.
#[inline(always)]
pub fn tell_birth(note: &BirthNote, socket: u64, from: u8, netns: u32) {
    let birth = Birth {
        head: Head {
            address: socket,
            stamp: Stamp::new(note.time_ns, from, note.substate as u8),
            pid: netns,
            kind: kind::BIRTH,
            detail: note.family as u8,
            error: 0,
        },
        timer: note.timer,
        arming: Arming {
            expires: note.expires,
            timeout: note.timeout,
        },
    };
    if socket == 0 || tell_all() {
        emit(FullBirth {
            birth: Birth {
                head: Head {
                    kind: kind::FULL_BIRTH,
                    ..birth.head
                },
                ..birth
            },
            tuple: tuple_at(
                note.timer.wrapping_sub(u64::from(layout!(tw_timer))),
                note.family,
            ),
        });
    } else {
        emit(birth);
    }
}
