//! What one CPU remembers from one tracepoint to the next.
//!
//! The kernel does related things in a row on one CPU: CANCEL, then START of a
//! re-arm; CANCEL, then EXPIRE. The pending half of such a pair decides what the
//! second means. Both halves know their minisocket by cookie and address, so one
//! that stays pending is never taken for another's.

use aya_ebpf::{macros::map, maps::PerCpuArray};

/// A minisocket's timer was cancelled, and what it means depends on what follows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PendingCancel {
    /// 0: none.
    pub timer: u64,
    pub cookie: u64,
    pub time_ns: u64,
    pub expires: u32,
    pub netns: u32,
    pub substate: u32,
    pub pid: u32,
}

#[repr(C)]
pub struct Cpu {
    pub cancel: PendingCancel,
    /// Cookie of the full socket whose minisocket was born here last, until its
    /// step to CLOSE, which says nothing new then; 0: none.
    pub born: u64,
    pub handled: Handled,
}

/// The transitions that the first program on their tracepoint has taken on, and
/// the second has yet to come to: those of the two contexts that a CPU may be in,
/// a softirq above what it interrupted. One that the second does not find here is
/// one that the kernel skipped the first for.
///
/// Where a softirq interrupts the second, that is skipped in it, and what the first
/// wrote there remains. The next look leaves one such, so four places are enough
/// for the two that matter: what finds them all taken takes the uppermost, which is
/// a softirq's own.
#[repr(C)]
pub struct Handled {
    places: [Transition; PLACES],
    taken: u64,
}

/// Which transition: the socket may be at the next by the time that one is looked
/// for.
#[derive(Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Transition {
    pub socket: u64,
    pub from: u32,
    pub to: u32,
}

const PLACES: usize = 4;

impl Handled {
    #[inline(always)]
    pub fn push(&mut self, transition: Transition) {
        let place = self.taken().min(PLACES - 1);
        self.set(place, transition);
        self.set_taken(place + 1);
    }

    /// Whether the first program has taken this one on. If so it is forgotten, with
    /// all but the one below: that may be of the context that ours interrupted.
    #[inline(always)]
    pub fn take(&mut self, transition: Transition) -> bool {
        let taken = self.taken();
        for below in 1..=PLACES {
            if below > taken {
                break;
            }
            let place = taken - below;
            if self.get(place) == transition {
                if place > 0 {
                    self.set(0, self.get(place - 1));
                }
                self.set_taken(place.min(1));
                return true;
            }
        }
        false
    }

    // Volatile: a softirq may come between any two of these, and leaves what was
    // there before it as it was.

    #[inline(always)]
    fn taken(&self) -> usize {
        // SAFETY: a plain field of a value that we hold.
        unsafe { (&raw const self.taken).read_volatile() as usize }
    }

    #[inline(always)]
    fn set_taken(&mut self, taken: usize) {
        // SAFETY: as in `taken`.
        unsafe { (&raw mut self.taken).write_volatile(taken as u64) };
    }

    #[inline(always)]
    fn get(&self, place: usize) -> Transition {
        // SAFETY: as in `taken`; within the places, for the verifier too.
        unsafe { (&raw const self.places[place & (PLACES - 1)]).read_volatile() }
    }

    #[inline(always)]
    fn set(&mut self, place: usize, transition: Transition) {
        // SAFETY: as in `get`.
        unsafe { (&raw mut self.places[place & (PLACES - 1)]).write_volatile(transition) };
    }
}

#[map]
pub static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's memory.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: per-CPU memory that lives as long as the programs. A softirq may
    // interrupt a program of process context and change it; every sequence of
    // reads and writes here is written to survive that.
    CPU.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}
