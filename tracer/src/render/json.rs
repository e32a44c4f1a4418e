//! JSON Lines of snapshots: `twtrace.snapshot/1`, docs/schema/snapshot-1.json.

use std::io::{self, Write};

use crate::model::snapshot::Snapshot;
use crate::render::live::Snapshots;

/// One line a snapshot, each written at once and whole.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> JsonLines<W> {
    pub fn new(out: W) -> JsonLines<W> {
        JsonLines {
            out,
            line: Vec::new(),
        }
    }
}

impl<W: Write> Snapshots for JsonLines<W> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, snapshot)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.out.flush()
    }
}
