//! The ring buffer, and the count of what did not fit in.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use tracer_common::{layout::CONTROL_TELL_ALL, wire::Losses};

use crate::facts::option;

/// The loader sets its real size.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

#[map]
pub static LOSSES: PerCpuArray<Losses> = PerCpuArray::with_max_entries(1, 0);

/// One word that userspace changes while we run.
#[map]
pub static CONTROL: Array<u32> = Array::with_max_entries(1, 0);

/// Past each fill level the reader is woken by the records of so many bytes: all
/// that come while it is on its way, or does not come, go without.
const WAKING: u64 = 4096;

/// Sends a record; where there is no room, counts it as lost. A reader woken
/// for each record would cost nine times what the record does: it looks by
/// itself at every tick, and is woken early only when the ring fills.
#[inline(always)]
pub fn emit<T: 'static>(record: T) -> bool {
    send(record, || {
        let filled = RECORDS.query(u64::from(BPF_RB_AVAIL_DATA));
        let level = u64::from(option!(wake_at));
        if filled >= level && filled & (level - 1) < WAKING {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        }
    })
}

/// The same without a look at how full the ring is: for the small records that
/// never come without larger ones.
#[inline(always)]
pub fn emit_quietly<T: 'static>(record: T) -> bool {
    send(record, || BPF_RB_NO_WAKEUP)
}

#[inline(always)]
fn send<T: 'static>(record: T, wake: impl FnOnce() -> u32) -> bool {
    let Some(mut entry) = RECORDS.reserve::<T>(0) else {
        lost(|losses| losses.ring += 1);
        return false;
    };
    entry.write(record);
    entry.submit(u64::from(wake()));
    true
}

#[inline(always)]
pub fn lost(count: impl FnOnce(&mut Losses)) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; an interrupt between load and store of a
        // counter can only lose a count to itself.
        count(unsafe { &mut *losses });
    }
}

/// Whether every step has to carry its addresses.
#[inline(always)]
pub fn tell_all() -> bool {
    option!(tell_all) != 0
        || CONTROL
            .get(0)
            .is_some_and(|word| word & CONTROL_TELL_ALL != 0)
}
