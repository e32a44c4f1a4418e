//! The command line as a user meets it: help, mistakes, exit codes. What runs
//! here needs no privileges and touches no kernel.

use std::process::{Command, Output};

use clap::{CommandFactory as _, Parser as _};
use tracer::cli::Cli;

fn twtrace(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .args(words)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// The help of a verb, or of all, on a terminal of 80 columns.
fn help(verb: Option<&str>) -> String {
    let mut command = Cli::command().term_width(80);
    command.build();
    let command = match verb {
        Some(verb) => command.find_subcommand_mut(verb).unwrap(),
        None => &mut command,
    };
    command.render_long_help().to_string()
}

#[test]
fn the_manual_of_all() {
    insta::assert_snapshot!(help(None));
}

#[test]
fn the_manual_of_live() {
    insta::assert_snapshot!(help(Some("live")));
}

#[test]
fn the_manual_of_events() {
    insta::assert_snapshot!(help(Some("events")));
}

#[test]
fn the_manual_of_doctor() {
    insta::assert_snapshot!(help(Some("doctor")));
}

#[test]
fn the_manual_of_lab() {
    insta::assert_snapshot!(help(Some("lab")));
}

#[test]
fn the_manual_of_explain() {
    insta::assert_snapshot!(help(Some("explain")));
}

#[test]
fn the_manual_of_record() {
    insta::assert_snapshot!(help(Some("record")));
}

#[test]
fn the_manual_of_report() {
    insta::assert_snapshot!(help(Some("report")));
}

#[test]
fn the_manual_of_compare() {
    insta::assert_snapshot!(help(Some("compare")));
}

#[test]
fn the_manual_of_trial() {
    insta::assert_snapshot!(help(Some("trial")));
}

#[test]
fn the_short_help_fits_a_screen_or_two() {
    let short = Cli::command().term_width(80).render_help().to_string();
    assert!(
        short.lines().count() <= 64,
        "{} lines:\n{short}",
        short.lines().count()
    );
}

#[test]
fn help_and_version_are_answers() {
    for words in [
        &["--help"][..],
        &["live", "--help"],
        &["--version"],
        &["help", "events"],
    ] {
        let output = twtrace(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
    let version = String::from_utf8(twtrace(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        concat!("twtrace ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_mistake_is_an_error_in_a_sentence() {
    for (words, sentence) in [
        (
            &["--state", "waiting"][..],
            "\"waiting\" is no TCP state that is counted",
        ),
        (&["events", "--dst", "db01"], "\"db01\" is no IP address"),
        (&["--dst", "10.0.0.0/40"], "is no number from 0 to 32"),
        (
            &["--sport", "70000"],
            "write a number from 0 to 65535, such as 443",
        ),
        (&["--interval", "90"], "such as 500ms, 90s or 2m30s"),
        (&["--interval", "1ms"], "take 10 ms or more"),
        (&["--count", "0"], "write 1 or more"),
        (&["--ring-size", "3M"], "take 4M instead of 3M"),
        (&["--netns", "0"], "is no inode number of a namespace"),
        (
            &["--log-level", "loud"],
            "[possible values: off, error, warn, info, debug, trace]",
        ),
        (&["--plain", "--json"], "cannot be used with"),
        (&["trail"], "trail"),
    ] {
        let output = twtrace(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(sentence), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
    }
}

/// The command lines in the code blocks of a page of Markdown, without what a
/// shell makes of the rest of the line.
fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside && line.split_whitespace().next() == Some("twtrace") {
            commands.push(line.split(['#', '|']).next().unwrap_or(line).trim_end());
        }
    }
    commands
}

#[test]
fn the_readme_shows_commands_that_are_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let page = std::fs::read_to_string(path).unwrap();
    let commands = commands(&page);
    assert!(commands.len() >= 5, "only {commands:?}");
    for command in commands {
        // Where quotes are needed, words are not what lies between spaces.
        assert!(!command.contains(['\'', '"']), "quoted: {command}");
        if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
            panic!("README.md shows {command:?}, but {error}");
        }
    }
}

/// Its reader has gone: a normal end, whatever there was left to say.
#[test]
fn a_closed_pipe_is_a_normal_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_twtrace"))
        .args(["doctor", "--json"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
