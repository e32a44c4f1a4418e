//! What the numbers of a recording can be: far beyond what a machine does, and
//! close enough that no sum can wrap (docs/recording.md, "What is refused").
//!
//! Which member has which bound is [`super::gate`]'s affair.

use std::fmt::{self, Arguments};

/// The least and the most that a number can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) least: f64,
    pub(super) most: f64,
    /// What the most would be.
    pub(super) why: &'static str,
}

const fn up_to(most: f64, why: &'static str) -> Bound {
    Bound {
        least: 0.0,
        most,
        why,
    }
}

/// A machine's life; `CLOCK_MONOTONIC` does not begin anew before a boot.
pub(super) const SPAN: Bound = up_to(10.0 * 365.0 * 86_400.0, "ten years");

/// The timer of a TIME_WAIT: a minute in mainline, and as much as ten in the
/// kernels of vendors.
pub(super) const TIMER: Bound = up_to(3600.0, "an hour");

/// `CONFIG_HZ` is between 24 and 1200 on whatever runs Linux.
pub(super) const TICKS: Bound = Bound {
    least: 1.0,
    most: 10_000.0,
    why: "ten times what any kernel has",
};

/// What there may be at a time. A TIME_WAIT takes 256 bytes: so many take a
/// terabyte of a kernel's memory.
pub(super) const SOCKETS: Bound = up_to((1_u64 << 32) as f64, "a terabyte of TIME_WAITs");

/// What one frame counts, and more than what is believed of the kernel's counters.
pub(super) const COUNT: Bound = up_to((1_u64 << 48) as f64, "a million a second for nine years");

/// What all frames count together, signs left aside: a million a second for
/// thirty thousand years. Any part of it fits any integer that it is added up in.
pub(super) const TOTAL: Bound = up_to(
    (1_u64 << 60) as f64,
    "a million a second for thirty thousand years",
);

/// So many sockets for so long.
pub(super) const SOCKET_SECONDS: Bound = up_to(1e18, "all sockets there can be, for seven years");

/// Ports there are.
pub(super) const PORTS: Bound = up_to(65_536.0, "all ports there are");

/// Of a second.
pub(super) const RATE: Bound = up_to(1e9, "a connection a nanosecond");

/// A rate that dies away foretells the end of the ports ever later.
pub(super) const EVER: Bound = up_to(f64::MAX, "for ever");

/// Edges of bands: ten below 2MSL, its own two, and RFC 9293's.
pub(super) const BANDS: usize = 16;

/// Reasons of an end: there are nine. Steps from state to state: eleven times ten.
pub(super) const REASONS: usize = 64;
pub(super) const TRANSITIONS: usize = 256;

/// An HDR histogram of three figures has 23,552 places up to an hour.
pub(super) const PLACES: usize = 1 << 15;

/// The bands change when an arming shows where the kernel's 2MSL lies, and each
/// change puts all lives into bands again. Where two are at work it may change
/// with every frame; but such a frame tells of lives, and takes a kilobyte.
pub(super) const BAND_CHANGES_AT_LEAST: u64 = 100;
pub(super) const BAND_CHANGE_BYTES: u64 = 256;

/// Of the kernel's counters: fourteen are recorded.
pub(super) const COUNTERS: usize = 64;

/// A hundred a second are the most that can be asked for; one that is late is
/// followed by the next too soon.
pub(super) const FRAMES_PER_S: f64 = 200.0;
pub(super) const FRAMES_SOON: f64 = 1_000.0;

/// A frame takes some forty bytes on the disk where nothing happens, and half of
/// that in a file that was packed as a whole.
pub(super) const FRAMES_AT_LEAST: u64 = 10_000;
pub(super) const FRAME_BYTES: u64 = 8;

/// Times are told to the microsecond.
pub(super) const ROUNDING_S: f64 = 0.001;

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) member: String,
    /// As a clause.
    pub(super) why: String,
}

impl Breach {
    pub(super) fn of(member: Arguments<'_>, why: impl Into<String>) -> Breach {
        Breach {
            member: member.to_string(),
            why: why.into(),
        }
    }
}

pub(super) type Checked = Result<(), Breach>;

impl Bound {
    pub(super) fn check(&self, member: Arguments<'_>, value: f64) -> Checked {
        // Not a number is in no range.
        if (self.least..=self.most).contains(&value) {
            return Ok(());
        }
        // Nobody counts three hundred zeros.
        let value = if value.abs() < 1e18 {
            value.to_string()
        } else {
            format!("{value:e}")
        };
        Err(Breach::of(member, format!("{value} is {}", self.not_in())))
    }

    /// `not from 0 to 3600 (an hour)`.
    pub(super) fn not_in(&self) -> String {
        let Bound { least, most, why } = self;
        format!("not from {least} to {most} ({why})")
    }

    pub(super) fn number(&self, member: Arguments<'_>, value: u64) -> Checked {
        self.check(member, value as f64)
    }
}

pub(super) fn no_more(member: Arguments<'_>, length: usize, most: usize) -> Checked {
    if length <= most {
        return Ok(());
    }
    Err(Breach::of(
        member,
        format!("it has {length} members, and no run gives it {most}"),
    ))
}

pub(super) fn same_length(member: &str, one: (&str, usize), other: (&str, usize)) -> Checked {
    if one.1 == other.1 {
        return Ok(());
    }
    Err(Breach::of(
        format_args!("{member}.{}", other.0),
        format!("it has {} members, and {} has {}", other.1, one.0, one.1),
    ))
}

pub(super) fn ascending<T: PartialOrd + fmt::Display>(
    member: &str,
    name: &str,
    values: &[T],
) -> Checked {
    match values.windows(2).position(|two| two[0] >= two[1]) {
        None => Ok(()),
        Some(at) => Err(Breach::of(
            format_args!("{member}.{name}[{}]", at + 1),
            format!("{} does not follow {}", values[at + 1], values[at]),
        )),
    }
}
