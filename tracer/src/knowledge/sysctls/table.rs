//! The table itself: the keys in the order in which they are listed, and the
//! words that several of them share. The entries are in a file for each theme.

mod around;
mod closing;
mod ports;
mod queues;
mod waiting;

use super::{Claim, Effect, Known, Sysctl};

/// Every key that something is known of.
pub const ALL: &[Sysctl] = &[
    waiting::TCP_TW_REUSE,
    waiting::TCP_TW_REUSE_DELAY,
    waiting::TCP_TW_RECYCLE,
    closing::TCP_FIN_TIMEOUT,
    waiting::TCP_MAX_TW_BUCKETS,
    waiting::TCP_RFC1337,
    ports::TCP_TIMESTAMPS,
    ports::IP_LOCAL_PORT_RANGE,
    ports::IP_LOCAL_RESERVED_PORTS,
    queues::TCP_SYNCOOKIES,
    queues::TCP_MAX_SYN_BACKLOG,
    queues::SOMAXCONN,
    queues::TCP_ABORT_ON_OVERFLOW,
    ports::TCP_SYN_RETRIES,
    queues::TCP_SYNACK_RETRIES,
    closing::TCP_ORPHAN_RETRIES,
    closing::TCP_MAX_ORPHANS,
    closing::TCP_KEEPALIVE_TIME,
    around::IP_FORWARD,
    around::NF_CONNTRACK_TCP_TIMEOUT_TIME_WAIT,
    around::TCP_MEM,
    waiting::TCP_TW_TIMEOUT,
];

const SHORT_OF_PORTS: &str = "where a client is short of ports";
const REUSING: &str = "where tcp_tw_reuse takes ports over";
const SLOW_PEERS: &str = "where peers take longer to close than it allows";
const PEERS_HOLD_ON: &str =
    "where a port is used again while the peer of its orphan still waits in CLOSE_WAIT";
const ORPHANS_HOLD_PORTS: &str = "where orphans in FIN_WAIT2 hold a client's last ports";
const FULL_QUEUE: &str = "where a listener's queue is full";
const SYN_LOST: &str = "where SYNs go unanswered";
const FIN_LOST: &str = "where FINs go unanswered";

const fn always(metric: &'static str) -> Effect {
    Effect { metric, only: None }
}

const fn only(metric: &'static str, here: &'static str) -> Effect {
    Effect {
        metric,
        only: Some(here),
    }
}

const fn reusing(metric: &'static str) -> Effect {
    only(metric, REUSING)
}

const fn held(test: &'static str, says: &'static str) -> Claim {
    Claim {
        says,
        known: Known::Held(test),
    }
}

const fn measured(says: &'static str) -> Claim {
    Claim {
        says,
        known: Known::Measured,
    }
}

const fn source(says: &'static str) -> Claim {
    Claim {
        says,
        known: Known::Source,
    }
}

const fn documented(says: &'static str) -> Claim {
    Claim {
        says,
        known: Known::Documented,
    }
}
