//! `ci`: everything a change must pass, in the order in which it fails fastest.
//! `.ci/run` calls this and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output, run};
use crate::programs::{self, Program};
use crate::toolchain::{Toolchain, root};
use crate::{ebpf, fuzz, instructions, say, setup, suite, vm};

/// What the tests against the kernel call.
const NEEDED: [Program; 4] = [
    ("ss", "iproute2", "counts sockets independently of twtrace"),
    ("nft", "nftables", "redirects a SYN for the test of TPROXY"),
    ("sysctl", "procps", "sets what doctor foretells"),
    (
        "/usr/lib/systemd/systemd-sysctl",
        "systemd",
        "does that by rules of its own",
    ),
];

/// One that is not the machine's, and long in use; `cargo xtask vm` runs them all.
const OTHER_KERNEL: &str = "6.1";

/// Of each target.
const FUZZED_SECONDS: u64 = 60;

pub(crate) fn ci(target: &Path) -> Result<()> {
    programs::install(&NEEDED)?;
    programs::install(&instructions::NEEDED)?;
    programs::install(&[fuzz::COMPILER])?;
    let toolchain = Toolchain::current()?;
    vm::install(&toolchain, &[OTHER_KERNEL])?;
    heading("format")?;
    format(&toolchain)?;
    heading("links in the documentation")?;
    links()?;
    heading("tools of the kernel side")?;
    setup::setup(&toolchain, target)?;
    heading("lints")?;
    lint(&toolchain, target)?;
    heading("the eBPF object is what its sources give")?;
    ebpf::check(&toolchain, target)?;
    heading("instructions")?;
    instructions::instructions(target, false)?;
    heading("tests")?;
    suite::test(false)?;
    heading("other people's bytes")?;
    fuzz::fuzz(&toolchain, target, &fuzz::Options::of_all(FUZZED_SECONDS))?;
    heading("tests on another kernel")?;
    // The lane whose clock does not mind how busy the machine is.
    vm::vm(
        &[OTHER_KERNEL.to_owned()],
        Some(vm::LANES[0].name),
        None,
        None,
    )
}

pub(crate) fn lint(toolchain: &Toolchain, target: &Path) -> Result<()> {
    run(Command::new(&toolchain.cargo)
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
        .current_dir(root()))?;
    ebpf::lint(toolchain, target)
}

fn heading(what: &str) -> Result<()> {
    say(format_args!("\n== {what}"))
}

fn format(toolchain: &Toolchain) -> Result<()> {
    for manifest in ["Cargo.toml", "tracer-ebpf/Cargo.toml"] {
        run(Command::new(&toolchain.cargo)
            .args(["fmt", "--all", "--check", "--manifest-path", manifest])
            .current_dir(root()))?;
    }
    Ok(())
}

/// Every relative link of the committed Markdown leads to a file.
fn links() -> Result<()> {
    let pages = output(
        Command::new("git")
            .args(["ls-files", "*.md"])
            .current_dir(root()),
    )?;
    let mut dead = Vec::new();
    for page in pages.lines().map(PathBuf::from) {
        let text = fs::read_to_string(root().join(&page))
            .with_context(|| format!("cannot read {}", page.display()))?;
        for link in relative_links(&text) {
            let folder = page.parent().unwrap_or(Path::new(""));
            if !root().join(folder).join(link).exists() {
                dead.push(format!("{} -> {link}", page.display()));
            }
        }
    }
    if !dead.is_empty() {
        bail!("these links lead nowhere: {}", dead.join(", "));
    }
    Ok(())
}

fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let link = rest.split(')').next()?.split('#').next()?;
        (!link.is_empty() && !link.contains("://") && !link.starts_with("mailto:")).then_some(link)
    })
}

#[cfg(test)]
mod tests {
    use super::relative_links;

    #[test]
    fn only_what_lies_in_the_repository_is_looked_for() {
        let text =
            "[a](docs/a.md), [b](docs/b.md#part), [c](https://example.org/x), [d](#here), [e]";
        assert_eq!(
            relative_links(text).collect::<Vec<_>>(),
            ["docs/a.md", "docs/b.md"]
        );
    }
}
