//! Everything that touches the kernel: its facts (type information, symbols,
//! namespaces, sysctls, counters) and the programs that watch it.
//!
//! Values leave this room in the terms of `model`; nothing in `model` comes here.

mod batches;
pub mod btf;
pub mod cgroup;
pub mod cgroup_v1;
pub mod clock;
pub mod counters;
pub mod decode;
pub mod isolation;
pub mod kallsyms;
mod mapped;
pub mod merge;
pub mod mountinfo;
pub mod netns;
mod open;
pub mod requirements;
mod ring;
pub mod slab;
pub mod sysctl;
pub mod sysctl_d;
pub mod tracer;
pub mod user;
pub mod walk;
