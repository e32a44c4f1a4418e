//! The clocks, and which host and boot they belong to.
//!
//! The one room where time is asked for. Moments are the kernel side's own
//! (`CLOCK_MONOTONIC`); wall-clock time is made from them, so that a step of the
//! wall clock moves no event.

use std::fs;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use super::isolation;
use crate::model::event::Moment;
use crate::model::snapshot::Host;

/// Nanoseconds to take from our clock to have the kernel side's. Where that is not
/// told, a start is refused (`requirements`).
static AHEAD: LazyLock<i64> = LazyLock::new(|| isolation::clock_ahead().unwrap_or(0));

/// Now, as the kernel side's timestamps have it.
#[must_use]
pub fn now() -> Moment {
    Moment((nanoseconds(clock_gettime(ClockId::Monotonic)) - *AHEAD) as u64)
}

/// What this thread has had of a CPU.
#[must_use]
pub fn spent() -> Duration {
    Duration::from_nanos(nanoseconds(clock_gettime(ClockId::ThreadCPUTime)) as u64)
}

/// Ticks a second: the coarse clock's resolution is one tick.
#[must_use]
pub fn hz() -> u32 {
    hz_of(nanoseconds(clock_getres(ClockId::MonotonicCoarse)) as u64)
}

/// The kernel rounds a tick to whole nanoseconds (300 Hz: 3,333,333).
fn hz_of(tick_ns: u64) -> u32 {
    let tick = tick_ns.max(1);
    ((1_000_000_000 + tick / 2) / tick) as u32
}

/// Which machine, kernel and boot this is.
pub fn host() -> io::Result<Host> {
    let uname = rustix::system::uname();
    Ok(Host {
        name: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned(),
        hz: hz(),
    })
}

/// Major and minor version of the running kernel; (0, 0) if it does not say.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    version_of(&rustix::system::uname().release().to_string_lossy())
}

/// `6.18.44-cloud` -> (6, 18).
pub(crate) fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), minor) => (major, minor.unwrap_or(0)),
        _ => (0, 0),
    }
}

/// How the wall clock stood to the kernel's clock when this was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// Wall-clock time of moment 0, nanoseconds since the epoch.
    boot: i64,
}

impl Wall {
    #[must_use]
    pub fn now() -> Wall {
        // Of three tries the one least disturbed, as the two clocks cannot be
        // read at once.
        let tries = [(); 3].map(|()| {
            let before = now().0 as i64;
            let wall = nanoseconds(clock_gettime(ClockId::Realtime));
            let after = now().0 as i64;
            (after - before, wall - (before + (after - before) / 2))
        });
        let (_, boot) = tries.into_iter().min().unwrap_or_default();
        Wall { boot }
    }

    /// Follows a wall clock that was set, or went on while the machine slept. What
    /// two readings differ by otherwise is how well they can be taken.
    pub fn follow(&mut self) {
        self.follow_to(Wall::now());
    }

    fn follow_to(&mut self, now: Wall) {
        const SET: u64 = 1_000_000_000;
        if now.boot.abs_diff(self.boot) >= SET {
            *self = now;
        }
    }

    #[must_use]
    pub fn at(&self, moment: Moment) -> Timestamp {
        let since_epoch = self.boot.saturating_add_unsigned(moment.0);
        let second = since_epoch.div_euclid(1_000_000_000);
        let nanosecond = since_epoch.rem_euclid(1_000_000_000);
        // Nanoseconds in 64 bits end in 2262, which jiff can say.
        Timestamp::new(second, nanosecond as i32).unwrap_or(Timestamp::MAX)
    }
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_hz_follows_from_its_tick() {
        let ticks = [
            (100, 10_000_000),
            (250, 4_000_000),
            (300, 3_333_333),
            (1000, 1_000_000),
        ];
        for (hz, tick) in ticks {
            assert_eq!(hz_of(tick), hz);
        }
        assert!(
            [100, 250, 300, 1000].contains(&hz()),
            "this kernel says {} Hz",
            hz()
        );
    }

    #[test]
    fn versions_are_read_from_releases() {
        for (release, version) in [
            ("6.18.44-cloud-amd64", (6, 18)),
            ("5.10.0-32-amd64", (5, 10)),
            ("7.0-rc1", (7, 0)),
            ("6", (6, 0)),
            ("", (0, 0)),
            ("next", (0, 0)),
        ] {
            assert_eq!(version_of(release), version, "{release}");
        }
    }

    #[test]
    fn wall_clock_time_follows_the_moment() {
        let wall = Wall {
            boot: 1_700_000_000_000_000_000,
        };
        assert_eq!(
            wall.at(Moment(1_500_000_000)).to_string(),
            "2023-11-14T22:13:21.5Z"
        );
        let before = nanoseconds(clock_gettime(ClockId::Realtime)) as i128;
        let told = Wall::now().at(now()).as_nanosecond();
        let after = nanoseconds(clock_gettime(ClockId::Realtime)) as i128;
        // Half of the time between two readings is as well as it can be known.
        assert!(
            told >= before - 1_000_000 && told <= after + 1_000_000,
            "{before} {told} {after}"
        );
    }

    #[test]
    fn a_wall_clock_that_is_set_is_followed() {
        let of = |boot| Wall { boot };
        for (boot, followed) in [
            (7_000_100_000, 7_000_000_000),
            (7_999_999_999, 7_000_000_000),
            (8_000_000_000, 8_000_000_000),
            (3_000_000_000, 3_000_000_000),
        ] {
            let mut wall = of(7_000_000_000);
            wall.follow_to(of(boot));
            assert_eq!(wall, of(followed), "{boot}");
        }
        let mut wall = of(0);
        wall.follow();
        assert!(wall.boot > 0);
    }

    #[test]
    fn this_host_says_who_it_is() {
        let host = host().unwrap();
        assert_eq!(host.boot_id.len(), 36, "{host:?}");
        assert_ne!(kernel_version(), (0, 0), "{host:?}");
        let before = now();
        assert!(now() >= before);
    }
}
