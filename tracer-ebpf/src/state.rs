//! Transitions of full sockets, from `inet_sock_set_state`.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_ktime_get_ns, generated::bpf_get_socket_cookie},
    programs::BtfTracePointContext,
};
use tracer_common::{
    handled::Transition,
    state::State,
    wire::{Child, FullStep, Head, LINGER2_NEGATIVE, NEVER_HASHED, Stamp, Step, Tuple, kind},
};

use crate::{
    emit::{emit, lost, tell_all},
    facts::{
        AF_INET6, Object, ends_matter, ends_wanted, family_wanted, layout, member, net_wanted,
        probe, put_v4,
    },
    percpu::{Cpu, cpu},
    process,
};

const IPPROTO_TCP: u16 = 6;

const ESTABLISHED: u32 = State::Established as u32;
const SYN_SENT: u32 = State::SynSent as u32;
const SYN_RECV: u32 = State::SynRecv as u32;
const FIN_WAIT1: u32 = State::FinWait1 as u32;
const CLOSE: u32 = State::Close as u32;
const CLOSE_WAIT: u32 = State::CloseWait as u32;
const LAST_ACK: u32 = State::LastAck as u32;
const LISTEN: u32 = State::Listen as u32;
const CLOSING: u32 = State::Closing as u32;
const FIN_WAIT2: u32 = State::FinWait2 as u32;

/// The first program on the tracepoint.
#[inline(always)]
pub fn first(ctx: &BtfTracePointContext) {
    let Some(cpu) = cpu() else { return };
    cpu.handled.push(which(ctx));
    transition(ctx, cpu);
}

/// The second program on it, which the kernel runs after the first for each
/// transition, and alone where it skips that: where a softirq interrupts the first.
#[inline(always)]
pub fn second(ctx: &BtfTracePointContext) {
    let Some(cpu) = cpu() else { return };
    if cpu.handled.take(which(ctx)) {
        return;
    }
    // Before any filter: the kernel counts what it skipped of everybody's
    // events, and what was rescued is counted against it.
    lost(|losses| losses.rescued += 1);
    transition(ctx, cpu);
}

#[inline(always)]
fn which(ctx: &BtfTracePointContext) -> Transition {
    let stack;
    // The kernel keeps a tracepoint's arguments on its stack, at the same place for
    // both programs. Of half an address the verifier knows that it is a number, which
    // may be compared.
    // SAFETY: one register is copied into another.
    unsafe {
        asm!("w0 = w1", in("r1") ctx.as_ptr() as u64, lateout("w0") stack, options(pure, nomem, nostack));
    }
    Transition {
        socket: ctx.arg(0),
        stack,
        from: ctx.arg::<u32>(1) as u8,
        to: ctx.arg::<u32>(2) as u8,
    }
}

#[inline(always)]
fn transition(ctx: &BtfTracePointContext, cpu: &mut Cpu) {
    let sk: Object = ctx.arg(0);
    let from: u32 = ctx.arg(1);
    let to: u32 = ctx.arg(2);
    // DCCP and SCTP fire the same tracepoint, and so does MPTCP for what it
    // builds on top of its TCP subflows.
    if member::<u16>(sk, layout!(sk_protocol)) != IPPROTO_TCP {
        return;
    }
    let family: u16 = member(sk, layout!(sk_family));
    if !family_wanted(family) || !net_wanted(sk) {
        return;
    }
    let opens = from == CLOSE || from == LISTEN;
    if ends_matter() && !ends_wanted(family, &tuple_of(sk, family, to == CLOSE), !opens) {
        return;
    }
    let is_child = from == LISTEN && to == SYN_RECV;
    let cookie = if is_child { 0 } else { cookie_of(sk) };
    if to == CLOSE && cpu.born == cookie && can_wait(from) {
        // Its birth, just before, has said that it goes.
        cpu.born = 0;
        return;
    }

    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let pid = process::current_pid();
    if (from == CLOSE && (to == SYN_SENT || to == LISTEN))
        || (from == ESTABLISHED && to == FIN_WAIT1)
        || (from == CLOSE_WAIT && to == LAST_ACK)
    {
        // The current process is the socket's owner at these steps.
        process::name(ctx, pid, now_ns);
    }
    let head = Head {
        cookie,
        stamp: Stamp::new(now_ns, from as u8, to as u8),
        pid,
        kind: kind::STEP,
        detail: family as u8,
        error: if to == CLOSE { error_of(sk, from) } else { 0 },
    };
    let address = sk as u64;
    // The port of a connect is chosen after CLOSE -> SYN_SENT, and the child of
    // a listener is given its addresses after LISTEN -> SYN_RECV: both are told
    // with the next step.
    if is_child {
        emit(Child {
            head: Head {
                kind: kind::CHILD,
                pid: netns_of(sk),
                ..head
            },
            address,
        });
    } else if opens || from == SYN_SENT || from == SYN_RECV || tell_all() {
        emit(FullStep {
            step: Step {
                head: Head {
                    kind: kind::FULL_STEP,
                    ..head
                },
                address,
            },
            tuple: tuple_of(sk, family, to == CLOSE),
        });
    } else {
        emit(Step { head, address });
    }
}

/// Whether a socket that closes in this state may go on as a minisocket.
#[inline(always)]
fn can_wait(from: u32) -> bool {
    from == FIN_WAIT2 || from == CLOSING || from == FIN_WAIT1
}

/// The socket's cookie; made for it where it has none, which takes 15 ns more
/// than to ask for one that it has, and 40 more than to read that.
#[inline(always)]
fn cookie_of(sk: Object) -> u64 {
    let cookie: u64 = member(sk, layout!(sk_cookie));
    if cookie != 0 {
        return cookie;
    }
    // SAFETY: the verifier knows that this is a socket.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) }
}

#[inline(always)]
fn netns_of(sk: Object) -> u32 {
    let net: Object = member(sk, layout!(sk_net));
    member(net, layout!(net_inum))
}

#[inline(always)]
fn tuple_of(sk: Object, family: u16, closed: bool) -> Tuple {
    let mut tuple = Tuple {
        local: [0; 2],
        remote: [0; 2],
        netns: netns_of(sk),
        local_port: member(sk, layout!(sk_num)),
        remote_port: u16::from_be(member(sk, layout!(sk_dport))),
    };
    if closed && tuple.local_port == 0 {
        // The port was given back before the tracepoint; this copy outlives it.
        tuple.local_port = u16::from_be(probe(sk as u64, layout!(inet_sport)));
    }
    if family == AF_INET6 && layout!(sk_v6_daddr) != 0 {
        let local = layout!(sk_v6_rcv_saddr);
        let remote = layout!(sk_v6_daddr);
        tuple.local = [member(sk, local), member(sk, local + 8)];
        tuple.remote = [member(sk, remote), member(sk, remote + 8)];
    } else {
        put_v4(&mut tuple, member(sk, layout!(sk_addrpair)));
    }
    tuple
}

/// `sk_err`, whether `linger2` tells it not to wait, and whether a connect came as
/// far as to be one.
#[inline(always)]
fn error_of(sk: Object, from: u32) -> u16 {
    let mut error = member::<u32>(sk, layout!(sk_err)) as u16 & !(LINGER2_NEGATIVE | NEVER_HASHED);
    if from == SYN_SENT && member::<u32>(sk, layout!(sk_hash)) == 0 {
        error |= NEVER_HASHED;
    }
    // Passive closes, which are half of all, do not wait in any case.
    if from != LAST_ACK && probe::<i32>(sk as u64, layout!(tcp_linger2)) < 0 {
        error | LINGER2_NEGATIVE
    } else {
        error
    }
}
