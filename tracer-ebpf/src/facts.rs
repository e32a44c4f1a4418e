//! What userspace told us about this kernel, and reading memory by it.
//!
//! The globals are read-only data that the loader fills in and freezes: the
//! verifier knows each value and checks every access against the kernel's own
//! type information as if the offset stood in the source.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use tracer_common::layout::{CALLERS as N, Caller, Callers, End, Layout, Options, PORTS, PREFIXES};
use tracer_common::wire::Tuple;

#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout {
    sk_family: 0,
    sk_cookie: 0,
    sk_addrpair: 0,
    sk_hash: 0,
    sk_state: 0,
    sk_num: 0,
    sk_dport: 0,
    sk_net: 0,
    sk_v6_daddr: 0,
    sk_v6_rcv_saddr: 0,
    sk_protocol: 0,
    sk_err: 0,
    inet_sport: 0,
    tcp_linger2: 0,
    net_inum: 0,
    tw_timer: 0,
    tw_substate: 0,
    rsk_timer: 0,
    timer_expires: 0,
    timer_function: 0,
    timer_flags: 0,
    task_flags: 0,
    task_group_leader: 0,
    task_comm: 0,
    task_pid: 0,
    pid_level: 0,
    pid_numbers: 0,
    upid_nr: 0,
    upid_ns: 0,
    pid_ns_inum: 0,
    net_cookie: 0,
    tw_timer_handler: 0,
    reqsk_timer_handler: 0,
};

#[unsafe(no_mangle)]
pub static CALLERS: Callers = Callers {
    table: [Caller {
        start: 0,
        length: 0,
        meaning: 0,
    }; N],
};

#[unsafe(no_mangle)]
pub static OPTIONS: Options = Options {
    netns_cookie: 0,
    netns: 0,
    family: 0,
    tell_all: 0,
    pid_ns: 0,
    wake_at: 0,
    batch_bytes: 0,
    local: End::ANY,
    remote: End::ANY,
};

/// A member of [`LAYOUT`], as the loader set it.
macro_rules! layout {
    ($member:ident) => {
        // SAFETY: a read of initialised static data; volatile because the
        // loader changes it after this was compiled.
        unsafe { core::ptr::read_volatile(&raw const $crate::facts::LAYOUT.$member) }
    };
}

/// A member of [`OPTIONS`], as the loader set it.
macro_rules! option {
    ($member:ident) => {
        // SAFETY: as in `layout!`.
        unsafe { core::ptr::read_volatile(&raw const $crate::facts::OPTIONS.$member) }
    };
}

/// One end's member of [`OPTIONS`], by its place.
macro_rules! end {
    ($end:expr, $($member:tt)+) => {
        // SAFETY: as in `layout!`; `$end` is one of its two.
        unsafe { core::ptr::read_volatile(&raw const (*$end).$($member)+) }
    };
}

pub(crate) use {layout, option};

/// A typed kernel pointer: the argument of a tracepoint, which the verifier
/// lets us read through directly.
pub type Object = *const c_void;

pub const AF_INET6: u16 = 10;

/// Reads a member of an object directly. The verifier proves that it is one.
#[inline(always)]
pub fn member<T: Copy>(object: Object, offset: u32) -> T {
    // SAFETY: the verifier refuses the program unless `object` is a trusted
    // pointer to a kernel type with a member of this size at this offset.
    unsafe { core::ptr::read_volatile(object.byte_add(offset as usize).cast::<T>()) }
}

/// Reads kernel memory at an address that the verifier knows nothing of; 0
/// where it cannot be read.
#[inline(always)]
pub fn probe<T: Copy + Default>(address: u64, offset: u32) -> T {
    let from = (address + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address and fails softly.
    unsafe { bpf_probe_read_kernel(from) }.unwrap_or_default()
}

/// Words of a minisocket that are read at once: all that tells one connection
/// from another, and the substate, lie in them.
const MINISOCKET_WORDS: usize = 18;

/// The beginning of an `inet_timewait_sock`, of which the verifier knows
/// nothing. Several members for the price of one read, which is most of what a
/// birth costs.
pub struct Minisocket {
    pub address: u64,
    words: [u64; MINISOCKET_WORDS],
}

impl Minisocket {
    /// The one around this timer.
    #[inline(always)]
    pub fn around(timer: Object) -> Self {
        let address = (timer as u64).wrapping_sub(u64::from(layout!(tw_timer)));
        let mut words = MaybeUninit::<[u64; MINISOCKET_WORDS]>::uninit();
        // SAFETY: the buffer is ours and its size is given; the helper checks
        // the address, and fills the buffer with zeros where it fails.
        let words = unsafe {
            generated::bpf_probe_read_kernel(
                words.as_mut_ptr().cast(),
                size_of::<[u64; MINISOCKET_WORDS]>() as u32,
                address as *const c_void,
            );
            words.assume_init()
        };
        Self { address, words }
    }

    /// A member; where this kernel has it further back, it is read by itself.
    #[inline(always)]
    pub fn member<T: Copy + Default>(&self, offset: u32) -> T {
        if offset as usize + size_of::<T>() > size_of::<[u64; MINISOCKET_WORDS]>() {
            return probe(self.address, offset);
        }
        // SAFETY: within the words, as just seen, and a plain integer.
        unsafe {
            (&raw const self.words)
                .byte_add(offset as usize)
                .cast::<T>()
                .read_volatile()
        }
    }

    /// TIME_WAIT or FIN_WAIT2, as the kernel numbers them.
    #[inline(always)]
    pub fn substate(&self) -> u8 {
        self.member(layout!(tw_substate))
    }

    /// That of the full socket which it was; 0 where nobody had asked for it.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        self.member(layout!(sk_cookie))
    }

    /// Inode of its namespace.
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        probe(self.member(layout!(sk_net)), layout!(net_inum))
    }

    /// Whether the user wants it.
    #[inline(always)]
    pub fn is_wanted(&self) -> bool {
        let family: u16 = self.member(layout!(sk_family));
        net_at_wanted(self.member(layout!(sk_net)))
            && family_wanted(family)
            && (!ends_matter() || ends_wanted(family, &tuple_at(self.address, family), true))
    }
}

/// Whether this timer is a minisocket's. All of the machine's timers come through
/// here: a load and a compare.
#[inline(always)]
pub fn is_of_minisocket(timer: Object) -> bool {
    member::<u64>(timer, layout!(timer_function)) == layout!(tw_timer_handler)
}

/// Whether it is a half-open request's.
#[inline(always)]
pub fn is_of_request(timer: Object) -> bool {
    member::<u64>(timer, layout!(timer_function)) == layout!(reqsk_timer_handler)
}

/// Whether the user wants requests of that namespace and family.
#[inline(always)]
pub fn request_wanted(timer: Object) -> bool {
    let request = (timer as u64).wrapping_sub(u64::from(layout!(rsk_timer)));
    family_wanted(probe(request, layout!(sk_family)))
        && net_at_wanted(probe(request, layout!(sk_net)))
}

/// Inode of the namespace of the `sock_common` at this address.
#[inline(always)]
pub fn netns_at(sock_common: u64) -> u32 {
    let net: u64 = probe(sock_common, layout!(sk_net));
    probe(net, layout!(net_inum))
}

/// The ends of the connection whose `sock_common` is at this address.
#[inline(always)]
pub fn tuple_at(sock_common: u64, family: u16) -> Tuple {
    let mut tuple = Tuple {
        local: [0; 2],
        remote: [0; 2],
        netns: netns_at(sock_common),
        local_port: probe(sock_common, layout!(sk_num)),
        remote_port: u16::from_be(probe(sock_common, layout!(sk_dport))),
    };
    if family == AF_INET6 && layout!(sk_v6_daddr) != 0 {
        let (local, remote) = (layout!(sk_v6_rcv_saddr), layout!(sk_v6_daddr));
        tuple.local = [probe(sock_common, local), probe(sock_common, local + 8)];
        tuple.remote = [probe(sock_common, remote), probe(sock_common, remote + 8)];
    } else {
        put_v4(&mut tuple, probe(sock_common, layout!(sk_addrpair)));
    }
    tuple
}

/// `skc_addrpair` is the remote address, then the local one, in network order.
#[inline(always)]
pub fn put_v4(tuple: &mut Tuple, addrpair: u64) {
    tuple.remote = [addrpair & 0xffff_ffff, 0];
    tuple.local = [addrpair >> 32, 0];
}

/// Whether the user wants sockets of the namespace that this one is in.
#[inline(always)]
pub fn net_wanted(sk: Object) -> bool {
    let net = || member::<Object>(sk, layout!(sk_net));
    if option!(netns_cookie) != 0 {
        return member::<u64>(net(), layout!(net_cookie)) == option!(netns_cookie);
    }
    option!(netns) == 0 || member::<u32>(net(), layout!(net_inum)) == option!(netns)
}

/// The same of one that the verifier knows nothing of.
#[inline(always)]
pub fn net_at_wanted(net: u64) -> bool {
    if option!(netns_cookie) != 0 {
        return probe::<u64>(net, layout!(net_cookie)) == option!(netns_cookie);
    }
    option!(netns) == 0 || probe::<u32>(net, layout!(net_inum)) == option!(netns)
}

/// Whether the user wants sockets of this family.
#[inline(always)]
pub fn family_wanted(family: u16) -> bool {
    option!(family) == 0 || option!(family) == u32::from(family)
}

/// Whether the user may want sockets with these ends. What is not known yet, as
/// the port of a connect that still looks for one, is no reason to leave one out.
#[inline(always)]
pub fn ends_wanted(family: u16, tuple: &Tuple, local_is_known: bool) -> bool {
    let (local, remote) = (&raw const OPTIONS.local, &raw const OPTIONS.remote);
    port_wanted(local, tuple.local_port)
        && port_wanted(remote, tuple.remote_port)
        && (!local_is_known || address_wanted(local, family, tuple.local))
        && (tuple.remote_port == 0 || address_wanted(remote, family, tuple.remote))
}

/// Whether [`ends_wanted`] has anything to judge by.
#[inline(always)]
pub fn ends_matter() -> bool {
    let (local, remote) = (&raw const OPTIONS.local, &raw const OPTIONS.remote);
    end!(local, port_count)
        | end!(local, prefix_count)
        | end!(remote, port_count)
        | end!(remote, prefix_count)
        != 0
}

#[inline(always)]
fn port_wanted(end: *const End, port: u16) -> bool {
    let count = end!(end, port_count) as usize;
    if count == 0 || port == 0 {
        return true;
    }
    let mut wanted = false;
    for i in 0..PORTS {
        wanted |= i < count && end!(end, ports[i]) == port;
    }
    wanted
}

#[inline(always)]
fn address_wanted(end: *const End, family: u16, address: [u64; 2]) -> bool {
    let count = end!(end, prefix_count) as usize;
    if count == 0 {
        return true;
    }
    let [head, tail] = if family == AF_INET6 {
        address
    } else {
        let [a, b, c, d, ..] = address[0].to_ne_bytes();
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    };
    let mut wanted = false;
    for i in 0..PREFIXES {
        let mask: [u64; 2] = end!(end, prefixes[i].mask);
        let bits: [u64; 2] = end!(end, prefixes[i].bits);
        wanted |= i < count && head & mask[0] == bits[0] && tail & mask[1] == bits[1];
    }
    wanted
}
