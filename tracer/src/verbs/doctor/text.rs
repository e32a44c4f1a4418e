//! The doctor's answer as a page for people.
//!
//! Pure: a report in, lines out. What is wrong comes with what to do about it,
//! and what is foretold with the rate it rests on.

mod limits;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::report::{Band, Inspected, Report, Revert};
use crate::kernel::requirements::Verdict;
use crate::knowledge::sysctls::{self, Value};
use crate::render::line::{Tone, wrapped};
use crate::selftest::{self, Trial};
use crate::units::{counted, namespace, printable};

/// Of sentences; tables take what they need.
const WIDTH: usize = 100;

/// Columns of the table of namespaces: heading and sysctl.
const COLUMNS: [(&str, &str); 7] = [
    ("port range", "ip_local_port_range"),
    ("max_tw_buckets", "tcp_max_tw_buckets"),
    ("tw_reuse", "tcp_tw_reuse"),
    ("tw_reuse_delay", "tcp_tw_reuse_delay"),
    ("fin_timeout", "tcp_fin_timeout"),
    ("timestamps", "tcp_timestamps"),
    ("rfc1337", "tcp_rfc1337"),
];

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "twtrace {} on {}, Linux {}\n",
        report.version, report.host.name, report.host.kernel
    )?;
    write_checks(report, out)?;
    limits::write(report, out)?;
    write_namespaces(report, out)?;
    write_boot(report, out)?;
    write_myths(report, out)?;
    if let Some(trials) = &report.self_test {
        write_trials(trials, out)?;
    }
    write_verdict(report, out)
}

fn heading(out: &mut impl Write, text: &str) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(out, "\n{bold}{text}{bold:#}")
}

/// Sentences, each line after `indent` blanks.
fn paragraph(out: &mut impl Write, indent: usize, text: &str) -> io::Result<()> {
    for line in wrapped(Tone::Plain, text, WIDTH - indent, 0) {
        write!(out, "{:indent$}", "")?;
        line.write(out, false)?;
    }
    Ok(())
}

/// Columns as wide as their cells; a row that is too short ends in a sentence.
fn table(out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let full = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter(|row| row.len() == full || column + 1 < row.len());
        cells.map(|row| row[column].chars().count()).max()
    };
    let widths: Vec<usize> = (0..full).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "  {}", padded.join("  ").trim_end())?;
    }
    Ok(())
}

fn write_checks(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for check in &report.checks {
        let (word, style) = word(check.verdict);
        writeln!(
            out,
            "{style}{word:<9}{style:#} {:<17} {}",
            check.name, check.found
        )?;
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:28}to mend it: {remedy}", "")?;
        }
    }
    let Band {
        nominal_s,
        from_s,
        to_s,
    } = report.time_wait;
    writeln!(out)?;
    paragraph(
        out,
        0,
        &format!(
            "A timer of {nominal_s} s, which is 2MSL in mainline Linux, ends after {from_s:.3} to \
             {to_s:.3} s on this kernel ({} ticks a second).",
            report.host.hz
        ),
    )?;
    let vendors = |n: &Inspected| n.sysctls.contains_key("tcp_tw_timeout");
    if report.namespaces.iter().any(vendors) {
        paragraph(
            out,
            0,
            "This kernel has net.ipv4.tcp_tw_timeout, which mainline has not: 2MSL is what it says.",
        )?;
    }
    Ok(())
}

fn write_namespaces(report: &Report, out: &mut impl Write) -> io::Result<()> {
    heading(
        out,
        "Network namespaces and their sysctls (net.ipv4, tcp_ left out; - where this kernel has none)",
    )?;
    let mut rows = vec![vec!["netns".to_owned(), "name".to_owned()]];
    rows[0].extend(COLUMNS.map(|(heading, _)| heading.to_owned()));
    rows[0].push("usable ports".to_owned());
    for namespace in &report.namespaces {
        let name = match (&namespace.name, namespace.own) {
            (Some(name), _) => printable(name),
            (None, true) => "(this one)".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let mut row = vec![namespace.netns.to_string(), name];
        if let Some(why) = &namespace.error {
            row.push(format!("cannot be read: {why}"));
        } else {
            let value = |key| namespace.sysctls.get(key).map_or("-", String::as_str);
            row.extend(COLUMNS.map(|(_, key)| value(key).replace(' ', "-")));
            row.push(
                namespace
                    .usable_ports
                    .map_or("-".to_owned(), |ports| ports.to_string()),
            );
        }
        rows.push(row);
    }
    table(out, &rows)?;
    writeln!(out)?;
    for (_, key) in COLUMNS {
        let known = |n: &Inspected| n.sysctls.contains_key(key);
        if let Some(sysctl) = sysctls::find(key)
            && report.namespaces.iter().any(known)
        {
            let default = match sysctl.default {
                Value::Always(default) => format!(" (default {})", default.replace(' ', "-")),
                Value::Sized(_) | Value::None => String::new(),
            };
            paragraph(out, 2, &format!("{key}{default}: {}", sysctl.sets))?;
        }
    }
    writeln!(out)?;
    paragraph(
        out,
        2,
        "`twtrace explain KEY` says what each can and cannot do.",
    )
}

fn write_boot(report: &Report, out: &mut impl Write) -> io::Result<()> {
    heading(out, "What a reboot would undo")?;
    let boot = &report.boot;
    let files = counted(boot.files.len() as u64, "file", "files");
    if !report
        .namespaces
        .iter()
        .any(|n| n.netns == report.first_netns && n.error.is_none())
    {
        return paragraph(out, 2, "The namespace that is set at boot cannot be read.");
    }
    if boot.reverts.is_empty() {
        return paragraph(
            out,
            2,
            &format!(
                "Nothing: network namespace {} is as {} ({files}) and the kernel's defaults \
                 leave it.",
                report.first_netns, boot.program
            ),
        );
    }
    for revert in &boot.reverts {
        paragraph(out, 2, &reverts(revert, boot.program))?;
    }
    Ok(())
}

fn reverts(revert: &Revert, program: &str) -> String {
    let Revert {
        name, now, at_boot, ..
    } = revert;
    let value = |value: &String| match value.as_str() {
        "" => "nothing".to_owned(),
        value => value.to_owned(),
    };
    let (now, at_boot) = (value(now), value(at_boot));
    match (&revert.at, &revert.unread_at) {
        (Some(at), _) => {
            format!("{name} is {now} and reverts at reboot to {at_boot}, which {at} sets.")
        }
        (None, Some(unread)) => format!(
            "{name} is {now} and reverts at reboot to {at_boot}, the default: {unread} sets it, \
             but {program} does not read that file; put the line into a file below /etc/sysctl.d."
        ),
        (None, None) => format!(
            "{name} is {now} and reverts at reboot to {at_boot}, the default: no file sets it."
        ),
    }
}

fn write_myths(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.myths.is_empty() {
        return Ok(());
    }
    heading(out, "What somebody who set this may have believed")?;
    for myth in &report.myths {
        let names: Vec<String> = myth
            .namespaces
            .iter()
            .map(|&netns| {
                let known = report.namespaces.iter().find(|n| n.netns == netns);
                namespace(netns, known.and_then(|n| n.name.as_deref()))
            })
            .collect();
        let place = match (names.as_slice(), &myth.at) {
            ([], None) => String::new(),
            ([], Some(at)) => format!(" in {at}"),
            (names, at) => {
                let shown = names[..names.len().min(3)].join(", ");
                let more = match names.len().saturating_sub(3) {
                    0 => String::new(),
                    n => format!(" and {n} more"),
                };
                let verb = if myth.try_it.is_some() {
                    "in"
                } else {
                    "but not in"
                };
                match at {
                    Some(at) => format!(" ({at}) {verb} {shown}{more}"),
                    None => format!(" {verb} {shown}{more}"),
                }
            }
        };
        let yellow = AnsiColor::Yellow.on_default();
        writeln!(out, "  {yellow}{}{yellow:#}{place}", myth.found)?;
        paragraph(out, 4, &format!("Believed: that {}.", myth.belief))?;
        paragraph(
            out,
            4,
            &format!("{} Measured: {}", myth.truth, myth.measured),
        )?;
        if let Some(command) = &myth.try_it {
            writeln!(out, "    See for yourself: {command}")?;
        }
    }
    Ok(())
}

fn write_trials(trials: &[Trial], out: &mut impl Write) -> io::Result<()> {
    heading(
        out,
        "Tried on this kernel, in a network namespace of its own",
    )?;
    for trial in trials {
        let (word, colour) = match trial.verdict {
            selftest::Verdict::Held => ("held", AnsiColor::Green),
            selftest::Verdict::Failed => ("failed", AnsiColor::Red),
            selftest::Verdict::Untried => ("untried", AnsiColor::Yellow),
        };
        let style = colour.on_default();
        let row = format!("{:<27} {}", trial.name, trial.found);
        writeln!(out, "{style}{word:<9}{style:#} {}", row.trim_end())?;
    }
    Ok(())
}

fn write_verdict(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let missing = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Missing)
        .count();
    writeln!(out)?;
    match missing {
        0 if report.has_failed() => writeln!(
            out,
            "This host has what twtrace needs, but figures that rest on what failed \
             above cannot be trusted: report it with the kernel's version and configuration."
        ),
        0 => writeln!(out, "This host has what twtrace needs."),
        1 => writeln!(
            out,
            "twtrace cannot run here: one thing it needs is missing."
        ),
        n => writeln!(
            out,
            "twtrace cannot run here: {n} things it needs are missing."
        ),
    }
}

fn word(verdict: Verdict) -> (&'static str, Style) {
    let colour = |colour: AnsiColor| colour.on_default();
    match verdict {
        Verdict::Ok => ("ok", colour(AnsiColor::Green)),
        Verdict::Degraded => ("with less", colour(AnsiColor::Yellow)),
        Verdict::Missing => ("missing", colour(AnsiColor::Red).bold()),
        Verdict::Unknown => ("unknown", colour(AnsiColor::Yellow)),
    }
}
