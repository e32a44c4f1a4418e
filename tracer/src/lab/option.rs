//! Socket options of one `int` that no library has a name for.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};

/// `setsockopt()` of an `int`.
pub fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<()> {
    // SAFETY: the option's value is one int, which lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    ensure!(
        set == 0,
        "cannot set the option {option}: {}",
        io::Error::last_os_error()
    );
    Ok(())
}
