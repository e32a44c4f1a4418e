//! The doctor's answer as a page for people.
//!
//! Pure: a report in, lines out. What is wrong comes with what to do about it,
//! and what is foretold with the rate it rests on.

mod limits;

use super::report::{Band, Inspected, Report, Revert};
use crate::kernel::requirements::Verdict;
use crate::knowledge::sysctls::{self, Value};
use crate::render::findings;
use crate::render::line::{Line, Tone, wrapped};
use crate::selftest::{self, Trial};
use crate::units::{counted, namespace};

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

/// All of it, below one another.
pub(super) fn page(report: &Report) -> Vec<Line> {
    let mut page = Page::default();
    page.plain(format!(
        "twtrace {} on {}, Linux {}",
        report.version, report.host.name, report.host.kernel
    ));
    found(report, &mut page);
    page.gap();
    checks(report, &mut page);
    limits::write(report, &mut page);
    namespaces(report, &mut page);
    boot(report, &mut page);
    myths(report, &mut page);
    if let Some(trials) = &report.self_test {
        self_test(trials, &mut page);
    }
    verdict(report, &mut page);
    page.0
}

/// Lines as they come.
#[derive(Default)]
struct Page(Vec<Line>);

impl Page {
    fn plain(&mut self, text: impl Into<String>) {
        self.0.push(Line::of(Tone::Plain, text));
    }

    fn gap(&mut self) {
        self.0.push(Line::default());
    }

    fn heading(&mut self, text: &str) {
        self.gap();
        self.0.push(Line::of(Tone::Strong, text));
    }

    /// Sentences, each line after `indent` blanks.
    fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrapped(Tone::Plain, text, WIDTH - indent, 0) {
            self.0
                .push(Line::of(Tone::Plain, " ".repeat(indent)).joined(line));
        }
    }

    /// A word of nine cells in its tone, and what is said of it.
    fn judged(&mut self, tone: Tone, word: &str, said: &str) {
        let line = Line::of(tone, format!("{word:<9}"));
        self.0.push(line.and(Tone::Plain, format!(" {said}")));
    }

    /// Columns as wide as their cells; a row that is too short ends in a sentence.
    fn table(&mut self, rows: &[Vec<String>]) {
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
            self.plain(format!("  {}", padded.join("  ")));
        }
    }
}

/// What the look found, worst first, and what to do about it.
fn found(report: &Report, page: &mut Page) {
    let Some(judgement) = &report.judgement else {
        return;
    };
    page.gap();
    if judgement.findings.is_empty() {
        page.paragraph(0, "Fine: nothing was found that fails, or soon will.");
    }
    for finding in &judgement.findings {
        let (word, tone) = (
            findings::word(finding.severity),
            findings::tone(finding.severity),
        );
        let line = Line::of(tone, format!("{word}: "));
        page.0.push(line.and(
            Tone::Strong,
            format!("{} [{}]", finding.headline, finding.id),
        ));
        page.paragraph(2, &finding.because);
        for remedy in &finding.remedies {
            page.paragraph(2, &format!("- {remedy}"));
        }
    }
}

fn checks(report: &Report, page: &mut Page) {
    for check in &report.checks {
        let (word, tone) = word(check.verdict);
        page.judged(tone, word, &format!("{:<17} {}", check.name, check.found));
        if let Some(remedy) = &check.remedy {
            page.plain(format!("{:28}to mend it: {remedy}", ""));
        }
    }
    let Band {
        nominal_s,
        from_s,
        to_s,
    } = report.time_wait;
    page.gap();
    page.paragraph(
        0,
        &format!(
            "A timer of {nominal_s} s, which is 2MSL in mainline Linux, ends after {from_s:.3} to \
             {to_s:.3} s on this kernel ({} ticks a second).",
            report.host.hz
        ),
    );
    let vendors = |n: &Inspected| n.sysctls.contains_key("tcp_tw_timeout");
    if report.namespaces.iter().any(vendors) {
        page.paragraph(
            0,
            "This kernel has net.ipv4.tcp_tw_timeout, which mainline has not: 2MSL is what it says.",
        );
    }
}

fn namespaces(report: &Report, page: &mut Page) {
    page.heading(
        "Network namespaces and their sysctls (net.ipv4, tcp_ left out; - where this kernel has none)",
    );
    let mut rows = vec![vec!["netns".to_owned(), "name".to_owned()]];
    rows[0].extend(COLUMNS.map(|(heading, _)| heading.to_owned()));
    rows[0].push("usable ports".to_owned());
    for namespace in &report.namespaces {
        let name = match (&namespace.name, namespace.own) {
            (Some(name), _) => name.clone(),
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
    page.table(&rows);
    page.gap();
    for (_, key) in COLUMNS {
        let known = |n: &Inspected| n.sysctls.contains_key(key);
        if let Some(sysctl) = sysctls::find(key)
            && report.namespaces.iter().any(known)
        {
            let default = match sysctl.default {
                Value::Always(default) => format!(" (default {})", default.replace(' ', "-")),
                Value::Sized(_) | Value::None => String::new(),
            };
            page.paragraph(2, &format!("{key}{default}: {}", sysctl.sets));
        }
    }
    page.gap();
    page.paragraph(2, "`twtrace explain KEY` says what each can and cannot do.");
}

fn boot(report: &Report, page: &mut Page) {
    page.heading("What a reboot would undo");
    let boot = &report.boot;
    let files = counted(boot.files.len() as u64, "file", "files");
    if !report
        .namespaces
        .iter()
        .any(|n| n.netns == report.first_netns && n.error.is_none())
    {
        page.paragraph(2, "The namespace that is set at boot cannot be read.");
        return;
    }
    if boot.reverts.is_empty() {
        page.paragraph(
            2,
            &format!(
                "Nothing: network namespace {} is as {} ({files}) and the kernel's defaults \
                 leave it.",
                report.first_netns, boot.program
            ),
        );
        return;
    }
    for revert in &boot.reverts {
        page.paragraph(2, &reverts(revert, boot.program));
    }
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

fn myths(report: &Report, page: &mut Page) {
    if report.myths.is_empty() {
        return;
    }
    page.heading("What somebody who set this may have believed");
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
        let found = Line::of(Tone::Plain, "  ").and(Tone::Warn, &*myth.found);
        page.0.push(found.and(Tone::Plain, place));
        page.paragraph(4, &format!("Believed: that {}.", myth.belief));
        page.paragraph(4, &format!("{} Measured: {}", myth.truth, myth.measured));
        if let Some(command) = &myth.try_it {
            page.plain(format!("    See for yourself: {command}"));
        }
    }
}

fn self_test(trials: &[Trial], page: &mut Page) {
    page.heading("Tried on this kernel, in a network namespace of its own");
    for trial in trials {
        let (word, tone) = match trial.verdict {
            selftest::Verdict::Held => ("held", Tone::Good),
            selftest::Verdict::Failed => ("failed", Tone::Bad),
            selftest::Verdict::Untried => ("untried", Tone::Warn),
        };
        page.judged(tone, word, &format!("{:<27} {}", trial.name, trial.found));
    }
}

fn verdict(report: &Report, page: &mut Page) {
    let missing = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Missing)
        .count();
    page.gap();
    page.plain(match missing {
        0 if report.has_failed() => {
            "This host has what twtrace needs, but figures that rest on what failed above cannot be \
             trusted: report it with the kernel's version and configuration."
                .to_owned()
        }
        0 => "This host has what twtrace needs.".to_owned(),
        1 => "twtrace cannot run here: one thing it needs is missing.".to_owned(),
        n => format!("twtrace cannot run here: {n} things it needs are missing."),
    });
}

fn word(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::Degraded => ("with less", Tone::Warn),
        Verdict::Missing => ("missing", Tone::Bad),
        Verdict::Unknown => ("unknown", Tone::Warn),
    }
}
