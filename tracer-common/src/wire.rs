//! The records of the ring buffer and of the seed, byte for byte.
//!
//! Every record is `#[repr(C)]`, without padding, a multiple of 8 bytes, and
//! of one fixed size for its kind. Its first 16 bytes are alike: an address
//! and a [`Stamp`]; its kind is the lowest byte of the third word. Addresses
//! of connections travel once per socket ([`Step`] against [`FullStep`]):
//! that is what keeps ten transitions per connection cheap.

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
    /// Kernel address of the `struct sock`, or of the minisocket's `timer_list`.
    pub address: u64,
    pub stamp: Stamp,
    /// Thread group id of the current process, where the kind does not say otherwise;
    /// with [`OUTSIDE`] where it is not the number by which it is to be told.
    pub pid: u32,
    pub kind: u8,
    /// END: [`Reason`]. Steps and births: the address family (2, 10).
    pub detail: u8,
    /// Steps to CLOSE: `sk_err`, and [`LINGER2_NEGATIVE`].
    pub error: u16,
}

/// Set in [`Head::pid`] where the process has no number in the PID namespace by whose
/// numbers processes are told. The other bits tell it from others, no more.
pub const OUTSIDE: u32 = 1 << 31;

/// Set in [`Head::error`] when `tcp_sock.linger2` is negative: the socket was
/// told not to wait in FIN_WAIT2, so its step to CLOSE is its owner's wish.
pub const LINGER2_NEGATIVE: u16 = 1 << 15;

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
}

/// LISTEN -> SYN_RECV, the first step of a listener's child. It has no
/// addresses yet, and the process that is current has no part in it: `head.pid`
/// is the inode of its network namespace instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Child {
    pub head: Head,
}

/// A transition with its addresses: the first of a socket, the one that fixes
/// the port, and all while userspace takes stock ([`crate::layout::CONTROL_TELL_ALL`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FullStep {
    pub head: Head,
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

/// A full socket went on as a minisocket. `head.address` is the full socket's,
/// `stamp.from` the state it left, `stamp.to` the substate it went on in, and
/// `head.pid` the inode of its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Birth {
    pub head: Head,
    /// Kernel address of the minisocket's `timer_list`.
    pub timer: u64,
    pub arming: Arming,
}

/// A birth with its addresses: while userspace takes stock, and where the full
/// socket was not seen to close on the same CPU right after. Then `head.address`
/// is 0, `stamp.from` the substate as well, and the tuple joins the two.
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
    pub arming: Arming,
}

/// A minisocket's end; `head.detail` is its [`Reason`], `stamp.to` the substate
/// it ended in, `head.pid` the process that was current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct End {
    pub head: Head,
    pub expires: u32,
    pub netns: u32,
}

/// Who a pid is: sent before the first record of that process on a CPU that
/// names it. `head.address` is the cgroup id, `head.detail` 1 for a kernel thread.
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

/// Half-open requests of one namespace on one CPU since the attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Requests {
    pub born: u64,
    pub died: u64,
}

/// What could not be delivered, per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Losses {
    /// Records for which the ring had no room.
    pub ring: u64,
    /// Namespaces for which the map of half-open requests had no room.
    pub map: u64,
    /// Events that the second program handled because the first was busy.
    pub rescued: u64,
}
