//! The trials: each makes something happen that a figure of twtrace rests on.

mod tables;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Tried;
use super::scene::{Birth, Scene, is_between, set_tcp_option};
use crate::kernel::clock;
use crate::lab::destroy::Destroyer;
use crate::lab::netns::{Netns, own_number};
use crate::lab::segments::{FIN, RST, Segment};
use crate::model::event::{Event, Reason, Seed, State, Step};
use crate::model::found::Found;

type Trial = fn(&mut Scene) -> Result<Tried>;

pub(super) const ALL: &[(&str, Trial)] = &[
    ("transitions", |scene| transitions(scene, V4)),
    ("transitions, IPv6", |scene| transitions(scene, V6)),
    ("owners", owners),
    ("births", |scene| births(scene, V4)),
    ("births, IPv6", |scene| births(scene, V6)),
    ("seed", |scene| seed(scene, V4)),
    ("seed, IPv6", |scene| seed(scene, V6)),
    ("sockets' options and queues", tables::sockets),
    ("listeners of requests", tables::requests),
    ("settings of namespaces", tables::settings),
    ("holders of sockets", tables::holders),
    ("silent steps", silent_steps),
    ("re-arms", rearms),
    ("half-open requests", half_open),
    ("refused connects", refused),
    ("linger2", linger2),
    ("expiry", expiry),
    ("reuse by connect", reuse_by_connect),
    ("reuse of a bound port", |scene| {
        reuse_of_a_bound_port(scene, V4)
    }),
    ("reuse of a bound port, IPv6", |scene| {
        reuse_of_a_bound_port(scene, V6)
    }),
    ("reuse by SYN", |scene| reuse_by_syn(scene, V4)),
    ("reuse by SYN, IPv6", |scene| reuse_by_syn(scene, V6)),
    ("data after close", |scene| data_after_close(scene, V4)),
    ("data after close, IPv6", |scene| {
        data_after_close(scene, V6)
    }),
    ("reset", reset),
    ("destroyed", destroyed),
    ("namespace exit", namespace_exit),
];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A connection that is known to both sides.
struct Known {
    client: TcpStream,
    server: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
}

fn known(scene: &Scene, door: &TcpListener) -> Result<Known> {
    let (client, server) = scene.pair(door)?;
    let (local, remote) = (client.local_addr()?, client.peer_addr()?);
    Ok(Known {
        client,
        server,
        local,
        remote,
    })
}

impl Known {
    /// The client closes first, and its full socket sees the other's FIN.
    fn close_in_turn(self) -> Result<(SocketAddr, SocketAddr)> {
        self.client.shutdown(Shutdown::Write)?;
        // Until the FIN is answered it is in FIN_WAIT1.
        drop(self.server);
        drop(self.client);
        Ok((self.local, self.remote))
    }
}

/// A TIME_WAIT on the client's side.
fn time_wait(scene: &mut Scene, door: &TcpListener) -> Result<(SocketAddr, SocketAddr, Birth)> {
    let (local, remote) = known(scene, door)?.close_in_turn()?;
    let birth = scene.birth(local, remote)?;
    Ok((local, remote, birth))
}

/// An orphan in FIN_WAIT2 on the client's side, and the end it waits for.
fn orphan(scene: &mut Scene, door: &TcpListener) -> Result<(SocketAddr, TcpStream, Birth)> {
    let Known {
        client,
        server,
        local,
        remote,
    } = known(scene, door)?;
    drop(client);
    let birth = scene.birth(local, remote)?;
    Ok((local, server, birth))
}

fn expect_end(scene: &mut Scene, birth: Birth, state: State, reason: Reason) -> Result<Tried> {
    let (ended, because) = scene.end(birth)?;
    ensure!(
        (ended, because) == (state, reason),
        "a minisocket that ended in {state:?} by {reason:?} was seen to end in {ended:?} by {because:?}"
    );
    Ok(Tried::Held)
}

fn told(steps: &[Step]) -> Vec<(State, State)> {
    steps.iter().map(|step| (step.from, step.to)).collect()
}

fn transitions(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    use State::{
        Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
    };
    let door = scene.door(host)?;
    let (local, remote) = known(scene, &door)?.close_in_turn()?;
    let sides = [
        // Its step to CLOSE is told as the birth of its minisocket.
        (
            local,
            remote,
            vec![
                (Close, SynSent),
                (SynSent, Established),
                (Established, FinWait1),
                (FinWait1, FinWait2),
            ],
        ),
        (
            remote,
            local,
            vec![
                (Listen, SynRecv),
                (SynRecv, Established),
                (Established, CloseWait),
                (CloseWait, LastAck),
                (LastAck, Close),
            ],
        ),
    ];
    for (near, far, expected) in sides {
        let last = expected.last().context("some are expected")?.1;
        let (_, steps) = scene.story(near, far, last)?;
        let seen = told(&steps);
        ensure!(
            seen == expected,
            "a socket that took the steps {expected:?} was seen to take {seen:?}"
        );
        let end = steps.last().context("it has steps")?;
        let port = end.tuple.map_or(0, |tuple| tuple.local_port);
        ensure!(
            port == near.port(),
            "the last step of a socket on port {} was seen with port {port}",
            near.port()
        );
        ensure!(
            end.error == 0 && !end.linger2_negative,
            "a socket that closed in peace was seen with error {} and linger2 {}",
            end.error,
            if end.linger2_negative {
                "negative"
            } else {
                "not negative"
            },
        );
    }
    Ok(Tried::Held)
}

fn owners(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let (local, remote) = known(scene, &door)?.close_in_turn()?;
    let (_, steps) = scene.story(local, remote, State::FinWait2)?;
    let me = own_number();
    for step in &steps {
        if matches!(step.to, State::SynSent | State::FinWait1) {
            ensure!(
                step.pid == me,
                "the step to {:?} was seen in process {} and not in {me}",
                step.to,
                step.pid
            );
        }
    }
    let kernel_thread = scene.until("the name of this process", |events| {
        events.iter().find_map(|event| match event {
            Event::Process {
                pid,
                comm,
                kernel_thread,
                ..
            } if *pid == me && comm[0] != 0 => Some(*kernel_thread),
            _ => None,
        })
    })?;
    ensure!(!kernel_thread, "this process was taken for a kernel thread");
    Ok(Tried::Held)
}

fn births(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    let door = scene.door(host)?;
    let (local, remote, birth) = time_wait(scene, &door)?;
    let (socket, _) = scene.story(local, remote, State::FinWait2)?;
    ensure!(
        birth.minisocket.cookie == socket.cookie && socket.cookie != 0,
        "the minisocket has the cookie {} and its full socket has {}",
        birth.minisocket.cookie,
        socket.cookie
    );
    ensure!(
        birth.substate == State::TimeWait,
        "a TIME_WAIT was seen as {:?}",
        birth.substate
    );
    ensure!(
        birth.netns == scene.inode(),
        "it was seen in the namespace {} and not in {}",
        birth.netns.0,
        scene.inode().0
    );
    armed_for_2msl(scene, birth)?;

    let (_, server, orphan) = orphan(scene, &door)?;
    ensure!(
        orphan.substate == State::FinWait2,
        "an orphan in FIN_WAIT2 was seen as {:?}",
        orphan.substate
    );
    drop(server);
    Ok(Tried::Held)
}

/// And `expires` lies that far ahead.
fn armed_for_2msl(scene: &mut Scene, birth: Birth) -> Result<()> {
    let seconds = scene.armed_for(birth.arming)?;
    let (_, jiffies) = scene.tracer.clocks()?;
    let left = f64::from(birth.arming.expires.wrapping_sub(jiffies) as i32) / f64::from(scene.hz);
    ensure!(
        left <= seconds && left > seconds - 10.0,
        "a timer armed for {seconds} s was seen to expire in {left} s"
    );
    Ok(())
}

/// What stands is found by its own address, with its own tuple.
fn seed(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    let door = scene.door(host)?;
    let open = known(scene, &door)?;
    let (full, _) = scene.story(open.local, open.remote, State::Established)?;
    let (local, remote, birth) = time_wait(scene, &door)?;
    let (waiting, _server, orphan) = orphan(scene, &door)?;
    let (netns, namespace) = (scene.inode(), scene.namespace());
    let mut found: Vec<Seed> = Vec::new();
    scene.tracer.seed(&namespace, |event| {
        if let Event::Seed(seed) = event {
            found.push(*seed);
        }
    })?;
    let whole = |what: &str, local, remote| {
        found
            .iter()
            .find(|seed| is_between(Some(seed.tuple), netns, local, remote))
            .with_context(|| {
                format!(
                    "no {what} from {local} to {remote} among {} seeds",
                    found.len()
                )
            })
    };
    let nowhere = SocketAddr::new(
        if host.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        },
        0,
    );
    let expected = [
        (
            whole("listener", remote, nowhere)?,
            State::Listen,
            None,
            None,
        ),
        (
            whole("connection", open.local, open.remote)?,
            State::Established,
            Some(full),
            None,
        ),
        (
            whole("TIME_WAIT", local, remote)?,
            State::TimeWait,
            Some(birth.minisocket),
            Some(birth.arming.expires),
        ),
        (
            whole("orphan", waiting, remote)?,
            State::FinWait2,
            Some(orphan.minisocket),
            Some(orphan.arming.expires),
        ),
    ];
    for (seed, state, identity, expires) in expected {
        ensure!(
            seed.state == state
                && identity.is_none_or(|identity| identity == seed.socket)
                && seed.timer_expires == expires,
            "a socket in {state:?}, {identity:x?}, expiring at {expires:?}, was found as {seed:x?}"
        );
    }
    Ok(Tried::Held)
}

/// An orphan's FIN arms its timer for as long as before: no event tells.
fn silent_steps(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let (_, server, birth) = orphan(scene, &door)?;
    ensure!(
        reading(scene, birth)? == Some((State::FinWait2, birth.arming.expires)),
        "an orphan in FIN_WAIT2 was read as {:?}",
        reading(scene, birth)?
    );
    drop(server);
    let start = clock::now();
    loop {
        match reading(scene, birth)? {
            Some((State::TimeWait, _)) => return Ok(Tried::Held),
            other if clock::now().since(start) > Duration::from_secs(1) => {
                bail!("a TIME_WAIT that was an orphan in FIN_WAIT2 was read as {other:?}")
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn reading(scene: &mut Scene, birth: Birth) -> Result<Option<(State, u32)>> {
    let mut found = None;
    scene.tracer.sweep(&[birth.minisocket], |event| {
        if let Event::Reading {
            substate, expires, ..
        } = event
        {
            found = Some((*substate, *expires));
        }
    })?;
    Ok(found)
}

/// An orphan with a short timeout whose FIN arrives: its timer moves, it lives on.
fn rearms(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "2")?;
    let made = orphan(scene, &door);
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "60")?;
    let (_, server, birth) = made?;
    drop(server);
    let what = scene.until("a re-arm", |events| {
        events.iter().find_map(|event| match event {
            Event::Rearm {
                minisocket,
                substate,
                ..
            } if *minisocket == birth.minisocket => Some(Ok(*substate)),
            Event::End {
                minisocket, reason, ..
            } if *minisocket == birth.minisocket => Some(Err(*reason)),
            _ => None,
        })
    })?;
    match what {
        Ok(State::TimeWait) => Ok(Tried::Held),
        Ok(other) => bail!("a TIME_WAIT that was armed anew was seen in {other:?}"),
        Err(reason) => bail!("a re-arm was taken for an end by {reason:?}"),
    }
}

/// A request stays half-open as long as its listener waits for data.
fn half_open(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    set_tcp_option(&door, libc::TCP_DEFER_ACCEPT, 30)?;
    let to = door.local_addr()?;
    let mut client = scene.netns.run(|| TcpStream::connect(to))??;
    let counted = half_open_at(scene, to)?;
    ensure!(
        counted == 1,
        "one half-open request was counted as {counted}"
    );
    client.write_all(b"now")?;
    let _server = door.accept()?;
    let counted = half_open_at(scene, to)?;
    ensure!(
        counted == 0,
        "a listener whose only request was answered was seen with {counted}"
    );
    Ok(Tried::Held)
}

fn half_open_at(scene: &mut Scene, listener: SocketAddr) -> Result<u32> {
    let netns = scene.inode();
    let mut counted = None;
    scene.tracer.walk()?.listeners(Some(netns), |found| {
        let is_it = |socket: &&Found| socket.tuple.local_port == listener.port();
        if let Some(socket) = found.iter().find(is_it) {
            counted = socket.listener.map(|listener| listener.half_open);
        }
        Ok(())
    })?;
    counted.with_context(|| format!("the listener at {listener} was not found"))
}

fn refused(scene: &mut Scene) -> Result<Tried> {
    let to = scene.door(V4)?.local_addr()?;
    let refused = scene.netns.run(|| TcpStream::connect(to))?;
    ensure!(
        refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused),
        "a connect to a closed port was not refused"
    );
    let netns = scene.inode();
    let error = scene.until("a connect that is refused", |events| {
        events.iter().find_map(|event| match event {
            Event::Step(step)
                if step.from == State::SynSent
                    && step.to == State::Close
                    && step.tuple.is_some_and(|tuple| {
                        tuple.netns == netns && tuple.remote_port == to.port()
                    }) =>
            {
                Some(step.error)
            }
            _ => None,
        })
    })?;
    ensure!(
        i32::from(error) == libc::ECONNREFUSED,
        "a connect that was refused was seen with error {error}"
    );
    Ok(Tried::Held)
}

fn linger2(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let made = known(scene, &door)?;
    set_tcp_option(&made.client, libc::TCP_LINGER2, -1)?;
    let (local, remote) = (made.local, made.remote);
    drop(made.client);
    let (_, steps) = scene.story(local, remote, State::Close)?;
    ensure!(
        steps.last().is_some_and(|step| step.linger2_negative),
        "a socket with TCP_LINGER2 below 0 was seen without"
    );
    Ok(Tried::Held)
}

/// On an orphan, which need not take a minute.
fn expiry(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "1")?;
    let made = orphan(scene, &door);
    scene.netns.set_sysctl("ipv4.tcp_fin_timeout", "60")?;
    let (_, _server, birth) = made?;
    thread::sleep(Duration::from_millis(1200));
    expect_end(scene, birth, State::FinWait2, Reason::Expired)
}

/// With the ephemeral ports all in TIME_WAIT, connect() takes one that is old
/// enough.
fn reuse_by_connect(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let to = door.local_addr()?;
    scene.netns.set_sysctl("ipv4.tcp_tw_reuse", "1")?;
    let range = scene.netns.sysctl("ipv4.ip_local_port_range")?;
    // None that an earlier trial left in TIME_WAIT towards another port is in
    // the way: a port is free per destination.
    scene
        .netns
        .set_sysctl("ipv4.ip_local_port_range", "61000 61001")?;
    let tried = reuse_ephemeral(scene, &door, to);
    scene.netns.set_sysctl("ipv4.ip_local_port_range", &range)?;
    scene.netns.set_sysctl("ipv4.tcp_tw_reuse", "2")?;
    let births = tried?;
    let ended = scene.until("the end of a reused TIME_WAIT", |events| {
        let ends = events.iter().filter_map(|event| match event {
            Event::End {
                minisocket,
                reason,
                substate,
                ..
            } if births.iter().any(|birth| birth.minisocket == *minisocket) => {
                Some((*substate, *reason))
            }
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        (!ends.is_empty()).then_some(ends)
    })?;
    ensure!(
        ended == [(State::TimeWait, Reason::ReusedByConnect)],
        "one TIME_WAIT that connect() took over was seen to end as {ended:?}"
    );
    Ok(Tried::Held)
}

fn reuse_ephemeral(scene: &mut Scene, door: &TcpListener, to: SocketAddr) -> Result<Vec<Birth>> {
    let births = vec![time_wait(scene, door)?.2, time_wait(scene, door)?.2];
    let start = clock::now();
    loop {
        match scene.netns.run(|| TcpStream::connect(to))? {
            Ok(client) => {
                let server = door.accept()?.0;
                drop(server);
                drop(client);
                return Ok(births);
            }
            Err(error) if clock::now().since(start) > Duration::from_secs(5) => {
                return Err(error).context("no port was free to be reused");
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn reuse_of_a_bound_port(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    let door = scene.door(host)?;
    let to = door.local_addr()?;
    for state in [State::TimeWait, State::FinWait2] {
        let client = scene.connect_from(0, to)?;
        let local = client.local_addr()?;
        let server = door.accept()?.0;
        let held = match state {
            State::TimeWait => {
                client.shutdown(Shutdown::Write)?;
                drop(server);
                None
            }
            _ => Some(server),
        };
        drop(client);
        let birth = scene.birth(local, to)?;
        let again = scene.connect_from(local.port(), to);
        // A peer still open where the port is used again may answer by a reset.
        expect_end(scene, birth, state, Reason::ReusedByBoundConnect)?;
        drop((again, held));
    }
    Ok(Tried::Held)
}

/// The server closed first; the client's port connects again.
fn reuse_by_syn(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    let door = scene.door(host)?;
    let to = door.local_addr()?;
    let client = scene.connect_from(0, to)?;
    let local = client.local_addr()?;
    let server = door.accept()?.0;
    server.shutdown(Shutdown::Write)?;
    drop(client);
    drop(server);
    let birth = scene.birth(to, local)?;
    // The new SYN is later than the last by the kernel's clock of sequence numbers.
    thread::sleep(Duration::from_millis(20));
    let _again = scene.connect_from(local.port(), to)?;
    expect_end(scene, birth, State::TimeWait, Reason::Received)
}

fn data_after_close(scene: &mut Scene, host: IpAddr) -> Result<Tried> {
    let door = scene.door(host)?;
    let (_, mut server, birth) = orphan(scene, &door)?;
    server.write_all(b"too late")?;
    expect_end(scene, birth, State::FinWait2, Reason::Received)
}

/// RFC 1337: an RST with the next sequence number ends a TIME_WAIT.
fn reset(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let ear = scene.eavesdrop()?;
    let (local, remote, birth) = time_wait(scene, &door)?;
    let fin = ear.hear(|segment| {
        segment.from == remote && segment.to == local && segment.flags & FIN != 0
    })?;
    scene.forge(&Segment {
        from: remote,
        to: local,
        flags: RST,
        seq: fin.seq.wrapping_add(fin.length()),
        ack: 0,
        payload: Vec::new(),
    })?;
    expect_end(scene, birth, State::TimeWait, Reason::Reset)
}

fn destroyed(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let (local, remote, birth) = time_wait(scene, &door)?;
    let done = scene
        .netns
        .run(|| anyhow::Ok(Destroyer::new()?.destroy(local, remote)))??;
    match done {
        Ok(()) => expect_end(scene, birth, State::TimeWait, Reason::Destroyed),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::NotFound
            ) =>
        {
            Ok(Tried::Untried(format!(
                "this kernel destroys no sockets on request ({error})"
            )))
        }
        Err(error) => Err(error).context("cannot destroy a TIME_WAIT"),
    }
}

fn namespace_exit(scene: &mut Scene) -> Result<Tried> {
    let door = scene.door(V4)?;
    let (_, _, birth) = time_wait(scene, &door)?;
    drop(door);
    // Nothing else holds the old one.
    scene.netns = Netns::new()?;
    expect_end(scene, birth, State::TimeWait, Reason::NetnsExit)
}
