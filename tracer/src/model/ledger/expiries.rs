//! Which timers should have run out: a count of live minisockets by the second
//! at which they expire, so that an overdue one shows without a search.

/// Live minisockets by the second (nearly) at which their timers expire.
#[derive(Debug)]
pub(super) struct Expiries {
    counts: Box<[u32; 256]>,
    /// Jiffies of 2 to this power are about a second.
    shift: u32,
}

impl Expiries {
    pub(super) fn new(hz: u32) -> Expiries {
        Expiries {
            counts: Box::new([0; 256]),
            shift: hz.max(1).next_power_of_two().trailing_zeros(),
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, expires: u32) {
        self.counts[(expires >> self.shift) as usize & 255] += 1;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, expires: u32) {
        self.counts[(expires >> self.shift) as usize & 255] -= 1;
    }

    /// Those that should have expired before `jiffies`, for up to a minute.
    pub(super) fn before(&self, jiffies: u32) -> u64 {
        let bucket = jiffies >> self.shift;
        (1..=60)
            .map(|back| u64::from(self.counts[bucket.wrapping_sub(back) as usize & 255]))
            .sum()
    }
}
