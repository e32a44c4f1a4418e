//! Who holds a socket, against who says that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracer::kernel::clock;
use tracer::kernel::requirements::{self, Facts, Reach};
use tracer::kernel::tracer::{Held, Tracer, Wanted};
use tracer::lab::churn::{self, Churn};
use tracer::lab::netns::Netns;
use tracer::model::event::OUTSIDE;
use tracer::model::happening::Process;

use crate::guest;
use crate::truth;
use crate::twtrace::PATIENCE;
use crate::{Outcome, Verdict};

/// The first argument that makes this program a process which holds so many accepted
/// sockets, until its stdin ends.
pub(crate) const HOLD: &str = "hold-accepted";

const HOLDERS: usize = 5;
const EACH: u64 = 4_000;

/// Descriptors of a holder besides.
const SPARE: u64 = 100;

const RING: u32 = 1 << 22;

/// Walks beside the churn.
const WALKS: usize = 50;

/// As a process of its own: says the cookies of what it holds.
pub(crate) fn hold(each: Option<&str>) -> ExitCode {
    let held = || -> Result<()> {
        let each = each.context("how many?")?.parse()?;
        let limits = getrlimit(Resource::Nofile);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limits.maximum,
                ..limits
            },
        )?;
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut held: Vec<OwnedFd> = Vec::new();
        for _ in 0..each {
            held.push(TcpStream::connect(door.local_addr()?)?.into());
            held.push(door.accept()?.0.into());
        }
        held.push(door.into());
        let cookies = held.iter().map(sockopt::socket_cookie);
        let cookies: Vec<u64> = cookies.collect::<Result<_, _>>()?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&cookies)?)?;
        io::stdin().read_to_end(&mut Vec::new())?;
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

/// A process that holds accepted sockets, their other ends and a listener.
struct Holder {
    child: Child,
    cookies: Vec<u64>,
}

impl Holder {
    fn new(netns: &Netns, each: u64) -> Result<Holder> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([HOLD, &each.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = netns.spawn(&mut command)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let cookies = serde_json::from_str(&line).with_context(|| format!("it says {line:?}"))?;
        Ok(Holder { child, cookies })
    }

    fn end(&mut self) {
        // Both fail where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// As many accepted sockets as a process may have open, whose other ends it has too.
fn each() -> u64 {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    guest::lighter(EACH).min(most.saturating_sub(SPARE) / 2)
}

/// Loaded, and attached to nothing.
fn loaded(facts: &Facts) -> Result<Tracer> {
    Tracer::load(
        facts,
        &Wanted {
            ring_bytes: RING,
            ..Wanted::default()
        },
    )
}

/// The processes that hold a socket, by its cookie, which somebody has asked for.
#[derive(Default)]
struct Seen {
    of: BTreeMap<u64, BTreeSet<u32>>,
    names: BTreeMap<u32, Process>,
    events: u64,
}

impl Seen {
    fn take(&mut self, held: Held<'_>) {
        match held {
            Held::Event(_) => self.events += 1,
            Held::Owned(owned) => {
                for owned in owned {
                    let pid = owned.process.pid;
                    self.of.entry(owned.cookie).or_default().insert(pid);
                    self.names.insert(pid, owned.process);
                }
            }
        }
    }

    fn walk(tracer: &mut Tracer) -> Result<Seen> {
        let mut seen = Seen::default();
        let outcome = tracer.owners(|held| seen.take(held))?;
        ensure!(outcome.whole, "not to the end: {outcome:?}");
        Ok(seen)
    }

    /// Whether all that it holds is told to be its own and nobody else's.
    fn has(&self, holder: &Holder) -> Result<()> {
        let (pid, all) = (holder.child.id(), holder.cookies.len());
        let right = |cookie: &&u64| self.of.get(cookie) == Some(&BTreeSet::from([pid]));
        let named = holder.cookies.iter().filter(right).count();
        ensure!(named == all, "{named} of {all} sockets of process {pid}");
        Ok(())
    }
}

/// Accepted sockets and listeners that were there before have their owner at once.
pub(crate) fn owners_of_what_is_there() -> Outcome {
    let netns = Netns::new()?;
    let each = each();
    let holders = (0..HOLDERS)
        .map(|_| Holder::new(&netns, each))
        .collect::<Result<Vec<_>>>()?;
    let mut tracer = loaded(&requirements::check(Reach::Own)?)?;
    let mut seen = Seen::default();
    let began = clock::now();
    let outcome = tracer.owners(|held| seen.take(held))?;
    let took = clock::now().since(began);
    writeln!(
        io::stderr(),
        "{} sockets of {} processes in {took:?}: {outcome:?}",
        outcome.owned,
        outcome.processes
    )?;
    ensure!(outcome.whole && outcome.restarts == 0, "{outcome:?}");
    for holder in &holders {
        seen.has(holder)?;
        let pid = holder.child.id();
        let process = seen.names.get(&pid).context("its name")?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        let name = process.comm.context("a name")?;
        let name = String::from_utf8(name.into_iter().take_while(|&byte| byte != 0).collect())?;
        ensure!(name == comm.trim_end(), "{name:?}, and not {comm:?}");
        if let Some(cgroup) = cgroup_of(pid)? {
            ensure!(process.cgroup == Some(cgroup), "{process:?} in {cgroup}");
        }
    }
    let limit = Duration::from_secs(1) * if guest::is_emulated() { 10 } else { 1 };
    ensure!(took < limit, "it took {took:?}");
    Ok(Verdict::Held)
}

/// The id of a process's cgroup v2, where there is such a hierarchy.
fn cgroup_of(pid: u32) -> Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(path) = path else { return Ok(None) };
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let root = std::path::Path::new(root);
        if root.join("cgroup.controllers").exists() {
            return Ok(Some(fs::metadata(root.join(path))?.ino()));
        }
    }
    Ok(None)
}

/// A socket that was handed on is held by both, by whatever numbers they go.
pub(crate) fn owners_share_a_socket() -> Outcome {
    let netns = Netns::new()?;
    let door = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let near = netns.run(|| TcpStream::connect(door.local_addr()?))??;
    let far = door.accept()?.0;
    let cookie = sockopt::socket_cookie(&far)?;
    // It reads until the other end is closed.
    let mut command = Command::new(std::env::current_exe()?);
    command.args([HOLD, "0"]).stdout(Stdio::piped());
    command.stdin(OwnedFd::from(far.try_clone()?));
    let mut child = netns.spawn(&mut command)?;
    let (own, other) = (std::process::id(), child.id());

    let facts = requirements::check(Reach::Own)?;
    let here = u32::try_from(fs::metadata("/proc/self/ns/pid")?.ino())?;
    let nowhere = 1;
    for (pid_namespace, bit) in [(None, 0), (Some(here), 0), (Some(nowhere), OUTSIDE)] {
        let facts = Facts {
            pid_namespace,
            ..facts.clone()
        };
        let mut tracer = loaded(&facts)?;
        // A child that another test makes has all of this process until its exec.
        truth::wait("both of its owners", PATIENCE, || {
            let mut seen = Seen::walk(&mut tracer)?;
            let owners = seen.of.remove(&cookie).unwrap_or_default();
            Ok(if owners == BTreeSet::from([own | bit, other | bit]) {
                Ok(())
            } else {
                Err(format!("{owners:?}, and not {own} and {other} with {bit}"))
            })
        })?;
    }
    drop(near);
    ensure!(child.wait()?.success(), "the child failed");
    Ok(Verdict::Held)
}

/// Between two runs the process may end at which the walk stands.
pub(crate) fn owners_behind_one_that_ends() -> Outcome {
    let netns = Netns::new()?;
    let mut holders = (0..3)
        .map(|_| Holder::new(&netns, 3))
        .collect::<Result<Vec<_>>>()?;
    let mut tracer = loaded(&requirements::check(Reach::Own)?)?;
    let mut seen = Seen::default();
    let middle = holders[1].child.id();
    let outcome = tracer.walk()?.in_pieces_of(1).owners(|owned| {
        seen.take(Held::Owned(owned));
        if owned.iter().any(|owned| owned.process.pid == middle) {
            holders[1].end();
        }
        Ok(())
    })?;
    // Of others too the walk may have stood at one that ended.
    ensure!(outcome.whole && outcome.restarts > 0, "{outcome:?}");
    seen.has(&holders[0])?;
    seen.has(&holders[2])?;
    let left = holders[1].cookies.iter();
    let left = left.filter(|cookie| seen.of.contains_key(cookie)).count();
    ensure!(
        left == 1,
        "{left} sockets of one that ended after the first"
    );
    Ok(Verdict::Held)
}

/// What happens meanwhile is read, and nothing of it lost.
pub(crate) fn owners_beside_churn() -> Outcome {
    let (netns, busy) = (Netns::new()?, churn::namespace()?);
    let holders = (0..HOLDERS)
        .map(|_| Holder::new(&netns, each() / 10))
        .collect::<Result<Vec<_>>>()?;
    let mut tracer = loaded(&requirements::check(Reach::Own)?)?;
    tracer.attach()?;
    let ended = AtomicBool::new(false);
    let events = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let spell = Churn {
                duration: Some(Duration::from_millis(100)),
                ..Churn::default()
            };
            busy.run(|| -> Result<()> {
                while !ended.load(Ordering::Relaxed) {
                    spell.run()?;
                }
                Ok(())
            })?
        });
        let walked = (0..WALKS).try_fold(0, |events, _| {
            let seen = Seen::walk(&mut tracer)?;
            holders.iter().try_for_each(|holder| seen.has(holder))?;
            anyhow::Ok(events + seen.events)
        });
        ended.store(true, Ordering::Relaxed);
        load.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        walked
    })?;
    tracer.drain(|_| {})?;
    let lost = tracer.lost()?;
    ensure!(lost.ring == 0 && events > 0, "{lost:?}, {events} events");
    Ok(Verdict::Held)
}
