//! Value in, text out: snapshots and happenings as people and programs read them.
//!
//! Nothing here asks the kernel, the time, the terminal or the environment;
//! what a renderer needs of these it is given. The same values give the same
//! bytes.

pub mod comparison;
pub mod events;
pub mod explain;
pub mod findings;
pub mod json;
pub mod line;
pub mod live;
pub mod report;
pub mod terminal;
pub mod text;
