//! The table itself: the states in the order in which `live` shows them.

use tracer_common::state::State;

use super::{End, Meaning};

pub const ALL: &[Meaning] = &[
    Meaning {
        state: State::Established,
        ss: "ESTAB",
        also: &["established"],
        means: "The connection stands, and both ends may send.",
        waits: "For the programs at its ends, without limit: an idle connection stays until \
                somebody closes, resets or, with SO_KEEPALIVE, finds the other gone.",
        ends: &[
            end(
                "FIN_WAIT1",
                "this end closes first: close() or shutdown(), or its process ends",
            ),
            end("CLOSE_WAIT", "the other end's FIN arrives first"),
            end("reset", "an RST arrives"),
            end(
                "timed_out",
                "what was sent is not acknowledged (tcp_retries2), or keepalive finds no answer",
            ),
            end(
                "aborted",
                "this end resets it: SO_LINGER 0, data left unread at close(), or `ss -K`",
            ),
        ],
        hurts: "They cost memory and, on the client's side, a local port each.",
        keys: &["tcp_keepalive_time"],
    },
    Meaning {
        state: State::SynSent,
        ss: "SYN-SENT",
        also: &[],
        means: "connect() has sent a SYN.",
        waits: "For the other host's SYN-ACK; the SYN is sent again, at growing distances, \
                tcp_syn_retries times.",
        ends: &[
            end("ESTABLISHED", "the SYN-ACK arrives"),
            end("refused", "an RST arrives: nobody listens there"),
            end("timed_out", "nobody answered the last SYN"),
            end("unreachable", "a router says that there is no way"),
            end(
                "ports_exhausted",
                "there was no free local port, so no SYN was sent (EADDRNOTAVAIL)",
            ),
            end("abandoned", "the program gave up first"),
            end("SYN_RECV", "both ends connected to each other at once"),
        ],
        hurts: "Many that stay: the other host, or something on the way, drops SYNs.",
        keys: &["tcp_syn_retries", "ip_local_port_range", "tcp_tw_reuse"],
    },
    Meaning {
        state: State::SynRecv,
        ss: "SYN-RECV",
        also: &["SYN_RCVD", "SYN-RECEIVED", "NEW_SYN_RECV"],
        means: "A SYN has arrived at a listener and a SYN-ACK was sent: the connection is half \
                open. The kernel keeps it as a small request, not as a socket.",
        waits: "For the client's ACK; the SYN-ACK is sent again tcp_synack_retries times.",
        ends: &[
            end("ESTABLISHED", "the ACK arrives"),
            end("CLOSED", "the client resets it, or never answers"),
        ],
        hurts: "Many that stay: a flood of SYNs, or clients that cannot be reached. With SYN \
                cookies there is no request, and nothing to count.",
        keys: &[
            "tcp_synack_retries",
            "tcp_syncookies",
            "tcp_max_syn_backlog",
            "somaxconn",
            "tcp_abort_on_overflow",
        ],
    },
    Meaning {
        state: State::FinWait1,
        ss: "FIN-WAIT-1",
        also: &[],
        means: "This end closed first and has sent its FIN, behind whatever data was still to be \
                sent.",
        waits: "For the other host's kernel to acknowledge the FIN. Once the program is gone, it \
                is sent again tcp_orphan_retries times.",
        ends: &[
            end("FIN_WAIT2", "the FIN is acknowledged"),
            end("CLOSING", "the other end's FIN arrives before that"),
            end(
                "timed_out",
                "nobody acknowledges: the other host or the way to it is gone",
            ),
            end("reset", "an RST arrives"),
        ],
        hurts: "Many that stay: the other hosts are gone, or do not read what was sent.",
        keys: &["tcp_orphan_retries", "tcp_max_orphans"],
    },
    Meaning {
        state: State::FinWait2,
        ss: "FIN-WAIT-2",
        also: &[],
        means: "This end closed first, and the other host has acknowledged the FIN. There the \
                connection is in CLOSE_WAIT.",
        waits: "For the program at the other end to close. While a program here still holds the \
                socket, having only shut it down, without limit. Once nobody does it is an orphan, \
                kept as a minisocket, and waits tcp_fin_timeout.",
        ends: &[
            end("TIME_WAIT", "the other end's FIN arrives"),
            end("expired", "an orphan's time is over: it skips TIME_WAIT"),
            end(
                "data_after_close",
                "an orphan is sent data, or a SYN, and answers with RST",
            ),
            end("reset", "an RST arrives"),
            end(
                "reused_by_bound_connect",
                "connect() takes the orphan's port, which the program chose itself",
            ),
            end("reused_by_connect", "connect() takes its port (Linux 5.10)"),
            end("tproxy", "a SYN comes through TPROXY"),
            end("destroyed", "`ss -K`"),
            end("netns_exit", "its network namespace ends"),
            end(
                "overflow",
                "the FIN arrives where tcp_max_tw_buckets is reached",
            ),
        ],
        hurts: "Many that stay: the other program does not close its connections. Look for \
                CLOSE_WAIT there.",
        keys: &["tcp_fin_timeout", "tcp_max_tw_buckets", "tcp_max_orphans"],
    },
    Meaning {
        state: State::TimeWait,
        ss: "TIME-WAIT",
        also: &[],
        means: "This end closed first, and both FINs have been acknowledged: the connection is \
                over. What is left is a minisocket, which remembers its addresses, its ports and \
                the last sequence numbers.",
        waits: "For nobody, only for time: 2MSL, which is 60 s in Linux and no sysctl's to change. \
                Should the last ACK be lost, the other end's FIN comes again and is answered; and \
                segments that are late die out before the same ports are used again.",
        ends: &[
            end("expired", "its time is over"),
            end(
                "reused_by_connect",
                "connect() takes its port where tcp_tw_reuse allows",
            ),
            end(
                "reused_by_bound_connect",
                "connect() takes its port, which the program chose itself: no sysctl is asked",
            ),
            end(
                "reused_by_syn",
                "the client opens the same connection anew, with a newer timestamp or sequence number",
            ),
            end(
                "reset",
                "an RST arrives, often from a peer that knows nothing of the connection any more; not where tcp_rfc1337 is 1",
            ),
            end("tproxy", "a SYN comes through TPROXY"),
            end("destroyed", "`ss -K`"),
            end("netns_exit", "its network namespace ends"),
        ],
        hurts: "On the client's side only, where they hold most of the local ports towards one \
                destination: then connect() slows down, and in the end fails. On the server's side \
                they hold no port, and cost some hundred bytes each.",
        keys: &[
            "tcp_tw_reuse",
            "tcp_tw_reuse_delay",
            "ip_local_port_range",
            "tcp_timestamps",
            "tcp_max_tw_buckets",
            "tcp_rfc1337",
        ],
    },
    Meaning {
        state: State::CloseWait,
        ss: "CLOSE-WAIT",
        also: &[],
        means: "The other end closed first, and this host's kernel has acknowledged its FIN.",
        waits: "For the program here to close(). The kernel waits without limit: no sysctl ends it.",
        ends: &[
            end("LAST_ACK", "the program closes"),
            end(
                "reset",
                "an RST arrives, as it does once the other end is gone and this one still sends",
            ),
            end(
                "aborted",
                "the program closes with data unread, or with SO_LINGER 0",
            ),
        ],
        hurts: "Many that stay are a fault of the program here: it does not close what its peers \
                have closed, and runs out of file descriptors.",
        keys: &["tcp_keepalive_time"],
    },
    Meaning {
        state: State::LastAck,
        ss: "LAST-ACK",
        also: &[],
        means: "The other end closed first, then this one: its FIN is sent.",
        waits: "For the other host's kernel to acknowledge the FIN, which is sent again \
                tcp_orphan_retries times.",
        ends: &[
            end(
                "passive",
                "the FIN is acknowledged: the end of the side that closed second, without any TIME_WAIT",
            ),
            end("timed_out", "nobody acknowledges"),
            end("reset", "an RST arrives"),
        ],
        hurts: "Many that stay: the other hosts are gone.",
        keys: &["tcp_orphan_retries", "tcp_max_orphans"],
    },
    Meaning {
        state: State::Listen,
        ss: "LISTEN",
        also: &["LISTENING"],
        means: "A program has called listen().",
        waits: "For clients. Connections wait in its queue for accept(), at most as many as \
                listen() asked for and somaxconn allows.",
        ends: &[end("stopped_listening", "the program closes it")],
        hurts: "Never by itself. A full queue shows as ListenOverflows in `nstat`.",
        keys: &[
            "somaxconn",
            "tcp_abort_on_overflow",
            "tcp_syncookies",
            "tcp_max_syn_backlog",
        ],
    },
    Meaning {
        state: State::Closing,
        ss: "CLOSING",
        also: &[],
        means: "Both ends closed at once: their FINs crossed on the way.",
        waits: "For the other host's kernel to acknowledge this end's FIN.",
        ends: &[
            end(
                "TIME_WAIT",
                "it is acknowledged, and so both ends come to wait",
            ),
            end("timed_out", "nobody acknowledges"),
            end("reset", "an RST arrives"),
        ],
        hurts: "Rare, and gone within a round trip.",
        keys: &["tcp_orphan_retries"],
    },
    Meaning {
        state: State::Close,
        ss: "UNCONN",
        also: &["CLOSE"],
        means: "No connection: a socket not yet used, or one that is done. The kernel also sets a \
                full socket to CLOSE when it goes on as a minisocket, so what `inet_sock_set_state` \
                reports as FIN_WAIT2 -> CLOSE is the beginning of a TIME_WAIT.",
        waits: "For nobody.",
        ends: &[
            end("SYN_SENT", "the program calls connect()"),
            end("LISTEN", "the program calls listen()"),
        ],
        hurts: "Never; netstat does not list them and twtrace does not count them.",
        keys: &[],
    },
];

const fn end(word: &'static str, when: &'static str) -> End {
    End { word, when }
}
