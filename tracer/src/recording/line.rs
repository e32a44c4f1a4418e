//! A line of a recording, and its JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::printable;

use super::{End, Frame, Header, NamespaceSettings, SysctlChange};

#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Header(Box<Header>),
    Frame(Box<Frame>),
    /// A namespace that came into sight after the start.
    Namespace(NamespaceSettings),
    Sysctl(SysctlChange),
    /// A `twtrace.event/1`, as it stands.
    Event(String),
    End(Box<End>),
}

/// A member `kind` before those of the value.
#[derive(Serialize)]
struct Kinded<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

impl Line {
    /// Writes it as JSON, with the newline that makes it whole.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Line::Header(header) => write_kind(out, "header", &**header),
            Line::Frame(frame) => write_kind(out, "frame", &**frame),
            Line::Namespace(settings) => write_kind(out, "namespace", settings),
            Line::Sysctl(change) => write_kind(out, "sysctl", change),
            Line::Event(json) => writeln!(out, "{json}"),
            Line::End(end) => write_kind(out, "end", &**end),
        }
    }
}

fn write_kind<T: Serialize>(out: &mut impl Write, kind: &str, value: &T) -> io::Result<()> {
    printable::write_json(&mut *out, &Kinded { kind, value })?;
    out.write_all(b"\n")
}
