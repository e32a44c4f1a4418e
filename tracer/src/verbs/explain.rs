//! `twtrace explain`: finds what a word means, and what it is set to here.
//!
//! It needs no privileges: namespaces that may not be entered are left out.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::live::CANNOT_WRITE;
use crate::kernel::netns::{self, Search};
use crate::kernel::{clock, sysctl};
use crate::knowledge::states;
use crate::knowledge::sysctls::{self, Sysctl};
use crate::options::ExplainOptions;
use crate::output;
use crate::render::explain::{self, Found};
use crate::render::line::Line;

/// A line longer than this is hard to read, however wide the terminal.
const WIDEST: usize = 100;

/// Where the standard output is no terminal.
const USUAL: usize = 80;

/// Prints what is known of the word, or the list of what there is.
pub fn run(options: &ExplainOptions) -> Result<()> {
    let width = output::size().map_or(USUAL, |size| size.columns.min(WIDEST));
    let lines = match options.word.as_deref() {
        None => explain::list(width),
        Some(word) => page(word, width)?,
    };
    output::stdout(options.color)
        .page(&lines)
        .context(CANNOT_WRITE)
}

fn page(word: &str, width: usize) -> Result<Vec<Line>> {
    // As in sysctl.conf: what a key is set to there says nothing of its meaning.
    let name = word.split('=').next().unwrap_or(word).trim();
    if let Some(meaning) = states::find(name) {
        return Ok(explain::state(meaning, clock::hz(), width));
    }
    if let Some(key) = sysctls::find(name) {
        let kernel = clock::kernel_version();
        return Ok(explain::sysctl(key, &found(key), kernel, width));
    }
    let is_sysctl = |below: &str| {
        let path = format!("/proc/sys/{below}{}", path(name));
        fs::metadata(path).is_ok_and(|file| file.is_file())
    };
    if is_sysctl("") || is_sysctl("net/ipv4/") {
        bail!(
            "{name} is a sysctl of this kernel, but what it does to connections was not studied; \
             `twtrace explain` lists what was"
        );
    }
    let nearest = nearest(name);
    let nearest = match nearest.split_last() {
        Some((last, [])) => format!("did you mean {last}?"),
        Some((last, others)) => format!("did you mean {} or {last}?", others.join(", ")),
        None => "`twtrace explain` lists what there is".to_owned(),
    };
    bail!("{name:?} is no TCP state and no sysctl that bears on them; {nearest}");
}

/// Below `/proc/sys`.
fn path(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    sysctls::dotted(name).chars().map(swap).collect()
}

/// What a key is set to here, and elsewhere as far as we may look.
fn found(key: &Sysctl) -> Found {
    let value = |values: &sysctl::Values| values.get(key.key()).cloned();
    let mut found = Found {
        here: sysctl::studied_here().ok().as_ref().and_then(value),
        ..Found::default()
    };
    let own = netns::current().map(|own| own.inode).unwrap_or_default();
    let mut namespaces = netns::enumerate(Search::Everywhere).unwrap_or_default();
    namespaces.retain(|namespace| namespace.inode != own);
    let read = sysctl::studied(&namespaces).unwrap_or_default();
    for (namespace, values) in namespaces.iter().zip(read) {
        let Some(there) = values.ok().as_ref().and_then(value) else {
            continue;
        };
        found.others += 1;
        if Some(&there) == found.here.as_ref() {
            continue;
        }
        let name = crate::units::namespace(namespace.inode, namespace.name.as_deref());
        match found.elsewhere.iter_mut().find(|(v, _)| *v == there) {
            Some((_, names)) => names.push(name),
            None => found.elsewhere.push((there, vec![name])),
        }
    }
    found
}

/// At most three names that are spelled much like `word`, the nearest first.
fn nearest(word: &str) -> Vec<&'static str> {
    const ALIKE: f64 = 0.75;
    /// One this much less alike than the nearest is not what was meant.
    const BEHIND: f64 = 0.08;
    let word = word.to_ascii_lowercase().replace('-', "_");
    let word = word.rsplit(['.', '/']).next().unwrap_or(&word);
    let states = states::ALL.iter().map(|meaning| meaning.state.name());
    let mut names: Vec<(f64, &str)> = states
        .chain(sysctls::ALL.iter().map(Sysctl::key))
        .map(|name| (strsim::jaro_winkler(word, &name.to_ascii_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.truncate(3);
    let nearest = names.first().map_or(1.0, |(alike, _)| *alike);
    names.retain(|(alike, _)| *alike >= nearest - BEHIND);
    names.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelled_is_found_nearby() {
        for (word, meant) in [
            ("TIMEWAITS", "TIME_WAIT"),
            ("fin_wait", "FIN_WAIT1"),
            ("tcp_tw_reus", "tcp_tw_reuse"),
            ("net.ipv4.tcp_fin_timout", "tcp_fin_timeout"),
            ("max_tw_buckets", "tcp_max_tw_buckets"),
        ] {
            let nearest = nearest(word);
            assert!(nearest.contains(&meant), "{word}: {nearest:?}");
        }
        assert_eq!(nearest("tcp_max_tw_bucket"), ["tcp_max_tw_buckets"]);
        assert_eq!(nearest("xyzzy"), Vec::<&str>::new());
    }

    #[test]
    fn a_key_that_was_not_studied_is_told_from_no_key() {
        let said = |word| page(word, 80).unwrap_err().to_string();
        assert!(said("net.ipv4.tcp_ecn").contains("was not studied"));
        assert!(said("net.ipv4.no_such_key").contains("no sysctl"));
    }

    #[test]
    fn a_value_behind_a_key_is_left_aside() {
        assert!(page("net.ipv4.tcp_fin_timeout = 30", 80).is_ok());
        assert!(page("net/ipv4/tcp_fin_timeout", 80).is_ok());
    }
}
