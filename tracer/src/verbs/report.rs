//! `twtrace report`: reads a recording through and shows what it adds up to.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result, bail};

use super::live::CANNOT_WRITE;
use crate::analysis::findings::{Findings, Judged};
use crate::options::ReportOptions;
use crate::output;
use crate::recorder::file;
use crate::recording::{Course, Line, Lines, Sum};
use crate::render::line::stacked;
use crate::render::live::PLAIN_WIDTH;
use crate::render::report::{self, Report};
use crate::render::terminal::Terminal;

pub fn run(options: &ReportOptions) -> Result<()> {
    let lines = file::open(&options.file)?;
    write(&mut output::stdout(options.color), lines, options)
}

/// Writes what the lines of `options.file` add up to.
pub fn write(
    out: &mut Terminal<impl Write>,
    mut lines: Lines<impl BufRead>,
    options: &ReportOptions,
) -> Result<()> {
    let cannot = || format!("cannot read {}", options.file.display());
    let mut sum = Sum::default();
    let mut course = Course::default();
    let mut changes = Vec::new();
    let mut end = None;
    while let Some(line) = lines.next() {
        let line = line.with_context(cannot)?;
        if let Line::Sysctl(_) | Line::End(_) = &line {
            lines.will_keep(&line).with_context(cannot)?;
        }
        match line {
            Line::Frame(frame) => {
                sum.add(&frame);
                course.add(&frame);
            }
            Line::Sysctl(change) => changes.push(change),
            Line::End(last) => end = Some(*last),
            Line::Header(_) | Line::Namespace(_) | Line::Event(_) => {}
        }
    }
    let Some(snapshot) = sum.snapshot(lines.header(), end.as_ref()) else {
        bail!(
            "{} holds no whole frame: the recording was broken off at its start",
            options.file.display()
        );
    };
    let judgement = Findings::new().judge(&snapshot);
    let report = Report {
        header: lines.header(),
        frames: sum.frames,
        judged: Judged {
            snapshot: &snapshot,
            judgement: &judgement,
        },
        course: course.rows(),
        changes: &changes,
        end: end.as_ref(),
        torn: lines.torn(),
    };
    let shown = if options.json {
        out.json(&report::json(&report))
    } else {
        let blocks = report::plain(&report, options.states, PLAIN_WIDTH);
        out.page(&stacked(blocks, PLAIN_WIDTH, None))
    };
    shown.context(CANNOT_WRITE)
}
