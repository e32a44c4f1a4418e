//! Programs attached to tracepoints through perf, as bpftrace and BCC attach
//! theirs: a handful of instructions each, and the system calls that load them.

use std::ffi::c_long;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracer::lab::mounts;

/// Of `bpf()`.
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const PROG_LOAD: u32 = 5;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_STACK_TRACE: u32 = 7;

const PROG_TYPE_TRACEPOINT: u32 = 5;

const FUNC_MAP_LOOKUP_ELEM: i32 = 1;
const FUNC_GET_STACKID: i32 = 27;

/// Of `perf_event_open()` and its `ioctl()`.
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: c_long = 8;
const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;

/// Frames of a stack in a map, the kernel's own bound.
const FRAMES: usize = 127;

/// What `bpf()` takes, as far as it is used here: attributes that are left out are 0.
#[repr(C)]
#[derive(Default)]
struct NewMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct Lookup {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct NewProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

fn bpf<T>(command: u32, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the attributes, and what they point to, live through the call, and
    // their size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const *attributes,
            size_of::<T>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

fn descriptor(number: c_long) -> OwnedFd {
    // SAFETY: the kernel has just made it, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// A map whose keys are numbers.
#[derive(Debug)]
pub(super) struct Map {
    map: OwnedFd,
    /// In words of 8 bytes.
    value_len: usize,
    pub(super) entries: u32,
}

impl Map {
    /// One number.
    pub(super) fn number() -> Result<Map> {
        Map::new(MAP_TYPE_ARRAY, 1, 1)
    }

    /// Stacks, by a hash of each.
    pub(super) fn stacks(entries: u32) -> Result<Map> {
        Map::new(MAP_TYPE_STACK_TRACE, FRAMES, entries)
    }

    fn new(kind: u32, value_len: usize, entries: u32) -> Result<Map> {
        let made = bpf(
            MAP_CREATE,
            &NewMap {
                kind,
                key_size: 4,
                value_size: (value_len * 8) as u32,
                entries,
            },
        );
        Ok(Map {
            map: descriptor(made.context("cannot make a map")?),
            value_len,
            entries,
        })
    }

    /// What is there under a key; false where nothing is.
    pub(super) fn look_up(&self, key: u32, value: &mut Vec<u64>) -> bool {
        value.resize(self.value_len, 0);
        let lookup = Lookup {
            map: self.map.as_raw_fd() as u32,
            key: &raw const key as u64,
            value: value.as_mut_ptr() as u64,
            ..Lookup::default()
        };
        bpf(MAP_LOOKUP_ELEM, &lookup).is_ok()
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

/// The address of a map, which the kernel puts in the place of its descriptor.
fn address_of(to: u8, map: &Map) -> [Instruction; 2] {
    [
        instruction(0x18, to, 1, 0, map.map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
    ]
}

const fn set(to: u8, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

const RETURN: Instruction = instruction(0x95, 0, 0, 0, 0);

/// A loaded program.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    /// Puts the kernel's stack into that map.
    pub(super) fn taking_stacks(into: &Map) -> Result<Program> {
        let mut code = address_of(2, into).to_vec();
        code.extend([set(3, 0), call(FUNC_GET_STACKID), set(0, 0), RETURN]);
        Program::load(&code)
    }

    /// Counts its runs in that map.
    pub(super) fn counting(in_map: &Map) -> Result<Program> {
        // The key, 0, is on the stack: *(u32 *)(r10 - 4) = 0; r2 = r10 - 4.
        let mut code = vec![
            instruction(0x62, 10, 0, -4, 0),
            instruction(0xbf, 2, 10, 0, 0),
            instruction(0x07, 2, 0, 0, -4),
        ];
        code.extend(address_of(1, in_map));
        code.extend([
            call(FUNC_MAP_LOOKUP_ELEM),
            // Unless there is none: r1 = 1; atomic *(u64 *)(r0) += r1.
            instruction(0x15, 0, 0, 2, 0),
            set(1, 1),
            instruction(0xdb, 0, 1, 0, 0),
            set(0, 0),
            RETURN,
        ]);
        Program::load(&code)
    }

    fn load(code: &[Instruction]) -> Result<Program> {
        let mut log = vec![0_u8; 1 << 16];
        let loaded = bpf(
            PROG_LOAD,
            &NewProgram {
                kind: PROG_TYPE_TRACEPOINT,
                instructions: code.len() as u32,
                code: code.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
                log_level: 1,
                log_size: log.len() as u32,
                log: log.as_mut_ptr() as u64,
            },
        );
        let loaded = loaded.with_context(|| {
            let log = String::from_utf8_lossy(&log);
            format!("cannot load a program: {}", log.trim_end_matches('\0'))
        })?;
        Ok(Program(descriptor(loaded)))
    }

    /// Has it run wherever that tracepoint is passed, `timer/timer_cancel`, until
    /// the value is dropped.
    pub(super) fn attach(&self, tracepoint: &str) -> Result<Attached> {
        let id = id_of(tracepoint)?;
        // One event, of whatever CPU, has the program run on all of them.
        let event = PerfEvent {
            kind: PERF_TYPE_TRACEPOINT,
            size: size_of::<PerfEvent>() as u32,
            config: id,
            sample_period: 1,
            ..PerfEvent::default()
        };
        // SAFETY: the event lives through the call and says its size; the numbers
        // are any process, CPU 0, no group.
        let opened = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const event,
                -1,
                0,
                -1,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        ensure!(
            opened >= 0,
            "no perf event for {tracepoint}: {}",
            io::Error::last_os_error()
        );
        let event = descriptor(opened);
        for (request, argument) in [
            (PERF_EVENT_IOC_SET_BPF, self.0.as_raw_fd()),
            (PERF_EVENT_IOC_ENABLE, 0),
        ] {
            // SAFETY: both take a number.
            let done = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
            ensure!(
                done >= 0,
                "cannot attach to {tracepoint}: {}",
                io::Error::last_os_error()
            );
        }
        Ok(Attached { _event: event })
    }
}

/// Ends with the value.
#[derive(Debug)]
pub(super) struct Attached {
    _event: OwnedFd,
}

/// The first version of what `perf_event_open()` takes, which every kernel knows.
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// The number by which perf knows it. A host need not have tracefs mounted, and
/// where it has, refuses it there.
fn id_of(tracepoint: &str) -> Result<u64> {
    const TRACEFS: &str = "/tmp";
    let text = mounts::privately(|| {
        mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount tracefs on {TRACEFS}"))?;
        let path = Path::new(TRACEFS)
            .join("events")
            .join(tracepoint)
            .join("id");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    })?;
    text.trim()
        .parse()
        .with_context(|| format!("{tracepoint} has the id {text:?}"))
}

/// Before 5.11 maps and programs count as locked memory. Where this may not be
/// done it is not needed, or they cannot be made, which then says so.
pub(super) fn lift_limit_of_locked_memory() {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(Resource::Memlock, none);
}
