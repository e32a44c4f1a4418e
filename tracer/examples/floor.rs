//! Empty programs on the tracepoints that the tracer attaches to, for `cargo
//! xtask bench`: what it costs to look at all, with nothing seen. Runs until it
//! is interrupted.
//!
//! Two instructions need no object file and no loader.

use std::ffi::{CString, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

/// Those that connections run through; what rescues skipped events is not there
/// where none are.
const TRACEPOINTS: [&str; 4] = [
    "inet_sock_set_state",
    "timer_start",
    "timer_cancel",
    "timer_expire_entry",
];

/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

const BPF_PROG_LOAD: c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// The kernel's `union bpf_attr` as `BPF_PROG_LOAD` reads it.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    first: *const u64,
    license: *const libc::c_char,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The same as `BPF_RAW_TRACEPOINT_OPEN` reads it.
#[repr(C)]
struct Open {
    name: *const libc::c_char,
    program: i32,
    unused: u32,
}

fn main() -> Result<()> {
    let _links = TRACEPOINTS
        .into_iter()
        .map(|tracepoint| {
            attach(tracepoint)
                .with_context(|| format!("cannot attach an empty program to {tracepoint}"))
        })
        .collect::<Result<Vec<_>>>()?;
    loop {
        std::thread::park();
    }
}

/// The program and its link; both are gone when they are closed.
fn attach(tracepoint: &str) -> Result<[OwnedFd; 2]> {
    let mut name = [0; 16];
    let length = tracepoint.len().min(name.len() - 1);
    name[..length].copy_from_slice(&tracepoint.as_bytes()[..length]);
    let program = bpf(
        BPF_PROG_LOAD,
        &Load {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instructions: NOTHING.len() as u32,
            first: NOTHING.as_ptr(),
            license: c"GPL".as_ptr(),
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name,
        },
    )?;
    let tracepoint = CString::new(tracepoint)?;
    let link = bpf(
        BPF_RAW_TRACEPOINT_OPEN,
        &Open {
            name: tracepoint.as_ptr(),
            program: program.as_raw_fd(),
            unused: 0,
        },
    )?;
    Ok([program, link])
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are laid out as this command reads them, their size
    // is given, and what they point to outlives the call.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
