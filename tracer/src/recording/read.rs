//! Reading what a recording holds, as far as it is whole.
//!
//! A run may end at any byte: the machine went down, the disk was full. What
//! comes after the last whole line is left out and told; what another version
//! wrote is refused; kinds of lines that are not known are passed over.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{End, Frame, Header, Line, NamespaceSettings, SCHEMA, SysctlChange, Sysctls};

/// A recording as a whole. One of a day takes about a gigabyte: what can be
/// added up line by line is better read by [`Lines`].
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub header: Header,
    pub frames: Vec<Frame>,
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
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// A line of some ten thousand namespaces is not as long. What has one longer than
/// this is no recording, and may have no end.
const LONGEST: u64 = 64 << 20;

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
    pub fn new(mut input: R) -> Result<Lines<R>, ReadError> {
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
            Err(error) => return Err(ReadError::NotARecording(error.to_string())),
        };
        if schema != SCHEMA {
            let ours = schema.starts_with("twtrace.recording/");
            return Err(if ours {
                ReadError::OtherVersion(schema)
            } else {
                ReadError::NotARecording(format!("its schema is {schema:?}"))
            });
        }
        let header = serde_json::from_slice(&bytes)
            .map_err(|error| ReadError::NotARecording(format!("in its header, {error}")))?;
        Ok(Lines {
            input,
            header,
            line: 1,
            bytes,
            torn: None,
        })
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

    /// The rest as a whole.
    pub fn collect(mut self) -> Result<Recording, ReadError> {
        let mut frames = Vec::new();
        let mut namespaces = Vec::new();
        let mut changes = Vec::new();
        let mut end = None;
        for line in &mut self {
            match line? {
                Line::Frame(frame) => frames.push(*frame),
                Line::Namespace(settings) => namespaces.push(settings),
                Line::Sysctl(change) => changes.push(change),
                Line::End(last) => end = Some(*last),
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
            why: why.to_owned(),
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
                Ok(_) => !self.bytes.ends_with(b"\n"),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
                Err(error) => return Some(Err(ReadError::Io(error))),
            };
            if is_too_long(&self.bytes) {
                return self.stop("it has no end");
            }
            match parse(&self.bytes) {
                Ok(Some(line)) => return Some(Ok(line)),
                Ok(None) => {}
                Err(_) if cut => return self.stop("the file ends there"),
                Err(error) => return self.stop(&error.to_string()),
            }
        }
        None
    }
}

/// Whether this may be the beginning of a header.
fn begins_as_ours(bytes: &[u8]) -> bool {
    let ours = br#"{"kind":"header","schema":"twtrace.recording/"#;
    let both = bytes.len().min(ours.len());
    bytes[..both] == ours[..both]
}

/// `None` for a kind of line that is not known.
fn parse(bytes: &[u8]) -> Result<Option<Line>, serde_json::Error> {
    fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<Box<T>, serde_json::Error> {
        serde_json::from_slice(bytes).map(Box::new)
    }
    let Kind { kind } = serde_json::from_slice(bytes)?;
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
    /// What a namespace was set to at a time of the run; `None` where it was not seen yet.
    #[must_use]
    pub fn sysctls_at(&self, netns: u32, elapsed_s: f64) -> Option<Sysctls> {
        let settings = self
            .header
            .namespaces
            .iter()
            .chain(&self.namespaces)
            .rfind(|settings| settings.netns == netns && settings.elapsed_s <= elapsed_s)?;
        let mut sysctls = settings.sysctls.clone();
        for change in &self.changes {
            if change.netns == netns && (settings.elapsed_s..=elapsed_s).contains(&change.elapsed_s)
            {
                sysctls.insert(change.key.clone(), change.after.clone());
            }
        }
        Some(sysctls)
    }
}
