//! JSON Lines of snapshots: `twtrace.snapshot/1`, docs/schema/snapshot-1.json.

use std::io::{self, Write};

use crate::analysis::findings::Judged;
use crate::render::live::Snapshots;
use crate::render::terminal::Terminal;

/// One line a snapshot, each written at once and whole.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: Terminal<W>,
}

impl<W: Write> JsonLines<W> {
    pub fn new(out: Terminal<W>) -> JsonLines<W> {
        JsonLines { out }
    }
}

impl<W: Write> Snapshots for JsonLines<W> {
    fn snapshot(&mut self, judged: &Judged<'_>) -> io::Result<()> {
        self.out.json(judged)
    }
}
