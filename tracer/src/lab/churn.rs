//! `churn`: one process, one thread, sequential connect, accept, close on
//! loopback, as fast as the kernel goes.
//!
//! The load of the benchmark and of the tests that count births exactly. Every
//! connection makes [`TRANSITIONS`] and one TIME_WAIT. It spreads over so many
//! loopback addresses that free ports last for hours.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, accept_with, bind, connect, getsockname, listen,
    socket_with, sockopt,
};

use super::netns::Netns;

/// Of full sockets, at both ends of a connection from its beginning to its end.
pub const TRANSITIONS: u64 = 10;

/// Which end closes first, and so keeps the TIME_WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum First {
    #[default]
    Client,
    Server,
}

/// What to do; ends at whichever bound is reached first.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    pub connections: u64,
    pub duration: Option<Duration>,
    pub first: First,
    /// Listening sockets, each on a port of its own.
    pub listeners: u16,
    /// Loopback addresses that are connected to in turn: with 16 listeners and
    /// 16 of them, 7 million TIME_WAITs stand before the first port is reused.
    pub addresses: u8,
}

impl Default for Churn {
    fn default() -> Churn {
        Churn {
            connections: u64::MAX,
            duration: None,
            first: First::Client,
            listeners: 16,
            addresses: 16,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    pub connections: u64,
    pub elapsed: Duration,
}

impl Done {
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.elapsed.as_secs_f64()
    }
}

/// A fresh namespace in which `churn` can run for as long as memory lasts: the
/// widest port range, no limit of TIME_WAITs that it would reach, and no reuse
/// (by default loopback has it, and takes ports of which free ones abound).
pub fn namespace() -> Result<Netns> {
    let netns = Netns::new()?;
    prepare(&netns)?;
    Ok(netns)
}

/// As [`namespace`], for one that exists.
pub fn prepare(netns: &Netns) -> Result<()> {
    netns.set_sysctl("ipv4.ip_local_port_range", "1024 65535")?;
    netns.set_sysctl("ipv4.tcp_tw_reuse", "0")?;
    netns.set_sysctl("ipv4.tcp_max_tw_buckets", "8388608")
}

impl Churn {
    /// Runs on loopback in the namespace of the calling thread, on that thread.
    pub fn run(&self) -> Result<Done> {
        let listeners: Vec<Listener> = (0..self.listeners)
            .map(|_| Listener::new(Ipv4Addr::UNSPECIFIED))
            .collect::<Result<_>>()?;
        let hosts: Vec<Ipv4Addr> = (0..self.addresses)
            .map(|n| Ipv4Addr::new(127, 0, 0, n + 1))
            .collect();
        self.run_towards(&listeners, &hosts)
    }

    /// Connects from the namespace of the calling thread to every port at every
    /// host in turn; the listeners may be those of another namespace.
    pub fn run_towards(&self, listeners: &[Listener], hosts: &[Ipv4Addr]) -> Result<Done> {
        // The clock is read once in so many connections: it costs as much as a close.
        const STRIDE: u64 = 64;
        ensure!(
            !listeners.is_empty() && !hosts.is_empty(),
            "churn needs a listener and an address"
        );
        let targets: Vec<(&Listener, SocketAddrV4)> = hosts
            .iter()
            .flat_map(|&host| {
                listeners
                    .iter()
                    .map(move |to| (to, SocketAddrV4::new(host, to.port)))
            })
            .collect();

        #[expect(clippy::disallowed_methods, reason = "a load measures its own rate")]
        let start = Instant::now();
        let mut connections = 0;
        for (listener, target) in targets.iter().cycle() {
            let ended = connections >= self.connections
                || (connections % STRIDE == 0
                    && self.duration.is_some_and(|limit| start.elapsed() >= limit));
            if ended {
                break;
            }
            let (client, server) = listener.connect(*target).with_context(|| {
                format!("connection {connections} of churn, to {target}, failed")
            })?;
            match self.first {
                First::Client => {
                    drop(client);
                    drop(server);
                }
                First::Server => {
                    drop(server);
                    drop(client);
                }
            }
            connections += 1;
        }
        Ok(Done {
            connections,
            elapsed: start.elapsed(),
        })
    }
}

/// A listening socket and the port it got.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    pub port: u16,
}

impl Listener {
    /// On any free port of `address`.
    pub fn new(address: Ipv4Addr) -> Result<Listener> {
        let socket = tcp_socket().context("cannot open a listener")?;
        sockopt::set_socket_reuseaddr(&socket, true).context("cannot set SO_REUSEADDR")?;
        bind(&socket, &SocketAddrV4::new(address, 0)).context("cannot bind a listener")?;
        listen(&socket, 1024).context("cannot listen")?;
        let name: SocketAddrV4 = getsockname(&socket)?
            .try_into()
            .context("a listener has no IPv4 address")?;
        Ok(Listener {
            socket,
            port: name.port(),
        })
    }

    /// One established connection: the connecting and the accepted end.
    pub fn connect(&self, target: SocketAddrV4) -> Result<(OwnedFd, OwnedFd)> {
        let client = tcp_socket().context("cannot open a socket")?;
        connect(&client, &target).context("cannot connect")?;
        let server = accept_with(&self.socket, SocketFlags::CLOEXEC).context("cannot accept")?;
        Ok((client, server))
    }
}

fn tcp_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}
