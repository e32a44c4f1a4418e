//! Half-open requests: a gauge per network namespace, kept here because each
//! lives but a round trip and two records a connection would say nothing more.

use aya_ebpf::{macros::map, maps::PerCpuHashMap};
use tracer_common::wire::Requests;

use crate::{
    emit::lost,
    facts::{Object, family_wanted, layout, net_at_wanted, option, probe},
    percpu::cpu,
};

#[map]
static REQUESTS: PerCpuHashMap<u32, Requests> = PerCpuHashMap::with_max_entries(4096, 0);

/// START: a SYN arrived, or the SYN-ACK was sent again, which is told apart by
/// its running handler.
#[inline(always)]
pub fn start(timer: Object) {
    let Some(cpu) = cpu() else { return };
    if cpu.request_expiring == timer as u64 {
        cpu.request_expiring = 0;
        count(timer, |requests| {
            requests.died = requests.died.wrapping_sub(1)
        });
    } else {
        count(timer, |requests| requests.born += 1);
    }
}

/// CANCEL: answered, given up, or about to expire.
#[inline(always)]
pub fn cancel(timer: Object) {
    count(timer, |requests| {
        requests.died = requests.died.wrapping_add(1)
    });
}

/// EXPIRE: the handler runs, and may arm the timer anew.
#[inline(always)]
pub fn expire(timer: Object) {
    if let Some(cpu) = cpu() {
        cpu.request_expiring = timer as u64;
    }
}

/// The handler has run.
#[inline(always)]
pub fn expired(timer: Object) {
    if let Some(cpu) = cpu()
        && cpu.request_expiring == timer as u64
    {
        cpu.request_expiring = 0;
    }
}

#[inline(always)]
fn count(timer: Object, change: impl FnOnce(&mut Requests)) {
    let request = (timer as u64).wrapping_sub(u64::from(layout!(rsk_timer)));
    if option!(family) != 0 && !family_wanted(probe(request, layout!(sk_family))) {
        return;
    }
    let net: u64 = probe(request, layout!(sk_net));
    if !net_at_wanted(net) {
        return;
    }
    let netns: u32 = probe(net, layout!(net_inum));
    if let Some(requests) = REQUESTS.get_ptr_mut(netns) {
        // SAFETY: a per-CPU value, and interrupts are off in these tracepoints.
        change(unsafe { &mut *requests });
        return;
    }
    let mut requests = Requests::default();
    change(&mut requests);
    if REQUESTS.insert(netns, requests, 0).is_err() {
        lost(|losses| losses.map += 1);
    }
}
