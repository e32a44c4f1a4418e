//! Handing records to userspace, and counting what could not be.
//!
//! Each CPU gathers its records in a batch, and sends that with one output when
//! it is full; the reader has the rest sent at its tick (`flush`). One output
//! for each record, under the one lock of the ring, would cost several times
//! what the record does.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, generated::bpf_ringbuf_output},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use tracer_common::{
    layout::CONTROL_TELL_ALL,
    wire::{BATCH_BYTES, Batch, Losses, flush},
};

use crate::facts::option;

/// The loader sets its real size.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// One batch for each CPU, mapped by userspace: it has a CPU interrupted only
/// where something waits. The loader sets how many there are.
#[map]
static BATCHES: Array<Batch> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static LOSSES: PerCpuArray<Losses> = PerCpuArray::with_max_entries(1, 0);

/// One word that userspace changes while we run.
#[map]
pub static CONTROL: Array<u32> = Array::with_max_entries(1, 0);

/// One more record in [`Batch::filled`].
const ONE_RECORD: u64 = 1 << 32;

/// Past each fill level the reader is woken by one batch: all that come while it
/// is on its way, or does not come, go without.
const WAKING: u64 = BATCH_BYTES as u64;

/// Adds a record to this CPU's batch. Where that is being written to by whom we
/// interrupt, the record travels alone. What there is no room for is counted.
#[inline(always)]
pub fn emit<T: Copy>(record: T) {
    let Some(batch) = batch() else { return };
    let room = u64::from(option!(batch_bytes)) - size_of::<T>() as u64;
    // SAFETY: this CPU's batch, which lives as long as the programs. Volatile: for
    // the eyes of whoever interrupts us, and who finds it as we left it.
    unsafe {
        if (&raw const (*batch).busy).read_volatile() != 0 {
            alone(&record);
            return;
        }
        (&raw mut (*batch).busy).write_volatile(1);
        let mut filled = (&raw const (*batch).filled).read_volatile();
        if filled & 0xffff_ffff > room {
            send(batch, filled);
            filled = 0;
        }
        // For the verifier, which does not know what is in the map.
        let at = filled as u32 as usize;
        if at <= BATCH_BYTES - size_of::<T>() {
            (&raw mut (*batch).words)
                .cast::<u8>()
                .add(at)
                .cast::<T>()
                .write(record);
            filled += ONE_RECORD + size_of::<T>() as u64;
        }
        (&raw mut (*batch).filled).write_volatile(filled);
        (&raw mut (*batch).busy).write_volatile(0);
    }
}

/// Sends what waits on this CPU, for the reader, who runs this there.
#[inline(always)]
pub fn flush() -> u32 {
    let Some(batch) = batch() else {
        return flush::DONE;
    };
    // SAFETY: as in `emit`.
    unsafe {
        if (&raw const (*batch).busy).read_volatile() != 0 {
            return flush::BUSY;
        }
        (&raw mut (*batch).busy).write_volatile(1);
        let filled = (&raw const (*batch).filled).read_volatile();
        if filled != 0 {
            send(batch, filled);
            (&raw mut (*batch).filled).write_volatile(0);
        }
        (&raw mut (*batch).busy).write_volatile(0);
    }
    flush::DONE
}

#[inline(always)]
fn batch() -> Option<*mut Batch> {
    // SAFETY: the helper has no preconditions.
    BATCHES.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

#[inline(always)]
unsafe fn send(batch: *mut Batch, filled: u64) {
    let queued = RECORDS.query(u64::from(BPF_RB_AVAIL_DATA));
    let level = u64::from(option!(wake_at));
    let wake = if queued >= level && queued & (level - 1) < WAKING {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    let bytes = (filled & 0xffff_ffff).min(BATCH_BYTES as u64);
    // SAFETY: within the batch's words.
    let sent = unsafe {
        bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            (&raw mut (*batch).words).cast(),
            bytes,
            u64::from(wake),
        )
    };
    if sent != 0 {
        lost(|losses| losses.ring += filled >> 32);
    }
}

#[inline(always)]
fn alone<T: Copy>(record: &T) {
    if RECORDS
        .output::<T>(record, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        lost(|losses| losses.ring += 1);
    }
}

#[inline(always)]
pub fn lost(count: impl FnOnce(&mut Losses)) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; an interrupt between load and store of a
        // counter can only lose a count to itself.
        count(unsafe { &mut *losses });
    }
}

/// How many records this CPU could not send.
#[inline(always)]
pub fn lost_here() -> u64 {
    // SAFETY: as in `lost`.
    LOSSES
        .get_ptr(0)
        .map_or(0, |losses| unsafe { (*losses).ring })
}

/// Whether every step has to carry its addresses.
#[inline(always)]
pub fn tell_all() -> bool {
    option!(tell_all) != 0
        || CONTROL
            .get(0)
            .is_some_and(|word| word & CONTROL_TELL_ALL != 0)
}
