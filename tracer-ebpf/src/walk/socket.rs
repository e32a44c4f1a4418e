//! A socket of any kind, read by its address alone.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tracer_common::{
    state::State,
    walk::{Bits, Cursor, HEAD, SocketRecord, flag, full, listener, request},
    wire::Tuple,
};

use super::{now_ns, walk};
use crate::facts::{AF_INET6, layout, probe, put_v4};

/// Reads what any kind of socket begins with; `false` where it cannot be read.
#[inline(always)]
pub(super) fn read_head(cursor: &mut Cursor, address: u64) -> bool {
    let (room, bytes) = (&raw mut cursor.head, walk!(head_bytes));
    // SAFETY: the loader has seen to it that no more is read than there is room;
    // the helper checks the address. A page that is gone reads as an error.
    unsafe { bpf_probe_read_kernel(room.cast(), bytes, address as *const _) == 0 }
}

/// A member that lies within the head.
#[inline(always)]
pub(super) fn head<T: Copy + Default>(cursor: &Cursor, offset: u32) -> T {
    if offset as usize + size_of::<T>() > HEAD {
        return T::default();
    }
    // SAFETY: within the head, as just seen, and a plain integer.
    unsafe {
        (&raw const cursor.head)
            .byte_add(offset as usize)
            .cast::<T>()
            .read_volatile()
    }
}

#[inline(always)]
fn bits(byte: u8, of: Bits) -> u8 {
    ((u32::from(byte) >> of.shift) & of.mask) as u8
}

/// Makes a record of the socket whose head was read; `false` for one that is not
/// wanted, or in the middle of a change.
#[inline(always)]
pub(super) fn fill(cursor: &mut Cursor, record: &mut SocketRecord, address: u64) -> bool {
    let net: u64 = head(cursor, layout!(sk_net));
    if cursor.only != 0 && cursor.only != net {
        return false;
    }
    let state: u8 = head(cursor, layout!(sk_state));
    let local_port: u16 = head(cursor, layout!(sk_num));
    if local_port == 0 || state == 0 || state == State::Close as u8 {
        cursor.torn += 1;
        return false;
    }
    // Most of a chain's neighbours are of one namespace, and it outlives the run.
    if net != cursor.net {
        cursor.net = net;
        cursor.netns = probe(net, layout!(net_inum));
        cursor.netns_cookie = if layout!(net_cookie) == 0 {
            0
        } else {
            probe(net, layout!(net_cookie))
        };
    }
    record.address = address;
    record.cookie = head(cursor, walk!(sk_cookie));
    record.netns_cookie = cursor.netns_cookie;
    record.time_ns = now_ns();
    record.state = state;
    let family: u16 = head(cursor, layout!(sk_family));
    record.family = family as u8;
    record.tuple = Tuple {
        local: [0; 2],
        remote: [0; 2],
        netns: cursor.netns,
        local_port,
        remote_port: u16::from_be(head(cursor, layout!(sk_dport))),
    };
    if family == AF_INET6 && layout!(sk_v6_daddr) != 0 {
        let (local, remote) = (layout!(sk_v6_rcv_saddr), layout!(sk_v6_daddr));
        record.tuple.local = [head(cursor, local), head(cursor, local + 8)];
        record.tuple.remote = [head(cursor, remote), head(cursor, remote + 8)];
    } else {
        put_v4(&mut record.tuple, head(cursor, layout!(sk_addrpair)));
    }
    record.expires = 0;
    record.substate = 0;
    record.details = [0; 4];
    let mut flags = 0;
    if bits(head(cursor, walk!(sk_reuse.offset)), walk!(sk_reuse)) != 0 {
        flags |= flag::REUSEADDR;
    }
    if bits(
        head(cursor, walk!(sk_reuseport.offset)),
        walk!(sk_reuseport),
    ) != 0
    {
        flags |= flag::REUSEPORT;
    }
    if state == State::TimeWait as u8 {
        record.substate = head(cursor, layout!(tw_substate));
        record.expires = head(cursor, layout!(tw_timer) + layout!(timer_expires));
        let stamp: u32 = probe(address, walk!(tw_ts_recent_stamp));
        if stamp != 0 {
            flags |= flag::TIMESTAMPS;
        }
    } else if state == State::NewSynRecv as u8 {
        record.expires = head(cursor, layout!(rsk_timer) + layout!(timer_expires));
        let listener: u64 = head(cursor, walk!(sk_listener));
        record.details[request::LISTENER_LOW] = listener as u32;
        record.details[request::LISTENER_HIGH] = (listener >> 32) as u32;
    } else {
        let locks: u8 = probe(address, walk!(sk_userlocks.offset));
        flags |= bits(locks, walk!(sk_userlocks)) & (flag::BOUND_ADDRESS | flag::BOUND_PORT);
        if state == State::Listen as u8 {
            record.details[listener::HALF_OPEN] = probe(address, walk!(accept_qlen));
            record.details[listener::ACCEPT_QUEUE] = probe(address, walk!(sk_ack_backlog));
            record.details[listener::ACCEPT_LIMIT] = probe(address, walk!(sk_max_ack_backlog));
            record.details[listener::DROPS] = probe(address, walk!(sk_drops));
        } else {
            let socket: u64 = probe(address, walk!(sk_socket));
            if socket == 0 {
                flags |= flag::ORPHAN;
            }
            record.details[full::RECEIVED] = probe(address, walk!(tcp_rcv_tstamp));
        }
    }
    record.flags = flags;
    true
}
