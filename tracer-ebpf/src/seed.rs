//! Every TCP socket of one network namespace, through the kernel's iterator.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, generated::bpf_seq_write};
use tracer_common::{state::State, wire::Seed};

use crate::facts::{Object, family_wanted, layout, member, probe, tuple_at};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct Context {
    meta: *const Meta,
    sock_common: Object,
}

/// `struct bpf_iter_meta`, as far as it matters.
#[repr(C)]
struct Meta {
    seq_file: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn seed(context: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier knows its type.
    let (meta, sk) = unsafe { ((*context).meta, (*context).sock_common) };
    if sk.is_null() || meta.is_null() {
        return 0;
    }
    let family: u16 = member(sk, layout!(sk_family));
    if !family_wanted(family) {
        return 0;
    }
    let state: u8 = member(sk, layout!(sk_state));
    let address = sk as u64;
    let (substate, expires): (u8, u64) = if state == State::TimeWait as u8 {
        (
            probe(address, layout!(tw_substate)),
            probe(address, layout!(tw_timer) + layout!(timer_expires)),
        )
    } else {
        (0, 0)
    };
    // SAFETY: the helpers have no preconditions.
    let (time_ns, jiffies) = unsafe { (bpf_ktime_get_ns(), bpf_jiffies64()) };
    let record = Seed {
        cookie: probe(address, layout!(sk_cookie)),
        address,
        time_ns,
        jiffies: jiffies as u32,
        expires: expires as u32,
        state,
        substate,
        family: family as u8,
        unused: 0,
        unused2: 0,
        tuple: tuple_at(address, family),
    };
    // SAFETY: `seq_file` is the iterator's, the record is ours. A record that
    // does not fit is asked for again by the kernel with a larger buffer.
    unsafe {
        bpf_seq_write(
            (*meta).seq_file.cast(),
            (&raw const record).cast(),
            size_of::<Seed>() as u32,
        );
    }
    0
}
