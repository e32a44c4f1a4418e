//! Keys of other rooms of the kernel that are taken for keys of TIME_WAIT, or
//! that change more than they say.

use super::{documented, held, only, source};
use crate::knowledge::sysctls::metric::{
    CONNECTIONS, ENTERED, FAILURES, LATENCY_P50, LATENCY_P99, LIFE, PER_CLOSE, STOCK, TIMED_OUT,
};
use crate::knowledge::sysctls::{Bites, Reach, Sysctl, Value, Versions};

pub(super) const IP_FORWARD: Sysctl = Sysctl {
    name: "net.ipv4.ip_forward",
    sets: "whether packets are forwarded between interfaces",
    values: "0 no, 1 yes",
    default: Value::Always("0"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::AtOnce,
    can: &[held(
        "sysctls::ip_forward_is_not_undone_by_putting_it_back",
        "reset other keys: writing it sets the forwarding key of every interface to the same, and conf.all.accept_redirects to the opposite",
    )],
    cannot: &[held(
        "sysctls::ip_forward_is_not_undone_by_putting_it_back",
        "be undone by putting the old value back: an interface that had a value of its own has lost it",
    )],
    effects: &[],
    primary: &[CONNECTIONS, STOCK, LIFE],
    caution: Some("writing it resets other keys, which putting it back does not undo"),
};

pub(super) const NF_CONNTRACK_TCP_TIMEOUT_TIME_WAIT: Sysctl = Sysctl {
    name: "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    sets: "how long connection tracking keeps a closed connection, on a host that filters or translates addresses",
    values: "seconds",
    default: Value::Always("120"),
    versions: Versions::All,
    reach: Reach::Namespace,
    bites: Bites::NextWait,
    can: &[documented(
        "hold an address and port of a translated (SNAT) connection, twice as long as the client's TIME_WAIT",
    )],
    cannot: &[source(
        "change a socket: TIME_WAITs of sockets and those of connection tracking know nothing of each other",
    )],
    effects: &[
        only(CONNECTIONS, "through a host that translates addresses"),
        only(FAILURES, "through a host that translates addresses"),
        only(LATENCY_P99, "through a host that translates addresses"),
    ],
    primary: &[CONNECTIONS, TIMED_OUT, LIFE],
    caution: None,
};

pub(super) const TCP_MEM: Sysctl = Sysctl {
    name: "net.ipv4.tcp_mem",
    sets: "how much memory all TCP sockets together may take before the kernel saves, presses and refuses",
    values: "three numbers of pages",
    default: Value::Sized("from the machine's memory"),
    versions: Versions::All,
    reach: Reach::Machine,
    bites: Bites::AtOnce,
    can: &[documented(
        "have connections reset and segments dropped where it is reached",
    )],
    cannot: &[
        source("limit TIME_WAITs: it counts buffers, and a minisocket has none"),
        held(
            "sysctls::what_belongs_to_the_machine",
            "be set for a container: no other network namespace has it",
        ),
    ],
    effects: &[
        only(CONNECTIONS, "where it is reached"),
        only(FAILURES, "where it is reached"),
        only(LATENCY_P50, "where it is reached"),
        only(LATENCY_P99, "where it is reached"),
        only(PER_CLOSE, "where it is reached"),
        only(ENTERED, "where it is reached"),
        only(STOCK, "where it is reached"),
    ],
    primary: &[CONNECTIONS, STOCK, LATENCY_P99],
    caution: Some("it is one for the whole machine, and too little stops its network"),
};
