//! The records of the ring buffer and of the seed, byte for byte.
//!
//! Every record is `#[repr(C)]`, without padding, a multiple of 8 bytes, and of
//! one fixed size for its kind. Records travel in batches: one entry of the ring
//! holds those of one CPU in a row. A record's first 24 bytes are a [`Head`],
//! whose kind says how long it is ([`length`]). Addresses of connections travel
//! once per socket ([`Step`] against [`FullStep`]): that is what keeps ten
//! transitions per connection cheap.

use crate::state::State;

/// Kinds of records ([`Head::kind`]).
pub mod kind {
    pub const STEP: u8 = 1;
    pub const FULL_STEP: u8 = 2;
    pub const BIRTH: u8 = 3;
    pub const FULL_BIRTH: u8 = 4;
    pub const REARM: u8 = 5;
    pub const END: u8 = 6;
    pub const PROCESS: u8 = 7;
    pub const CHILD: u8 = 8;
}

/// Bytes of a record of this kind; `None` for a kind that there is not.
#[must_use]
pub const fn length(of_kind: u8) -> Option<usize> {
    Some(match of_kind {
        kind::STEP => size_of::<Step>(),
        kind::FULL_STEP => size_of::<FullStep>(),
        kind::BIRTH => size_of::<Birth>(),
        kind::FULL_BIRTH => size_of::<FullBirth>(),
        kind::REARM => size_of::<Rearm>(),
        kind::END => size_of::<End>(),
        kind::PROCESS => size_of::<Process>(),
        kind::CHILD => size_of::<Child>(),
        _ => return None,
    })
}

/// Records of one CPU that wait to be sent together. Its length is known to
/// userspace too, which maps the array of them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Batch {
    /// How many bytes are filled, in the lower 32 bits, and by how many records.
    pub filled: u64,
    /// A program is writing here: whoever interrupts it keeps off.
    pub busy: u64,
    pub words: [u64; BATCH_BYTES / 8],
}

/// Room of a batch. One output to the ring for that much is a fiftieth of what
/// an output for each record would cost.
pub const BATCH_BYTES: usize = 4096;

/// What a run of the flush says.
pub mod flush {
    /// The batch was empty, or is in the ring, or is counted as lost.
    pub const DONE: u32 = 1;
    /// A program was writing there: to be tried again.
    pub const BUSY: u32 = 2;
}

/// When and between which states: nanoseconds of `CLOCK_MONOTONIC` in the upper
/// 56 bits (two years of uptime), then `from` and `to`, 4 bits each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Stamp(pub u64);

impl Stamp {
    #[inline(always)]
    #[must_use]
    pub const fn new(time_ns: u64, from: u8, to: u8) -> Self {
        Stamp((time_ns << 8) | (((from & 15) as u64) << 4) | ((to & 15) as u64))
    }

    #[inline(always)]
    #[must_use]
    pub const fn time_ns(self) -> u64 {
        self.0 >> 8
    }

    #[must_use]
    pub const fn from(self) -> Option<State> {
        State::from_kernel((self.0 as u8) >> 4)
    }

    #[must_use]
    pub const fn to(self) -> Option<State> {
        State::from_kernel((self.0 as u8) & 15)
    }
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// The socket's cookie, which a minisocket shares with the full socket that it
    /// was; 0 for a minisocket from before the start that has none, and for a
    /// [`Child`]. PROCESS: the cgroup id.
    pub cookie: u64,
    pub stamp: Stamp,
    /// Thread group id of the current process, where the kind does not say otherwise;
    /// with [`OUTSIDE`] where it is not the number by which it is to be told.
    pub pid: u32,
    pub kind: u8,
    /// END: [`Reason`]. Steps and births: the address family (2, 10).
    pub detail: u8,
    /// Steps to CLOSE: `sk_err`, [`LINGER2_NEGATIVE`] and [`NEVER_HASHED`].
    pub error: u16,
}

/// Set in [`Head::pid`] where the process has no number in the PID namespace by whose
/// numbers processes are told. The other bits tell it from others, no more.
pub const OUTSIDE: u32 = 1 << 31;

/// Set in [`Head::error`] when `tcp_sock.linger2` is negative: the socket was
/// told not to wait in FIN_WAIT2, so its step to CLOSE is its owner's wish.
pub const LINGER2_NEGATIVE: u16 = 1 << 15;

/// Set in [`Head::error`] when a socket in SYN_SENT was never among the connections:
/// no SYN was sent, because no port was free, or the one that it had was taken.
pub const NEVER_HASHED: u16 = 1 << 14;

/// Ports are in host order.
/// An address is its 16 bytes as they lie in memory
/// (two words, because BPF stores no unaligned ones); IPv4 is the first 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Tuple {
    pub local: [u64; 2],
    pub remote: [u64; 2],
    pub netns: u32,
    pub local_port: u16,
    pub remote_port: u16,
}

/// A transition of a full socket whose addresses are known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    pub head: Head,
    /// Kernel address of the `struct sock`, for those that were known by it before
    /// they had a cookie.
    pub address: u64,
}

/// LISTEN -> SYN_RECV, the first step of a listener's child. It has no
/// addresses yet, and no cookie that could be read: kernels up to 6.12 show the
/// listener's. The process that is current has no part in it: `head.pid` is the
/// inode of its network namespace instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Child {
    pub head: Head,
    /// As [`Step::address`].
    pub address: u64,
}

/// A transition with its addresses: the first of a socket, the one that fixes
/// the port, and all while userspace takes stock ([`crate::layout::CONTROL_TELL_ALL`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FullStep {
    pub step: Step,
    pub tuple: Tuple,
}

/// A minisocket's timer, in jiffies of which the low 32 bits travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Arming {
    /// `timer_list.expires`.
    pub expires: u32,
    /// `expires` less the jiffies of that moment: the timeout asked for.
    pub timeout: u32,
}

/// A full socket goes on as a minisocket. Both substates of `head.stamp` are the
/// one it goes on in; `head.pid` is the inode of its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Birth {
    pub head: Head,
    /// Kernel address of the minisocket's `timer_list`.
    pub timer: u64,
    pub arming: Arming,
}

/// A birth with its addresses: while userspace takes stock, and where there is
/// no cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FullBirth {
    pub birth: Birth,
    pub tuple: Tuple,
}

/// A minisocket's timer was armed anew. `stamp.to` is its substate, `head.pid`
/// the inode of its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rearm {
    pub head: Head,
    pub timer: u64,
    pub arming: Arming,
}

/// A minisocket's end; `head.detail` is its [`Reason`], `stamp.to` the substate
/// it ended in, `head.pid` the process that was current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct End {
    pub head: Head,
    pub timer: u64,
    pub expires: u32,
    pub netns: u32,
}

/// Who a pid is: sent before the first record of that process on a CPU that
/// names it. `head.cookie` is the cgroup id, `head.detail` 1 for a kernel thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    pub head: Head,
    /// As it lies in memory.
    pub comm: [u64; 2],
}

/// Why a minisocket ended. The numbers travel in [`Head::detail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Nothing we know was on the stack.
    Unknown = 0,
    /// The timer ran out.
    Expired = 1,
    /// `connect()` on an ephemeral port took the tuple over (`tcp_tw_reuse`).
    ReusedByConnect = 2,
    /// `connect()` on a port its caller had bound took the tuple over.
    ReusedByBoundConnect = 3,
    /// A segment that reached `tcp_v4_rcv`/`tcp_v6_rcv` ended it: in TIME_WAIT a
    /// SYN was accepted for the tuple, in FIN_WAIT2 data or a SYN was answered with RST.
    Received = 4,
    /// An RST was received.
    Reset = 5,
    /// `ss -K`.
    Destroyed = 6,
    /// Its network namespace ended.
    NetnsExit = 7,
    /// A SYN redirected by TPROXY.
    Tproxy = 8,
}

impl Reason {
    pub const ALL: [Reason; 9] = [
        Reason::Unknown,
        Reason::Expired,
        Reason::ReusedByConnect,
        Reason::ReusedByBoundConnect,
        Reason::Received,
        Reason::Reset,
        Reason::Destroyed,
        Reason::NetnsExit,
        Reason::Tproxy,
    ];

    #[must_use]
    pub const fn from_wire(n: u8) -> Option<Reason> {
        match n {
            0..=8 => Some(Self::ALL[n as usize]),
            _ => None,
        }
    }
}

/// One socket of a namespace, as `iter/tcp` found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seed {
    /// 0 where nobody has asked for it.
    pub cookie: u64,
    /// Of the `sock_common`; a minisocket's timer is at a fixed distance.
    pub address: u64,
    pub time_ns: u64,
    /// Jiffies at that moment, low 32 bits.
    pub jiffies: u32,
    /// Minisockets only, as [`Arming::expires`].
    pub expires: u32,
    pub state: u8,
    /// Minisockets only.
    pub substate: u8,
    pub family: u8,
    pub unused: u8,
    pub unused2: u32,
    pub tuple: Tuple,
}

/// What a sweep asks and what it is told, for one minisocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Reading {
    /// In: the address of the timer.
    pub timer: u64,
    /// Out: the cookie of the minisocket around it.
    pub cookie: u64,
    /// Out: its `expires`.
    pub expires: u32,
    /// Out: 0 where it is no minisocket's timer any more, else the substate.
    pub substate: u32,
}

/// Minisockets read by one run of the sweep. A loop of 4096 overruns the
/// verifier's log on older kernels.
pub const SWEEP_BATCH: usize = 512;

/// The sweep's one map value: both clocks of that moment, then the batch.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sweep {
    pub time_ns: u64,
    pub jiffies: u64,
    pub readings: [Reading; SWEEP_BATCH],
}

/// What could not be delivered, per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Losses {
    /// Records for which the ring had no room.
    pub ring: u64,
    /// Expiries of half-open requests: the SYN-ACK is sent again, or the request
    /// given up.
    pub syn_ack_timeouts: u64,
    /// Events that the second program handled because the first was busy.
    pub rescued: u64,
}
