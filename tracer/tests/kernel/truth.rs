//! What the kernel itself says, by ways the tracer does not use: `ss`, the MIBs,
//! and the sums that must hold within a snapshot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tracer::lab::netns::Netns;

use super::programs::SS;

/// netstat's names of the ten states, beside ss's.
const STATES: [(&str, &str); 10] = [
    ("ESTABLISHED", "ESTAB"),
    ("SYN_SENT", "SYN-SENT"),
    ("SYN_RECV", "SYN-RECV"),
    ("FIN_WAIT1", "FIN-WAIT-1"),
    ("FIN_WAIT2", "FIN-WAIT-2"),
    ("TIME_WAIT", "TIME-WAIT"),
    ("CLOSE_WAIT", "CLOSE-WAIT"),
    ("LAST_ACK", "LAST-ACK"),
    ("LISTEN", "LISTEN"),
    ("CLOSING", "CLOSING"),
];

pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// `ss -tan`, counted.
pub(crate) fn ss(netns: &Netns) -> Result<Counts> {
    SS.needed()?;
    let output = netns.output(Command::new(SS.name).args(["-H", "-t", "-a", "-n"]))?;
    let mut counts: Counts = STATES.map(|(name, _)| (name, 0)).into();
    for line in String::from_utf8(output.stdout)?.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        let Some((name, _)) = STATES.iter().find(|(_, ss)| *ss == word) else {
            bail!("ss printed a state that is not known: {line:?}");
        };
        *counts.entry(name).or_default() += 1;
    }
    Ok(counts)
}

/// The `now` of every state.
pub(crate) fn now(snapshot: &Value) -> Counts {
    STATES
        .map(|(name, _)| (name, count(snapshot, &["states", name, "now"])))
        .into()
}

/// The same of one namespace; one that is not listed has no sockets.
pub(crate) fn now_in(snapshot: &Value, inode: u32) -> Counts {
    let rows = at(snapshot, &["namespaces"]).as_array();
    let row = rows.into_iter().flatten().find(|row| row["netns"] == inode);
    let of = |name| row.map_or(0, |row| count(row, &["states", name, "now"]));
    STATES.map(|(name, _)| (name, of(name))).into()
}

/// A number of the snapshot, by its path.
#[track_caller]
pub(crate) fn count(snapshot: &Value, path: &[&str]) -> u64 {
    at(snapshot, path)
        .as_u64()
        .unwrap_or_else(|| panic!("{path:?} is no count in {snapshot}"))
}

/// One end of an event's connection, `local` or `remote`, where it is told.
pub(crate) fn end(event: &Value, end: &str) -> Option<SocketAddr> {
    let end = &event[end];
    Some(SocketAddr::new(
        end["addr"].as_str()?.parse().ok()?,
        end["port"].as_u64()? as u16,
    ))
}

#[track_caller]
pub(crate) fn number(snapshot: &Value, path: &[&str]) -> f64 {
    at(snapshot, path)
        .as_f64()
        .unwrap_or_else(|| panic!("{path:?} is no number in {snapshot}"))
}

#[track_caller]
fn at<'v>(snapshot: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(snapshot, |value, key| {
        value
            .get(key)
            .unwrap_or_else(|| panic!("the snapshot has no {path:?}: {snapshot}"))
    })
}

/// `ended` of `time_wait` or `fin_wait2_orphan`: the reasons that are not 0.
pub(crate) fn ended(snapshot: &Value, of: &str) -> BTreeMap<String, u64> {
    let reasons = at(snapshot, &[of, "ended"])
        .as_object()
        .expect("ended is an object");
    let counted = reasons
        .iter()
        .map(|(name, n)| (name.clone(), n.as_u64().expect("a count")));
    counted.filter(|(_, n)| *n > 0).collect()
}

/// The sum of `lost`, which is twtrace's own word: nothing is excused by it.
pub(crate) fn lost(snapshot: &Value) -> u64 {
    ["ring", "map", "recursion", "unseen"]
        .iter()
        .map(|cause| count(snapshot, &["lost", cause]))
        .sum()
}

pub(crate) fn is_exact(snapshot: &Value) -> bool {
    at(snapshot, &["exactness"]) == "exact"
}

/// The identities of the output contract.
pub(crate) fn check_sums(snapshot: &Value) -> Result<()> {
    let fails = |what: String| anyhow!("{what} in {snapshot:#}");
    for (name, _) in STATES {
        let of = |key| count(snapshot, &["states", name, key]);
        let (now, seeded, entered, left) = (of("now"), of("seeded"), of("entered"), of("left"));
        if now + left != seeded + entered {
            return Err(fails(format!(
                "{name}: now {now} is not seeded {seeded} + entered {entered} - left {left}"
            )));
        }
    }
    let tw = |key| count(snapshot, &["time_wait", key]);
    let total = |of| ended(snapshot, of).values().sum::<u64>();
    let same = |what: &str, a: u64, b: u64| {
        if a == b {
            Ok(())
        } else {
            Err(fails(format!("{what}: {a} against {b}")))
        }
    };
    for key in ["now", "seeded", "entered"] {
        same(
            &format!("time_wait.{key} and its state"),
            tw(key),
            count(snapshot, &["states", "TIME_WAIT", key]),
        )?;
    }
    let sides =
        ["client", "server", "unknown"].map(|side| count(snapshot, &["time_wait", "side", side]));
    same("time_wait by side and now", sides.iter().sum(), tw("now"))?;
    same(
        "closes.via_time_wait and entered",
        count(snapshot, &["closes", "via_time_wait"]),
        tw("entered"),
    )?;
    if is_exact(snapshot) {
        let left = count(snapshot, &["states", "TIME_WAIT", "left"]);
        same("ended and left of TIME_WAIT", total("time_wait"), left)?;
        let lives = count(snapshot, &["time_wait", "lifetime_s", "count"]);
        same(
            "whole lives with ended_seeded and ended",
            lives + tw("ended_seeded"),
            total("time_wait"),
        )?;
        let orphan = |key| count(snapshot, &["fin_wait2_orphan", key]);
        same(
            "orphans there and gone",
            orphan("now") + orphan("became_time_wait") + total("fin_wait2_orphan"),
            orphan("seeded") + orphan("entered"),
        )?;
    }
    Ok(())
}

/// The `Tcp` and `TcpExt` counters of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Mib(BTreeMap<String, u64>);

impl Mib {
    pub(crate) fn read(netns: &Netns) -> Result<Mib> {
        let mut all = BTreeMap::new();
        for (file, group) in [("netstat", "TcpExt: "), ("snmp", "Tcp: ")] {
            let text = netns.read(&format!("/proc/thread-self/net/{file}"))?;
            let mut rows = text.lines().filter_map(|line| line.strip_prefix(group));
            let (names, values) = (rows.next(), rows.next());
            let (names, values) = names
                .zip(values)
                .with_context(|| format!("no {group}in {file}"))?;
            let named = names.split_whitespace().zip(values.split_whitespace());
            // MaxConn is -1, which counts nothing.
            all.extend(
                named.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))),
            );
        }
        Ok(Mib(all))
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        *self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("this kernel has no counter {name}"))
    }

    /// Minisockets of both kinds born so far (6.1 and later).
    pub(crate) fn births(&self) -> u64 {
        self.get("TW") + self.get("TWKilled")
    }
}

/// Minisockets of both kinds there are now.
pub(crate) fn minisockets(netns: &Netns) -> Result<u64> {
    let text = netns.read("/proc/thread-self/net/sockstat")?;
    let mut words = text
        .lines()
        .filter(|line| line.starts_with("TCP:"))
        .flat_map(str::split_whitespace);
    words
        .find(|&word| word == "tw")
        .context("no tw in sockstat")?;
    Ok(words.next().context("no number in sockstat")?.parse()?)
}

/// How often a snapshot has seen a socket go from one state to another.
pub(crate) fn transitions(snapshot: &Value, from: &str, to: &str) -> u64 {
    rows_of_transitions(snapshot)
        .find(|row| row["from"] == from && row["to"] == to)
        .map_or(0, |row| count(row, &["count"]))
}

pub(crate) fn all_transitions(snapshot: &Value) -> u64 {
    let counts = rows_of_transitions(snapshot).map(|row| count(row, &["count"]));
    counts.sum()
}

fn rows_of_transitions(snapshot: &Value) -> impl Iterator<Item = &Value> {
    let rows = at(snapshot, &["transitions"]).as_array();
    rows.into_iter().flatten()
}

/// Births of both kinds of minisocket that a snapshot knows of.
pub(crate) fn births(snapshot: &Value) -> u64 {
    let direct = count(snapshot, &["time_wait", "entered"])
        - count(snapshot, &["fin_wait2_orphan", "became_time_wait"]);
    direct + count(snapshot, &["fin_wait2_orphan", "entered"])
}

/// Asks until it is so; says what it saw last when it never is.
#[expect(clippy::disallowed_methods, reason = "a deadline")]
pub(crate) fn wait<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(seen) => ensure!(
                Instant::now() < deadline,
                "{what}: not within {limit:?}; last seen: {seen}"
            ),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
