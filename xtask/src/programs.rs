//! The programs of others that a verb calls. CI installs what is missing; on a
//! contributor's machine nothing is installed that nobody asked for.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::run;
use crate::say;

/// Its name or path, its Debian package, and what for.
pub(crate) type Program = (&'static str, &'static str, &'static str);

/// Fails with the command that installs what is missing.
pub(crate) fn require(needed: &[Program]) -> Result<()> {
    let missing = missing(needed)?;
    if !missing.is_empty() {
        bail!(
            "this lacks what stands above: apt-get install {}",
            Vec::from_iter(missing).join(" ")
        );
    }
    Ok(())
}

/// Installs what is missing.
pub(crate) fn install(needed: &[Program]) -> Result<()> {
    let missing = missing(needed)?;
    if missing.is_empty() {
        return Ok(());
    }
    run(Command::new("apt-get").arg("update"))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(missing))
}

/// The packages of those that are missing, each of which is named.
fn missing(needed: &[Program]) -> Result<BTreeSet<&'static str>> {
    let mut packages = BTreeSet::new();
    for &(program, package, purpose) in needed {
        if !on_path(program) {
            say(format_args!(
                "{program} is missing: it {purpose}; it is in the package {package}"
            ))?;
            packages.insert(package);
        }
    }
    Ok(packages)
}

fn on_path(program: &str) -> bool {
    // What is absolute stays so, whatever it is joined to.
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}
