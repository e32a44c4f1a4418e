//! Which mutants there are, which of them are run, and which are known to be
//! equivalent. Pure, but for the one file that is read.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    /// Its place in the list.
    pub(crate) index: usize,
    /// `FILE:LINE:COLUMN: what is replaced by what, in which function`.
    pub(crate) name: String,
    /// Its name without line and column, which change whenever something else does.
    kind: String,
    /// How many of the same kind stand before it.
    earlier: usize,
    /// The first line that it changes, as it then reads.
    becomes: String,
}

/// One that is run, or would be if it were not known to be equivalent.
#[derive(Debug)]
pub(crate) struct Drawn<'a> {
    pub(crate) mutant: &'a Mutant,
    pub(crate) equivalent: bool,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    diff: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Equivalent {
    /// The mutant's name, without line and column.
    mutant: String,
    /// The line that it changes, as it then reads, where several share the name.
    becomes: Option<String>,
    reason: String,
}

impl Equivalent {
    fn is(&self, mutant: &Mutant) -> bool {
        self.mutant == mutant.kind
            && self
                .becomes
                .as_ref()
                .is_none_or(|line| *line == mutant.becomes)
    }
}

/// What `cargo mutants --list --json` wrote.
pub(crate) fn parse(listed: &str) -> Result<Vec<Mutant>> {
    let listed: Vec<Listed> =
        serde_json::from_str(listed).context("cargo-mutants listed no mutants that can be read")?;
    let mut seen: HashMap<String, usize> = HashMap::new();
    listed
        .into_iter()
        .enumerate()
        .map(|(index, Listed { name, diff })| {
            let kind = without_position(&name)
                .with_context(|| format!("the mutant {name:?} names no line and column"))?;
            let earlier = seen.entry(kind.clone()).or_default();
            let mutant = Mutant {
                index,
                becomes: changed_line(&diff),
                earlier: *earlier,
                name,
                kind,
            };
            *earlier += 1;
            Ok(mutant)
        })
        .collect()
}

/// `a.rs: b` of `a.rs:12:3: b`.
fn without_position(name: &str) -> Option<String> {
    let (position, what) = name.split_once(": ")?;
    let (rest, _column) = position.rsplit_once(':')?;
    let (file, _line) = rest.rsplit_once(':')?;
    Some(format!("{file}: {what}"))
}

fn changed_line(diff: &str) -> String {
    let added = diff
        .lines()
        .skip(2)
        .find_map(|line| line.strip_prefix('+'))
        .unwrap_or_default();
    added
        .replace(" /* ~ changed by cargo-mutants ~ */", "")
        .trim()
        .to_owned()
}

/// Whether each of `mutants` is known to be equivalent, by its index. An entry
/// that fits none of them is an error: its code is gone.
pub(crate) fn equivalent(file: &Path, mutants: &[Mutant]) -> Result<Vec<bool>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    matching(&text, mutants).with_context(|| format!("in {}", file.display()))
}

fn matching(text: &str, mutants: &[Mutant]) -> Result<Vec<bool>> {
    let known: Vec<Equivalent> = serde_json::from_str(text).context("it cannot be read")?;
    for entry in &known {
        if entry.reason.trim().is_empty() {
            bail!("no reason is given for {:?}", entry.mutant);
        }
        if !mutants.iter().any(|mutant| entry.is(mutant)) {
            bail!(
                "there is no such mutant any more: {:?} {:?}",
                entry.mutant,
                entry.becomes.as_deref().unwrap_or_default()
            );
        }
    }
    Ok(mutants
        .iter()
        .map(|mutant| known.iter().any(|entry| entry.is(mutant)))
        .collect())
}

/// A sample of those whose names contain `only`. Each mutant's place in the draw
/// depends on the seed and on itself, so that a seed draws almost the same
/// sample after the code around it has changed.
pub(crate) fn draw<'a>(
    mutants: &'a [Mutant],
    equivalent: &[bool],
    seed: u32,
    size: usize,
    only: Option<&str>,
) -> Vec<Drawn<'a>> {
    let mut ranked: Vec<([u8; 32], &Mutant)> = mutants
        .iter()
        .filter(|mutant| only.is_none_or(|part| mutant.name.contains(part)))
        .map(|mutant| (rank(seed, mutant), mutant))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
        .into_iter()
        .take(size)
        .map(|(_, mutant)| Drawn {
            mutant,
            equivalent: equivalent[mutant.index],
        })
        .collect()
}

fn rank(seed: u32, Mutant { kind, earlier, .. }: &Mutant) -> [u8; 32] {
    Sha256::digest(format!("{seed}\n{kind}\n{earlier}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str, from: &str, to: &str) -> serde_json::Value {
        let diff = format!(
            "--- a.rs\n+++ {name}\n@@ -1,3 +1,3 @@\n fn f() {{\n-    {from}\n+    {to}\n }}\n"
        );
        serde_json::json!({ "name": name, "diff": diff, "genre": "BinaryOperator" })
    }

    fn two_alike() -> Vec<Mutant> {
        let listed = serde_json::json!([
            mutant(
                "a.rs:2:7: replace < with <= in f",
                "if a < b {",
                "if a <= /* ~ changed by cargo-mutants ~ */ b {"
            ),
            mutant(
                "a.rs:9:7: replace < with <= in f",
                "if c < d {",
                "if c <= /* ~ changed by cargo-mutants ~ */ d {"
            ),
        ]);
        parse(&listed.to_string()).unwrap()
    }

    fn drawn(mutants: &[Mutant], seed: u32, size: usize) -> Vec<String> {
        let equivalent = vec![false; mutants.len()];
        draw(mutants, &equivalent, seed, size, None)
            .iter()
            .map(|drawn| format!("{} {}", drawn.mutant.kind, drawn.mutant.becomes))
            .collect()
    }

    #[test]
    fn a_seed_draws_the_same_mutants_wherever_they_have_moved() {
        let name = |line: usize, what: usize| format!("a.rs:{line}:5: replace {what} with 0 in f");
        let list = |moved: usize| {
            let listed: Vec<_> = (0..200)
                .map(|what| mutant(&name(what + moved, what), &what.to_string(), "0"))
                .collect();
            parse(&serde_json::Value::from(listed).to_string()).unwrap()
        };
        assert_eq!(drawn(&list(1), 7, 20), drawn(&list(100), 7, 20));
        assert_ne!(drawn(&list(1), 7, 20), drawn(&list(1), 8, 20));
        assert_eq!(drawn(&list(1), 7, 500).len(), 200);
    }

    #[test]
    fn one_of_two_alike_is_equivalent_by_its_line() {
        let known = r#"[{ "mutant": "a.rs: replace < with <= in f", "becomes": "if c <= d {", "reason": "c is never d" }]"#;
        assert_eq!(matching(known, &two_alike()).unwrap(), [false, true]);
    }

    #[test]
    fn an_entry_whose_code_is_gone_is_an_error() {
        let known = r#"[{ "mutant": "a.rs: replace < with <= in f", "becomes": "if e <= d {", "reason": "e is never d" }]"#;
        let error = matching(known, &two_alike()).unwrap_err().to_string();
        assert!(error.contains("no such mutant"), "{error}");
    }
}
