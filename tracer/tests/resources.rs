//! What somebody may send as a recording of a megabyte: read by `report` and by
//! `compare`, it takes neither a memory nor an afternoon.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Value, json};
use tracer::analysis::lot::Lot;
use zstd::stream::write::Encoder;

const RECORDING: &str = include_str!("examples/recording.jsonl");

const MEGABYTE: usize = 1_000_000;

/// Of a compressed file, which may unpack to so much that only what is optimised
/// reads a megabyte of it in time.
const PACKED_BYTES: usize = if cfg!(debug_assertions) {
    MEGABYTE / 20
} else {
    MEGABYTE
};

/// What no such file may take, nor two of them.
const MOST_BYTES: u64 = 200_000_000;
const MOST_S: u64 = if cfg!(debug_assertions) { 20 } else { 10 };

struct Taken {
    rss: u64,
    cpu_s: f64,
    code: Option<i32>,
    said: String,
}

/// A process to its end, and what it took. It may not have more memory of its own,
/// nor more time, than there is.
fn run(words: &[&str]) -> Taken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twtrace"));
    command
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let limit = |resource, most: u64| {
        let most = Some(most);
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        setrlimit(resource, limit)
    };
    // SAFETY: setrlimit is a system call and nothing else.
    unsafe {
        command.pre_exec(move || {
            limit(Resource::Data, MOST_BYTES)?;
            limit(Resource::Cpu, MOST_S)?;
            Ok(())
        });
    }
    // A new process begins with the peak of the one that made it.
    #[cfg(target_env = "gnu")]
    // SAFETY: it gives back what is free.
    unsafe {
        libc::malloc_trim(0);
    }
    #[expect(clippy::zombie_processes, reason = "wait4 tells what it took, too")]
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: a rusage is numbers alone, for which zeros will do; both are written
    // to and live as long as the call; nobody else waits for this child.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let waited = libc::wait4(pid, &raw mut status, 0, &raw mut usage);
        (waited, usage)
    };
    assert_eq!(waited, pid);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Taken {
        rss: usage.ru_maxrss as u64 * 1024,
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        said,
    }
}

/// The first line of the example, and one of its frames with little in it.
fn header() -> Value {
    let mut header: Value = serde_json::from_str(RECORDING.lines().next().unwrap()).unwrap();
    header["namespaces"] = json!([]);
    header
}

fn frame() -> Value {
    let mut frame: Value = serde_json::from_str(RECORDING.lines().nth(3).unwrap()).unwrap();
    frame["states"] = json!({});
    frame["transitions"] = json!([]);
    frame["connect"]["latency_s"] = sparse(&[]);
    frame["time_wait"]["lives_s"] = json!({});
    frame["time_wait"]["bands"] = json!({"ge": [0], "n": [0]});
    frame["time_wait"]["ages"] =
        json!({"width_s": 0.5, "exposure_s": [], "deaths": [], "lived_s": []});
    frame["fin_wait2_orphan"]["lives_s"] = sparse(&[]);
    frame["ports"] = json!([]);
    frame["namespaces"] = json!([]);
    frame.as_object_mut().unwrap().remove("kernel");
    frame
}

fn sparse(us: &[u64]) -> Value {
    let mut sparse = json!({"count": us.len(), "sum_s": 0, "us": us, "n": vec![1; us.len()]});
    if !us.is_empty() {
        sparse["min_s"] = 0.into();
        sparse["max_s"] = 3600.into();
    }
    sparse
}

fn end() -> Value {
    let mut end: Value = serde_json::from_str(RECORDING.lines().last().unwrap()).unwrap();
    end["elapsed_s"] = 1e6.into();
    end
}

/// Lines until there are so many bytes, each made from its number.
fn lines(bytes: usize, mut line: impl FnMut(u64) -> String) -> String {
    let mut text = format!("{}\n", header());
    for n in 0.. {
        let line = line(n);
        if text.len() + line.len() + 1 > bytes {
            break;
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A frame as it is told at any time, of no length.
struct Frames {
    before: String,
    after: String,
}

impl Frames {
    fn of(frame: &Value) -> Frames {
        let mut frame = frame.clone();
        frame["elapsed_s"] = 987_654.25.into();
        frame["interval_s"] = 0.into();
        let text = frame.to_string();
        let (before, after) = text.split_once("987654.25").unwrap();
        Frames {
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn at(&self, elapsed_s: f64) -> String {
        format!("{}{elapsed_s}{}", self.before, self.after)
    }
}

fn keys(n: usize, value: &Value) -> Value {
    Value::Object((0..n).map(|i| (format!("{i:x}"), value.clone())).collect())
}

fn change(n: u64, key: &str) -> String {
    json!({
        "kind": "sysctl", "time": "2026-11-25T01:01:53Z", "elapsed_s": n as f64 / 1e6,
        "unchanged_s": 0, "netns": 1, "key": key, "before": "", "after": "",
    })
    .to_string()
}

/// What is in a file, and where it is to be split.
type Case = (&'static str, f64, fn() -> String);

/// With another value for a member, or for one within it.
fn with(member: &str, inner: &str, value: Value) -> Value {
    let mut frame = frame();
    if inner.is_empty() {
        frame[member] = value;
    } else {
        frame[member][inner] = value;
    }
    frame
}

/// A header, a frame, and this line.
fn after_a_frame(line: &str) -> String {
    format!("{}\n{}\n{line}\n", header(), Frames::of(&frame()).at(0.0))
}

fn one(frame: &Value) -> String {
    format!("{}\n{frame}\n", header())
}

fn in_header(member: &str, value: Value) -> String {
    let mut header = header();
    header[member] = value;
    format!("{header}\n{}\n", Frames::of(&frame()).at(0.0))
}

fn in_end(member: &str, value: Value) -> String {
    let mut end = end();
    end[member] = value;
    after_a_frame(&end.to_string())
}

fn namespace() -> Value {
    json!({"time": "2026-11-25T01:01:53Z", "elapsed_s": 0, "netns": 1, "sysctls": {}})
}

fn full() -> Frames {
    let places: Vec<u64> = (0..20_000).map(|n| n * 50).collect();
    Frames::of(&with(
        "time_wait",
        "lives_s",
        json!({"expired": sparse(&places)}),
    ))
}

/// Every other frame has other bands, after one that has filled a histogram.
fn bands(bytes: usize) -> String {
    let other = Frames::of(&with(
        "time_wait",
        "bands",
        json!({"ge": [0, 1.5], "n": [0, 0]}),
    ));
    let (full, tiny) = (full(), Frames::of(&frame()));
    lines(bytes, |n| match n {
        0 => full.at(0.0),
        n if n % 2 == 0 => other.at(n as f64),
        n => tiny.at(n as f64),
    })
}

const PLAIN: &[Case] = &[
    ("tiny frames", 3.0, || {
        let tiny = Frames::of(&frame());
        lines(MEGABYTE, |n| tiny.at(n as f64 / 100.0))
    }),
    ("frames of one moment", 450.0, || {
        let tiny = Frames::of(&frame());
        lines(MEGABYTE, |n| tiny.at(if n == 0 { 0.0 } else { 900.0 }))
    }),
    ("frames years apart", 1e8, || {
        let tiny = Frames::of(&frame());
        lines(MEGABYTE, |n| tiny.at(n as f64 * 200_000.0))
    }),
    ("a map of states", 1.0, || {
        let count = json!({"now": 0, "seeded": 0, "entered": 0, "left": 0});
        one(&with("states", "", keys(15_000, &count)))
    }),
    ("a map of reasons", 1.0, || {
        one(&with("time_wait", "lives_s", keys(9_000, &sparse(&[1]))))
    }),
    ("a map of counters", 1.0, || {
        let counters =
            json!({"counters": keys(90_000, &0.into()), "minisockets": 0, "full_sockets": 0});
        one(&with("kernel", "", counters))
    }),
    ("a list of numbers", 1.0, || {
        let places: Vec<u64> = (0..60_000).collect();
        one(&with("connect", "latency_s", sparse(&places)))
    }),
    ("a namespace of many states", 1.0, || {
        let now = keys(90_000, &0.into());
        one(&with(
            "namespaces",
            "",
            json!([{"netns": 1, "now": now, "time_wait_entered": 0}]),
        ))
    }),
    ("many namespaces", 1.0, || {
        let one_of_them = json!({"netns": 1, "now": {}, "time_wait_entered": 0});
        one(&with("namespaces", "", vec![one_of_them; 20_000].into()))
    }),
    ("full histograms", 1.0, || {
        let full = full();
        lines(MEGABYTE, |n| full.at(n as f64))
    }),
    ("bands that change", 400.0, || bands(MEGABYTE)),
    ("a thing within things", 0.0, || {
        after_a_frame(&format!(
            "{{\"kind\":\"frame\",\"x\":{}",
            "[".repeat(900_000)
        ))
    }),
    ("an object within objects", 0.0, || {
        let open = "{\"a\":".repeat(180_000);
        after_a_frame(&format!("{{\"kind\":\"end\",\"in_state_s\":{{\"a\":{open}"))
    }),
    ("whole things within things", 0.0, || {
        let (open, shut) = ("[".repeat(400_000), "]".repeat(400_000));
        after_a_frame(&format!("{{\"kind\":\"frame\",\"x\":{open}{shut}}}"))
    }),
    ("a line without an end", 0.0, || {
        after_a_frame(&"x".repeat(MEGABYTE - 4_000))
            .trim_end()
            .to_owned()
    }),
    ("a header without an end", 0.0, || {
        header().to_string() + &" ".repeat(900_000)
    }),
    ("changes", 0.0, || lines(MEGABYTE, |n| change(n, ""))),
    ("changes of many keys, and frames", 0.0, || {
        let tiny = Frames::of(&frame());
        let changes = lines(MEGABYTE / 2, |n| change(n, &format!("{n:x}")));
        let frames = lines(MEGABYTE / 2, |n| tiny.at(n as f64));
        changes + frames.split_once('\n').unwrap().1
    }),
    ("a header of namespaces", 0.0, || {
        in_header("namespaces", vec![namespace(); 12_000].into())
    }),
    ("a header of words", 0.0, || {
        in_header("command", vec![""; 320_000].into())
    }),
    ("a namespace of sysctls", 0.0, || {
        let mut line = namespace();
        line["kind"] = "namespace".into();
        line["sysctls"] = keys(70_000, &"".into());
        after_a_frame(&line.to_string())
    }),
    ("an end of namespaces", 0.0, || {
        in_end(
            "namespaces",
            vec![json!({"netns": 1, "states": {}}); 38_000].into(),
        )
    }),
    ("an end of owners", 0.0, || {
        let owner = json!({"pid": 1, "comm": "", "time_wait_entered": 0});
        in_end("owners", vec![owner; 20_000].into())
    }),
    ("lines of no kind", 0.0, || {
        lines(MEGABYTE, |_| "{\"kind\":\"x\"}".to_owned())
    }),
    ("numbers out of any range", 0.0, || {
        one(&with(
            "time_wait",
            "timer",
            json!({"nominal_s": 1e300, "slack_s": 1e300}),
        ))
    }),
];

/// A line each, by its number.
type Endless = (&'static str, f64, fn() -> Box<dyn Fn(u64) -> String>);

const PACKED: &[Endless] = &[
    ("tiny frames", 500.0, || {
        let tiny = Frames::of(&frame());
        Box::new(move |n| tiny.at(n as f64 / 100.0) + "\n")
    }),
    ("frames of one moment", 900.0, || {
        let tiny = Frames::of(&frame());
        Box::new(move |n| tiny.at(if n == 0 { 0.0 } else { 100_000.0 }) + "\n")
    }),
    ("blanks", 0.0, || Box::new(|_| " ".repeat(1 << 16))),
    ("lines of blanks", 0.0, || {
        Box::new(|_| " ".repeat(1 << 16) + "\n")
    }),
    ("lines of no kind", 0.0, || {
        Box::new(|_| "{\"kind\":\"x\"}\n".repeat(1 << 12))
    }),
    ("events", 0.0, || {
        Box::new(|_| "{\"kind\":\"lost\"}\n".repeat(1 << 12))
    }),
    ("changes", 0.0, || Box::new(|n| change(n, "") + "\n")),
    ("changes of long values", 0.0, || {
        let long = "x".repeat(1 << 20);
        Box::new(move |n| change(n, &long) + "\n")
    }),
    ("full histograms", 3.0, || {
        let full = full();
        Box::new(move |n| full.at(n as f64) + "\n")
    }),
    ("bands that change", 400.0, || {
        let other = json!({"ge": [0, 1.5], "n": [0, 0]});
        let other = Frames::of(&with("time_wait", "bands", other));
        let (full, tiny) = (full(), Frames::of(&frame()));
        Box::new(move |n| match n {
            1 => full.at(1.0) + "\n",
            n if n % 2 == 0 => other.at(n as f64) + "\n",
            n => tiny.at(n as f64) + "\n",
        })
    }),
    ("frames of many namespaces", 3.0, || {
        let one_of_them = json!({"netns": 1, "now": {}, "time_wait_entered": 0});
        let frame = Frames::of(&with("namespaces", "", vec![one_of_them; 80_000].into()));
        Box::new(move |n| frame.at(n as f64) + "\n")
    }),
    ("ends of namespaces", 0.0, || {
        let crowd = in_end(
            "namespaces",
            vec![json!({"netns": 1, "states": {}}); 170_000].into(),
        );
        let last = crowd.lines().last().unwrap().to_owned() + "\n";
        Box::new(move |_| last.clone())
    }),
    ("ends of what is not known", 0.0, || {
        let unknown = "0,".repeat(1_900_000);
        let text = after_a_frame(&end().to_string());
        let last = text.lines().last().unwrap().replacen(
            "\"in_state_s\":{",
            &format!("\"in_state_s\":{{\"X\":{{\"count\":0,\"x\":[{unknown}0]}},"),
            1,
        ) + "\n";
        Box::new(move |_| last.clone())
    }),
    ("namespaces of sysctls", 0.0, || {
        let mut line = namespace();
        line["kind"] = "namespace".into();
        line["sysctls"] = keys(300_000, &"".into());
        let line = line.to_string() + "\n";
        Box::new(move |_| line.clone())
    }),
];

/// As many lines as a megabyte holds compressed, or as anybody would read.
fn packed(line: &dyn Fn(u64) -> String) -> Vec<u8> {
    const ENOUGH: usize = 600 * PACKED_BYTES + (64 << 20);
    let mut packed = Encoder::new(Vec::new(), 3).unwrap();
    let mut unpacked = 0;
    packed
        .write_all(format!("{}\n", header()).as_bytes())
        .unwrap();
    let first = Frames::of(&frame()).at(0.0);
    writeln!(packed, "{first}").unwrap();
    // What may be unpacked and kept goes by the size: half a file that no packing
    // makes smaller allows for most.
    let mut lot = Lot::new(1);
    let noise: String = (0..PACKED_BYTES * 3 / 40)
        .map(|_| format!("{:016x}", lot.draw()))
        .collect();
    writeln!(packed, "{{\"kind\":\"x\",\"noise\":\"{noise}\"}}").unwrap();
    for n in 1.. {
        let line = line(n);
        unpacked += line.len();
        packed.write_all(line.as_bytes()).unwrap();
        if packed.get_ref().len() > PACKED_BYTES * 4 / 5 || unpacked > ENOUGH {
            break;
        }
    }
    packed.finish().unwrap()
}

/// `report` of it, `compare` of its two halves, and with one that comes after it.
fn must_be_borne(name: &str, at_s: f64, files: [&Path; 2]) {
    for file in files {
        let length = fs::metadata(file).unwrap().len();
        assert!(length <= MEGABYTE as u64, "{name} has {length} bytes");
    }
    let [file, later] = files.map(|file| file.to_str().unwrap());
    let at = format!("{}ms", (at_s * 1000.0).max(1.0));
    for words in [
        &["report", file][..],
        &["report", "--json", file],
        &["compare", file, "--at", &at],
        &["compare", file, later],
    ] {
        let taken = run(words);
        let _ = writeln!(
            std::io::stderr(),
            "{name}, {} of {}: {:.0} MB, {:.2} s, {:?} {}",
            words[0],
            words.len() - 1,
            taken.rss as f64 / 1e6,
            taken.cpu_s,
            taken.code,
            taken.said.chars().take(200).collect::<String>().trim_end()
        );
        let Taken {
            rss,
            cpu_s,
            code,
            said,
        } = taken;
        assert!(
            code.is_some_and(|code| code <= 3) && rss <= MOST_BYTES,
            "{name}, {words:?}: {code:?} after {cpu_s} s with {} MB: {said}",
            rss / 1_000_000,
        );
        assert!(said.len() < 5_000, "{name} is told of at length: {said}");
    }
}

/// The same, years later.
fn later(text: &str) -> String {
    text.replacen("\"time\":\"2026-", "\"time\":\"2036-", 1)
}

#[test]
fn a_megabyte_of_lines_is_borne() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["one.jsonl", "two.jsonl"].map(|name| folder.path().join(name));
    for (name, at_s, text) in PLAIN {
        let text = text();
        let begun = text.find("\"schema\"").unwrap();
        fs::write(&files[0], &text).unwrap();
        fs::write(&files[1], text[..begun].to_owned() + &later(&text[begun..])).unwrap();
        drop(text);
        must_be_borne(name, *at_s, files.each_ref().map(PathBuf::as_path));
    }
}

#[test]
fn a_megabyte_that_unpacks_to_far_more_is_borne() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["one.zst", "two.zst"].map(|name| folder.path().join(name));
    for (name, at_s, line) in PACKED {
        let line = line();
        let bytes = packed(&*line);
        drop(line);
        fs::write(&files[0], &bytes).unwrap();
        // Compressed, the second cannot be made of the first but by unpacking it.
        fs::write(&files[1], &bytes).unwrap();
        drop(bytes);
        must_be_borne(name, *at_s, files.each_ref().map(PathBuf::as_path));
    }
}
