//! The walk over the kernel's own tables against `ss`, which asks the kernel by
//! another road and namespace by namespace.

mod owners;
mod sight;
mod steady;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tracer::lab::netns::Netns;
use tracer::lab::population::Population;
use tracer::lab::segments::{Peer, SYN, Wire};
use tracer::model::found::Found;

use super::programs::SS;
use super::truth;
use super::twtrace::PATIENCE;
use super::{Outcome, Verdict};
use sight::{Line, Sight, lines_of};

pub(crate) use owners::{
    HOLD, hold, owners_behind_one_that_ends, owners_beside_churn, owners_of_what_is_there,
    owners_share_a_socket,
};
pub(crate) use sight::{ROLE, work};
pub(crate) use steady::nothing_is_missed_beside_churn;

/// Half-open requests of each family.
const HALF_OPEN: u16 = 50;

/// Every state, family and kind of namespace at once, cookies included.
pub(crate) fn equals_ss() -> Outcome {
    let netns = Netns::new()?;
    let mut population = Population::new(&netns)?;
    population.grow(2)?;
    let knocked = Netns::new()?;
    let door = Door::new(&knocked)?;
    door.knock()?;
    let (own, _own_sockets) = with_own_table()?;
    let lone = Lone::new()?;
    let inodes = [&netns, &knocked, &own].map(Netns::inode);

    let mut sight = Sight::new()?;
    let met = sight.look()?;
    let cookies = met.iter().filter(|found| found.tuple.netns.0 == lone.inode);
    let cookies: Vec<u64> = cookies.map(|found| found.cookie).collect();
    ensure!(
        cookies.len() == Lone::SOCKETS,
        "{} sockets of a namespace that only sockets hold",
        cookies.len()
    );
    let opened = lone.open()?;
    for netns in [&netns, &knocked, &own, &opened] {
        truth::wait("the walk equal to ss", PATIENCE, || {
            let want = ss(netns)?;
            let met = lines_of(&sight.look()?, netns.inode());
            Ok(difference(&want, &met))
        })?;
    }
    let half_open = ss(&knocked)?;
    let half_open = half_open.iter().filter(|line| line.state == "SYN-RECV");
    ensure!(half_open.count() == 2 * usize::from(HALF_OPEN));

    // As somebody else sees it, of whom the same is expected.
    for who in ["root in a PID namespace", "nobody"] {
        let seen = sight::of_another(who)?;
        for netns in [&netns, &knocked, &own, &opened] {
            let none = Vec::new();
            let met = seen.get(&netns.inode()).unwrap_or(&none);
            difference(&ss(netns)?, met)
                .map_err(|what| anyhow::anyhow!("as {who}, namespace {}: {what}", netns.inode()))?;
        }
    }

    queues_are_those_of_ss(&mut sight, &knocked, &door)?;
    one_namespace_is_that_alone(&mut sight, inodes)?;
    Ok(Verdict::Held)
}

/// The port arithmetic's sysctls, read from `struct net`, are those of `/proc`.
pub(crate) fn sysctls_are_those_of_proc() -> Outcome {
    let netns = Netns::new()?;
    netns.set_sysctl("ipv4.ip_local_port_range", "20000 30001")?;
    netns.set_sysctl("ipv4.ip_local_reserved_ports", "8080,20000-20009,30001")?;
    netns.set_sysctl("ipv4.tcp_max_tw_buckets", "12345")?;
    netns.set_sysctl("ipv4.tcp_tw_reuse", "1")?;
    netns.set_sysctl("ipv4.tcp_timestamps", "0")?;
    let delay = netns.set_sysctl("ipv4.tcp_tw_reuse_delay", "2500").is_ok();
    let mut sight = Sight::new()?;
    let facts = sight.facts(&netns)?.context("its facts")?;
    let delay_ms = if delay { 2500 } else { 1000 };
    ensure!(
        facts.ports == (20_000, 30_001)
            && facts.reserved_ports == 11
            && facts.max_tw_buckets == 12_345
            && facts.tw_reuse == 1
            && !facts.timestamps
            && facts.tw_reuse_delay.as_millis() == delay_ms,
        "{facts:?}"
    );
    Ok(Verdict::Held)
}

/// Listeners in a namespace, and a wire by which SYNs come that nobody follows up.
struct Door {
    wire: Wire,
    v4: TcpListener,
    v6: TcpListener,
}

impl Door {
    fn new(netns: &Netns) -> Result<Door> {
        let wire = Wire::new(netns)?;
        let (v4, v6) = netns.run(|| -> Result<_> {
            Ok((
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?,
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?,
            ))
        })??;
        Ok(Door { wire, v4, v6 })
    }

    fn knock(&self) -> Result<()> {
        let v4 = SocketAddr::new(Wire::KERNEL4.into(), self.v4.local_addr()?.port());
        let v6 = SocketAddr::new(Wire::KERNEL6.into(), self.v6.local_addr()?.port());
        for (peer, kernel) in [(Wire::PEER4.into(), v4), (Wire::PEER6.into(), v6)] {
            for port in 0..HALF_OPEN {
                let from = SocketAddr::new(peer, 2_000 + port);
                Peer::new(&self.wire, from, kernel).send(SYN)?;
            }
        }
        Ok(())
    }
}

/// Sockets on loopback, in some of the states.
fn some_sockets() -> Result<Vec<OwnedFd>> {
    let mut kept: Vec<OwnedFd> = Vec::new();
    for host in [
        SocketAddr::from(([127, 0, 0, 1], 0)),
        (Ipv6Addr::LOCALHOST, 0).into(),
    ] {
        let door = TcpListener::bind(host)?;
        let pair = || -> Result<_> {
            let client = TcpStream::connect(door.local_addr()?)?;
            Ok((client, door.accept()?.0))
        };
        let (client, server) = pair()?;
        kept.extend([client.into(), server.into()]);
        let (client, server) = pair()?;
        client.shutdown(Shutdown::Write)?;
        kept.extend([client.into(), server.into()]);
        // A FIN_WAIT2 that only a minisocket keeps.
        let (client, server) = pair()?;
        drop(client);
        kept.push(server.into());
        let (client, server) = pair()?;
        drop(client);
        drop(server);
        kept.push(door.into());
    }
    Ok(kept)
}

/// A namespace with a table of its own, where this kernel has such (6.1+).
fn with_own_table() -> Result<(Netns, Vec<OwnedFd>)> {
    let parent = Netns::new()?;
    // Where there is no such sysctl it shares the table, which is as good.
    let _ = parent.set_sysctl("ipv4.tcp_child_ehash_entries", "64");
    let netns = parent.run(Netns::new)??;
    let sockets = netns.run(some_sockets)??;
    Ok((netns, sockets))
}

/// A namespace that nothing but open sockets keeps alive.
struct Lone {
    inode: u32,
    sockets: Vec<OwnedFd>,
}

impl Lone {
    /// Of each family: a listener, two pairs, an orphan and its other end, and a
    /// TIME_WAIT.
    const SOCKETS: usize = 2 * (1 + 2 * 2 + 2 + 1);

    fn new() -> Result<Lone> {
        let netns = Netns::new()?;
        let sockets = netns.run(some_sockets)??;
        Ok(Lone {
            inode: netns.inode(),
            sockets,
        })
    }

    /// The way in that a socket is.
    fn open(&self) -> Result<Netns> {
        let socket = self.sockets.first().context("no socket")?;
        sight::namespace_of(socket)
    }
}

fn ss(netns: &Netns) -> Result<Vec<Line>> {
    SS.needed()?;
    let output = netns.output(Command::new(SS.name).args(["-t", "-a", "-n", "-H", "-e"]))?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines: Vec<Line> = text.lines().map(Line::of_ss).collect::<Result<_>>()?;
    lines.sort();
    Ok(lines)
}

fn difference(want: &[Line], met: &[Line]) -> Result<(), String> {
    if want == met {
        return Ok(());
    }
    let only = |of: &[Line], but: &[Line]| -> Vec<String> {
        let lines = of.iter().filter(|line| !but.contains(line)).take(4);
        lines.map(|line| format!("{line:?}")).collect()
    };
    Err(format!(
        "ss has {}, the walk {}; only ss: {:?}; only the walk: {:?}",
        want.len(),
        met.len(),
        only(want, met),
        only(met, want)
    ))
}

/// What a listener says of itself, read in the walk and read again in place.
fn queues_are_those_of_ss(sight: &mut Sight, netns: &Netns, door: &Door) -> Result<()> {
    let wait = "the accept queue";
    let kept: Vec<TcpStream> = netns.run(|| {
        (0..3)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, door.v4.local_addr()?.port())))
            .collect::<std::io::Result<_>>()
    })??;
    let listens = |found: &Found| found.listener.is_some() && found.tuple.netns.0 == netns.inode();
    let met: Vec<Found> = sight.look()?.into_iter().filter(listens).collect();
    let addresses: Vec<_> = met.iter().map(|found| found.address).collect();
    truth::wait(wait, PATIENCE, || {
        let again = sight.known(&addresses)?;
        for family in ["-4", "-6"] {
            let args = ["-l", "-t", "-n", "-H", family];
            let output = netns.output(Command::new(SS.name).args(args))?;
            let text = String::from_utf8(output.stdout)?;
            let words: Vec<&str> = text.split_whitespace().collect();
            let queue: u32 = words[1].parse()?;
            let limit: u32 = words[2].parse()?;
            let port: u16 = words[3].rsplit(':').next().context("a port")?.parse()?;
            let same = again.iter().find(|found| found.tuple.local_port == port);
            let same = same.context("the listener is gone")?;
            let says = same.listener.context("no listener")?;
            if (says.accept_queue, says.accept_limit) != (queue, limit)
                || says.half_open != u32::from(HALF_OPEN)
            {
                return Ok(Err(format!("{says:?}, ss {text}")));
            }
        }
        Ok(Ok(()))
    })?;
    ensure!(
        sight
            .known(&addresses)?
            .iter()
            .zip(&met)
            .all(|(now, then)| now.cookie == then.cookie),
        "a listener's cookie changed"
    );
    drop(kept);
    Ok(())
}

fn one_namespace_is_that_alone(sight: &mut Sight, inodes: [u32; 3]) -> Result<()> {
    for inode in inodes {
        let mut of: BTreeMap<u32, usize> = BTreeMap::new();
        for found in sight.look_at(inode)? {
            *of.entry(found.tuple.netns.0).or_default() += 1;
        }
        ensure!(
            of.len() == 1 && of.contains_key(&inode),
            "{inode} alone was asked for: {of:?}"
        );
    }
    Ok(())
}
