//! The path of a cgroup, by the id the kernel side reports.
//!
//! The id of a cgroup (v2) is the inode number of its directory, and the kernel
//! offers no look-up by it. So the tree is walked when an id is first asked for
//! that is not known; how often and how far is bounded, since a cgroup that has
//! gone is never found.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustc_hash::FxHashMap;

use super::{clock, mountinfo};
use crate::model::event::Moment;

/// No second walk for an unknown id within this time.
const WALK_EVERY: Duration = Duration::from_secs(5);

/// Directories looked at in one walk, and paths remembered.
const MOST: usize = 1 << 15;

/// Paths of cgroups, remembered beyond their end.
#[derive(Debug, Default)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    paths: FxHashMap<u64, String>,
    walked: Option<Moment>,
}

impl Cgroups {
    #[must_use]
    pub fn new() -> Cgroups {
        Cgroups {
            mount: mount(),
            ..Cgroups::default()
        }
    }

    /// Path below the cgroup v2 mount, `/` for the mount itself; `None` where
    /// that cgroup is not known (yet).
    pub fn path(&mut self, id: u64) -> Option<&str> {
        self.path_when(id, clock::now)
    }

    /// Asked for each event, so no clock is read for what is known.
    fn path_when(&mut self, id: u64, now: impl FnOnce() -> Moment) -> Option<&str> {
        if !self.paths.contains_key(&id) {
            let now = now();
            if self.walked.is_none_or(|then| now.since(then) >= WALK_EVERY) {
                self.walked = Some(now);
                self.walk();
            }
        }
        self.paths.get(&id).map(String::as_str)
    }

    /// Breadth first, so that what a bounded walk leaves out is the deepest.
    fn walk(&mut self) {
        let Some(mount) = &self.mount else { return };
        let Ok(root) = fs::metadata(mount) else {
            return;
        };
        if self.paths.len() >= MOST {
            // Mostly cgroups that have gone; those still there come again.
            self.paths.clear();
        }
        self.paths.insert(root.ino(), "/".to_owned());
        let mut waiting = VecDeque::from([String::new()]);
        let mut seen = 0;
        while let Some(above) = waiting.pop_front() {
            // A cgroup may vanish under the walk.
            let entries = fs::read_dir(mount.join(above.trim_start_matches('/')));
            for entry in entries.into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                seen += 1;
                if seen > MOST {
                    return;
                }
                let path = format!("{above}/{}", entry.file_name().to_string_lossy());
                self.paths.insert(entry.ino(), path.clone());
                waiting.push_back(path);
            }
        }
    }
}

/// The ids of the control group at a path below the mount, or at its directory,
/// and of those below it.
pub fn ids(path: &str) -> Result<Vec<u64>> {
    let mount =
        mount().context("cgroup v2 is not mounted here, so no control group can be told")?;
    let below = Path::new(path)
        .strip_prefix(&mount)
        .unwrap_or(Path::new(path.trim_start_matches('/')));
    let directory = mount.join(below);
    let own = fs::metadata(&directory)
        .with_context(|| format!("there is no control group {}", directory.display()))?;
    let mut ids = vec![own.ino()];
    let mut waiting = vec![directory];
    while let Some(above) = waiting.pop() {
        // A cgroup may vanish meanwhile.
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.push(entry.ino());
                waiting.push(entry.path());
            }
        }
    }
    Ok(ids)
}

/// Where cgroup v2 is mounted: alone, or beside v1.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    mount_in(&fs::read("/proc/self/mountinfo").ok()?)
}

fn mount_in(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut mounts = mountinfo::parse(mountinfo).filter(|mount| mount.kind == "cgroup2");
    let first = mounts.next()?;
    // A bind mount of a part would hide the rest.
    let whole = if first.root == Path::new("/") {
        first
    } else {
        mounts
            .find(|mount| mount.root == Path::new("/"))
            .unwrap_or(first)
    };
    Some(whole.point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(directory: &Path) -> Cgroups {
        Cgroups {
            mount: Some(directory.to_owned()),
            ..Cgroups::default()
        }
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn finds_paths_by_inode() {
        let tree = tempfile::tempdir().unwrap();
        let deep = tree.path().join("system.slice/a b.service");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("cgroup.procs"), "").unwrap();
        let mut cgroups = over(tree.path());
        assert_eq!(cgroups.path(inode(tree.path())), Some("/"));
        assert_eq!(
            cgroups.path(inode(&deep)),
            Some("/system.slice/a b.service")
        );
        assert_eq!(cgroups.path(inode(&deep.join("cgroup.procs"))), None);
    }

    #[test]
    fn walks_again_only_after_a_while_and_remembers_the_gone() {
        let tree = tempfile::tempdir().unwrap();
        let first = tree.path().join("first");
        fs::create_dir(&first).unwrap();
        let first_id = inode(&first);
        let mut cgroups = over(tree.path());
        assert!(cgroups.path_when(first_id, || Moment(SECOND)).is_some());
        let second = tree.path().join("second");
        fs::create_dir(&second).unwrap();
        let second_id = inode(&second);
        assert_eq!(cgroups.path_when(second_id, || Moment(2 * SECOND)), None);
        fs::remove_dir(&first).unwrap();
        assert_eq!(
            cgroups.path_when(second_id, || Moment(7 * SECOND)),
            Some("/second")
        );
        assert_eq!(
            cgroups.path_when(first_id, || Moment(8 * SECOND)),
            Some("/first")
        );
    }

    #[test]
    fn without_a_mount_nothing_is_known() {
        assert_eq!(Cgroups::default().path(1), None);
        assert_eq!(mount_in(b"24 30 0:22 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn the_whole_tree_is_preferred_to_a_part() {
        let text = b"\
24 30 0:22 /part /a rw - cgroup2 cgroup2 rw
25 30 0:22 / /b rw - cgroup2 cgroup2 rw
";
        assert_eq!(mount_in(text), Some("/b".into()));
    }
}
