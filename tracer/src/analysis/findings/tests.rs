//! One situation a test: what is said of it, and that nothing is said of its control.

use std::net::IpAddr;

use super::*;
use crate::model::event::{Moment, Tick};
use crate::model::filter::Filter;
use crate::model::ledger::{Config, Frame, Ledger};
use crate::model::snapshot::{ConnectFailures, Connects, Holder, Host, Scope, WithoutPort};
use crate::model::stock::{
    Buckets, ClosedPort, Held, Listening, Pool, Route, SelfConnected, Source, Stock, TakenPort,
};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

/// A snapshot of a ledger that saw nothing, and of a look that found nothing.
pub(in super::super) fn calm() -> Snapshot {
    let tick = Tick {
        hz: 250,
        moment: Moment(0),
        jiffies: 0,
    };
    let mut ledger = Ledger::new(Config::new(tick, Filter::default(), Moment(0)));
    let frame = Frame {
        seq: 0,
        at: Moment(1_000_000_000),
        time: jiff::Timestamp::UNIX_EPOCH,
        elapsed_s: 1.0,
        interval_s: 1.0,
        host: Host {
            name: "db01".into(),
            kernel: "6.18".into(),
            boot_id: String::new(),
            hz: 250,
        },
        version: "0",
        scope: Scope {
            netns: "all".into(),
            filter: String::new(),
        },
    };
    let mut snapshot = ledger.snapshot(frame, &mut |_| None);
    snapshot.stock = Some(Stock::default());
    snapshot
}

fn curl() -> Option<Holder> {
    Some(Holder {
        pid: 812,
        comm: "curl".into(),
        cgroup: Some("/system.slice/x.service".into()),
    })
}

fn stock(snapshot: &mut Snapshot) -> &mut Stock {
    snapshot.stock.as_mut().expect("it has one")
}

fn ids(snapshot: &Snapshot) -> Vec<(&'static str, Severity)> {
    let judgement = Findings::new().judge(snapshot);
    let findings = judgement.findings.iter();
    findings
        .map(|finding| (finding.id, finding.severity))
        .collect()
}

/// What is found after three seconds of the same.
fn lasting(snapshot: &Snapshot) -> Judgement {
    let (mut findings, mut snapshot) = (Findings::new(), snapshot.clone());
    for _ in 0..3 {
        findings.judge(&snapshot);
        snapshot.elapsed_s += 1.0;
    }
    findings.judge(&snapshot)
}

#[track_caller]
fn only(snapshot: &Snapshot, id: &str, severity: Severity) -> Finding {
    let at_once = Findings::new().judge(snapshot);
    let judgement = if at_once.findings.is_empty() {
        lasting(snapshot)
    } else {
        at_once
    };
    assert_eq!(judgement.findings.len(), 1, "{judgement:#?}");
    let finding = judgement.findings[0].clone();
    assert_eq!((finding.id, finding.severity), (id, severity));
    assert!(!finding.figures.is_empty() && !finding.remedies.is_empty());
    assert!(ORDER.contains(&id), "{id}");
    finding
}

fn route(usable: u64) -> Route {
    Route {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        usable,
        time_wait: 0,
        with_timestamps: 0,
        close_wait: 0,
        fin_wait2: 0,
        open: 0,
        bound: 0,
        outside: 0,
        privileged: 0,
        free_in_s: None,
        reuse: false,
        reuse_set: false,
        timestamps: true,
        holder: curl(),
    }
}

fn connects() -> Connects {
    Connects {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        window_s: 5.0,
        established: 0,
        late_1s: 0,
        late_3s: 0,
        late_7s: 0,
        failed: ConnectFailures::default(),
        given_up: 0,
        closed: 0,
        mean_life_s: None,
        owner: curl(),
        failing: curl(),
    }
}

fn listening() -> Listening {
    Listening {
        netns: 1,
        local: LOCAL,
        port: 8080,
        accept_queue: 0,
        accept_limit: 128,
        half_open: 0,
        dropped: 0,
        dropped_ago_s: None,
        dropped_per_s: 0.0,
        states: BTreeMap::new(),
        port_chosen: true,
        in_range: false,
        holder: curl(),
    }
}

#[test]
fn before_anything_can_have_happened_nobody_can_say() {
    let mut snapshot = calm();
    snapshot.elapsed_s = 0.3;
    let judgement = Findings::new().judge(&snapshot);
    assert_eq!(judgement.verdict, Verdict::Undecided);
    assert!(judgement.missing.is_some());
}

#[test]
fn localhost_is_two_addresses() {
    let mut snapshot = calm();
    let failed = ConnectFailures {
        refused: 20,
        ..ConnectFailures::default()
    };
    snapshot.connects.push(Connects {
        remote: "::1".parse().unwrap(),
        failed,
        ..connects()
    });
    only(&snapshot, "connects_fail", Severity::Hurts);
    snapshot.connects.push(Connects {
        remote: "127.0.0.1".parse().unwrap(),
        established: 20,
        ..connects()
    });
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn who_gives_up_waiting_had_no_answer() {
    let mut snapshot = calm();
    let failed = ConnectFailures {
        abandoned: 40,
        ..ConnectFailures::default()
    };
    snapshot.connects.push(Connects {
        failed,
        given_up: 40,
        ..connects()
    });
    let finding = only(&snapshot, "connects_fail", Severity::Hurts);
    assert_eq!(finding.cause, "timed_out");
    snapshot.connects[0].given_up = 0;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn ports_that_bind_holds_keep_a_connect_from_them() {
    let mut snapshot = calm();
    snapshot.last_without_port = Some(WithoutPort {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        ago_s: 0.2,
    });
    stock(&mut snapshot).pools.push(Pool {
        netns: 1,
        usable: 20,
        bound: 20,
    });
    let finding = only(&snapshot, "ports_exhausted", Severity::Hurts);
    assert_eq!(finding.cause, "bound");
}

#[test]
fn orphans_in_fin_wait2_serve_nobody_again() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        fin_wait2: 100,
        reuse: true,
        reuse_set: true,
        ..route(100)
    });
    let finding = only(&snapshot, "ports_exhausted", Severity::Hurts);
    assert_eq!(finding.cause, "fin_wait2_orphans");
}

#[test]
fn nothing_is_fine() {
    let judgement = Findings::new().judge(&calm());
    assert_eq!(judgement.verdict, Verdict::Fine);
    assert!(judgement.findings.is_empty() && judgement.missing.is_none());
}

#[test]
fn every_kind_stands_in_the_order() {
    let mut sorted = ORDER.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), ORDER.len());
    assert!(ORDER.len() >= KINDS.len());
}

#[test]
fn ports_are_exhausted_by_what_holds_most_of_them() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        time_wait: 980,
        open: 20,
        free_in_s: Some(3.2),
        ..route(1_000)
    });
    let failed = ConnectFailures {
        ports_exhausted: 12,
        ..ConnectFailures::default()
    };
    snapshot.connects.push(Connects {
        failed,
        established: 50,
        mean_life_s: Some(0.5),
        ..connects()
    });
    let finding = only(&snapshot, "ports_exhausted", Severity::Hurts);
    assert_eq!(
        finding.headline,
        "no local port is free from 10.0.0.2 to 10.0.0.9:443: TIME_WAITs hold them"
    );
    assert_eq!(
        finding.because,
        "1,000 of 1,000 ports are taken: 980 by TIME_WAITs, 20 by open connections. 12 connects \
         failed for it within the last seconds. The next one is free in 3 s."
    );
    assert_eq!(finding.cause, "time_wait");
    assert_eq!(
        finding.remedies[0],
        "let curl (pid 812) keep its connections: 5 would carry this load"
    );

    let mut leaks = calm();
    stock(&mut leaks).routes.push(Route {
        time_wait: 300,
        close_wait: 700,
        ..route(1_000)
    });
    assert_eq!(
        only(&leaks, "ports_exhausted", Severity::Hurts).cause,
        "close_wait"
    );
}

#[test]
fn ports_get_scarce_from_half_of_them_on() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        time_wait: 499,
        ..route(1_000)
    });
    assert_eq!(ids(&snapshot), []);
    stock(&mut snapshot).routes[0].time_wait = 500;
    only(&snapshot, "ports_near", Severity::Near);
    // What can be taken again is not taken, where no connect says otherwise.
    let route = &mut stock(&mut snapshot).routes[0];
    (route.reuse, route.reuse_set, route.with_timestamps) = (true, true, 500);
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_forecast_has_to_last() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        open: 100,
        ..route(1_000)
    });
    snapshot.ports.push(crate::model::snapshot::Destination {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        used: 100,
        time_wait: 0,
        usable: 1_000,
        connects_per_s: 10.0,
        limit_per_s: 16.0,
        exhausted_in_s: Some(90.0),
    });
    let mut findings = Findings::new();
    for at in [1.0, 2.0, 10.9] {
        snapshot.elapsed_s = at;
        let judgement = findings.judge(&snapshot);
        assert!(at < 3.0 || judgement.findings.is_empty(), "{judgement:?}");
    }
    for at in [11.5, 12.5, 13.5, 14.5, 16.0, 17.5, 19.0, 20.5, 21.6] {
        snapshot.elapsed_s = at;
        findings.judge(&snapshot);
    }
    let judgement = findings.judge(&snapshot);
    assert_eq!(judgement.verdict, Verdict::Near);
    // From other ports it is no exhaustion of these.
    stock(&mut snapshot).routes[0].outside = 1;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_recording_tells_of_its_ports_by_events_alone() {
    let mut snapshot = calm();
    snapshot.stock = None;
    snapshot.ports.push(crate::model::snapshot::Destination {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        used: 1_000,
        time_wait: 1_000,
        usable: 1_000,
        connects_per_s: 0.0,
        limit_per_s: 16.0,
        exhausted_in_s: None,
    });
    only(&snapshot, "ports_exhausted", Severity::Hurts);
    snapshot.ports.clear();
    snapshot.time_wait.side.unknown = 5;
    let judgement = Findings::new().judge(&snapshot);
    assert_eq!(judgement.verdict, Verdict::Undecided);
    assert!(judgement.missing.is_some());
}

#[test]
fn who_binds_first_shares_one_range() {
    let mut snapshot = calm();
    stock(&mut snapshot).sources.push(Source {
        netns: 1,
        local: LOCAL,
        usable: 100,
        bound: 100,
        destinations: 10,
        holder: curl(),
    });
    stock(&mut snapshot).routes.push(Route {
        bound: 100,
        ..route(100)
    });
    let finding = only(&snapshot, "source_address_exhausted", Severity::Hurts);
    assert!(finding.remedies[0].contains("IP_BIND_ADDRESS_NO_PORT"));
    stock(&mut snapshot).sources[0].bound = 49;
    stock(&mut snapshot).routes[0].bound = 49;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_port_that_was_chosen_is_taken() {
    let taken = TakenPort {
        netns: 1,
        local: LOCAL,
        local_port: 20_000,
        remote: REMOTE,
        remote_port: 8080,
        ago_s: 0.4,
        state: Some("TIME_WAIT"),
        free_in_s: Some(57.6),
        holder: curl(),
    };
    let mut snapshot = calm();
    stock(&mut snapshot).taken = vec![taken.clone(), taken.clone()];
    let finding = only(&snapshot, "tuple_in_time_wait", Severity::Hurts);
    assert_eq!(
        finding.headline,
        "curl (pid 812) cannot connect from the port it chose: 10.0.0.2:20000 -> 10.0.0.9:8080 is \
         in TIME_WAIT for another 58 s"
    );
    stock(&mut snapshot).taken = vec![TakenPort {
        ago_s: 10.5,
        ..taken
    }];
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn the_privileged_ports_are_359() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        privileged: 359,
        outside: 359,
        ..route(28_232)
    });
    only(&snapshot, "reserved_ports_exhausted", Severity::Hurts);
    stock(&mut snapshot).routes[0].privileged = 300;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_socket_may_have_a_range_of_its_own() {
    let mut snapshot = calm();
    snapshot.last_without_port = Some(WithoutPort {
        netns: 1,
        local: LOCAL,
        remote: REMOTE,
        remote_port: 443,
        ago_s: 0.2,
    });
    stock(&mut snapshot).routes.push(Route {
        open: 10,
        ..route(28_232)
    });
    only(&snapshot, "own_port_range", Severity::Hurts);
    stock(&mut snapshot).routes[0].open = 28_232;
    only(&snapshot, "ports_exhausted", Severity::Hurts);
}

#[test]
fn reuse_wants_timestamps() {
    let mut snapshot = calm();
    stock(&mut snapshot).routes.push(Route {
        time_wait: 600,
        reuse: true,
        reuse_set: true,
        ..route(1_000)
    });
    assert_eq!(
        ids(&snapshot),
        [
            ("reuse_without_timestamps", Severity::Near),
            ("ports_near", Severity::Near)
        ]
    );
    let judgement = Findings::new().judge(&snapshot);
    assert_eq!(judgement.findings[0].cause, "peer_without_timestamps");
    stock(&mut snapshot).routes[0].with_timestamps = 600;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_queue_that_is_full_is_not_one_that_is_long() {
    let mut snapshot = calm();
    stock(&mut snapshot).listeners.push(Listening {
        accept_queue: 129,
        ..listening()
    });
    let finding = only(&snapshot, "accept_queue_full", Severity::Hurts);
    assert_eq!(
        finding.headline,
        "the accept queue of 10.0.0.2:8080 is full: curl (pid 812) does not accept what has \
         connected"
    );
    stock(&mut snapshot).listeners[0].accept_queue = 128;
    assert_eq!(ids(&snapshot), []);
    stock(&mut snapshot).listeners[0].dropped_ago_s = Some(3.0);
    only(&snapshot, "accept_queue_full", Severity::Hurts);
    stock(&mut snapshot).listeners[0].dropped_ago_s = Some(11.0);
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn half_open_requests_have_the_same_limit() {
    let mut snapshot = calm();
    stock(&mut snapshot).listeners.push(Listening {
        half_open: 128,
        ..listening()
    });
    only(&snapshot, "syn_queue_full", Severity::Hurts);
    stock(&mut snapshot).listeners[0].half_open = 50;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_leak_is_old_or_many() {
    let held = Held {
        netns: 1,
        state: "CLOSE_WAIT",
        listening_port: Some(8080),
        remote: None,
        remote_port: None,
        now: 200,
        oldest_s: 12.0,
        over_10s: 150,
        over_60s: 0,
        peers_in_close_wait: 0,
        holder: curl(),
    };
    let mut snapshot = calm();
    stock(&mut snapshot).held.push(held.clone());
    let finding = only(&snapshot, "close_wait_leak", Severity::Hurts);
    assert_eq!(
        finding.headline,
        "200 connections in CLOSE_WAIT on port 8080: curl (pid 812) does not close what its peers \
         have closed"
    );
    // Work of five seconds, be it of two hundred at once.
    stock(&mut snapshot).held[0] = Held {
        over_10s: 0,
        oldest_s: 5.0,
        ..held.clone()
    };
    assert_eq!(ids(&snapshot), []);
    // An idle connection of a pool, which its server closed.
    stock(&mut snapshot).held[0] = Held {
        now: 1,
        over_10s: 1,
        over_60s: 1,
        ..held.clone()
    };
    only(&snapshot, "close_wait_leak", Severity::Note);
    stock(&mut snapshot).held[0] = Held {
        state: "FIN_WAIT2",
        over_60s: 3,
        peers_in_close_wait: 3,
        ..held
    };
    let finding = only(&snapshot, "fin_wait2_held", Severity::Hurts);
    assert!(finding.because.contains("The other ends of 3 are here too"));
}

#[test]
fn a_bind_is_blocked_where_the_old_sockets_had_no_reuseaddr() {
    let closed = ClosedPort {
        netns: 1,
        local: LOCAL,
        port: 8080,
        time_wait: 50,
        other: 0,
        shared: false,
        free_in_s: Some(58.0),
        holder: None,
    };
    let mut snapshot = calm();
    stock(&mut snapshot).closed_ports.push(closed.clone());
    let finding = only(&snapshot, "bind_blocked", Severity::Hurts);
    assert_eq!(
        finding.headline,
        "nothing listens on 10.0.0.2:8080, and 50 TIME_WAITs keep a bind() from it for another 58 s"
    );
    stock(&mut snapshot).closed_ports[0].shared = true;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_port_in_the_range_is_a_note() {
    let mut snapshot = calm();
    stock(&mut snapshot).listeners.push(Listening {
        in_range: true,
        ..listening()
    });
    only(&snapshot, "listen_port_in_range", Severity::Note);
    assert_eq!(Findings::new().judge(&snapshot).verdict, Verdict::Fine);
    stock(&mut snapshot).listeners[0].port_chosen = false;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn who_is_connected_to_himself_is_told() {
    let mut snapshot = calm();
    stock(&mut snapshot).self_connected.push(SelfConnected {
        netns: 1,
        local: LOCAL,
        port: 8080,
        holder: curl(),
    });
    only(&snapshot, "self_connect", Severity::Hurts);
}

#[test]
fn one_in_a_hundred_connects_may_fail() {
    let mut snapshot = calm();
    let failed = |refused| ConnectFailures {
        refused,
        abandoned: 50,
        ..ConnectFailures::default()
    };
    snapshot.connects.push(Connects {
        established: 100,
        failed: failed(3),
        ..connects()
    });
    let finding = only(&snapshot, "connects_fail", Severity::Hurts);
    assert_eq!(finding.cause, "refused");
    snapshot.connects[0].established = 400;
    assert_eq!(ids(&snapshot), []);
    snapshot.connects[0].established = 0;
    snapshot.connects[0].failed = failed(2);
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_lost_syn_shows_in_the_time_a_connect_takes() {
    let mut snapshot = calm();
    snapshot.connects.push(Connects {
        established: 20,
        late_1s: 4,
        late_3s: 1,
        ..connects()
    });
    let finding = only(&snapshot, "first_syn_lost", Severity::Hurts);
    assert_eq!(finding.cause, "syn_lost");
    snapshot.connects[0].late_1s = 0;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_few_kept_connections_would_carry_it() {
    let mut snapshot = calm();
    snapshot.connects.push(Connects {
        established: 500,
        closed: 500,
        mean_life_s: Some(0.05),
        ..connects()
    });
    let finding = only(&snapshot, "short_lived", Severity::Note);
    assert!(finding.because.contains("5 connections"), "{finding:?}");
    snapshot.connects[0].established = 50;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn the_limit_of_time_waits_is_reached_or_near() {
    let mut snapshot = calm();
    stock(&mut snapshot).buckets.push(Buckets {
        netns: 1,
        now: 80,
        limit: 100,
    });
    only(&snapshot, "time_wait_near_limit", Severity::Near);
    snapshot.time_wait.overflowed = 7;
    only(&snapshot, "time_wait_overflow", Severity::Hurts);
    // What was skipped long ago is no finding of now.
    let mut findings = Findings::new();
    stock(&mut snapshot).buckets[0].now = 10;
    for at in [1.0, 20.0, 40.0] {
        snapshot.elapsed_s = at;
        findings.judge(&snapshot);
    }
    assert_eq!(findings.judge(&snapshot).verdict, Verdict::Fine);
}

#[test]
fn time_waits_that_are_reset_are_a_note() {
    let mut snapshot = calm();
    snapshot.time_wait.ended.reset = 20;
    only(&snapshot, "time_wait_reset", Severity::Note);
    snapshot.time_wait.ended.expired = 500;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn sockstat_counts_orphans_too() {
    let mut snapshot = calm();
    snapshot.fin_wait2_orphan.now = 200;
    snapshot.time_wait.now = 1_000;
    only(&snapshot, "sockstat_differs", Severity::Note);
    snapshot.time_wait.now = 3_000;
    assert_eq!(ids(&snapshot), []);
}

#[test]
fn a_finding_stays_for_two_seconds_and_says_since_when() {
    let mut snapshot = calm();
    stock(&mut snapshot).listeners.push(Listening {
        accept_queue: 129,
        ..listening()
    });
    let mut findings = Findings::new();
    findings.judge(&snapshot);
    snapshot.elapsed_s = 4.0;
    let judgement = findings.judge(&snapshot);
    assert!((judgement.findings[0].since_s - 3.0).abs() < 1e-9);
    stock(&mut snapshot).listeners.clear();
    snapshot.elapsed_s = 5.9;
    assert_eq!(findings.judge(&snapshot).verdict, Verdict::Hurts);
    snapshot.elapsed_s = 6.1;
    assert_eq!(findings.judge(&snapshot).verdict, Verdict::Fine);
}
