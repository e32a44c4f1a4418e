//! A rustc that does not know in which folder it works.
//!
//! cargo tells crates apart by a hash (`-C metadata`) over, among other
//! things, the absolute path of every path dependency outside the package's
//! own workspace, and rustc puts that hash into symbol names, where no
//! `--remap-path-prefix` reaches. So the inner cargo calls rustc through
//! this: what goes into the object gets its name for a hash instead. In one
//! object no two crates have the same name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set where the program was started as cargo's `RUSTC_WRAPPER`.
pub(crate) const ROLE: &str = "TWTRACE_XTASK_IS_RUSTC";

/// Becomes the compiler that the arguments name first. Returns only if that failed.
pub(crate) fn become_rustc(target: &str) -> io::Error {
    let mut arguments = std::env::args_os().skip(1);
    let Some(compiler) = arguments.next() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "cargo named no compiler");
    };
    Command::new(compiler)
        .args(anonymous(arguments.collect(), target))
        .env_remove(ROLE)
        .exec()
}

/// Build scripts and macros, which run on the host and leave no trace in the
/// object, keep their hashes: of those there are many with one name.
fn anonymous(mut arguments: Vec<OsString>, target: &str) -> Vec<OsString> {
    let of = |flag: &str| {
        arguments
            .windows(2)
            .find(|pair| pair[0] == flag)
            .map(|pair| pair[1].clone())
    };
    if of("--target").as_deref() != Some(OsStr::new(target)) {
        return arguments;
    }
    let Some(name) = of("--crate-name") else {
        return arguments;
    };
    for argument in &mut arguments {
        if argument
            .to_str()
            .is_some_and(|argument| argument.starts_with("metadata="))
        {
            *argument = OsString::from("metadata=");
            argument.push(&name);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(arguments: &str) -> String {
        let arguments = arguments.split(' ').map(OsString::from).collect();
        anonymous(arguments, "bpfel-unknown-none")
            .join(OsStr::new(" "))
            .into_string()
            .expect("it was UTF-8")
    }

    #[test]
    fn crates_of_the_object_are_told_apart_by_name_alone() {
        assert_eq!(
            after(
                "--crate-name core lib.rs -C metadata=01ab -C extra-filename=-77 --target bpfel-unknown-none"
            ),
            "--crate-name core lib.rs -C metadata=core -C extra-filename=-77 --target bpfel-unknown-none"
        );
    }

    #[test]
    fn what_runs_on_the_host_keeps_its_hash() {
        let build_script = "--crate-name build_script_build build.rs -C metadata=01ab";
        assert_eq!(after(build_script), build_script);
    }

    #[test]
    fn a_question_without_a_crate_is_passed_on() {
        let question = "- --crate-type bin --print=sysroot --target bpfel-unknown-none";
        assert_eq!(after(question), question);
    }
}
