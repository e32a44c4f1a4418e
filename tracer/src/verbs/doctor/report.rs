//! The doctor's whole answer, in the shape of `twtrace.doctor/1`
//! (docs/schema/doctor-1.json). Fields may be added; none is ever removed or
//! renamed.

use std::io;

use serde::Serialize;

use crate::analysis::findings::{Judgement, Verdict};
use crate::analysis::headroom::{Buckets, Ports};
use crate::analysis::myths::Myth;
use crate::kernel::netns::Namespace;
use crate::kernel::requirements::Check;
use crate::kernel::slab::Slabs;
use crate::kernel::sysctl::{self, Values};
use crate::model::clock::wheel_slack;
use crate::model::event::NamespaceFacts;
use crate::model::snapshot::{Exactness, Host, Snapshot};
use crate::selftest::{self, Trial};

pub(super) const SCHEMA: &str = "twtrace.doctor/1";

/// `TCP_TIMEWAIT_LEN`: what mainline asks for.
const TIME_WAIT_S: u32 = 60;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) version: &'static str,
    pub(super) host: Host,
    /// Nothing that is needed is missing.
    pub(super) ready: bool,
    pub(super) checks: Vec<Check>,
    /// What the look found; without one there is nothing to say.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) judgement: Option<Judgement>,
    pub(super) time_wait: Band,
    /// Mount point of cgroup v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup2: Option<String>,
    /// Where connections could be watched; without it there are neither ports
    /// nor rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) look: Option<Look>,
    /// Least headroom first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<Vec<Ports>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    /// The network namespace that is set at boot.
    pub(super) first_netns: u32,
    pub(super) namespaces: Vec<Inspected>,
    pub(super) boot: Boot,
    pub(super) myths: Vec<Myth>,
    /// Where it was asked for, and nothing that is needed is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) self_test: Option<Vec<Trial>>,
}

impl Report {
    /// Whether the look found that something fails.
    pub(super) fn hurts(&self) -> bool {
        let judgement = self.judgement.as_ref();
        judgement.is_some_and(|judgement| judgement.verdict == Verdict::Hurts)
    }

    /// Whether an assumption was tried and does not hold.
    pub(super) fn has_failed(&self) -> bool {
        let failed = |trial: &Trial| trial.verdict == selftest::Verdict::Failed;
        self.self_test.iter().flatten().any(failed)
    }
}

/// When the timer of a TIME_WAIT ends on this kernel, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Band {
    pub(super) nominal_s: u32,
    pub(super) from_s: f64,
    pub(super) to_s: f64,
}

impl Band {
    /// The timer wheel is from one tick to one bucket late.
    pub(super) fn at(hz: u32) -> Band {
        let ticks = |n: u32| f64::from(TIME_WAIT_S) + f64::from(n) / f64::from(hz);
        Band {
            nominal_s: TIME_WAIT_S,
            from_s: ticks(1),
            to_s: ticks(wheel_slack(TIME_WAIT_S * hz)),
        }
    }

    /// 2MSL and half the slack: what one lives on average.
    pub(super) fn mean_s(self) -> f64 {
        f64::midpoint(f64::from(self.nominal_s), self.to_s)
    }
}

/// How connections were watched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Look {
    pub(super) duration_s: f64,
    /// `all`, or `self` where others may not be entered.
    pub(super) netns: &'static str,
    pub(super) exactness: Exactness,
}

/// What TIME_WAITs take of the kernel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    pub(super) time_waits: u64,
    /// Those that hold a local port of a client.
    pub(super) client_side: u64,
    /// One minisocket on this kernel, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minisocket_bytes: Option<u64>,
    /// What a bound port takes besides, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port_bytes: Option<u64>,
    /// All slabs of minisockets, free objects included, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slabs_bytes: Option<u64>,
    /// At most: ports that several destinations share are counted for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) all_bytes: Option<u64>,
}

impl Memory {
    pub(super) fn of(snapshot: &Snapshot, slabs: Slabs) -> Memory {
        let time_waits = snapshot.time_wait.now;
        // Of whose side nothing is known yet it may be the dearer one.
        let client_side = time_waits - snapshot.time_wait.side.server;
        let one = |of: Option<u64>, n: u64| of.map(|bytes| bytes * n);
        Memory {
            time_waits,
            client_side,
            minisocket_bytes: slabs.minisocket,
            port_bytes: slabs.bind_buckets,
            slabs_bytes: slabs.minisockets_total,
            all_bytes: one(slabs.minisocket, time_waits)
                .zip(one(slabs.bind_buckets, client_side))
                .map(|(minisockets, ports)| minisockets + ports),
        }
    }
}

/// What the next boot will do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Boot {
    pub(super) program: &'static str,
    /// In the order in which they are read.
    pub(super) files: Vec<String>,
    pub(super) reverts: Vec<Revert>,
}

/// A value that a reboot would undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Revert {
    pub(super) name: &'static str,
    pub(super) now: String,
    pub(super) at_boot: String,
    /// File and line that will set it; absent: the kernel's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<String>,
    /// File and line that set it in vain: nothing reads them at boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unread_at: Option<String>,
}

/// A network namespace and what it is set to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Inspected {
    pub(super) netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The one twtrace runs in.
    pub(super) own: bool,
    /// By the last word of each key.
    pub(super) sysctls: Values,
    /// Ports of `ip_local_port_range` that are not reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usable_ports: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minisockets: Option<Buckets>,
    /// Why its sysctls are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip)]
    pub(super) facts: Option<NamespaceFacts>,
}

impl Inspected {
    pub(super) fn of(namespace: &Namespace, own: u32, values: io::Result<Values>) -> Inspected {
        let (sysctls, error) = match values {
            Ok(values) => (values, None),
            Err(why) => (Values::new(), Some(why.to_string())),
        };
        let facts = sysctl::interpret(&sysctls, None).ok();
        Inspected {
            netns: namespace.inode,
            name: namespace.name.clone(),
            own: namespace.inode == own,
            usable_ports: facts.as_ref().map(|facts| {
                let (low, high) = facts.ports;
                (u32::from(high) + 1).saturating_sub(u32::from(low) + facts.reserved_ports)
            }),
            sysctls,
            minisockets: None,
            error,
            facts,
        }
    }
}
