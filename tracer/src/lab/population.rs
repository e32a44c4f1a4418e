//! Sockets that stand still in every TCP state at once, by every road that leads
//! there: what the counts are compared with `ss` on.
//!
//! Half of it is made on loopback, between two kernel sockets; the states in
//! which a socket waits for an answer are made over a [`Wire`], whose peer owes
//! it. All of it stands for a minute or longer (the FIN_WAIT2 and TIME_WAIT
//! minisockets for 60 s at the default tcp_fin_timeout).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};

use super::netns::Netns;
use super::segments::{ACK, FIN, Peer, SYN, Wire};

/// Keeps what it made; all of it goes when this does.
#[derive(Debug)]
pub struct Population<'n> {
    netns: &'n Netns,
    wire: Wire,
    kept: Vec<OwnedFd>,
    /// The wire's next port: no connection is made twice.
    port: u16,
}

/// The sockets of one round that accept.
struct Doors {
    v4: TcpListener,
    v6: TcpListener,
    /// Of IPv6, and for IPv4 too.
    dual: TcpListener,
}

impl<'n> Population<'n> {
    pub fn new(netns: &'n Netns) -> Result<Population<'n>> {
        Ok(Population {
            netns,
            wire: Wire::new(netns)?,
            kept: Vec::new(),
            port: 20_000,
        })
    }

    /// Adds at least `each` sockets to every state but LISTEN, which gets six.
    pub fn grow(&mut self, each: u16) -> Result<()> {
        let netns = self.netns;
        netns.run(|| self.grow_here(each))?
    }

    fn grow_here(&mut self, each: u16) -> Result<()> {
        let doors = Doors {
            v4: listener((Ipv4Addr::UNSPECIFIED, 0).into(), Dual::No)?,
            v6: listener((Ipv6Addr::UNSPECIFIED, 0).into(), Dual::No)?,
            dual: listener((Ipv6Addr::UNSPECIFIED, 0).into(), Dual::Yes)?,
        };
        // Three of one port: SO_REUSEPORT.
        let first = listener((Ipv4Addr::UNSPECIFIED, 0).into(), Dual::No)?;
        let shared = first.local_addr()?;
        for _ in 0..2 {
            self.kept.push(listener(shared, Dual::No)?.into());
        }
        self.kept.push(first.into());

        for _ in 0..each {
            self.loopback(&doors.v4, Ipv4Addr::LOCALHOST.into())?;
            self.loopback(&doors.v6, Ipv6Addr::LOCALHOST.into())?;
            self.loopback(&doors.dual, Ipv4Addr::LOCALHOST.into())?;
            self.unanswered(&doors.v4, Wire::PEER4.into(), Wire::KERNEL4.into())?;
            self.unanswered(&doors.v6, Wire::PEER6.into(), Wire::KERNEL6.into())?;
            self.unanswered(&doors.dual, Wire::PEER4.into(), Wire::KERNEL4.into())?;
        }
        self.kept
            .extend([doors.v4.into(), doors.v6.into(), doors.dual.into()]);
        Ok(())
    }

    /// ESTABLISHED, CLOSE_WAIT, FIN_WAIT2 and TIME_WAIT.
    fn loopback(&mut self, door: &TcpListener, host: IpAddr) -> Result<()> {
        let pair = || -> Result<(TcpStream, TcpStream)> {
            let client =
                TcpStream::connect((host, door.local_addr()?.port())).context("cannot connect")?;
            let (server, _) = door.accept().context("cannot accept")?;
            Ok((client, server))
        };
        let (client, server) = pair()?;
        self.kept.extend([client.into(), server.into()]);

        let (client, server) = pair()?;
        client.shutdown(Shutdown::Write)?;
        self.kept.extend([client.into(), server.into()]);

        // An orphan's FIN_WAIT2, the other end left in CLOSE_WAIT.
        let (client, server) = pair()?;
        drop(client);
        self.kept.push(server.into());

        // The orphan's FIN_WAIT2 steps to TIME_WAIT without an event.
        let (client, server) = pair()?;
        drop(client);
        drop(server);
        let (client, server) = pair()?;
        drop(server);
        drop(client);

        // The full socket sees the FIN itself.
        let (client, server) = pair()?;
        client.shutdown(Shutdown::Write)?;
        drop(server);
        drop(client);
        Ok(())
    }

    /// SYN_SENT, SYN_RECV, FIN_WAIT1, CLOSING and LAST_ACK.
    fn unanswered(&mut self, door: &TcpListener, peer: IpAddr, kernel: IpAddr) -> Result<()> {
        let family = if peer.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(family, SocketType::STREAM, flags, None).context("cannot open a socket")?;
        match connect(&socket, &SocketAddr::new(peer, self.port())) {
            Err(rustix::io::Errno::INPROGRESS) => self.kept.push(socket),
            other => other.context("a connect() that nobody answers did not wait")?,
        }

        let at = SocketAddr::new(kernel, door.local_addr()?.port());
        let from = SocketAddr::new(peer, self.port());
        Peer::new(&self.wire, from, at).send(SYN)?;

        // An orphan's FIN_WAIT1, and one with a descriptor.
        let (_, server) = self.established(door, peer, at)?;
        drop(server);
        let (_, server) = self.established(door, peer, at)?;
        server.shutdown(Shutdown::Write)?;
        self.kept.push(server.into());

        // Both close, and the peer does not acknowledge our FIN.
        let (mut end, server) = self.established(door, peer, at)?;
        server.shutdown(Shutdown::Write)?;
        end.send(FIN | ACK)?;
        self.kept.push(server.into());

        let (mut end, server) = self.established(door, peer, at)?;
        end.send(FIN | ACK)?;
        end.expect(ACK)?;
        drop(server);
        Ok(())
    }

    /// One that the peer made to `at`: its end and the kernel's.
    fn established(
        &mut self,
        door: &TcpListener,
        peer: IpAddr,
        at: SocketAddr,
    ) -> Result<(Peer<'_>, TcpStream)> {
        let from = SocketAddr::new(peer, self.port());
        let end = Peer::connect(&self.wire, from, at)?;
        let (server, _) = door.accept().context("cannot accept")?;
        Ok((end, server))
    }

    fn port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dual {
    Yes,
    No,
}

/// Every one may share its port: it has SO_REUSEPORT.
fn listener(address: SocketAddr, dual: Dual) -> Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("cannot open a listener")?;
    sockopt::set_socket_reuseport(&socket, true).context("cannot set SO_REUSEPORT")?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, dual == Dual::No).context("cannot set IPV6_V6ONLY")?;
    }
    bind(&socket, &address).with_context(|| format!("cannot bind {address}"))?;
    listen(&socket, 4096).context("cannot listen")?;
    Ok(socket.into())
}
