//! Whatever others call their processes, namespaces and files, and whatever
//! stands in a recording of theirs: none of it steers the terminal of whoever
//! reads what twtrace prints.

mod hostile;
mod invented;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hostile::{COMM, NAME, fault, file_name};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tracer::knowledge::sysctls;
use tracer::model::happening::What;
use tracer::model::snapshot::{Holder, Snapshot};
use tracer::model::state_set::StateSet;
use tracer::render::events::{Happenings, Json, Show, Text};
use tracer::render::explain::{self, Found};
use tracer::render::json::JsonLines;
use tracer::render::live::{PlainTables, Redrawn, Size, Snapshots};
use tracer::render::terminal::Terminal;

const RECORDING: &str = include_str!("examples/recording.jsonl");

/// The colours there are, and what moves the cursor of `live`.
const OURS: [&str; 10] = [
    "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[H", "\x1b[2J",
    "\x1b[K", "\x1b[J",
];

fn twtrace(words: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .args(words)
        .output()
        .unwrap()
}

/// Runs it as it is and in colour, and looks at all that it says.
fn run_clean(words: &[&str]) -> Output {
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let plain = twtrace(&words);
    must_be_clean(&plain, &[], &words);
    plain
}

fn must_be_clean(output: &Output, ours: &[&str], what: &dyn std::fmt::Debug) {
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if let Some(fault) = fault(bytes, ours) {
            panic!("{what:?}: on {name}, {fault}");
        }
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{what:?}: {errors}");
}

/// The eight seconds of the example as so many, with a change in the middle and a
/// namespace that came later: so that there is something to compare, and every
/// kind of line.
fn recording(seconds: u32) -> Vec<Value> {
    let lines: Vec<Value> = RECORDING
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (header, frames, end) = (
        &lines[0],
        &lines[1..lines.len() - 1],
        &lines[lines.len() - 1],
    );
    let time = |value: &Value| -> Timestamp { value.as_str().unwrap().parse().unwrap() };
    let mut long = vec![header.clone(), frames[0].clone()];
    long[0]["namespaces"][0]["name"] = "client".into();
    long[0]["command"] = serde_json::json!(["sleep", "150"]);
    let mut namespace = header["namespaces"][0].clone();
    namespace["kind"] = "namespace".into();
    namespace["netns"] = 7.into();
    namespace["name"] = "blue".into();
    long.push(namespace);
    let began = frames[0]["elapsed_s"].as_f64().unwrap();
    for n in 1..=seconds {
        let mut frame = frames[1 + (n as usize - 1) % (frames.len() - 1)].clone();
        let elapsed_s = began + f64::from(n);
        frame["seq"] = n.into();
        frame["elapsed_s"] = elapsed_s.into();
        frame["interval_s"] = 1.0.into();
        frame["time"] = (time(&frames[0]["time"]) + SignedDuration::from_secs(n.into()))
            .to_string()
            .into();
        frame["namespaces"][0]["name"] = "client".into();
        if n == seconds * 2 / 5 {
            long.push(serde_json::json!({
                "kind": "sysctl", "time": frame["time"], "elapsed_s": elapsed_s,
                "unchanged_s": elapsed_s - 1.0, "netns": header["namespaces"][0]["netns"],
                "name": "client", "key": "net.ipv4.tcp_tw_reuse", "before": "2", "after": "1",
            }));
        }
        long.push(frame);
    }
    let mut end = end.clone();
    end["command_status"] = "exit status: 0".into();
    end["frames"] = (seconds + 1).into();
    end["elapsed_s"] = (began + f64::from(seconds)).into();
    let mut other = end["namespaces"][0].clone();
    end["namespaces"][0]["name"] = "client".into();
    other["name"] = "blue".into();
    other["netns"] = 7.into();
    end["namespaces"].as_array_mut().unwrap().push(other);
    end["owners"] = serde_json::json!([
        {"pid": 812, "comm": "curl", "cgroup": "/system.slice/x.service", "time_wait_entered": 800}
    ]);
    long.push(end);
    long
}

/// A step to a value: a member, or any place of a list.
fn step(path: &str, key: &str) -> String {
    format!("{path}.{key}")
}

/// Visits every string: what it is a part of, whether it is a key, and what
/// replaces it.
fn each_string(value: &mut Value, path: &str, see: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => see(path, text),
        Value::Array(items) => {
            for item in items {
                each_string(item, &step(path, "[]"), see);
            }
        }
        Value::Object(members) => {
            let mut seen = serde_json::Map::new();
            for (mut key, mut member) in std::mem::take(members) {
                // One sysctl stands for all of them.
                let is_sysctl = key.starts_with("net.") && !key.ends_with(".tcp_tw_reuse");
                if !is_sysctl {
                    each_string(&mut member, &step(path, &key), see);
                    see(&format!("{path}.{key} (key)"), &mut key);
                }
                seen.insert(key, member);
            }
            *members = seen;
        }
        _ => {}
    }
}

fn written(lines: &[Value], to: &Path) {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(to, lines).unwrap();
}

/// Where strings are free by the schema (docs/schema/recording-1.json), by their
/// paths below the line.
const FREE: [&str; 25] = [
    "header.version",
    "header.host.name",
    "header.host.kernel",
    "header.host.boot_id",
    "header.scope.netns",
    "header.scope.filter",
    "header.command.[]",
    "header.namespaces.[].name",
    "header.namespaces.[].sysctls.net.ipv4.tcp_tw_reuse",
    "header.namespaces.[].sysctls.net.ipv4.tcp_tw_reuse (key)",
    "namespace.name",
    "namespace.sysctls.net.ipv4.tcp_tw_reuse",
    "namespace.sysctls.net.ipv4.tcp_tw_reuse (key)",
    "sysctl.name",
    "sysctl.key",
    "sysctl.before",
    "sysctl.after",
    "frame.namespaces.[].name",
    "frame.kernel.counters.TW (key)",
    "end.command_status",
    "end.owners.[].comm",
    "end.owners.[].cgroup",
    "end.namespaces.[].name",
    "frame.kernel.counters.TWRecycled (key)",
    "frame.kernel.counters.ActiveOpens (key)",
];

fn line_of(line: &Value) -> String {
    line["kind"].as_str().unwrap().to_owned()
}

/// Two recordings that differ by a setting, where both have these strings.
fn pair(folder: &Path, lines: &[Value], change: &dyn Fn(&mut Vec<Value>)) -> [PathBuf; 2] {
    let mut first = lines.to_vec();
    change(&mut first);
    let mut second = lines.to_vec();
    second[0]["time"] = "2026-11-25T02:01:53.531Z".into();
    change(&mut second);
    let paths = [folder.join("first.jsonl"), folder.join("second.jsonl")];
    written(&first, &paths[0]);
    written(&second, &paths[1]);
    paths
}

fn verbs(first: &str, second: &str) -> Vec<Vec<String>> {
    [
        format!("report {first}"),
        format!("report --json {first}"),
        format!("compare {first}"),
        format!("compare --json {first}"),
        format!("compare {first} {second}"),
        format!("compare --json {first} {second}"),
    ]
    .iter()
    .map(|words| words.split(' ').map(str::to_owned).collect())
    .collect()
}

/// All that are free at once: everything is read, and shown.
#[test]
fn a_recording_of_escapes_is_shown_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    let mut lines = recording(150);
    for line in &mut lines {
        let kind = line_of(line);
        each_string(line, &kind, &mut |path, text| {
            if FREE.contains(&path) {
                seen.insert(path.to_owned());
                text.push_str(NAME);
            }
        });
    }
    let unseen: Vec<&&str> = FREE.iter().filter(|path| !seen.contains(**path)).collect();
    assert!(unseen.is_empty(), "no such string: {unseen:?}");
    let [first, second] = pair(folder.path(), &lines, &|_| ());
    for words in verbs(first.to_str().unwrap(), second.to_str().unwrap()) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = run_clean(&words);
        // An estimate is undecided: 3.
        let code = output.status.code();
        let expected = if words[0] == "report" { 0 } else { 3 };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code, Some(expected), "{words:?}: {said}");
        let said = String::from_utf8_lossy(&output.stdout);
        if words.contains(&"--json") {
            let value: Value = serde_json::from_str(&said).unwrap();
            assert!(
                words[0] != "report" || value["host"]["name"] == format!("db01{NAME}"),
                "what JSON says is not what was there: {said}"
            );
        } else {
            assert!(said.contains("\u{fffd}[2J"), "{words:?}: {said}");
        }
        let mut colours = vec!["--color", "always"];
        colours.splice(0..0, words);
        let words: Vec<&OsStr> = colours.iter().map(OsStr::new).collect();
        must_be_clean(&twtrace(&words), &OURS[..6], &words);
    }
}

/// One after the other, free or not: what is refused is refused in words that can
/// be read.
#[test]
fn escapes_in_any_string_of_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = BTreeSet::new();
    let lines = recording(5);
    for line in &mut lines.clone() {
        let kind = line_of(line);
        each_string(line, &kind, &mut |path, _| {
            paths.insert(path.to_owned());
        });
    }
    assert!(paths.len() > 100, "{} strings", paths.len());
    for path in &paths {
        let change = |lines: &mut Vec<Value>| {
            let mut done = false;
            for line in lines.iter_mut() {
                let kind = line_of(line);
                each_string(line, &kind, &mut |here, text| {
                    if here == path && !done {
                        text.push_str(NAME);
                        done = true;
                    }
                });
                if done {
                    break;
                }
            }
            assert!(done, "{path}");
        };
        let [first, second] = pair(folder.path(), &lines, &change);
        let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
        run_clean(&["report", first]);
        run_clean(&["compare", first, second]);
    }
}

/// Cut off in the middle, and no recording at all.
#[test]
fn what_is_no_recording_is_refused_in_words_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    let path = file.to_str().unwrap();
    let schema = |name: &str| {
        format!(
            "{}\n",
            serde_json::json!({"kind": "header", "schema": name})
        )
    };
    let first = RECORDING.lines().next().unwrap();
    for text in [
        NAME.to_owned(),
        format!("{NAME}\n"),
        format!("{{\"schema\":\"{}\"}}\n", "\u{202e}".repeat(4000)),
        schema(NAME),
        schema(&format!("twtrace.recording/{NAME}")),
        format!("{first}\n{NAME}\n"),
        format!("{first}\n{{\"kind\":\"frame\",\"exactness\":\"\u{202e}\"}}\n"),
        format!(
            "{first}\n{}",
            serde_json::json!({"kind": "end", "ended": NAME})
        ),
    ] {
        fs::write(&file, text).unwrap();
        for words in verbs(path, path) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            run_clean(&words);
        }
    }
}

#[test]
fn words_of_the_command_line_come_back_without_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let name = file_name();
    let file = folder.path().join(&name);
    let there = file.to_str().unwrap();
    fs::write(&file, NAME).unwrap();
    let setting = format!("{name}=1");
    for words in [
        &["report", &*name][..],
        &["report", there],
        &["compare", &name, there],
        &["compare", there, there],
        &["compare", there, "--at", &name],
        &["record", "-o", &format!("/nowhere/{name}")],
        &["explain", &name],
        &[&name],
        &[&format!("--{name}")],
        &["live", "--netns", &name],
        &["live", "--netns", there],
        &["live", "--cgroup", &name],
        &["live", "--dst", &name],
        &["live", "--state", &name],
        &["live", "--interval", &name],
        &["events", &name],
        &["lab", "--", &name],
        &["lab", "--sysctl", &setting, "--", "live"],
        &["lab", "--sysctl", &name, "--", "live"],
        &["lab", "--", "trial", "--set", &setting],
        &["live", "--log-level", &name],
    ] {
        let output = run_clean(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
    // As no string can be.
    let raw = OsStr::from_bytes(b"\xff\x1b[2J\x9b");
    for words in [
        &[raw][..],
        &[OsStr::new("report"), raw],
        &[OsStr::new("live"), OsStr::new("--netns"), raw],
        &[OsStr::new("live"), OsStr::new("--comm"), raw],
    ] {
        must_be_clean(&twtrace(words), &[], &words);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .arg0(&name)
        .arg("--no-such-option")
        .output()
        .unwrap();
    must_be_clean(&output, &[], &"arg0");
}

/// With every string that it has from others.
fn hostile_snapshot() -> Snapshot {
    let mut snapshot = invented::lossy();
    let mut busy = invented::busy();
    snapshot.owners.append(&mut busy.owners);
    snapshot.host.name = NAME.into();
    snapshot.host.kernel = NAME.into();
    snapshot.host.boot_id = NAME.into();
    snapshot.version = NAME.into();
    snapshot.scope.netns = NAME.into();
    snapshot.scope.filter = NAME.into();
    for owner in &mut snapshot.owners {
        owner.comm = NAME.into();
        owner.cgroup = Some(format!("/{NAME}"));
    }
    for namespace in &mut snapshot.namespaces {
        namespace.name = Some(NAME.into());
    }
    let hostile = || Holder {
        pid: 7,
        comm: NAME.into(),
        cgroup: Some(format!("/{NAME}")),
    };
    for connects in &mut snapshot.connects {
        (connects.owner, connects.failing) = (Some(hostile()), Some(hostile()));
    }
    if let Some(stock) = &mut snapshot.stock {
        for route in &mut stock.routes {
            route.holder = Some(hostile());
        }
        for listener in &mut stock.listeners {
            (listener.holder, listener.accept_queue) = (Some(hostile()), 200);
        }
    }
    snapshot
}

#[test]
fn live_shows_no_escapes_of_others() {
    let snapshot = hostile_snapshot();
    assert!(!snapshot.owners.is_empty() && snapshot.namespaces.len() > 1);
    let show = |shown: &mut dyn Snapshots| invented::show(shown, &snapshot);
    let mut out = Vec::new();
    show(&mut PlainTables::new(
        Terminal::new(&mut out, true),
        StateSet::ALL,
    ));
    assert_eq!(fault(&out, &OURS[..6]), None);
    assert!(String::from_utf8_lossy(&out).contains('\u{fffd}'));
    for columns in [10, 40, 80, 200] {
        let mut out = Vec::new();
        let size = || Size { columns, rows: 60 };
        let mut screen = Redrawn::new(Terminal::new(&mut out, true), size, StateSet::ALL);
        show(&mut screen);
        let all = String::from_utf8(out).unwrap();
        // Its own control sequences are there once, and those of names nowhere.
        assert_eq!(all.matches("\x1b[2J").count(), 1);
        assert_eq!(fault(all.as_bytes(), &OURS), None);
    }
    let mut out = Vec::new();
    show(&mut JsonLines::new(Terminal::new(&mut out, true)));
    assert_eq!(fault(&out, &[]), None);
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["owners"][0]["comm"], NAME);
}

#[test]
fn events_show_no_escapes_of_others() {
    let tell = |sink: &mut dyn Happenings| {
        for mut happening in invented::happenings() {
            if let Some(owner) = &mut happening.owner {
                owner.comm = Some(*COMM);
            }
            if let What::MinisocketEnd { by, .. } = &mut happening.what {
                by.comm = Some(*COMM);
            }
            sink.happening(&happening, Timestamp::UNIX_EPOCH, Some(NAME))
                .unwrap();
        }
        sink.flush().unwrap();
    };
    let mut out = Vec::new();
    let terminal = Terminal::new(&mut out, true);
    tell(&mut Text::new(
        terminal,
        TimeZone::UTC,
        Show { netns: true },
    ));
    assert_eq!(fault(&out, &OURS[..6]), None);
    let mut out = Vec::new();
    tell(&mut Json::new(Terminal::new(&mut out, false)));
    assert_eq!(fault(&out, &[]), None);
    let events = String::from_utf8(out).unwrap();
    let cgroups: BTreeSet<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|event| Some(event["cgroup"].as_str()?.to_owned()))
        .collect();
    assert_eq!(cgroups, BTreeSet::from([NAME.to_owned()]));
}

#[test]
fn explain_shows_no_escapes_of_others() {
    let found = Found {
        here: Some(NAME.into()),
        elsewhere: vec![(NAME.into(), vec![NAME.into(), NAME.into()])],
        others: 2,
    };
    let mut out = Vec::new();
    let key = sysctls::find("tcp_tw_reuse").unwrap();
    Terminal::new(&mut out, true)
        .page(&explain::sysctl(key, &found, (6, 18), 80))
        .unwrap();
    assert_eq!(fault(&out, &OURS[..6]), None);
    assert!(String::from_utf8_lossy(&out).contains("\u{fffd}[2J"));
}

/// What goes around the one place that makes text safe is found here: the outputs
/// belong to `output.rs`, and JSON is written by `printable.rs`.
#[test]
fn nobody_writes_past_the_terminal() {
    let owners = BTreeMap::from([
        ("io::stdout", "output.rs"),
        ("io::stderr", "output.rs"),
        ("anstream::stdout", "nobody"),
        ("anstream::stderr", "nobody"),
        ("serde_json::to_", "nobody"),
        ("serde_json::ser", "printable.rs"),
        ("/dev/std", "nobody"),
        ("/dev/tty", "nobody"),
    ]);
    let mut found = Vec::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "tests.rs" || !name.ends_with(".rs") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap();
        for (what, owner) in &owners {
            if code.contains(what) && name != *owner {
                found.push(format!("{} has {what}", path.display()));
            }
        }
    }
    assert!(files > 100, "{files} files");
    assert!(found.is_empty(), "{found:#?}");
}
