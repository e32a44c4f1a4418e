//! The compiler this workspace is pinned to, and what comes with it: its
//! version, its sysroot, the LLVM inside. Everything the eBPF build needs is
//! derived from here, so that a new pin is one line in `rust-toolchain.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{isolate, output, run};

#[derive(Debug)]
pub(crate) struct Toolchain {
    /// All of `rustc -vV`.
    pub(crate) verbose: String,
    pub(crate) sysroot: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
}

impl Toolchain {
    /// The one that is building us, which rustup chose by `rust-toolchain.toml`.
    pub(crate) fn current() -> Result<Self> {
        let found =
            PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end());
        let rustc = found.join("bin/rustc");
        let cargo =
            std::env::var_os("CARGO").map_or_else(|| found.join("bin/cargo"), PathBuf::from);
        let verbose = output(Command::new(&rustc).arg("-vV"))?;
        let toolchain = Toolchain {
            verbose,
            sysroot: found,
            cargo,
            rustc,
        };
        let pinned = pinned()?;
        if toolchain.fact("release")? != pinned {
            bail!(
                "rust-toolchain.toml pins rustc {pinned}, but {} is {}; run this through rustup, or set \
                 RUSTUP_TOOLCHAIN to a toolchain of that version",
                toolchain.rustc.display(),
                toolchain.fact("release")?,
            );
        }
        Ok(toolchain)
    }

    /// The program `cargo-NAME` of this version, built into `folder` if it is not there.
    pub(crate) fn subcommand(&self, name: &str, version: &str, folder: &Path) -> Result<PathBuf> {
        let package = format!("cargo-{name}");
        let program = folder.join("bin").join(&package);
        let there = output(Command::new(&program).args([name, "--version"]))
            .is_ok_and(|said| said.trim_end().ends_with(version));
        if !there {
            run(isolate(&mut Command::new(&self.cargo))
                .args(["install", &package, "--version", version])
                .args(["--locked", "--force", "--root"])
                .arg(folder))?;
        }
        Ok(program)
    }

    /// The first line of `rustc -vV`.
    pub(crate) fn version(&self) -> &str {
        self.verbose.lines().next().unwrap_or_default()
    }

    /// A line `name: value` of `rustc -vV`.
    pub(crate) fn fact(&self, name: &str) -> Result<&str> {
        self.verbose
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .with_context(|| format!("`{} -vV` has no line \"{name}: …\"", self.rustc.display()))
    }

    /// `22` of LLVM 22.1.2: bpf-linker has a feature for each.
    pub(crate) fn llvm_major(&self) -> Result<&str> {
        let version = self.fact("LLVM version")?;
        Ok(version.split('.').next().unwrap_or(version))
    }

    pub(crate) fn lib(&self) -> PathBuf {
        self.sysroot.join("lib")
    }

    /// What to pass to `-l dylib=` for the LLVM inside this rustc, such as
    /// `LLVM-22-rust-1.95.0-stable`.
    pub(crate) fn llvm_library(&self) -> Result<String> {
        let lib = self.lib();
        let wanted = format!("libLLVM-{}-rust-", self.llvm_major()?);
        let entries =
            fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(library) = name
                .strip_suffix(".so")
                .and_then(|name| name.strip_prefix("lib"))
                && name.starts_with(&wanted)
            {
                return Ok(library.to_owned());
            }
        }
        bail!(
            "{} has no {wanted}*.so: this rustc does not carry its LLVM as a shared library (distributions' own \
             builds do not); install the pinned toolchain with rustup",
            lib.display(),
        )
    }

    pub(crate) fn objcopy(&self) -> Result<PathBuf> {
        Ok(self
            .lib()
            .join("rustlib")
            .join(self.fact("host")?)
            .join("bin/rust-objcopy"))
    }

    /// Where the component rust-src puts the standard library's sources.
    pub(crate) fn rust_src(&self) -> PathBuf {
        self.lib().join("rustlib/src/rust")
    }

    pub(crate) fn has_rust_src(&self) -> bool {
        self.rust_src().join("library/core/Cargo.toml").is_file()
    }
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn pinned() -> Result<String> {
    let path = root().join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("channel = \"")?
                    .strip_suffix('"')?
                    .to_owned(),
            )
        })
        .with_context(|| format!("{} has no line `channel = \"…\"`", path.display()))
}
