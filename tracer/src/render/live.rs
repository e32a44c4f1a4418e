//! Where snapshots go: tables one after the other ([`PlainTables`]), tables
//! redrawn in place ([`Redrawn`]), JSON Lines ([`super::json::JsonLines`]).
//!
//! A sink remembers the snapshot before, because a rate lies between two.

use std::io::{self, Write};

use crate::analysis::findings::Judged;
use crate::model::state_set::StateSet;
use crate::render::line::{Line, stacked};
use crate::render::terminal::Terminal;
use crate::render::text::{self, Earlier};

/// Takes the snapshots of a run, in their order. Each is shown when the call returns.
pub trait Snapshots {
    fn snapshot(&mut self, judged: &Judged<'_>) -> io::Result<()>;
}

/// Width of tables where no terminal says another.
pub const PLAIN_WIDTH: usize = 80;

/// The whole table, once a snapshot.
#[derive(Debug)]
pub struct PlainTables<W> {
    out: Terminal<W>,
    states: StateSet,
    earlier: Option<Earlier>,
}

impl<W: Write> PlainTables<W> {
    /// Shows the rows of `states`.
    pub fn new(out: Terminal<W>, states: StateSet) -> PlainTables<W> {
        PlainTables {
            out,
            states,
            earlier: None,
        }
    }
}

impl<W: Write> Snapshots for PlainTables<W> {
    fn snapshot(&mut self, judged: &Judged<'_>) -> io::Result<()> {
        let blocks = text::plain(judged, self.earlier.as_ref(), self.states, PLAIN_WIDTH);
        let mut page = Vec::new();
        if self.earlier.is_some() {
            page.extend([Line::default(), Line::default()]);
        }
        page.extend(stacked(blocks, PLAIN_WIDTH, None));
        self.earlier = Some(Earlier::of(judged.snapshot));
        self.out.page(&page)
    }
}

/// Cells of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// Tables redrawn at the top of a terminal. What is on it when the run ends
/// stays there, with the cursor below. The cursor is never hidden: no way of
/// ending, a kill or a suspension included, has then to bring it back.
#[derive(Debug)]
pub struct Redrawn<W, S> {
    out: Terminal<W>,
    size: S,
    states: StateSet,
    earlier: Option<Earlier>,
    drawn: bool,
}

/// Each line is cleared behind its text and the rest of the screen after the
/// last one, so that nothing blinks as it would if all were cleared first.
/// What scrolled out of the window is the user's, and stays.
const HOME: &str = "\x1b[H";
const CLEAR_SCREEN: &str = "\x1b[2J";
pub(super) const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl<W: Write, S: FnMut() -> Size> Redrawn<W, S> {
    /// Shows the rows of `states`; `size` is asked before each drawing.
    pub fn new(out: Terminal<W>, size: S, states: StateSet) -> Redrawn<W, S> {
        Redrawn {
            out,
            size,
            states,
            earlier: None,
            drawn: false,
        }
    }
}

impl<W: Write, S: FnMut() -> Size> Snapshots for Redrawn<W, S> {
    fn snapshot(&mut self, judged: &Judged<'_>) -> io::Result<()> {
        let size = (self.size)();
        let blocks = text::screen(judged, self.earlier.as_ref(), self.states, size.columns);
        self.earlier = Some(Earlier::of(judged.snapshot));
        // The last row stays free: a newline at its end would scroll the page.
        let page = stacked(blocks, size.columns, Some(size.rows.saturating_sub(1)));
        let mut bytes = Vec::new();
        if !self.drawn {
            bytes.extend_from_slice(CLEAR_SCREEN.as_bytes());
            self.drawn = true;
        }
        bytes.extend_from_slice(HOME.as_bytes());
        for line in &page {
            line.write(&mut bytes, self.out.is_styled())?;
            bytes.pop();
            bytes.extend_from_slice(CLEAR_REST_OF_LINE.as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(CLEAR_BELOW.as_bytes());
        self.out.verbatim(&bytes)?;
        self.out.flush()
    }
}
