//! What the walk reads of sockets and namespaces, beside what was asked of the
//! kernel by other ways.

use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::{V4, own_number, set_tcp_option, time_wait};
use crate::kernel::netns::cookie;
use crate::kernel::{cgroup, counters};
use crate::lab::netns::Netns;
use crate::model::event::{NamespaceFacts, State};
use crate::model::found::{Flags, Found, Listener};
use crate::selftest::Tried;
use crate::selftest::scene::Scene;

/// As `listen()` is asked for it.
const BACKLOG: u32 = 2;

pub(super) fn sockets(scene: &mut Scene) -> Result<Tried> {
    let door = listener(scene, false)?;
    let to = door.local_addr()?;
    let plain = scene.netns.run(|| TcpStream::connect(to))??;
    let address_chosen = scene.connect_from(0, to)?;
    let port = scene.door(V4)?.local_addr()?.port();
    let all_chosen = scene.connect_from(port, to)?;
    expect(
        scene,
        &plain,
        "a socket of which nothing was chosen",
        Flags::default(),
    )?;
    let reuseaddr = Flags {
        reuseaddr: true,
        ..Flags::default()
    };
    let bound = Flags {
        bound_address: true,
        ..reuseaddr
    };
    expect(scene, &address_chosen, "a socket bound to port 0", bound)?;
    let bound = Flags {
        bound_port: true,
        ..bound
    };
    expect(scene, &all_chosen, "a socket bound to a port", bound)?;
    for (port, shared) in [
        (plain.local_addr()?.port(), true),
        (port, false),
        (to.port(), false),
    ] {
        let own = scene.inode();
        let ports = scene.tracer.walk()?.ports(Some(own))?;
        let found: Vec<bool> = ports
            .iter()
            .filter(|bound| bound.netns == own && bound.port == port)
            .map(|bound| bound.shared)
            .collect();
        ensure!(
            found == [shared],
            "the local port {port}, which another connect() {} share, was found as {found:?}",
            if shared { "may" } else { "may not" }
        );
    }
    let (_, now) = scene.tracer.clocks()?;
    let received = find(scene, &plain, "a connection")?.full;
    let received = received.context("a full socket")?.received;
    let ago = now.wrapping_sub(received);
    ensure!(
        ago < 60 * scene.hz,
        "a segment that came just now was found to have come {ago} ticks ago"
    );
    orphans(scene, &door)?;
    queues(scene, &door)?;
    let shared = listener(scene, true)?;
    let flags = Flags {
        reuseaddr: false,
        reuseport: true,
        ..bound
    };
    expect(scene, &shared, "a listener with SO_REUSEPORT", flags)?;
    timestamps(scene)?;
    Ok(Tried::Held)
}

/// By its open files this process is who holds a socket.
pub(super) fn holders(scene: &mut Scene) -> Result<Tried> {
    let door = listener(scene, false)?;
    let cookie = sockopt::socket_cookie(&door).context("cannot ask for a socket's cookie")?;
    let mut holders = Vec::new();
    let outcome = scene.tracer.walk()?.owners(|owned| {
        let of = owned.iter().filter(|owned| owned.cookie == cookie);
        holders.extend(of.map(|owned| owned.process));
        Ok(())
    })?;
    ensure!(
        outcome.whole,
        "not all open files could be gone through: {outcome:?}"
    );
    let me = own_number();
    let own = holders.iter().find(|process| process.pid == me);
    let own = own.with_context(|| {
        format!("process {me} holds a socket that was found with {holders:?}: {outcome:?}")
    })?;
    let comm = fs::read("/proc/self/comm").context("cannot read this process's name")?;
    let name = own.comm.unwrap_or_default();
    ensure!(
        name.split(|&byte| byte == 0).next() == Some(comm.trim_ascii_end()),
        "process {me} was found with the name {name:?}"
    );
    if let Some(cgroup) = own_cgroup() {
        ensure!(
            own.cgroup == Some(cgroup),
            "process {me}, in the control group {cgroup}, was found in {:?}",
            own.cgroup
        );
    }
    Ok(Tried::Held)
}

/// The id of this process's group of v2, where that can be seen.
fn own_cgroup() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(fs::metadata(cgroup::mount()?.join(path)).ok()?.ino())
}

/// A socket that a program holds is told from one that none does.
fn orphans(scene: &mut Scene, door: &TcpListener) -> Result<()> {
    // Above 60 an orphan stays a full socket for the difference.
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "120")?;
    let made = orphaned(scene);
    let sockets = all(scene);
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "60")?;
    let ((local, _server), sockets) = (made?, sockets?);
    // Until its FIN is acknowledged it is in FIN_WAIT1.
    let orphan = sockets.iter().find(|found| {
        found.tuple.local_port == local.port()
            && matches!(found.state, State::FinWait1 | State::FinWait2)
    });
    let orphan = orphan.and_then(|found| found.full);
    ensure!(
        orphan.is_some_and(|full| full.orphan),
        "a socket that no program holds was found as {orphan:?}"
    );
    let plain = sockets.iter().find(|found| {
        found.state == State::Established && found.tuple.remote_port == door_port(door)
    });
    let held = plain.and_then(|found| found.full);
    ensure!(
        held.is_some_and(|full| !full.orphan),
        "a socket that a program holds was found as {held:?}"
    );
    Ok(())
}

fn door_port(door: &TcpListener) -> u16 {
    door.local_addr().map_or(0, |at| at.port())
}

/// A client that has closed, and its peer that has not.
fn orphaned(scene: &Scene) -> Result<(SocketAddr, TcpStream)> {
    let door = scene.door(V4)?;
    let (client, server) = scene.pair(&door)?;
    let local = client.local_addr()?;
    drop(client);
    // Its FIN has been acknowledged once the peer has read the end.
    let mut rest = [0; 1];
    let read = (&server).read(&mut rest)?;
    ensure!(read == 0, "the peer of an orphan read something");
    Ok((local, server))
}

/// One more than the backlog wait, as the kernel has it, and whoever comes then is
/// dropped and counted.
fn queues(scene: &mut Scene, door: &TcpListener) -> Result<()> {
    let before = listen_drops(&scene.netns)?;
    let _late = scene.connect_from(0, door.local_addr()?)?;
    // It is sent again after a second: the one figure may be older than the other.
    let least = listen_drops(&scene.netns)? - before;
    let found = find(scene, door, "a listener")?;
    let most = listen_drops(&scene.netns)? - before;
    let queues = found.listener.context("a listener has queues")?;
    ensure!(
        least > 0,
        "a listener with a full queue dropped no connection"
    );
    ensure!(
        (least..=most).contains(&u64::from(queues.drops)),
        "a listener that dropped {least} connections was found with {}",
        queues.drops
    );
    let expected = Listener {
        half_open: 0,
        accept_queue: BACKLOG + 1,
        accept_limit: BACKLOG,
        drops: queues.drops,
    };
    ensure!(
        queues == expected,
        "a listener with {expected:?} was found with {queues:?}"
    );
    Ok(())
}

fn timestamps(scene: &mut Scene) -> Result<()> {
    for set in [true, false] {
        scene
            .netns
            .set_sysctl("ipv4.tcp_timestamps", if set { "1" } else { "0" })?;
        let made = scene.door(V4).and_then(|door| time_wait(scene, &door));
        scene.netns.set_sysctl("ipv4.tcp_timestamps", "1")?;
        let (local, _, birth) = made?;
        let minisocket = all(scene)?
            .into_iter()
            .find(|found| {
                found.state == State::TimeWait
                    && found.tuple.local_port == local.port()
                    && found.cookie == birth.minisocket.cookie
            })
            .with_context(|| format!("the TIME_WAIT at {local} was not found"))?;
        ensure!(
            minisocket.flags.timestamps == set,
            "a TIME_WAIT {} timestamps was found {} them",
            with(set),
            with(!set)
        );
    }
    Ok(())
}

fn with(so: bool) -> &'static str {
    if so { "with" } else { "without" }
}

/// A request says whose it is.
pub(super) fn requests(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    set_tcp_option(&door, libc::TCP_DEFER_ACCEPT, 30)?;
    let to = door.local_addr()?;
    let _client = scene.netns.run(|| TcpStream::connect(to))??;
    let listener = find(scene, &door, "a listener")?;
    let sockets = all(scene)?;
    let request = sockets
        .iter()
        .find(|found| found.state == State::NewSynRecv && found.tuple.local_port == to.port());
    let request = request.with_context(|| format!("no half-open request of {to} was found"))?;
    let (_, now) = scene.tracer.clocks()?;
    let left = request
        .timer
        .map_or(0, |timer| timer.expires.wrapping_sub(now) as i32);
    ensure!(
        left > 0 && left < 10 * scene.hz as i32,
        "the timer of a new request was found to end in {left} ticks"
    );
    ensure!(
        request.requested_of == Some(listener.address),
        "a request of the listener at {:x?} was found to be one of {:x?}",
        listener.address,
        request.requested_of
    );
    Ok(Tried::Held)
}

/// Two values of each, so that none is right by chance.
pub(super) fn settings(scene: &mut Scene) -> Result<Tried> {
    const DELAY: &str = "ipv4.tcp_tw_reuse_delay";
    // Of no bytes at all nothing is taken.
    const EMPTY: &str = "\n";
    let kept = [
        "ipv4.ip_local_port_range",
        "ipv4.ip_local_reserved_ports",
        "ipv4.tcp_max_tw_buckets",
        "ipv4.tcp_tw_reuse",
        "ipv4.tcp_timestamps",
        DELAY,
    ];
    let delayed = scene.netns.sysctl(DELAY).is_ok();
    let own = scene.inode();
    for (values, facts) in [
        (
            [
                "40000 40999",
                "40010,40050-40052,900",
                "7000",
                "1",
                "1",
                "2500",
            ],
            NamespaceFacts {
                name: None,
                ports: (40_000, 40_999),
                reserved_ports: 4,
                max_tw_buckets: 7_000,
                tw_reuse: 1,
                tw_reuse_delay: Duration::from_millis(2_500),
                timestamps: true,
            },
        ),
        (
            ["32768 60999", EMPTY, "4096", "2", "0", "1000"],
            NamespaceFacts {
                name: None,
                ports: (32_768, 60_999),
                reserved_ports: 0,
                max_tw_buckets: 4_096,
                tw_reuse: 2,
                tw_reuse_delay: Duration::from_secs(1),
                timestamps: false,
            },
        ),
    ] {
        let before: Vec<String> = kept
            .iter()
            .map(|key| scene.netns.sysctl(key).unwrap_or_default())
            .collect();
        for (key, value) in kept.iter().zip(values) {
            if *key != DELAY || delayed {
                scene.netns.set_sysctl(key, value)?;
            }
        }
        let found = facts_of(scene, own.0);
        for (key, value) in kept.iter().zip(&before) {
            let value = if value.is_empty() { EMPTY } else { value };
            if *key != DELAY || delayed {
                scene.netns.set_sysctl(key, value)?;
            }
        }
        let expected = if delayed {
            facts
        } else {
            NamespaceFacts {
                tw_reuse_delay: Duration::from_secs(1),
                ..facts
            }
        };
        let found = found?;
        ensure!(
            found == expected,
            "a namespace with {expected:?} was found with {found:?}"
        );
    }
    Ok(Tried::Held)
}

fn facts_of(scene: &mut Scene, inode: u32) -> Result<NamespaceFacts> {
    let cookie = scene.netns.run(cookie)?;
    let mut walk = scene.tracer.walk()?;
    let all = walk.namespaces()?.all;
    let own = all
        .iter()
        .find(|namespace| namespace.netns.0 == inode)
        .with_context(|| format!("the namespace {inode} is not among the {} found", all.len()))?;
    ensure!(
        cookie.is_none_or(|cookie| cookie == own.cookie),
        "a namespace with the cookie {cookie:?} was found with {}",
        own.cookie
    );
    walk.facts(own)?
        .context("the namespace has ended, by what was read of it")
}

fn expect(scene: &mut Scene, socket: &impl AsFd, what: &str, flags: Flags) -> Result<()> {
    let found = find(scene, socket, what)?;
    ensure!(
        found.flags == flags,
        "{what}, with {flags:?}, was found with {:?}",
        found.flags
    );
    Ok(())
}

/// By the cookie that the kernel tells its owner.
fn find(scene: &mut Scene, socket: &impl AsFd, what: &str) -> Result<Found> {
    let cookie = sockopt::socket_cookie(socket).context("cannot ask for a socket's cookie")?;
    all(scene)?
        .into_iter()
        .find(|found| found.cookie == cookie)
        .with_context(|| format!("{what}, with the cookie {cookie}, was not found"))
}

fn all(scene: &mut Scene) -> Result<Vec<Found>> {
    let own = scene.inode();
    let mut all = Vec::new();
    scene.tracer.walk()?.sockets(Some(own), |found| {
        all.extend_from_slice(found);
        Ok(())
    })?;
    Ok(all)
}

fn listener(scene: &Scene, reuseport: bool) -> Result<TcpListener> {
    let listening = || -> io::Result<TcpListener> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_socket_reuseport(&socket, reuseport)?;
        let at = if reuseport { free_port()? } else { 0 };
        bind(&socket, &SocketAddr::new(V4, at))?;
        listen(&socket, BACKLOG as i32)?;
        Ok(socket.into())
    };
    scene.netns.run(listening)?.context("cannot listen")
}

fn free_port() -> io::Result<u16> {
    let any: IpAddr = V4;
    Ok(TcpListener::bind((any, 0))?.local_addr()?.port())
}

/// SYNs that listeners of the namespace dropped, as the kernel counts them.
fn listen_drops(netns: &Netns) -> Result<u64> {
    let text = netns.read("/proc/thread-self/net/netstat")?;
    counters::column(&text, "TcpExt: ", "ListenDrops").context("ListenDrops is not counted")
}
