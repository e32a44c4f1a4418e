//! The committed eBPF object belongs to the committed sources.
//!
//! Needs no BPF toolchain: it compares hashes with the note that
//! `cargo xtask build-ebpf` left beside the object. That the object is also
//! what those sources give, byte for byte, is for `build-ebpf --check`.

#[path = "../../xtask/src/sources.rs"]
mod sources;

use std::fs;
use std::path::Path;

use sources::{NOTE, Note, OBJECT};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn note() -> Note {
    let path = root().join(NOTE);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{} is no note of a build: {error}", path.display()))
}

#[test]
fn the_object_was_built_from_these_sources() {
    let now = sources::digest(root()).expect("the sources of the kernel side can be read");
    let noted = note().sources_sha256;
    assert!(
        now == noted,
        "the kernel side changed since {OBJECT} was built: its sources hash to {now}, the note \
         says {noted}. Run `cargo xtask build-ebpf` and commit {OBJECT} and {NOTE}. Hashed were: {:?}",
        sources::files(root()).expect("the sources were read just now"),
    );
}

#[test]
fn the_note_is_about_this_object() {
    let path = root().join(OBJECT);
    let object =
        fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    assert_eq!(
        sources::sha256(&object),
        note().object_sha256,
        "{OBJECT} and {NOTE} were not committed together"
    );
}

#[test]
fn every_change_of_a_source_changes_the_hash() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it lies in the folder"))
            .expect("a folder can be made");
        fs::write(path, contents).expect("a file can be written");
    };
    let digest = || sources::digest(folder.path()).expect("the files can be read");
    write("rust-toolchain.toml", "channel");
    write("tracer-ebpf/Cargo.lock", "lock");
    write("tracer-ebpf/src/main.rs", "main");
    write("tracer-common/src/lib.rs", "lib");

    let mut seen = vec![digest()];
    write("tracer-ebpf/target/out.rs", "a build's leavings");
    write("tracer-ebpf/src/.main.rs.swp", "an editor's leavings");
    assert_eq!(digest(), seen[0], "what is no source must not count");

    for (name, contents) in [
        ("rust-toolchain.toml", "another channel"),
        ("tracer-ebpf/Cargo.lock", "another lock"),
        ("tracer-ebpf/src/main.rs", "another main"),
        ("tracer-ebpf/src/deep/er.rs", ""),
        ("tracer-common/src/lib.rs", "another lib"),
    ] {
        write(name, contents);
        let hash = digest();
        assert!(!seen.contains(&hash), "{name} changed and the hash did not");
        seen.push(hash);
    }
}
