//! A private network namespace with the kernel side watching, and the two ends
//! of connections in it.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv,
    sendto, socket_with, sockopt,
};

use crate::kernel::clock;
use crate::kernel::netns::{Namespace, Way, cookie};
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::{Tracer, Wanted};
use crate::lab::netns::Netns;
use crate::lab::option::set_option;
use crate::lab::segments::Segment;
use crate::model::event::{Arming, Event, Identity, Reason, State, Step, Tuple};
use crate::model::event::{Family, Netns as Inode};
use crate::model::filter::Filter;

/// For what the kernel owes us on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Once something has failed, more will: what holds shows at once.
const IMPATIENCE: Duration = Duration::from_millis(300);

const RING_BYTES: u32 = 1 << 20;

pub(super) struct Scene {
    pub(super) netns: Netns,
    pub(super) tracer: Tracer,
    pub(super) hz: u32,
    /// Of the namespace it began with.
    inode: Inode,
    seen: Vec<Event>,
    patience: Duration,
}

/// A minisocket's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) minisocket: Identity,
    pub(super) substate: State,
    pub(super) arming: Arming,
    pub(super) netns: Inode,
}

impl Scene {
    pub(super) fn new(facts: &Facts) -> Result<Scene> {
        let netns = Netns::new()?;
        let tracer = Tracer::load(facts, &Scene::wanted(&netns)?)?;
        Scene::of(netns, tracer, facts)
    }

    /// What is to be seen there.
    pub(super) fn wanted(netns: &Netns) -> Result<Wanted> {
        Ok(Wanted {
            // The machine may be busy: its own sockets must not fill the ring.
            only: Some(Namespace {
                cookie: netns.run(cookie)?,
                ..namespace(netns)
            }),
            filter: Filter::default(),
            ring_bytes: RING_BYTES,
            tell_all: true,
            ..Wanted::default()
        })
    }

    /// With a tracer of what is wanted there.
    pub(super) fn of(netns: Netns, mut tracer: Tracer, facts: &Facts) -> Result<Scene> {
        tracer.attach()?;
        Ok(Scene {
            inode: Inode(netns.inode()),
            netns,
            tracer,
            hz: facts.hz,
            seen: Vec::new(),
            patience: PATIENCE,
        })
    }

    pub(super) fn be_impatient(&mut self) {
        self.be_patient(IMPATIENCE);
    }

    /// Of the waits from here on.
    pub(super) fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// What was seen so far is of no further interest.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.tracer.drain(|_| ())?;
        self.seen.clear();
        Ok(())
    }

    /// What the kernel side could not emit, by what it says.
    pub(super) fn mishaps(&mut self) -> u64 {
        let lost = self.tracer.lost();
        lost.map_or(0, |lost| lost.ring + lost.recursion)
    }

    pub(super) fn inode(&self) -> Inode {
        self.inode
    }

    /// As the tracer knows namespaces.
    pub(super) fn namespace(&self) -> Namespace {
        namespace(&self.netns)
    }

    /// Waits until the events so far, of its own namespace, satisfy `look`.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        look: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T> {
        let start = clock::now();
        loop {
            let (seen, own) = (&mut self.seen, self.inode);
            self.tracer.drain(|event| {
                if namespace_of(event).is_none_or(|netns| netns == own) {
                    seen.push(event.clone());
                }
            })?;
            if let Some(found) = look(&self.seen) {
                return Ok(found);
            }
            ensure!(
                clock::now().since(start) < self.patience,
                "{what} was not seen"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The full socket between these two ends, and its steps so far, once `last`
    /// is among them.
    pub(super) fn story(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        last: State,
    ) -> Result<(Identity, Vec<Step>)> {
        let netns = self.inode();
        self.until(
            &format!("a socket from {local} to {remote} that gets to {last:?}"),
            |events| {
                let socket = steps(events)
                    .filter(|step| is_between(step.tuple, netns, local, remote))
                    .map(|step| step.socket)
                    .last()?;
                // A child's first step has its address alone.
                let is_its = |step: &Step| match step.socket.cookie {
                    0 => step.socket.address == socket.address,
                    cookie => cookie == socket.cookie,
                };
                let mut story: Vec<Step> = steps(events).filter(is_its).collect();
                // The address may have been another child's before.
                let begin = story
                    .iter()
                    .rposition(|s| matches!(s.from, State::Close | State::Listen))?;
                story.drain(..begin);
                let end = story.iter().position(|step| step.to == last)?;
                story.truncate(end + 1);
                Some((socket, story))
            },
        )
    }

    /// The birth of the minisocket that goes on for the socket between these ends.
    pub(super) fn birth(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Birth> {
        let netns = self.inode();
        self.until(
            &format!("the birth of a minisocket from {local} to {remote}"),
            |events| {
                events.iter().rev().find_map(|event| match *event {
                    Event::Birth {
                        minisocket,
                        substate,
                        netns: inode,
                        arming,
                        tuple,
                        ..
                    } if is_between(tuple, netns, local, remote) => Some(Birth {
                        minisocket,
                        substate,
                        arming,
                        netns: inode,
                    }),
                    _ => None,
                })
            },
        )
    }

    /// For how many seconds it was armed. 2MSL is no constant of ours, but it is
    /// seconds to minutes.
    pub(super) fn armed_for(&self, arming: Arming) -> Result<f64> {
        let seconds = f64::from(arming.timeout) / f64::from(self.hz);
        ensure!(
            (1.0..=600.0).contains(&seconds),
            "a TIME_WAIT was seen to be armed for {seconds} s"
        );
        Ok(seconds)
    }

    /// How a minisocket ended.
    pub(super) fn end(&mut self, birth: Birth) -> Result<(State, Reason)> {
        self.until(
            &format!("the end of the minisocket {:x?}", birth.minisocket),
            |events| {
                events.iter().find_map(|event| match event {
                    Event::End {
                        minisocket,
                        substate,
                        reason,
                        ..
                    } if *minisocket == birth.minisocket => Some((*substate, *reason)),
                    _ => None,
                })
            },
        )
    }

    pub(super) fn door(&self, host: IpAddr) -> Result<TcpListener> {
        self.netns
            .run(|| TcpListener::bind((host, 0)))?
            .with_context(|| format!("cannot listen on {host}"))
    }

    /// Both ends of a new connection: connecting and accepted.
    pub(super) fn pair(&self, door: &TcpListener) -> Result<(TcpStream, TcpStream)> {
        let to = door.local_addr()?;
        let client = self
            .netns
            .run(|| TcpStream::connect(to))?
            .with_context(|| format!("cannot connect to {to}"))?;
        Ok((client, door.accept().context("cannot accept")?.0))
    }

    /// A connection from a port of the caller's choice; 0 is any. It is asked for
    /// and not waited for: a peer that has yet to learn of it may take a second.
    pub(super) fn connect_from(&self, port: u16, to: SocketAddr) -> Result<TcpStream> {
        self.netns.run(|| {
            let (family, from) = match to {
                SocketAddr::V4(_) => (AddressFamily::INET, ([127, 0, 0, 1], port).into()),
                SocketAddr::V6(to) => (
                    AddressFamily::INET6,
                    SocketAddr::new((*to.ip()).into(), port),
                ),
            };
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &from).with_context(|| format!("cannot bind {from}"))?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            match connect(&socket, &to) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
                Err(error) => Err(error).with_context(|| format!("cannot connect {from} to {to}")),
            }
        })?
    }

    /// Every IPv4 segment that is delivered in the namespace from here on.
    pub(super) fn eavesdrop(&self) -> Result<Eavesdropper> {
        let socket = self
            .netns
            .run(|| {
                socket_with(
                    AddressFamily::INET,
                    SocketType::RAW,
                    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                    Some(ipproto::TCP),
                )
            })?
            .context("cannot open a raw socket")?;
        Ok(Eavesdropper { socket })
    }

    /// Puts a segment on the loopback, as if its sender had sent it.
    pub(super) fn forge(&self, segment: &Segment) -> Result<()> {
        let SocketAddr::V4(to) = segment.to else {
            bail!("only IPv4 segments can be forged");
        };
        self.netns.run(|| {
            let socket = socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(ipproto::RAW),
            )
            .context("cannot open a raw socket")?;
            let at = SocketAddrV4::new(*to.ip(), 0);
            sendto(&socket, &segment.packet(), SendFlags::empty(), &at)
                .with_context(|| format!("cannot send {segment:?}"))?;
            anyhow::Ok(())
        })?
    }
}

pub(super) struct Eavesdropper {
    socket: std::os::fd::OwnedFd,
}

impl Eavesdropper {
    /// The next segment that `wanted` accepts.
    pub(super) fn hear(&self, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        let start = clock::now();
        let mut packet = [0; 2048];
        loop {
            match recv(&self.socket, &mut packet, RecvFlags::empty()) {
                Ok((length, _)) => {
                    if let Some(segment) = Segment::parse(&packet[..length])
                        && wanted(&segment)
                    {
                        return Ok(segment);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    ensure!(
                        clock::now().since(start) < PATIENCE,
                        "a segment on the loopback was not heard"
                    );
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

fn namespace_of(event: &Event) -> Option<Inode> {
    match event {
        Event::Step(step) => step.tuple.map(|tuple| tuple.netns),
        Event::Birth { netns, .. } | Event::End { netns, .. } => Some(*netns),
        Event::Rearm { netns, .. } => Some(*netns),
        _ => None,
    }
}

pub(super) fn steps(events: &[Event]) -> impl Iterator<Item = Step> {
    events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(*step),
        _ => None,
    })
}

/// Whether all of a tuple is as it has to be.
pub(super) fn is_between(
    tuple: Option<Tuple>,
    netns: Inode,
    local: SocketAddr,
    remote: SocketAddr,
) -> bool {
    let family = if local.is_ipv4() {
        Family::Inet
    } else {
        Family::Inet6
    };
    tuple.is_some_and(|tuple| {
        tuple.netns == netns
            && tuple.family == family
            && SocketAddr::new(tuple.local_addr(), tuple.local_port) == local
            && SocketAddr::new(tuple.remote_addr(), tuple.remote_port) == remote
    })
}

fn namespace(netns: &Netns) -> Namespace {
    Namespace {
        inode: netns.inode(),
        way: Way::Link(netns.path()),
        name: None,
        // While it is held its inode is nobody else's.
        cookie: None,
    }
}

pub(super) fn set_tcp_option(
    socket: &impl AsRawFd,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<()> {
    set_option(socket, libc::IPPROTO_TCP, option, value)
}
