//! How reading begins and where it ends, at the edges.

use std::io::{BufReader, Cursor, Read};

use super::*;

const EXAMPLE: &[u8] = include_bytes!("../../../tests/examples/recording.jsonl");

/// Fails with this.
struct Failing(io::ErrorKind);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

/// The lines of what is there before the input fails.
fn lines(there: &[u8], then: io::ErrorKind) -> Result<Lines<impl BufRead>, ReadError> {
    let there = Cursor::new(there.to_vec());
    Lines::new(BufReader::new(there.chain(Failing(then))))
}

fn header() -> &'static [u8] {
    let end = EXAMPLE.iter().position(|byte| *byte == b'\n').unwrap();
    &EXAMPLE[..=end]
}

#[test]
fn an_input_without_an_end_is_torn_and_one_that_fails_is_not() {
    use io::ErrorKind::{PermissionDenied, UnexpectedEof};
    assert!(matches!(
        lines(b"", UnexpectedEof),
        Err(ReadError::NoHeader)
    ));
    assert!(matches!(
        lines(b"", PermissionDenied),
        Err(ReadError::Io(_))
    ));
    let mut cut = lines(header(), UnexpectedEof).unwrap();
    assert!(cut.next().is_none());
    assert_eq!(cut.torn().map(|torn| torn.line), Some(2));
    let mut failed = lines(header(), PermissionDenied).unwrap();
    assert!(matches!(failed.next(), Some(Err(ReadError::Io(_)))));
    assert_eq!(failed.torn(), None);
}

#[test]
fn only_a_beginning_of_ours_that_is_cut_is_no_header_yet() {
    let cut = &header()[..60];
    assert!(matches!(Lines::new(cut), Err(ReadError::NoHeader)));
    let whole = [cut, b"\n"].concat();
    assert!(matches!(
        Lines::new(&whole[..]),
        Err(ReadError::NotARecording(_))
    ));
    let others = &b"{\"kind\":\"head"[1..];
    assert!(matches!(
        Lines::new(others),
        Err(ReadError::NotARecording(_))
    ));
}

#[test]
fn so_much_may_be_kept_as_there_is_and_a_part_of_what_is_stored() {
    let mut lines = Lines::new(header()).unwrap();
    assert_eq!(lines.kept, weight::header(lines.header()) as u64);
    let room = KEPT + KEPT_PER_BYTE * header().len() as u64 - lines.kept;
    assert!(lines.keep(room as usize).is_ok());
    assert!(matches!(lines.keep(1), Err(ReadError::TooLarge(_))));
}

#[test]
fn settings_are_those_of_the_namespace_and_of_that_time() {
    let mut recording = Lines::new(EXAMPLE).unwrap().collect().unwrap();
    let here = recording.header.namespaces[0].clone();
    let start_s = recording.frames.stocks()[0].elapsed_s;
    let named = |netns, elapsed_s, value: &str| NamespaceSettings {
        netns,
        elapsed_s,
        sysctls: Arc::new(Sysctls::from([("k".to_owned(), value.to_owned())])),
        ..here.clone()
    };
    recording.header.namespaces.clear();
    recording.namespaces = vec![
        named(1, start_s, "with the first frame"),
        named(2, start_s + 1e-2, "after it"),
    ];
    let at_start: Vec<u32> = recording
        .settings_at_start()
        .map(|settings| settings.netns)
        .collect();
    assert_eq!(at_start, [1]);
    recording.changes = [(1, start_s + 5.0), (2, start_s + 1.0)]
        .map(|(netns, elapsed_s)| SysctlChange {
            time: here.time,
            elapsed_s,
            unchanged_s: elapsed_s - 1.0,
            netns,
            name: None,
            key: "k".to_owned(),
            before: String::new(),
            after: "changed".to_owned(),
        })
        .into();
    let value =
        |netns, after_s| recording.sysctls_at(netns, start_s + after_s).unwrap()["k"].clone();
    assert_eq!(value(1, 2.0), "with the first frame");
    assert_eq!(value(1, 5.0), "changed");
    assert_eq!(value(2, 0.5), "after it");
    assert_eq!(value(2, 1.0), "changed");
}
