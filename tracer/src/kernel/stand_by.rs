//! When the second chance is worth what it costs.
//!
//! The twin program runs at every transition and does nothing but look, unless a
//! softirq made the kernel skip the first. On loopback that never happens, on a
//! busy network card all the time. So it stands by from the start, goes soon
//! where nothing is skipped, and is back within a look at the counters of the
//! first, to stay the longer. Going too early costs a step and a resync; staying
//! costs every connection of a busy machine. This room only judges.

/// With none skipped in so many, fewer than one in 16,000 are, at 95 %. A network
/// card that interrupts connections makes it one in some thousands.
const ENOUGH: u64 = 50_000;
/// Each time it went too early it stays longer.
const LONGER: u64 = 8;

#[derive(Debug)]
pub(super) struct StandBy {
    here: bool,
    enough: u64,
    /// Records read when the last skip was noticed.
    since: u64,
    skipped: u64,
}

impl Default for StandBy {
    fn default() -> Self {
        StandBy {
            here: true,
            enough: ENOUGH,
            since: 0,
            skipped: 0,
        }
    }
}

impl StandBy {
    /// Whether the second chance should be attached, after so many records and
    /// so many runs skipped since the start.
    pub(super) fn is_needed(&mut self, records: u64, skipped: u64) -> bool {
        if skipped > self.skipped {
            self.skipped = skipped;
            self.since = records;
            if !self.here {
                self.enough = self.enough.saturating_mul(LONGER);
            }
            self.here = true;
        } else if records - self.since >= self.enough {
            self.here = false;
        }
        self.here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_only_where_nothing_is_skipped() {
        let mut loopback = StandBy::default();
        assert!(loopback.is_needed(ENOUGH - 1, 0));
        assert!(!loopback.is_needed(ENOUGH, 0));

        let mut network_card = StandBy::default();
        for second in 1..100 {
            assert!(network_card.is_needed(second * ENOUGH / 2, second));
        }
    }

    #[test]
    fn it_is_back_at_the_first_skip_and_stays_longer() {
        let mut stand_by = StandBy::default();
        assert!(!stand_by.is_needed(ENOUGH, 0));
        assert!(stand_by.is_needed(ENOUGH + 1, 3));
        assert!(stand_by.is_needed(2 * ENOUGH + 1, 3));
        assert!(stand_by.is_needed(LONGER * ENOUGH, 3));
        assert!(!stand_by.is_needed((LONGER + 1) * ENOUGH + 1, 3));
        assert!(stand_by.is_needed((LONGER + 1) * ENOUGH + 2, 4));
    }
}
