//! What `report` says of a recording: one of eight seconds of a lab, whole, and
//! broken off in the middle of a frame.

mod strict;

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use strict::{closed, must_fit, validator};

const RECORDING: &str = include_str!("examples/recording.jsonl");

fn report(recording: &str, words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.jsonl");
    fs::write(&file, recording).unwrap();
    Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .arg("report")
        .arg(&file)
        .args(words)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn said(recording: &str, words: &[&str]) -> String {
    let output = report(recording, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

/// As a machine that lost power leaves it.
fn torn() -> &'static str {
    let frame = RECORDING
        .match_indices("{\"kind\":\"frame\"")
        .nth(4)
        .map(|(at, _)| at)
        .unwrap();
    &RECORDING[..frame + 100]
}

#[test]
fn a_whole_recording() {
    insta::assert_snapshot!(said(RECORDING, &[]));
}

#[test]
fn a_recording_broken_off() {
    insta::assert_snapshot!(said(torn(), &["--state", "time-wait"]));
}

#[test]
fn as_json_it_is_a_snapshot_of_the_whole_run() {
    let snapshots = closed(include_str!("../../docs/schema/snapshot-1.json"));
    for (recording, frames) in [(RECORDING, 9.0), (torn(), 4.0)] {
        let printed: Value = serde_json::from_str(&said(recording, &["--json"])).unwrap();
        must_fit(&snapshots, &printed);
        let elapsed = printed["elapsed_s"].as_f64().unwrap();
        assert!((elapsed - frames).abs() < 1.0, "{printed:#}");
    }
}

/// A recording that contradicts itself is refused by line and member.
#[test]
fn least_above_most_is_refused() {
    let odd: String = RECORDING
        .lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            turn_around(&mut value);
            format!("{value}\n")
        })
        .collect();
    assert!(odd.contains("\"max_s\":0.0"), "nothing was changed");
    let output = report(&odd, &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("its line 3: connect.latency_s.min_s: "),
        "{errors}"
    );
}

fn turn_around(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(most) = members.get_mut("max_s") {
                *most = 0.0.into();
            }
            members.values_mut().for_each(turn_around);
        }
        Value::Array(items) => items.iter_mut().for_each(turn_around),
        _ => {}
    }
}

#[test]
fn its_lines_fit_their_schema() {
    let lines = validator(include_str!("../../docs/schema/recording-1.json"));
    for line in RECORDING.lines() {
        must_fit(&lines, &serde_json::from_str(line).unwrap());
    }
}
