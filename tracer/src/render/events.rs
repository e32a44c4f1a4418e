//! Happenings, one line each: text for people ([`Text`]), `twtrace.event/1`
//! for programs ([`Json`]).
//!
//! Which happenings are worth a line is decided before they come here.

mod json;
mod text;

use std::io;

pub use self::json::{Json, SCHEMA};
pub use self::text::{Show, Text};

use jiff::Timestamp;

use crate::model::happening::Happening;
use crate::model::snapshot::Lost;

/// Where events go, a line each. A line need not have arrived before a `flush`.
pub trait Happenings {
    /// `time` is the happening's moment on the calendar, `cgroup` the path of
    /// its owner's cgroup below the cgroup v2 mount.
    fn happening(
        &mut self,
        happening: &Happening,
        time: Timestamp,
        cgroup: Option<&str>,
    ) -> io::Result<()>;

    /// What has been lost since the start of the run; told when it grew.
    fn lost(&mut self, time: Timestamp, lost: &Lost) -> io::Result<()>;

    fn flush(&mut self) -> io::Result<()>;
}
