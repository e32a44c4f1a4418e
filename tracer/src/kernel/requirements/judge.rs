//! Verdicts on what a host offers: each requirement, what was found, and what to
//! do about it.
//!
//! Pure: every refusal can be tried without a host that refuses.

use rustix::thread::CapabilitySet;

use super::{Check, Probe, TRACEPOINTS, Verdict};
use crate::kernel::isolation::Processes;
use crate::kernel::{clock, kallsyms};

/// The first real-time kernel whose ring buffer may be written to where a timer's
/// lock is held: before, the ring's own lock may sleep there.
const OLDEST_REAL_TIME: (u32, u32) = (6, 12);

/// Decides by which namespaces are wanted.
pub(super) const ENTER: &str = "enter namespaces";
/// It is said at a start as well.
pub(super) const REAL_TIME: &str = "real time";

/// Verdicts on all that the tracer needs or is better for, in the order in which
/// a remedy makes sense.
#[must_use]
pub fn judge(probe: &Probe) -> Vec<Check> {
    let mut checks = vec![version(probe), real_time(probe), lockdown(probe)];
    checks.extend(capabilities(probe));
    checks.extend([processes(probe), find(probe), clock_of(probe)]);
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
    verdict_on("kernel", Verdict::Ok, probe.kernel.clone(), "")
}

fn real_time(probe: &Probe) -> Check {
    let (oldest, minor) = OLDEST_REAL_TIME;
    let (verdict, found) = if !probe.realtime {
        (Verdict::Ok, "no real-time kernel".to_owned())
    } else if clock::version_of(&probe.kernel) < OLDEST_REAL_TIME {
        (
            Verdict::Missing,
            format!(
                "this is a real-time kernel (PREEMPT_RT) before {oldest}.{minor}, whose BPF ring \
                 buffer takes a lock that may sleep where timers must not"
            ),
        )
    } else {
        (
            Verdict::Degraded,
            "this is a real-time kernel (PREEMPT_RT), of which twtrace is tested on 6.12 alone"
                .to_owned(),
        )
    };
    let remedy = match verdict {
        Verdict::Missing => format!("run it on Linux {oldest}.{minor} or later"),
        _ => "compare its counts with those of `ss -tan`, and report what differs".to_owned(),
    };
    verdict_on(REAL_TIME, verdict, found, &remedy)
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
            "CAP_SYS_ADMIN is missing, so the kernel's own counters of other network namespaces, by \
             which counts are checked, are not read",
            "run it as root, or watch this namespace alone with --netns self",
        )
    };
    vec![load, enter]
}

/// Every namespace is seen; the way into it is found through `/proc`.
fn find(probe: &Probe) -> Check {
    const NAME: &str = "find ways into namespaces";
    if probe.processes != Processes::All {
        return verdict_on(
            NAME,
            Verdict::Degraded,
            "/proc shows no process outside this PID namespace, so network namespaces that only \
             such a process holds are seen but cannot be entered: their names and counters are not read",
            "run it in the machine's own PID namespace (docker run --pid=host)",
        );
    }
    match &probe.capabilities {
        Ok(have) if have.contains(CapabilitySet::SYS_PTRACE) => {
            verdict_on(NAME, Verdict::Ok, "CAP_SYS_PTRACE", "")
        }
        Ok(_) => verdict_on(
            NAME,
            Verdict::Degraded,
            "CAP_SYS_PTRACE is missing, so network namespaces of other users' processes are seen but \
             cannot be entered: their names and counters are not read",
            "run it as root or grant cap_sys_ptrace",
        ),
        Err(why) => verdict_on(NAME, Verdict::Unknown, why, "run it as root"),
    }
}

/// By whose numbers processes are shown.
fn processes(probe: &Probe) -> Check {
    let (verdict, found) = match &probe.processes {
        Processes::All => (Verdict::Ok, "the machine's own".to_owned()),
        Processes::Of(inode) => (
            Verdict::Degraded,
            format!(
                "processes go by their numbers in the PID namespace {inode}; one outside it has \
                 none there and is shown as 0"
            ),
        ),
        Processes::Untold(why) => (
            Verdict::Missing,
            format!("whose process numbers /proc shows cannot be told: {why}"),
        ),
    };
    verdict_on(
        "PID namespace",
        verdict,
        found,
        match verdict {
            Verdict::Missing => "run it as root, with the /proc of its own PID namespace",
            _ => "run it in the machine's own PID namespace (docker run --pid=host)",
        },
    )
}

fn clock_of(probe: &Probe) -> Check {
    let (verdict, found) = match &probe.clock_ahead {
        Ok(0) => (Verdict::Ok, "the machine's own".to_owned()),
        // Taken account of in all that is shown.
        Ok(ahead) => (
            Verdict::Ok,
            format!(
                "a time namespace whose clock is {:.3} s {} the machine's",
                ahead.unsigned_abs() as f64 / 1e9,
                if *ahead > 0 { "ahead of" } else { "behind" }
            ),
        ),
        Err(why) => (Verdict::Missing, why.clone()),
    };
    verdict_on(
        "time namespace",
        verdict,
        found,
        "start it as a child of the process that has made the time namespace (unshare --fork)",
    )
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
    let cookies = if facts.socket_cookies {
        verdict_on("socket cookies", Verdict::Ok, "in tracing programs", "")
    } else {
        verdict_on(
            "socket cookies",
            Verdict::Missing,
            format!(
                "this kernel, {}, gives a tracing program no socket's cookie, by which sockets are \
                 told apart",
                probe.kernel
            ),
            "run it on Linux 5.15 or later",
        )
    };
    vec![layout, tracepoints, cookies, iterator]
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
    let Some(mount) = &probe.cgroups else {
        return verdict_on(
            "cgroups",
            Verdict::Degraded,
            "cgroup v2 is not mounted, so owners are shown without their cgroup",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
        );
    };
    let Some(shared) = probe.shared_cgroups.first() else {
        return verdict_on("cgroups", Verdict::Ok, mount, "");
    };
    let named = &shared.v1[..shared.v1.len().min(2)];
    let more = match shared.v1.len() - named.len() {
        0 => String::new(),
        n => format!(" and {n} more of cgroup v1"),
    };
    verdict_on(
        "cgroups",
        Verdict::Degraded,
        format!(
            "{mount}, where processes of {}{more} are all in {}: by cgroup their sockets cannot \
             be told apart",
            named.join(", "),
            shared.v2
        ),
        "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1), or tell them apart by \
         --netns, --pid or --comm",
    )
}
