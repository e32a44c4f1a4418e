//! What the tracer needs of its host, judged before anything is loaded.
//!
//! [`Probe`] is what was found, as plain values; [`judge`] makes verdicts of it.
//! Nothing is loaded here: a kernel can still refuse what looks well.

mod judge;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::panic::resume_unwind;
use std::thread;

use log::warn;
use rustix::thread::CapabilitySet;
use serde::Serialize;
use tracer_common::layout::{Callers, Layout};

pub use judge::judge;

use super::btf::{self, Btf};
use super::cgroup_v1::Shared;
use super::isolation::{self, Processes};
use super::kallsyms::{self, Symbols};
use super::{cgroup, clock, walk};

const TRACEPOINTS: [&str; 4] = [
    "inet_sock_set_state",
    "timer_start",
    "timer_cancel",
    "timer_expire_entry",
];

/// All the kernel side has to be told of this kernel.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Handlers included.
    pub layout: Layout,
    pub callers: Callers,
    pub walk: walk::Layout,
    /// The PID namespace whose numbers processes go by, where that is not the
    /// machine's.
    pub pid_namespace: Option<u32>,
    /// Ticks a second.
    pub hz: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The tracer runs, but with something less.
    Degraded,
    /// The tracer cannot run.
    Missing,
    /// It cannot be told from here.
    Unknown,
}

/// One requirement and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found, as a clause.
    pub found: String,
    /// What to do about it, as a clause; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What the host offers, before anyone judges it.
#[derive(Debug)]
pub struct Probe {
    /// As `uname -r` gives it.
    pub kernel: String,
    /// Of this thread, effective; the error is a sentence.
    pub capabilities: Result<CapabilitySet, String>,
    pub btf: Result<TypeFacts, String>,
    pub symbols: Result<Symbols, kallsyms::Error>,
    /// `/sys/kernel/security/lockdown`, where there is one.
    pub lockdown: Option<String>,
    /// `net.core.bpf_jit_enable`, where it may be read.
    pub jit: Option<String>,
    /// Where cgroup v2 is mounted.
    pub cgroups: Option<String>,
    /// What v2 does not tell apart. [`probe`] leaves it empty: to find it every
    /// process is looked at, and no start depends on it.
    pub shared_cgroups: Vec<Shared>,
    pub processes: Processes,
    /// As [`isolation::clock_ahead`] gives it.
    pub clock_ahead: Result<i64, String>,
    /// Whether the kernel is a real-time one (PREEMPT_RT).
    pub realtime: bool,
    /// Ticks a second.
    pub hz: u32,
}

/// What the kernel's type information says.
#[derive(Clone, Debug)]
pub struct TypeFacts {
    pub layout: Result<(Layout, walk::Layout), btf::Missing>,
    /// Tracepoints that the tracer attaches to and this kernel lacks.
    pub missing_tracepoints: Vec<&'static str>,
    /// Whether the kernel can list its TCP sockets to a program.
    pub socket_iterator: bool,
    /// Whether it gives a tracing program a socket's cookie (5.12+, and backports).
    pub socket_cookies: bool,
}

impl TypeFacts {
    fn read(blob: &[u8]) -> Result<TypeFacts, String> {
        let btf = Btf::parse(blob).map_err(|e| e.to_string())?;
        Ok(TypeFacts {
            layout: btf::layout(blob).and_then(|layout| {
                let walk = walk::Layout::read(&btf, &layout)?;
                Ok((layout, walk))
            }),
            missing_tracepoints: TRACEPOINTS
                .into_iter()
                .filter(|t| !btf.has_tracepoint(t))
                .collect(),
            socket_iterator: btf.has_iterator("tcp"),
            socket_cookies: btf.has_function("bpf_get_socket_ptr_cookie"),
        })
    }
}

/// Looks at this host. Never fails: what cannot be read is part of the answer.
#[must_use]
pub fn probe() -> Probe {
    let trimmed = |path| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let types = || {
        fs::read(btf::PATH)
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => format!("there is no {}", btf::PATH),
                _ => format!("{} cannot be read: {e}", btf::PATH),
            })
            .and_then(|blob| TypeFacts::read(&blob))
    };
    let symbols = || {
        File::open(kallsyms::PATH)
            .map_err(kallsyms::Error::Read)
            .and_then(|file| Symbols::read(BufReader::with_capacity(1 << 16, file)))
    };
    // Both are long: side by side they keep a start short.
    let (btf, symbols) = thread::scope(|scope| {
        let types = scope.spawn(types);
        let symbols = symbols();
        let types = types.join().unwrap_or_else(|panic| resume_unwind(panic));
        (types, symbols)
    });
    let uname = rustix::system::uname();
    Probe {
        kernel: uname.release().to_string_lossy().into_owned(),
        capabilities: rustix::thread::capabilities(None)
            .map(|sets| sets.effective)
            .map_err(|e| format!("the capabilities of this process cannot be read: {e}")),
        btf,
        symbols,
        lockdown: trimmed("/sys/kernel/security/lockdown"),
        jit: trimmed("/proc/sys/net/core/bpf_jit_enable"),
        cgroups: cgroup::mount().map(|path| path.display().to_string()),
        shared_cgroups: Vec::new(),
        processes: isolation::processes(),
        clock_ahead: isolation::clock_ahead(),
        // Not every real-time kernel has the file.
        realtime: trimmed("/sys/kernel/realtime").is_some_and(|text| text == "1")
            || uname.version().to_string_lossy().contains("PREEMPT_RT"),
        hz: clock::hz(),
    }
}

/// What keeps the tracer from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// At least one.
    pub missing: Vec<Check>,
}

impl fmt::Display for Unmet {
    /// The first is said; most often it is the cause of the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot load the tracer")?;
        if let Some(first) = self.missing.first() {
            write!(f, ": {}", first.found)?;
            if let Some(remedy) = &first.remedy {
                write!(f, "; {remedy}")?;
            }
        }
        match self.missing.len() {
            0 | 1 => Ok(()),
            n => write!(f, " (`twtrace doctor` lists this and {} more)", n - 1),
        }
    }
}

impl std::error::Error for Unmet {}

/// Which network namespaces are to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The one we run in.
    Own,
    /// Another.
    Other,
    All,
}

impl Reach {
    /// Whether what is elsewhere merely less is too little here: the one namespace to
    /// see has to be entered.
    fn needs(self, check: &Check) -> bool {
        check.verdict == Verdict::Degraded && check.name == judge::ENTER && self == Reach::Other
    }
}

/// The facts of this host, or what it lacks for that reach. What has not been
/// tried on such a host is said.
pub fn check(reach: Reach) -> Result<Facts, Unmet> {
    let probe = probe();
    let facts = facts(&probe, reach)?;
    for check in judge(&probe) {
        if check.name == judge::REAL_TIME && check.verdict == Verdict::Degraded {
            warn!("{}", check.found);
        }
    }
    Ok(facts)
}

/// Pure.
pub fn facts(probe: &Probe, reach: Reach) -> Result<Facts, Unmet> {
    let missing: Vec<Check> = judge(probe)
        .into_iter()
        .filter(|check| check.verdict == Verdict::Missing || reach.needs(check))
        .collect();
    let complete = || {
        let symbols = probe.symbols.as_ref().ok()?;
        let handlers = kallsyms::handlers(symbols).ok()?;
        let (layout, walk) = probe.btf.as_ref().ok()?.layout.as_ref().ok()?;
        Some(Facts {
            layout: Layout {
                tw_timer_handler: handlers.tw_timer,
                reqsk_timer_handler: handlers.reqsk_timer,
                ..*layout
            },
            callers: kallsyms::callers(symbols).ok()?,
            walk: *walk,
            pid_namespace: probe.processes.namespace(),
            hz: probe.hz,
        })
    };
    match complete() {
        Some(facts) if missing.is_empty() => Ok(facts),
        _ => Err(Unmet { missing }),
    }
}

#[cfg(test)]
mod tests;
