//! `bare`: the README's two commands, word for word, where there is nothing but a
//! minimal Debian, gcc and the pinned Rust.
//!
//! That root is a folder in memory, mounted where only this process and its
//! children see it: it is gone with the last of them, however they end. A chroot
//! shares the kernel, the network and `/proc` with the machine.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{output, run};
use crate::programs::{self, Program};
use crate::toolchain::{Toolchain, root};
use crate::{say, vm};

const NEEDED: [Program; 3] = [
    ("debootstrap", "debootstrap", "makes the root"),
    ("unshare", "util-linux", "keeps its mounts from the machine"),
    ("git", "git", "copies what is committed"),
];

const SUITE: &str = "bookworm";

/// What a Rust that links needs, and what cargo needs to reach a registry.
const PACKAGES: &str = "gcc,libc6-dev,ca-certificates";

/// Set where the mounts are private already.
const INSIDE: &str = "TWTRACE_BARE";

/// In there.
const RUST: &str = "/opt/rust";
const CARGO_HOME: &str = "/root/.cargo";
const CHECKOUT: &str = "/root/twtrace";

/// How a page of `live` begins its table: it has started, and has counted.
const A_PAGE: &str = "STATE ";

pub(crate) fn bare(toolchain: &Toolchain, target: &Path) -> Result<()> {
    if env::var_os(INSIDE).is_none() {
        programs::require(&NEEDED)?;
        let failed = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(env::current_exe().context("which program is this?")?)
            .arg("bare")
            .env(INSIDE, "1")
            .exec();
        return Err(failed).context("cannot start unshare");
    }
    let root = Root::new(toolchain, target)?;
    say(format_args!("\n== cargo run --release"))?;
    root.live()?;
    say(format_args!("\n== cargo xtask test"))?;
    run(&mut root.command("cargo xtask test"))?;
    say(format_args!(
        "\nboth commands ended with 0 on {SUITE} with {PACKAGES} and Rust"
    ))
}

struct Root(PathBuf);

impl Root {
    fn new(toolchain: &Toolchain, target: &Path) -> Result<Root> {
        let memory = target.join("bare");
        fs::create_dir_all(&memory).with_context(|| format!("cannot make {}", memory.display()))?;
        mount("tmpfs", &memory, "tmpfs", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount a tmpfs on {}", memory.display()))?;
        // The root of a chroot need be no mount point, and here it is none.
        let place = Root(memory.join("root"));
        say(format_args!("making a root of {SUITE}"))?;
        run(Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
            .arg(&place.0)
            .arg(vm::mirror()?)
            .stdout(Stdio::null()))?;
        for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys")] {
            mount(kind, place.at(at), kind, MountFlags::empty(), None)
                .with_context(|| format!("cannot mount {kind}"))?;
        }
        place.lend(&toolchain.sysroot, RUST)?;
        mount_remount(place.at(RUST), MountFlags::BIND | MountFlags::RDONLY, "")
            .with_context(|| format!("cannot make {RUST} read-only"))?;
        place.lend(&cargo_home()?, CARGO_HOME)?;
        place.check_out()?;
        Ok(place)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A folder of the machine's.
    fn lend(&self, folder: &Path, path: &str) -> Result<()> {
        let at = self.at(path);
        fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
        mount_bind(folder, &at).with_context(|| format!("cannot lend {}", folder.display()))
    }

    fn check_out(&self) -> Result<()> {
        let changed = output(
            Command::new("git")
                .args(["status", "--porcelain"])
                .current_dir(root()),
        )?;
        if !changed.is_empty() {
            say(format_args!("what is not committed is left out"))?;
        }
        run(Command::new("git")
            .args(["clone", "--quiet"])
            .arg(root())
            .arg(self.at(CHECKOUT)))
    }

    /// Words of the shell, in the checkout. Of the environment only what reaches a
    /// registry or a proxy goes along.
    fn command(&self, words: &str) -> Command {
        const KEPT: [&str; 4] = [
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
        ];
        let mut command = Command::new("chroot");
        command
            .arg(&self.0)
            .args(["sh", "-c", &format!("cd {CHECKOUT} && exec {words}")])
            .env_clear()
            .envs(env::vars().filter(|(name, _)| {
                name.to_lowercase().ends_with("_proxy")
                    || KEPT.iter().any(|kept| name.starts_with(kept))
            }))
            .env("HOME", "/root")
            .env("PATH", format!("{RUST}/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        command
    }

    /// The first command, which runs until it is interrupted.
    fn live(&self) -> Result<()> {
        let mut live = self
            .command("cargo run --release")
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start chroot")?;
        let said = live.stdout.take().context("it has no stdout")?;
        let mut pages = 0;
        for line in BufReader::new(said).lines() {
            let line = line.context("cannot read what it prints")?;
            say(format_args!("{line}"))?;
            if line.starts_with(A_PAGE) {
                pages += 1;
                if pages == 1 {
                    // chroot, sh and cargo each have become the next.
                    kill_process(Pid::from_child(&live), Signal::INT)
                        .context("cannot interrupt it")?;
                }
            }
        }
        let status = live.wait().context("cannot wait for it")?;
        ensure!(pages > 0, "it ended ({status}) before it counted anything");
        if !status.success() {
            bail!("cargo run --release ended with {status}");
        }
        Ok(())
    }
}

/// Where cargo keeps what it has downloaded, and how to reach a registry.
fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo keeps its downloads")
}
