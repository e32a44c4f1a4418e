//! Other people's bytes, against everything that reads them: one function for
//! each kind. None may panic on any input, sums that wrap included, nor take
//! long; and what each asserts besides holds for every input.
//!
//! libFuzzer calls them (`fuzz_targets`, built by `cargo xtask fuzz` alone), and
//! so does an ordinary test with the inputs in `corpus`.

mod btf;
mod input;
mod json;
mod kallsyms;
mod mountinfo;
mod proc;
mod recording;
mod records;
mod sysctl_d;

#[path = "../../tracer/tests/identities/mod.rs"]
mod identities;

pub use self::btf::btf;
pub use self::json::mutate_lines;
pub use self::kallsyms::kallsyms;
pub use self::mountinfo::mountinfo;
pub use self::proc::proc;
pub use self::recording::recording;
pub use self::records::records;
pub use self::sysctl_d::sysctl_d;

/// Panics where something is wrong.
pub type Target = fn(&[u8]);

/// By name, which is that of the program in `fuzz_targets` and of the folder in
/// `corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("recording", recording),
    ("records", records),
    ("btf", btf),
    ("kallsyms", kallsyms),
    ("mountinfo", mountinfo),
    ("sysctl_d", sysctl_d),
    ("proc", proc),
];
