//! Reading what a recording holds, as far as it is whole.
//!
//! A run may end at any byte: the machine went down, the disk was full. What
//! comes after the last whole line is left out and told; what another version
//! wrote is refused, and so is a line that no run can have written
//! ([`super::gate`]); kinds of lines that are not known are passed over.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::bounds::Breach;
use super::gate::{self, Gate};
use super::{
    End, Frame, Frames, Header, Line, NamespaceSettings, SCHEMA, SysctlChange, Sysctls, weight,
};
use crate::units;

/// A recording as a whole, but for what frames say of ports and namespaces. What
/// can be added up line by line is sooner read by [`Lines`].
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub header: Header,
    pub frames: Frames,
    /// Namespaces that came into sight after the start.
    pub namespaces: Vec<NamespaceSettings>,
    /// In the order of time.
    pub changes: Vec<SysctlChange>,
    /// `None` where the run did not end well, or goes on.
    pub end: Option<End>,
    pub torn: Option<Torn>,
}

/// Where reading stopped before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The line that is not whole, from 1 on.
    pub line: u64,
    pub why: String,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Torn { line, why } = self;
        write!(
            f,
            "it is cut off in line {line} ({why}); what is before was read"
        )
    }
}

#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    Empty,
    /// There is no telling what it is.
    NotARecording(String),
    /// It ends before its header does.
    NoHeader,
    /// The schema it names.
    OtherVersion(String),
    /// A line, from 1 on, that no run can have written.
    Refused {
        line: u64,
        /// Which of its members; empty: the line itself.
        member: String,
        /// As a clause.
        why: String,
    },
    /// What there is to keep of it is out of all proportion to the file, in bytes.
    TooLarge(u64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(error) => error.fmt(f),
            ReadError::Empty => f.write_str("it is empty: no recording was begun"),
            ReadError::NotARecording(why) => write!(f, "it is not a recording of twtrace: {why}"),
            ReadError::NoHeader => {
                f.write_str("it is cut off within its first line, before anything was recorded")
            }
            ReadError::OtherVersion(found) => write!(
                f,
                "it is a {found}, and this twtrace reads {SCHEMA}: read it with the version of \
                 twtrace that recorded it"
            ),
            ReadError::Refused { line, member, why } => {
                write!(f, "no run can have written its line {line}: ")?;
                if !member.is_empty() {
                    write!(f, "{member}: ")?;
                }
                f.write_str(why)
            }
            ReadError::TooLarge(bytes) => write!(
                f,
                "there are {} to keep of it, out of all proportion to the file: no run can have \
                 written it",
                units::bytes(*bytes)
            ),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // What it says itself has been said.
            ReadError::Io(error) => error.source(),
            _ => None,
        }
    }
}

/// In bytes. Nothing is written that has a longer line (`recorder`): what has one
/// is no recording, and may have no end.
pub const LONGEST: u64 = 4 << 20;

/// What may be kept of a recording: so many bytes, and so many more for each that
/// the file has taken on the disk. A frame of a host at rest takes four times as
/// much in memory as in a file.
const KEPT: u64 = 16 << 20;
const KEPT_PER_BYTE: u64 = 16;

/// Namespaces among whose settings the same are looked for.
const ALIKE: usize = 16;

/// Of what somebody else wrote, in a message.
const QUOTED: usize = 300;

/// What the lines have taken on the disk so far, in bytes: less than they are where
/// they are compressed.
pub type Stored = Rc<Cell<u64>>;

/// Reads a line, or as much of it as a line may have.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    input.take(LONGEST).read_until(b'\n', line)
}

fn is_too_long(line: &[u8]) -> bool {
    line.len() as u64 == LONGEST && !line.ends_with(b"\n")
}

/// The lines after the header, one after the other.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    header: Header,
    line: u64,
    bytes: Vec<u8>,
    torn: Option<Torn>,
    gate: Gate,
    /// Bytes that were read, and what they took; the same where that is not known.
    read: u64,
    stored: Option<Stored>,
    kept: u64,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Schema {
    schema: String,
}

impl<R: BufRead> Lines<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Lines<R>, ReadError> {
        Lines::begin(input, None)
    }

    /// The same of lines that are compressed.
    pub fn of_stored(input: R, stored: Stored) -> Result<Lines<R>, ReadError> {
        Lines::begin(input, Some(stored))
    }

    fn begin(mut input: R, stored: Option<Stored>) -> Result<Lines<R>, ReadError> {
        let mut bytes = Vec::new();
        let whole = match read_line(&mut input, &mut bytes) {
            Ok(_) => bytes.ends_with(b"\n"),
            // So a decompressor says that its input has no end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && bytes.is_empty() => {
                return Err(ReadError::NoHeader);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(ReadError::Io(error)),
        };
        if is_too_long(&bytes) {
            let why = "its first line has no end".to_owned();
            return Err(ReadError::NotARecording(why));
        }
        let schema = match serde_json::from_slice::<Schema>(&bytes) {
            Ok(Schema { schema }) => schema,
            Err(_) if bytes.is_empty() => return Err(ReadError::Empty),
            Err(_) if !whole && begins_as_ours(&bytes) => return Err(ReadError::NoHeader),
            Err(error) => return Err(ReadError::NotARecording(quoted(&error.to_string()))),
        };
        if schema != SCHEMA {
            let ours = schema.starts_with("twtrace.recording/");
            return Err(if ours {
                ReadError::OtherVersion(quoted(&schema))
            } else {
                ReadError::NotARecording(format!("its schema is {:?}", quoted(&schema)))
            });
        }
        let refused = |breach| refused(1, breach);
        let header: Header = serde_json::from_slice(&bytes)
            .map_err(|_| misfit::<Header>(&bytes))
            .map_err(refused)?;
        gate::header(&header).map_err(refused)?;
        let mut lines = Lines {
            input,
            header,
            line: 1,
            read: bytes.len() as u64,
            bytes,
            torn: None,
            gate: Gate::default(),
            stored,
            kept: 0,
        };
        lines.keep(weight::header(&lines.header))?;
        Ok(lines)
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where reading stopped, once there are no more lines.
    #[must_use]
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Whoever keeps a change, or the end, says so: it fails where that is more than
    /// a file of this size can mean.
    pub fn will_keep(&mut self, line: &Line) -> Result<(), ReadError> {
        self.keep(match line {
            Line::Sysctl(change) => weight::change(change),
            Line::End(end) => weight::end(end),
            Line::Header(_) | Line::Frame(_) | Line::Namespace(_) | Line::Event(_) => 0,
        })
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.kept += bytes as u64;
        if self.kept > KEPT + KEPT_PER_BYTE.saturating_mul(self.stored()) {
            return Err(ReadError::TooLarge(self.kept));
        }
        Ok(())
    }

    /// What has been read, as it lies on the disk.
    fn stored(&self) -> u64 {
        let stored = self.stored.as_ref();
        stored.map_or(self.read, |stored| stored.get())
    }

    /// The rest as a whole.
    pub fn collect(mut self) -> Result<Recording, ReadError> {
        let mut frames = Frames::default();
        let mut namespaces: Vec<NamespaceSettings> = Vec::new();
        let mut changes = Vec::new();
        let mut end = None;
        while let Some(line) = self.next() {
            let line = line?;
            match line {
                Line::Frame(mut frame) => {
                    // Gauges that are shown, and never compared.
                    frame.ports = Vec::new();
                    frame.namespaces = Vec::new();
                    let before = frames.bytes();
                    frames.push(&frame);
                    self.keep(frames.bytes().saturating_sub(before))?;
                }
                Line::Namespace(mut settings) => {
                    // Namespaces come into being alike.
                    let earlier = self.header.namespaces.iter().chain(&namespaces);
                    let alike = earlier
                        .rev()
                        .take(ALIKE)
                        .find(|s| s.sysctls == settings.sysctls);
                    match alike {
                        Some(alike) => settings.sysctls = Arc::clone(&alike.sysctls),
                        None => self.keep(weight::sysctls(&settings.sysctls))?,
                    }
                    self.keep(weight::settings(&settings))?;
                    namespaces.push(settings);
                }
                Line::Sysctl(change) => {
                    self.keep(weight::change(&change))?;
                    changes.push(change);
                }
                Line::End(last) => {
                    self.keep(weight::end(&last))?;
                    end = Some(*last);
                }
                Line::Header(_) | Line::Event(_) => {}
            }
        }
        Ok(Recording {
            header: self.header,
            frames,
            namespaces,
            changes,
            end,
            torn: self.torn,
        })
    }

    fn stop(&mut self, why: &str) -> Option<Result<Line, ReadError>> {
        self.torn = Some(Torn {
            line: self.line,
            why: quoted(why),
        });
        None
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.torn.is_none() {
            self.bytes.clear();
            self.line += 1;
            let cut = match read_line(&mut self.input, &mut self.bytes) {
                Ok(0) => return None,
                Ok(n) => {
                    self.read += n as u64;
                    !self.bytes.ends_with(b"\n")
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
                Err(error) => return Some(Err(ReadError::Io(error))),
            };
            if is_too_long(&self.bytes) {
                return self.stop("it has no end");
            }
            match parse(&self.bytes) {
                Ok(Some(line)) => {
                    let checked = self.gate.check(&line, self.stored());
                    return Some(
                        checked
                            .map(|()| line)
                            .map_err(|why| refused(self.line, why)),
                    );
                }
                Ok(None) => {}
                Err(_) if cut => return self.stop("the file ends there"),
                Err(error) if is_json(&self.bytes) => {
                    let why = misfit_of_kind(&self.bytes, &error);
                    return Some(Err(refused(self.line, why)));
                }
                Err(error) => return self.stop(&error.to_string()),
            }
        }
        None
    }
}

/// Whether it is a value of JSON, whatever it says: what a machine that lost power
/// leaves is none.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

fn refused(line: u64, Breach { member, why }: Breach) -> ReadError {
    ReadError::Refused {
        line,
        member: quoted(&member),
        why: quoted(&why),
    }
}

fn quoted(text: &str) -> String {
    units::shortened(text, QUOTED)
}

/// Which member of a line keeps it from being what its kind is.
fn misfit<T: DeserializeOwned>(bytes: &[u8]) -> Breach {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    let (member, why) = match read {
        Ok(_) => (String::new(), "it goes on after its end".to_owned()),
        Err(error) => (error.path().to_string(), error.into_inner().to_string()),
    };
    // Where in the line tells nobody more than what.
    let why = why.split(" at line ").next().unwrap_or(&why);
    Breach {
        member: if member == "." { String::new() } else { member },
        why: why.to_owned(),
    }
}

fn misfit_of_kind(bytes: &[u8], error: &serde_json::Error) -> Breach {
    let kind = serde_json::from_slice::<Kind<'_>>(bytes);
    match kind.as_ref().map(|kind| &*kind.kind) {
        Ok("frame") => misfit::<Frame>(bytes),
        Ok("namespace") => misfit::<NamespaceSettings>(bytes),
        Ok("sysctl") => misfit::<SysctlChange>(bytes),
        Ok("end") => misfit::<End>(bytes),
        Ok("header") => misfit::<Header>(bytes),
        _ => Breach {
            member: String::new(),
            why: error.to_string(),
        },
    }
}

/// Whether this may be the beginning of a header.
fn begins_as_ours(bytes: &[u8]) -> bool {
    let ours = br#"{"kind":"header","schema":"twtrace.recording/"#;
    let both = bytes.len().min(ours.len());
    bytes[..both] == ours[..both]
}

/// The kind of a line that begins with it, as ours do, where what is behind it is
/// read for itself: most of a recording need not be read twice.
fn kind_at_its_place(bytes: &[u8]) -> Option<&'static str> {
    let rest = bytes.strip_prefix(br#"{"kind":""#)?;
    let kinds = ["frame", "namespace", "sysctl", "end", "header"];
    kinds.into_iter().find(|kind| {
        let rest = rest.strip_prefix(kind.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"\""))
    })
}

/// `None` for a kind of line that is not known.
fn parse(bytes: &[u8]) -> Result<Option<Line>, serde_json::Error> {
    fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<Box<T>, serde_json::Error> {
        serde_json::from_slice(bytes).map(Box::new)
    }
    let kind = match kind_at_its_place(bytes) {
        Some(kind) => kind.into(),
        None => serde_json::from_slice::<Kind<'_>>(bytes)?.kind,
    };
    Ok(Some(match &*kind {
        "frame" => Line::Frame(whole(bytes)?),
        "namespace" => Line::Namespace(*whole(bytes)?),
        "sysctl" => Line::Sysctl(*whole(bytes)?),
        "end" => Line::End(whole(bytes)?),
        // A file can only have been put together from two.
        "header" => Line::Header(whole(bytes)?),
        "transition" | "minisocket_start" | "minisocket_rearm" | "minisocket_end" | "lost" => {
            Line::Event(String::from_utf8_lossy(bytes).trim_end().to_owned())
        }
        _ => return Ok(None),
    }))
}

impl Recording {
    /// What the namespaces were set to that were in scope at the start. Those that
    /// have no room in the header follow it.
    pub fn settings_at_start(&self) -> impl Iterator<Item = &NamespaceSettings> {
        // Frames tell times to the microsecond.
        let first = self.frames.stocks().first();
        let start_s = first.map_or(0.0, |frame| frame.elapsed_s) + 1e-3;
        let later = self.namespaces.iter();
        let here = later.filter(move |settings| settings.elapsed_s <= start_s);
        self.header.namespaces.iter().chain(here)
    }

    /// What a namespace was set to at a time of the run; `None` where it was not seen yet.
    #[must_use]
    pub fn sysctls_at(&self, netns: u32, elapsed_s: f64) -> Option<Sysctls> {
        let settings = self
            .header
            .namespaces
            .iter()
            .chain(&self.namespaces)
            .rfind(|settings| settings.netns == netns && settings.elapsed_s <= elapsed_s)?;
        let mut sysctls = Sysctls::clone(&settings.sysctls);
        for change in &self.changes {
            if change.netns == netns && (settings.elapsed_s..=elapsed_s).contains(&change.elapsed_s)
            {
                sysctls.insert(change.key.clone(), change.after.clone());
            }
        }
        Some(sysctls)
    }
}

#[cfg(test)]
mod tests;
