//! `setup-ebpf`: brings the tools of the kernel side into the target folder.
//!
//! Everything hangs on the pinned rustc: bpf-linker is linked with the LLVM
//! inside it, so that no distribution's LLVM decides what the object looks
//! like. Does nothing where the right versions are there already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{isolate, output, run};
use crate::toolchain::Toolchain;
use crate::{say, toolchain};

const BPF_LINKER: &str = "0.13.0";

/// Tools that are there and fit the toolchain.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) linker: PathBuf,
    pub(crate) linker_version: &'static str,
}

pub(crate) fn setup(toolchain: &Toolchain, target: &Path) -> Result<()> {
    if toolchain.has_rust_src() {
        say(format_args!("rust-src of {}: there", toolchain.version()))?;
    } else {
        install_rust_src(toolchain, target)?;
    }
    let folder = folder(target);
    if linker_fits(toolchain, &folder)? {
        say(format_args!("bpf-linker {BPF_LINKER}: there"))?;
    } else {
        install_linker(toolchain, &folder)?;
    }
    Ok(())
}

/// What [`setup`] brought, or the sentence that says to run it.
pub(crate) fn find(toolchain: &Toolchain, target: &Path) -> Result<Tools> {
    let folder = folder(target);
    if !toolchain.has_rust_src() || !linker_fits(toolchain, &folder)? {
        bail!(
            "the tools for the kernel side are missing or belong to another rustc than {}; run `cargo xtask setup-ebpf`",
            toolchain.version(),
        );
    }
    Ok(Tools {
        linker: folder.join("bin/bpf-linker"),
        linker_version: BPF_LINKER,
    })
}

fn folder(target: &Path) -> PathBuf {
    target.join("ebpf-tools")
}

/// Whether the linker in `folder` is this version, was built by this very
/// rustc against its LLVM, and still starts (its rpath names the sysroot).
fn linker_fits(toolchain: &Toolchain, folder: &Path) -> Result<bool> {
    let Ok(text) = fs::read_to_string(folder.join(".crates2.json")) else {
        return Ok(false);
    };
    let Ok(installed) = serde_json::from_str::<Value>(&text) else {
        return Ok(false);
    };
    let wanted = format!("bpf-linker {BPF_LINKER} ");
    let Some(how) = installed["installs"]
        .as_object()
        .and_then(|installs| installs.iter().find(|(name, _)| name.starts_with(&wanted)))
        .map(|(_, how)| how)
    else {
        return Ok(false);
    };
    let features: Vec<&str> = how["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let linked_alike = how["no_default_features"] == true
        && features == [feature(toolchain)?.as_str(), "no-llvm-linking"];
    let starts = output(Command::new(folder.join("bin/bpf-linker")).arg("--version"))
        .is_ok_and(|version| version.trim_end() == format!("bpf-linker {BPF_LINKER}"));
    Ok(linked_alike && how["rustc"] == toolchain.verbose.as_str() && starts)
}

fn feature(toolchain: &Toolchain) -> Result<String> {
    Ok(format!("llvm-{}", toolchain.llvm_major()?))
}

fn install_linker(toolchain: &Toolchain, folder: &Path) -> Result<()> {
    let lib = toolchain.lib();
    let lib = lib
        .to_str()
        .with_context(|| format!("{} is not UTF-8", lib.display()))?;
    let flags = [
        format!("-Lnative={lib}"),
        format!("-ldylib={}", toolchain.llvm_library()?),
        format!("-Clink-arg=-Wl,-rpath,{lib}"),
    ];
    say(format_args!(
        "bpf-linker {BPF_LINKER}: building it against LLVM {} of rustc",
        toolchain.fact("LLVM version")?
    ))?;
    run(isolate(&mut Command::new(&toolchain.cargo))
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features"])
        .arg(format!("{},no-llvm-linking", feature(toolchain)?))
        .arg("--root")
        .arg(folder))?;
    if !linker_fits(toolchain, folder)? {
        bail!(
            "bpf-linker was installed in {} but does not start from there",
            folder.display()
        );
    }
    Ok(())
}

fn install_rust_src(toolchain: &Toolchain, target: &Path) -> Result<()> {
    say(format_args!(
        "rust-src of {}: fetching it",
        toolchain.version()
    ))?;
    let by_rustup = run(Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .current_dir(toolchain::root()));
    let Err(by_rustup) = by_rustup else {
        if !toolchain.has_rust_src() {
            bail!(
                "rustup says that rust-src is there, but {} is not; `rustup component remove rust-src`, then run this again",
                toolchain.rust_src().display(),
            );
        }
        return Ok(());
    };
    say(format_args!(
        "rustup could not ({by_rustup:#}); trying the distribution's rust-src package"
    ))?;
    rust_src_from_package(toolchain, target).with_context(|| {
        format!(
            "cannot get the standard library's sources for {}: rustup could not fetch the component ({by_rustup:#}), \
             and no package of the same version could be used",
            toolchain.version(),
        )
    })
}

/// Debian's package holds the same sources under `/usr/src/rustc-VERSION`.
fn rust_src_from_package(toolchain: &Toolchain, target: &Path) -> Result<()> {
    let release = toolchain.fact("release")?;
    let scratch = target.join("rust-src-package");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let offered = output(Command::new("apt-cache").args(["madison", "rust-src"]))?;
    let version = offered
        .lines()
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .find(|version| {
            version.starts_with(&format!("{release}+"))
                || version.starts_with(&format!("{release}-"))
        })
        .with_context(|| format!("no package source offers rust-src {release}"))?;
    run(Command::new("apt-get")
        .args(["download", &format!("rust-src={version}")])
        .current_dir(&scratch))?;
    let package = fs::read_dir(&scratch)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", scratch.display()))?;
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&scratch))?;
    let library = scratch.join(format!("usr/src/rustc-{release}/library"));
    let wanted = toolchain.rust_src();
    fs::create_dir_all(&wanted).with_context(|| format!("cannot make {}", wanted.display()))?;
    run(Command::new("cp")
        .arg("-rT")
        .arg(&library)
        .arg(wanted.join("library")))
}
