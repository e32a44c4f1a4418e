//! The walk over the kernel's own tables: where their members are, what each run
//! is asked, and what it reports.
//!
//! All travels through arrays that userspace maps into its memory, so every
//! structure is `repr(C)` and without padding. Userspace writes while no program
//! runs, and reads after it has run.

use crate::wire::Tuple;

/// A member that this kernel does not have. No offset is that large.
pub const ABSENT: u32 = u32::MAX;

/// A bit field of at most one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bits {
    /// Offset of the byte that it lies in.
    pub offset: u32,
    pub shift: u32,
    /// After the shift; 0 where this kernel has no such member.
    pub mask: u32,
}

/// Byte offsets of members that only the walk reads, from BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct WalkLayout {
    pub task_real_parent: u32,
    pub task_nsproxy: u32,
    pub nsproxy_net_ns: u32,
    pub net_list: u32,
    /// In `struct net`: `ipv4.tcp_death_row.hashinfo`, or `ipv4.tcp_death_row`
    /// itself where that is a pointer.
    pub net_hashinfo: u32,
    /// Where `tcp_death_row` is a pointer, `hashinfo` behind it; else [`ABSENT`].
    pub death_row_hashinfo: u32,
    pub hashinfo_ehash: u32,
    pub hashinfo_ehash_mask: u32,
    pub hashinfo_lhash2: u32,
    pub hashinfo_lhash2_mask: u32,
    pub hashinfo_bhash: u32,
    pub hashinfo_bhash_size: u32,
    pub sk_nulls_next: u32,
    pub sk_cookie: u32,
    pub sk_reuse: Bits,
    pub sk_reuseport: Bits,
    pub sk_userlocks: Bits,
    /// `skc_listener`, of requests.
    pub sk_listener: u32,
    pub sk_ack_backlog: u32,
    pub sk_max_ack_backlog: u32,
    pub sk_drops: u32,
    /// `icsk_accept_queue.qlen`, of listeners.
    pub accept_qlen: u32,
    pub tw_ts_recent_stamp: u32,
    /// `sk_socket`: null where no program holds it.
    pub sk_socket: u32,
    pub tcp_rcv_tstamp: u32,
    /// In `struct inet_bind_bucket`.
    pub tb_net: u32,
    pub tb_port: u32,
    pub tb_fastreuse: u32,
    pub tb_fastreuseport: u32,
    pub net_hash_mix: u32,
    /// `tasks`, by which the first threads of all processes are chained.
    pub task_tasks: u32,
    pub task_tgid: u32,
    pub task_start_boottime: u32,
    pub task_files: u32,
    /// To a task's cgroup v2: `cgroups->dfl_cgrp->kn->id`.
    pub task_cgroups: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub kernfs_id: u32,
    pub files_fdt: u32,
    pub fdt_max_fds: u32,
    pub fdt_fd: u32,
    pub file_inode: u32,
    pub file_private_data: u32,
    pub inode_mode: u32,
    pub socket_file: u32,
    pub socket_sk: u32,
    /// How much of an object is read at once: all members above that any kind of
    /// socket has, and of minisockets and requests the timer. At most [`HEAD`].
    pub head_bytes: u32,
    /// How often the clock is read after each socket: 0, but where a test gives
    /// others the time to change a chain under the reader.
    pub dawdle: u32,
}

/// Room for the beginning of an object. Whatever the kind of socket, it is larger.
pub const HEAD: usize = 256;

/// Words of the buffer that memory is copied into. 256 KiB a read.
pub const BUFFER_WORDS: usize = 1 << 15;

/// Records that one run can report.
pub const RECORDS: usize = 4096;

/// Namespaces that one run can report.
pub const NETS: usize = 4096;

/// What a run is asked, what it has to remember from step to step, and how it
/// went. One program uses it at a time.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cursor {
    /// In: address of the table; of what is to be copied.
    pub table: u64,
    /// In: bytes to copy, at most the buffer's.
    pub bytes: u64,
    /// In: of a bucket.
    pub stride: u32,
    /// In: of a bucket's first pointer, in the bucket.
    pub chain: u32,
    /// In: of the member by which sockets are chained, in the socket.
    pub node: u32,
    /// In: what the end of a chain holds is the bucket's number and this;
    /// [`ABSENT`]: it is a null pointer.
    pub nulls_base: u32,
    /// In: the `struct net` whose sockets alone are wanted; 0: all.
    pub only: u64,
    /// In: the buckets of the table of bound ports where that is walked; 0: the
    /// chains are of sockets.
    pub ports: u64,
    /// In: the most records to report.
    pub limit: u32,
    /// In: how many words of the buffer are numbers of buckets, or how many
    /// records hold an address.
    pub end: u32,
    /// In and out: the next of those to read.
    pub at: u32,

    /// The records so far; at the end of the run, those of finished chains.
    pub count: u32,
    /// What `count` was when this chain was begun.
    pub begun: u32,
    pub bucket: u32,
    /// The node that is read next; 0: the next chain is to be begun.
    pub next: u64,
    /// The namespace that was met last.
    pub net: u64,
    pub netns_cookie: u64,
    pub netns: u32,

    /// Out: 1 if the walk came to its end, 0 if records or steps ran out.
    pub done: u32,
    /// Out: 1 if it was the records that ran out.
    pub full: u32,
    /// Out: chains that changed under the reader and were begun again.
    pub restarts: u32,
    /// Out: reads that failed.
    pub faults: u32,
    /// Out: sockets in the middle of a change, left out.
    pub torn: u32,
    /// Out: when the run began and when it ended.
    pub began_ns: u64,
    pub ended_ns: u64,
    /// Out: jiffies when it began.
    pub jiffies: u64,

    pub head: [u64; HEAD / 8],
}

impl Cursor {
    /// What a run is asked begins with this.
    pub const EMPTY: Cursor = Cursor {
        table: 0,
        bytes: 0,
        stride: 0,
        chain: 0,
        node: 0,
        nulls_base: 0,
        only: 0,
        ports: 0,
        limit: 0,
        end: 0,
        at: 0,
        count: 0,
        begun: 0,
        bucket: 0,
        next: 0,
        net: 0,
        netns_cookie: 0,
        netns: 0,
        done: 0,
        full: 0,
        restarts: 0,
        faults: 0,
        torn: 0,
        began_ns: 0,
        ended_ns: 0,
        jiffies: 0,
        head: [0; HEAD / 8],
    };
}

/// Records that one run over the tasks can report.
pub const OWNED: usize = 512;

/// Slots of a table of open files that are read at once. Every such table is as
/// long or a multiple of it.
pub const SLOTS: usize = 32;

/// Slots of one process that are looked at, sixteen times as many as a process may
/// have open unless somebody has raised `fs.nr_open`.
pub const MOST_SLOTS: u32 = 1 << 24;

/// A walk over the open files of all tasks: what it has to remember from step to
/// step and from run to run, and how the last run went. Userspace begins a walk
/// with [`Tasks::EMPTY`] and a limit, and leaves the rest as it is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tasks {
    /// The list's head, in `init_task`; 0: the walk is to be begun.
    pub head: u64,
    /// The task that is looked at, the first of its process, and when it started.
    pub task: u64,
    pub started: u64,
    /// Tasks that started before are passed over: they were looked at.
    pub since: u64,
    /// The table of its open files; 0: it was not looked at yet.
    pub table: u64,
    pub cgroup: u64,
    pub comm: [u64; 2],

    /// Out: the processes that have open files, so far.
    pub processes: u64,
    /// Out: when the run began and when it ended.
    pub began_ns: u64,
    pub ended_ns: u64,

    /// In: the most records to report.
    pub limit: u32,
    pub tgid: u32,
    /// The number that it goes by.
    pub pid: u32,
    /// The next slot, and how many are looked at.
    pub fd: u32,
    pub end: u32,

    /// Out: the records of this run.
    pub count: u32,
    /// Out: how often the task had gone between two runs, so far.
    pub restarts: u32,
    /// Out: 1 if the walk came to its end.
    pub done: u32,
    /// Out: 1 if a process had more slots than [`MOST_SLOTS`], so far.
    pub cut: u32,
    /// Out: 1 if the list is not where it should be.
    pub faults: u32,

    pub slots: [u64; SLOTS],
}

impl Tasks {
    /// What a walk begins with.
    pub const EMPTY: Tasks = Tasks {
        head: 0,
        task: 0,
        started: 0,
        since: 0,
        table: 0,
        cgroup: 0,
        comm: [0; 2],
        processes: 0,
        began_ns: 0,
        ended_ns: 0,
        limit: 0,
        tgid: 0,
        pid: 0,
        fd: 0,
        end: 0,
        count: 0,
        restarts: 0,
        done: 0,
        cut: 0,
        faults: 0,
        slots: [0; SLOTS],
    };
}

/// A TCP socket among the open files of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct OwnedRecord {
    /// Of the `sock_common`.
    pub address: u64,
    /// 0 if nobody has asked for it yet.
    pub cookie: u64,
    /// Of the process's first thread, cgroup v2.
    pub cgroup: u64,
    pub comm: [u64; 2],
    /// As in [`crate::wire::Head`].
    pub pid: u32,
    pub fd: u32,
}

/// The buffer: memory as it was copied, or the numbers of the buckets to read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Buffer {
    pub words: [u64; BUFFER_WORDS],
}

/// A network namespace and where its tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NetRecord {
    /// Of its `struct net`.
    pub address: u64,
    /// 0 where this kernel has none, or none yet.
    pub cookie: u64,
    /// Of its `struct inet_hashinfo`.
    pub hashinfo: u64,
    pub ehash: u64,
    pub lhash2: u64,
    pub bhash: u64,
    pub inode: u32,
    pub ehash_mask: u32,
    pub lhash2_mask: u32,
    pub bhash_size: u32,
}

/// One socket, as it stood in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SocketRecord {
    /// Of the `sock_common`. In, where known sockets are read in place.
    pub address: u64,
    /// 0 if nobody has asked for it yet.
    pub cookie: u64,
    pub netns_cookie: u64,
    pub time_ns: u64,
    pub tuple: Tuple,
    /// Minisockets and requests: `timer_list.expires`, low 32 bits.
    pub expires: u32,
    pub state: u8,
    /// Minisockets only.
    pub substate: u8,
    pub family: u8,
    /// See [`flag`].
    pub flags: u8,
    /// By kind: see [`listener`] and [`request`].
    pub details: [u32; 4],
}

/// Bits of [`SocketRecord::flags`].
pub mod flag {
    /// `SOCK_BINDADDR_LOCK`, as in `sk_userlocks`: its address was chosen by the program.
    pub const BOUND_ADDRESS: u8 = 1 << 2;
    /// `SOCK_BINDPORT_LOCK`: so was its port.
    pub const BOUND_PORT: u8 = 1 << 3;
    pub const REUSEADDR: u8 = 1 << 4;
    pub const REUSEPORT: u8 = 1 << 5;
    /// Minisockets: a timestamp was received.
    pub const TIMESTAMPS: u8 = 1 << 6;
    /// Full sockets: no program holds it any more.
    pub const ORPHAN: u8 = 1 << 7;
}

/// Places in a listener's [`SocketRecord::details`].
pub mod listener {
    /// Half-open requests.
    pub const HALF_OPEN: usize = 0;
    /// Connections that wait for `accept()`.
    pub const ACCEPT_QUEUE: usize = 1;
    pub const ACCEPT_LIMIT: usize = 2;
    pub const DROPS: usize = 3;
}

/// Places in another full socket's [`SocketRecord::details`].
pub mod full {
    /// When a segment was last received: jiffies, low 32 bits.
    pub const RECEIVED: usize = 0;
}

/// Places in the [`SocketRecord::details`] of a bound port, of which only these, the
/// namespace and the local port are filled.
pub mod bound {
    /// 1 where `connect()` alone chose it, so that another may share it.
    pub const SHARED: usize = 0;
}

/// Places in a request's [`SocketRecord::details`]: the address of its listener.
pub mod request {
    pub const LISTENER_LOW: usize = 0;
    pub const LISTENER_HIGH: usize = 1;
}

#[cfg(feature = "user")]
mod user {
    use super::{Buffer, Cursor, NetRecord, OwnedRecord, SocketRecord, Tasks, WalkLayout};

    // SAFETY: all are `repr(C)`, made of integers, without padding; any bytes are valid.
    unsafe impl aya::Pod for WalkLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Cursor {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Buffer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NetRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tasks {}
    // SAFETY: as above.
    unsafe impl aya::Pod for OwnedRecord {}
}
