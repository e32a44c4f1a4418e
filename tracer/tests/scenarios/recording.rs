//! Frames of a run add up to its snapshots, whatever happens in it and wherever
//! it is cut; and what is written is what is read, up to the last whole line.

use std::io::BufReader;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use tracer::model::event::{Event, Moment, Reason};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;
use tracer::model::ledger::Ledger;
use tracer::model::snapshot::Snapshot;
use tracer::recording::{
    Anchor, Cutter, End, Ended, Frame, Header, Line, Lines, NamespaceSettings, ReadError,
    Recording, SCHEMA, Sum, SysctlChange, Sysctls,
};

use super::properties::{Act, any_act, cases, connection, play};
use super::script::{moment, new_ledger, snapshot};

/// Cuts a frame off at each moment it is told.
#[derive(Default)]
struct Run {
    cutter: Cutter,
    frames: Vec<Frame>,
}

impl Run {
    fn cut(&mut self, ledger: &mut Ledger, at: Moment) -> Snapshot {
        let snapshot = snapshot(ledger, self.frames.len() as u64, at);
        self.frames
            .push(self.cutter.cut(&snapshot, &ledger.sums(), at));
        snapshot
    }
}

fn header() -> Header {
    Header {
        schema: SCHEMA.to_owned(),
        version: "0".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        host: tracer::model::snapshot::Host {
            name: "h".into(),
            kernel: "6.18".into(),
            boot_id: "b".into(),
            hz: 250,
        },
        clock: Anchor {
            monotonic_ns: 7,
            time: Timestamp::UNIX_EPOCH,
        },
        scope: tracer::model::snapshot::Scope {
            netns: "all".into(),
            filter: String::new(),
        },
        interval_s: 1.0,
        duration_s: Some(130.0),
        command: None,
        events: false,
        seeded: [("LISTEN".to_owned(), 2)].into(),
        namespaces: vec![settings(0.0, "0")],
    }
}

fn settings(elapsed_s: f64, tw_reuse: &str) -> NamespaceSettings {
    NamespaceSettings {
        time: Timestamp::UNIX_EPOCH,
        elapsed_s,
        netns: 1,
        name: Some("blue".to_owned()),
        sysctls: Sysctls::from([("net.ipv4.tcp_tw_reuse".to_owned(), tw_reuse.to_owned())]).into(),
    }
}

fn end(snapshot: &Snapshot, frames: u64) -> End {
    End {
        time: snapshot.time,
        elapsed_s: snapshot.elapsed_s,
        frames,
        ended: Ended::Duration,
        command_status: None,
        owners: snapshot.owners.clone(),
        remotes: snapshot.remotes.clone(),
        left_out: snapshot.left_out,
        namespaces: snapshot.namespaces.clone(),
        in_state_s: snapshot
            .in_state_s
            .iter()
            .map(|(state, distribution)| ((*state).to_owned(), *distribution))
            .collect(),
    }
}

fn written<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        line.write(&mut bytes).unwrap();
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Recording, ReadError> {
    Lines::new(BufReader::new(bytes)).and_then(Lines::collect)
}

/// The header, and each line after it.
fn read_lines(bytes: &[u8]) -> (Line, Vec<Line>) {
    let lines = Lines::new(bytes).unwrap();
    let header = Line::Header(Box::new(lines.header().clone()));
    (header, lines.map(Result::unwrap).collect())
}

/// A minute of connections, cut each second, with a change of a sysctl in it.
fn lines() -> Vec<Line> {
    let mut ledger = new_ledger(Filter::default());
    let mut run = Run::default();
    let mut events: Vec<Event> = (1..30)
        .flat_map(|number| connection(number, number as f64 / 5.0, Reason::Expired))
        .collect();
    events.sort_by_key(|event| match event {
        Event::Step(step) => step.at,
        Event::Birth { at, .. } | Event::Reading { at, .. } | Event::End { at, .. } => *at,
        other => panic!("no connection has a {other:?}"),
    });
    let mut lines = vec![Line::Header(Box::new(header()))];
    let mut events = events.into_iter().peekable();
    for second in 1..=8 {
        let until = moment(f64::from(second));
        while let Some(event) = events.next_if(|event| match event {
            Event::Step(step) => step.at <= until,
            Event::Birth { at, .. } | Event::Reading { at, .. } | Event::End { at, .. } => {
                *at <= until
            }
            _ => false,
        }) {
            ledger.apply(&event, &mut |_: &Happening| {});
        }
        let snapshot = run.cut(&mut ledger, until);
        let frame = run.frames.last().unwrap().clone();
        lines.push(Line::Frame(Box::new(frame)));
        if second == 5 {
            lines.push(Line::Sysctl(SysctlChange {
                time: Timestamp::UNIX_EPOCH,
                elapsed_s: 5.0,
                unchanged_s: 4.0,
                netns: 1,
                name: None,
                key: "net.ipv4.tcp_tw_reuse".to_owned(),
                before: "0".to_owned(),
                after: "1".to_owned(),
            }));
        }
        if second == 8 {
            lines.push(Line::End(Box::new(end(&snapshot, 8))));
        }
    }
    lines
}

#[test]
fn what_is_written_is_read() {
    let lines = lines();
    let bytes = written(&lines);
    let (header, again) = read_lines(&bytes);
    assert_eq!(header, lines[0]);
    assert_eq!(again, lines[1..]);
    let recording = read(&bytes).unwrap();
    assert_eq!(recording.torn, None);
    assert_eq!(recording.frames.len(), 8);
    let reuse_at = |s| recording.sysctls_at(1, s).unwrap()["net.ipv4.tcp_tw_reuse"].clone();
    assert_eq!(
        (reuse_at(4.9), reuse_at(5.0)),
        ("0".to_owned(), "1".to_owned())
    );
    assert_eq!(recording.sysctls_at(2, 9.0), None);
}

#[test]
fn cut_at_any_byte_it_is_read_up_to_its_last_whole_frame() {
    let lines = lines();
    let bytes = written(&lines);
    let whole = read(&bytes).unwrap();
    let ends: Vec<(usize, bool)> = lines
        .iter()
        .scan(0, |end, line| {
            *end += written([line]).len();
            Some((*end, matches!(line, Line::Frame(_))))
        })
        .collect();
    let header = ends[0].0;
    for cut in 0..bytes.len() {
        let result = read(&bytes[..cut]);
        // A newline that is missing takes nothing from a line.
        if cut + 1 < header {
            assert!(
                matches!(result, Err(ReadError::Empty | ReadError::NoHeader)),
                "{cut}: {result:?}"
            );
            continue;
        }
        let recording = result.unwrap_or_else(|error| panic!("{cut}: {error}"));
        let frames = ends
            .iter()
            .filter(|(end, frame)| *frame && *end <= cut + 1)
            .count();
        let read = recording.frames.stocks();
        assert_eq!(read, &whole.frames.stocks()[..frames], "cut at {cut}");
        let between = ends
            .iter()
            .any(|(end, _)| (*end..=end + 1).contains(&(cut + 1)));
        assert_eq!(recording.torn.is_none(), between, "cut at {cut}");
    }
}

/// Whatever is no recording is told from one by its beginning, not by its end.
#[test]
fn a_line_without_an_end_is_not_read_for_ever() {
    use std::io::{Read as _, repeat};

    let endless = Lines::new(BufReader::new(repeat(b' '))).map(|_| ());
    assert!(
        matches!(&endless, Err(ReadError::NotARecording(why)) if why.contains("no end")),
        "{endless:?}"
    );
    let begun = written([&Line::Header(Box::new(header()))]);
    let input = BufReader::new(begun.as_slice().chain(repeat(b'x')));
    let recording = Lines::new(input).unwrap().collect().unwrap();
    assert_eq!(recording.torn.unwrap().why, "it has no end");
}

#[test]
fn every_line_fits_the_schema_and_no_member_is_undescribed() {
    let mut lines = lines();
    lines.push(Line::Namespace(settings(7.0, "2")));
    let mut full = header();
    full.command = Some(vec!["sleep".into(), "5".into()]);
    lines.push(Line::Header(Box::new(full)));
    let text = include_str!("../../../docs/schema/recording-1.json");
    let validator = super::strict::validator(text);
    let schema: Value = serde_json::from_str(text).unwrap();
    for line in &lines {
        let value: Value = serde_json::from_slice(&written([line])).unwrap();
        super::strict::must_fit(&validator, &value);
        // One kind alone, whose errors say what is amiss.
        let mut alone = schema.clone();
        let kinds = alone["oneOf"].as_array_mut().unwrap();
        kinds.retain(|kind| kind["properties"]["kind"]["const"] == value["kind"]);
        assert_eq!(kinds.len(), 1, "{}", value["kind"]);
        super::strict::must_fit(&super::strict::closed(&alone.to_string()), &value);
        for member in kinds_needed(&alone) {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(&member);
            assert!(
                !validator.is_valid(&less),
                "passes without {member}: {less:#}"
            );
        }
    }
}

fn kinds_needed(schema: &Value) -> Vec<String> {
    let needed = schema["oneOf"][0]["required"].as_array().unwrap();
    needed
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_damaged_line_ends_the_reading_and_is_named() {
    let mut bytes = written(&lines());
    let third = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(1);
    let at = third.unwrap().0 + 20;
    bytes[at..at + 9].fill(0);
    let recording = read(&bytes).unwrap();
    assert_eq!(recording.frames.len(), 1);
    let torn = recording.torn.unwrap().to_string();
    assert!(torn.starts_with("it is cut off in line 3 ("), "{torn}");
}

#[test]
fn what_others_wrote_is_refused_by_name() {
    let said = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
    let later = written(&lines());
    let later = String::from_utf8(later).unwrap();
    let later = later.replacen("twtrace.recording/1", "twtrace.recording/2", 1);
    assert_eq!(
        said(&later),
        "it is a twtrace.recording/2, and this twtrace reads twtrace.recording/1: read it with \
         the version of twtrace that recorded it"
    );
    assert_eq!(
        said("{\"schema\":\"twtrace.snapshot/1\"}\n"),
        "it is not a recording of twtrace: its schema is \"twtrace.snapshot/1\""
    );
    assert!(said("State Recv-Q Send-Q\n").starts_with("it is not a recording of twtrace: "));
    assert_eq!(said(""), "it is empty: no recording was begun");
}

#[test]
fn lines_of_a_kind_to_come_are_passed_over() {
    let mut bytes = written(&lines()[..2]);
    bytes.extend_from_slice(b"{\"kind\":\"weather\",\"rain\":true}\n");
    bytes.extend(written(&lines()[2..]));
    assert_eq!(read(&bytes).unwrap(), read(&written(&lines())).unwrap());
}

/// Members of the same names, numbers but for what rounding and adding them in
/// another order may do.
fn must_agree(place: &str, whole: &Value, summed: &Value) {
    match (whole, summed) {
        (Value::Object(a), Value::Object(b)) => {
            let names =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<String>>();
            assert_eq!(names(a), names(b), "{place}");
            for (name, value) in a {
                must_agree(&format!("{place}.{name}"), value, &b[name]);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                must_agree(&format!("{place}[{index}]"), a, b);
            }
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            let rounded = place.contains("life_table") || place.starts_with(".ports");
            let tolerance = if rounded { 0.01 } else { 1e-6 };
            let near = (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(0.1);
            assert!(near, "{place}: {a} of the snapshot, {b} of the frames");
        }
        _ => assert_eq!(whole, summed, "{place}"),
    }
}

/// What only counts, of a snapshot's JSON: of a single event no recording tells.
fn counts_only(snapshot: &Snapshot) -> Value {
    let mut value = serde_json::to_value(snapshot).unwrap();
    let object = value.as_object_mut().unwrap();
    for member in [
        "seq",
        "time",
        "elapsed_s",
        "interval_s",
        "last_without_port",
        "connects",
        "ports",
        "life_table",
    ] {
        object.remove(member);
    }
    fn keep_counts(value: &mut Value) {
        match value {
            Value::Object(map) => {
                // Nanoseconds beyond what a sum of seconds can hold are invented.
                for time in ["min", "p50", "p90", "p99", "max", "sum"] {
                    map.remove(time);
                }
                map.remove("life_table");
                map.remove("complete_from_s");
                map.values_mut().for_each(keep_counts);
            }
            Value::Array(all) => all.iter_mut().for_each(keep_counts),
            _ => {}
        }
    }
    keep_counts(&mut value);
    value
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn frames_add_up_after_any_events(acts in proptest::collection::vec(any_act(), 0..120), every in 1_usize..20) {
        let mut ledger = new_ledger(Filter::default());
        let mut run = Run::default();
        for (number, act) in acts.iter().enumerate() {
            // A snapshot of its own would tell of namespaces that no frame tells of.
            if !matches!(act, Act::Snapshot(_)) {
                play(&mut ledger, act);
            }
            if number % every == 0 {
                run.cut(&mut ledger, moment(100.0));
            }
        }
        let snapshot = run.cut(&mut ledger, moment(500.0));
        let end = end(&snapshot, run.frames.len() as u64);
        let summed = Sum::of(&run.frames).snapshot(&header(), Some(&end)).unwrap();
        must_agree("", &counts_only(&snapshot), &counts_only(&summed));
        let entered: i64 = run.frames.iter().flat_map(|frame| &frame.namespaces).map(|namespace| namespace.time_wait_entered).sum();
        let listed: u64 = snapshot.namespaces.iter().filter_map(|namespace| namespace.states.get(tracer::model::event::State::TimeWait)).map(|count| count.entered).sum();
        prop_assert!(entered >= listed as i64);

        // Whatever the ledger finds out can be read again, but for times that no
        // machine has.
        let mut lines = vec![Line::Header(Box::new(header()))];
        lines.extend(run.frames.iter().cloned().map(|frame| Line::Frame(Box::new(frame))));
        lines.push(Line::End(Box::new(end)));
        let bytes = written(&lines);
        let again: Result<Vec<Line>, ReadError> = Iterator::collect(Lines::new(&*bytes).unwrap());
        match again {
            Ok(again) => prop_assert_eq!(again, &lines[1..]),
            Err(ReadError::Refused { why, .. }) => prop_assert!(why.contains("(ten years)"), "{}", why),
            Err(error) => panic!("{error}"),
        }
    }

}

proptest! {
    // Each cuts some dozens of frames.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases() / 8) })]

    #[test]
    fn a_run_of_connections_is_what_its_frames_are(
        starts in proptest::collection::vec((0.0..20.0_f64, 0_u8..9), 1..40),
        length_s in 1.0..7.0_f64,
    ) {
        let mut events: Vec<(Moment, Event)> = starts
            .iter()
            .enumerate()
            .flat_map(|(n, &(start, reason))| connection(n as u64 + 1, start, Reason::from_wire(reason).expect("nine")))
            .map(|event| match event {
                Event::Step(step) => (step.at, event),
                Event::Birth { at, .. } | Event::Reading { at, .. } | Event::End { at, .. } => (at, event),
                other => panic!("no connection has a {other:?}"),
            })
            .collect();
        events.sort_by_key(|(at, _)| *at);
        let mut ledger = new_ledger(Filter::default());
        let mut run = Run::default();
        let mut until = length_s;
        for (at, event) in &events {
            while moment(until) < *at {
                run.cut(&mut ledger, moment(until));
                until += length_s;
            }
            ledger.apply(event, &mut |_: &Happening| {});
        }
        let snapshot = run.cut(&mut ledger, moment(until));
        let end = end(&snapshot, run.frames.len() as u64);

        let bytes: Vec<u8> = run.frames.iter().flat_map(|frame| written([&Line::Frame(Box::new(frame.clone()))])).collect();
        let bytes = [written([&Line::Header(Box::new(header()))]), bytes].concat();
        let (_, again) = read_lines(&bytes);
        let frames: Vec<Frame> = again
            .into_iter()
            .map(|line| match line {
                Line::Frame(frame) => *frame,
                other => panic!("{other:?} was not written"),
            })
            .collect();
        prop_assert_eq!(&frames, &run.frames);

        let mut summed = Sum::of(&frames).snapshot(&header(), Some(&end)).unwrap();
        // Its own interval is a frame's, that of a scenario's snapshot is always a second.
        summed.interval_s = snapshot.interval_s;
        // Whether there is enough for an estimate may hang on the last figure of a time.
        let mut whole = snapshot.clone();
        for one in [&mut whole, &mut summed] {
            one.time_wait.life_table.reaches_2msl = None;
            one.time_wait.life_table.mean_s = None;
        }
        let mut whole = serde_json::to_value(&whole).unwrap();
        // What became of connects lately is no part of a frame.
        whole["connects"] = serde_json::json!([]);
        must_agree("", &whole, &serde_json::to_value(&summed).unwrap());
        let (whole, summed) = (ledger.sums().ages(moment(until)), Sum::of(&run.frames).ages);
        prop_assert_eq!(whole.deaths, summed.deaths);
        for age in 0..whole.deaths.len() {
            // Half a unit of the third figure, of what one frame can have seen there.
            let near = |a: f64, b: f64| (a - b).abs() <= 0.0006 + 0.005 * starts.len() as f64;
            prop_assert!(near(whole.exposure_s[age], summed.exposure_s[age]));
            prop_assert!(near(whole.lived_s[age], summed.lived_s[age]));
        }
        let stock = Sum::of(&run.frames).mean_time_waits().unwrap() * snapshot.elapsed_s;
        prop_assert!((stock - snapshot.time_wait.life_table.socket_seconds).abs() < 0.5, "{} socket-seconds", stock);
    }
}
