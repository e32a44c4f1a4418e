//! Who holds a TCP socket: the open files of every process, by the first thread.
//!
//! Tasks, tables of files, files and sockets are freed after RCU or type-safe, and
//! a run is one RCU section. A task's `files_struct` is not: it ends with the last
//! task that has it, and what was read by it counts if the task has it still.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, helpers::generated::bpf_probe_read_kernel, macros::map, maps::Array,
};
use tracer_common::walk::{MOST_SLOTS, OWNED, OwnedRecord, SLOTS, Tasks};

use super::{END, INNER, ON, namespaces::init_task, now_ns, walk};
use crate::facts::{AF_INET6, layout, probe};
use crate::process::pid_of;

#[map]
static WALK_TASKS: Array<Tasks> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static WALK_OWNED: Array<OwnedRecord> = Array::with_max_entries(OWNED as u32, BPF_F_MMAPABLE);

/// Steps of the outer loop, each of [`INNER`]: a task, or a slot of its table.
const OUTER: u32 = 16;

/// The list is in the order in which tasks started, but for those that were made at
/// once: so much earlier may one have started that stands behind. Nanoseconds.
const SLACK: u64 = 1_000_000_000;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const AF_INET: u16 = 2;
const IPPROTO_TCP: u16 = 6;

#[inline(always)]
fn tasks() -> Option<&'static mut Tasks> {
    // SAFETY: as of the cursor.
    WALK_TASKS
        .get_ptr_mut(0)
        .map(|tasks| unsafe { &mut *tasks })
}

/// Goes on with the walk where the last run left it.
#[inline(always)]
pub fn owners() {
    let Some(state) = tasks() else { return };
    state.began_ns = now_ns();
    state.count = 0;
    state.faults = u32::from(!resume(state));
    if state.faults == 0 {
        for _ in 0..OUTER {
            if walk_owner_steps() != ON {
                break;
            }
        }
    }
    if let Some(state) = tasks() {
        state.ended_ns = now_ns();
    }
}

/// Stands at the task at which the last run stood, or where that has gone, at the
/// first; `false` where the list cannot be found.
#[inline(always)]
fn resume(state: &mut Tasks) -> bool {
    if state.head != 0 {
        if is_there(state) {
            if state.table != 0 && open(state) {
                read_slots(state);
            }
            return true;
        }
        state.restarts += 1;
        state.since = state.since.max(state.started.saturating_sub(SLACK));
    }
    let first = init_task();
    let head = first.wrapping_add(u64::from(walk!(task_tasks)));
    let next: u64 = probe(head, 0);
    if probe::<u32>(first, walk!(task_tgid)) != 0 || probe::<u64>(next, 8) != head {
        return false;
    }
    state.head = head;
    stand(state, next);
    true
}

/// Whether it is the same task, and in the list: one that was taken out leads
/// nowhere but to its successor of that time.
#[inline(always)]
fn is_there(state: &Tasks) -> bool {
    let node = state.task.wrapping_add(u64::from(walk!(task_tasks)));
    let previous: u64 = probe(node, 8);
    probe::<u64>(previous, 0) == node
        && probe::<u32>(state.task, walk!(task_tgid)) == state.tgid
        && probe::<u64>(state.task, walk!(task_start_boottime)) == state.started
}

#[inline(always)]
fn stand(state: &mut Tasks, node: u64) {
    let task = node.wrapping_sub(u64::from(walk!(task_tasks)));
    state.task = task;
    state.tgid = probe(task, walk!(task_tgid));
    state.started = probe(task, walk!(task_start_boottime));
    state.table = 0;
    state.end = 0;
}

#[inline(always)]
fn next(state: &mut Tasks) -> i32 {
    let node: u64 = probe(state.task, walk!(task_tasks));
    if node == 0 {
        state.faults = 1;
        return END;
    }
    stand(state, node);
    ON
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_owner_steps() -> i32 {
    for _ in 0..INNER {
        if walk_owner_step() != ON {
            return END;
        }
    }
    ON
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_owner_step() -> i32 {
    match tasks() {
        Some(state) => step(state),
        None => END,
    }
}

/// One task, or one slot of its table.
#[inline(always)]
fn step(state: &mut Tasks) -> i32 {
    if state.table == 0 {
        if state.task.wrapping_add(u64::from(walk!(task_tasks))) == state.head {
            state.done = 1;
            return END;
        }
        if state.started < state.since || !open(state) {
            return next(state);
        }
        state.fd = 0;
        state.processes += 1;
        name(state);
        return ON;
    }
    if state.fd >= state.end {
        return next(state);
    }
    if state.count >= state.limit {
        return END;
    }
    let fd = state.fd;
    let place = fd as usize & (SLOTS - 1);
    if place == 0 {
        read_slots(state);
    }
    state.fd += 1;
    // SAFETY: within the slots, by the mask.
    let file = unsafe { (&raw const state.slots).cast::<u64>().add(place).read() };
    if file == 0 {
        return ON;
    }
    let inode: u64 = probe(file, walk!(file_inode));
    if probe::<u16>(inode, walk!(inode_mode)) & S_IFMT != S_IFSOCK {
        return ON;
    }
    let socket: u64 = probe(file, walk!(file_private_data));
    let address: u64 = probe(socket, walk!(socket_sk));
    let family: u16 = probe(address, layout!(sk_family));
    if (family != AF_INET && family != AF_INET6)
        || probe::<u16>(address, layout!(sk_protocol)) != IPPROTO_TCP
        || probe::<u64>(socket, walk!(socket_file)) != file
    {
        return ON;
    }
    let cookie = probe(address, walk!(sk_cookie));
    if !is_open(state, fd, file) {
        return ON;
    }
    let Some(record) = WALK_OWNED.get_ptr_mut(state.count) else {
        return END;
    };
    // SAFETY: a map's value, and userspace reads it when this has run.
    let record = unsafe { &mut *record };
    record.address = address;
    record.cookie = cookie;
    record.cgroup = state.cgroup;
    record.comm = state.comm;
    record.pid = state.pid;
    record.fd = fd;
    state.count += 1;
    ON
}

/// Finds the table of the task's open files; `false` where it has none (any more).
#[inline(always)]
fn open(state: &mut Tasks) -> bool {
    let files: u64 = probe(state.task, walk!(task_files));
    let table: u64 = if files == 0 {
        0
    } else {
        probe(files, walk!(files_fdt))
    };
    state.table = probe(table, walk!(fdt_fd));
    state.end = probe(table, walk!(fdt_max_fds));
    if state.end > MOST_SLOTS {
        state.end = MOST_SLOTS;
        state.cut = 1;
    }
    state.table != 0
}

/// Whether that file is at its place now, in whatever table the task has by now.
#[inline(always)]
fn is_open(state: &Tasks, fd: u32, file: u64) -> bool {
    let files: u64 = probe(state.task, walk!(task_files));
    let table: u64 = probe(files, walk!(files_fdt));
    let slots: u64 = probe(table, walk!(fdt_fd));
    probe::<u64>(slots.wrapping_add(u64::from(fd) * 8), 0) == file
}

/// The slots around the next one; none where they cannot be read.
#[inline(always)]
fn read_slots(state: &mut Tasks) {
    let first = u64::from(state.fd) & !(SLOTS as u64 - 1);
    let from = state.table.wrapping_add(first * 8);
    let (room, bytes) = (&raw mut state.slots, (SLOTS * 8) as u32);
    // SAFETY: there is as much room; the helper checks the address, and fills the
    // room with zeros where it fails.
    unsafe { bpf_probe_read_kernel(room.cast(), bytes, from as *const _) };
}

/// Who it is, once a task.
#[inline(always)]
fn name(state: &mut Tasks) {
    let task = state.task;
    state.pid = pid_of(state.tgid, || task);
    state.comm = probe(task, layout!(task_comm));
    let set: u64 = probe(task, walk!(task_cgroups));
    let group: u64 = probe(set, walk!(css_set_dfl_cgrp));
    let node: u64 = probe(group, walk!(cgroup_kn));
    state.cgroup = probe(node, walk!(kernfs_id));
}
