//! A recording: what a run of the tracer saw, interval by interval, as values
//! and as JSON Lines. docs/recording.md is the promise about the format.
//!
//! [`cut`](Cutter) makes frames of snapshots, [`Sum`] makes totals of frames
//! again, [`Lines`] reads what a file holds and [`Recording`] keeps it. Pure:
//! files, sockets and clocks are known to `recorder`.

mod bounds;
mod course;
mod cut;
mod frame;
mod frames;
mod gate;
mod header;
mod line;
mod read;
#[cfg(test)]
pub(crate) mod sample;
mod sum;
mod weight;

pub use self::course::{Course, Row};
pub use self::cut::Cutter;
pub use self::frame::{
    Ages, Connect, Count, FinWait2Orphan, Frame, Kernel, Namespace, States, TimeWait,
};
pub use self::frames::{Frames, Reader, Stock};
pub use self::header::{Anchor, End, Ended, Header, NamespaceSettings, SysctlChange, Sysctls};
pub use self::line::Line;
pub use self::read::{LONGEST, Lines, ReadError, Recording, Stored, Torn};
pub use self::sum::Sum;

/// The version that is written, and the only one that is read.
pub const SCHEMA: &str = "twtrace.recording/1";
