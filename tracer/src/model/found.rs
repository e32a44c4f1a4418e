//! A socket as a walk over the kernel's tables met it.

use super::event::{Address, Identity, Moment, Netns, Seed, State, Tuple};
use super::happening::Process;

/// What the walk met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the socket, minisocket or request itself.
    pub address: Address,
    /// Which no other socket has while the machine runs; a minisocket has its full
    /// socket's, and a child its request's. 0 until somebody has asked for it.
    pub cookie: u64,
    /// When it was read.
    pub at: Moment,
    /// A minisocket's is `TimeWait` or `FinWait2`.
    pub state: State,
    /// Minisockets and requests.
    pub timer: Option<Timer>,
    pub tuple: Tuple,
    pub netns_cookie: u64,
    pub flags: Flags,
    /// Listeners.
    pub listener: Option<Listener>,
    /// Full sockets that do not listen.
    pub full: Option<Full>,
    /// Requests: the address of their listener.
    pub requested_of: Option<Address>,
}

impl Found {
    /// As the ledger takes it in; `None` for a half-open request, of which only the
    /// listener's count matters.
    #[must_use]
    pub fn seed(&self) -> Option<Seed> {
        if self.state == State::NewSynRecv {
            return None;
        }
        Some(Seed {
            socket: Identity {
                cookie: self.cookie,
                address: self.timer.map_or(self.address, |timer| timer.address),
            },
            at: self.at,
            state: self.state,
            timer_expires: self.timer.map(|timer| timer.expires),
            tuple: self.tuple,
        })
    }

    /// Whether it is a minisocket.
    #[must_use]
    pub fn is_minisocket(&self) -> bool {
        self.timer.is_some() && self.state != State::NewSynRecv
    }
}

/// The timer of a minisocket or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Of its `timer_list`.
    pub address: Address,
    /// In jiffies, low 32 bits.
    pub expires: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The program chose the port with `bind()`. Full sockets only: a minisocket
    /// does not say.
    pub bound_port: bool,
    pub bound_address: bool,
    pub reuseaddr: bool,
    pub reuseport: bool,
    /// Minisockets: the peer sent timestamps, without which no `connect()` takes
    /// its place.
    pub timestamps: bool,
}

/// What a full socket has, unless it listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// No program holds it any more.
    pub orphan: bool,
    /// When a segment was last received: jiffies, low 32 bits.
    pub received: u32,
}

/// A listener's queues, as `ss -l` has them, and its half-open requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    pub half_open: u32,
    /// Connections that wait for `accept()`.
    pub accept_queue: u32,
    pub accept_limit: u32,
    pub drops: u32,
}

/// A local port in the table of bound ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BoundPort {
    pub netns: Netns,
    pub port: u16,
    /// `connect()` alone chose it, so that `connect()` may give it to another socket
    /// with another destination. A port that `bind()` took is nobody else's.
    pub shared: bool,
}

/// A TCP socket among the open files of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    pub socket: Address,
    /// As in [`Found`].
    pub cookie: u64,
    /// Its number may be one with [`super::event::OUTSIDE`], by which the kernel
    /// side's events tell of it too.
    pub process: Process,
}
