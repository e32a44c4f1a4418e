//! Control groups that only v1 tells apart. On a hybrid host, where v1 has the
//! controllers and v2 is mounted beside it, a container may have a group in v1
//! alone, while the kernel side reports the group in v2: the root, for all of them.
//!
//! It reads what each process is in and refuses to know how that came about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A group of v2 whose processes are in several of v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Path of the group in v2.
    pub v2: String,
    /// Those in v1, at least two, as `memory:/docker/1a2b`.
    pub v1: Vec<String>,
}

/// Those of this host, the one with the most first.
#[must_use]
pub fn shared() -> Vec<Shared> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let texts = processes.filter_map(|process| {
        let name = process.file_name();
        let is_process = name.as_bytes().first().is_some_and(u8::is_ascii_digit);
        // Kernel threads have no program, nor sockets that would be told by it.
        (is_process && fs::read_link(process.path().join("exe")).is_ok())
            .then(|| fs::read_to_string(process.path().join("cgroup")).ok())?
    });
    shared_by(texts)
}

/// Pure: what `/proc/PID/cgroup` (cgroups(7)) says of each process.
fn shared_by(processes: impl Iterator<Item = String>) -> Vec<Shared> {
    // Group of v2 -> controllers of v1 -> their groups.
    let mut groups: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for process in processes {
        let lines = || {
            process.lines().filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                rest.split_once(':')
            })
        };
        let Some((_, v2)) = lines().find(|(controllers, _)| controllers.is_empty()) else {
            continue;
        };
        let within = groups.entry(v2.to_owned()).or_default();
        for (controllers, path) in lines() {
            // `name=systemd` has no controller and follows v2.
            if !controllers.is_empty() && !controllers.starts_with("name=") {
                let paths = within.entry(controllers.to_owned()).or_default();
                paths.insert(path.to_owned());
            }
        }
    }
    let mut shared: Vec<Shared> = groups
        .into_iter()
        .filter_map(|(v2, controllers)| {
            // The controller that tells the most of them apart.
            let (controller, paths) = controllers.into_iter().max_by_key(|(_, p)| p.len())?;
            let v1 = paths.iter().map(|path| format!("{controller}:{path}"));
            (paths.len() > 1).then(|| Shared {
                v2,
                v1: v1.collect(),
            })
        })
        .collect();
    shared.sort_by_key(|shared| std::cmp::Reverse(shared.v1.len()));
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_of(processes: &[&str]) -> Vec<Shared> {
        shared_by(processes.iter().map(|&text| text.to_owned()))
    }

    #[test]
    fn containers_of_v1_alone_share_a_group_of_v2() {
        let found = shared_of(&[
            "5:cpu,cpuacct:/\n4:memory:/docker/1a\n1:name=systemd:/docker/1a\n0::/\n",
            "5:cpu,cpuacct:/\n4:memory:/docker/2b\n1:name=systemd:/docker/2b\n0::/\n",
            "5:cpu,cpuacct:/\n4:memory:/docker/2b\n1:name=systemd:/docker/2b\n0::/\n",
            "5:cpu,cpuacct:/\n4:memory:/a\n0::/system.slice/a.service\n",
        ]);
        let v1 = ["memory:/docker/1a", "memory:/docker/2b"].map(str::to_owned);
        assert_eq!(
            found,
            [Shared {
                v2: "/".to_owned(),
                v1: v1.to_vec()
            }]
        );
    }

    #[test]
    fn what_v2_tells_apart_is_not_shared() {
        for processes in [
            // Hybrid as systemd makes it: v2 has every group of v1.
            &["4:memory:/a\n0::/a\n", "4:memory:/b\n0::/b\n"] as &[&str],
            // v2 alone, and v1 without controllers.
            &["0::/a\n", "0::/a\n"],
            &["1:name=systemd:/a\n0::/\n", "1:name=systemd:/b\n0::/\n"],
            // v1 alone: there is no group of v2 to share.
            &["4:memory:/a\n", "4:memory:/b\n"],
            &["", "nonsense\n"],
        ] {
            assert_eq!(shared_of(processes), [], "{processes:?}");
        }
    }
}
