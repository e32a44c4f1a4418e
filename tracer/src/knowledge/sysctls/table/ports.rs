//! Keys of a client: its local ports, and what goes with its connections.

use super::{SHORT_OF_PORTS, SYN_LOST, always, documented, held, measured, only, reusing, source};
use crate::knowledge::sysctls::metric::{
    CONNECTIONS, ENDED, ENDED_BY_SYN, ENTERED, FAILURES, LATENCY_P50, LATENCY_P99, LIFE, LIFE_P50,
    NO_PORT, REACHES_2MSL, REARMS, STOCK, TIMED_OUT,
};
use crate::knowledge::sysctls::{Bites, Reach, Sysctl, Value, Versions};

pub(super) const IP_LOCAL_PORT_RANGE: Sysctl = Sysctl {
    name: "net.ipv4.ip_local_port_range",
    sets: "the local ports that connect() chooses from",
    values: "first and last port",
    default: Value::Always("32768 60999"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NewConnections,
    can: &[
        held(
            "sysctls::ports_are_counted_per_destination_unless_bound",
            "raise the rate that a client sustains: usable ports / (2MSL + half the timer's slack) for each local address, destination address and destination port",
        ),
        measured(
            "make connect() faster: its search for a port gets long once about half of the range is taken",
        ),
    ],
    cannot: &[
        held(
            "sysctls::ports_are_counted_per_destination_unless_bound",
            "give a program that calls bind() before connect() more than one range for each local address, unless it sets IP_BIND_ADDRESS_NO_PORT",
        ),
        measured("help a server: clients choose their ports"),
    ],
    effects: &[
        only(CONNECTIONS, SHORT_OF_PORTS),
        only(FAILURES, SHORT_OF_PORTS),
        only(LATENCY_P50, SHORT_OF_PORTS),
        only(LATENCY_P99, SHORT_OF_PORTS),
        only(ENTERED, SHORT_OF_PORTS),
        only(STOCK, SHORT_OF_PORTS),
        reusing(LIFE),
        reusing(LIFE_P50),
        reusing(REACHES_2MSL),
        reusing(ENDED),
        reusing(REARMS),
    ],
    primary: &[CONNECTIONS, NO_PORT, LATENCY_P50],
    caution: None,
};

pub(super) const IP_LOCAL_RESERVED_PORTS: Sysctl = Sysctl {
    name: "net.ipv4.ip_local_reserved_ports",
    sets: "the ports of ip_local_port_range that connect() leaves alone",
    values: "ports and ranges, with commas",
    default: Value::Always(""),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NewConnections,
    can: &[documented(
        "keep ports for programs that bind them, at the cost of as many for connect()",
    )],
    cannot: &[documented(
        "keep a program from binding such a port by its number",
    )],
    effects: &[
        only(CONNECTIONS, SHORT_OF_PORTS),
        only(FAILURES, SHORT_OF_PORTS),
        only(LATENCY_P50, SHORT_OF_PORTS),
        only(LATENCY_P99, SHORT_OF_PORTS),
        only(ENTERED, SHORT_OF_PORTS),
        only(STOCK, SHORT_OF_PORTS),
        reusing(LIFE),
        reusing(LIFE_P50),
        reusing(REACHES_2MSL),
        reusing(ENDED),
        reusing(REARMS),
    ],
    primary: &[CONNECTIONS, NO_PORT, LATENCY_P50],
    caution: None,
};

pub(super) const TCP_TIMESTAMPS: Sysctl = Sysctl {
    name: "net.ipv4.tcp_timestamps",
    sets: "whether new connections carry TCP timestamps",
    values: "0 no, 1 yes with a random offset for each connection, 2 yes without",
    default: Value::Always("1"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NewConnections,
    can: &[
        measured(
            "at 0 disable tcp_tw_reuse: 100 ports gave 100 connects, then no free port, as with reuse 0",
        ),
        source(
            "at 0 leave only sequence numbers to tell whether a new SYN may end a TIME_WAIT on the server's side",
        ),
    ],
    cannot: &[source(
        "change how long a TIME_WAIT lives that nobody ends early",
    )],
    effects: &[
        reusing(CONNECTIONS),
        reusing(FAILURES),
        reusing(LATENCY_P50),
        reusing(LATENCY_P99),
        reusing(ENTERED),
        reusing(STOCK),
        always(LIFE),
        always(LIFE_P50),
        always(REACHES_2MSL),
        always(ENDED),
        always(REARMS),
    ],
    primary: &[CONNECTIONS, NO_PORT, ENDED_BY_SYN],
    caution: Some(
        "connections made meanwhile stay without timestamps until they end, so it is not undone by putting it back",
    ),
};

pub(super) const TCP_SYN_RETRIES: Sysctl = Sysctl {
    name: "net.ipv4.tcp_syn_retries",
    sets: "how often connect() sends its SYN again before it gives up",
    values: "a number; 6 gives up after about two minutes",
    default: Value::Always("6"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[documented(
        "make connects to hosts that do not answer fail sooner or later",
    )],
    cannot: &[source("change anything about TIME_WAIT")],
    effects: &[
        only(FAILURES, SYN_LOST),
        only(LATENCY_P99, SYN_LOST),
        only(CONNECTIONS, SYN_LOST),
    ],
    primary: &[CONNECTIONS, TIMED_OUT, LATENCY_P99],
    caution: None,
};
