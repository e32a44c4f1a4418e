//! The first lines: what is wrong and what to do, or that nothing is.

use crate::analysis::findings::{Finding, Judged, Severity, Verdict, fine};
use crate::render::line::{Line, Tone, wrapped};

/// Findings that are told after the first, one line each.
const MORE: usize = 4;

/// The worst finding first; where nothing fails, that, and the first note.
pub fn lines(judged: &Judged<'_>, width: usize) -> Vec<Line> {
    let (snapshot, judgement) = (judged.snapshot, judged.judgement);
    let stock = fine::stock(snapshot);
    let worst = judgement.findings.first();
    let (tone, mut text) = match (judgement.verdict, worst) {
        (Verdict::Undecided, None) => (Tone::Strong, format!("Undecided yet: {stock}.")),
        (Verdict::Undecided, Some(_)) => (Tone::Strong, "Undecided yet.".to_owned()),
        (Verdict::Fine, None) => (
            Tone::Good,
            format!("Fine: {stock}; nothing wrong is found."),
        ),
        (Verdict::Fine, Some(_)) => (Tone::Good, "Fine: nothing fails.".to_owned()),
        (_, Some(worst)) => (tone(worst.severity), String::new()),
        (_, None) => (Tone::Plain, String::new()),
    };
    if let Some(worst) = worst {
        if !text.is_empty() {
            text += " ";
        }
        text += &first(worst);
    }
    let because = match (worst, &judgement.missing) {
        (Some(worst), _) => worst.because.clone(),
        (None, Some(missing)) => missing.clone(),
        (None, None) => fine::harmless(snapshot),
    };
    let mut lines = wrapped(tone, &text, width, 0);
    lines.extend(wrapped(Tone::Plain, &because, width, 0));
    lines.extend(rest(judgement.findings.get(1..).unwrap_or_default(), width));
    if worst.is_some() {
        lines.extend(wrapped(Tone::Plain, &format!("{stock}."), width, 0));
    }
    lines
}

/// `Hurts: no local port is free from …. To do: this.`
fn first(finding: &Finding) -> String {
    let what = format!("{}: {}", word(finding.severity), finding.headline);
    match finding.remedies.first() {
        Some(remedy) => format!("{what}. To do: {remedy}."),
        None => format!("{what}."),
    }
}

fn rest(findings: &[Finding], width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for finding in findings.iter().take(MORE) {
        let text = format!("{}: {}.", word(finding.severity), finding.headline);
        lines.extend(wrapped(tone(finding.severity), &text, width, 0));
    }
    let more = findings.len().saturating_sub(MORE);
    if more > 0 {
        lines.push(Line::of(
            Tone::Faint,
            format!("and {more} more; --json has them all"),
        ));
    }
    lines
}

#[must_use]
pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Hurts => "Hurts",
        Severity::Near => "Near",
        Severity::Note => "Note",
    }
}

#[must_use]
pub fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Hurts => Tone::Bad,
        Severity::Near => Tone::Warn,
        Severity::Note => Tone::Plain,
    }
}
