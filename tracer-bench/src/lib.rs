//! What the userspace side of twtrace costs, apart from any kernel: synthetic
//! records ([`stream`]), the work that is measured with them ([`work`]), and
//! how the ledger bears a crowd ([`scale`]). `cargo xtask instructions` and
//! `cargo xtask scale` run it.

pub mod scale;
pub mod stream;
pub mod work;
