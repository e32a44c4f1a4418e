//! twtrace: live TCP state counts and true TIME_WAIT lives. ARCHITECTURE.md is the map.

pub mod model;
