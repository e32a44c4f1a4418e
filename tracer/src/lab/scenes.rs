//! Cases that people really have, each played in a private network namespace: what
//! provokes a finding, and beside it the same load without the cause.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::link;
use super::netns::Netns;
use super::option::set_option;

/// Where servers are, and where clients are if they say so.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A case.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub name: &'static str,
    /// In a line.
    pub about: &'static str,
    /// The finding that it provokes; a control beside it provokes none.
    pub finding: Option<&'static str>,
    play: fn(&Ground) -> Result<Props>,
}

impl PartialEq for Scene {
    fn eq(&self, other: &Scene) -> bool {
        self.name == other.name
    }
}

const fn provokes(
    name: &'static str,
    finding: &'static str,
    about: &'static str,
    play: fn(&Ground) -> Result<Props>,
) -> Scene {
    Scene {
        name,
        about,
        finding: Some(finding),
        play,
    }
}

const fn control(
    name: &'static str,
    about: &'static str,
    play: fn(&Ground) -> Result<Props>,
) -> Scene {
    Scene {
        name,
        about,
        finding: None,
        play,
    }
}

#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a path to the method is not general enough in its lifetime"
)]
pub const ALL: &[Scene] = &[
    provokes(
        "ports-exhausted",
        "ports_exhausted",
        "a client holds all its 100 ports towards one server",
        |ground| ground.many(100),
    ),
    provokes(
        "ports-mapped",
        "ports_exhausted",
        "the same, half of it from IPv6 sockets to the v4-mapped address",
        |ground| ground.mapped(),
    ),
    control(
        "ports-outside",
        "150 connections from ports that the client chose outside of the range",
        |ground| ground.outside(),
    ),
    provokes(
        "bind-first",
        "source_address_exhausted",
        "150 connections to ten destinations, each bound to an address first",
        |ground| ground.bound_first(false),
    ),
    control(
        "bind-no-port",
        "the same with IP_BIND_ADDRESS_NO_PORT",
        |ground| ground.bound_first(true),
    ),
    provokes(
        "chosen-port",
        "tuple_in_time_wait",
        "without timestamps, a client connects again from a port of its choice that is in TIME_WAIT",
        |ground| ground.chosen(20_000, 20_000),
    ),
    control("chosen-free-port", "the same from another port", |ground| {
        ground.chosen(20_000, 20_001)
    }),
    provokes(
        "privileged-ports",
        "reserved_ports_exhausted",
        "350 connections from ports below 1024",
        |ground| ground.privileged(350),
    ),
    control(
        "privileged-ports-left",
        "300 connections from ports below 1024",
        |ground| ground.privileged(300),
    ),
    provokes(
        "no-timestamps",
        "reuse_without_timestamps",
        "60 of 100 ports in TIME_WAIT, and tcp_tw_reuse=1 without timestamps",
        |ground| ground.reused(false),
    ),
    control("timestamps", "the same with timestamps", |ground| {
        ground.reused(true)
    }),
    provokes(
        "accept-queue",
        "accept_queue_full",
        "40 connects to a listener that does not accept, with a queue of 4",
        |ground| ground.queue(4, 40),
    ),
    control(
        "accept-queue-long",
        "40 connects to one with a queue of 512",
        |ground| ground.queue(512, 40),
    ),
    provokes(
        "syn-queue",
        "syn_queue_full",
        "8 half-open requests of a listener that may have 8",
        |ground| ground.half_open(8, 12),
    ),
    control(
        "syn-queue-long",
        "12 half-open requests of a listener that may have 4,096",
        |ground| ground.half_open(4_096, 12),
    ),
    provokes(
        "close-wait",
        "close_wait_leak",
        "a server does not close what 30 clients have closed",
        |ground| ground.unclosed(30, None),
    ),
    control(
        "close-wait-closed",
        "a server closes each after 2 s of work",
        |ground| ground.unclosed(30, Some(Duration::from_secs(2))),
    ),
    provokes(
        "fin-wait2",
        "fin_wait2_held",
        "a client shuts down and waits for a server that does not close",
        |ground| ground.shut_down(true),
    ),
    control(
        "fin-wait2-orphans",
        "the same of clients that close instead, and of a server that closes after 9 s",
        |ground| ground.shut_down(false),
    ),
    provokes(
        "restart",
        "bind_blocked",
        "a server that closed first has gone, and had no SO_REUSEADDR",
        |ground| ground.restart(false),
    ),
    control(
        "restart-reuseaddr",
        "the same with SO_REUSEADDR",
        |ground| ground.restart(true),
    ),
    provokes(
        "listen-in-range",
        "listen_port_in_range",
        "a server on a port of ip_local_port_range",
        |ground| ground.in_range(false),
    ),
    control(
        "listen-reserved",
        "the same on a port that is reserved",
        |ground| ground.in_range(true),
    ),
    provokes(
        "self-connect",
        "self_connect",
        "a socket that is connected to itself",
        |ground| ground.to_itself(),
    ),
    provokes(
        "refused",
        "connects_fail",
        "20 connects to a port that nothing listens on",
        |ground| ground.refused(true),
    ),
    control(
        "accepted",
        "20 connects to one that somebody listens on",
        |ground| ground.refused(false),
    ),
    provokes(
        "syn-lost",
        "first_syn_lost",
        "five connects whose first SYN a full queue drops",
        |ground| ground.late(true),
    ),
    control(
        "slow-server",
        "five connects to a server that accepts after a second",
        |ground| ground.late(false),
    ),
    provokes(
        "overflow",
        "time_wait_overflow",
        "30 closes where tcp_max_tw_buckets is 10",
        |ground| ground.overflow(10),
    ),
    control("no-overflow", "30 closes where it is 1,000", |ground| {
        ground.overflow(1_000)
    }),
    provokes(
        "short-lived",
        "short_lived",
        "100 connections a second, each closed at once",
        |ground| ground.paced(Duration::from_millis(10)),
    ),
    control(
        "few-lived",
        "10 connections a second, each closed at once",
        |ground| ground.paced(Duration::from_millis(100)),
    ),
    provokes(
        "orphans",
        "sockstat_differs",
        "150 orphans in FIN_WAIT2, and no TIME_WAIT",
        |ground| ground.orphans(),
    ),
];

/// By its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scene> {
    ALL.iter().find(|scene| scene.name == name)
}

impl Scene {
    /// Plays it in a namespace of its own, which [`Scene::ground`] has made ready.
    /// What it holds is held as long as the props are.
    pub fn play(&self, netns: &Netns) -> Result<Props> {
        netns.run(|| (self.play)(&Ground { netns }))?
    }

    /// A namespace to play it in.
    pub fn ground() -> Result<Netns> {
        raise_descriptor_limit()?;
        let netns = Netns::new()?;
        netns.run(|| {
            link::add_address("lo", SERVER.into(), 32)?;
            link::add_address("lo", CLIENT.into(), 32)
        })??;
        Ok(netns)
    }
}

/// Some scenes hold several hundred sockets: as many as the hard limit allows may be
/// open.
fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open descriptors")
}

/// What a scene holds: its sockets, and whoever works on them.
#[derive(Debug, Default)]
pub struct Props {
    streams: Vec<TcpStream>,
    doors: Vec<TcpListener>,
    over: Arc<AtomicBool>,
    workers: Vec<thread::JoinHandle<Result<()>>>,
}

impl Drop for Props {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Where a scene is played: its thread is in there.
struct Ground<'n> {
    netns: &'n Netns,
}

impl Ground<'_> {
    fn set(&self, key: &str, value: &str) -> Result<()> {
        self.netns.set_sysctl(&format!("ipv4.{key}"), value)
    }

    fn hundred_ports(&self) -> Result<()> {
        self.set("ip_local_port_range", "40000 40099")
    }

    fn many(&self, connections: usize) -> Result<Props> {
        self.hundred_ports()?;
        let mut props = Props::default();
        let door = props.door(443, 512, true)?;
        for _ in 0..connections {
            props.pair(&door, Socket::plain())?;
        }
        Ok(props)
    }

    fn mapped(&self) -> Result<Props> {
        self.hundred_ports()?;
        let mut props = Props::default();
        let door = props.door(443, 512, true)?;
        for n in 0..100 {
            let socket = if n % 2 == 0 {
                Socket::plain()
            } else {
                Socket::mapped()
            };
            props.pair(&door, socket)?;
        }
        Ok(props)
    }

    fn outside(&self) -> Result<Props> {
        self.hundred_ports()?;
        let mut props = Props::default();
        let door = props.door(8080, 512, true)?;
        for n in 0..150 {
            props.pair(&door, Socket::from(CLIENT, 20_000 + n))?;
        }
        Ok(props)
    }

    fn bound_first(&self, no_port: bool) -> Result<Props> {
        self.hundred_ports()?;
        let mut props = Props::default();
        let doors = (0..10)
            .map(|n| props.door(8000 + n, 512, true))
            .collect::<Result<Vec<_>>>()?;
        let (mut made, mut refused) = (0, 0);
        for n in 0..150 {
            let socket = Socket {
                no_port,
                ..Socket::from(CLIENT, 0)
            };
            match props.pair(&doors[n % doors.len()], socket) {
                Ok(()) => made += 1,
                Err(_) => refused += 1,
            }
        }
        ensure!(
            if no_port { refused == 0 } else { made == 100 },
            "{made} connected and {refused} did not"
        );
        Ok(props)
    }

    fn chosen(&self, first: u16, second: u16) -> Result<Props> {
        // With them a TIME_WAIT of a chosen port is taken over.
        self.set("tcp_timestamps", "0")?;
        let mut props = Props::default();
        let door = props.door(8080, 64, true)?;
        props.client_first(&door, Socket::from(CLIENT, first))?;
        let again = Socket::from(CLIENT, second).connect(door.local_addr()?);
        ensure!(
            again.is_err() == (first == second),
            "the second connect gave {again:?}"
        );
        props.streams.extend(again.ok());
        Ok(props)
    }

    fn privileged(&self, connections: u16) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(2049, 512, true)?;
        for n in 0..connections {
            props.pair(&door, Socket::from(CLIENT, 1023 - n))?;
        }
        Ok(props)
    }

    fn reused(&self, timestamps: bool) -> Result<Props> {
        self.hundred_ports()?;
        self.set("tcp_tw_reuse", "1")?;
        self.set("tcp_timestamps", if timestamps { "1" } else { "0" })?;
        let mut props = Props::default();
        let door = props.door(443, 512, true)?;
        for _ in 0..60 {
            props.client_first(&door, Socket::plain())?;
        }
        Ok(props)
    }

    fn queue(&self, backlog: i32, connects: usize) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, backlog, true)?;
        for _ in 0..connects {
            props
                .streams
                .push(Socket::plain().begin(door.local_addr()?)?);
        }
        Ok(props)
    }

    fn half_open(&self, backlog: i32, connects: usize) -> Result<Props> {
        // A cookie would be no request.
        self.set("tcp_syncookies", "0")?;
        self.set("tcp_max_syn_backlog", "4096")?;
        let mut props = Props::default();
        let door = props.door(8080, backlog, true)?;
        set_option(&door, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60)?;
        for _ in 0..connects {
            props
                .streams
                .push(Socket::plain().begin(door.local_addr()?)?);
        }
        Ok(props)
    }

    fn unclosed(&self, connections: usize, work: Option<Duration>) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 512, true)?;
        let to = door.local_addr()?;
        for _ in 0..connections {
            let client = Socket::plain().connect(to)?;
            let (server, _) = door.accept()?;
            drop(client);
            match work {
                None => props.streams.push(server),
                Some(work) => props.later(work, move || drop(server)),
            }
        }
        Ok(props)
    }

    fn shut_down(&self, held: bool) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 64, true)?;
        for _ in 0..5 {
            let client = Socket::plain().connect(door.local_addr()?)?;
            let (server, _) = door.accept()?;
            if held {
                client.shutdown(std::net::Shutdown::Write)?;
                props.streams.extend([client, server]);
            } else {
                // Its other end closes before anybody could call that a leak.
                props.later(Duration::from_secs(9), move || drop(server));
            }
        }
        Ok(props)
    }

    fn restart(&self, reuseaddr: bool) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 64, reuseaddr)?;
        for _ in 0..20 {
            let client = Socket::plain().connect(door.local_addr()?)?;
            let (server, _) = door.accept()?;
            drop(server);
            until_closed(&client)?;
        }
        props.doors.clear();
        Ok(props)
    }

    fn in_range(&self, reserved: bool) -> Result<Props> {
        self.hundred_ports()?;
        if reserved {
            self.set("ip_local_reserved_ports", "40050")?;
        }
        let mut props = Props::default();
        props.door(40_050, 64, true)?;
        Ok(props)
    }

    fn to_itself(&self) -> Result<Props> {
        let itself = SocketAddr::new(CLIENT.into(), 8080);
        let mut props = Props::default();
        props
            .streams
            .push(Socket::from(CLIENT, 8080).connect(itself)?);
        Ok(props)
    }

    fn refused(&self, refused: bool) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 64, true)?;
        let to = SocketAddr::new(SERVER.into(), if refused { 8081 } else { 8080 });
        props.repeat(self.netns, Duration::from_millis(100), move || {
            for _ in 0..4 {
                let _ = Socket::plain().connect(to);
                if !refused {
                    let _ = door.accept();
                }
            }
        })?;
        Ok(props)
    }

    fn late(&self, dropped: bool) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, if dropped { 0 } else { 64 }, true)?;
        let to = door.local_addr()?;
        // It fills the queue.
        let filler = Socket::plain().connect(to)?;
        props.streams.push(filler);
        for _ in 0..5 {
            props.streams.push(Socket::plain().begin(to)?);
        }
        props.repeat(self.netns, Duration::from_millis(300), move || {
            let _ = rustix::io::ioctl_fionbio(&door, true);
            while door.accept().is_ok() {}
        })?;
        Ok(props)
    }

    fn overflow(&self, limit: u32) -> Result<Props> {
        self.set("tcp_max_tw_buckets", &limit.to_string())?;
        let mut props = Props::default();
        let door = props.door(8080, 64, true)?;
        for _ in 0..30 {
            props.client_first(&door, Socket::plain())?;
        }
        let netns = self.netns;
        props.repeat(netns, Duration::from_millis(200), move || {
            let _ = closed_by_client(&door, Socket::plain());
        })?;
        Ok(props)
    }

    fn paced(&self, pause: Duration) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 64, true)?;
        props.repeat(self.netns, pause, move || {
            let _ = closed_by_client(&door, Socket::plain());
        })?;
        Ok(props)
    }

    fn orphans(&self) -> Result<Props> {
        let mut props = Props::default();
        let door = props.door(8080, 512, true)?;
        for _ in 0..150 {
            drop(Socket::plain().connect(door.local_addr()?)?);
            props.streams.push(door.accept()?.0);
        }
        Ok(props)
    }
}

impl Props {
    /// A listener on the server's address.
    fn door(&mut self, port: u16, backlog: i32, reuseaddr: bool) -> Result<TcpListener> {
        let socket = new_socket(AddressFamily::INET)?;
        sockopt::set_socket_reuseaddr(&socket, reuseaddr)?;
        let at = SocketAddr::new(SERVER.into(), port);
        bind(&socket, &at).with_context(|| format!("cannot bind {at}"))?;
        listen(&socket, backlog).with_context(|| format!("cannot listen on {at}"))?;
        let door = TcpListener::from(socket);
        self.doors.push(door.try_clone()?);
        Ok(door)
    }

    /// Both ends of a connection.
    fn pair(&mut self, door: &TcpListener, socket: Socket) -> Result<()> {
        let client = socket.connect(door.local_addr()?)?;
        let (server, _) = door.accept()?;
        self.streams.extend([client, server]);
        Ok(())
    }

    /// A TIME_WAIT on the client's side.
    fn client_first(&mut self, door: &TcpListener, socket: Socket) -> Result<()> {
        closed_by_client(door, socket)
    }

    /// Does that after a while, or when all is over.
    fn later(&mut self, pause: Duration, work: impl FnOnce() + Send + 'static) {
        const STEP: Duration = Duration::from_millis(50);
        let over = Arc::clone(&self.over);
        self.workers.push(thread::spawn(move || {
            let mut left = pause;
            while !over.load(Relaxed) && !left.is_zero() {
                thread::sleep(STEP);
                left = left.saturating_sub(STEP);
            }
            work();
            Ok(())
        }));
    }

    /// Does that again and again, in the namespace, until all is over.
    fn repeat(
        &mut self,
        netns: &Netns,
        pause: Duration,
        work: impl Fn() + Send + 'static,
    ) -> Result<()> {
        let over = Arc::clone(&self.over);
        let worker = netns.spawn_thread("scene", move || {
            while !over.load(Relaxed) {
                work();
                thread::sleep(pause);
            }
            Ok(())
        })?;
        self.workers.push(worker);
        Ok(())
    }
}

fn closed_by_client(door: &TcpListener, socket: Socket) -> Result<()> {
    let client = socket.connect(door.local_addr()?)?;
    let (server, _) = door.accept()?;
    drop(client);
    until_closed(&server)
}

/// Until the other end has closed.
fn until_closed(stream: &TcpStream) -> Result<()> {
    use std::io::Read as _;
    let mut rest = [0; 16];
    let read = (&*stream).read(&mut rest)?;
    ensure!(read == 0, "the other end sent something");
    Ok(())
}

/// How a client makes its socket.
#[derive(Clone, Copy, Debug)]
struct Socket {
    /// Bound to this first.
    from: Option<SocketAddr>,
    /// With IP_BIND_ADDRESS_NO_PORT.
    no_port: bool,
    /// An IPv6 socket, to the v4-mapped address.
    mapped: bool,
}

impl Socket {
    fn plain() -> Socket {
        Socket {
            from: None,
            no_port: false,
            mapped: false,
        }
    }

    fn mapped() -> Socket {
        Socket {
            mapped: true,
            ..Socket::plain()
        }
    }

    fn from(address: Ipv4Addr, port: u16) -> Socket {
        Socket {
            from: Some(SocketAddr::new(address.into(), port)),
            ..Socket::plain()
        }
    }

    fn make(self) -> Result<OwnedFd> {
        const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;
        let socket = new_socket(if self.mapped {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        })?;
        if self.no_port {
            set_option(&socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        if let Some(from) = self.from {
            sockopt::set_socket_reuseaddr(&socket, from.port() != 0)?;
            bind(&socket, &from).with_context(|| format!("cannot bind {from}"))?;
        }
        Ok(socket)
    }

    fn to(self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(address) if self.mapped => {
                SocketAddr::new(address.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        }
    }

    fn connect(self, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.make()?;
        let to = self.to(to);
        connect(&socket, &to).with_context(|| format!("cannot connect to {to}"))?;
        Ok(socket.into())
    }

    /// Asked for, and not waited for.
    fn begin(self, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.make()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        match connect(&socket, &self.to(to)) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
            Err(error) => Err(error).with_context(|| format!("cannot connect to {to}")),
        }
    }
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("cannot make a socket")
}
