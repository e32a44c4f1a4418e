//! Keys of the other states in which a closed connection waits.

use super::{
    FIN_LOST, ORPHANS_HOLD_PORTS, PEERS_HOLD_ON, SLOW_PEERS, always, documented, held, measured,
    only, source,
};
use crate::knowledge::sysctls::metric::{
    CONNECTIONS, ENTERED, FAILURES, LATENCY_P50, LATENCY_P99, LIFE, ORPHAN_LIFE, PER_CLOSE, STOCK,
};
use crate::knowledge::sysctls::{Bites, Reach, Sysctl, Value, Versions};

pub(super) const TCP_FIN_TIMEOUT: Sysctl = Sysctl {
    name: "net.ipv4.tcp_fin_timeout",
    sets: "how long an orphan, a connection its program has closed, waits in FIN_WAIT2 for the peer's FIN",
    values: "seconds; 0 and less give 3.5 retransmission timeouts",
    default: Value::Always("60"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NextWait,
    can: &[
        held(
            "sysctls::fin_timeout_sets_the_orphans_wait_and_no_other",
            "end sooner the orphans in FIN_WAIT2 whose peer does not close: 2 / 15 / 60 gave lives of 2.02 / 15.1 / 61.6 s",
        ),
        source("keep TIME_WAITs from being born, where peers take longer to close than it allows"),
        measured(
            "slow some connects down: a port that an orphan gave back meets its peer's CLOSE_WAIT when it is used again, and the connect takes 8 ms and more",
        ),
    ],
    cannot: &[
        held(
            "sysctls::fin_timeout_sets_the_orphans_wait_and_no_other",
            "change how long a TIME_WAIT lives: at 2, 15 and 60 they lived 60.4 to 62.0 s",
        ),
        measured(
            "make orphans wait as long as it says above 60: 61 gave 2.1 s as a minisocket, 75 gave 30.4, 90 gave 60.9",
        ),
        held(
            "sysctls::fin_timeout_sets_the_orphans_wait_and_no_other",
            "shorten a wait that has begun",
        ),
    ],
    effects: &[
        always(ORPHAN_LIFE),
        only(ENTERED, SLOW_PEERS),
        only(PER_CLOSE, SLOW_PEERS),
        only(STOCK, SLOW_PEERS),
        only(CONNECTIONS, ORPHANS_HOLD_PORTS),
        only(FAILURES, ORPHANS_HOLD_PORTS),
        only(LATENCY_P50, ORPHANS_HOLD_PORTS),
        only(LATENCY_P99, PEERS_HOLD_ON),
    ],
    primary: &[ORPHAN_LIFE, LIFE, STOCK],
    caution: None,
};

pub(super) const TCP_ORPHAN_RETRIES: Sysctl = Sysctl {
    name: "net.ipv4.tcp_orphan_retries",
    sets: "how often an orphan's FIN or data is sent again before it is given up",
    values: "a number; 0 means 8, fewer where memory is short",
    default: Value::Always("0"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[source(
        "end sooner the orphans in FIN_WAIT1, LAST_ACK and CLOSING whose peer is gone",
    )],
    cannot: &[source(
        "shorten TIME_WAIT or FIN_WAIT2: both begin when the FIN has been acknowledged",
    )],
    effects: &[
        only(ENTERED, FIN_LOST),
        only(PER_CLOSE, FIN_LOST),
        only(STOCK, FIN_LOST),
    ],
    primary: &[CONNECTIONS, PER_CLOSE, STOCK],
    caution: None,
};

pub(super) const TCP_MAX_ORPHANS: Sysctl = Sysctl {
    name: "net.ipv4.tcp_max_orphans",
    sets: "how many connections without a program the machine keeps as full sockets",
    values: "a number",
    default: Value::Sized("half of the table of connections"),
    versions: Versions::All,
    reach: Reach::Machine,
    bites: Bites::AtOnce,
    can: &[documented(
        "have closed connections reset instead of waiting for their peer, once it is reached",
    )],
    cannot: &[
        source("limit TIME_WAITs: minisockets are no orphans to it"),
        held(
            "sysctls::what_belongs_to_the_machine",
            "be set for a container: no other network namespace has it",
        ),
    ],
    effects: &[
        only(ENTERED, "where it is reached"),
        only(PER_CLOSE, "where it is reached"),
        only(STOCK, "where it is reached"),
        only(ORPHAN_LIFE, "where it is reached"),
    ],
    primary: &[PER_CLOSE, STOCK, CONNECTIONS],
    caution: Some("it is one for the whole machine, and below what there is it resets connections"),
};

pub(super) const TCP_KEEPALIVE_TIME: Sysctl = Sysctl {
    name: "net.ipv4.tcp_keepalive_time",
    sets: "how long a connection with SO_KEEPALIVE is idle before it is probed",
    values: "seconds",
    default: Value::Always("7200"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NextWait,
    can: &[documented(
        "find dead peers of idle connections sooner, with tcp_keepalive_intvl and tcp_keepalive_probes",
    )],
    cannot: &[source(
        "change anything about TIME_WAIT, or about connections whose program did not set SO_KEEPALIVE",
    )],
    effects: &[],
    primary: &[CONNECTIONS, STOCK, LIFE],
    caution: None,
};
