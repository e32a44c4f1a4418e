use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;
use crate::recording::{Header, Line, NamespaceSettings, SCHEMA, Sysctls};

fn lines() -> Vec<Line> {
    let header: Header = serde_json::from_value(serde_json::json!({
        "schema": SCHEMA, "version": "0", "time": "2026-01-31T12:00:00.000Z",
        "host": {"name": "h", "kernel": "6.18", "boot_id": "b", "hz": 250},
        "clock": {"monotonic_ns": 7, "time": "2026-01-31T12:00:00Z"},
        "scope": {"netns": "all", "filter": ""},
        "interval_s": 1.0, "events": false, "seeded": {}, "namespaces": [],
    }))
    .unwrap();
    let settings = |netns| {
        Line::Namespace(NamespaceSettings {
            time: Timestamp::UNIX_EPOCH,
            elapsed_s: f64::from(netns),
            netns,
            name: None,
            sysctls: (0..40)
                .map(|n| (format!("net.ipv4.tcp_{n}"), (n * netns).to_string()))
                .collect::<Sysctls>()
                .into(),
        })
    };
    std::iter::once(Line::Header(Box::new(header)))
        .chain((1..6).map(settings))
        .collect()
}

/// What is in the file after each line.
fn written(path: &Path) -> Vec<Vec<u8>> {
    let mut writer = Writer::open(path).unwrap();
    let mut contents: Vec<Vec<u8>> = lines()
        .iter()
        .map(|line| {
            writer.write(line).unwrap();
            fs::read(path).unwrap()
        })
        .collect();
    let bytes = writer.finish().unwrap();
    contents.push(fs::read(path).unwrap());
    assert_eq!(bytes, contents[contents.len() - 1].len() as u64);
    contents
}

#[test]
fn each_line_is_whole_in_the_file_before_the_next_begins() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.jsonl", "a.jsonl.zst"] {
        let path = folder.path().join(name);
        for (number, content) in written(&path).iter().enumerate() {
            fs::write(&path, content).unwrap();
            let recording = read(&path).unwrap();
            assert_eq!(recording.namespaces.len(), number.min(5), "{name} {number}");
            // Only the end of the compressed data tells that nothing is missing.
            let whole = name == "a.jsonl" || number == 6;
            assert_eq!(
                recording.torn.is_none(),
                whole,
                "{name} {number}: {recording:?}"
            );
        }
    }
}

#[test]
fn a_compressed_file_cut_at_any_byte_is_read_up_to_its_last_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl.zst");
    let contents = written(&path);
    let (whole, lengths) = (contents.last().unwrap(), contents.iter().map(Vec::len));
    let lengths: Vec<usize> = lengths.collect();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let lines = lengths
            .iter()
            .take(6)
            .filter(|length| **length <= cut)
            .count();
        match read(&path) {
            Ok(recording) => {
                assert!(recording.namespaces.len() + 1 >= lines, "cut at {cut}");
                assert!(recording.torn.is_some(), "cut at {cut}");
            }
            Err(error) => {
                assert_eq!(lines, 0, "cut at {cut}: {error:#}");
                assert!(
                    format!("{error:#}").contains("a.jsonl.zst: it is "),
                    "{error:#}"
                );
            }
        }
    }
}

#[test]
fn what_is_there_stays_until_a_recording_begins() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.jsonl");
    fs::write(&old, "x".repeat(100_000)).unwrap();
    drop(Writer::open(&old).unwrap());
    assert_eq!(fs::metadata(&old).unwrap().len(), 100_000);
    let mut writer = Writer::open(&old).unwrap();
    writer.write(&lines()[0]).unwrap();
    assert!(fs::metadata(&old).unwrap().len() < 1000);

    let new = folder.path().join("new.jsonl");
    drop(Writer::open(&new).unwrap());
    assert!(!new.exists(), "a run that could not begin leaves no file");
}

#[test]
fn a_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let new = folder.path().join("new.jsonl");
    let mut writer = Writer::open(&new).unwrap();
    writer.write(&lines()[0]).unwrap();
    assert_eq!(mode(&new), 0o600);

    let old = folder.path().join("old.jsonl");
    fs::write(&old, "").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    let mut writer = Writer::open(&old).unwrap();
    writer.write(&lines()[0]).unwrap();
    assert_eq!(mode(&old), 0o640);
}

/// Needs root, to be two users.
#[test]
fn what_another_user_left_in_a_directory_for_all_is_not_written_into() {
    let nobody = Some(65_534);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let target = folder.join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, folder.join("link")).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    mkfifoat(CWD, folder.join("fifo"), Mode::RUSR).unwrap();
    for name in ["link", "file", "fifo"] {
        lchown(folder.join(name), nobody, nobody).expect("this test needs root");
    }
    symlink(&target, folder.join("own")).unwrap();
    let for_all = |mode| {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    };
    for_all(0o1777);
    for name in ["link", "file", "fifo"] {
        let said = format!("{:#}", Writer::open(&folder.join(name)).unwrap_err());
        assert!(said.contains("belongs to user 65534"), "{name}: {said}");
    }
    assert!(Writer::open(&folder.join("own")).is_ok());
    for_all(0o755);
    assert!(Writer::open(&folder.join("link")).is_ok());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn what_refers_back_too_far_is_refused_with_the_remedy() {
    let packed = |window| {
        let mut encoder = Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window).unwrap();
        for line in lines() {
            line.write(&mut encoder).unwrap();
        }
        encoder.finish().unwrap()
    };
    let read = |bytes: &[u8]| super::lines(bytes).and_then(Lines::collect);
    assert_eq!(read(&packed(WINDOW)).unwrap().torn, None);
    let error = read(&packed(WINDOW + 1)).unwrap_err().to_string();
    assert!(
        error.ends_with("unpack it with `zstd -d --long=31` first"),
        "{error}"
    );
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no/where.jsonl");
    for said in [
        format!("{:#}", Writer::open(&nowhere).unwrap_err()),
        format!("{:#}", read(&nowhere).unwrap_err()),
    ] {
        assert!(said.contains("no/where.jsonl: No such file"), "{said}");
    }
}
