//! All network namespaces and their tables.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tracer_common::walk::{ABSENT, Cursor};

use super::{END, INNER, ON, OUTER, WALK_NETS, begin, cursor, now_ns, walk};
use crate::facts::{layout, probe};

/// Generations between a process and `init_task`.
const ANCESTORS: u32 = 256;

/// The task that all others come from, whatever PID namespace this one is in.
#[inline(always)]
pub(super) fn init_task() -> u64 {
    // SAFETY: the helper has no preconditions.
    let mut task = unsafe { bpf_get_current_task() };
    for _ in 0..ANCESTORS {
        let parent: u64 = probe(task, walk!(task_real_parent));
        if parent == 0 || parent == task {
            break;
        }
        task = parent;
    }
    task
}

/// `init_net`, which is that task's; 0 if it is not found.
#[inline(always)]
fn init_net() -> u64 {
    let nsproxy: u64 = probe(init_task(), walk!(task_nsproxy));
    if nsproxy == 0 {
        return 0;
    }
    probe(nsproxy, walk!(nsproxy_net_ns))
}

/// Reports each namespace in the order of their making.
#[inline(always)]
pub fn namespaces() {
    let Some(state) = begin() else { return };
    let first = init_net();
    if first == 0 {
        state.faults = 1;
        return;
    }
    // `init_net` is the first of the list as long as the machine runs: what
    // stands before it is the list's head.
    let first = first.wrapping_add(u64::from(walk!(net_list)));
    let head: u64 = probe(first, 8);
    state.table = head;
    state.next = probe(head, 0);
    if head == 0 || state.next != first {
        state.faults = 1;
        return;
    }
    for _ in 0..OUTER {
        if walk_namespace_steps() != ON {
            break;
        }
    }
    if let Some(state) = cursor() {
        state.done = u32::from(state.next == state.table);
        state.ended_ns = now_ns();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_namespace_steps() -> i32 {
    for _ in 0..INNER {
        if walk_namespace_step() != ON {
            return END;
        }
    }
    ON
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_namespace_step() -> i32 {
    match cursor() {
        Some(cursor) => step(cursor),
        None => END,
    }
}

#[inline(always)]
fn step(cursor: &mut Cursor) -> i32 {
    let node = cursor.next;
    if node == 0 || node == cursor.table {
        return END;
    }
    let Some(record) = WALK_NETS.get_ptr_mut(cursor.count) else {
        cursor.full = 1;
        return END;
    };
    // SAFETY: a map's value, and userspace reads it when this has run.
    let record = unsafe { &mut *record };
    let net = node.wrapping_sub(u64::from(walk!(net_list)));
    record.address = net;
    record.inode = probe(net, layout!(net_inum));
    record.cookie = if layout!(net_cookie) == 0 {
        0
    } else {
        probe(net, layout!(net_cookie))
    };
    let mut hashinfo: u64 = probe(net, walk!(net_hashinfo));
    if walk!(death_row_hashinfo) != ABSENT {
        hashinfo = probe(hashinfo, walk!(death_row_hashinfo));
    }
    record.hashinfo = hashinfo;
    record.ehash = probe(hashinfo, walk!(hashinfo_ehash));
    record.ehash_mask = probe(hashinfo, walk!(hashinfo_ehash_mask));
    record.lhash2 = probe(hashinfo, walk!(hashinfo_lhash2));
    record.lhash2_mask = probe(hashinfo, walk!(hashinfo_lhash2_mask));
    record.bhash = probe(hashinfo, walk!(hashinfo_bhash));
    record.bhash_size = probe(hashinfo, walk!(hashinfo_bhash_size));
    cursor.count += 1;
    cursor.next = probe(node, 0);
    ON
}
