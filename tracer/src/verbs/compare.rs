//! `twtrace compare`: what differs between before and after, with a verdict in
//! words. It reads the recordings and prints; what is made of them is analysis.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::live::CANNOT_WRITE;
use crate::analysis::compare::{self, Verdict};
use crate::analysis::past::{self, Past, Refused};
use crate::options::{At, CompareOptions};
use crate::output;
use crate::recorder::file;
use crate::recording::Recording;
use crate::render::comparison;
use crate::render::live::PLAIN_WIDTH;
use crate::render::terminal::Terminal;

pub fn run(options: &CompareOptions) -> Result<ExitCode> {
    let before = file::read(&options.before)?;
    let after = options.after.as_deref().map(file::read).transpose()?;
    let mut out = output::stdout(options.color);
    let verdict = write(&mut out, &before, after.as_ref(), options)?;
    Ok(ExitCode::from(verdict.exit_code()))
}

/// Writes what differs between two recordings, or within the one there is.
pub fn write(
    out: &mut Terminal<impl Write>,
    before: &Recording,
    after: Option<&Recording>,
    options: &CompareOptions,
) -> Result<Verdict> {
    let past = match after {
        Some(after) => past::of_two(before, after),
        None => past::of_one(before, options.at.map(|at| elapsed(before, at))),
    };
    let Past { plan, trial, notes } = past.or_else(|why| refused(options, &why))?;
    let mut comparison = compare::compare(&plan, &trial);
    comparison.notes.splice(0..0, notes);
    let shown = if options.json {
        out.json(&comparison)
    } else {
        out.page(&comparison::text(&comparison, PLAIN_WIDTH))
    };
    shown.context(CANNOT_WRITE)?;
    Ok(comparison.verdict)
}

fn elapsed(recording: &Recording, at: At) -> f64 {
    match at {
        At::Elapsed(duration) => duration.as_secs_f64(),
        At::Time(time) => seconds(time) - seconds(recording.header.time),
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

fn refused(options: &CompareOptions, why: &Refused) -> Result<Past> {
    let before = options.before.display();
    match &options.after {
        Some(after) => bail!(
            "cannot compare {before} with {}: {}",
            after.display(),
            why.join("; ")
        ),
        None => bail!("cannot split {before}: {}", why.join("; ")),
    }
}
