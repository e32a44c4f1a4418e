//! Where text and JSON go. Whoever has a [`Terminal`] can give it lines and
//! values, and nothing else: so no bytes of others reach the output but through
//! [`Line`] and [`printable::write_json`], which make them safe.

use std::io::{self, Write};

use serde::Serialize;

use super::line::Line;
use crate::printable;

/// An output, and whether it is to be coloured. It need not be a terminal: what
/// is in a file today is shown on one tomorrow.
#[derive(Clone, Debug)]
pub struct Terminal<W> {
    out: W,
    styled: bool,
}

impl<W: Write> Terminal<W> {
    pub fn new(out: W, styled: bool) -> Terminal<W> {
        Terminal { out, styled }
    }

    /// The same output behind something else, such as a buffer.
    pub fn map<V: Write>(self, wrap: impl FnOnce(W) -> V) -> Terminal<V> {
        Terminal::new(wrap(self.out), self.styled)
    }

    /// A line, which need not have arrived before a `flush`.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        line.write(&mut self.out, self.styled)
    }

    /// Lines that belong together: handed over in one, and arrived when the call
    /// returns.
    pub fn page<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            line.write(&mut bytes, self.styled)?;
        }
        self.verbatim(&bytes)?;
        self.flush()
    }

    /// A value as a line of JSON, arrived when the call returns.
    pub fn json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let mut bytes = Vec::new();
        printable::write_json(&mut bytes, value)?;
        bytes.push(b'\n');
        self.verbatim(&bytes)?;
        self.flush()
    }

    /// A line in the place of the one before, which was written so too; an empty
    /// one takes that away.
    pub fn in_place(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = b"\r".to_vec();
        line.write(&mut bytes, self.styled)?;
        bytes.pop();
        bytes.extend_from_slice(super::live::CLEAR_REST_OF_LINE.as_bytes());
        self.verbatim(&bytes)?;
        self.flush()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes that a renderer has made safe itself, or that steer on purpose.
    pub(super) fn verbatim(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(super) fn is_styled(&self) -> bool {
        self.styled
    }

    pub(super) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}
