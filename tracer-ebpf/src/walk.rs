//! The walk over the kernel's own tables, run by `BPF_PROG_TEST_RUN`.
//!
//! No symbol and no type of the verifier's is needed: everything is read by
//! address, from the task that runs this. Nothing is locked. What stands in a
//! table may change under the reader; how that is noticed is said where it is.
//!
//! What the steps remember is in a map, and the step is a global function, which
//! the verifier checks once and by itself: so the loops around it cost it next to
//! nothing however often they turn. Such a function must not have an argument
//! that it does not use.

mod namespaces;
mod owners;
mod port;
mod socket;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns, generated::bpf_probe_read_kernel},
    macros::map,
    maps::Array,
};
use tracer_common::walk::{
    ABSENT, BUFFER_WORDS, Bits, Buffer, Cursor, NETS, NetRecord, RECORDS, SocketRecord, WalkLayout,
};

use crate::facts::probe;

pub use namespaces::namespaces;
pub use owners::owners;

const NO_BITS: Bits = Bits {
    offset: 0,
    shift: 0,
    mask: 0,
};

#[unsafe(no_mangle)]
pub static WALK: WalkLayout = WalkLayout {
    task_real_parent: 0,
    task_nsproxy: 0,
    nsproxy_net_ns: 0,
    net_list: 0,
    net_hashinfo: 0,
    death_row_hashinfo: 0,
    hashinfo_ehash: 0,
    hashinfo_ehash_mask: 0,
    hashinfo_lhash2: 0,
    hashinfo_lhash2_mask: 0,
    hashinfo_bhash: 0,
    hashinfo_bhash_size: 0,
    sk_nulls_next: 0,
    sk_cookie: 0,
    sk_reuse: NO_BITS,
    sk_reuseport: NO_BITS,
    sk_userlocks: NO_BITS,
    sk_listener: 0,
    sk_ack_backlog: 0,
    sk_max_ack_backlog: 0,
    sk_drops: 0,
    accept_qlen: 0,
    tw_ts_recent_stamp: 0,
    sk_socket: 0,
    tcp_rcv_tstamp: 0,
    tb_net: 0,
    tb_port: 0,
    tb_fastreuse: 0,
    tb_fastreuseport: 0,
    net_hash_mix: 0,
    task_tasks: 0,
    task_tgid: 0,
    task_start_boottime: 0,
    task_files: 0,
    task_cgroups: 0,
    css_set_dfl_cgrp: 0,
    cgroup_kn: 0,
    kernfs_id: 0,
    files_fdt: 0,
    fdt_max_fds: 0,
    fdt_fd: 0,
    file_inode: 0,
    file_private_data: 0,
    inode_mode: 0,
    socket_file: 0,
    socket_sk: 0,
    head_bytes: 0,
    dawdle: 0,
};

/// A member of [`WALK`], as the loader set it.
macro_rules! walk {
    ($($member:ident).+) => {
        // SAFETY: a read of initialised static data; volatile because the
        // loader changes it after this was compiled.
        unsafe { core::ptr::read_volatile(&raw const $crate::walk::WALK.$($member).+) }
    };
}

use walk;

#[map]
static WALK_CURSOR: Array<Cursor> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static WALK_BUFFER: Array<Buffer> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static WALK_NETS: Array<NetRecord> = Array::with_max_entries(NETS as u32, BPF_F_MMAPABLE);

#[map]
static WALK_RECORDS: Array<SocketRecord> = Array::with_max_entries(RECORDS as u32, BPF_F_MMAPABLE);

/// What a step comes to, as a global function has to say it.
const ON: i32 = 0;
const END: i32 = 1;

/// Steps of an inner and of the outer loop: 65,536 a run at the most.
const INNER: u32 = 256;
const OUTER: u32 = 256;

/// The most that [`WalkLayout::dawdle`] may be.
const DAWDLE: u32 = 4096;

#[inline(always)]
fn cursor() -> Option<&'static mut Cursor> {
    // SAFETY: the value is never freed while a program runs; userspace runs one
    // program of the walk at a time, and each takes it once a function.
    WALK_CURSOR
        .get_ptr_mut(0)
        .map(|cursor| unsafe { &mut *cursor })
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Begins a run, and says where its state is.
#[inline(always)]
fn begin() -> Option<&'static mut Cursor> {
    let cursor = cursor()?;
    cursor.began_ns = now_ns();
    // SAFETY: the helper has no preconditions.
    cursor.jiffies = unsafe { bpf_jiffies64() };
    cursor.count = 0;
    cursor.begun = 0;
    cursor.next = 0;
    cursor.net = 0;
    cursor.done = 0;
    cursor.full = 0;
    cursor.restarts = 0;
    cursor.faults = 0;
    cursor.torn = 0;
    Some(cursor)
}

/// Copies what the cursor says into the buffer: the heads of a table's buckets
/// in bulk, so that only those that are not empty have to be walked. A bucket
/// that fills afterwards has no socket that was there all the time.
#[inline(always)]
pub fn copy() {
    let Some(cursor) = begin() else { return };
    let Some(buffer) = WALK_BUFFER.get_ptr_mut(0) else {
        return;
    };
    // What is bounded has to be what is used: nothing may compute it anew.
    let bytes = core::hint::black_box(cursor.bytes);
    if bytes == 0 || bytes > (BUFFER_WORDS * 8) as u64 {
        return;
    }
    // SAFETY: the buffer is that large; the helper checks the address.
    let failed = unsafe { bpf_probe_read_kernel(buffer.cast(), bytes as u32, cursor.table as _) };
    cursor.faults = u32::from(failed != 0);
    cursor.done = u32::from(failed == 0);
    cursor.ended_ns = now_ns();
}

/// Follows the chains of the buckets that the buffer lists.
#[inline(always)]
pub fn chains() {
    if begin().is_none() {
        return;
    }
    for _ in 0..OUTER {
        if walk_chain_steps() != ON {
            break;
        }
    }
    let Some(cursor) = cursor() else { return };
    // A chain that was begun and not ended is begun again by the next run.
    if cursor.next != 0 {
        cursor.count = cursor.begun;
    }
    cursor.ended_ns = now_ns();
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_chain_steps() -> i32 {
    for _ in 0..INNER {
        if walk_chain_step() != ON {
            return END;
        }
    }
    ON
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_chain_step() -> i32 {
    match cursor() {
        Some(cursor) => step(cursor),
        None => END,
    }
}

/// One head of a chain, one socket, or one end of a chain.
#[inline(always)]
fn step(cursor: &mut Cursor) -> i32 {
    let nulls = cursor.nulls_base != ABSENT;
    if cursor.next == 0 {
        if cursor.at >= cursor.end {
            cursor.done = 1;
            return END;
        }
        let Some(buffer) = WALK_BUFFER.get_ptr(0) else {
            return END;
        };
        let place = cursor.at as usize & (BUFFER_WORDS - 1);
        // SAFETY: within the buffer, by the mask.
        let bucket = unsafe { (&raw const (*buffer).words).cast::<u64>().add(place).read() };
        cursor.bucket = bucket as u32;
        cursor.begun = cursor.count;
        let offset = u64::from(cursor.bucket) * u64::from(cursor.stride);
        cursor.next = probe(cursor.table.wrapping_add(offset), cursor.chain);
        if cursor.next == 0 {
            // Of a list with nulls even an empty one holds something.
            cursor.faults += u32::from(nulls);
            cursor.at += 1;
        }
        return ON;
    }
    if nulls && cursor.next & 1 == 1 {
        let bucket = (cursor.next >> 1) as u32;
        cursor.next = 0;
        if bucket == cursor.bucket.wrapping_add(cursor.nulls_base) {
            cursor.at += 1;
        } else {
            // A socket that was read had been moved: this is the end of another
            // chain, and what stands behind it in its own was not read.
            begin_again(cursor);
            cursor.restarts += 1;
        }
        return ON;
    }
    if cursor.count >= cursor.limit {
        cursor.full = 1;
        return END;
    }
    let Some(record) = WALK_RECORDS.get_ptr_mut(cursor.count) else {
        cursor.full = 1;
        return END;
    };
    let node = cursor.next;
    let address = node.wrapping_sub(u64::from(cursor.node));
    // SAFETY: a map's value, and userspace reads it when this has run.
    let record = unsafe { &mut *record };
    if cursor.ports != 0 {
        return port::step(cursor, record, node, address);
    }
    if !socket::read_head(cursor, address) {
        cursor.faults += 1;
        cursor.next = 0;
        begin_again(cursor);
        return ON;
    }
    let next = if nulls {
        socket::head(cursor, walk!(sk_nulls_next))
    } else {
        probe(node, 0)
    };
    if nulls && next == 0 {
        cursor.faults += 1;
        cursor.next = 0;
        begin_again(cursor);
        return ON;
    }
    cursor.next = next;
    if socket::fill(cursor, record, address) {
        cursor.count += 1;
    }
    if next == 0 {
        cursor.at += 1;
    }
    for i in 0..DAWDLE {
        if i >= walk!(dawdle) {
            break;
        }
        cursor.ended_ns = now_ns();
    }
    ON
}

#[inline(always)]
fn begin_again(cursor: &mut Cursor) {
    cursor.count = cursor.begun;
}

/// Reads the sockets whose addresses the records hold, in place. Each is what it
/// is now: userspace has to see by its cookie and state whether it is the same.
#[inline(always)]
pub fn known() {
    if begin().is_none() {
        return;
    }
    for _ in 0..RECORDS as u32 / INNER {
        if walk_known_steps() != ON {
            break;
        }
    }
    if let Some(cursor) = cursor() {
        cursor.ended_ns = now_ns();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_known_steps() -> i32 {
    for _ in 0..INNER {
        if walk_known_step() != ON {
            return END;
        }
    }
    ON
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_known_step() -> i32 {
    let Some(cursor) = cursor() else { return END };
    if cursor.count >= cursor.end {
        cursor.done = 1;
        return END;
    }
    let Some(record) = WALK_RECORDS.get_ptr_mut(cursor.count) else {
        return END;
    };
    // SAFETY: as in `step`.
    let record = unsafe { &mut *record };
    let address = record.address;
    cursor.count += 1;
    if !socket::read_head(cursor, address) || !socket::fill(cursor, record, address) {
        record.state = 0;
    }
    ON
}
