//! What the committed eBPF object was built from, and by what.
//!
//! `xtask` writes the note after a build; `tracer/tests/object.rs` includes
//! this file by its path and compares, with no toolchain at hand, so that both
//! always mean the same thing by "the sources". It refuses to know how to build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The object that `twtrace` embeds, relative to the root of the repository.
pub(crate) const OBJECT: &str = "tracer/bpf/twtrace.bpf.o";

/// The note beside it.
pub(crate) const NOTE: &str = "tracer/bpf/twtrace.bpf.json";

/// Packages whose manifests, locks and Rust sources end up in the object.
const PACKAGES: [&str; 2] = ["tracer-ebpf", "tracer-common"];

/// Names the compiler.
const TOOLCHAIN: &str = "rust-toolchain.toml";

/// What stands in [`NOTE`]. Hashes are SHA-256 in lower-case hexadecimal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// First line of `rustc -vV`.
    pub(crate) rustc: String,
    /// Version of the LLVM inside that rustc, which bpf-linker was linked with.
    pub(crate) llvm: String,
    pub(crate) bpf_linker: String,
    pub(crate) object_sha256: String,
    /// [`digest`] at the moment of the build.
    pub(crate) sources_sha256: String,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// One hash over names, lengths and contents of every file that the object is
/// made of, in the order of their names. The root `Cargo.toml` is left out:
/// it changes with every dependency of the user side, and what the object
/// inherits from it (edition, version) is held by the byte-for-byte check.
pub(crate) fn digest(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for name in files(root)? {
        let contents = fs::read(root.join(&name))?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((contents.len() as u64).to_le_bytes());
        hash.update(&contents);
    }
    Ok(hex(hash.finalize().as_slice()))
}

/// Paths relative to `root`, with `/`, sorted.
pub(crate) fn files(root: &Path) -> io::Result<Vec<String>> {
    let mut found = vec![TOOLCHAIN.to_owned()];
    let mut folders: Vec<PathBuf> = PACKAGES.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                // A `cargo` run inside the package leaves its build there.
                if entry.file_name() != "target" {
                    folders.push(path);
                }
            } else if is_source(&path) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "toml" || extension == "lock")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
