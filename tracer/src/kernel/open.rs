//! Opening what somebody else may have put there.
//!
//! Whoever opens a FIFO waits for its other end, and whoever opens a device has
//! its driver act: as root, on behalf of anyone who can name a path. So a path is
//! first only looked up (`O_PATH`), what it leads to is checked, and that very
//! inode is opened then, by descriptor and not by name. The check is by `statx`
//! without a question to the file system, which may be one that never answers.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, makedev, open, openat2, statx,
};
use rustix::io::Errno;

/// Leads to every namespace's file system: there is one `nsfs`, and this is on it.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A namespace's file that was found, and may be opened.
#[derive(Debug)]
pub(super) struct Found {
    file: OwnedFd,
    pub(super) inode: u64,
}

impl Found {
    /// A descriptor that `setns` takes; the one that finds does not do.
    pub(super) fn open(&self) -> io::Result<File> {
        reopen(&self.file)
    }
}

/// The namespace's file that a link of `/proc`, or the user, names: followed to its end.
pub(super) fn namespace(path: &Path) -> io::Result<Found> {
    as_namespace(find(path)?)
}

/// The namespace's file that is mounted at `point`, as a list of mounts writes
/// it, for a process whose root directory is `root`. Such a path has no link in
/// it; where it has one now, or leads out, that mount is not found there any more.
pub(super) fn mounted_namespace(root: &Path, point: &Path) -> io::Result<Found> {
    let root_directory = open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let look = |resolve| {
        openat2(
            &root_directory,
            point,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | resolve,
        )
    };
    // What is mounted keeps its path in memory. A file system that has to be
    // asked (FUSE, NFS) may never answer; only below our own root is it asked.
    let file = match look(ResolveFlags::CACHED) {
        Err(Errno::AGAIN) if root == Path::new("/") => look(ResolveFlags::empty()),
        // Before 5.12.
        Err(Errno::INVAL) => look(ResolveFlags::empty()),
        other => other,
    };
    as_namespace(file.map_err(|error| match error {
        Errno::AGAIN | Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Errno::NOENT,
        other => other,
    })?)
}

/// A regular file, or [`io::ErrorKind::InvalidInput`].
pub(super) fn regular(path: &Path) -> io::Result<File> {
    let file = find(path)?;
    let kind = FileType::from_raw_mode(status(&file)?.stx_mode.into());
    if kind != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    reopen(&file)
}

fn find(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn as_namespace(file: OwnedFd) -> io::Result<Found> {
    let status = status(&file)?;
    let device = makedev(status.stx_dev_major, status.stx_dev_minor);
    if device != fs::metadata(OWN_NAMESPACE)?.dev() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a namespace",
        ));
    }
    Ok(Found {
        file,
        inode: status.stx_ino,
    })
}

fn status(file: &OwnedFd) -> rustix::io::Result<Statx> {
    statx(
        file,
        "",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::TYPE | StatxFlags::INO,
    )
}

fn reopen(file: &OwnedFd) -> io::Result<File> {
    File::open(format!("/proc/thread-self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{CWD, mkfifoat, mknodat};
    use rustix::mount::{MountFlags, mount, mount_bind};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::lab::mounts;

    const MINE: Mode = Mode::RUSR.union(Mode::WUSR);

    /// Runs it in a mount and a network namespace of its own, with a directory.
    fn apart(f: impl FnOnce(PathBuf) + Send) {
        let directory = tempfile::tempdir().unwrap();
        mounts::privately(|| {
            // SAFETY: only this thread's network namespace changes, and it ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            f(directory.path().to_owned());
            Ok(())
        })
        .expect("this test makes namespaces and needs root for it");
    }

    fn mounted(directory: &Path) -> PathBuf {
        let point = directory.join("house/door");
        fs::create_dir(directory.join("house")).unwrap();
        fs::write(&point, "").unwrap();
        mount_bind(OWN_NAMESPACE, &point).unwrap();
        point
    }

    #[test]
    fn a_namespace_is_opened_where_it_is_mounted() {
        apart(|directory| {
            let point = mounted(&directory);
            let inode = fs::metadata(OWN_NAMESPACE).unwrap().ino();
            for (root, below) in [
                (Path::new("/"), point.as_path()),
                (&directory, Path::new("/house/door")),
                (Path::new("/proc/thread-self/root"), &point),
            ] {
                let found = mounted_namespace(root, below).unwrap();
                assert_eq!(found.inode, inode);
                assert_eq!(found.open().unwrap().metadata().unwrap().ino(), inode);
            }
            assert_eq!(namespace(&point).unwrap().inode, inode);
            assert_eq!(namespace(Path::new(OWN_NAMESPACE)).unwrap().inode, inode);
        });
    }

    #[test]
    fn what_stands_in_its_place_is_not_opened() {
        apart(|directory| {
            let at = |name: &str| directory.join(name);
            mkfifoat(CWD, at("fifo"), MINE).unwrap();
            // Whoever opened this one would be told that it has no driver.
            let no_driver = makedev(511, 0);
            mknodat(
                CWD,
                at("device"),
                FileType::CharacterDevice,
                MINE,
                no_driver,
            )
            .unwrap();
            fs::write(at("file"), "").unwrap();
            for name in ["device", "fifo", "file", ""] {
                let below = Path::new("/").join(name);
                for refused in [
                    mounted_namespace(&directory, &below).unwrap_err(),
                    mounted_namespace(Path::new("/"), &at(name)).unwrap_err(),
                    namespace(&at(name)).unwrap_err(),
                ] {
                    assert_eq!(
                        refused.kind(),
                        io::ErrorKind::InvalidInput,
                        "{name}: {refused}"
                    );
                }
            }
            for name in ["device", "fifo"] {
                let refused = regular(&at(name)).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    io::ErrorKind::InvalidInput,
                    "{name}: {refused}"
                );
            }
            assert!(regular(&at("file")).is_ok());
        });
    }

    #[test]
    fn no_link_is_followed_to_a_mount() {
        apart(|directory| {
            let point = mounted(&directory);
            symlink(&point, directory.join("link")).unwrap();
            symlink(directory.join("house"), directory.join("other")).unwrap();
            symlink("/proc/thread-self/ns", directory.join("ns")).unwrap();
            for name in ["link", "other/door", "ns/net"] {
                let refused = mounted_namespace(Path::new("/"), &directory.join(name));
                assert_eq!(
                    refused.unwrap_err().kind(),
                    io::ErrorKind::NotFound,
                    "{name}"
                );
                // The user may call it what he likes.
                assert!(namespace(&directory.join(name)).is_ok(), "{name}");
            }
            let outside = mounted_namespace(&directory.join("house"), Path::new("../house/door"));
            assert_eq!(outside.unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }

    /// A file system whose program never answers lies over a mounted namespace,
    /// which the list of mounts goes on to show.
    #[test]
    fn a_file_system_that_does_not_answer_is_not_asked() {
        apart(|directory| {
            mounted(&directory);
            // A kernel without FUSE has no such file system.
            let Ok(program) = File::options().read(true).write(true).open("/dev/fuse") else {
                return;
            };
            let options = format!(
                "fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0",
                program.as_raw_fd()
            );
            let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
            mount(
                "never",
                directory.join("house"),
                "fuse",
                MountFlags::empty(),
                options,
            )
            .unwrap();
            let (tell, told) = mpsc::channel();
            let waits = thread::scope(|scope| {
                scope.spawn(|| {
                    let found = mounted_namespace(&directory, Path::new("/house/door"));
                    let _ = tell.send(found.unwrap_err().kind());
                });
                let told = told.recv_timeout(Duration::from_secs(10));
                // Nobody waits for it any more.
                drop(program);
                told
            });
            assert_eq!(waits, Ok(io::ErrorKind::NotFound));
        });
    }
}
