//! Recordings, with what is made of them.

use tracer::model::state_set::StateSet;
use tracer::options::{At, Color, CompareOptions, ReportOptions};
use tracer::recorder::file;
use tracer::recording::{Line, Lines, Recording};
use tracer::render::terminal::Terminal;
use tracer::verbs::{compare, report};

/// A file, or two with a NUL between them: `report` of the first, `compare` of
/// both, and of the first alone. What is read can be written, and read again.
pub fn recording(bytes: &[u8]) {
    let (first, second) = match bytes.iter().position(|&byte| byte == 0) {
        // Compressed files have NULs of their own.
        Some(nul) if bytes.first() == Some(&b'{') => (&bytes[..nul], Some(&bytes[nul + 1..])),
        _ => (bytes, None),
    };
    let Some(before) = read(first) else { return };
    for json in [false, true] {
        let options = ReportOptions {
            file: "-".into(),
            states: StateSet::default(),
            json,
            color: Color::Never,
        };
        let mut out = Vec::new();
        let lines = lines(first).expect("it was read before");
        if report::write(&mut Terminal::new(&mut out, false), lines, &options).is_ok() {
            must_be_readable(&out, json);
        }
    }
    written_again(&before);
    let after = second.and_then(read);
    let half = before
        .frames
        .stocks()
        .last()
        .map_or(0.0, |frame| frame.elapsed_s / 2.0);
    let half = std::time::Duration::try_from_secs_f64(half).unwrap_or_default();
    for (after, at) in [
        (None, None),
        (None, Some(At::Elapsed(half))),
        (after.as_ref(), None),
    ] {
        for json in [false, true] {
            let options = CompareOptions {
                before: "-".into(),
                after: after.map(|_| "-".into()),
                at,
                json,
                color: Color::Never,
            };
            let mut out = Vec::new();
            if compare::write(
                &mut Terminal::new(&mut out, false),
                &before,
                after,
                &options,
            )
            .is_ok()
            {
                must_be_readable(&out, json);
            }
        }
    }
}

fn lines(bytes: &[u8]) -> Option<Lines<Box<dyn std::io::BufRead + '_>>> {
    file::lines(bytes).ok()
}

fn read(bytes: &[u8]) -> Option<Recording> {
    lines(bytes)?.collect().ok()
}

fn must_be_readable(out: &[u8], json: bool) {
    if json {
        let read: Result<serde_json::Value, _> = serde_json::from_slice(out);
        read.unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(out)));
    } else {
        str::from_utf8(out).expect("text");
    }
}

fn written_again(recording: &Recording) {
    let mut bytes = Vec::new();
    let header = Line::Header(Box::new(recording.header.clone()));
    let frames = recording
        .frames
        .iter()
        .map(|frame| Line::Frame(Box::new((*frame).clone())));
    let namespaces = recording.namespaces.iter().cloned().map(Line::Namespace);
    let changes = recording.changes.iter().cloned().map(Line::Sysctl);
    let end = recording.end.iter().cloned().map(Box::new).map(Line::End);
    for line in [header]
        .into_iter()
        .chain(namespaces)
        .chain(changes)
        .chain(frames)
        .chain(end)
    {
        line.write(&mut bytes).expect("memory is never full");
    }
    let again = read(&bytes).expect("a recording");
    assert_eq!(again.torn, None);
    assert_eq!(again.frames.len(), recording.frames.len());
    assert_eq!(again.changes.len(), recording.changes.len());
    assert_eq!(again.end.is_some(), recording.end.is_some());
}
