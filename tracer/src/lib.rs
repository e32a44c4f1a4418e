//! twtrace: live TCP state counts and true TIME_WAIT lives. ARCHITECTURE.md is the map.

pub mod analysis;
pub mod cli;
pub mod kernel;
pub mod knowledge;
pub mod lab;
pub mod model;
pub mod options;
pub mod output;
pub mod printable;
pub mod recorder;
pub mod recording;
pub mod render;
pub mod selftest;
pub mod session;
pub mod units;
pub mod verbs;
