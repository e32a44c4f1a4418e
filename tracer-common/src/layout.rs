//! What userspace tells the kernel side before it is loaded: where the members
//! of the kernel's structures are, which code a return address belongs to, and
//! what the user wants to see. All of it becomes read-only data, so that the
//! verifier sees constants and drops what a mode does not need.

/// Byte offsets of members, from BTF, and addresses of handlers, from kallsyms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Layout {
    pub sk_family: u32,
    pub sk_cookie: u32,
    pub sk_addrpair: u32,
    /// 0 in a socket that was never among the connections.
    pub sk_hash: u32,
    pub sk_state: u32,
    /// `skc_num` (host order), which is 0 once the port is given back.
    pub sk_num: u32,
    /// `skc_dport` (network order).
    pub sk_dport: u32,
    pub sk_net: u32,
    /// 0 on a kernel without IPv6.
    pub sk_v6_daddr: u32,
    pub sk_v6_rcv_saddr: u32,
    pub sk_protocol: u32,
    pub sk_err: u32,
    /// `inet_sock.inet_sport` (network order), which outlives `skc_num`.
    pub inet_sport: u32,
    pub tcp_linger2: u32,
    pub net_inum: u32,
    pub tw_timer: u32,
    pub tw_substate: u32,
    pub rsk_timer: u32,
    pub timer_expires: u32,
    pub timer_function: u32,
    pub timer_flags: u32,
    pub task_flags: u32,
    pub task_group_leader: u32,
    pub task_comm: u32,
    /// To a task's number in one PID namespace: `task_struct.thread_pid`,
    /// `pid.level`, `pid.numbers`, each of which is a `upid`.
    pub task_pid: u32,
    pub pid_level: u32,
    pub pid_numbers: u32,
    pub upid_nr: u32,
    /// Its last member.
    pub upid_ns: u32,
    pub pid_ns_inum: u32,
    /// 0 where this kernel has none, before 5.7.
    pub net_cookie: u32,
    pub tw_timer_handler: u64,
    pub reqsk_timer_handler: u64,
}

/// A stretch of kernel code and what it means to find it on the stack of a
/// `timer_cancel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Caller {
    pub start: u64,
    pub length: u32,
    /// A [`crate::wire::Reason`], or [`MEANS_REARM`].
    pub meaning: u32,
}

/// The timer goes on: `mod_timer`, or its CPU goes away.
pub const MEANS_REARM: u32 = 255;

/// Room for callers, suffixed copies (`.part.0`, `.cold`, `.llvm.N`) included.
pub const CALLERS: usize = 32;

/// Frames of a stack that are compared with the callers. The one that decides is the
/// fourth on the kernels that were looked at, and the fifth beside other tracers.
pub const FRAMES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Callers {
    pub table: [Caller; CALLERS],
}

/// Room for the ports and the prefixes of one end that a user wants to see; who
/// wants more has them judged in userspace alone.
pub const PORTS: usize = 8;
pub const PREFIXES: usize = 4;

/// Addresses that begin alike: sixteen bytes in network order, those of IPv4 as
/// IPv6 writes them, `::ffff:10.0.0.9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Prefix {
    pub bits: [u64; 2],
    pub mask: [u64; 2],
}

/// What one end of a connection has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct End {
    pub prefixes: [Prefix; PREFIXES],
    pub ports: [u16; PORTS],
    /// How many of them count; 0: any will do.
    pub prefix_count: u32,
    pub port_count: u32,
}

impl End {
    pub const ANY: End = End {
        prefixes: [Prefix {
            bits: [0; 2],
            mask: [0; 2],
        }; PREFIXES],
        ports: [0; PORTS],
        prefix_count: 0,
        port_count: 0,
    };
}

/// What is to be seen, decided before loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Options {
    /// Cookie of the one network namespace to see, which no other ever has; 0:
    /// not known, its inode has to do.
    pub netns_cookie: u64,
    /// Inode of the one network namespace to see; 0: all.
    pub netns: u32,
    /// Address family of the sockets to see (2, 10); 0: both.
    pub family: u32,
    /// 1: every step carries its addresses, because a filter judges by them.
    pub tell_all: u32,
    /// Inode of the PID namespace by whose numbers processes are to be told; 0: the
    /// machine's own.
    pub pid_ns: u32,
    /// Bytes waiting in the ring at which, and at each multiple of which, its
    /// reader is woken before its tick; a power of two.
    pub wake_at: u32,
    /// Bytes of records that a CPU sends together, at most
    /// [`crate::wire::BATCH_BYTES`]: a small ring would hold no whole batch.
    pub batch_bytes: u32,
    pub local: End,
    pub remote: End,
}

/// Bit of the CONTROL word: userspace is taking stock, so every step carries
/// its addresses and can be counted even if its socket is in no seed.
pub const CONTROL_TELL_ALL: u32 = 1;

#[cfg(feature = "user")]
mod user {
    use super::{Callers, Layout, Options};
    use crate::wire::{Batch, Losses, Sweep};

    // SAFETY: all are `repr(C)`, made of integers, without padding; any bytes are valid.
    unsafe impl aya::Pod for Layout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Callers {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Options {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Losses {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Batch {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Sweep {}
}
