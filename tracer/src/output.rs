//! The two outputs of this process: who writes to either has it from here, as a
//! [`Terminal`], which takes lines and values and no bytes
//! (`tests/printable.rs` finds whoever goes around it).

use std::env;
use std::io::{self, IsTerminal as _, Stderr, Stdout, Write as _};

use anstream::AutoStream;
use anyhow::Error;
use env_logger::fmt::Formatter;
use log::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios;

use crate::options::Color;
use crate::printable;
use crate::render::line::{Line, Tone};
use crate::render::live::Size;
use crate::render::terminal::Terminal;

/// The standard output, coloured as asked for, `NO_COLOR` considered.
#[must_use]
pub fn stdout(color: Color) -> Terminal<Stdout> {
    let out = io::stdout();
    let choice = match color {
        Color::Auto => AutoStream::choice(&out),
        Color::Always | Color::Never => color.into(),
    };
    Terminal::new(out, choice != anstream::ColorChoice::Never)
}

/// The standard errors, never coloured.
#[must_use]
pub fn stderr() -> Terminal<Stderr> {
    Terminal::new(io::stderr(), false)
}

/// A line on the standard errors.
pub fn say(line: &str) -> io::Result<()> {
    stderr().page([&Line::of(Tone::Plain, line)])
}

/// What went wrong, on the standard errors. Causes that have several lines, such
/// as a verifier's, keep them.
pub fn fail(error: &Error) {
    let said = format!("twtrace: {error:#}");
    let said = printable::indented(&said);
    let lines: Vec<Line> = said.split('\n').map(|l| Line::of(Tone::Plain, l)).collect();
    // There is nowhere left to say that this cannot be said.
    let _ = stderr().page(&lines);
}

/// How a record of the log is written.
pub fn log(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let said = printable::indented(&record.args().to_string());
    let (time, level) = (out.timestamp(), record.level());
    let style = out.default_level_style(level);
    writeln!(out, "[{time} {style}{level:<5}{style:#}] {said}")
}

/// Whether the standard output is a screen that can be drawn anew: a terminal
/// that can move its cursor.
#[must_use]
pub fn is_screen() -> bool {
    let is_dumb = || env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb()
}

/// Whether somebody watches the standard errors.
#[must_use]
pub fn errors_are_watched() -> bool {
    io::stderr().is_terminal()
}

/// Whether whoever reads the standard errors still takes them.
#[must_use]
pub fn errors_are_taken() -> bool {
    let stderr = io::stderr();
    let now = Timespec::default();
    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Of the terminal that the standard output is; `None` where it is none, or one
/// that does not know.
#[must_use]
pub fn size() -> Option<Size> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}
