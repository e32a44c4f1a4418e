//! A private network namespace, held by one descriptor.
//!
//! It has no name and no mount: it can be reached as `/proc/PID/fd/N` or by its
//! inode, and it is gone when the [`Netns`] and the sockets in it are. Threads
//! that enter it are made for that and end there, so no thread of the caller's
//! ever changes its namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::{link, mounts};

#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u32,
}

impl Netns {
    /// A new namespace with its loopback up. Needs CAP_SYS_ADMIN.
    pub fn new() -> Result<Netns> {
        on_own_thread(|| {
            // SAFETY: only the network namespace is unshared, no descriptor table,
            // and the thread ends right after.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .context("cannot make a network namespace; run as root or grant cap_sys_admin")?;
            link::bring_up("lo")?;
            Netns::own()
        })
    }

    /// The namespace of the calling thread.
    pub fn own() -> Result<Netns> {
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let inode = file
            .metadata()
            .with_context(|| format!("cannot stat {path}"))?
            .ino();
        Ok(Netns {
            file,
            inode: u32::try_from(inode).context("the namespace's inode exceeds 32 bits")?,
        })
    }

    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// A path under which other processes of the same user can open it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", own_number(), self.file.as_raw_fd()).into()
    }

    /// Runs `work` on a new thread inside; sockets it makes stay inside wherever
    /// they are moved. A panic in it goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            enter(&self.file, self.inode)?;
            Ok(work())
        })
    }

    /// Starts a thread inside, which keeps the namespace alive as long as it runs.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let inode = self.inode;
        let file = self
            .file
            .try_clone()
            .with_context(|| format!("cannot hold network namespace {inode}"))?;
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                enter(&file, inode)?;
                work()
            })
            .with_context(|| format!("cannot start the thread {name}"))
    }

    /// Starts a process inside.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {}", said(command)))
        })?
    }

    /// Runs a command inside to its end; fails unless it succeeds.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let output = self.run(|| {
            command
                .output()
                .with_context(|| format!("cannot start {}", said(command)))
        })??;
        ensure!(
            output.status.success(),
            "{} failed ({}): {}",
            said(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output)
    }

    /// Sets a key below `net`, in sysctl's spelling without that prefix:
    /// `ipv4.tcp_tw_reuse`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {path}"))
        })?
    }

    pub fn sysctl(&self, key: &str) -> Result<String> {
        self.read(&sysctl_path(key))
            .map(|text| text.trim_end().to_owned())
    }

    /// A file as a thread inside reads it. `/proc/net` follows the process's
    /// first thread: ask for `/proc/thread-self/net`.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?
    }

    /// Which CPUs receive packet steering may choose for `interface`, as a mask.
    /// sysfs shows the namespace it was mounted in, so it is mounted anew, in a
    /// mount namespace that ends with the thread.
    pub fn set_rps_cpus(&self, interface: &str, mask: &str) -> Result<()> {
        self.run(|| {
            mounts::unshare()?;
            // The old one is left mounted below where it is busy.
            let _ = unmount("/sys", UnmountFlags::DETACH);
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)
                .context("cannot mount sysfs for the namespace")?;
            let path = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
            fs::write(&path, mask).with_context(|| format!("cannot write {mask:?} to {path}"))
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// This process's number in `/proc`, which is not what getpid() says in a PID
/// namespace that has the `/proc` of another.
pub(crate) fn own_number() -> u32 {
    let link = fs::read_link("/proc/self").ok();
    let number = link.and_then(|link| link.to_str()?.parse().ok());
    number.unwrap_or_else(std::process::id)
}

/// Takes the calling thread there.
fn enter(file: &File, inode: u32) -> Result<()> {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter network namespace {inode}"))
}

fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/net/{}", key.replace('.', "/"))
}

fn said(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .context("cannot start a thread for a namespace")?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
