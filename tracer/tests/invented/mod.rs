//! Invented values that the renderers' tests share: a busy client that is close
//! to its limit, a quiet server, and the events of one connection.
#![allow(dead_code, reason = "each test file uses some of them")]

use std::collections::BTreeMap;
use std::time::Duration;

use tracer::analysis::findings::{Findings, Judged};
use tracer::model::event::{Family, Moment, Netns, State, Tuple};
use tracer::model::happening::{CloseReason, Happening, Process, Side, SocketId, What};
use tracer::model::snapshot::*;
use tracer::model::stock::{Held, Listening, RemoteNow, Route, Stock};
use tracer::render::live::Snapshots;

fn counts(rows: [(u64, u64, u64); 10]) -> States {
    States(rows.map(|(seeded, entered, left)| Count {
        now: seeded + entered - left,
        seeded,
        entered,
        left,
    }))
}

fn distribution(count: u64, quantiles: [f64; 5], sum: f64) -> Distribution {
    let [min, p50, p90, p99, max] = quantiles;
    Distribution {
        count,
        summary: Some(Summary {
            min,
            p50,
            p90,
            p99,
            max,
            sum,
        }),
    }
}

fn buckets(counts: [u64; 11]) -> Vec<Bucket> {
    let edges = [
        0.0, 0.001, 0.1, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 62.048, 240.0,
    ];
    let ends = edges.iter().skip(1).copied().map(Some).chain([None]);
    edges
        .iter()
        .zip(ends)
        .zip(counts)
        .map(|((&ge, lt), count)| Bucket { ge, lt, count })
        .collect()
}

fn holder() -> Option<Holder> {
    Some(Holder {
        pid: 812,
        comm: "curl".into(),
        cgroup: Some("/system.slice/x.service".into()),
    })
}

/// What a look found: the client's ports, a listener, and a leak that is none yet.
fn stock() -> Stock {
    Stock {
        ago_s: 0.012,
        listeners: vec![Listening {
            netns: 4_026_531_840,
            local: "0.0.0.0".parse().unwrap(),
            port: 22,
            accept_queue: 0,
            accept_limit: 128,
            half_open: 1,
            dropped: 0,
            dropped_ago_s: None,
            dropped_per_s: 0.0,
            states: BTreeMap::from([("ESTABLISHED", 3), ("CLOSE_WAIT", 2)]),
            port_chosen: true,
            in_range: false,
            holder: holder(),
        }],
        time_wait_by_remote: vec![RemoteNow {
            addr: "10.0.0.9".parse().unwrap(),
            now: 27_300,
        }],
        time_wait_ends: vec![27_340],
        held: vec![Held {
            netns: 4_026_531_840,
            state: "CLOSE_WAIT",
            listening_port: Some(22),
            remote: None,
            remote_port: None,
            now: 2,
            oldest_s: 4.5,
            over_10s: 0,
            over_60s: 0,
            peers_in_close_wait: 0,
            holder: holder(),
        }],
        routes: vec![Route {
            netns: 4_026_531_840,
            local: "10.0.0.2".parse().unwrap(),
            remote: "10.0.0.9".parse().unwrap(),
            remote_port: 443,
            usable: 28_232,
            time_wait: 27_300,
            with_timestamps: 27_300,
            close_wait: 0,
            fin_wait2: 0,
            open: 600,
            bound: 0,
            outside: 0,
            privileged: 0,
            free_in_s: Some(0.2),
            reuse: false,
            reuse_set: false,
            timestamps: true,
            holder: holder(),
        }],
        ..Stock::default()
    }
}

/// Shows it as a run's only snapshot.
pub(crate) fn show(sink: &mut dyn Snapshots, snapshot: &Snapshot) {
    let judged = Judged {
        snapshot,
        judgement: &Findings::new().judge(snapshot),
    };
    sink.snapshot(&judged).expect("it takes everything");
}

/// A database client at 72 s: 98.8 % of the ports towards one server are taken.
pub(crate) fn busy() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        seq: 72,
        time: "2026-01-31T12:01:12.25Z".parse().unwrap(),
        elapsed_s: 72.25,
        interval_s: 1.0,
        host: Host {
            name: "db01".into(),
            kernel: "6.18.44".into(),
            boot_id: "5a0b1f9e-3f44-4c9b-9d5a-0e7a8c1f7b11".into(),
            hz: 250,
        },
        version: "0.1.0".into(),
        scope: Scope {
            netns: "all".into(),
            filter: String::new(),
        },
        states: counts([
            (121, 33_012, 33_003),
            (0, 33_010, 33_008),
            (1, 790, 788),
            (0, 32_100, 32_100),
            (3, 32_140, 32_140),
            (4_900, 32_803, 9_803),
            (7, 790, 797),
            (0, 790, 790),
            (14, 0, 0),
            (0, 0, 0),
        ]),
        transitions: vec![
            Transition {
                from: "SYN_SENT",
                to: "ESTABLISHED",
                count: 33_000,
            },
            Transition {
                from: "FIN_WAIT2",
                to: "TIME_WAIT",
                count: 32_803,
            },
        ],
        closes: Closes {
            via_time_wait: 32_803,
            passive: 790,
            straight_to_closed: StraightToClosed {
                overflow: 0,
                reset: 3,
                aborted: 1,
                other: 0,
            },
        },
        connect_failures: ConnectFailures {
            refused: 2,
            timed_out: 1,
            ..ConnectFailures::default()
        },
        last_without_port: None,
        last_reset: None,
        connects: vec![Connects {
            netns: 4_026_531_840,
            local: "10.0.0.2".parse().unwrap(),
            remote: "10.0.0.9".parse().unwrap(),
            remote_port: 443,
            window_s: 7.0,
            established: 3_256,
            late_1s: 1,
            late_3s: 0,
            late_7s: 0,
            failed: ConnectFailures {
                refused: 2,
                ..ConnectFailures::default()
            },
            given_up: 0,
            closed: 3_200,
            mean_life_s: Some(1.25),
            owner: holder(),
            failing: holder(),
        }],
        stock: Some(stock()),
        connect_latency_s: distribution(
            33_000,
            [0.000_041, 0.000_121, 0.000_4, 0.008_2, 1.03],
            9.1,
        ),
        time_wait: TimeWait {
            now: 27_900,
            seeded: 4_900,
            entered: 32_803,
            side: Sides {
                client: 27_342,
                server: 558,
                unknown: 0,
            },
            rearmed: 2,
            overflowed: 0,
            ended: TimeWaitEnds {
                expired: 9_702,
                reused_by_connect: 98,
                reused_by_syn: 2,
                reset: 1,
                ..TimeWaitEnds::default()
            },
            ended_seeded: 4_900,
            lifetime_s: Lifetime {
                distribution: distribution(4_903, [1.0, 61.01, 61.8, 62.03, 63.2], 295_000.0),
                complete_from_s: 72.25,
                buckets: buckets([0, 0, 0, 41, 38, 12, 6, 4, 4_800, 2, 0]),
            },
            lifetime_by_reason_s: BTreeMap::from([
                (
                    "expired",
                    distribution(4_802, [60.004, 61.02, 61.8, 62.03, 63.2], 293_100.0),
                ),
                (
                    "reused_by_connect",
                    distribution(98, [1.0, 2.1, 9.0, 30.2, 41.0], 410.0),
                ),
            ]),
            life_table: LifeTable {
                socket_seconds: 1_620_113.4,
                reaches_2msl: Some(ShareEstimate {
                    share: 0.96,
                    low: 0.953,
                    high: 0.968,
                }),
                mean_s: Some(MeanEstimate {
                    estimate: 59.1,
                    low: 58.6,
                    high: 59.6,
                }),
                seen_to_s: None,
            },
            timer: Timer {
                nominal_s: Some(60.0),
                slack_s: 2.048,
            },
        },
        fin_wait2_orphan: FinWait2Orphan {
            now: 3,
            seeded: 0,
            entered: 40,
            became_time_wait: 36,
            ended: FinWait2Ends {
                reset: 1,
                ..FinWait2Ends::default()
            },
            lifetime_s: distribution(37, [0.000_2, 0.012, 0.2, 2.01, 2.01], 1.4),
        },
        in_state_s: BTreeMap::from([
            (
                "ESTABLISHED",
                distribution(32_882, [0.000_3, 0.021, 0.6, 9.8, 71.0], 1_400.0),
            ),
            (
                "FIN_WAIT1",
                distribution(32_100, [0.000_02, 0.000_11, 0.000_3, 0.2, 0.4], 22.0),
            ),
            (
                "LAST_ACK",
                distribution(790, [0.000_01, 0.000_04, 0.000_1, 0.000_9, 0.2], 0.3),
            ),
        ]),
        ports: vec![
            Destination {
                netns: 4_026_531_840,
                local: "10.0.0.2".parse().unwrap(),
                remote: "10.0.0.9".parse().unwrap(),
                remote_port: 443,
                used: 27_900,
                time_wait: 27_300,
                usable: 28_232,
                connects_per_s: 465.2,
                limit_per_s: 462.6,
                exhausted_in_s: Some(120.0),
            },
            Destination {
                netns: 4_026_531_840,
                local: "2001:db8:aaaa:bbbb::2".parse().unwrap(),
                remote: "2001:db8:cccc:dddd:1234::9".parse().unwrap(),
                remote_port: 5432,
                used: 42,
                time_wait: 40,
                usable: 28_232,
                connects_per_s: 0.7,
                limit_per_s: 462.6,
                exhausted_in_s: None,
            },
        ],
        owners: vec![
            Owner {
                pid: 812,
                comm: "curl".into(),
                cgroup: Some("/system.slice/x.service".into()),
                time_wait_entered: 32_000,
            },
            Owner {
                pid: 4_194_303,
                comm: "bad\u{1b}[2Jname".into(),
                cgroup: None,
                time_wait_entered: 400,
            },
        ],
        remotes: vec![
            Remote {
                addr: "10.0.0.9".parse().unwrap(),
                time_wait_entered: 32_600,
            },
            Remote {
                addr: "2001:db8:cccc:dddd:1234::9".parse().unwrap(),
                time_wait_entered: 203,
            },
        ],
        left_out: LeftOut {
            destinations: 7,
            owners_time_wait_entered: 400,
            remotes_time_wait_entered: 0,
        },
        namespaces: vec![Namespace {
            netns: 4_026_531_840,
            name: None,
            states: counts([(0, 0, 0); 10]),
        }],
        syn_ack_timeouts: 12,
        lost: Lost::default(),
        resyncs: 0,
        exactness: Exactness::Exact,
    }
}

/// A server in its first moments: nothing has ended, nobody connects.
pub(crate) fn quiet() -> Snapshot {
    let mut snapshot = busy();
    snapshot.seq = 0;
    snapshot.elapsed_s = 0.2;
    snapshot.interval_s = 0.2;
    snapshot.time = "2026-01-31T12:00:00Z".parse().unwrap();
    snapshot.states = counts([
        (130, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (5_204, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (14, 0, 0),
        (0, 0, 0),
    ]);
    snapshot.transitions.clear();
    snapshot.closes = Closes::default();
    snapshot.connect_failures = ConnectFailures::default();
    snapshot.connect_latency_s = Distribution::default();
    snapshot.connects.clear();
    snapshot.stock = Some(Stock::default());
    snapshot.time_wait = TimeWait {
        now: 5_204,
        seeded: 5_204,
        entered: 0,
        side: Sides {
            client: 0,
            server: 5_204,
            unknown: 0,
        },
        rearmed: 0,
        overflowed: 0,
        ended: TimeWaitEnds::default(),
        ended_seeded: 0,
        lifetime_s: Lifetime {
            distribution: Distribution::default(),
            complete_from_s: 0.2,
            buckets: buckets([0; 11]),
        },
        lifetime_by_reason_s: BTreeMap::new(),
        life_table: LifeTable {
            socket_seconds: 1_040.8,
            ..LifeTable::default()
        },
        timer: Timer {
            nominal_s: None,
            slack_s: 2.048,
        },
    };
    snapshot.fin_wait2_orphan = FinWait2Orphan {
        now: 0,
        seeded: 0,
        entered: 0,
        became_time_wait: 0,
        ended: FinWait2Ends::default(),
        lifetime_s: Distribution::default(),
    };
    snapshot.in_state_s.clear();
    snapshot.ports.clear();
    snapshot.owners.clear();
    snapshot.remotes.clear();
    snapshot.left_out = LeftOut::default();
    snapshot
}

/// The busy client, after the ring was full, seen in three namespaces.
pub(crate) fn lossy() -> Snapshot {
    let mut snapshot = busy();
    snapshot.lost = Lost {
        ring: 1_210,
        map: 0,
        recursion: 2,
        unseen: 1,
    };
    snapshot.resyncs = 1;
    snapshot.exactness = Exactness::Approximate;
    snapshot.connect_failures.ports_exhausted = 17;
    snapshot.last_without_port = Some(WithoutPort {
        netns: snapshot.ports[0].netns,
        local: snapshot.ports[0].local,
        remote: snapshot.ports[0].remote,
        remote_port: snapshot.ports[0].remote_port,
        ago_s: 0.4,
    });
    snapshot.time_wait.overflowed = 20;
    snapshot.ports[0].used = 28_232;
    snapshot.ports[0].exhausted_in_s = None;
    snapshot.remotes.insert(
        0,
        Remote {
            addr: "127.0.0.1".parse().unwrap(),
            time_wait_entered: 0,
        },
    );
    snapshot.namespaces = [("blue", 30), ("green", 27_000), ("red\u{7}", 0)]
        .into_iter()
        .zip(4_026_532_000..)
        .map(|((name, waiting), netns)| {
            let mut states = counts([(1, 0, 0); 10]);
            states.0[5] = Count {
                now: waiting,
                seeded: waiting,
                entered: 0,
                left: 0,
            };
            Namespace {
                netns,
                name: Some(name.to_owned()),
                states,
            }
        })
        .collect();
    snapshot
}

pub(crate) const START: Moment = Moment(1_000_000_000);

pub(crate) fn tuple() -> Tuple {
    Tuple {
        netns: Netns(4_026_531_840),
        family: Family::Inet,
        local: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        remote: [10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        local_port: 45_556,
        remote_port: 443,
    }
}

fn process(pid: u32, name: &str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Process {
        pid,
        comm: Some(comm),
        cgroup: (pid != 0).then_some(77),
    }
}

/// One story from connect to reuse, an IPv6 socket without a known birth, and
/// a socket whose addresses were lost.
pub(crate) fn happenings() -> Vec<Happening> {
    let curl = process(812, "curl");
    let at = |us: u64| Moment(START.0 + us * 1_000);
    let client = |us, what| Happening {
        at: at(us),
        socket: SocketId(90_211),
        side: Side::Client,
        tuple: Some(tuple()),
        owner: Some(curl),
        what,
    };
    let step = |from, to, us: Option<u64>| What::Transition {
        from,
        to,
        in_state: us.map(Duration::from_micros),
        reason: None,
    };
    let mapped = Tuple {
        family: Family::Inet6,
        local: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2],
        remote: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 9],
        local_port: 0,
        ..tuple()
    };
    vec![
        client(0, step(State::Close, State::SynSent, None)),
        client(121, step(State::SynSent, State::Established, Some(121))),
        client(20_000, step(State::FinWait2, State::TimeWait, Some(90))),
        client(
            20_001,
            What::MinisocketStart {
                state: State::TimeWait,
                timeout: Duration::from_secs(60),
            },
        ),
        client(
            3_000_000,
            What::MinisocketRearm {
                state: State::TimeWait,
            },
        ),
        client(
            61_042_000,
            What::MinisocketEnd {
                state: State::TimeWait,
                reason: "expired",
                lifetime: Some(Duration::from_micros(61_022_000)),
                since_last_arm: None,
                rearmed: 1,
                by: Process {
                    cgroup: None,
                    ..process(0, "swapper/0")
                },
            },
        ),
        Happening {
            at: at(62_000_000),
            socket: SocketId(7),
            side: Side::Server,
            tuple: Some(mapped),
            owner: Some(Process {
                pid: 99,
                comm: None,
                cgroup: None,
            }),
            what: What::MinisocketEnd {
                state: State::FinWait2,
                reason: "reused_by_bound_connect",
                lifetime: None,
                since_last_arm: Some(Duration::from_millis(12_345)),
                rearmed: 0,
                by: process(900, "ev\u{1b}[2Jil"),
            },
        },
        // Its owner has no number here.
        Happening {
            at: at(62_500_000),
            socket: SocketId(90_299),
            owner: Some(process(0, "nginx")),
            ..client(0, step(State::Established, State::FinWait1, Some(500)))
        },
        Happening {
            at: at(63_000_000),
            socket: SocketId(90_300),
            side: Side::Unknown,
            tuple: None,
            owner: None,
            what: What::Transition {
                from: State::Established,
                to: State::Close,
                in_state: Some(Duration::from_secs(3_725)),
                reason: Some(CloseReason::Reset),
            },
        },
    ]
}
