//! `build-ebpf`: makes the committed eBPF object from `tracer-ebpf`, or proves
//! that it is what the sources give.
//!
//! The same sources give the same bytes in any folder on any machine: one
//! pinned compiler, its own LLVM, a clean environment, no path of this machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{isolate, run};
use crate::rustc;
use crate::say;
use crate::setup::{self, Tools};
use crate::sources::{self, NOTE, Note, OBJECT};
use crate::toolchain::{Toolchain, root};

pub(crate) const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "twtrace";

/// Whether a build may bring `Cargo.lock` up to its manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Follows,
    Frozen,
}

/// Builds and puts object and note in their places.
pub(crate) fn build(toolchain: &Toolchain, target: &Path) -> Result<()> {
    let (object, note) = make(toolchain, target, Lock::Follows)?;
    let mut text = serde_json::to_string_pretty(&note)?;
    text.push('\n');
    for (name, contents) in [(OBJECT, object.as_slice()), (NOTE, text.as_bytes())] {
        let path = root().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(format_args!(
        "{OBJECT}: {} bytes, sha256 {}",
        object.len(),
        note.object_sha256
    ))
}

/// Builds and compares with what is committed.
pub(crate) fn check(toolchain: &Toolchain, target: &Path) -> Result<()> {
    let (object, note) = make(toolchain, target, Lock::Frozen)?;
    let path = root().join(OBJECT);
    let committed = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if committed != object {
        bail!(
            "{OBJECT} is not what its sources give: committed are {} bytes, sha256 {}; built were {} bytes, sha256 {}. \
             Run `cargo xtask build-ebpf` and commit the result",
            committed.len(),
            sources::sha256(&committed),
            object.len(),
            note.object_sha256,
        );
    }
    let path = root().join(NOTE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let noted: Note =
        serde_json::from_str(&text).with_context(|| format!("{NOTE} is not a note of a build"))?;
    if noted != note {
        bail!(
            "{NOTE} does not say what built the object: it says {noted:?}, and {note:?} is true. \
             Run `cargo xtask build-ebpf` and commit the result"
        );
    }
    say(format_args!(
        "{OBJECT} is what its sources give, byte for byte: sha256 {}",
        note.object_sha256
    ))
}

/// Lints of the kernel side, which is no member of the workspace.
pub(crate) fn lint(toolchain: &Toolchain, target: &Path) -> Result<()> {
    let tools = setup::find(toolchain, target)?;
    fetch(toolchain)?;
    // clippy-driver finds its own way to the sysroot; cargo-clippy sets it as
    // the workspace wrapper, which `isolate` has emptied.
    run(inner_cargo(toolchain, &tools, target, "clippy")?
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .args(["--locked", "--", "-D", "warnings"]))
}

fn make(toolchain: &Toolchain, target: &Path, lock: Lock) -> Result<(Vec<u8>, Note)> {
    let tools = setup::find(toolchain, target)?;
    fetch(toolchain)?;
    let mut cargo = inner_cargo(toolchain, &tools, target, "build")?;
    if lock == Lock::Frozen {
        cargo.arg("--locked");
    }
    run(&mut cargo)?;
    // After the build: it may have written the lock file.
    let sources_sha256 =
        sources::digest(root()).context("cannot read the sources of the kernel side")?;

    let built = build_folder(target)
        .join(TARGET)
        .join("release")
        .join(BINARY);
    let stripped = built.with_extension("bpf.o");
    // DWARF is most of the file and serves only to make the BTF, which stays.
    run(Command::new(toolchain.objcopy()?)
        .env("LD_LIBRARY_PATH", toolchain.lib())
        .arg("--strip-debug")
        .arg(&built)
        .arg(&stripped))?;
    let object =
        fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
    let note = Note {
        rustc: toolchain.version().to_owned(),
        llvm: toolchain.fact("LLVM version")?.to_owned(),
        bpf_linker: tools.linker_version.to_owned(),
        object_sha256: sources::sha256(&object),
        sources_sha256,
    };
    Ok((object, note))
}

/// Brings the sources of the dependencies to where [`flags`] looks for them.
fn fetch(toolchain: &Toolchain) -> Result<()> {
    run(isolate(&mut Command::new(&toolchain.cargo))
        .current_dir(root().join("tracer-ebpf"))
        .env("RUSTC", &toolchain.rustc)
        .arg("fetch"))
}

fn build_folder(target: &Path) -> PathBuf {
    target.join("ebpf-build")
}

fn inner_cargo(toolchain: &Toolchain, tools: &Tools, target: &Path, verb: &str) -> Result<Command> {
    let mut command = Command::new(&toolchain.cargo);
    isolate(&mut command)
        .current_dir(root().join("tracer-ebpf"))
        .env("RUSTC", &toolchain.rustc)
        .env(
            "RUSTC_WRAPPER",
            std::env::current_exe().context("cannot find this program itself")?,
        )
        .env(rustc::ROLE, "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain, tools)?)
        // The stable compiler itself, with leave to build `core` for a target
        // that has none.
        .env("RUSTC_BOOTSTRAP", "1")
        .args([
            verb,
            "--release",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(build_folder(target));
    Ok(command)
}

fn flags(toolchain: &Toolchain, tools: &Tools) -> Result<OsString> {
    let mut flags: Vec<OsString> = vec![
        // aya-ebpf would else note the machine that builds; tracepoint
        // programs read no registers, so one object serves all.
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        "-Cdebuginfo=2".into(),
        joined("-Clinker=", tools.linker.as_os_str(), ""),
        "-Clink-arg=--btf".into(),
        // With instructions on 32 bits, which every kernel knows that has the rest.
        "-Ctarget-cpu=v3".into(),
    ];
    let root = root()
        .canonicalize()
        .context("cannot find the root of the repository")?;
    let sysroot = toolchain
        .sysroot
        .canonicalize()
        .context("cannot find rustc's sysroot")?;
    let mut places = vec![(root, "/twtrace"), (sysroot, "/rust")];
    // Below it cargo names a folder after the registry or the mirror that it
    // fetched from, which is nothing to the object either.
    let sources = cargo_home()?.join("registry/src");
    let registries =
        fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    for registry in registries {
        places.push((registry?.path(), "/registry"));
    }
    for (from, to) in places {
        flags.push(joined(
            "--remap-path-prefix=",
            from.as_os_str(),
            &format!("={to}"),
        ));
    }
    Ok(flags.join(&OsString::from("\x1f")))
}

fn joined(before: &str, middle: &std::ffi::OsStr, after: &str) -> OsString {
    let mut whole = OsString::from(before);
    whole.push(middle);
    whole.push(after);
    whole
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::home_dir()
        .context("neither CARGO_HOME nor HOME is set, so cargo's folder is unknown")?;
    Ok(home.join(".cargo"))
}
