//! What the walk meets, and what `ss` prints, made comparable; and the walk as
//! others see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, move_into_link_name_space,
    set_capabilities, set_keep_capabilities, set_thread_gid, set_thread_groups, set_thread_res_uid,
    unshare_unsafe,
};
use serde::{Deserialize, Serialize};
use tracer::kernel::requirements::{self, Facts, Reach};
use tracer::kernel::tracer::{Tracer, Wanted};
use tracer::kernel::walk::Outcome;
use tracer::lab::mounts;
use tracer::lab::netns::Netns;
use tracer::model::event::{Address, NamespaceFacts, Netns as Inode, State};
use tracer::model::found::Found;

/// Prints what the walk meets, as root or as nobody.
pub(crate) const ROLE: &str = "walk-and-print";

const NOBODY: u32 = 65_534;

/// `SIOCGSKNS`: the namespace of a socket.
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// One socket, as both have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) state: String,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    cookie: u64,
}

impl Line {
    pub(super) fn of_ss(line: &str) -> Result<Line> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [state, _, _, local, remote, rest @ ..] = &words[..] else {
            bail!("ss printed {line:?}");
        };
        let cookie = rest.iter().find_map(|word| word.strip_prefix("sk:"));
        Ok(Line {
            state: (*state).to_owned(),
            local: end(local)?,
            remote: end(remote)?,
            cookie: match cookie {
                Some(hex) => u64::from_str_radix(hex, 16)?,
                None => 0,
            },
        })
    }

    pub(super) fn of(found: &Found) -> Line {
        let state = match found.state {
            State::Established => "ESTAB",
            State::SynSent => "SYN-SENT",
            State::SynRecv | State::NewSynRecv => "SYN-RECV",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::TimeWait => "TIME-WAIT",
            State::Close => "UNCONN",
            State::CloseWait => "CLOSE-WAIT",
            State::LastAck => "LAST-ACK",
            State::Listen => "LISTEN",
            State::Closing => "CLOSING",
        };
        let tuple = &found.tuple;
        Line {
            state: state.to_owned(),
            local: (tuple.local_addr(), tuple.local_port),
            remote: (tuple.remote_addr(), tuple.remote_port),
            cookie: found.cookie,
        }
    }
}

/// `10.0.0.1:80`, `[::1%lo]:80`, `*:*`.
fn end(text: &str) -> Result<(IpAddr, u16)> {
    let (host, port) = text
        .rsplit_once(':')
        .with_context(|| format!("no port in {text}"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.split('%').next().unwrap_or(host);
    let host = match host {
        // A listener of both families.
        "*" => Ipv6Addr::UNSPECIFIED.into(),
        _ => host.parse().with_context(|| format!("ss printed {text}"))?,
    };
    Ok((host, if port == "*" { 0 } else { port.parse()? }))
}

/// Of one namespace, in order.
pub(super) fn lines_of(met: &[Found], inode: u32) -> Vec<Line> {
    let of = met.iter().filter(|found| found.tuple.netns.0 == inode);
    let mut lines: Vec<Line> = of.map(Line::of).collect();
    lines.sort();
    lines
}

/// A loaded object that is attached to nothing.
pub(super) struct Sight {
    tracer: Tracer,
}

impl Sight {
    pub(super) fn new() -> Result<Sight> {
        Sight::with(&requirements::check(Reach::Own)?)
    }

    pub(super) fn with(facts: &Facts) -> Result<Sight> {
        let wanted = Wanted {
            ring_bytes: 1 << 16,
            ..Wanted::default()
        };
        Ok(Sight {
            tracer: Tracer::load(facts, &wanted)?,
        })
    }

    /// Every socket of the machine.
    pub(super) fn look(&mut self) -> Result<Vec<Found>> {
        Ok(self.walk(None)?.0)
    }

    pub(super) fn look_at(&mut self, inode: u32) -> Result<Vec<Found>> {
        Ok(self.walk(Some(Inode(inode)))?.0)
    }

    pub(super) fn walk(&mut self, only: Option<Inode>) -> Result<(Vec<Found>, Outcome)> {
        let mut met = Vec::new();
        let outcome = self.tracer.walk()?.sockets(only, |found| {
            met.extend_from_slice(found);
            Ok(())
        })?;
        ensure!(
            outcome.stuck.is_empty() && outcome.malformed == 0 && !outcome.namespaces.truncated,
            "the walk was not whole: {outcome:?}"
        );
        Ok((met, outcome))
    }

    pub(super) fn known(&mut self, addresses: &[Address]) -> Result<Vec<Found>> {
        let mut met = Vec::new();
        let mut walk = self.tracer.walk()?;
        walk.known(addresses, |found| met.push(*found))?;
        Ok(met)
    }

    pub(super) fn facts(&mut self, netns: &Netns) -> Result<Option<NamespaceFacts>> {
        let mut walk = self.tracer.walk()?;
        let all = walk.namespaces()?.all;
        let of = all.iter().find(|of| of.netns.0 == netns.inode());
        walk.facts(of.context("the namespace was not met")?)
    }
}

/// What the walk meets from elsewhere, by the inode of its namespace.
pub(super) fn of_another(who: &str) -> Result<BTreeMap<u32, Vec<Line>>> {
    let output = mounts::privately(|| {
        // SAFETY: it concerns children of this thread, which ends.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
        Ok(Command::new("/proc/self/exe").args([ROLE, who]).output()?)
    })?;
    ensure!(
        output.status.success(),
        "{who}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// As a process of its own.
pub(crate) fn work(who: Option<&str>) -> ExitCode {
    let print = || -> Result<()> {
        let facts = requirements::check(Reach::Own)?;
        if who == Some("nobody") {
            be_nobody()?;
        }
        let mut seen: BTreeMap<u32, Vec<Line>> = BTreeMap::new();
        for found in Sight::with(&facts)?.look()? {
            seen.entry(found.tuple.netns.0)
                .or_default()
                .push(Line::of(&found));
        }
        seen.values_mut().for_each(|lines| lines.sort());
        serde_json::to_writer(std::io::stdout().lock(), &seen)?;
        Ok(())
    };
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if that fails too; the exit code says it.
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps what loads programs and reads kernel memory, and nothing else.
fn be_nobody() -> Result<()> {
    let keep = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_gid(gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// The namespace that a socket is in, which nothing else may lead to.
pub(super) fn namespace_of(socket: &OwnedFd) -> Result<Netns> {
    // SAFETY: it takes no argument and gives a descriptor or an error.
    let raw = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) };
    if raw < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot open a socket's namespace");
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Netns::own()
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
