//! What is wrong, in sentences that somebody can act on.
//!
//! A kind of finding is one small file: when it holds, what it stands on, and what
//! to do. [`KINDS`] lists them, the more specific before those that it explains. Each
//! is a pure function of a snapshot and of how some counters moved within the last
//! seconds; [`Findings`] remembers since when each one holds.

mod accept_queue_full;
mod bind_blocked;
mod close_wait_leak;
mod connects_fail;
mod fin_wait2_held;
pub mod fine;
mod first_syn_lost;
mod listen_port_in_range;
mod own_port_range;
mod ports;
mod reserved_ports_exhausted;
mod reuse_without_timestamps;
mod self_connect;
mod short_lived;
mod sockstat_differs;
mod source_address_exhausted;
mod syn_queue_full;
mod time_wait_overflow;
mod time_wait_reset;
mod tuple_in_time_wait;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

use super::load::NOW_S;
use crate::model::snapshot::Snapshot;
use crate::units::{counted, seconds};

/// A finding stays for this long after its condition has gone, seconds.
const STAYS_S: f64 = 2.0;

/// Of what happens nobody can say anything before, seconds.
const WATCHED_S: f64 = 1.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing fails.
    Note,
    /// It will within ten minutes at the present rate, or is past a known knee.
    Near,
    /// Something fails, or is held that should not be, now.
    Hurts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// Data are missing without which nobody can say.
    Undecided,
    Near,
    Hurts,
}

/// What is the matter, with the figures that show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// A clause.
    pub headline: String,
    /// Whole sentences.
    pub because: String,
    /// What would end it if it were removed.
    pub cause: &'static str,
    /// What removes the cause, and then what eases it; clauses or commands.
    #[serde(rename = "do")]
    pub remedies: Vec<String>,
    pub subject: Subject,
    pub figures: BTreeMap<&'static str, Figure>,
    pub since_s: f64,
    /// How long it has to hold before it is told: a forecast from a moment's rate is
    /// none.
    #[serde(skip)]
    after_s: f64,
}

/// Whom it is about; what is not known of that is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    Count(u64),
    Amount(f64),
}

impl From<u64> for Figure {
    fn from(n: u64) -> Figure {
        Figure::Count(n)
    }
}

impl From<u32> for Figure {
    fn from(n: u32) -> Figure {
        Figure::Count(n.into())
    }
}

impl From<f64> for Figure {
    fn from(n: f64) -> Figure {
        Figure::Amount(n)
    }
}

impl Finding {
    /// Without a word yet.
    fn new(id: &'static str, severity: Severity, cause: &'static str) -> Finding {
        Finding {
            id,
            severity,
            netns: None,
            headline: String::new(),
            because: String::new(),
            cause,
            remedies: Vec::new(),
            subject: Subject::default(),
            figures: BTreeMap::new(),
            since_s: 0.0,
            after_s: 0.0,
        }
    }

    fn figure(mut self, name: &'static str, figure: impl Into<Figure>) -> Finding {
        self.figures.insert(name, figure.into());
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedies.push(remedy.into());
        self
    }

    /// What it is about, so that it is known again.
    fn is_about_the_same(&self, other: &Finding) -> bool {
        // Of these there is one in a namespace, whoever its example is.
        if self.id == "time_wait_reset" {
            return self.id == other.id && self.netns == other.netns;
        }
        let ends = |of: &Finding| {
            let Subject {
                local,
                local_port,
                remote,
                remote_port,
                ..
            } = of.subject;
            (of.id, of.netns, local, local_port, remote, remote_port)
        };
        ends(self) == ends(other)
    }
}

/// How counters moved within the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moved {
    pub over_s: f64,
    pub overflowed: u64,
    pub reset: u64,
    pub ended: u64,
}

type Kind = fn(&Snapshot, &Moved) -> Vec<Finding>;

/// In the order in which equals are told.
const KINDS: &[Kind] = &[
    source_address_exhausted::found,
    tuple_in_time_wait::found,
    reserved_ports_exhausted::found,
    own_port_range::found,
    ports::found,
    reuse_without_timestamps::found,
    accept_queue_full::found,
    syn_queue_full::found,
    close_wait_leak::found,
    fin_wait2_held::found,
    bind_blocked::found,
    self_connect::found,
    connects_fail::found,
    first_syn_lost::found,
    time_wait_overflow::found,
    time_wait_reset::found,
    short_lived::found,
    sockstat_differs::found,
    listen_port_in_range::found,
];

/// A snapshot's findings, worst first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub findings: Vec<Finding>,
    /// What nobody can say, and why, where that matters; a whole sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// A snapshot and what it means: what `live --json` prints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Judged<'a> {
    #[serde(flatten)]
    pub snapshot: &'a Snapshot,
    #[serde(flatten)]
    pub judgement: &'a Judgement,
}

/// Judges the snapshots of one run, in their order.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Each as it was last found, since when, and when that was.
    held: Vec<(Finding, f64, f64)>,
    counted: VecDeque<(f64, Counted)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    overflowed: u64,
    reset: u64,
    ended: u64,
}

impl Findings {
    #[must_use]
    pub fn new() -> Findings {
        Findings::default()
    }

    pub fn judge(&mut self, snapshot: &Snapshot) -> Judgement {
        let at = snapshot.elapsed_s;
        let moved = self.moved(snapshot);
        for kind in KINDS {
            for finding in kind(snapshot, &moved) {
                let known = self
                    .held
                    .iter_mut()
                    .find(|(known, ..)| known.is_about_the_same(&finding));
                match known {
                    Some((known, _, last)) => (*known, *last) = (finding, at),
                    None => self.held.push((finding, at, at)),
                }
            }
        }
        self.held.retain(|(.., last)| at - last < STAYS_S);
        let mut findings: Vec<Finding> = self
            .held
            .iter()
            .filter(|(finding, since, _)| at - since >= finding.after_s)
            .map(|(finding, since, _)| Finding {
                since_s: at - since,
                ..finding.clone()
            })
            .collect();
        // Of equals, by the table: the sort is stable, and what came late stands last.
        let rank = |finding: &Finding| {
            let place = ORDER.iter().position(|id| *id == finding.id);
            (
                std::cmp::Reverse(finding.severity),
                place.unwrap_or(ORDER.len()),
            )
        };
        findings.sort_by_key(rank);
        let missing = missing(snapshot);
        let worst = findings.first().map(|finding| finding.severity);
        let verdict = match worst {
            Some(Severity::Hurts) => Verdict::Hurts,
            Some(Severity::Near) => Verdict::Near,
            _ if missing.is_some() => Verdict::Undecided,
            _ => Verdict::Fine,
        };
        Judgement {
            verdict,
            findings,
            missing,
        }
    }

    fn moved(&mut self, snapshot: &Snapshot) -> Moved {
        let at = snapshot.elapsed_s;
        let ended = &snapshot.time_wait.ended;
        let now = Counted {
            overflowed: snapshot.time_wait.overflowed,
            reset: ended.reset,
            ended: ended.sum(),
        };
        // The last one before that time is what it is compared with.
        while self
            .counted
            .get(1)
            .is_some_and(|(then, _)| at - then >= NOW_S)
        {
            self.counted.pop_front();
        }
        let (since, then) = self
            .counted
            .front()
            .copied()
            .unwrap_or((0.0, Counted::default()));
        self.counted.push_back((at, now));
        Moved {
            over_s: at - since,
            overflowed: now.overflowed.saturating_sub(then.overflowed),
            reset: now.reset.saturating_sub(then.reset),
            ended: now.ended.saturating_sub(then.ended),
        }
    }
}

/// The ids in the order of [`KINDS`].
pub const ORDER: &[&str] = &[
    "source_address_exhausted",
    "tuple_in_time_wait",
    "reserved_ports_exhausted",
    "own_port_range",
    "ports_exhausted",
    "reuse_without_timestamps",
    "accept_queue_full",
    "syn_queue_full",
    "close_wait_leak",
    "fin_wait2_held",
    "bind_blocked",
    "self_connect",
    "connects_fail",
    "first_syn_lost",
    "time_wait_overflow",
    "ports_near",
    "time_wait_near_limit",
    "time_wait_reset",
    "short_lived",
    "sockstat_differs",
    "listen_port_in_range",
];

/// Without what nobody can say that nothing is wrong.
fn missing(snapshot: &Snapshot) -> Option<String> {
    if snapshot.stock.is_some() && snapshot.elapsed_s < WATCHED_S {
        return Some(format!(
            "Nothing is wrong with what there is, as far as that shows; whether connects fail \
             has been watched for {} alone.",
            seconds(snapshot.elapsed_s)
        ));
    }
    if snapshot.stock.is_some() || !snapshot.ports.is_empty() {
        return None;
    }
    let side = snapshot.time_wait.side;
    if side.client > 0 {
        return Some(
            "How many local ports their destinations may use has not been read yet.".to_owned(),
        );
    }
    (side.unknown > 0).then(|| {
        format!(
            "{} began before twtrace did, and whose side they are on shows only from new \
             connections.",
            counted(side.unknown, "TIME_WAIT", "TIME_WAITs")
        )
    })
}

#[cfg(test)]
pub(super) mod tests;
