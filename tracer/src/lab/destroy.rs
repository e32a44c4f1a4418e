//! Destroys one socket or minisocket, as `ss -K` does: SOCK_DESTROY of
//! `sock_diag(7)`, by its addresses, in the namespace of the calling thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// A connection to the kernel's socket monitor.
#[derive(Debug)]
pub struct Destroyer {
    socket: OwnedFd,
}

impl Destroyer {
    pub fn new() -> Result<Destroyer> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .context("cannot open a sock_diag socket")?;
        Ok(Destroyer { socket })
    }

    /// `ErrorKind::NotFound` if there is none with these addresses,
    /// `ErrorKind::Unsupported` on a kernel without CONFIG_INET_DIAG_DESTROY.
    pub fn destroy(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
        sendto(
            &self.socket,
            &request(local, remote),
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 256];
        let (length, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        // A `struct nlmsghdr` of type NLMSG_ERROR, then the negated error.
        let errno = answer[..length]
            .get(16..20)
            .and_then(|bytes| bytes.try_into().ok());
        match errno.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's answer is too short",
            )),
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    const SOCK_DESTROY: u16 = 21;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const LENGTH: u32 = 16 + 56;
    let family = if local.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family.as_raw() as u8, 6, 0, 0]);
    // Every state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        match address {
            IpAddr::V4(v4) => {
                bytes.extend(v4.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0; 4]);
    // INET_DIAG_NOCOOKIE: the addresses say which.
    bytes.extend([0xff; 8]);
    bytes
}
