//! Mounts of a thread's own: what is mounted there is seen by nobody else, and is
//! gone with the last process that has them.

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::process::{chdir, chroot, getcwd};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::netns::on_own_thread;

/// Runs `work` on a new thread that has mounts of its own, as have the processes
/// that it starts.
pub fn privately<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_own_thread(|| {
        unshare()?;
        work()
    })
}

/// Gives the calling thread mounts of its own. Needs CAP_SYS_ADMIN.
pub fn unshare() -> Result<()> {
    // SAFETY: mounts, root and working directory are this thread's own from here
    // on; no descriptor table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .context("cannot make a mount namespace; run as root or grant cap_sys_admin")?;
    match make_private("/") {
        Err(Errno::INVAL) => leave_chroot_of_a_directory(),
        done => done.context("cannot make the mounts private"),
    }
}

fn make_private(tree: &str) -> rustix::io::Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change(tree, private)
}

/// Where the root is a mere directory, the mount it lies in is out of reach, and
/// so is its propagation. A copy of the tree, bound over /proc, which is a mount in
/// every root, becomes the root.
fn leave_chroot_of_a_directory() -> Result<()> {
    const COPY: &str = "/proc";
    let here = getcwd(Vec::new()).context("cannot tell the working directory")?;
    make_private(COPY).context("the root is no mount point, and neither is /proc")?;
    mount_bind_recursive("/", COPY).context("cannot bind the root over /proc")?;
    make_private(COPY).context("cannot make the mounts private")?;
    chroot(COPY).context("cannot change the root")?;
    chdir(here).context("cannot return to the working directory")
}
