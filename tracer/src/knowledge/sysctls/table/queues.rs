//! Keys of a server: the queues in front of its accept().

use super::{FULL_QUEUE, documented, held, only, source};
use crate::knowledge::sysctls::metric::{
    CONNECTIONS, FAILURES, LATENCY_P50, LATENCY_P99, LIFE, REFUSED, STOCK, TIMED_OUT,
};
use crate::knowledge::sysctls::{Bites, Reach, Sysctl, Value, Versions};

pub(super) const TCP_SYNCOOKIES: Sysctl = Sysctl {
    name: "net.ipv4.tcp_syncookies",
    sets: "whether a listener whose queue of half-open connections is full answers SYNs with cookies",
    values: "0 never, 1 when the queue is full, 2 always",
    default: Value::Always("1"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[
        source("let clients in while the queue is full"),
        documented(
            "at 2 leave nothing to count in SYN_RECV: a cookie keeps no half-open connection",
        ),
    ],
    cannot: &[held(
        "sysctls::syncookies_have_no_part_in_time_wait",
        "change anything about TIME_WAIT: neither how many there are nor how long they live",
    )],
    effects: &[
        only(CONNECTIONS, FULL_QUEUE),
        only(FAILURES, FULL_QUEUE),
        only(LATENCY_P99, FULL_QUEUE),
        only(LATENCY_P50, FULL_QUEUE),
    ],
    primary: &[STOCK, LIFE, CONNECTIONS],
    caution: None,
};

pub(super) const TCP_MAX_SYN_BACKLOG: Sysctl = Sysctl {
    name: "net.ipv4.tcp_max_syn_backlog",
    sets: "how many half-open connections a listener keeps where tcp_syncookies is 0",
    values: "a number; its last quarter is for clients known from before",
    default: Value::Sized("the table of connections / 128, at least 128"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[source(
        "with tcp_syncookies=0 have SYNs dropped sooner or later",
    )],
    cannot: &[
        source(
            "do anything while tcp_syncookies is 1 or 2: the backlog of listen() is the limit then",
        ),
        source("change anything about TIME_WAIT"),
    ],
    effects: &[
        only(
            CONNECTIONS,
            "where tcp_syncookies is 0 and the queue is full",
        ),
        only(FAILURES, "where tcp_syncookies is 0 and the queue is full"),
        only(
            LATENCY_P99,
            "where tcp_syncookies is 0 and the queue is full",
        ),
        only(
            LATENCY_P50,
            "where tcp_syncookies is 0 and the queue is full",
        ),
    ],
    primary: &[CONNECTIONS, TIMED_OUT, LATENCY_P99],
    caution: None,
};

pub(super) const SOMAXCONN: Sysctl = Sysctl {
    name: "net.core.somaxconn",
    sets: "the longest queue of accepted and half-open connections that listen() may ask for",
    values: "a number",
    default: Value::Always("4096"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NextListen,
    can: &[source(
        "let a listener ride out a longer burst, if its program asks for so much",
    )],
    cannot: &[
        held(
            "sysctls::somaxconn_waits_for_listen",
            "change a listener there is: only its next listen() reads it",
        ),
        source("change anything about TIME_WAIT"),
    ],
    effects: &[
        only(CONNECTIONS, FULL_QUEUE),
        only(FAILURES, FULL_QUEUE),
        only(LATENCY_P99, FULL_QUEUE),
        only(LATENCY_P50, FULL_QUEUE),
    ],
    primary: &[CONNECTIONS, TIMED_OUT, LATENCY_P99],
    caution: None,
};

pub(super) const TCP_ABORT_ON_OVERFLOW: Sysctl = Sysctl {
    name: "net.ipv4.tcp_abort_on_overflow",
    sets: "whether a client whose connection finds the accept queue full gets an RST",
    values: "0 its last ACK is dropped and it tries again, 1 RST",
    default: Value::Always("0"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[documented(
        "turn a wait into a failure where a program does not accept fast enough",
    )],
    cannot: &[source("change anything about TIME_WAIT")],
    effects: &[
        only(CONNECTIONS, FULL_QUEUE),
        only(FAILURES, FULL_QUEUE),
        only(LATENCY_P99, FULL_QUEUE),
        only(LATENCY_P50, FULL_QUEUE),
    ],
    primary: &[CONNECTIONS, REFUSED, LATENCY_P99],
    caution: None,
};

pub(super) const TCP_SYNACK_RETRIES: Sysctl = Sysctl {
    name: "net.ipv4.tcp_synack_retries",
    sets: "how often a SYN-ACK is sent again before a half-open connection is given up",
    values: "a number",
    default: Value::Always("5"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[documented(
        "end sooner the half-open connections in SYN_RECV whose client is gone",
    )],
    cannot: &[source("change anything about TIME_WAIT")],
    effects: &[only(CONNECTIONS, FULL_QUEUE), only(FAILURES, FULL_QUEUE)],
    primary: &[CONNECTIONS, TIMED_OUT, LATENCY_P99],
    caution: None,
};
