//! What the port arithmetic needs of a namespace, read from its `struct net`.

use std::time::Duration;

use anyhow::Result;

use super::layout::{Net, Place};
use super::{NetnsFacts, Walk};
use crate::kernel::sysctl::TW_REUSE_DELAY;
use crate::model::event::NamespaceFacts;
use crate::model::ports::PortSet;

impl Walk<'_> {
    /// As [`crate::kernel::sysctl`] reads it inside the namespace, without its
    /// name; `None` for one that has ended.
    pub fn facts(&mut self, namespace: &NetnsFacts) -> Result<Option<NamespaceFacts>> {
        let net = self.layout.net;
        let Some(bytes) = self.memory(namespace.address.0, net.bytes)? else {
            return Ok(None);
        };
        let memory = Memory(&bytes);
        let cookie = net.cookie.map_or(0, |at| memory.number((at, 8)));
        if memory.number((net.inode, 4)) != u64::from(namespace.netns.0)
            || cookie != namespace.cookie
        {
            return Ok(None);
        }
        let max_tw_buckets = match net.death_row {
            None => memory.number(net.max_tw_buckets),
            Some(at) => {
                let (offset, width) = net.max_tw_buckets;
                let address = memory.number((at, 8)).wrapping_add(u64::from(offset));
                let Some(bytes) = self.memory(address, width)? else {
                    return Ok(None);
                };
                Memory(&bytes).number((0, width))
            }
        };
        let ports = port_range(&memory, &net);
        let reserved_ports = match net.reserved_ports {
            None => 0,
            Some(at) => {
                let Some(bitmap) = self.memory(memory.number((at, 8)), PORT_BITS)? else {
                    return Ok(None);
                };
                reserved_within(&bitmap, ports)
            }
        };
        Ok(Some(NamespaceFacts {
            name: None,
            ports,
            reserved_ports,
            max_tw_buckets,
            tw_reuse: memory.number(net.tw_reuse) as u8,
            tw_reuse_delay: net.tw_reuse_delay.map_or(TW_REUSE_DELAY, |place| {
                Duration::from_millis(memory.number(place))
            }),
            timestamps: memory.number(net.timestamps) != 0,
        }))
    }

    /// Its `ip_local_reserved_ports`; `None` where they cannot be read.
    pub fn reserved(&mut self, namespace: &NetnsFacts) -> Result<Option<PortSet>> {
        let Some(at) = self.layout.net.reserved_ports else {
            return Ok(None);
        };
        let place = namespace.address.0.wrapping_add(u64::from(at));
        let Some(address) = self.memory(place, 8)? else {
            return Ok(None);
        };
        let bitmap = self.memory(Memory(&address).number((0, 8)), PORT_BITS)?;
        Ok(bitmap.map(|bitmap| {
            let mut ports = PortSet::default();
            for port in (0..=u16::MAX).filter(|&port| is_reserved(&bitmap, port)) {
                ports.add(port);
            }
            ports
        }))
    }

    /// Kernel memory; `None` where it cannot be read.
    fn memory(&mut self, address: u64, bytes: u32) -> Result<Option<Vec<u8>>> {
        if !self.copied(address, u64::from(bytes))? {
            return Ok(None);
        }
        let words = &self.maps.buffer.get(1)[0].words[..bytes.div_ceil(8) as usize];
        let mut copy: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        copy.truncate(bytes as usize);
        Ok(Some(copy))
    }
}

/// Bytes of a bitmap of all ports.
const PORT_BITS: u32 = 65_536 / 8;

struct Memory<'m>(&'m [u8]);

impl Memory<'_> {
    /// Little-endian, as are all kernels that the object is for.
    fn number(&self, (offset, width): Place) -> u64 {
        let bytes = self.0.iter().skip(offset as usize).take(width as usize);
        bytes
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

fn port_range(memory: &Memory<'_>, net: &Net) -> (u16, u16) {
    let (at, width) = net.port_range;
    let half = width / 2;
    let end = |at| memory.number((at, half)) as u16;
    (end(at), end(at + half))
}

fn reserved_within(bitmap: &[u8], (low, high): (u16, u16)) -> u32 {
    let within = (low..=high).filter(|&port| is_reserved(bitmap, port));
    within.count() as u32
}

fn is_reserved(bitmap: &[u8], port: u16) -> bool {
    let byte = bitmap.get(usize::from(port) / 8);
    byte.is_some_and(|byte| byte >> (port % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers_or_the_halves_of_one() {
        let net = |width| Net {
            port_range: (8, width),
            ..Net::default()
        };
        let mut two = [0; 16];
        two[8..12].copy_from_slice(&32_768_u32.to_le_bytes());
        two[12..].copy_from_slice(&60_999_u32.to_le_bytes());
        assert_eq!(port_range(&Memory(&two), &net(8)), (32_768, 60_999));
        let mut one = [0; 16];
        one[8..12].copy_from_slice(&(60_999_u32 << 16 | 32_768).to_le_bytes());
        assert_eq!(port_range(&Memory(&one), &net(4)), (32_768, 60_999));
    }

    #[test]
    fn reserved_ports_outside_of_the_range_do_not_count() {
        let mut bitmap = vec![0_u8; PORT_BITS as usize];
        for port in [0_u16, 8_080, 40_000, 40_001, 65_535] {
            bitmap[usize::from(port) / 8] |= 1 << (port % 8);
        }
        assert_eq!(reserved_within(&bitmap, (32_768, 60_999)), 2);
        assert_eq!(reserved_within(&bitmap, (0, 65_535)), 5);
    }
}
