//! TCP by hand: a peer without a kernel socket, at the far side of a TUN link.
//!
//! It sends exactly the segments it is told to and answers nothing by itself,
//! which brings a kernel socket into any state and a minisocket to any end.
//! Checksums are right, sequence numbers are kept; nothing is retransmitted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link;
use super::netns::Netns;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// How long a segment that the kernel owes us may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(5);

const PROTOCOL_TCP: u8 = 6;

/// One TCP segment without options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub payload: Vec<u8>,
}

impl Segment {
    /// Sequence numbers it takes: its data, and one each for SYN and FIN.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags & SYN != 0)
            + u32::from(self.flags & FIN != 0)
    }

    /// As an IP packet. Both ends must be of one family.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(20 + self.payload.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([5 << 4, self.flags]);
        tcp.extend(u16::MAX.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.payload);
        let addresses = octets(self.from.ip())
            .into_iter()
            .chain(octets(self.to.ip()));
        let pseudo: Vec<u8> = addresses
            .chain([0, PROTOCOL_TCP])
            .chain((tcp.len() as u16).to_be_bytes())
            .collect();
        let sum = checksum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut packet = match self.from {
            SocketAddr::V4(_) => {
                let total = (20 + tcp.len()) as u16;
                let mut header = vec![0x45, 0];
                header.extend(total.to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
                header.extend(octets(self.from.ip()));
                header.extend(octets(self.to.ip()));
                let sum = checksum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            SocketAddr::V6(_) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((tcp.len() as u16).to_be_bytes());
                header.extend([PROTOCOL_TCP, 64]);
                header.extend(octets(self.from.ip()));
                header.extend(octets(self.to.ip()));
                header
            }
        };
        packet.extend(tcp);
        packet
    }

    /// `None` for a packet that is not TCP, or torn.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Segment> {
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
            4 if *packet.get(9)? == PROTOCOL_TCP => {
                let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
                let address = |at| {
                    Some(Ipv4Addr::from(
                        <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
                    ))
                };
                let header = usize::from(packet[0] & 15) * 4;
                (
                    address(12)?.into(),
                    address(16)?.into(),
                    packet.get(header..total)?,
                )
            }
            6 if *packet.get(6)? == PROTOCOL_TCP => {
                let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
                let address = |at| {
                    Some(Ipv6Addr::from(
                        <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
                    ))
                };
                (
                    address(8)?.into(),
                    address(24)?.into(),
                    packet.get(40..40 + length)?,
                )
            }
            _ => return None,
        };
        let port = |at| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let number = |at| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Segment {
            from: (from, port(0)?).into(),
            to: (to, port(2)?).into(),
            seq: number(4)?,
            ack: number(8)?,
            flags: *tcp.get(13)?,
            payload: tcp.get(header..)?.to_vec(),
        })
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The internet checksum over `parts`, each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |&b| u32::from(b)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A TUN link: the namespace's kernel at one side, us at the other.
#[derive(Debug)]
pub struct Wire {
    tun: File,
}

impl Wire {
    /// The kernel's addresses.
    pub const KERNEL4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
    pub const KERNEL6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1);
    /// Ours; so is every other address of 10.78.0.0/16 and fd78::/64.
    pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
    pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2);

    pub fn new(netns: &Netns) -> Result<Wire> {
        netns.run(|| {
            let tun = link::create_tun("tun0")?;
            link::bring_up("tun0")?;
            link::add_address("tun0", Wire::KERNEL4.into(), 16)?;
            link::add_address("tun0", Wire::KERNEL6.into(), 64)?;
            Ok(Wire { tun })
        })?
    }

    /// The kernel has taken it in when this returns.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        (&self.tun)
            .write_all(&segment.packet())
            .with_context(|| format!("cannot send {segment:?}"))
    }

    /// The next segment from the kernel that `wanted` accepts; others are
    /// dropped, as the peer they are for is silent.
    #[expect(
        clippy::disallowed_methods,
        reason = "a deadline for the kernel's answer"
    )]
    pub fn receive(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        let deadline = Instant::now() + PATIENCE;
        let mut dropped = Vec::new();
        let mut packet = [0; 2048];
        loop {
            match (&self.tun).read(&mut packet) {
                Ok(length) => match Segment::parse(&packet[..length]) {
                    Some(segment) if wanted(&segment) => return Ok(segment),
                    Some(segment) => dropped.push(segment),
                    None => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        bail!(
                            "the kernel did not send {what} within {PATIENCE:?}; it sent {dropped:#?}"
                        );
                    }
                    let timeout = Timespec::try_from(left).context("the deadline is too far")?;
                    poll(&mut [PollFd::new(&self.tun, PollFlags::IN)], Some(&timeout))?;
                }
                Err(error) => return Err(error).context("cannot read the TUN interface"),
            }
        }
    }
}

/// Our end of one connection.
#[derive(Debug)]
pub struct Peer<'w> {
    wire: &'w Wire,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The next sequence number we send, and the next we expect.
    pub seq: u32,
    pub ack: u32,
}

impl<'w> Peer<'w> {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(wire: &'w Wire, local: SocketAddr, remote: SocketAddr) -> Peer<'w> {
        Peer {
            wire,
            local,
            remote,
            seq: 1_000_000,
            ack: 0,
        }
    }

    /// Connects to a listener of the kernel's.
    pub fn connect(wire: &'w Wire, local: SocketAddr, remote: SocketAddr) -> Result<Peer<'w>> {
        let mut peer = Peer::new(wire, local, remote);
        peer.send(SYN)?;
        peer.expect(SYN | ACK)?;
        peer.send(ACK)?;
        Ok(peer)
    }

    /// Answers a `connect()` to `local` that a socket of the kernel's is making.
    pub fn accept(wire: &'w Wire, local: SocketAddr) -> Result<Peer<'w>> {
        let syn = wire.receive("a SYN", |s| s.to == local && s.flags & SYN != 0)?;
        let mut peer = Peer {
            ack: syn.seq.wrapping_add(1),
            ..Peer::new(wire, local, syn.from)
        };
        peer.send(SYN | ACK)?;
        peer.expect(ACK)?;
        Ok(peer)
    }

    /// Sends an empty segment, and counts its SYN or FIN.
    pub fn send(&mut self, flags: u8) -> Result<()> {
        self.send_data(flags, &[])
    }

    pub fn send_data(&mut self, flags: u8, payload: &[u8]) -> Result<()> {
        let segment = self.segment(flags, payload);
        self.seq = self.seq.wrapping_add(segment.length());
        self.wire.send(&segment)
    }

    /// Sends a segment that does not move our sequence number: one from the
    /// past, or from a future that does not come.
    pub fn send_at(&self, seq: u32, flags: u8, payload: &[u8]) -> Result<()> {
        self.wire.send(&Segment {
            seq,
            ..self.segment(flags, payload)
        })
    }

    /// Waits for a segment of this connection that has these flags, and will
    /// acknowledge it with whatever is sent next.
    pub fn expect(&mut self, flags: u8) -> Result<Segment> {
        let (local, remote) = (self.local, self.remote);
        let segment = self
            .wire
            .receive(&format!("a segment with flags {flags:#04x}"), |s| {
                s.from == remote && s.to == local && s.flags & flags == flags
            })?;
        self.ack = segment.seq.wrapping_add(segment.length());
        Ok(segment)
    }

    fn segment(&self, flags: u8, payload: &[u8]) -> Segment {
        let ack = if flags & ACK == 0 { 0 } else { self.ack };
        Segment {
            from: self.local,
            to: self.remote,
            flags,
            seq: self.seq,
            ack,
            payload: payload.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_parses_to_its_segment() {
        for (from, to) in [
            ("10.0.0.1:1", "10.0.0.2:65535"),
            ("[fd00::1]:80", "[fd00::2]:443"),
        ] {
            let segment = Segment {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                flags: SYN | ACK,
                seq: 0xfffe_fdfc,
                ack: 7,
                payload: b"odd".to_vec(),
            };
            assert_eq!(Segment::parse(&segment.packet()), Some(segment));
        }
    }

    #[test]
    fn a_torn_packet_is_no_segment() {
        let whole = Segment {
            from: "10.0.0.1:1".parse().unwrap(),
            to: "10.0.0.2:2".parse().unwrap(),
            flags: ACK,
            seq: 0,
            ack: 0,
            payload: vec![],
        }
        .packet();
        for length in 0..whole.len() {
            assert_eq!(
                Segment::parse(&whole[..length]),
                None,
                "cut to {length} bytes"
            );
        }
    }

    /// The worked example of RFC 1071, section 3.
    #[test]
    fn the_checksum_is_rfc_1071s() {
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
    }
}
