//! The processors that guests have.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::run;
use crate::programs::Program;
use crate::toolchain::Toolchain;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arch {
    /// As Debian names it.
    pub(crate) name: &'static str,
    /// Of Rust.
    pub(crate) target: &'static str,
    /// Links for it.
    pub(crate) linker: &'static str,
    pub(crate) qemu: &'static str,
    /// The machine, its CPU.
    pub(crate) machine: &'static [&'static str],
    /// Of the kernel.
    pub(crate) boot: &'static str,
    pub(crate) needed: &'static [Program],
}

pub(crate) const AMD64: Arch = Arch {
    name: "amd64",
    target: "x86_64-unknown-linux-gnu",
    linker: "cc",
    qemu: "qemu-system-x86_64",
    // Without what costs an emulated CPU most: 16-byte compare-and-exchange, which
    // stops all others, and string instructions of byte after byte.
    machine: &["-cpu", "max,-cx16,-erms,-fsrm"],
    // Without cures for ills that an emulated CPU has not.
    boot: "console=ttyS0 mitigations=off no_timer_check",
    needed: &[("qemu-system-x86_64", "qemu-system-x86", "boots the kernels")],
};

pub(crate) const ARM64: Arch = Arch {
    name: "arm64",
    target: "aarch64-unknown-linux-gnu",
    linker: "aarch64-linux-gnu-gcc",
    qemu: "qemu-system-aarch64",
    // Atomics of one instruction, as servers have; without pointers that are
    // signed, which cost an emulated CPU most.
    machine: &["-machine", "virt", "-cpu", "max,pauth=off,sve=off"],
    boot: "console=ttyAMA0 mitigations=off",
    needed: &[
        (
            "qemu-system-aarch64",
            "qemu-system-arm",
            "boots the kernels of arm64",
        ),
        (
            "aarch64-linux-gnu-gcc",
            "gcc-aarch64-linux-gnu",
            "links for arm64",
        ),
        (
            "/usr/aarch64-linux-gnu/lib/libc.a",
            "libc6-dev-arm64-cross",
            "is the C library of arm64",
        ),
    ],
};

pub(crate) const ARCHS: [&Arch; 2] = [&AMD64, &ARM64];

impl Arch {
    /// Fails with the command that installs the standard library for it.
    pub(crate) fn require_std(&self, toolchain: &Toolchain) -> Result<()> {
        if !self.has_std(toolchain) {
            bail!(
                "the standard library of {} is missing: rustup target add {0}",
                self.target
            );
        }
        Ok(())
    }

    pub(crate) fn install_std(&self, toolchain: &Toolchain) -> Result<()> {
        if self.has_std(toolchain) {
            return Ok(());
        }
        run(Command::new("rustup")
            .args(["target", "add", self.target])
            .current_dir(crate::toolchain::root()))
    }

    fn has_std(&self, toolchain: &Toolchain) -> bool {
        toolchain
            .sysroot
            .join("lib/rustlib")
            .join(self.target)
            .join("lib")
            .is_dir()
    }

    /// Where cargo looks for the linker.
    pub(crate) fn linker_variable(&self) -> String {
        let target = self.target.replace('-', "_").to_uppercase();
        format!("CARGO_TARGET_{target}_LINKER")
    }
}
