//! One line of `twtrace events`: what the ledger makes of an event once it
//! knows whose story it belongs to.

use std::time::Duration;

use super::event::{Moment, State, Tuple};

/// Number of a socket's story: full socket and minisocket share it, and no two
/// stories of a run do (kernel addresses are used again, these are not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Which end of the connection this socket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// It connected.
    Client,
    /// It was accepted, or listens.
    Server,
    #[default]
    Unknown,
}

/// A process, as the kernel side named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// 0: the idle task, or a process that has no number in the PID namespace by
    /// whose numbers processes are told.
    pub pid: u32,
    /// `None` where the kernel side did not name it.
    pub comm: Option<[u8; 16]>,
    /// cgroup v2 id.
    pub cgroup: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Happening {
    pub at: Moment,
    pub socket: SocketId,
    pub side: Side,
    /// `None` only for a socket whose addresses were lost.
    pub tuple: Option<Tuple>,
    /// Who opened or closed it, where that is known.
    pub owner: Option<Process>,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// `to` is `TimeWait` or, for an orphan, `FinWait2` where the full socket
    /// went on as a minisocket; it is `Close` only where the story ends there.
    Transition {
        from: State,
        to: State,
        /// `None` where its beginning was not seen.
        in_state: Option<Duration>,
        /// At a step to `Close`.
        reason: Option<CloseReason>,
    },
    MinisocketStart {
        state: State,
        timeout: Duration,
    },
    MinisocketRearm {
        state: State,
    },
    MinisocketEnd {
        state: State,
        /// As in the snapshot's `ended` (`expired`, `reused_by_syn`, …).
        reason: &'static str,
        /// `None` where its birth was not seen.
        lifetime: Option<Duration>,
        /// For a socket whose birth was not seen: since its timer was last armed.
        since_last_arm: Option<Duration>,
        rearmed: u32,
        by: Process,
    },
}

/// Why a full socket went to CLOSED without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// LAST_ACK was acknowledged.
    Passive,
    /// TIME_WAIT was due but `tcp_max_tw_buckets` was reached.
    Overflow,
    /// An RST was received.
    Reset,
    /// This end gave it up: SO_LINGER 0, unread data, `linger2 < 0`, `ss -K`.
    Aborted,
    TimedOut,
    /// Of a connect, as in the snapshot's `connect_failures`.
    PortsExhausted,
    Refused,
    Abandoned,
    Unreachable,
    AddressInUse,
    /// A listener was closed.
    StoppedListening,
    Other,
}

impl CloseReason {
    /// As JSON spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Passive => "passive",
            CloseReason::Overflow => "overflow",
            CloseReason::Reset => "reset",
            CloseReason::Aborted => "aborted",
            CloseReason::TimedOut => "timed_out",
            CloseReason::PortsExhausted => "ports_exhausted",
            CloseReason::Refused => "refused",
            CloseReason::Abandoned => "abandoned",
            CloseReason::Unreachable => "unreachable",
            CloseReason::AddressInUse => "address_in_use",
            CloseReason::StoppedListening => "stopped_listening",
            CloseReason::Other => "other",
        }
    }
}
