//! What the tests of ends share: a namespace under watch, a listener in it, and a
//! peer at the other side of a wire who brings its sockets where they shall be.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use serde_json::Value;
use tracer::lab::netns::Netns;
use tracer::lab::segments::{ACK, FIN, Peer, Wire};

use super::allowance::{self, FEW};
use super::truth::{self, Mib, count};
use super::twtrace::Twtrace;

pub(crate) const TIME_WAIT: &str = "time_wait";
pub(crate) const FIN_WAIT2: &str = "fin_wait2_orphan";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(crate) const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

    fn choose(self, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
        match self {
            Ip::V4 => v4.into(),
            Ip::V6 => v6.into(),
        }
    }
}

pub(crate) struct Stage {
    pub(crate) netns: Netns,
    pub(crate) door: TcpListener,
    pub(crate) before: Mib,
    pub(crate) live: Twtrace,
    ip: Ip,
    wire: Wire,
    port: Cell<u16>,
}

impl Stage {
    pub(crate) fn new(ip: Ip) -> Result<Stage> {
        let netns = Netns::new()?;
        let wire = Wire::new(&netns)?;
        let any = ip.choose(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        let door = netns.run(|| TcpListener::bind((any, 0)))??;
        let before = Mib::read(&netns)?;
        let live = Twtrace::live(&netns, &[])?;
        Ok(Stage {
            netns,
            door,
            before,
            live,
            ip,
            wire,
            port: Cell::new(20_000),
        })
    }

    /// The listener, as the wire's peer reaches it.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.address_of(&self.door)
    }

    fn address_of(&self, door: &TcpListener) -> Result<SocketAddr> {
        let host = self.ip.choose(Wire::KERNEL4, Wire::KERNEL6);
        Ok(SocketAddr::new(host, door.local_addr()?.port()))
    }

    /// Two listeners on one port, with room for thousands of requests each.
    pub(crate) fn shared_door(&self) -> Result<[TcpListener; 2]> {
        const ROOM: i32 = 4096;
        let (family, any) = match self.ip {
            Ip::V4 => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
            Ip::V6 => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let open = |port| -> Result<TcpListener> {
            self.netns.run(|| {
                let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                sockopt::set_socket_reuseport(&socket, true)?;
                bind(&socket, &SocketAddr::new(any, port))?;
                listen(&socket, ROOM)?;
                Ok(socket.into())
            })?
        };
        let first = open(0)?;
        let second = open(first.local_addr()?.port())?;
        Ok([first, second])
    }

    /// The listener on loopback.
    pub(crate) fn local(&self) -> Result<SocketAddr> {
        let host = self.ip.choose(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        Ok(SocketAddr::new(host, self.door.local_addr()?.port()))
    }

    /// A peer of the listener, which has sent nothing yet.
    pub(crate) fn peer(&self) -> Result<Peer<'_>> {
        self.peer_of(&self.door)
    }

    /// A peer of this listener, which has sent nothing yet.
    pub(crate) fn peer_of(&self, door: &TcpListener) -> Result<Peer<'_>> {
        Ok(Peer::new(&self.wire, self.from(), self.address_of(door)?))
    }

    fn established(&self) -> Result<(Peer<'_>, TcpStream)> {
        let peer = Peer::connect(&self.wire, self.from(), self.address()?)?;
        Ok((peer, self.door.accept()?.0))
    }

    /// Where the next peer connects from: no connection is made twice.
    fn from(&self) -> SocketAddr {
        self.port.set(self.port.get() + 1);
        let host = self.ip.choose(Wire::PEER4, Wire::PEER6);
        SocketAddr::new(host, self.port.get())
    }

    /// The kernel's socket is a TIME_WAIT; it closed first.
    pub(crate) fn time_wait(&self) -> Result<Peer<'_>> {
        let (mut peer, server) = self.established()?;
        drop(server);
        peer.expect(FIN)?;
        peer.send(FIN | ACK)?;
        peer.expect(ACK)?;
        Ok(peer)
    }

    /// The kernel's socket is an orphan in FIN_WAIT2.
    pub(crate) fn fin_wait2(&self) -> Result<Peer<'_>> {
        let (mut peer, server) = self.established()?;
        drop(server);
        peer.expect(FIN)?;
        peer.send(ACK)?;
        Ok(peer)
    }

    /// Lets everything in the namespace go, and with it the namespace.
    pub(crate) fn leave(self) -> Twtrace {
        self.live
    }

    /// Waits for a minisocket of this kind: the last segment may be under way.
    pub(crate) fn stands(&self, of: &str) -> Result<Value> {
        let now = |snapshot: &Value| count(snapshot, &[of, "now"]);
        self.live
            .snapshot(&format!("a {of}"), |snapshot| match now(snapshot) {
                0 => Err("none".to_owned()),
                _ => Ok(()),
            })
    }

    /// Waits for exactly these ends, then ends the run and checks all sums.
    pub(crate) fn finds(self, of: &str, reason: &str, n: u64) -> Result<Value> {
        let Stage {
            netns,
            live,
            before,
            ..
        } = self;
        found(&live, of, reason, n)?;
        let last = live.last()?;
        allowance::check_in_company(&last, FEW)?;
        check(&last, of, reason, n)?;
        let reused: u64 = [TIME_WAIT, FIN_WAIT2]
            .iter()
            .flat_map(|of| truth::ended(&last, of))
            .filter(|(reason, _)| reason.starts_with("reused_by_") && reason != "reused_by_syn")
            .map(|(_, n)| n)
            .sum();
        let now = Mib::read(&netns)?;
        let recycled = now.get("TWRecycled") - before.get("TWRecycled");
        ensure!(
            reused == recycled,
            "{reused} reused by connect, TWRecycled says {recycled}: {last:#}"
        );
        let overflow = now.get("TCPTimeWaitOverflow") - before.get("TCPTimeWaitOverflow");
        ensure!(
            count(&last, &[TIME_WAIT, "overflowed"]) == overflow,
            "TCPTimeWaitOverflow says {overflow}: {last:#}"
        );
        Ok(last)
    }
}

pub(crate) fn found(live: &Twtrace, of: &str, reason: &str, n: u64) -> Result<Value> {
    live.snapshot(&format!("{n} ended by {reason}"), |snapshot| {
        let ended = truth::ended(snapshot, of);
        if ended.values().sum::<u64>() >= n {
            Ok(())
        } else {
            Err(format!("{of} ended {ended:?}"))
        }
    })
}

pub(crate) fn check(snapshot: &Value, of: &str, reason: &str, n: u64) -> Result<()> {
    let ended = truth::ended(snapshot, of);
    let only: BTreeMap<String, u64> = [(reason.to_owned(), n)].into();
    ensure!(
        ended == only,
        "{of} ended {ended:?} where {only:?} did: {snapshot:#}"
    );
    Ok(())
}

/// A connection, asked for and not waited for, from a port of the caller's
/// choice; 0 is any.
pub(crate) fn bound_connect(port: u16, to: SocketAddr) -> Result<TcpStream> {
    let (family, host) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::LOCALHOST.into()),
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(host, port))
        .with_context(|| format!("cannot bind port {port}"))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot connect from port {port} to {to}"))
        }
    }
}
