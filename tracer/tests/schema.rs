//! What is printed, and what the contract gives as examples, keep to the
//! published schemas; and the schemas would notice if it did not.

mod invented;
mod strict;

use jsonschema::Validator;
use serde_json::{Value, json};
use strict::{closed, must_fit, validator};
use tracer::model::snapshot::Lost;
use tracer::render::events::{Happenings, Json};
use tracer::render::json::JsonLines;
use tracer::render::terminal::Terminal;

fn snapshots() -> Validator {
    validator(include_str!("../../docs/schema/snapshot-1.json"))
}

fn events() -> Validator {
    validator(include_str!("../../docs/schema/event-1.json"))
}

fn must_not_fit(validator: &Validator, value: &Value, why: &str) {
    assert!(
        !validator.is_valid(value),
        "passes although {why}:\n{value:#}"
    );
}

/// The lines as they are printed, parsed.
fn printed_snapshots() -> Vec<Value> {
    let mut out = Vec::new();
    let mut sink = JsonLines::new(Terminal::new(&mut out, false));
    for snapshot in [invented::busy(), invented::quiet(), invented::lossy()] {
        invented::show(&mut sink, &snapshot);
    }
    lines(&out)
}

fn printed_events() -> Vec<Value> {
    let mut out = Vec::new();
    let mut sink = Json::new(Terminal::new(&mut out, false));
    let time = "2026-01-31T12:00:00.000123Z".parse().unwrap();
    for happening in invented::happenings() {
        let cgroup = happening.owner.map(|_| "/system.slice/x.service");
        sink.happening(&happening, time, cgroup).unwrap();
        sink.happening(&happening, time, None).unwrap();
    }
    sink.lost(
        time,
        &Lost {
            ring: 3,
            ..Lost::default()
        },
    )
    .unwrap();
    sink.flush().unwrap();
    lines(&out)
}

fn lines(out: &[u8]) -> Vec<Value> {
    std::str::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The example of the contract, with the eight states it leaves out.
fn example_snapshot() -> Value {
    let mut example: Value = serde_json::from_str(include_str!("examples/snapshot.json")).unwrap();
    let states = example["states"].as_object_mut().unwrap();
    for state in tracer::model::event::State::COUNTED {
        states
            .entry(state.name())
            .or_insert_with(|| json!({"now": 0, "seeded": 0, "entered": 0, "left": 0}));
    }
    example
}

#[test]
fn printed_snapshots_fit_their_schema() {
    let validator = snapshots();
    let printed = printed_snapshots();
    assert_eq!(printed.len(), 3);
    assert_eq!(printed[0]["time"], "2026-01-31T12:01:12.250Z");
    assert_eq!(printed[1]["time"], "2026-01-31T12:00:00.000Z");
    for snapshot in &printed {
        must_fit(&validator, snapshot);
    }
}

#[test]
fn every_printed_member_is_described() {
    for (schema, printed) in [
        (
            include_str!("../../docs/schema/snapshot-1.json"),
            printed_snapshots(),
        ),
        (
            include_str!("../../docs/schema/event-1.json"),
            printed_events(),
        ),
    ] {
        // Members that are described, and nothing else: what is printed beyond
        // the schema would be a promise nobody wrote down.
        let strict = closed(schema);
        for value in &printed {
            must_fit(&strict, value);
        }
    }
}

/// The report of the host that runs the test, whatever it may do there.
#[test]
fn the_doctors_report_is_described() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .args(["doctor", "--json", "--duration", "100ms"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = include_str!("../../docs/schema/doctor-1.json");
    must_fit(&validator(text), &report);
    must_fit(&closed(text), &report);
}

#[test]
fn the_contracts_snapshot_fits() {
    must_fit(&snapshots(), &example_snapshot());
}

#[test]
fn a_member_more_is_no_breach_and_a_member_less_is() {
    let validator = snapshots();
    let mut more = example_snapshot();
    more["new_in_2030"] = json!({"x": 1});
    more["time_wait"]["ended"]["new_reason"] = json!(1);
    must_fit(&validator, &more);

    let example = example_snapshot();
    for member in example.as_object().unwrap().keys() {
        let mut less = example.clone();
        less.as_object_mut().unwrap().remove(member);
        must_not_fit(&validator, &less, &format!("{member} is missing"));
    }
    for state in tracer::model::event::State::COUNTED {
        let mut less = example.clone();
        less["states"].as_object_mut().unwrap().remove(state.name());
        must_not_fit(&validator, &less, &format!("{} is missing", state.name()));
    }
    let mut wrong = example.clone();
    wrong["time_wait"]["lifetime_s"]
        .as_object_mut()
        .unwrap()
        .remove("p50");
    must_not_fit(&validator, &wrong, "21 lives have no median");
    let mut wrong = example;
    wrong["states"]["TIME_WAIT"]["now"] = json!(-1);
    must_not_fit(&validator, &wrong, "there are -1 sockets");
}

#[test]
fn printed_events_fit_their_schema() {
    let validator = events();
    let printed = printed_events();
    assert_eq!(printed.len(), 2 * invented::happenings().len() + 1);
    for event in &printed {
        must_fit(&validator, event);
    }
}

#[test]
fn the_contracts_events_fit_and_less_does_not() {
    let validator = events();
    let examples = lines(include_bytes!("examples/events.jsonl"));
    assert_eq!(examples.len(), 4);
    for (example, needed) in examples.iter().zip([
        &["schema", "time", "kind", "socket", "from", "to"][..],
        &["schema", "time", "kind", "socket", "state", "timeout_s"],
        &["schema", "time", "kind", "socket", "state"],
        &[
            "schema", "time", "kind", "socket", "state", "reason", "rearmed", "by",
        ],
    ]) {
        must_fit(&validator, example);
        for member in needed {
            let mut less = example.clone();
            less.as_object_mut().unwrap().remove(*member);
            must_not_fit(&validator, &less, &format!("{member} is missing"));
        }
    }
    let mut wrong = examples[0].clone();
    wrong["local"]["addr"] = json!("db01");
    must_not_fit(&validator, &wrong, "an end has a name for an address");
}
