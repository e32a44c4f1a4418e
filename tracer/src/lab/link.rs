//! Links and addresses, asked for over rtnetlink in the namespace of the calling
//! thread: loopback up, a veth pair between two namespaces, a TUN interface.
//!
//! One request and its acknowledgement at a time; nothing is listed or watched.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily as Family, RouteNetlinkMessage};
use rustix::mount::{MountFlags, mount};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::mounts;
use super::netns::Netns;

/// Two namespaces joined by a veth pair. RPS is off until asked for.
#[derive(Debug)]
pub struct Pair {
    pub near: Netns,
    pub far: Netns,
}

impl Pair {
    /// The interface's name at both ends.
    pub const INTERFACE: &'static str = "veth0";
    pub const NEAR: [&'static str; 2] = ["10.77.0.1", "fd77::1"];
    pub const FAR: [&'static str; 2] = ["10.77.0.2", "fd77::2"];

    pub fn new() -> Result<Pair> {
        let pair = Pair {
            near: Netns::new()?,
            far: Netns::new()?,
        };
        pair.near
            .run(|| create_veth(Pair::INTERFACE, Pair::INTERFACE, &pair.far))??;
        for (end, addresses) in [(&pair.near, Pair::NEAR), (&pair.far, Pair::FAR)] {
            end.run(|| {
                bring_up(Pair::INTERFACE)?;
                add_address(Pair::INTERFACE, addresses[0].parse()?, 24)?;
                add_address(Pair::INTERFACE, addresses[1].parse()?, 64)
            })??;
        }
        Ok(pair)
    }
}

/// Sets `IFF_UP`.
pub fn bring_up(interface: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(message), 0)
        .with_context(|| format!("cannot bring {interface} up"))
}

/// A veth pair, one end here and one in `peer_netns`.
pub fn create_veth(name: &str, peer_name: &str, peer_netns: &Netns) -> Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(peer_name.to_owned()),
        LinkAttribute::NetNsFd(peer_netns.as_fd().as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("cannot make the veth pair {name}; is the veth module there?"))
}

/// Usable when this returns: IPv6's duplicate address detection is skipped.
pub fn add_address(interface: &str, address: IpAddr, prefix: u8) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.index = index(interface)?;
    message.header.prefix_len = prefix;
    message.header.family = if address.is_ipv4() {
        Family::Inet
    } else {
        Family::Inet6
    };
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
    ];
    if address.is_ipv6() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("cannot add {address}/{prefix} to {interface}"))?;
    match address {
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(address) => wait_for_local_route(address),
    }
}

/// Between addresses of this /16 of loopback nothing waits: each segment is
/// acknowledged at once, and retransmission timeouts are as short as a tick allows.
pub fn hurry(network: Ipv4Addr) -> Result<()> {
    /// `RT_TABLE_LOCAL`.
    const LOCAL: u8 = 255;
    /// Of `RTAX_RTO_MIN`, which counts only where it is locked.
    const RTO_MIN: u32 = 1 << 13;
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: Family::Inet,
        destination_prefix_length: 16,
        table: LOCAL,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(network.into()),
        RouteAttribute::Oif(index("lo")?),
        RouteAttribute::Metrics(vec![
            RouteMetric::Lock(RTO_MIN),
            RouteMetric::RtoMin(1),
            RouteMetric::QuickAck(1),
        ]),
    ];
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("cannot add a route to {network}/16"))
}

/// The kernel adds an IPv6 address at once and its local route from a work
/// queue; segments that come in between are dropped.
#[expect(
    clippy::disallowed_methods,
    reason = "a deadline for the kernel's work queue"
)]
fn wait_for_local_route(address: Ipv6Addr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let path = "/proc/thread-self/net/ipv6_route";
    // Destination in hexadecimal, prefix length, and the device it leads to.
    let destination = format!("{:032x} 80 ", u128::from(address));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        if routes.lines().any(|route| route.starts_with(&destination)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{address} has no local route after {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// A TUN interface whose packets, bare IP, are read from and written to the
/// descriptor: the far side of the link is the caller. It vanishes with it.
pub fn create_tun(name: &str) -> Result<File> {
    const IFF_TUN: u16 = 0x0001;
    const IFF_NO_PI: u16 = 0x1000;
    /// `struct ifreq` as TUNSETIFF reads it.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);

    let file = open_tun()?;
    let mut asked = Request {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    asked.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads one `struct ifreq` (40 bytes), which `Request` is,
    // despite the size its opcode claims.
    unsafe {
        rustix::ioctl::ioctl(
            &file,
            rustix::ioctl::Setter::<TUNSETIFF, Request>::new(asked),
        )
    }
    .with_context(|| format!("cannot make the TUN interface {name}"))?;
    rustix::io::ioctl_fionbio(&file, true).context("cannot make the TUN interface non-blocking")?;
    Ok(file)
}

/// A bare root has no node for it: there the kernel's own `/dev` is mounted for as
/// long as it takes to open it, where nobody else sees it.
fn open_tun() -> Result<File> {
    const DEVICE: &str = "/dev/net/tun";
    let open = || OpenOptions::new().read(true).write(true).open(DEVICE);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => mounts::privately(|| {
            mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None)?;
            Ok(open()?)
        }),
        opened => opened.map_err(Into::into),
    }
    .with_context(|| format!("cannot open {DEVICE}; is the tun module there?"))
}

fn index(interface: &str) -> Result<u32> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("cannot open a socket")?;
    rustix::net::netdevice::name_to_index(&socket, interface)
        .with_context(|| format!("no interface {interface} in this namespace"))
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = route_socket()?;
    sendto(
        &socket,
        &bytes,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 8192];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Error(_) => Ok(()),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the kernel answered a request with {other:?}"),
        )),
    }
}

fn route_socket() -> io::Result<OwnedFd> {
    // No protocol number is NETLINK_ROUTE: it is 0.
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
