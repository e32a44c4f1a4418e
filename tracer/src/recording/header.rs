//! What a recording says besides its frames: how it began, what the namespaces
//! were set to and what was changed meanwhile, how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::snapshot::{
    Distribution, Host, LeftOut, Namespace, Owner, Remote, Scope, to_milliseconds,
};

/// Values by their full names: `net.ipv4.tcp_tw_reuse`.
pub type Sysctls = BTreeMap<String, String>;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`super::SCHEMA`].
    pub schema: String,
    /// twtrace's own.
    pub version: String,
    /// When the run began.
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    pub host: Host,
    pub clock: Anchor,
    pub scope: Scope,
    /// Asked for between two frames; a frame says how long it was.
    pub interval_s: f64,
    /// Asked for; absent where the run lasts as long as a command, or until it
    /// is interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// What was run meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Whether the recording holds every event too.
    pub events: bool,
    /// Sockets that were there already, by state.
    pub seeded: BTreeMap<String, u64>,
    /// In scope at the start.
    pub namespaces: Vec<NamespaceSettings>,
}

/// One moment by both clocks: events carry the kernel's, frames the calendar's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    pub time: Timestamp,
}

/// A network namespace, and what it was set to when it was first seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamespaceSettings {
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    pub elapsed_s: f64,
    /// Inode number.
    pub netns: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All of `net.ipv4.tcp_*`, `ip_local_port_range`, `ip_local_reserved_ports`.
    pub sysctls: Arc<Sysctls>,
}

/// Somebody set a sysctl, between `unchanged_s` and `elapsed_s`: then it was
/// read before, and then again, after a frame was cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SysctlChange {
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    pub elapsed_s: f64,
    pub unchanged_s: f64,
    /// Inode number.
    pub netns: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub key: String,
    pub before: String,
    pub after: String,
}

/// The last line: why the run ended, and what is only told once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    #[serde(serialize_with = "to_milliseconds")]
    pub time: Timestamp,
    pub elapsed_s: f64,
    pub frames: u64,
    pub ended: Ended,
    /// How the command ended, in words: `exit status: 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_status: Option<String>,
    /// For the whole run, as in a snapshot.
    pub owners: Vec<Owner>,
    pub remotes: Vec<Remote>,
    pub left_out: LeftOut,
    pub namespaces: Vec<Namespace>,
    /// Time spent in each other state.
    pub in_state_s: BTreeMap<String, Distribution>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its time was over.
    Duration,
    /// Its command had ended.
    Command,
    /// A signal asked for it.
    Signal,
    /// The only namespace it saw had ended.
    Namespace,
    /// Whoever took the lines had enough.
    Enough,
}
