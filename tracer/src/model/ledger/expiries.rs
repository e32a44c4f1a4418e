//! Which timers should have run out: a count of live minisockets by the second
//! at which they expire, so that an overdue one shows without a search.

use super::super::clock::LONGEST_S;

/// How far back is looked, in buckets.
const BACK: u32 = 60;

/// A power of two, since jiffies wrap. Two timers that share a place are a round
/// apart: one that is set is never taken for one that is overdue.
const BUCKETS: usize = 4096;
const _: () = assert!(BUCKETS.is_power_of_two() && BUCKETS as u32 > LONGEST_S + BACK);

/// Live minisockets by the second (nearly) at which their timers expire.
#[derive(Debug)]
pub(super) struct Expiries {
    counts: Box<[u32; BUCKETS]>,
    /// Jiffies of 2 to this power are a second or somewhat more.
    shift: u32,
}

impl Expiries {
    pub(super) fn new(hz: u32) -> Expiries {
        Expiries {
            counts: Box::new([0; BUCKETS]),
            shift: hz.max(1).next_power_of_two().trailing_zeros(),
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, expires: u32) {
        self.counts[place(expires >> self.shift)] += 1;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, expires: u32) {
        self.counts[place(expires >> self.shift)] -= 1;
    }

    /// Those that should have expired before `jiffies`, for up to a minute.
    pub(super) fn before(&self, jiffies: u32) -> u64 {
        let bucket = jiffies >> self.shift;
        (1..=BACK)
            .map(|back| u64::from(self.counts[place(bucket.wrapping_sub(back))]))
            .sum()
    }
}

#[inline(always)]
fn place(bucket: u32) -> usize {
    bucket as usize & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_overdue_once_its_time_has_passed_however_long_it_was() {
        for hz in [100, 250, 300, 1000] {
            for start in [7, u32::MAX - 30 * hz] {
                let at = |seconds: u32| start.wrapping_add(seconds * hz);
                for timeout_s in [1, 60, 199, 240, 256, 257, 300, 600, LONGEST_S] {
                    let mut expiries = Expiries::new(hz);
                    expiries.add(at(timeout_s));
                    for seconds in 0..timeout_s {
                        let before = expiries.before(at(seconds));
                        assert_eq!(before, 0, "of {timeout_s} s after {seconds} s, {hz} Hz");
                    }
                    assert_eq!(
                        expiries.before(at(timeout_s + 3)),
                        1,
                        "{timeout_s} s, {hz} Hz"
                    );
                    expiries.remove(at(timeout_s));
                    assert_eq!(expiries.before(at(timeout_s + 3)), 0);
                }
            }
        }
    }
}
