//! Keys of TIME_WAIT itself: whether there is one, how long, and who may end it.

use super::{SHORT_OF_PORTS, always, documented, held, measured, only, reusing, source};
use crate::knowledge::sysctls::metric::{
    CONNECTIONS, ENDED, ENDED_RESET, ENDED_REUSED, ENTERED, FAILURES, LATENCY_P50, LATENCY_P99,
    LIFE, LIFE_P50, NO_PORT, PER_CLOSE, REACHES_2MSL, REARMS, STOCK,
};
use crate::knowledge::sysctls::{Bites, Reach, Sysctl, Value, Versions};

pub(super) const TCP_TW_REUSE: Sysctl = Sysctl {
    name: "net.ipv4.tcp_tw_reuse",
    sets: "whether connect() may take over a local port that a TIME_WAIT still holds",
    values: "0 never, 1 always, 2 only where an end is on loopback",
    default: Value::Always("2"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[
        held(
            "ends::reused_by_connect",
            "let a client go on where every port towards a destination is in TIME_WAIT: the port serves again once its TIME_WAIT is as old as tcp_tw_reuse_delay",
        ),
        measured(
            "let a client go on at usable ports / delay connects a second: 100 ports gave 100 a second at a delay of 1,000 ms, 20 at 5,000, about 1,000 at 100, where reuse 0 gave 100 connects and then no free port",
        ),
    ],
    cannot: &[
        measured(
            "lower the stock of TIME_WAITs where ports are not short: the kernel takes a free port first",
        ),
        measured(
            "help a server whose end closes first: its TIME_WAITs take no port (60,465 connects in a row without reuse)",
        ),
        measured(
            "do anything without tcp_timestamps: the kernel tells old segments from new by them",
        ),
        measured("do anything at 2 for connections that leave the machine"),
        held(
            "ends::reused_by_bound_connect",
            "keep a connect() whose port the program chose itself from taking a TIME_WAIT over: that ignores this key and the delay",
        ),
    ],
    effects: &[
        always(CONNECTIONS),
        always(FAILURES),
        always(LATENCY_P50),
        always(LATENCY_P99),
        always(ENTERED),
        always(STOCK),
        always(LIFE),
        always(LIFE_P50),
        always(REACHES_2MSL),
        always(ENDED),
        always(REARMS),
    ],
    primary: &[CONNECTIONS, NO_PORT, ENDED_REUSED],
    caution: None,
};

pub(super) const TCP_TW_REUSE_DELAY: Sysctl = Sysctl {
    name: "net.ipv4.tcp_tw_reuse_delay",
    sets: "how old a TIME_WAIT has to be for connect() to take its port over",
    values: "milliseconds, 1 to 60000",
    default: Value::Always("1000"),
    versions: Versions::Since((6, 14)),
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[measured(
        "set the rate that a client sustains towards one destination with reuse: usable ports / delay",
    )],
    cannot: &[
        measured("do anything where tcp_tw_reuse does nothing"),
        held(
            "sysctls::values_that_are_refused",
            "be 0 or more than 60000: such values are refused",
        ),
        documented("be changed before Linux 6.14, where the delay is a second"),
    ],
    effects: &[
        reusing(CONNECTIONS),
        reusing(FAILURES),
        reusing(LATENCY_P50),
        reusing(LATENCY_P99),
        reusing(ENTERED),
        reusing(STOCK),
        reusing(LIFE),
        reusing(LIFE_P50),
        reusing(REACHES_2MSL),
        reusing(ENDED),
        reusing(REARMS),
    ],
    primary: &[CONNECTIONS, NO_PORT, ENDED_REUSED],
    caution: None,
};

pub(super) const TCP_TW_RECYCLE: Sysctl = Sysctl {
    name: "net.ipv4.tcp_tw_recycle",
    sets: "nothing any more; it once ended TIME_WAITs after a few round trips and refused clients behind NAT",
    values: "none",
    default: Value::None,
    versions: Versions::Until((4, 11)),
    reach: Reach::Namespace,
    bites: Bites::Never,
    can: &[],
    cannot: &[held(
        "sysctls::what_is_gone_stops_no_other_line",
        "be set: the key does not exist, so `sysctl -p` reports an error for its line, and applies the others",
    )],
    effects: &[],
    primary: &[STOCK, LIFE, CONNECTIONS],
    caution: None,
};

pub(super) const TCP_TW_TIMEOUT: Sysctl = Sysctl {
    name: "net.ipv4.tcp_tw_timeout",
    sets: "how long a TIME_WAIT lives, on kernels of some vendors",
    values: "as the vendor says",
    default: Value::None,
    versions: Versions::Vendor,
    reach: Reach::Namespace,
    bites: Bites::NextWait,
    can: &[documented(
        "change 2MSL where the kernel has it; twtrace measures what the kernel really asks for",
    )],
    cannot: &[held(
        "sysctls::what_is_gone",
        "be set on mainline Linux, where 2MSL is 60 s, compiled in",
    )],
    effects: &[
        always(LIFE),
        always(LIFE_P50),
        always(REACHES_2MSL),
        always(ENDED),
        always(STOCK),
        always(REARMS),
        only(CONNECTIONS, SHORT_OF_PORTS),
        only(FAILURES, SHORT_OF_PORTS),
        only(LATENCY_P50, SHORT_OF_PORTS),
        only(LATENCY_P99, SHORT_OF_PORTS),
        only(ENTERED, SHORT_OF_PORTS),
    ],
    primary: &[LIFE, STOCK, CONNECTIONS],
    caution: Some("it is a vendor's, and was not studied"),
};

pub(super) const TCP_MAX_TW_BUCKETS: Sysctl = Sysctl {
    name: "net.ipv4.tcp_max_tw_buckets",
    sets: "how many minisockets (TIME_WAITs and orphans in FIN_WAIT2) there may be",
    values: "a number; 0 allows none",
    default: Value::Sized(
        "half of the buckets of the kernel's table of connections (tcp_ehash_entries)",
    ),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[held(
        "ends::overflow",
        "lower the stock, by having connections skip TIME_WAIT once it is reached, counted as TCPTimeWaitOverflow: at 10, 30 closes left 10 live and 20 overflowed",
    )],
    cannot: &[
        measured("end a TIME_WAIT that there is, or change how long one lives"),
        source(
            "be lowered without harm: a connection that skips TIME_WAIT does not answer when the peer's FIN comes again, and an old segment can meet a new connection of the same ports",
        ),
    ],
    effects: &[
        always(STOCK),
        always(ENTERED),
        always(PER_CLOSE),
        only(CONNECTIONS, SHORT_OF_PORTS),
        only(FAILURES, SHORT_OF_PORTS),
        only(LATENCY_P50, SHORT_OF_PORTS),
        only(LATENCY_P99, SHORT_OF_PORTS),
    ],
    primary: &[STOCK, PER_CLOSE, LIFE],
    caution: Some(
        "below the stock it makes connections skip TIME_WAIT, which is there to protect the next ones",
    ),
};

pub(super) const TCP_RFC1337: Sysctl = Sysctl {
    name: "net.ipv4.tcp_rfc1337",
    sets: "whether a TIME_WAIT ignores an RST",
    values: "0 an RST ends it, 1 it does not",
    default: Value::Always("0"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[held(
        "sysctls::rfc1337_lets_no_reset_end_a_time_wait",
        "keep TIME_WAITs that an RST would end, so that they live longer and there are more of them",
    )],
    cannot: &[
        source("make an RST end fewer orphans in FIN_WAIT2: it is read in TIME_WAIT only"),
        source("make anything shorter"),
    ],
    effects: &[
        always(ENDED),
        always(LIFE),
        always(LIFE_P50),
        always(REACHES_2MSL),
        always(STOCK),
        always(REARMS),
        only(CONNECTIONS, SHORT_OF_PORTS),
        only(FAILURES, SHORT_OF_PORTS),
        only(LATENCY_P50, SHORT_OF_PORTS),
        only(LATENCY_P99, SHORT_OF_PORTS),
    ],
    primary: &[ENDED_RESET, LIFE, STOCK],
    caution: None,
};
