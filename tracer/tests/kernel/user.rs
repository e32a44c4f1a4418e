//! As whom a command runs beside a recording: what the kernel and the command's
//! own environment say of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use rustix::mount::mount_bind;
use tracer::kernel::user;
use tracer::lab::churn;
use tracer::lab::mounts;
use tracer::lab::netns::Netns;

use super::twtrace;
use super::{Outcome, Verdict};

/// Of a user who may do nothing.
const NOBODY: u32 = 65_534;

/// A group of which he is a member there.
const GROUP: u32 = 54_321;

/// What `sh` prints of itself: its status, its variables, its standard input.
const SCRIPT: &str = "cat /proc/self/status; echo HOME: $HOME; echo USER: $USER; \
                      echo LOGNAME: $LOGNAME; echo PATH: $PATH";

struct Scene {
    netns: Netns,
    folder: tempfile::TempDir,
}

impl Scene {
    /// Records with these words, called by `sudo` if `sudo`, in a mount namespace
    /// where `nobody` is in one more group.
    fn record(&self, sudo: bool, words: &[&str]) -> Result<Output> {
        let groups = self.folder.path().join("group");
        let mut record = twtrace::command();
        record
            .args(["record", "-o"])
            .arg(self.file())
            .args(["--netns", &self.netns.inode().to_string()])
            .args(words)
            .args(["--", "sh", "-c", SCRIPT])
            .current_dir("/")
            .env_remove("SUDO_UID")
            .env_remove("SUDO_GID");
        if sudo {
            record
                .env("SUDO_UID", NOBODY.to_string())
                .env("SUDO_GID", NOBODY.to_string());
        }
        mounts::privately(|| {
            mount_bind(&groups, "/etc/group").context("cannot replace /etc/group")?;
            record.output().context("cannot start twtrace")
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("run.jsonl")
    }
}

/// `Uid:\t0\t0\t0\t0` -> `0 0 0 0`, by its name.
fn said(output: &Output) -> Result<BTreeMap<String, String>> {
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), words(value)))
        .collect())
}

fn is_nobody(output: &Output) -> Result<()> {
    let said = said(output)?;
    for (name, expected) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Gid", "65534 65534 65534 65534"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("USER", "nobody"),
        ("LOGNAME", "nobody"),
    ] {
        let value = said.get(name).map(String::as_str);
        ensure!(value == Some(expected), "{name} is {value:?}");
    }
    let mut groups: Vec<&str> = said["Groups"].split(' ').collect();
    groups.sort_unstable();
    ensure!(groups == ["54321", "65534"], "in the groups {groups:?}");
    ensure!(said["HOME"] != "/root", "at home in {}", said["HOME"]);
    let path = std::env::var("PATH")?;
    ensure!(said["PATH"] == path, "PATH is {:?}", said["PATH"]);
    Ok(())
}

pub(crate) fn a_command_runs_as_who_called_sudo_or_as_asked() -> Outcome {
    if user::find("nobody").map(|user| user.uid) != Ok(NOBODY) {
        return Ok(Verdict::Impossible("nobody is not a user here".to_owned()));
    }
    let scene = Scene {
        netns: churn::namespace()?,
        folder: tempfile::tempdir()?,
    };
    let groups = fs::read_to_string("/etc/group")? + &format!("\ntwtest:x:{GROUP}:nobody\n");
    fs::write(scene.folder.path().join("group"), groups)?;

    let by_sudo = scene.record(true, &[])?;
    is_nobody(&by_sudo).context("by sudo")?;
    let told = String::from_utf8_lossy(&by_sudo.stderr);
    ensure!(
        told.contains("running sh as nobody, who called sudo; --user root runs it as root\n"),
        "{told}"
    );
    for name in ["nobody", "65534"] {
        is_nobody(&scene.record(false, &["--user", name])?).with_context(|| name)?;
    }
    for (sudo, words) in [(true, &["--user", "root"][..]), (false, &[])] {
        let output = scene.record(sudo, words)?;
        let said = said(&output)?;
        ensure!(said["Uid"] == "0 0 0 0", "{words:?}: {said:?}");
        ensure!(said["CapEff"] != "0000000000000000", "{words:?}: {said:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(!told.contains("sudo"), "{words:?}: {told}");
    }

    // The recording is root's still.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(scene.file())?);
    ensure!(owner == 0, "the recording is of user {owner}");
    refused(&scene)?;
    Ok(Verdict::Held)
}

/// Before anything is written.
fn refused(scene: &Scene) -> Result<()> {
    let kept = "what was recorded before\n";
    fs::write(scene.file(), kept)?;
    let output = scene.record(false, &["--user", "no-such-user"])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(
        told.contains("there is no user \"no-such-user\" here"),
        "{told}"
    );
    ensure!(fs::read_to_string(scene.file())? == kept, "written over");
    Ok(())
}
