//! A recording whose numbers no run can have written: each is refused by its line
//! and its member, whichever verb reads it, and none ends in a panic.

use serde_json::{Value, json};
use tracer::model::state_set::StateSet;
use tracer::options::{Color, CompareOptions, ReportOptions};
use tracer::recorder::file;
use tracer::recording::ReadError;
use tracer::render::terminal::Terminal;
use tracer::verbs::{compare, report};

const RECORDING: &str = include_str!("examples/recording.jsonl");

/// Every kind of line, with every member that holds a number.
fn lines() -> Vec<Value> {
    let mut lines: Vec<Value> = RECORDING
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut end = lines.pop().unwrap();
    lines.truncate(4);
    end["elapsed_s"] = lines[3]["elapsed_s"].clone();
    end["left_out"] =
        json!({"destinations": 1, "owners_time_wait_entered": 1, "remotes_time_wait_entered": 1});
    let mut namespace = lines[0]["namespaces"][0].clone();
    namespace["kind"] = "namespace".into();
    namespace["netns"] = 7.into();
    lines.insert(2, namespace);
    lines.insert(
        3,
        json!({
            "kind": "sysctl", "time": "2026-11-25T01:01:55Z", "elapsed_s": 1.5, "unchanged_s": 1.25,
            "netns": 7, "key": "net.ipv4.tcp_tw_reuse", "before": "2", "after": "1",
        }),
    );
    lines.push(end);
    lines
}

/// Visits each number with its members from the outermost in; of a list only the
/// first and the last item.
fn each_number(value: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String])) {
    match value {
        Value::Number(_) => see(path),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if i == 0 || i == items.len() - 1 {
                    path.push(i.to_string());
                    each_number(item, path, see);
                    path.pop();
                }
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                path.push(key.clone());
                each_number(member, path, see);
                path.pop();
            }
        }
        _ => {}
    }
}

/// What is at a path, of members and of places in lists.
fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match value {
        Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
        other => &mut other[step],
    })
}

/// `report` and `compare` of it. What they write is of no interest here.
fn read(text: &str) -> Result<(), ReadError> {
    for json in [false, true] {
        let options = ReportOptions {
            file: "-".into(),
            states: StateSet::default(),
            json,
            color: Color::Never,
        };
        let mut out = Vec::new();
        let lines = file::lines(text.as_bytes())?;
        if let Err(error) = report::write(&mut Terminal::new(&mut out, false), lines, &options) {
            return Err(error.downcast().expect("a read error"));
        }
    }
    let recording = file::lines(text.as_bytes())?.collect()?;
    let options = CompareOptions {
        before: "-".into(),
        after: None,
        at: None,
        json: true,
        color: Color::Never,
    };
    let mut out = Vec::new();
    // Too short to compare.
    let _ = compare::write(
        &mut Terminal::new(&mut out, false),
        &recording,
        None,
        &options,
    );
    Ok(())
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What may be as large as it likes: somebody asked for it, or it foretells.
const UNBOUNDED: [&str; 3] = ["interval_s", "duration_s", "exhausted_in_s"];

#[test]
fn no_number_is_believed_that_no_run_can_have_written() {
    let lines = lines();
    read(&text(&lines)).unwrap();
    let (mut tried, mut refused) = (0, 0);
    for (n, line) in lines.iter().enumerate() {
        let mut paths = Vec::new();
        each_number(line, &mut Vec::new(), &mut |path| paths.push(path.to_vec()));
        for path in paths {
            for hostile in [
                json!(1e300),
                json!(-1e300),
                json!(u64::MAX),
                json!(i64::MAX),
                json!(i64::MIN),
                json!(-1),
                json!(0.5),
                json!(4e17),
            ] {
                let mut lines = lines.clone();
                *at(&mut lines[n], &path) = hostile.clone();
                tried += 1;
                let what = format!("line {}, {path:?} as {hostile}", n + 1);
                match read(&text(&lines)) {
                    Ok(()) => {
                        let member = path.last().unwrap();
                        let free = n == 0 && UNBOUNDED.contains(&member.as_str())
                            || member == "exhausted_in_s";
                        let far = hostile.as_f64().unwrap().abs() > 1e299;
                        assert!(!far || free && hostile.as_f64() > Some(0.0), "{what}");
                    }
                    // An interval that does not fit is seen at its own end or at the next.
                    Err(ReadError::Refused { line, member, why }) => {
                        refused += 1;
                        assert!(!why.is_empty(), "{what}: no reason");
                        let here = line == n as u64 + 1 && names(&member, &path);
                        let next =
                            line > n as u64 && path == ["elapsed_s"] && member == "elapsed_s";
                        assert!(here || next, "{what}: refused as {line}, {member}: {why}");
                    }
                    Err(other) => panic!("{what}: {other}"),
                }
            }
        }
    }
    assert!(tried > 1_500 && refused * 2 > tried, "{refused} of {tried}");
}

/// Whether this is what holds the number at the path; or, of moments, one that it
/// contradicts.
fn names(member: &str, path: &[String]) -> bool {
    let moments = ["elapsed_s", "interval_s", "unchanged_s"];
    let first = member.split(['.', '[']).next().unwrap_or("");
    first == path[0] || moments.contains(&first) && moments.contains(&&*path[0])
}

/// The largest that any member may be, all at once.
#[test]
fn nothing_wraps_at_the_bounds() {
    let mut lines = lines();
    let whole = lines.clone();
    let mut largest = 0;
    for n in 1..lines.len() {
        let mut paths = Vec::new();
        each_number(&whole[n], &mut Vec::new(), &mut |path| {
            paths.push(path.to_vec());
        });
        for path in paths {
            for most in [
                json!(1_u64 << 48),
                json!(1_u64 << 32),
                json!(65_536),
                json!(3_600_000_000_u64),
                json!(3_600),
            ] {
                let was = std::mem::replace(at(&mut lines[n], &path), most);
                if read(&text(&lines)).is_ok() {
                    largest += 1;
                    break;
                }
                *at(&mut lines[n], &path) = was;
            }
        }
    }
    assert!(largest > 150, "{largest}");
}

#[test]
fn bands_of_no_edge_are_refused() {
    let mut lines = lines();
    let at = lines.len() - 2;
    lines[at]["time_wait"]["bands"] = json!({"ge": [], "n": []});
    let error = read(&text(&lines)).unwrap_err().to_string();
    assert!(
        error.starts_with("no run can have written its line 6: time_wait.bands.ge: "),
        "{error}"
    );
}

#[test]
fn nothing_comes_after_the_end() {
    let mut lines = lines();
    let end = lines.last().unwrap().clone();
    lines.push(end);
    let error = read(&text(&lines)).unwrap_err().to_string();
    assert_eq!(
        error,
        "no run can have written its line 8: kind: it comes after the end"
    );
}
