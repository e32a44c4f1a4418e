//! A few connections from their beginning to the end of what is left of them: all
//! that every figure rests on, within some 40 ms. First they are made, whatever is
//! seen of them, so that none of them remains for a tracer that starts right after;
//! then what was seen is compared with what was made.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::scene::{Scene, is_between, set_tcp_option, steps};
use crate::kernel::clock;
use crate::lab::link;
use crate::lab::netns::{Netns, own_number};
use crate::model::event::{Arming, Event, Identity, Moment, Reason, State, Step};

/// Where nothing waits, once [`prepare`] has seen to it.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 66, 0, 1));

/// For the other end of a connection over loopback: where segments are dropped
/// nobody waits for them.
const ANSWER: Duration = Duration::from_secs(1);

/// One end of a connection, as whoever made it knows it.
#[derive(Clone, Copy)]
struct Known {
    local: SocketAddr,
    remote: SocketAddr,
    cookie: u64,
}

impl Known {
    fn of(socket: &TcpStream) -> io::Result<Known> {
        Ok(Known {
            local: socket.local_addr()?,
            remote: socket.peer_addr()?,
            cookie: sockopt::socket_cookie(socket)?,
        })
    }
}

/// What was made, and has to be seen.
pub(super) struct Made {
    since: Moment,
    /// It closed first, and its peer after it: a TIME_WAIT.
    client: Known,
    server: Known,
    /// From the client's port, which ends the TIME_WAIT; aborted.
    again: Known,
    /// Its peer stays open: it waits in FIN_WAIT2 until its time is over.
    orphan: Known,
    /// Refused, one of each family there is.
    refused: Vec<Known>,
    _peer: TcpStream,
}

/// Has an orphan wait for a few ticks rather than a minute. Whether that could be
/// had: to some containers sysctls are read-only.
pub(super) fn prepare(netns: &Netns) -> Result<bool> {
    netns.run(|| link::hurry(Ipv4Addr::new(127, 66, 0, 0)))??;
    Ok(netns.set_sysctl("ipv4.tcp_fin_timeout", "0").is_ok())
}

pub(super) fn make(netns: &Netns) -> Result<Made> {
    netns.run(|| {
        let since = clock::now();
        let door =
            TcpListener::bind((HOST, 0)).with_context(|| format!("cannot listen on {HOST}"))?;
        sockopt::set_socket_timeout(&door, Timeout::Recv, Some(ANSWER))?;
        let to = door.local_addr()?;

        let (socket, peer) = pair(&door, (HOST, 0).into())?;
        let orphan = Known::of(&socket)?;
        drop(socket);
        // So that a reset is all that is left of it.
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO))?;

        let (mut near, mut far) = pair(&door, (HOST, 0).into())?;
        let (client, server) = (Known::of(&near)?, Known::of(&far)?);
        near.shutdown(Shutdown::Write)?;
        until_the_end(&mut far)?;
        drop(far);
        until_the_end(&mut near)?;
        drop(near);

        let (near, mut far) = pair(&door, client.local)?;
        let again = Known::of(&near)?;
        sockopt::set_socket_linger(&near, Some(Duration::ZERO))?;
        drop(near);
        until_the_end(&mut far)?;
        drop((far, door));

        let mut refused = vec![refused(to)?];
        // Where there is no IPv6, or no address of it, there is nothing to be seen.
        if let Ok(door) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            let to = door.local_addr()?;
            drop(door);
            refused.push(self::refused(to)?);
        }
        Ok(Made {
            since,
            client,
            server,
            again,
            orphan,
            refused,
            _peer: peer,
        })
    })?
}

/// A socket on `from`, which gives up within a second.
fn socket_on(from: SocketAddr) -> Result<TcpStream> {
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    for timeout in [Timeout::Send, Timeout::Recv] {
        sockopt::set_socket_timeout(&socket, timeout, Some(ANSWER))?;
    }
    bind(&socket, &from).with_context(|| format!("cannot bind {from}"))?;
    Ok(TcpStream::from(socket))
}

/// Both ends of a new connection: connecting and accepted.
fn pair(door: &TcpListener, from: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let to = door.local_addr()?;
    let client = socket_on(from)?;
    connect(&client, &to).with_context(|| format!("cannot connect {from} to {to}"))?;
    let server = door.accept().context("cannot accept")?.0;
    sockopt::set_socket_timeout(&server, Timeout::Recv, Some(ANSWER))?;
    Ok((client, server))
}

/// A connect that is refused, of a socket that would not wait in FIN_WAIT2.
fn refused(to: SocketAddr) -> Result<Known> {
    // From the port that it connects to a socket would be connected to itself.
    let mut socket = socket_on((to.ip(), 0).into())?;
    while socket.local_addr()?.port() == to.port() {
        socket = socket_on((to.ip(), 0).into())?;
    }
    set_tcp_option(&socket, libc::TCP_LINGER2, -1)?;
    let known = Known {
        local: socket.local_addr()?,
        remote: to,
        cookie: sockopt::socket_cookie(&socket)?,
    };
    let refused = connect(&socket, &to);
    ensure!(
        refused == Err(rustix::io::Errno::CONNREFUSED),
        "a connect from {} to the closed port {to} gave {refused:?}",
        known.local
    );
    Ok(known)
}

/// Waits for a FIN or a reset.
fn until_the_end(socket: &mut TcpStream) -> Result<()> {
    match socket.read(&mut [0]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error).context("a peer did not close"),
    }
}

/// Compares what was seen with what was made.
pub(super) fn judge(scene: &mut Scene, made: &Made, expires: bool) -> Result<()> {
    use State::{
        Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent, TimeWait,
    };
    // Births first: where they are not seen, steps are seen that say nothing new.
    let (waiting, armed) = born(scene, made, &made.client, TimeWait)?;
    scene.armed_for(armed)?;
    let (orphan, short) = born(scene, made, &made.orphan, FinWait2)?;

    let me = own_number();
    let opened = [(Close, SynSent), (SynSent, Established)];
    let closed = [(Established, FinWait1), (FinWait1, FinWait2)];
    let steps = stepped(scene, made, &made.client, &[opened, closed].concat())?;
    ensure!(
        steps[0].pid == me,
        "a connect of process {me} was seen as one of {}",
        steps[0].pid
    );
    // The accepted one is known by its cookie from its second step on.
    let steps = stepped(
        scene,
        made,
        &made.server,
        &[
            (SynRecv, Established),
            (Established, CloseWait),
            (CloseWait, LastAck),
            (LastAck, Close),
        ],
    )?;
    accepted(scene, steps[0].socket)?;
    ended(&steps, 0, false)?;
    let steps = stepped(
        scene,
        made,
        &made.again,
        &[opened[0], opened[1], (Established, Close)],
    )?;
    ended(&steps, steps[2].error, false)?;
    for refused in &made.refused {
        let steps = stepped(scene, made, refused, &[(Close, SynSent), (SynSent, Close)])?;
        ended(&steps, libc::ECONNREFUSED as u16, true)?;
    }

    let (end, reason, pid) = died(scene, waiting, TimeWait, armed.expires)?;
    ensure!(
        // Where this kernel's code is not all known the reason is not either.
        matches!(reason, Reason::ReusedByBoundConnect | Reason::Unknown) && pid == me,
        "a TIME_WAIT whose port process {me} used again was seen to end by {reason:?} in {pid}"
    );
    during(made, end)?;

    if !expires {
        return Ok(());
    }
    let ticks = Duration::from_secs(1) / scene.hz;
    let (lives, patience) = (ticks * short.timeout, scene.patience());
    ensure!(
        lives < ANSWER,
        "an orphan that waits for some ticks was seen to be armed for {lives:?}"
    );
    scene.be_patient(patience + lives);
    let died = died(scene, orphan, FinWait2, short.expires);
    scene.be_patient(patience);
    let (end, reason, _) = died?;
    ensure!(
        reason == Reason::Expired && end.since(made.since) + ticks > lives,
        "an orphan whose time of {lives:?} was over was seen to end by {reason:?}"
    );
    during(made, end)
}

/// The steps of a socket, which have to be these.
fn stepped(
    scene: &mut Scene,
    made: &Made,
    socket: &Known,
    expected: &[(State, State)],
) -> Result<Vec<Step>> {
    let Known {
        local,
        remote,
        cookie,
    } = *socket;
    let last = expected[expected.len() - 1].1;
    let story = scene.until(
        &format!("a socket from {local} to {remote} that gets to {last:?}"),
        |events| {
            let story: Vec<Step> = steps(events)
                .filter(|step| step.socket.cookie == cookie)
                .collect();
            story.iter().any(|step| step.to == last).then_some(story)
        },
    )?;
    let seen: Vec<_> = story.iter().map(|step| (step.from, step.to)).collect();
    ensure!(
        seen == expected,
        "a socket that took the steps {expected:?} was seen to take {seen:?}"
    );
    for step in &story {
        ensure!(
            // At the first its port may have to be chosen yet.
            step.from == State::Close || is_between(step.tuple, scene.inode(), local, remote),
            "a socket from {local} to {remote} was seen as {:?}",
            step.tuple
        );
        during(made, step.at)?;
    }
    Ok(story)
}

/// The first step of a listener's child has its address alone.
fn accepted(scene: &mut Scene, socket: Identity) -> Result<()> {
    let netns = scene.inode();
    scene.until("the child of a listener", |events| {
        let is_it = |step: &Step| {
            (step.from, step.to) == (State::Listen, State::SynRecv)
                && step.socket.address == socket.address
                && step.tuple.is_some_and(|tuple| tuple.netns == netns)
        };
        steps(events).any(|step| is_it(&step)).then_some(())
    })
}

/// What its last step says of a socket.
fn ended(steps: &[Step], error: u16, linger2_negative: bool) -> Result<()> {
    let last = steps.last().context("it has steps")?;
    ensure!(
        last.error == error && last.linger2_negative == linger2_negative,
        "a socket that ended with error {error} and linger2 negative: {linger2_negative} was \
         seen with {} and {}",
        last.error,
        last.linger2_negative
    );
    Ok(())
}

/// The minisocket that goes on for a socket.
fn born(
    scene: &mut Scene,
    made: &Made,
    socket: &Known,
    expected: State,
) -> Result<(Identity, Arming)> {
    let Known {
        local,
        remote,
        cookie,
    } = *socket;
    let (birth, at, substate, netns, arming, tuple) = scene.until(
        &format!("the birth of a minisocket from {local} to {remote}"),
        |events| {
            events.iter().find_map(|event| match *event {
                Event::Birth {
                    minisocket,
                    at,
                    substate,
                    netns,
                    arming,
                    tuple,
                } if minisocket.cookie == cookie => {
                    Some((minisocket, at, substate, netns, arming, tuple))
                }
                _ => None,
            })
        },
    )?;
    ensure!(
        substate == expected
            && netns == scene.inode()
            && is_between(tuple, scene.inode(), local, remote),
        "a minisocket in {expected:?} from {local} to {remote} in the namespace {} was seen in \
         {substate:?} as {tuple:?} in {}",
        scene.inode().0,
        netns.0
    );
    during(made, at)?;
    Ok((birth, arming))
}

/// When and why a minisocket ended, and in which process.
fn died(
    scene: &mut Scene,
    birth: Identity,
    expected: State,
    armed: u32,
) -> Result<(Moment, Reason, u32)> {
    let (at, substate, expires, netns, reason, pid) = scene.until(
        &format!("the end of a minisocket in {expected:?}"),
        |events| {
            events.iter().find_map(|event| match *event {
                Event::End {
                    minisocket,
                    at,
                    substate,
                    reason,
                    expires,
                    netns,
                    pid,
                } if minisocket == birth => Some((at, substate, expires, netns, reason, pid)),
                _ => None,
            })
        },
    )?;
    ensure!(
        substate == expected && expires == armed && netns == scene.inode(),
        "a minisocket in {expected:?} that expires at {armed} in the namespace {} was seen to end \
         in {substate:?}, expiring at {expires}, in {}",
        scene.inode().0,
        netns.0
    );
    Ok((at, reason, pid))
}

/// It must have happened since the making began.
fn during(made: &Made, at: Moment) -> Result<()> {
    let now = clock::now();
    ensure!(
        (made.since..=now).contains(&at),
        "what happened between {:?} and {now:?} was seen at {at:?}",
        made.since
    );
    Ok(())
}
