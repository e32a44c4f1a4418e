//! The initramfs: the test program as `/init`, the binary under test, `ss` with
//! its libraries, and the modules of one kernel.
//!
//! Both programs of ours are linked statically, so that no guest needs a C
//! library for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Lane;
use super::arch::Arch;
use super::packages::{Archive, Kernel};
use crate::command::{isolate, output};
use crate::say;
use crate::toolchain::{Toolchain, root};

/// All but the modules, which are the kernel's.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) arch: &'static Arch,
    archive: Cpio,
    folder: PathBuf,
}

impl Guest {
    pub(crate) fn build(toolchain: &Toolchain, target: &Path, packages: &Archive) -> Result<Guest> {
        let arch = packages.arch;
        say(format_args!("building the guest of {}", arch.name))?;
        let messages = output(
            isolate(&mut Command::new(&toolchain.cargo))
                .env("RUSTFLAGS", "-C target-feature=+crt-static")
                .env(arch.linker_variable(), arch.linker)
                .args(["test", "--no-run", "--locked", "--package", "tracer"])
                .args([
                    "--test",
                    "kernel",
                    "--profile",
                    "guest",
                    "--target",
                    arch.target,
                ])
                .args(["--message-format", "json-render-diagnostics"])
                .arg("--target-dir")
                .arg(target)
                .current_dir(root()),
        )?;
        let built = |name: &str| {
            messages
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .filter(|message| message["target"]["name"] == name)
                .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
                .with_context(|| format!("cargo built no program {name}"))
        };
        let mut archive = Cpio::default();
        for folder in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
            archive.folder(folder);
        }
        archive.file("init", &built("kernel")?)?;
        archive.file("bin/twtrace", &built("twtrace")?)?;
        for file in with_libraries(&packages.ss()?, "bin/ss")? {
            archive.file(&file.inside, &file.path)?;
        }
        let folder = folder(target);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Guest {
            arch,
            archive,
            folder,
        })
    }

    pub(crate) fn log(&self, kernel: &Kernel, lane: &Lane) -> PathBuf {
        let lane = lane.name.replace(' ', "-");
        self.folder
            .join(format!("{}-{lane}.log", kernel.series.name))
    }

    /// Written for a kernel; where it is.
    pub(crate) fn initramfs(&self, kernel: &Kernel) -> Result<PathBuf> {
        let mut archive = self.archive.clone();
        for (place, module) in kernel.modules.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            // The guest loads them by name, so the place goes first.
            archive.file(&format!("modules/{place}-{name}"), module)?;
        }
        let path = self
            .folder
            .join(format!("initramfs-{}", kernel.series.name));
        fs::write(&path, archive.end())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Where initramfs images and consoles are written.
pub(crate) fn folder(target: &Path) -> PathBuf {
    target.join("vm")
}

/// A file of a root that is not this machine's.
struct InRoot {
    /// In the guest.
    inside: String,
    path: PathBuf,
}

/// A program, the loader that it names, and the libraries that they need.
fn with_libraries(root: &Path, program: &str) -> Result<Vec<InRoot>> {
    let mut files = vec![InRoot {
        inside: program.to_owned(),
        path: root.join(program),
    }];
    let mut read = 0;
    while let Some(file) = files.get(read) {
        read += 1;
        let said = output(
            Command::new("readelf")
                .args(["--wide", "--dynamic", "--program-headers"])
                .arg(&file.path),
        )?;
        for line in said.lines() {
            let needed = line
                .split_once("Shared library: [")
                .or_else(|| line.split_once("[Requesting program interpreter: "))
                .and_then(|(_, rest)| rest.strip_suffix(']'));
            let Some(needed) = needed else { continue };
            let (folder, name) = needed.rsplit_once('/').unwrap_or(("", needed));
            if files.iter().any(|known| known.path.ends_with(name)) {
                continue;
            }
            let mut file = library(root, name)?;
            if !folder.is_empty() {
                // Where programs expect the loader there is a link, to the root.
                file.inside = needed.trim_start_matches('/').to_owned();
            }
            files.push(file);
        }
    }
    Ok(files)
}

/// In whichever folder it lies.
fn library(root: &Path, name: &str) -> Result<InRoot> {
    ["lib", "usr/lib"]
        .into_iter()
        .filter_map(|folder| fs::read_dir(root.join(folder)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join(name)))
        .find(|path| path.exists())
        .and_then(|path| {
            let inside = path.strip_prefix(root).ok()?.to_str()?.to_owned();
            Some(InRoot { inside, path })
        })
        .with_context(|| format!("{} has no {name}", root.display()))
}

/// An archive in the format `newc`, which the kernel unpacks.
#[derive(Clone, Debug, Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    folders: Vec<String>,
}

impl Cpio {
    const FOLDER: u32 = 0o040_755;
    const FILE: u32 = 0o100_000;

    /// With its parents, once.
    fn folder(&mut self, name: &str) {
        if name.is_empty() || self.folders.iter().any(|known| known == name) {
            return;
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.folder(parent);
        }
        self.folders.push(name.to_owned());
        self.entry(name, Self::FOLDER, &[]);
    }

    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(name, Self::FILE | mode, &content);
        Ok(())
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = content.len() as u32;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Cpio;

    /// As `cpio -H newc` writes a folder and the end: 110 bytes of header each,
    /// names and contents padded to four bytes.
    #[test]
    fn an_archive_is_newc() {
        let mut archive = Cpio::default();
        archive.folder("a/b");
        let bytes = archive.end();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ED"), "{text}");
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..118], b"070701");
        assert_eq!(&bytes[112 + 110..112 + 114], b"a/b\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.contains("TRAILER!!!"));
    }
}
