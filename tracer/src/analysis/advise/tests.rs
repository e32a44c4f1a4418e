//! One line a situation, and the verdict and the words beside it.

use super::*;
use crate::model::event::{Moment, Tick};
use crate::model::filter::Filter;
use crate::model::ledger::{Config, Frame, Ledger};
use crate::model::snapshot::{Host, Scope, Sides, WithoutPort};

/// A snapshot of a ledger that saw nothing.
fn nothing() -> Snapshot {
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
    ledger.snapshot(frame, &mut |_| None)
}

fn towards(
    used: u64,
    time_wait: u64,
    connects_per_s: f64,
    exhausted_in_s: Option<f64>,
) -> Destination {
    Destination {
        netns: 1,
        local: "10.0.0.2".parse().unwrap(),
        remote: "10.0.0.9".parse().unwrap(),
        remote_port: 443,
        used,
        time_wait,
        usable: 28_232,
        connects_per_s,
        limit_per_s: 462.6,
        exhausted_in_s,
    }
}

fn advice(client: u64, server: u64, unknown: u64, ports: Vec<Destination>) -> Advice {
    let mut snapshot = nothing();
    snapshot.time_wait.now = client + server + unknown;
    snapshot.time_wait.side = Sides {
        client,
        server,
        unknown,
    };
    snapshot.ports = ports;
    time_waits(&snapshot)
}

#[track_caller]
fn says(advice: &Advice, verdict: Verdict, headline: &str, because: &str) {
    assert_eq!(
        (advice.verdict, advice.headline.as_str()),
        (verdict, headline),
        "{advice:?}"
    );
    assert!(advice.because.contains(because), "{advice:?}");
}

#[test]
fn an_idle_machine_has_nothing_to_hurt() {
    let advice = advice(0, 0, 0, vec![]);
    says(
        &advice,
        Verdict::DoesNotHurt,
        "No TIME_WAIT now: none can hurt.",
        "None takes a local port",
    );
}

#[test]
fn a_server_pays_in_memory_only() {
    says(
        &advice(0, 5_000, 0, vec![]),
        Verdict::DoesNotHurt,
        "TIME_WAIT 5,000, all on the server side: they do not hurt.",
        "The 5,000 on the server side cost memory only, about 1.28 MB.",
    );
}

#[test]
fn a_client_with_room_is_told_how_much() {
    says(
        &advice(90, 10, 0, vec![towards(90, 90, 1.5, None)]),
        Verdict::DoesNotHurt,
        "TIME_WAIT 100, 90 % on the client side: they do not hurt.",
        "No destination uses more than 0.3 % of its local ports (the most: 10.0.0.9:443, 90 of 28,232).",
    );
}

#[test]
fn more_than_the_ports_sustain_is_near_from_the_start() {
    says(
        &advice(
            900,
            0,
            0,
            vec![
                towards(2_000, 2_000, 1.0, None),
                towards(900, 900, 500.0, Some(54.7)),
            ],
        ),
        Verdict::Near,
        "TIME_WAIT 900, all on the client side: they are close to hurting.",
        "900 of 28,232 ports used (3.2 %), exhausted in 55 s at the present rate.",
    );
}

#[test]
fn half_the_ports_is_near_whatever_the_rate() {
    says(
        &advice(14_116, 0, 0, vec![towards(14_116, 14_116, 230.0, None)]),
        Verdict::Near,
        "TIME_WAIT 14,116, all on the client side: they are close to hurting.",
        "(50 %), which the present rate does not exhaust.",
    );
    assert_eq!(
        advice(1, 0, 0, vec![towards(14_115, 14_115, 230.0, None)]).verdict,
        Verdict::DoesNotHurt
    );
}

#[test]
fn a_share_too_small_for_a_figure_is_told_in_words() {
    let advice = advice(3, 0, 0, vec![towards(3, 3, 1.0, None)]);
    assert!(
        advice
            .because
            .starts_with("No destination uses as much as 0.1 % of its local ports"),
        "{advice:?}"
    );
}

#[test]
fn open_connections_take_ports_too() {
    says(
        &advice(100, 0, 0, vec![towards(28_232, 100, 10.0, None)]),
        Verdict::Hurts,
        "TIME_WAIT 100, all on the client side: ports run out, but not because of them.",
        "(100 %), none is free. Most of these ports belong to open connections, only 100 to TIME_WAITs.",
    );
}

/// The same with `tcp_tw_reuse` and a reuse delay of a second, which 400 came within.
fn reusing(used: u64, time_wait: u64) -> Destination {
    Destination {
        limit_per_s: 28_232.0,
        ..towards(used, time_wait, 400.0, None)
    }
}

#[test]
fn ports_that_can_be_taken_again_are_not_taken() {
    for used in [14_200, 28_232] {
        says(
            &advice(used - 200, 0, 0, vec![reusing(used, used - 200)]),
            Verdict::DoesNotHurt,
            &format!(
                "TIME_WAIT {}, all on the client side: they do not hurt.",
                count(used - 200)
            ),
            &format!(
                "(the most: 10.0.0.9:443, 600 of 28,232). {} ports are in TIME_WAIT and can be taken again.",
                count(used - 600)
            ),
        );
    }
    // The worst is the one that has least ports left, not the one with most TIME_WAITs.
    let both = vec![reusing(28_232, 28_000), towards(20_000, 20_000, 1.0, None)];
    says(
        &advice(48_000, 0, 0, both),
        Verdict::Near,
        "TIME_WAIT 48,000, all on the client side: they are close to hurting.",
        "20,000 of 28,232 ports used (71 %), which the present rate does not exhaust.",
    );
}

#[test]
fn open_connections_are_counted_with_reuse_too() {
    says(
        &advice(14_000, 0, 0, vec![reusing(28_232, 14_000)]),
        Verdict::Near,
        "TIME_WAIT 14,000, all on the client side: ports get scarce, but not because of them.",
        "14,632 of 28,232 ports used (52 %), which the present rate does not exhaust. \
         13,600 ports are in TIME_WAIT and can be taken again.",
    );
}

/// A port whose TIME_WAIT is younger than the reuse delay is as good as used: a
/// client of 266 connects a second is near its 300.
#[test]
fn ports_that_cannot_be_taken_yet_are_taken() {
    let near = Destination {
        usable: 300,
        limit_per_s: 300.0,
        ..towards(300, 300, 266.0, None)
    };
    says(
        &advice(300, 0, 0, vec![near]),
        Verdict::Near,
        "TIME_WAIT 300, all on the client side: they are close to hurting.",
        "266 of 300 ports used (89 %), which the present rate does not exhaust. \
         34 ports are in TIME_WAIT and can be taken again.",
    );
}

#[test]
fn a_connect_without_a_port_disproves_reuse() {
    let mut snapshot = nothing();
    snapshot.time_wait.now = 28_032;
    snapshot.time_wait.side.client = 28_032;
    snapshot.ports = vec![reusing(28_232, 28_032)];
    snapshot.connect_failures.ports_exhausted = 3;
    says(
        &time_waits(&snapshot),
        Verdict::Hurts,
        "TIME_WAIT 28,032, all on the client side: they hurt, ports run out.",
        "28,232 of 28,232 ports used (100 %), none is free.",
    );
}

#[test]
fn a_connect_without_a_port_hurts() {
    let mut snapshot = nothing();
    snapshot.connect_failures.ports_exhausted = 1;
    snapshot.time_wait.overflowed = 20;
    let advice = time_waits(&snapshot);
    says(
        &advice,
        Verdict::Hurts,
        "No TIME_WAIT now: but ports run out.",
        "1 connect found no free port since the start. 20 closes skipped TIME_WAIT because",
    );
}

/// 12 connects towards 10.0.0.7:443 found no port, while 10.0.0.9:443 has plenty.
fn failed_elsewhere(ago_s: f64) -> Advice {
    let mut snapshot = nothing();
    snapshot.time_wait.now = 423;
    snapshot.time_wait.side.client = 423;
    snapshot.ports = vec![towards(423, 423, 7.0, None)];
    snapshot.connect_failures.ports_exhausted = 12;
    snapshot.last_without_port = Some(WithoutPort {
        netns: 1,
        local: "10.0.0.2".parse().unwrap(),
        remote: "10.0.0.7".parse().unwrap(),
        remote_port: 443,
        ago_s,
    });
    time_waits(&snapshot)
}

#[test]
fn ports_that_ran_out_long_ago_do_not_hurt_now() {
    says(
        &failed_elsewhere(180.0),
        Verdict::DoesNotHurt,
        "TIME_WAIT 423, all on the client side: they do not hurt.",
        "12 connects found no free port since the start, the last one 3 min ago towards \
         10.0.0.7:443. No destination uses more than 1.5 %",
    );
}

#[test]
fn a_destination_with_room_is_not_blamed_for_another() {
    let advice = failed_elsewhere(2.0);
    says(
        &advice,
        Verdict::Hurts,
        "TIME_WAIT 423, all on the client side: but ports run out.",
        "the last one 2 s ago towards 10.0.0.7:443.",
    );
    assert!(!advice.because.contains("10.0.0.9"), "{advice:?}");
}

#[test]
fn what_began_before_is_not_judged() {
    says(
        &advice(0, 0, 7, vec![]),
        Verdict::Undecided,
        "TIME_WAIT 7, side not known yet: not enough data yet to say whether they hurt.",
        "7 TIME_WAITs began before twtrace did",
    );
    says(
        &advice(3, 3, 4, vec![]),
        Verdict::Undecided,
        "TIME_WAIT 10, 50 % on the client side (not known of 4): not enough data yet to say whether they hurt.",
        "has not been read yet",
    );
}
