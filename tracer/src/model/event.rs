//! What happened, in the terms of TCP and of the kernel's clock.
//!
//! Everything the ledger learns is one of these: a decoded record of the ring
//! buffer, a socket found by a seed, a reading of a sweep, a fact about a
//! namespace, a loss. They are plain values; nothing here knows where they
//! came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub use tracer_common::state::State;
pub use tracer_common::wire::{OUTSIDE, Reason};

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A kernel address, which is given to another object as soon as its own is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

/// Which socket. A full socket and the minisocket it goes on as share their
/// cookie, which no other socket ever has while the machine runs. What was there
/// before the start may have none, and goes by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// 0: none.
    pub cookie: u64,
    /// Of the full socket, or of the minisocket's timer.
    pub address: Address,
}

/// Inode number of a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Netns(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Inet,
    Inet6,
}

/// The two ends of a connection, in one namespace. An IPv4 address that an
/// IPv6 socket talks to is kept as the kernel keeps it, v4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub netns: Netns,
    pub family: Family,
    /// IPv4: the first 4 bytes, the rest zero.
    pub local: [u8; 16],
    pub remote: [u8; 16],
    /// Host order; 0 while it is not known.
    pub local_port: u16,
    pub remote_port: u16,
}

impl Tuple {
    /// Of a listener's child at its first step: it has no addresses yet.
    #[must_use]
    pub fn nameless(netns: Netns, family: Family) -> Tuple {
        Tuple {
            netns,
            family,
            local: [0; 16],
            remote: [0; 16],
            local_port: 0,
            remote_port: 0,
        }
    }

    /// Whether it has no addresses yet.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.local_port == 0 && self.remote_port == 0
    }

    #[must_use]
    pub fn local_addr(&self) -> IpAddr {
        addr(self.family, self.local)
    }

    #[must_use]
    pub fn remote_addr(&self) -> IpAddr {
        addr(self.family, self.remote)
    }
}

fn addr(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::Inet6 => Ipv6Addr::from(bytes).into(),
    }
}

/// A timer as it was armed; jiffies, of which the low 32 bits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arming {
    pub expires: u32,
    /// The timeout asked for: `expires` less the jiffies of that moment.
    pub timeout: u32,
}

/// The kernel's tick: how jiffies and `CLOCK_MONOTONIC` go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    pub hz: u32,
    /// One moment and the jiffies (low 32 bits) that began then.
    pub moment: Moment,
    pub jiffies: u32,
}

/// What can be known of a namespace without watching it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// As `ip netns` calls it, where it has such a name.
    pub name: Option<String>,
    /// `net.ipv4.ip_local_port_range`.
    pub ports: (u16, u16),
    /// `net.ipv4.ip_local_reserved_ports` within that range.
    pub reserved_ports: u32,
    pub max_tw_buckets: u64,
    /// `net.ipv4.tcp_tw_reuse`.
    pub tw_reuse: u8,
    /// `net.ipv4.tcp_tw_reuse_delay` (6.14+); before, one second.
    pub tw_reuse_delay: Duration,
    /// `net.ipv4.tcp_timestamps` is not 0; without them nothing is reused.
    pub timestamps: bool,
}

impl NamespaceFacts {
    /// How many ports a plain `connect()` may choose from.
    #[must_use]
    pub fn usable_ports(&self) -> u64 {
        let (first, last) = self.ports;
        let range = (u64::from(last) + 1).saturating_sub(u64::from(first));
        range.saturating_sub(u64::from(self.reserved_ports))
    }

    /// How old a TIME_WAIT has to be for `connect()` to take its port between
    /// these addresses; `None` where it never does.
    #[must_use]
    pub fn reuse_delay(&self, local: IpAddr, remote: IpAddr) -> Option<Duration> {
        let loopback = || local.to_canonical().is_loopback() || remote.to_canonical().is_loopback();
        let reuses = self.timestamps && (self.tw_reuse == 1 || self.tw_reuse == 2 && loopback());
        reuses.then_some(self.tw_reuse_delay)
    }
}

/// The kernel's own counters of one namespace, for the witnesses. Read between
/// `from` and `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub from: Moment,
    pub to: Moment,
    /// `TcpExt: TW + TWKilled`: births of both kinds of minisocket (6.1+); `None` before.
    pub births: Option<u64>,
    /// `TcpExt: TWRecycled`.
    pub reused_by_connect: u64,
    /// `TcpExt: TCPTimeWaitOverflow`.
    pub overflowed: u64,
    /// `TcpExt: ListenOverflows`: how often an accept queue was full.
    pub listen_overflows: u64,
    /// sockstat `TCP: tw`: minisockets of both kinds.
    pub minisockets: u64,
    /// sockstat and sockstat6 `inuse`: full sockets that are hashed.
    pub full_sockets: u64,
}

/// Losses since the attach, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The ring buffer had no room.
    pub ring: u64,
    /// The kernel skipped a program because it was running on that CPU already.
    pub recursion: u64,
}

impl Lost {
    /// What is lost stays lost. The kernel side keeps several counters to a
    /// number and they are not read at one moment, so that what one of them takes
    /// back of another may be read too early.
    pub(super) fn rise_to(&mut self, read: Lost) {
        self.ring = self.ring.max(read.ring);
        self.recursion = self.recursion.max(read.recursion);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A transition of a full socket.
    Step(Step),
    /// A full socket goes on as a minisocket, which has its cookie.
    Birth {
        minisocket: Identity,
        at: Moment,
        /// `TimeWait` or `FinWait2`.
        substate: State,
        netns: Netns,
        arming: Arming,
        tuple: Option<Tuple>,
    },
    /// A minisocket's timer was armed anew; `substate` is the one it is in now.
    Rearm {
        minisocket: Identity,
        at: Moment,
        substate: State,
        arming: Arming,
        netns: Netns,
    },
    /// A minisocket ended. `expires` is what the timer was last set to, and so
    /// dates arms that no tracepoint saw; `pid` is the process that was current.
    End {
        minisocket: Identity,
        at: Moment,
        substate: State,
        reason: Reason,
        expires: u32,
        netns: Netns,
        pid: u32,
    },
    /// Who a pid is, from here on. Here as in steps and ends one with [`OUTSIDE`] is
    /// no process's number, but stands for one all the same.
    Process {
        pid: u32,
        comm: [u8; 16],
        cgroup: u64,
        kernel_thread: bool,
    },
    /// A socket that a seed found.
    Seed(Seed),
    /// A minisocket read in place: the silent step, seen.
    Reading {
        minisocket: Identity,
        at: Moment,
        substate: State,
        expires: u32,
    },
    /// Half-open requests of a namespace, as its listeners count them now.
    HalfOpen { netns: Netns, now: u64 },
    /// How often the timer of a half-open request ran out since the attach.
    SynAckTimeouts(u64),
    /// What a namespace is like.
    Namespace { netns: Netns, facts: NamespaceFacts },
    /// The kernel's own counters.
    Counters { netns: Netns, counters: Counters },
    /// What has been lost since the attach, cumulative.
    Lost(Lost),
}

/// A transition of a full socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub socket: Identity,
    pub at: Moment,
    pub from: State,
    pub to: State,
    /// The process that was current: the owner only at the steps where
    /// docs/kernel.md says so.
    pub pid: u32,
    /// `sk_err` at a step to `Close`, else 0.
    pub error: u16,
    /// `tcp_sock.linger2` is negative, at a step to `Close`.
    pub linger2_negative: bool,
    /// At a step from `SynSent` to `Close`: it was never among the connections, as
    /// its port was taken, or none was free.
    pub never_hashed: bool,
    /// With the first step, with the one that fixes the port, and with all
    /// while stock is taken. At a step to `Close` its local port may be 0.
    pub tuple: Option<Tuple>,
}

/// A socket that a seed found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    pub socket: Identity,
    pub at: Moment,
    /// `TimeWait` or `FinWait2` for a minisocket.
    pub state: State,
    /// `Some(expires)` for a minisocket.
    pub timer_expires: Option<u32>,
    pub tuple: Tuple,
}
