//! `twtrace report`: reads a recording through and shows what it adds up to.

use std::io::{self, BufRead, Write as _};

use anyhow::{Context as _, Result, bail};

use super::live::{CANNOT_WRITE, styled};
use crate::options::ReportOptions;
use crate::recorder::file;
use crate::recording::{Course, Line, Lines, Sum};
use crate::render::line::stacked;
use crate::render::live::PLAIN_WIDTH;
use crate::render::report::{self, Report};

pub fn run(options: &ReportOptions) -> Result<()> {
    let lines = file::open(&options.file)?;
    let mut out = Vec::new();
    let styled = styled(&io::stdout(), options.color);
    write(&mut out, lines, options, styled)?;
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&out)
        .and_then(|()| stdout.flush())
        .context(CANNOT_WRITE)
}

/// Writes what the lines of `options.file` add up to.
pub fn write(
    out: &mut Vec<u8>,
    mut lines: Lines<impl BufRead>,
    options: &ReportOptions,
    styled: bool,
) -> Result<()> {
    let cannot = || format!("cannot read {}", options.file.display());
    let mut sum = Sum::default();
    let mut course = Course::default();
    let mut changes = Vec::new();
    let mut end = None;
    for line in &mut lines {
        match line.with_context(cannot)? {
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
    let report = Report {
        header: lines.header(),
        frames: sum.frames,
        snapshot: &snapshot,
        course: course.rows(),
        changes: &changes,
        end: end.as_ref(),
        torn: lines.torn(),
    };
    if options.json {
        let json = report::json(&report).context("cannot put the report as JSON")?;
        writeln!(out, "{json}")?;
        return Ok(());
    }
    for line in stacked(
        report::plain(&report, options.states, PLAIN_WIDTH),
        PLAIN_WIDTH,
        None,
    ) {
        line.write(out, styled)?;
    }
    Ok(())
}
