//! As process 1 of a virtual machine: makes the file system of an initramfs fit
//! for the tests, loads the modules it was given, runs the tests in a process of
//! their own, and powers the machine off.
//!
//! `cargo xtask vm` builds that initramfs; what is said here on the console it
//! reads. It never returns: a process 1 that ends is a kernel panic.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Each on a line of its own, so that nothing a test prints is taken for it.
const READY: &str = "guest: ready";
const DONE: &str = "guest: done";

/// File systems: type, and where.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("securityfs", "/sys/kernel/security"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Modules in the order in which they depend on each other.
const MODULES: &str = "/modules";

/// Set for the tests that run in a guest.
const GUEST: &str = "TWTRACE_GUEST";

/// Process 1 of a PID namespace is no guest: it would mount over its host's files.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(MODULES).is_dir()
}

/// Whether every instruction is emulated, and CPUs take turns.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os(GUEST).is_some()
}

/// How much of something a test makes: a tenth in a guest, where every
/// instruction is emulated.
pub(crate) fn lighter(n: u64) -> u64 {
    if is_emulated() { n / 10 } else { n }
}

pub(crate) fn be_init() -> ! {
    let told = match prepare().and_then(|()| run()) {
        Ok(status) => format!("{DONE} {}", status.code().unwrap_or(-1)),
        Err(error) => format!("guest: failed: {error:#}"),
    };
    tell(&told);
    rustix::fs::sync();
    let why = reboot(RebootCommand::PowerOff);
    tell(&format!("guest: cannot power off: {why:?}"));
    loop {
        std::thread::park();
    }
}

fn prepare() -> Result<()> {
    for (kind, at) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        mount(kind, at, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {at}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES)
        .context("cannot list the modules")?
        .collect::<io::Result<_>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    for module in modules {
        // What then cannot be tested says so itself.
        if let Err(error) = load(&module.path()) {
            tell(&format!("guest: {error:#}"));
        }
    }
    tell(&format!(
        "{READY} {} {}",
        rustix::system::uname().release().to_string_lossy(),
        fs::read_to_string("/sys/kernel/security/lockdown")
            .unwrap_or_default()
            .trim()
    ));
    Ok(())
}

fn load(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    finit_module(&file, c"", 0).with_context(|| format!("cannot load {}", path.display()))
}

fn run() -> Result<ExitStatus> {
    // Before them stands what the kernel did not know as its own.
    let words = std::env::args_os()
        .skip(1)
        .skip_while(|word| !word.as_encoded_bytes().starts_with(b"--"));
    Command::new("/proc/self/exe")
        .args(words)
        .env("PATH", "/bin")
        .env("TWTRACE", "/bin/twtrace")
        .env(GUEST, "1")
        .status()
        .context("cannot start the tests")
}

/// To the console; there is nobody to tell that it failed.
fn tell(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
