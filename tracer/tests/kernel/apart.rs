//! twtrace where it stands apart from the machine: in a PID namespace, where
//! `/proc` shows only some processes and by other numbers, and in a time
//! namespace, whose clock has another zero.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Gid, Uid, chroot, fchdir};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags,
    configure_capability_in_ambient_set, gettid, move_into_link_name_space, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};
use serde_json::Value;
use tracer::kernel::clock::{self, Wall};
use tracer::lab::churn::{self, Churn};
use tracer::lab::mounts;
use tracer::lab::netns::Netns;

use super::owners::Worker;
use super::truth::count;
use super::twtrace::{self, Twtrace};
use super::{Outcome, Verdict, guest, story, truth};

/// The first argument that makes this program the first process of a PID namespace.
pub(crate) const ROLE: &str = "hold-until-stdin-ends";

/// The second: one further down, for others to enter.
const BELOW: &str = "and-one-below";

pub(crate) fn hold(below: bool) -> ExitCode {
    let held = || -> Result<()> {
        let mut first = None;
        if below {
            // SAFETY: it concerns children alone.
            unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
            let mut command = Command::new("/proc/self/exe");
            command
                .arg(ROLE)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            first = Some(command.spawn()?);
        }
        writeln!(io::stdout(), "ready")?;
        io::copy(&mut io::stdin(), &mut io::sink())?;
        drop(first);
        Ok(())
    };
    match held() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if that fails too; the exit code says it.
            let _ = writeln!(io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// A PID namespace with a `/proc` of its own, as a container has it.
struct Apart {
    /// Holds it for as long as its stdin is open.
    first: Child,
    processes: File,
    mounts: File,
    /// Which need not be that of the mounts.
    root: File,
}

impl Apart {
    fn new() -> Result<Apart> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE);
        let mount_proc = || Ok(mount("proc", "/proc", "proc", MountFlags::empty(), None)?);
        // SAFETY: it makes one system call and allocates nothing.
        unsafe { command.pre_exec(mount_proc) };
        Apart::held(&mut command, "pid", |command| {
            mounts::unshare()?;
            // SAFETY: it concerns children of this thread, which ends right after.
            unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
            Ok(command.spawn()?)
        })
    }

    /// One further down; `/proc` is that of this one.
    fn below(&self) -> Result<Apart> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ROLE, BELOW]);
        Apart::held(&mut command, "pid_for_children", |command| {
            self.enter()?;
            Ok(command.spawn()?)
        })
    }

    fn held(
        command: &mut Command,
        namespace: &str,
        spawn: impl FnOnce(&mut Command) -> Result<Child> + Send,
    ) -> Result<Apart> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut first = on_own_thread(|| spawn(command))?;
        let mut line = String::new();
        BufReader::new(first.stdout.take().context("no stdout")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "it says {line:?}");
        let open = |what: &str| File::open(format!("/proc/{}/{what}", first.id()));
        Ok(Apart {
            processes: open(&format!("ns/{namespace}"))?,
            mounts: open("ns/mnt")?,
            root: open("root")?,
            first,
        })
    }

    /// Children of the calling thread are in there from now on.
    fn enter(&self) -> Result<()> {
        // SAFETY: root and working directory are this thread's own from here on, no
        // descriptor table is.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        fchdir(&self.root)?;
        chroot(".")?;
        move_into_link_name_space(self.processes.as_fd(), None)?;
        Ok(())
    }

    /// Starts a process in there and in that network namespace.
    fn spawn(&self, netns: &Netns, command: &mut Command) -> Result<Child> {
        netns.run(|| {
            self.enter()?;
            Ok(command.spawn()?)
        })?
    }

    fn output(&self, netns: &Netns, words: &[&str]) -> Result<Output> {
        let mut command = twtrace::command();
        command.args(words).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.spawn(netns, &mut command)?.wait_with_output()?)
    }

    fn twtrace(&self, netns: &Netns, words: &[&str]) -> Result<Twtrace> {
        Twtrace::spawned(twtrace::command().args(words), |command| {
            self.spawn(netns, command)
        })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // All that is in there ends with it. Both fail where it has ended.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(work).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The numbers of a process, from this PID namespace down to its own.
fn numbers(of: &Child) -> Result<Vec<u64>> {
    let status = fs::read_to_string(format!("/proc/{}/status", of.id()))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.context("no NSpid")?.split_whitespace();
    Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
}

/// A network namespace that is held by a process outside is counted from in there
/// as from anywhere, though it cannot be entered.
pub(crate) fn what_is_held_outside_is_counted() -> Outcome {
    let all = guest::lighter(3_000);
    let held_outside = churn::namespace()?;
    let load = Churn {
        connections: all,
        ..Churn::default()
    };
    held_outside.run(|| load.run())??;
    let (apart, own) = (Apart::new()?, Netns::new()?);
    let live = apart.twtrace(&own, &["live", "--json", "--interval", "200ms"])?;
    let snapshot = live.snapshot("an exact snapshot", |snapshot| {
        truth::is_exact(snapshot)
            .then_some(())
            .ok_or_else(|| "approximate".to_owned())
    })?;
    let seen = truth::now_in(&snapshot, held_outside.inode());
    let ss = truth::ss(&held_outside)?;
    // Where both ends of a connection close at once, both wait.
    ensure!(
        seen == ss && seen["TIME_WAIT"] >= all,
        "{seen:?} where ss has {ss:?}: {snapshot:#}"
    );
    live.stop()?;
    let doctor = apart.output(&own, &["doctor", "--json", "--duration", "200ms"])?;
    let report: Value = serde_json::from_slice(&doctor.stdout)?;
    let mut checks = report["checks"].as_array().into_iter().flatten();
    let ways = checks.find(|check| check["name"] == "find ways into namespaces");
    ensure!(
        ways.is_some_and(|check| check["verdict"] == "degraded")
            && report["look"]["netns"] == "all",
        "{report:#}"
    );
    Ok(Verdict::Held)
}

/// Whoever may load programs and read the kernel's memory and symbols counts every
/// namespace, and enters none.
pub(crate) fn nobody_counts_every_namespace() -> Outcome {
    let elsewhere = churn::namespace()?;
    let load = Churn {
        connections: guest::lighter(1_000),
        ..Churn::default()
    };
    elsewhere.run(|| load.run())??;
    // Nobody may not enter every target directory. A link, where there can be one: no
    // child of another test then holds a copy open to write, which nobody could run.
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("twtrace");
    fs::hard_link(twtrace::binary(), &copy)
        .or_else(|_| fs::copy(twtrace::binary(), &copy).map(drop))?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let mut command = Command::new(&copy);
    command
        .args(["live", "--json", "--interval", "200ms", "--netns", "all"])
        .current_dir("/");
    // SAFETY: system calls alone, and nothing is allocated.
    unsafe { command.pre_exec(|| Ok(be_nobody()?)) };
    let live = Twtrace::spawned(&mut command, |command| Ok(command.spawn()?))?;
    let snapshot = live.snapshot("an exact snapshot", |snapshot| {
        truth::is_exact(snapshot)
            .then_some(())
            .ok_or_else(|| "approximate".to_owned())
    })?;
    let (seen, ss) = (
        truth::now_in(&snapshot, elsewhere.inode()),
        truth::ss(&elsewhere)?,
    );
    ensure!(seen == ss, "{seen:?} where ss has {ss:?}: {snapshot:#}");
    live.stop()?;
    Ok(Verdict::Held)
}

const NOBODY: u32 = 65_534;

/// Keeps the three capabilities, across an exec too.
fn be_nobody() -> rustix::io::Result<()> {
    let keep = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYSLOG;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: keep,
    };
    set_capabilities(None, sets)?;
    for capability in keep.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Processes are told by the numbers that `ps` shows in there: one of that PID
/// namespace, one of a namespace below, and one that has none.
pub(crate) fn processes_go_by_the_numbers_in_there() -> Outcome {
    let netns = churn::namespace()?;
    let apart = Apart::new()?;
    let below = apart.below()?;
    let mut workers = [
        Worker::spawned(|command| apart.spawn(&netns, command))?,
        Worker::spawned(|command| below.spawn(&netns, command))?,
        Worker::start(&netns)?,
    ];
    let [inside, nested, outside] = &workers;
    let (inside, nested) = (numbers(&inside.child)?, numbers(&nested.child)?);
    ensure!(
        inside.len() == 2 && nested.len() == 3 && numbers(&outside.child)?.len() == 1,
        "{inside:?} {nested:?}"
    );
    let (inside, nested) = (inside[1], nested[1]);

    let words = ["live", "--json", "--interval", "200ms", "--netns", "self"];
    let live = apart.twtrace(&netns, &words)?;
    let number = inside.to_string();
    let words = [&words as &[&str], &["--pid", &number]].concat();
    let only = apart.twtrace(&netns, &words)?;
    for run in [&live, &only] {
        run.until("its first snapshot", |lines| lines.first().map(|_| ()))?;
    }
    workers.iter_mut().try_for_each(Worker::go)?;
    let each = guest::lighter(super::owners::EACH);
    // A few may be unseen where the kernel runs no program; and where both ends close
    // at once, both wait.
    let enough = |snapshot: &Value, n: u64, owners: u64| {
        let passive = count(snapshot, &["closes", "passive"]);
        n >= each - each / 100 && n <= each + (owners * each).saturating_sub(passive)
    };
    let by_pid = |snapshot: &Value| -> BTreeMap<u64, u64> {
        let owners = snapshot["owners"].as_array().into_iter().flatten();
        owners
            .map(|owner| (count(owner, &["pid"]), count(owner, &["time_wait_entered"])))
            .collect()
    };
    live.snapshot("three owners", |snapshot| {
        let owners = by_pid(snapshot);
        let expected = [inside, nested, 0];
        if owners.len() == 3
            && expected
                .iter()
                .all(|n| owners.get(n).is_some_and(|&n| enough(snapshot, n, 3)))
        {
            Ok(())
        } else {
            Err(format!("{owners:?}, and not {expected:?}"))
        }
    })?;
    only.snapshot("one owner", |snapshot| {
        let owners = by_pid(snapshot);
        let entered = count(snapshot, &["time_wait", "entered"]);
        if owners.len() == 1 && owners.contains_key(&inside) && enough(snapshot, entered, 1) {
            Ok(())
        } else {
            Err(format!("{owners:?}, {entered} entered, and not {inside}"))
        }
    })?;
    live.stop()?;
    only.stop()?;
    Ok(Verdict::Held)
}

/// What is told of a connection has the time of the machine.
pub(crate) fn another_clock_moves_no_event() -> Outcome {
    let netns = Netns::new()?;
    // On a thread that starts no other: once it has unshared, Linux 6.1 refuses it.
    let spawn = |command: &mut Command| {
        // SAFETY: it does nothing. Only a fork brings a child into a time namespace
        // on every kernel.
        unsafe { command.pre_exec(|| Ok(())) };
        // SAFETY: only the time namespace of children is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWTIME) }?;
        let offsets = format!("/proc/{}/timens_offsets", gettid());
        fs::write(offsets, "monotonic 100000 0")?;
        Ok(command.spawn()?)
    };
    let inode = netns.inode().to_string();
    let words = ["events", "--json", "--interval", "200ms", "--netns", &inode];
    let events = Twtrace::spawned(twtrace::command().args(words), |command| {
        on_own_thread(|| spawn(command))
    });
    let events = match events {
        Err(error) if has_no_time_namespaces(&error) => {
            return Ok(Verdict::Impossible(
                "this kernel has no time namespaces".to_owned(),
            ));
        }
        events => events?,
    };
    story::listening(&events, &netns)?;
    let door = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let address = door.local_addr()?;
    let before = Wall::now().at(clock::now());
    for _ in 0..20 {
        let client = netns.run(|| TcpStream::connect(address))??;
        drop((client, door.accept()?));
    }
    let after = Wall::now().at(clock::now());
    let ours = events.until("20 connections", |lines| {
        let at_door = |event: &&Value| event["remote"]["port"] == address.port();
        let ours: Vec<Value> = lines.iter().filter(at_door).cloned().collect();
        let waits = ours.iter().filter(|e| e["kind"] == "minisocket_start");
        (waits.count() >= 20).then_some(ours)
    })?;
    events.stop()?;
    // Half of the time between two readings of clocks is as well as it is known.
    let slack = SignedDuration::from_millis(1);
    for event in ours {
        let time: Timestamp = event["time"].as_str().context("no time")?.parse()?;
        ensure!(
            time >= before.checked_sub(slack)? && time <= after.checked_add(slack)?,
            "what was between {before} and {after} is told as of {event}"
        );
    }
    Ok(Verdict::Held)
}

fn has_no_time_namespaces(error: &anyhow::Error) -> bool {
    !fs::exists("/proc/self/ns/time").unwrap_or(true)
        && error.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::INVAL)
}
