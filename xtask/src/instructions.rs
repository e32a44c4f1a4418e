//! `instructions`: how many instructions userspace spends on an event, a socket,
//! a line. The same on a busy machine as on an idle one, so that CI can judge
//! by it, which it never does by times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{output, run};
use crate::programs::{self, Program};
use crate::say;
use crate::toolchain::root;

pub(crate) const NEEDED: [Program; 1] = [("valgrind", "valgrind", "counts instructions")];

/// The counts that were accepted last, each for one unit of its work.
const MARKS: &str = "tracer-bench/instructions.json";

/// The most above its mark that a count may be. The next release of a compiler
/// moves it, another CPU hardly does.
const TOLERATED: f64 = 1.05;

/// As far below its mark, a count wants a new one.
const IMPROVED: f64 = 0.95;

/// What is counted lies inside this function.
const COUNTED: &str = "*tracer_bench::work::Work::run*";

/// One kind of work and what it costs.
#[derive(Debug, PartialEq)]
struct Count {
    name: String,
    unit: String,
    /// Instructions for one unit.
    each: f64,
}

pub(crate) fn instructions(target: &Path, update: bool) -> Result<()> {
    programs::require(&NEEDED)?;
    let program = build(target)?;
    let marks = marks()?;
    let counts = count_all(&program)?;
    say(format_args!("{}", table(&counts, &marks)))?;
    if update {
        let new: BTreeMap<&str, u64> = counts
            .iter()
            .map(|count| (count.name.as_str(), count.each.round() as u64))
            .collect();
        let text = serde_json::to_string_pretty(&new)? + "\n";
        fs::write(root().join(MARKS), text).with_context(|| format!("cannot write {MARKS}"))?;
        return say(format_args!("{MARKS} is written"));
    }
    let objections = objections(&counts, &marks);
    ensure!(
        objections.is_empty(),
        "{}; where that is meant, `cargo xtask instructions --update` notes it",
        objections.join("; ")
    );
    Ok(())
}

/// Built by a profile of its own, which is sooner done than a release.
pub(crate) fn build(target: &Path) -> Result<PathBuf> {
    run(Command::new("cargo")
        .args(["build", "--profile", "counted", "--locked"])
        .args(["--package", "tracer-bench", "--bin", "tracer-bench"])
        .current_dir(root()))?;
    Ok(target.join("counted/tracer-bench"))
}

fn marks() -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(root().join(MARKS))
        .with_context(|| format!("cannot read {MARKS}, which `--update` writes"))?;
    serde_json::from_str(&text).with_context(|| format!("{MARKS} is no JSON of counts"))
}

fn count_all(program: &Path) -> Result<Vec<Count>> {
    let list = output(Command::new(program).arg("count"))?;
    list.lines()
        .map(|line| {
            let [name, unit, units] = line.split(' ').collect::<Vec<_>>()[..] else {
                bail!("{} wrote {line:?}", program.display());
            };
            let units: u64 = units.parse().context("a number of units")?;
            Ok(Count {
                name: name.to_owned(),
                unit: unit.to_owned(),
                each: count(program, name)? as f64 / units as f64,
            })
        })
        .collect()
}

fn count(program: &Path, name: &str) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args(["count", name])
        .stdout(Stdio::null());
    let ended = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success(),
        "this command failed ({}): {command:?}\n{said}",
        ended.status
    );
    collected(&said)
        .filter(|&instructions| instructions > 0)
        .with_context(|| format!("{command:?} counted nothing:\n{said}"))
}

/// `==7== Collected : 123`.
fn collected(said: &str) -> Option<u64> {
    said.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn objections(counts: &[Count], marks: &BTreeMap<String, u64>) -> Vec<String> {
    let mut all: Vec<String> = counts
        .iter()
        .filter_map(|Count { name, unit, each }| match marks.get(name) {
            None => Some(format!("{name} has no mark in {MARKS}")),
            Some(&mark) if *each > mark as f64 * TOLERATED => Some(format!(
                "{name} takes {each:.0} instructions a {unit}, {mark} are its mark"
            )),
            Some(_) => None,
        })
        .collect();
    let gone = |name: &&String| counts.iter().all(|count| count.name != **name);
    all.extend(
        marks
            .keys()
            .filter(gone)
            .map(|name| format!("{name} has a mark in {MARKS} and is not counted")),
    );
    all
}

fn table(counts: &[Count], marks: &BTreeMap<String, u64>) -> String {
    let mut lines = vec![
        "| work | instructions | for each | mark | |".to_owned(),
        "| --- | ---: | --- | ---: | --- |".to_owned(),
    ];
    lines.extend(counts.iter().map(|Count { name, unit, each }| {
        let mark = marks.get(name);
        let verdict = match mark {
            Some(&mark) if *each > mark as f64 * TOLERATED => "too many",
            Some(&mark) if *each < mark as f64 * IMPROVED => "fewer: note it with --update",
            Some(_) => "",
            None => "new",
        };
        let mark = mark.map_or_else(|| "–".to_owned(), u64::to_string);
        format!("| {name} | {each:.0} | {unit} | {mark} | {verdict} |")
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, each: f64) -> Count {
        Count {
            name: name.to_owned(),
            unit: "line".to_owned(),
            each,
        }
    }

    #[test]
    fn what_valgrind_collected_is_found() {
        let said = "==7== \n==7== Events    : Ir\n==7== Collected : 9876543\n==7== \n";
        assert_eq!(collected(said), Some(9_876_543));
        assert_eq!(collected("==7== Events : Ir\n"), None);
    }

    #[test]
    fn more_than_the_mark_tolerates_is_objected_to_and_so_is_what_has_none() {
        let marks = BTreeMap::from([("a".to_owned(), 100), ("gone".to_owned(), 5)]);
        let within = [count("a", 104.0), count("gone", 1.0)];
        assert_eq!(objections(&within, &marks), Vec::<String>::new());
        let beyond = objections(&[count("a", 106.0), count("new", 1.0)], &marks);
        assert_eq!(
            beyond,
            [
                "a takes 106 instructions a line, 100 are its mark",
                "new has no mark in tracer-bench/instructions.json",
                "gone has a mark in tracer-bench/instructions.json and is not counted",
            ]
        );
    }

    #[test]
    fn a_table_says_how_each_stands_to_its_mark() {
        let marks = BTreeMap::from([("a".to_owned(), 100), ("b".to_owned(), 100)]);
        let table = table(
            &[count("a", 120.2), count("b", 80.0), count("c", 1.0)],
            &marks,
        );
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| a | 120 | line | 100 | too many |",
                "| b | 80 | line | 100 | fewer: note it with --update |",
                "| c | 1 | line | – | new |",
            ]
        );
    }
}
