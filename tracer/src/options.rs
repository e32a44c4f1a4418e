//! What a verb was asked to do, as plain values.
//!
//! The command line makes these and the verbs take them; neither clap nor any
//! spelling of a flag is known here, so that a test or another front can ask
//! for the same.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use crate::analysis::condition::Condition;
use crate::kernel::requirements::Reach;
use crate::lab::scenes::Scene;
use crate::lab::setting::Setting;
use crate::lab::shape::Shape;
use crate::model::filter::Filter;
use crate::model::state_set::StateSet;

/// What goes on in a lab.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Connections at a steady pace between two namespaces.
    Shape(Shape),
    /// A case in one.
    Scene(&'static Scene),
}

/// Size of the ring buffer between the kernel side and twtrace, in bytes:
/// about three seconds of 23,000 connections a second, read or not.
pub const DEFAULT_RING_BYTES: u32 = 16 << 20;

/// Which sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub netns: NetnsChoice,
    pub filter: Filter,
    /// Shown, not counted: every state is always counted.
    pub states: StateSet,
}

/// Which network namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetnsChoice {
    #[default]
    All,
    /// The one twtrace itself runs in.
    Own,
    Inode(u32),
    /// As `ip netns` knows it.
    Name(String),
    /// A file that stands for one, such as `/proc/PID/ns/net`.
    Path(PathBuf),
}

impl NetnsChoice {
    /// How far twtrace has to see for it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            NetnsChoice::All => Reach::All,
            NetnsChoice::Own => Reach::Own,
            NetnsChoice::Inode(_) | NetnsChoice::Name(_) | NetnsChoice::Path(_) => Reach::Other,
        }
    }
}

impl fmt::Display for NetnsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetnsChoice::All => f.write_str("all"),
            NetnsChoice::Own => f.write_str("self"),
            NetnsChoice::Inode(inode) => inode.fmt(f),
            NetnsChoice::Name(name) => name.fmt(f),
            NetnsChoice::Path(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for NetnsChoice {
    type Err = BadNetns;

    fn from_str(text: &str) -> Result<NetnsChoice, BadNetns> {
        match text {
            "" => Err(BadNetns::Empty),
            "all" => Ok(NetnsChoice::All),
            "self" => Ok(NetnsChoice::Own),
            _ if text.contains('/') => Ok(NetnsChoice::Path(text.into())),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => match text.parse() {
                Ok(0) | Err(_) => Err(BadNetns::Inode(text.to_owned())),
                Ok(inode) => Ok(NetnsChoice::Inode(inode)),
            },
            _ => Ok(NetnsChoice::Name(text.to_owned())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadNetns {
    Empty,
    Inode(String),
}

impl fmt::Display for BadNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadNetns::Empty => f.write_str(
                "no namespace is named: write all, self, a name, a path or an inode number",
            ),
            BadNetns::Inode(text) => write!(
                f,
                "{text} is no inode number of a namespace (1 to {}): take one from `lsns -t net`, or write \
                 ./{text} for a file of that name",
                u32::MAX
            ),
        }
    }
}

impl std::error::Error for BadNetns {}

/// Whether to colour what goes to the standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` speaks against it.
    #[default]
    Auto,
    Always,
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
    }
}

/// How `live` shows its snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveForm {
    /// Redrawn in place on a terminal, else plain.
    #[default]
    Auto,
    Plain,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LiveOptions {
    pub scope: Scope,
    pub form: LiveForm,
    pub color: Color,
    pub interval: Duration,
    /// `None`: until interrupted.
    pub duration: Option<Duration>,
    /// Snapshots after which to stop.
    pub count: Option<u64>,
    /// Stop once all of these hold, or give up after so long.
    pub until: Vec<Condition>,
    pub timeout: Option<Duration>,
    /// A power-of-two multiple of the page size.
    pub ring_bytes: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EventsOptions {
    pub scope: Scope,
    pub json: bool,
    pub color: Color,
    /// How often losses are told.
    pub interval: Duration,
    /// `None`: until interrupted.
    pub duration: Option<Duration>,
    /// Lines after which to stop.
    pub count: Option<u64>,
    /// A power-of-two multiple of the page size.
    pub ring_bytes: u32,
}

/// Which end of a lab's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabEnd {
    Client,
    Server,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TrialOptions {
    /// The change: one bundle.
    pub settings: Vec<Setting>,
    /// Where it is measured.
    pub end: LabEnd,
    /// `None`: until a load from nothing is steady.
    pub settle: Option<Duration>,
    pub measure: Duration,
    /// `None`: one that nobody chose.
    pub seed: Option<u64>,
    pub json: bool,
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoctorOptions {
    /// How long to watch connections for their rates.
    pub look: Duration,
    /// Try the assumptions about the kernel, with sockets of its own.
    pub self_test: bool,
    pub json: bool,
    pub color: Color,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainOptions {
    /// As it was typed; `None`: list what there is.
    pub word: Option<String>,
    pub color: Color,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RecordOptions {
    pub scope: Scope,
    pub output: PathBuf,
    pub interval: Duration,
    /// `None`: as long as the command runs.
    pub duration: Option<Duration>,
    /// Every event too.
    pub events: bool,
    /// What to run meanwhile; empty: nothing.
    pub command: Vec<OsString>,
    /// As whom, by name or number; `None`: as who called sudo, or else as we are.
    pub user: Option<String>,
    /// A power-of-two multiple of the page size.
    pub ring_bytes: u32,
}

/// A moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// From its start.
    Elapsed(Duration),
    Time(Timestamp),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareOptions {
    pub before: PathBuf,
    /// `None`: `before` is split.
    pub after: Option<PathBuf>,
    /// Where to split; `None`: where its sysctls changed.
    pub at: Option<At>,
    pub json: bool,
    pub color: Color,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    pub file: PathBuf,
    pub states: StateSet,
    pub json: bool,
    pub color: Color,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_told_apart_by_their_form() {
        let parse = |text: &str| text.parse::<NetnsChoice>();
        assert_eq!(parse("all"), Ok(NetnsChoice::All));
        assert_eq!(parse("self"), Ok(NetnsChoice::Own));
        assert_eq!(parse("4026531840"), Ok(NetnsChoice::Inode(4_026_531_840)));
        assert_eq!(parse("blue"), Ok(NetnsChoice::Name("blue".into())));
        assert_eq!(
            parse("/proc/1/ns/net"),
            Ok(NetnsChoice::Path("/proc/1/ns/net".into()))
        );
        assert_eq!(parse("./7"), Ok(NetnsChoice::Path("./7".into())));
        assert_eq!(parse(""), Err(BadNetns::Empty));
        for text in ["0", "99999999999"] {
            let said = parse(text).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("{text} is no inode number")),
                "{said}"
            );
        }
        for text in ["all", "self", "7", "blue", "/run/netns/blue"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
