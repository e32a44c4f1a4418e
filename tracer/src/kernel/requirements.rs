//! What the tracer needs of its host, judged before anything is loaded.
//!
//! [`Probe`] is what was found, as plain values; [`judge`] makes verdicts of it
//! and is pure, so that every refusal can be tried without a host that refuses.
//! Nothing is loaded here: a kernel can still refuse what looks well.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};

use rustix::thread::CapabilitySet;
use serde::Serialize;
use tracer_common::layout::{Callers, Layout};

use super::btf::{self, Btf};
use super::kallsyms::{self, Symbols};
use super::{cgroup, clock};

/// The first kernel with `iter/tcp`, test runs of raw tracepoints and ring
/// buffers that is tested.
const OLDEST: (u32, u32) = (5, 10);

const TRACEPOINTS: [&str; 5] = [
    "inet_sock_set_state",
    "timer_start",
    "timer_cancel",
    "timer_expire_entry",
    "timer_expire_exit",
];

/// All the kernel side has to be told of this kernel.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Handlers included.
    pub layout: Layout,
    pub callers: Callers,
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
    /// Ticks a second.
    pub hz: u32,
}

/// What the kernel's type information says.
#[derive(Clone, Debug)]
pub struct TypeFacts {
    pub layout: Result<Layout, btf::Missing>,
    /// Tracepoints that the tracer attaches to and this kernel lacks.
    pub missing_tracepoints: Vec<&'static str>,
    /// Whether the kernel can list its TCP sockets to a program.
    pub socket_iterator: bool,
}

impl TypeFacts {
    fn read(blob: &[u8]) -> Result<TypeFacts, String> {
        let btf = Btf::parse(blob).map_err(|e| e.to_string())?;
        Ok(TypeFacts {
            layout: btf::layout(blob),
            missing_tracepoints: TRACEPOINTS
                .into_iter()
                .filter(|t| !btf.has_tracepoint(t))
                .collect(),
            socket_iterator: btf.has_iterator("tcp"),
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
    Probe {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        capabilities: rustix::thread::capabilities(None)
            .map(|sets| sets.effective)
            .map_err(|e| format!("the capabilities of this process cannot be read: {e}")),
        btf: fs::read(btf::PATH)
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => format!("there is no {}", btf::PATH),
                _ => format!("{} cannot be read: {e}", btf::PATH),
            })
            .and_then(|blob| TypeFacts::read(&blob)),
        symbols: File::open(kallsyms::PATH)
            .map_err(kallsyms::Error::Read)
            .and_then(|file| Symbols::read(BufReader::with_capacity(1 << 16, file))),
        lockdown: trimmed("/sys/kernel/security/lockdown"),
        jit: trimmed("/proc/sys/net/core/bpf_jit_enable"),
        cgroups: cgroup::mount().map(|path| path.display().to_string()),
        hz: clock::hz(),
    }
}

/// Verdicts on all that the tracer needs or is better for, in the order in which
/// a remedy makes sense.
#[must_use]
pub fn judge(probe: &Probe) -> Vec<Check> {
    let mut checks = vec![version(probe), lockdown(probe)];
    checks.extend(capabilities(probe));
    checks.extend(types(probe));
    checks.extend(symbols(probe));
    checks.extend([jit(probe), cgroups(probe)]);
    checks
}

fn verdict_on(
    name: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    remedy: &str,
) -> Check {
    let remedy = (verdict != Verdict::Ok).then(|| remedy.to_owned());
    Check {
        name,
        verdict,
        found: found.into(),
        remedy,
    }
}

fn version(probe: &Probe) -> Check {
    let old = clock::version_of(&probe.kernel) < OLDEST;
    let (verdict, found) = if old {
        (
            Verdict::Missing,
            format!(
                "the kernel, {}, is older than {}.{}",
                probe.kernel, OLDEST.0, OLDEST.1
            ),
        )
    } else {
        (Verdict::Ok, probe.kernel.clone())
    };
    verdict_on("kernel", verdict, found, "run it on a newer kernel")
}

/// In confidentiality mode no program may read kernel memory, root's included.
fn lockdown(probe: &Probe) -> Check {
    let mode = probe.lockdown.as_deref().and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0)
    });
    let (verdict, found) = match mode {
        Some("confidentiality") => (
            Verdict::Missing,
            "the kernel is locked down for confidentiality".to_owned(),
        ),
        Some(mode) => (Verdict::Ok, mode.to_owned()),
        None => (Verdict::Ok, "this kernel shows no lockdown".to_owned()),
    };
    verdict_on(
        "lockdown",
        verdict,
        found,
        "boot with lockdown=integrity, under which BPF may still read kernel memory",
    )
}

fn capabilities(probe: &Probe) -> Vec<Check> {
    let have = match &probe.capabilities {
        Ok(have) => *have,
        Err(why) => {
            return vec![verdict_on(
                "capabilities",
                Verdict::Unknown,
                why,
                "run it as root",
            )];
        }
    };
    // CAP_SYS_ADMIN stands for those that were split off it.
    let admin = have.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<&str> = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !admin && !have.contains(*capability))
    .map(|(_, name)| name)
    .collect();
    let load = if missing.is_empty() {
        verdict_on("load programs", Verdict::Ok, "CAP_BPF, CAP_PERFMON", "")
    } else {
        let verb = if missing.len() == 1 { "is" } else { "are" };
        verdict_on(
            "load programs",
            Verdict::Missing,
            format!("{} {verb} missing", missing.join(" and ")),
            "run it as root or grant cap_bpf,cap_perfmon,cap_syslog",
        )
    };
    let enter = if admin {
        verdict_on(ENTER, Verdict::Ok, "CAP_SYS_ADMIN", "")
    } else {
        verdict_on(
            ENTER,
            Verdict::Degraded,
            "CAP_SYS_ADMIN is missing, so sockets that other network namespaces already have stay unknown",
            "run it as root, or watch this namespace alone with --netns self",
        )
    };
    let look = if have.contains(CapabilitySet::SYS_PTRACE) {
        verdict_on(FIND, Verdict::Ok, "CAP_SYS_PTRACE", "")
    } else {
        verdict_on(
            FIND,
            Verdict::Degraded,
            "CAP_SYS_PTRACE is missing, so network namespaces of other users' processes are not found",
            "run it as root, grant cap_sys_ptrace, or watch one namespace alone with --netns self",
        )
    };
    vec![load, enter, look]
}

fn types(probe: &Probe) -> Vec<Check> {
    let facts = match &probe.btf {
        Ok(facts) => facts,
        Err(why) => {
            return vec![verdict_on(
                "type information",
                Verdict::Missing,
                why,
                "run it on a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            )];
        }
    };
    let layout = match &facts.layout {
        Ok(_) => verdict_on("type information", Verdict::Ok, "every member is found", ""),
        Err(why) => verdict_on(
            "type information",
            Verdict::Missing,
            format!(
                "kernel {} is of another build than the tracer knows: {why}",
                probe.kernel
            ),
            "report it with the kernel's version and configuration",
        ),
    };
    let tracepoints = if facts.missing_tracepoints.is_empty() {
        verdict_on("tracepoints", Verdict::Ok, TRACEPOINTS.join(", "), "")
    } else {
        verdict_on(
            "tracepoints",
            Verdict::Missing,
            format!("this kernel lacks {}", facts.missing_tracepoints.join(", ")),
            "run it on a kernel built with CONFIG_BPF_EVENTS=y and CONFIG_TRACEPOINTS=y",
        )
    };
    let iterator = if facts.socket_iterator {
        verdict_on("socket iterator", Verdict::Ok, "iter/tcp", "")
    } else {
        verdict_on(
            "socket iterator",
            Verdict::Missing,
            "this kernel lacks the BPF iterator over TCP sockets",
            "run it on a kernel built with CONFIG_BPF_SYSCALL=y and CONFIG_PROC_FS=y",
        )
    };
    vec![layout, tracepoints, iterator]
}

fn symbols(probe: &Probe) -> Vec<Check> {
    let refused = |why: &kallsyms::Error| {
        let remedy = match why {
            kallsyms::Error::Read(_) => {
                "mount /proc and run it on a kernel built with CONFIG_KALLSYMS=y"
            }
            kallsyms::Error::Hidden => {
                "run it as root or grant cap_syslog (where kernel.kptr_restrict is 2 nobody is shown them)"
            }
            kallsyms::Error::Missing(_) => {
                "run it on a kernel built with CONFIG_KALLSYMS=y, or report this one"
            }
            kallsyms::Error::TooMany { .. } => "report this kernel",
        };
        verdict_on("symbols", Verdict::Missing, why.to_string(), remedy)
    };
    let symbols = match &probe.symbols {
        Ok(symbols) => symbols,
        Err(why) => return vec![refused(why)],
    };
    if let Err(why) = kallsyms::handlers(symbols).and_then(|_| kallsyms::callers(symbols)) {
        return vec![refused(&why)];
    }
    let unplaced = symbols.unplaced();
    if unplaced.is_empty() {
        return vec![verdict_on(
            "symbols",
            Verdict::Ok,
            "every function is found",
            "",
        )];
    }
    vec![verdict_on(
        "symbols",
        Verdict::Degraded,
        format!(
            "this kernel lacks {}, so some ends are counted as unknown",
            unplaced.join(", ")
        ),
        "report this kernel",
    )]
}

fn jit(probe: &Probe) -> Check {
    let (verdict, found) = match probe.jit.as_deref() {
        Some("0") => (
            Verdict::Degraded,
            "BPF programs are interpreted, so each event costs several times more",
        ),
        Some(_) => (Verdict::Ok, "on"),
        None => (
            Verdict::Unknown,
            "net.core.bpf_jit_enable cannot be read here",
        ),
    };
    verdict_on(
        "JIT",
        verdict,
        found,
        "set net.core.bpf_jit_enable to 1 in the host's network namespace",
    )
}

fn cgroups(probe: &Probe) -> Check {
    let (verdict, found) = match &probe.cgroups {
        Some(path) => (Verdict::Ok, path.as_str()),
        None => (
            Verdict::Degraded,
            "cgroup v2 is not mounted, so owners are shown without their cgroup",
        ),
    };
    verdict_on(
        "cgroups",
        verdict,
        found,
        "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
    )
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

const ENTER: &str = "enter namespaces";
const FIND: &str = "find namespaces";

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
    /// Whether what is elsewhere merely less is too little here: sockets that
    /// cannot be counted must not be missing in silence.
    fn needs(self, check: &Check) -> bool {
        check.verdict == Verdict::Degraded
            && match check.name {
                ENTER => self != Reach::Own,
                FIND => self == Reach::All,
                _ => false,
            }
    }
}

/// The facts of this host, or what it lacks for that reach.
pub fn check(reach: Reach) -> Result<Facts, Unmet> {
    facts(&probe(), reach)
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
        let layout = probe.btf.as_ref().ok()?.layout.as_ref().ok()?;
        Some(Facts {
            layout: Layout {
                tw_timer_handler: handlers.tw_timer,
                reqsk_timer_handler: handlers.reqsk_timer,
                ..*layout
            },
            callers: kallsyms::callers(symbols).ok()?,
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
