//! What `compare` and `trial` print, of trials whose outcome is known.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tracer::analysis::compare::{Pair, Plan, Replica, SysctlChanged, Trial, compare};
use tracer::analysis::phase::Phase;
use tracer::render::comparison;
use tracer::render::terminal::Terminal;

const NOISE: [f64; 16] = [
    1.006, 0.993, 0.998, 1.011, 1.002, 0.989, 1.004, 0.997, 0.994, 1.008, 1.001, 0.996, 1.009,
    0.992, 1.003, 1.007,
];

fn plan(key: &str, before: &str, after: &str, primary: &[&str]) -> Plan {
    Plan {
        sysctls_changed: vec![SysctlChanged {
            netns: None,
            name: None,
            key: key.to_owned(),
            before: Some(before.to_owned()),
            after: Some(after.to_owned()),
        }],
        primary: primary.iter().map(|name| (*name).to_owned()).collect(),
        margins: BTreeMap::new(),
        kernel: Some((6, 18)),
    }
}

fn phase(name: String, seconds: f64, noise: f64, readings: &[(&str, f64, f64)]) -> Phase {
    let mut phase = Phase {
        name,
        seconds,
        ..Phase::default()
    };
    for (name, value, spread) in readings {
        let value = value * (1.0 + spread * (noise - 1.0));
        phase.read(*name, Some(value), 19_800);
    }
    phase.check("births and the kernel's", 19_800.0, 19_801.0, 0.01, 2.0);
    phase.check("stock and Little's law", 18_300.0, 18_310.0, 0.05, 10.0);
    phase
}

fn page(plan: &Plan, trial: &Trial) -> String {
    let mut out = Vec::new();
    let lines = comparison::text(&compare(plan, trial), 80);
    Terminal::new(&mut out, false).page(&lines).unwrap();
    String::from_utf8(out).unwrap()
}

/// tcp_tw_reuse where ports are short, in the lab.
fn reuse() -> (Plan, Trial) {
    let chosen = [true, false, false, true, true, false, true, false];
    let replica = |(i, changed): (usize, bool)| {
        let (connections, no_port, reused, life) = if changed {
            (980.0, 0.0, 0.98, 1.2)
        } else {
            (98.0, 902.0, 0.0, 61.0)
        };
        let readings = [
            ("connections_per_s", connections, 1.0),
            ("connect_failures_per_1000.ports_exhausted", no_port, 1.0),
            ("time_wait_ended_share.reused_by_connect", reused, 0.1),
            ("time_wait_ended_share.expired", 1.0 - reused, 0.1),
            ("time_wait_life_mean_s", life, 0.3),
            ("time_wait_live_mean", 5990.0, 0.2),
        ];
        Replica {
            phase: phase(format!("replica {}", i + 1), 66.0, NOISE[i], &readings),
            changed,
        }
    };
    let trial = Trial::Parallel {
        replicas: chosen.into_iter().enumerate().map(replica).collect(),
        measured_s: 66.0,
        settle_s: 64.0,
        seed: 42,
    };
    let primary = [
        "connections_per_s",
        "connect_failures_per_1000.ports_exhausted",
        "time_wait_ended_share.reused_by_connect",
    ];
    (plan("net.ipv4.tcp_tw_reuse", "0", "1", &primary), trial)
}

/// A key that does nothing, on a machine whose load wanders.
fn nothing() -> (Plan, Trial) {
    let wander = [1.0, 1.2, 0.9, 1.1, 0.8, 1.0, 1.3, 0.95];
    let pair = |i: usize| {
        let one = |after: bool| {
            let noise = NOISE[2 * i + usize::from(after)];
            let load = wander[i] * (1.0 + 9.0 * (noise - 1.0));
            let readings = [
                ("connections_per_s", 300.0 * load, 0.0),
                ("time_wait_live_mean", 18_300.0 * load, 0.0),
                ("time_wait_life_mean_s", 61.0, 0.1),
            ];
            let arm = if after { "after" } else { "before" };
            phase(format!("pair {}, {arm}", i + 1), 60.0, noise, &readings)
        };
        Pair {
            before: one(false),
            after: one(true),
            changed_first: i % 3 == 1,
        }
    };
    let trial = Trial::Pairs {
        pairs: (0..8).map(pair).collect(),
        measured_s: 60.0,
        settle_s: 64.0,
        seed: 7,
    };
    let primary = [
        "connections_per_s",
        "time_wait_live_mean",
        "time_wait_life_mean_s",
    ];
    (plan("net.ipv4.tcp_syncookies", "0", "1", &primary), trial)
}

#[test]
fn replicas_side_by_side() {
    let (plan, trial) = reuse();
    insta::assert_snapshot!(page(&plan, &trial));
}

#[test]
fn pairs_that_cannot_all_be_decided() {
    let (plan, trial) = nothing();
    insta::assert_snapshot!(page(&plan, &trial));
}

#[test]
fn figures_that_contradict_each_other() {
    let (plan, mut trial) = nothing();
    if let Trial::Pairs { pairs, .. } = &mut trial {
        pairs[3]
            .after
            .check("births and the kernel's", 17_000.0, 19_800.0, 0.01, 2.0);
    }
    let first: String = page(&plan, &trial)
        .lines()
        .take(3)
        .collect::<Vec<_>>()
        .join("\n");
    insta::assert_snapshot!(first);
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/schema/comparison-1.json")).unwrap()
}

/// Sentences about what does not fit; empty: all does.
fn misfits(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    let told =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(value).map(told).collect()
}

fn printed() -> Vec<Value> {
    let (reuse_plan, parallel) = reuse();
    let (plan, pairs) = nothing();
    let one = |name: &str, stray: f64| {
        let readings = [("connections_per_s", 300.0 * stray, 0.0)];
        phase(name.to_owned(), 60.0, 1.0, &readings)
    };
    let switch = Trial::Switch {
        before: one("before", 1.0),
        after: one("after", 1.4),
        placebos: (0..6)
            .map(|i| [one("a", 1.0), one("b", NOISE[i])])
            .collect(),
        measured_s: 60.0,
        settle_s: 64.0,
    };
    [(&reuse_plan, &parallel), (&plan, &pairs), (&plan, &switch)]
        .into_iter()
        .map(|(plan, trial)| {
            let mut out = Vec::new();
            Terminal::new(&mut out, false)
                .json(&compare(plan, trial))
                .unwrap();
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            serde_json::from_slice(&out).unwrap()
        })
        .collect()
}

/// Forbids what the schema does not name, wherever it names members.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let names =
                object.get("type") == Some(&json!("object")) && object.contains_key("properties");
            object.values_mut().for_each(close);
            if names {
                object.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(array) => array.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn comparisons_fit_their_schema_and_hold_nothing_it_does_not_name() {
    let mut closed = schema();
    close(&mut closed);
    for (value, kind) in printed().iter().zip(["parallel", "pairs", "switch"]) {
        assert_eq!(value["design"]["kind"], *kind);
        assert_eq!(misfits(&closed, value), [""; 0], "{value:#}");
    }
}

#[test]
fn the_contracts_comparison_fits_and_less_does_not() {
    let example: Value = serde_json::from_str(include_str!("examples/comparison.json")).unwrap();
    assert_eq!(misfits(&schema(), &example), [""; 0]);
    for member in example.as_object().unwrap().keys() {
        let mut less = example.clone();
        less.as_object_mut().unwrap().remove(member);
        assert_ne!(misfits(&schema(), &less), [""; 0], "{member} is missing");
    }
    for member in ["ratio", "p", "before", "name", "verdict"] {
        let mut less = example.clone();
        less["metrics"][0].as_object_mut().unwrap().remove(member);
        assert_ne!(misfits(&schema(), &less), [""; 0], "{member} is missing");
    }
}
