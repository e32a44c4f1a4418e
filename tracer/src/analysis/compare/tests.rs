//! Trials whose outcome is known, and the words for it.

use super::*;

const CONNECTIONS: &str = "connections_per_s";
const STOCK: &str = "time_wait_live_mean";
const LIFE: &str = "time_wait_life_mean_s";
const NO_PORT: &str = "connect_failures_per_1000.ports_exhausted";
const REUSED: &str = "time_wait_ended_share.reused_by_connect";

/// Numbers about 1 that look random and are the same each time.
const NOISE: [f64; 16] = [
    1.006, 0.993, 0.998, 1.011, 1.002, 0.989, 1.004, 0.997, 0.994, 1.008, 1.001, 0.996, 1.009,
    0.992, 1.003, 1.007,
];

fn phase(name: &str, readings: &[(&str, f64)]) -> Phase {
    let mut phase = Phase {
        name: name.to_owned(),
        seconds: 60.0,
        ..Phase::default()
    };
    for (name, value) in readings {
        phase.read(*name, Some(*value), 6000);
    }
    phase
}

fn plan(primary: &[&str]) -> Plan {
    Plan {
        sysctls_changed: vec![SysctlChanged {
            netns: None,
            name: None,
            key: "net.ipv4.tcp_tw_reuse".to_owned(),
            before: Some("0".to_owned()),
            after: Some("1".to_owned()),
        }],
        primary: primary.iter().map(|name| (*name).to_owned()).collect(),
        margins: BTreeMap::new(),
        kernel: Some((6, 18)),
    }
}

/// Pairs whose changed phases are so many times the others, with noise `times` as large.
fn pairs(n: usize, effects: &[(&str, f64, f64)], times: f64) -> Trial {
    let noise = |i: usize| 1.0 + times * (NOISE[i % 16] - 1.0);
    let pair = |i: usize| {
        let readings = |after: bool| -> Vec<(&str, f64)> {
            effects
                .iter()
                .enumerate()
                .map(|(k, (name, base, effect))| {
                    let effect = if after { *effect } else { 1.0 };
                    (
                        *name,
                        base * effect * noise(2 * i + usize::from(after) + 5 * k),
                    )
                })
                .collect()
        };
        Pair {
            before: phase(&format!("pair {}, before", i + 1), &readings(false)),
            after: phase(&format!("pair {}, after", i + 1), &readings(true)),
            changed_first: i % 3 == 1,
        }
    };
    Trial::Pairs {
        pairs: (0..n).map(pair).collect(),
        measured_s: 60.0,
        settle_s: 64.0,
        seed: 7,
    }
}

fn replicas(of: impl Fn(usize, bool) -> Vec<(&'static str, f64)>) -> Trial {
    let chosen = [true, false, false, true, true, false, true, false];
    let replicas = chosen.iter().enumerate().map(|(i, &changed)| Replica {
        phase: phase(&format!("replica {}", i + 1), &of(i, changed)),
        changed,
    });
    Trial::Parallel {
        replicas: replicas.collect(),
        measured_s: 66.0,
        settle_s: 64.0,
        seed: 7,
    }
}

fn told(comparison: &Comparison) -> Vec<&str> {
    let primary = comparison.of_role(Role::Primary);
    primary.map(|metric| metric.words.as_str()).collect()
}

#[test]
fn what_never_was_and_what_was_not_there_before_are_not_comparable() {
    let of = |after: f64| {
        let trial = replicas(|_, changed| vec![(CONNECTIONS, if changed { after } else { 0.0 })]);
        compare(&plan(&[CONNECTIONS]), &trial)
    };
    assert_eq!(
        told(&of(0.0)),
        ["not comparable: there were no connections"]
    );
    assert_eq!(
        told(&of(5.0)),
        ["not comparable: there were no connections before"]
    );
}

#[test]
fn what_moved_by_enough_to_matter() {
    let trial = pairs(8, &[(CONNECTIONS, 800.0, 1.18), (STOCK, 5000.0, 0.88)], 3.0);
    let compared = compare(&plan(&[CONNECTIONS, STOCK]), &trial);
    assert_eq!(
        told(&compared),
        [
            "higher by 17 % (13 to 20 %, 8 pairs)",
            "lower by 11 % (9.1 to 13 %, 8 pairs)"
        ]
    );
    assert_eq!(compared.verdict, Verdict::Better);
    assert_eq!(compared.verdict.exit_code(), 0);
    assert_eq!(compared.metrics[0].p, Some(2.0 / 256.0));
}

#[test]
fn what_moved_by_too_little_to_matter_and_what_did_not_move() {
    let trial = pairs(8, &[(CONNECTIONS, 800.0, 0.97), (STOCK, 5000.0, 1.0)], 1.0);
    let compared = compare(&plan(&[CONNECTIONS, STOCK]), &trial);
    assert_eq!(
        told(&compared),
        [
            "lower by 3.3 %: too small to matter (margin 10 %)",
            "unchanged within ±10 % (−0.32 to +0.93 %)"
        ]
    );
    assert_eq!(compared.verdict, Verdict::Unchanged);
}

#[test]
fn what_cannot_be_told_says_how_much_more_it_takes() {
    let trial = pairs(8, &[(CONNECTIONS, 800.0, 1.02)], 25.0);
    let compared = compare(&plan(&[CONNECTIONS]), &trial);
    assert_eq!(compared.verdict, Verdict::Undecided);
    assert_eq!(compared.verdict.exit_code(), 3);
    let said = told(&compared)[0];
    assert!(
        said.starts_with("undecided: −") && said.contains(" more pairs, "),
        "{said}"
    );
    let few = compare(
        &plan(&[CONNECTIONS]),
        &pairs(5, &[(CONNECTIONS, 800.0, 1.5)], 1.0),
    );
    assert_eq!(few.verdict, Verdict::Undecided);
    assert!(
        told(&few)[0].ends_with("an estimate from 5 pairs, too few for a verdict"),
        "{:?}",
        told(&few)
    );
}

#[test]
fn worse_is_worse_whatever_else_got_better() {
    let worse = pairs(8, &[(CONNECTIONS, 800.0, 1.3), (NO_PORT, 20.0, 1.5)], 1.0);
    let compared = compare(&plan(&[CONNECTIONS, NO_PORT]), &worse);
    assert_eq!(compared.verdict, Verdict::Worse);
    assert_eq!(compared.verdict.exit_code(), 1);
    // What does not decide, does not.
    let compared = compare(&plan(&[CONNECTIONS]), &worse);
    assert_eq!(compared.verdict, Verdict::Better);
    assert_eq!(compared.metrics[1].verdict, Finding::Higher);
    assert_eq!(compared.metrics[1].role, Role::Secondary);
    // More or fewer TIME_WAITs are no news in themselves.
    let stock = pairs(8, &[(STOCK, 800.0, 3.0)], 1.0);
    assert_eq!(compare(&plan(&[STOCK]), &stock).verdict, Verdict::Changed);
}

#[test]
fn reuse_in_eight_replicas() {
    let trial = replicas(|i, changed| {
        let (connections, no_port, reused) = if changed {
            (980.0, 0.0, 0.98)
        } else {
            (98.0, 902.0, 0.0)
        };
        vec![
            (CONNECTIONS, connections * NOISE[i]),
            (NO_PORT, no_port * NOISE[i + 3]),
            (REUSED, reused * NOISE[i + 5].min(1.0)),
            (LIFE, 61.0 * NOISE[i + 2].sqrt()),
        ]
    });
    let compared = compare(&plan(&[CONNECTIONS, NO_PORT, REUSED]), &trial);
    assert_eq!(compared.verdict, Verdict::Better);
    let said = told(&compared);
    assert!(said[0].starts_with("higher by 912 %"), "{said:?}");
    assert!(said[1].starts_with("lower by 899"), "{said:?}");
    assert!(said[1].ends_with("in 1,000, 4 and 4 replicas)"), "{said:?}");
    assert!(said[2].starts_with("higher by 97 points"), "{said:?}");
    for metric in compared.of_role(Role::Primary) {
        assert_eq!(metric.p_adjusted, Some(2.0 / 70.0), "{}", metric.name);
    }
    let life = &compared.metrics[3];
    assert_eq!(
        (life.role, life.verdict),
        (Role::Secondary, Finding::Unchanged)
    );
}

#[test]
fn failures_that_nobody_saw_are_bounded() {
    let trial = pairs(8, &[(NO_PORT, 0.0, 1.0)], 1.0);
    let compared = compare(&plan(&[NO_PORT]), &trial);
    // 48,000 connects on each side: 3 in 48,000.
    assert_eq!(
        told(&compared),
        ["none seen: at most 0.062 in 1,000 (48,000 connects)"]
    );
    assert_eq!(compared.verdict, Verdict::Unchanged);
    assert_eq!(compared.metrics[0].at_most, Some(1000.0 * 3.0 / 48_000.0));
}

#[test]
fn what_was_not_there_is_not_compared() {
    let mut trial = pairs(8, &[(CONNECTIONS, 800.0, 1.0), (LIFE, 61.0, 1.0)], 0.5);
    if let Trial::Pairs { pairs, .. } = &mut trial {
        pairs[2].after.read(LIFE, None, 12);
        for pair in pairs {
            pair.before.read(STOCK, None, 0);
            pair.after.read(STOCK, None, 0);
        }
    }
    let compared = compare(&plan(&[CONNECTIONS, LIFE, STOCK]), &trial);
    assert_eq!(
        told(&compared)[1..],
        [
            "not comparable: too few TIME_WAITs in pair 3, after to tell: 12",
            "not comparable: there were no TIME_WAITs in any phase"
        ]
    );
    assert_eq!(compared.verdict, Verdict::Unchanged);
    let nothing = compare(&plan(&[STOCK]), &trial);
    assert_eq!(nothing.verdict, Verdict::Undecided);
}

#[test]
fn from_something_to_nothing_is_lower_by_all_of_it() {
    let trial = pairs(8, &[(STOCK, 5000.0, 0.0)], 1.0);
    let compared = compare(&plan(&[STOCK]), &trial);
    assert_eq!(compared.metrics[0].verdict, Finding::Lower);
    assert!(
        told(&compared)[0].starts_with("lower by 100 % ("),
        "{:?}",
        told(&compared)
    );
}

#[test]
fn a_disagreement_withholds_the_verdict() {
    let mut trial = pairs(8, &[(CONNECTIONS, 800.0, 1.3)], 1.0);
    if let Trial::Pairs { pairs, .. } = &mut trial {
        for pair in &mut pairs[1..4] {
            pair.before.check("births", 900.0, 1000.0, 0.02, 5.0);
            pair.after.check("births", 999.0, 1000.0, 0.02, 5.0);
        }
    }
    let compared = compare(&plan(&[CONNECTIONS]), &trial);
    assert_eq!(compared.verdict, Verdict::Undecided);
    assert_eq!(
        compared.withheld,
        ["births do not agree in pair 2, before: 900 seen, 1,000 expected (and in 2 more)."]
    );
    assert_eq!(compared.metrics[0].verdict, Finding::Higher);
}

fn switch(effect: f64, placebos: usize) -> Trial {
    let one = |i: usize| phase(&format!("{i}"), &[(CONNECTIONS, 800.0 * NOISE[i])]);
    Trial::Switch {
        before: one(0),
        after: phase("after", &[(CONNECTIONS, 800.0 * effect)]),
        placebos: (0..placebos)
            .map(|i| [one(2 * i + 1), one(2 * i + 2)])
            .collect(),
        measured_s: 60.0,
        settle_s: 64.0,
    }
}

#[test]
fn one_switch_is_held_against_placebos() {
    let plan = plan(&[CONNECTIONS]);
    let moved = compare(&plan, &switch(1.3, 6));
    assert_eq!(moved.metrics[0].verdict, Finding::Higher);
    assert!(
        told(&moved)[0].ends_with("6 placebos)"),
        "{:?}",
        told(&moved)
    );
    let still = compare(&plan, &switch(1.01, 6));
    assert_eq!(still.metrics[0].verdict, Finding::Unchanged);
    let short = compare(&plan, &switch(1.3, 4));
    assert_eq!(short.verdict, Verdict::Undecided);
}

#[test]
fn figures_as_people_read_them() {
    for (x, text) in [
        (0.0, "0"),
        (0.0001, "0"),
        (0.0123, "0.012"),
        (0.4, "0.4"),
        (-9.71, "−9.7"),
        (12.4, "12"),
        (98_765.4, "98,765"),
        (3.0, "3"),
    ] {
        assert_eq!(words::number(x), text);
    }
}

fn changed(key: &str) -> Vec<SysctlChanged> {
    vec![SysctlChanged {
        netns: None,
        name: None,
        key: key.to_owned(),
        before: Some("60".to_owned()),
        after: Some("15".to_owned()),
    }]
}

#[test]
fn what_decides_follows_from_the_key() {
    let fin_timeout = Plan::in_the_lab(changed("net.ipv4.tcp_fin_timeout"), (6, 18));
    assert_eq!(
        fin_timeout.primary,
        ["fin_wait2_orphan_life_mean_s", LIFE, STOCK]
    );
    // It cannot move the life of a TIME_WAIT, and the lab can show that well.
    assert_eq!(fin_timeout.margins.get(LIFE), Some(&0.01));
    assert_eq!(
        Plan::of(changed("net.ipv4.tcp_fin_timeout"), (6, 18))
            .margins
            .len(),
        0
    );
    let reuse = Plan::in_the_lab(changed("net.ipv4.tcp_tw_reuse"), (6, 18));
    assert_eq!(reuse.primary, [CONNECTIONS, NO_PORT, REUSED]);
    assert_eq!(reuse.margins.len(), 0);
    let unknown = Plan::in_the_lab(changed("net.ipv4.tcp_wmem"), (6, 18));
    assert_eq!(unknown.primary, [CONNECTIONS, STOCK, LIFE]);
    assert_eq!(unknown.margins.len(), 0);
}

#[test]
fn what_a_key_cannot_have_moved_is_doubted() {
    let trial = pairs(8, &[(LIFE, 61.0, 0.5), (CONNECTIONS, 800.0, 1.4)], 1.0);
    let notes = |key: &str| compare(&Plan::of(changed(key), (6, 18)), &trial).notes;
    assert_eq!(
        notes("net.ipv4.tcp_fin_timeout"),
        [
            "time_wait_life_mean_s moved, but not by tcp_fin_timeout, which cannot move it: look for \
             what else changed.",
            "connections_per_s moved: tcp_fin_timeout can do so only where orphans in FIN_WAIT2 hold a \
             client's last ports."
        ]
    );
    assert_eq!(notes("net.ipv4.tcp_tw_reuse"), [""; 0]);
    assert_eq!(
        notes("net.ipv4.tcp_wmem"),
        ["net.ipv4.tcp_wmem was not studied: what it can move is not known here."]
    );
    let gone = notes("net.ipv4.tcp_tw_recycle");
    assert!(
        gone[0].starts_with("net.ipv4.tcp_tw_recycle is gone: Linux 4.11"),
        "{gone:?}"
    );
}
