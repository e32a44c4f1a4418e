//! A bound port: an `inet_bind_bucket`.

use tracer_common::walk::{Cursor, SocketRecord, bound};

use super::{ON, begin_again, walk};
use crate::facts::{layout, probe};

/// One port, and on to the next of its chain. A bucket may be freed under the reader
/// and become another: a port that does not belong into this chain shows that.
#[inline(always)]
pub(super) fn step(cursor: &mut Cursor, record: &mut SocketRecord, node: u64, address: u64) -> i32 {
    let net: u64 = probe(address, walk!(tb_net));
    let port: u16 = probe(address, walk!(tb_port));
    let mix: u32 = probe(net, walk!(net_hash_mix));
    let next: u64 = probe(node, 0);
    let bucket = mix.wrapping_add(u32::from(port)) & ((cursor.ports as u32).wrapping_sub(1));
    if port == 0 || bucket != cursor.bucket {
        cursor.next = 0;
        begin_again(cursor);
        cursor.restarts += 1;
        return ON;
    }
    cursor.next = next;
    if cursor.only == 0 || cursor.only == net {
        let reuse: i8 = probe(address, walk!(tb_fastreuse));
        let reuseport: i8 = probe(address, walk!(tb_fastreuseport));
        record.address = address;
        record.tuple.netns = probe(net, layout!(net_inum));
        record.tuple.local_port = port;
        record.details[bound::SHARED] = u32::from(reuse < 0 && reuseport < 0);
        cursor.count += 1;
    }
    if next == 0 {
        cursor.at += 1;
    }
    ON
}
