//! The kernel's two clocks brought together: jiffies, in which timers are
//! armed, and `CLOCK_MONOTONIC`, in which events are stamped.
//!
//! It also knows how late the timer wheel may be, and what the kernel asks for
//! when it arms a TIME_WAIT: measured, because 2MSL is not 60 s on every
//! kernel. It knows no socket.

use super::event::{Moment, Tick};

/// 2MSL as mainline has it, for as long as no arming has been seen.
pub(crate) const ASSUMED_NOMINAL_S: u32 = 60;

/// What a kernel may ask for when it arms a TIME_WAIT, at most: those that let it
/// be set, by `tcp_tw_timeout`, end at ten minutes.
pub(super) const LONGEST_S: u32 = 3600;

/// `LVL_CLK_SHIFT` and `1 << LVL_BITS` of kernel/time/timer.c; the same from 4.8 on.
const LEVEL_SHIFT: u32 = 3;
const LEVEL_SIZE: u64 = 64;
/// `LVL_DEPTH` with HZ > 100; the ninth level begins at days.
const LEVELS: u32 = 9;

/// How much later than asked the timer wheel may fire, in jiffies: the
/// granularity of the level that a timer of this timeout is put into.
#[must_use]
pub(crate) fn wheel_slack(timeout: u32) -> u32 {
    let level = (1..LEVELS)
        .rev()
        .find(|&level| u64::from(timeout) >= (LEVEL_SIZE - 1) << ((level - 1) * LEVEL_SHIFT))
        .unwrap_or(0);
    1 << (level * LEVEL_SHIFT)
}

#[derive(Clone, Debug)]
pub(super) struct Clock {
    tick: Tick,
    tick_ns: u64,
    /// The majority among the timeouts of TIME_WAIT armings (Boyer and Moore's
    /// vote): one read across a tick is a jiffy short, and a timer that moves
    /// off a dying CPU shows what was left of it.
    nominal: u32,
    votes: u32,
    measured: bool,
}

impl Clock {
    pub(super) fn new(tick: Tick) -> Clock {
        let hz = tick.hz.max(1);
        Clock {
            tick: Tick { hz, ..tick },
            // As the kernel rounds its TICK_NSEC, so that HZ=300 does not drift.
            tick_ns: ((1_000_000_000 + u64::from(hz) / 2) / u64::from(hz)).max(1),
            nominal: ASSUMED_NOMINAL_S.saturating_mul(hz),
            votes: 0,
            measured: false,
        }
    }

    /// Jiffies at a moment.
    pub(super) fn jiffies_at(&self, moment: Moment) -> u32 {
        let ticks = (i128::from(moment.0) - i128::from(self.tick.moment.0))
            .div_euclid(i128::from(self.tick_ns));
        self.tick.jiffies.wrapping_add(ticks as u32)
    }

    /// When a jiffy began. `near` says which of the jiffies that share their
    /// low 32 bits is meant: the one within 2³¹ of it.
    pub(super) fn moment_of(&self, jiffies: u32, near: Moment) -> Moment {
        let ticks = (i128::from(near.0) - i128::from(self.tick.moment.0))
            .div_euclid(i128::from(self.tick_ns));
        let away = jiffies.wrapping_sub(self.tick.jiffies.wrapping_add(ticks as u32)) as i32;
        let ns =
            i128::from(self.tick.moment.0) + (ticks + i128::from(away)) * i128::from(self.tick_ns);
        Moment(ns.clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// When a TIME_WAIT that expires at `expires` was last armed.
    pub(super) fn armed_at(&self, expires: u32, near: Moment) -> Moment {
        self.moment_of(expires.wrapping_sub(self.nominal), near)
    }

    /// A TIME_WAIT was armed with this timeout. True if that changed the nominal one.
    pub(super) fn saw_timeout(&mut self, timeout: u32) -> bool {
        // Nothing a kernel would arm a TIME_WAIT with: torn, or overdue already.
        if timeout == 0 || timeout > LONGEST_S.saturating_mul(self.tick.hz) {
            return false;
        }
        if !self.measured {
            self.measured = true;
            self.votes = 1;
            return std::mem::replace(&mut self.nominal, timeout) != timeout;
        }
        if timeout == self.nominal {
            self.votes = self.votes.saturating_add(1).min(1 << 20);
        } else if self.votes == 0 {
            self.nominal = timeout;
            self.votes = 1;
            return true;
        } else {
            self.votes -= 1;
        }
        false
    }

    pub(super) fn hz(&self) -> u32 {
        self.tick.hz
    }

    pub(super) fn nominal_ns(&self) -> u64 {
        u64::from(self.nominal) * self.tick_ns
    }

    /// `None` until an arming has been seen.
    pub(super) fn measured_nominal_s(&self) -> Option<f64> {
        self.measured
            .then(|| f64::from(self.nominal) / f64::from(self.tick.hz))
    }

    pub(super) fn nominal_s(&self) -> f64 {
        f64::from(self.nominal) / f64::from(self.tick.hz)
    }

    pub(super) fn slack(&self) -> u32 {
        wheel_slack(self.nominal)
    }

    pub(super) fn slack_ns(&self) -> u64 {
        u64::from(self.slack()) * self.tick_ns
    }

    pub(super) fn slack_s(&self) -> f64 {
        f64::from(self.slack()) / f64::from(self.tick.hz)
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, wheel_slack};
    use crate::model::event::{Moment, Tick};

    fn clock(hz: u32) -> Clock {
        Clock::new(Tick {
            hz,
            moment: Moment(5_000_000_000),
            jiffies: u32::MAX - 10,
        })
    }

    #[test]
    fn the_slack_of_sixty_seconds_is_that_of_docs_kernel() {
        for (hz, slack_s) in [(100, 5.120), (250, 2.048), (300, 1.707), (1000, 4.096)] {
            let found = f64::from(wheel_slack(60 * hz)) / f64::from(hz);
            assert!(
                (found - slack_s).abs() < 0.0005,
                "HZ={hz}: {found} s, not {slack_s} s"
            );
        }
    }

    #[test]
    fn the_slack_changes_at_the_levels_first_jiffy() {
        for (timeout, slack) in [
            (0, 1),
            (62, 1),
            (63, 8),
            (503, 8),
            (504, 64),
            (4031, 64),
            (4032, 512),
        ] {
            assert_eq!(wheel_slack(timeout), slack, "timeout {timeout}");
        }
    }

    #[test]
    fn jiffies_wrap_and_come_back() {
        let clock = clock(250);
        for ms in [0, 4, 8, 40, 44, 48, 60_000, 3_600_000] {
            let moment = Moment(5_000_000_000 + ms * 1_000_000);
            assert_eq!(
                clock.moment_of(clock.jiffies_at(moment), moment),
                moment,
                "{ms} ms"
            );
        }
        assert_eq!(
            clock.moment_of(u32::MAX - 11, Moment(5_000_000_000)),
            Moment(4_996_000_000)
        );
    }

    #[test]
    fn jiffies_are_still_right_after_more_of_them_than_32_bits_hold() {
        let clock = clock(1000);
        let late = Moment(5_000_000_000 + 70 * 86_400 * 1_000_000_000);
        assert_eq!(clock.moment_of(clock.jiffies_at(late), late), late);
    }

    #[test]
    fn one_timeout_read_across_a_tick_does_not_move_the_nominal_one() {
        let mut clock = clock(250);
        assert_eq!(clock.measured_nominal_s(), None);
        for timeout in [14_999, 15_000, 15_000, 15_000, 14_999, 15_000] {
            clock.saw_timeout(timeout);
        }
        assert_eq!(clock.measured_nominal_s(), Some(60.0));
    }

    #[test]
    fn another_2msl_is_believed_once_it_was_seen() {
        let mut clock = clock(250);
        assert!((clock.nominal_s() - 60.0).abs() < 1e-9);
        clock.saw_timeout(30 * 250);
        assert!((clock.nominal_s() - 30.0).abs() < 1e-9);
        assert_eq!(clock.measured_nominal_s(), Some(30.0));
    }
}
