//! Running other programs. An error carries the whole command, its environment
//! included, so that what failed can be tried by hand.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` with the terminal's streams.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("this command failed ({status}): {command:?}");
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to stdout; its stderr goes to ours.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, .. } = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("this command failed ({status}): {command:?}");
    }
    String::from_utf8(stdout)
        .with_context(|| format!("this command did not write UTF-8: {command:?}"))
}

/// Takes away what the outer cargo, or its caller, says about *its* build and
/// would silently change an inner one. What reaches a registry or a proxy stays.
pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const DROPPED: [&str; 6] = [
        "AYA_BPF_TARGET_ARCH",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
    ];
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_cargo = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
        if of_cargo || DROPPED.contains(&name) {
            command.env_remove(name);
        }
    }
    // Empty rather than absent: that also overrules a wrapper in a config file.
    command
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
}
