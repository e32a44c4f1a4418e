//! Opening a file to be written where others may have put one.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Result, bail};

/// A recording tells who talks to whom: a new one is its owner's alone. One that
/// is there keeps the mode and the owner that somebody gave it.
const MODE: u32 = 0o600;

/// Directories in which anyone may make files, and take away only his own.
const STICKY_FOR_ALL: u32 = 0o1002;

/// What is in it stays. Also whether it was created just now.
///
/// In a directory such as `/tmp`, what another user left at that name (a link,
/// a FIFO, a file that he can read) is refused, as the kernel refuses it where
/// `fs.protected_symlinks`, `_fifos` and `_regular` are set.
pub(super) fn create(path: &Path) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).mode(MODE);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => return Ok((created?, true)),
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if let Some(owner) = stranger(&directory.metadata()?, &path.symlink_metadata()?) {
        bail!(
            "what is there belongs to user {owner}, who may have left it for others to write \
             into; give another name"
        );
    }
    // Where it is a link, to a file that may not be there yet.
    Ok((options.create(true).truncate(false).open(path)?, false))
}

/// The owner of what is in a directory for all, unless it is our own or the
/// directory's. It stays while we look: only its owner could take it away.
fn stranger(directory: &Metadata, entry: &Metadata) -> Option<u32> {
    let for_all = directory.mode() & STICKY_FOR_ALL == STICKY_FOR_ALL;
    let own = [rustix::process::geteuid().as_raw(), directory.uid()];
    (for_all && !own.contains(&entry.uid())).then_some(entry.uid())
}
