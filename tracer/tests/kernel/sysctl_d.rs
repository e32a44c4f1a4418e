//! Which file of sysctl.d wins: what `tracer::kernel::sysctl_d` foretells, and
//! what systemd-sysctl and `sysctl --system` really do with the same files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::mount_bind;
use tracer::kernel::sysctl_d::{Files, Program};
use tracer::lab::mounts;
use tracer::lab::netns::Netns;

use super::programs::{SYSCTL, SYSTEMD_SYSCTL};
use super::{Outcome, Verdict};

/// Paths below the root of a host, and what is in them.
const FILES: [(&str, &str); 8] = [
    (
        "usr/lib/sysctl.d/50-a.conf",
        "net.ipv4.tcp_tw_reuse=0\nnet.ipv4.tcp_fin_timeout=11\n",
    ),
    ("run/sysctl.d/50-a.conf", "net.ipv4.tcp_fin_timeout = 12\n"),
    (
        "usr/local/lib/sysctl.d/55-c.conf",
        "net.ipv4.tcp_fin_timeout = 13\n",
    ),
    (
        "etc/sysctl.d/60-b.conf",
        "# none\nnet/ipv4/tcp_rfc1337=1\nnet.ipv4.tcp_keepalive_t* = 100\n\
         -net.ipv4.tcp_timestamps = 0\nnet.core.somaxconn = 50\n",
    ),
    (
        "etc/sysctl.d/70-d.conf",
        "net.ipv4.tcp_orphan_r* = 3\n-net.ipv4.tcp_orphan_retries\n\
         net.ipv4.tcp_syn_ret?ies = 4\nnet.core.somax* = 60\nnet.ipv4.tcp_[r]etries2 = 9\n\
         net.ipv4.ip_local_port_range = 20000   30000\n",
    ),
    (
        "usr/lib/sysctl.d/80.conf",
        "net.ipv4.tcp_max_tw_buckets=77\n",
    ),
    ("etc/sysctl.d/90.txt", "net.ipv4.tcp_synack_retries=2\n"),
    ("etc/sysctl.conf", "net.ipv4.tcp_fin_timeout=14\n"),
];

const KEYS: [&str; 12] = [
    "ipv4.tcp_tw_reuse",
    "ipv4.tcp_fin_timeout",
    "ipv4.tcp_rfc1337",
    "ipv4.tcp_keepalive_time",
    "ipv4.tcp_timestamps",
    "ipv4.tcp_orphan_retries",
    "ipv4.tcp_syn_retries",
    "ipv4.tcp_synack_retries",
    "ipv4.tcp_retries2",
    "ipv4.tcp_max_tw_buckets",
    "ipv4.ip_local_port_range",
    "core.somaxconn",
];

/// What of a host is replaced by what lies in [`FILES`].
const FOLDERS: [&str; 4] = ["usr/local/lib", "usr/lib/sysctl.d", "run", "etc"];

fn value(netns: &Netns, key: &str) -> Result<String> {
    let value = netns.sysctl(key)?;
    Ok(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(crate) fn systemd_sets_what_is_foretold() -> Outcome {
    SYSTEMD_SYSCTL.needed()?;
    sets_what_is_foretold(
        Program::SystemdSysctl,
        &mut Command::new(SYSTEMD_SYSCTL.name),
    )
}

pub(crate) fn procps_sets_what_is_foretold() -> Outcome {
    SYSCTL.needed()?;
    sets_what_is_foretold(Program::Procps, Command::new(SYSCTL.name).arg("--system"))
}

fn sets_what_is_foretold(program: Program, command: &mut Command) -> Outcome {
    let root = tempfile::tempdir()?;
    for (path, text) in FILES {
        let path = root.path().join(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text)?;
    }
    symlink("/dev/null", root.path().join("etc/sysctl.d/80.conf"))?;

    let untouched = Netns::new()?;
    let set = Netns::new()?;
    let output = set.run(|| {
        mounts::unshare()?;
        for folder in FOLDERS {
            mount_bind(root.path().join(folder), Path::new("/").join(folder))
                .with_context(|| format!("cannot replace /{folder}"))?;
        }
        command
            .output()
            .with_context(|| format!("cannot start {command:?}"))
    })??;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    let files = Files::read_for(program, root.path());
    for key in KEYS {
        let foretold = match files.setting(&format!("net.{key}")) {
            Some(setting) => setting.value.clone(),
            None => value(&untouched, key)?,
        };
        let found = value(&set, key)?;
        ensure!(
            found == foretold,
            "{} made {key} {found:?}, foretold was {foretold:?}",
            program.name()
        );
    }
    Ok(Verdict::Held)
}
