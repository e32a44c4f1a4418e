//! Who and where: destinations by port headroom, owners, remote addresses,
//! namespaces, and the time spent in the other states. Five rows each; what
//! was left out is said.

use std::net::IpAddr;

use super::quantile;
use crate::analysis::load::{KNEE, Load};
use crate::model::event::State;
use crate::model::snapshot::{Destination, Namespace, Snapshot};
use crate::render::line::{Block, Line, Tone};
use crate::units::{
    count, counted, endpoint, host, percent_of, pid, rate, roughly, seconds, shortened,
};

const ROWS: usize = 5;

/// Narrowest column for a pair of addresses.
const ADDRESSES: usize = 26;

pub(super) fn ports(snapshot: &Snapshot, width: usize) -> Option<Block> {
    if snapshot.ports.is_empty() {
        return None;
    }
    let several = snapshot
        .ports
        .iter()
        .any(|port| port.netns != snapshot.ports[0].netns);
    let netns = if several { 12 } else { 0 };
    // Equal addresses of two namespaces have to be told apart: where room is
    // scarce, the share goes, which the column before it implies.
    let share = if several && width < ADDRESSES + 14 + 8 + 8 + 9 + 10 + netns {
        0
    } else {
        8
    };
    let columns = 14 + share + 8 + 9 + 10 + netns;
    let time_wait = if width >= ADDRESSES + columns + 11 {
        11
    } else {
        0
    };
    let addresses = width
        .saturating_sub(columns + time_wait)
        .clamp(ADDRESSES, 60);
    let row = |cells: [&str; 8]| {
        let [
            netns_cell,
            pair,
            used,
            share_cell,
            time_wait_cell,
            connects,
            limit,
            full,
        ] = cells;
        let netns = if netns > 0 {
            format!("{netns_cell:<netns$}")
        } else {
            String::new()
        };
        let share = if share > 0 {
            format!("{share_cell:>share$}")
        } else {
            String::new()
        };
        let time_wait = if time_wait > 0 {
            format!("{time_wait_cell:>time_wait$}")
        } else {
            String::new()
        };
        format!(
            "{netns}{pair:<addresses$}{used:>14}{share}{time_wait}{connects:>8}{limit:>9}{full:>10}"
        )
    };
    let heading = row([
        "NETNS",
        "LOCAL -> DESTINATION",
        "PORTS USED",
        "",
        "TIME_WAIT",
        "CONN/s",
        "LIMIT/s",
        "EXHAUSTED",
    ]);
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    for port in snapshot.ports.iter().take(ROWS) {
        let load = Load::of(snapshot, port);
        let pair = format!(
            "{} -> {}",
            host(port.local),
            endpoint(port.remote, port.remote_port)
        );
        let text = row([
            &port.netns.to_string(),
            &shortened(&pair, addresses.saturating_sub(1)),
            &format!("{}/{}", count(port.used), count(port.usable)),
            &percent_of(port.used, port.usable),
            &count(port.time_wait),
            &rate(port.connects_per_s),
            &rate(port.limit_per_s),
            &exhausted(port, load),
        ]);
        lines.push(Line::of(port_tone(load), text));
    }
    lines.extend(more(
        hidden(snapshot.ports.len()) + snapshot.left_out.destinations,
        "destination",
        "destinations",
    ));
    Some(Block::new("ports", lines))
}

fn exhausted(port: &Destination, load: Load<'_>) -> String {
    match port.exhausted_in_s {
        _ if load.is_full() => "now".to_owned(),
        Some(in_s) => format!("in {}", roughly(in_s)),
        None => "-".to_owned(),
    }
}

fn port_tone(load: Load<'_>) -> Tone {
    if load.is_full() {
        Tone::Bad
    } else if load.fill() >= KNEE {
        Tone::Warn
    } else {
        Tone::Plain
    }
}

/// Of these many rows, those that are not shown.
fn hidden(rows: usize) -> u64 {
    rows.saturating_sub(ROWS) as u64
}

fn more(hidden: u64, one: &str, many: &str) -> Option<Line> {
    (hidden > 0).then(|| {
        let rest = counted(hidden, one, many);
        Line::of(Tone::Faint, format!("{rest} not shown"))
    })
}

pub(super) fn owners(snapshot: &Snapshot, width: usize) -> Option<Block> {
    if snapshot.owners.is_empty() {
        return None;
    }
    let entered = snapshot.time_wait.entered;
    let columns = 7 + 1 + 16 + 1 + 11 + 1 + 7 + 2;
    let heading = format!(
        "{:>7} {:<16} {:>11} {:>7}  CGROUP",
        "PID", "CLOSED BY", "TIME_WAITs", ""
    );
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    for owner in snapshot.owners.iter().take(ROWS) {
        let cgroup = owner.cgroup.as_deref().unwrap_or("-");
        lines.push(Line::of(
            Tone::Plain,
            format!(
                "{:>7} {:<16} {:>11} {:>7}  {}",
                pid(owner.pid),
                owner.comm,
                count(owner.time_wait_entered),
                percent_of(owner.time_wait_entered, entered),
                shortened(cgroup, width.saturating_sub(columns).max(12))
            ),
        ));
    }
    let shown: u64 = snapshot
        .owners
        .iter()
        .take(ROWS)
        .map(|owner| owner.time_wait_entered)
        .sum();
    lines.extend(others(entered.saturating_sub(shown), 8, 16));
    Some(Block::new("owners", lines))
}

/// Whose the TIME_WAITs are: those that there are where every socket was looked at,
/// those that began since the start in a recording.
pub(super) fn remotes(snapshot: &Snapshot) -> Option<Block> {
    let (rows, all): (Vec<(IpAddr, u64)>, u64) = match &snapshot.stock {
        Some(stock) => (
            stock
                .time_wait_by_remote
                .iter()
                .map(|remote| (remote.addr, remote.now))
                .collect(),
            // As of the look, not of the snapshot.
            stock.time_wait_ends.iter().sum(),
        ),
        None => (
            snapshot
                .remotes
                .iter()
                .map(|remote| (remote.addr, remote.time_wait_entered))
                .collect(),
            snapshot.time_wait.entered,
        ),
    };
    if rows.is_empty() {
        return None;
    }
    let rows = &rows[..rows.len().min(ROWS)];
    let widest = rows
        .iter()
        .map(|(addr, _)| addr.to_string().len())
        .max()
        .unwrap_or(0)
        .max(16);
    let mut lines = vec![Line::of(
        Tone::Strong,
        format!(
            "{:<widest$} {:>11} {:>7}",
            "REMOTE ADDRESS", "TIME_WAITs", ""
        ),
    )];
    for (addr, n) in rows {
        lines.push(Line::of(
            Tone::Plain,
            format!(
                "{:<widest$} {:>11} {:>7}",
                addr.to_string(),
                count(*n),
                percent_of(*n, all)
            ),
        ));
    }
    let shown: u64 = rows.iter().map(|(_, n)| n).sum();
    lines.extend(others(all.saturating_sub(shown), 0, widest));
    Some(Block::new("remote addresses", lines))
}

/// The TIME_WAITs that no row above names.
fn others(rest: u64, indent: usize, width: usize) -> Option<Line> {
    (rest > 0).then(|| {
        let name = "others, unknown";
        Line::of(
            Tone::Faint,
            format!("{:indent$}{name:<width$} {:>11}", "", count(rest)),
        )
    })
}

/// `None` for a single namespace: the table of states has said it all.
pub(super) fn namespaces(snapshot: &Snapshot, width: usize) -> Option<Block> {
    if snapshot.namespaces.len() < 2 {
        return None;
    }
    let columns = [
        State::Established,
        State::TimeWait,
        State::FinWait2,
        State::CloseWait,
        State::Listen,
    ];
    let name = width.saturating_sub(11 + columns.len() * 12).clamp(8, 24);
    let now =
        |namespace: &Namespace, state| namespace.states.get(state).map_or(0, |count| count.now);
    let mut sorted: Vec<&Namespace> = snapshot.namespaces.iter().collect();
    sorted.sort_by_key(|namespace| {
        std::cmp::Reverse((
            now(namespace, State::TimeWait),
            now(namespace, State::Established),
        ))
    });
    let mut heading = format!("{:<11}{:<name$}", "NETNS", "NAME");
    heading.extend(columns.iter().map(|state| format!("{:>12}", state.name())));
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    for namespace in sorted.iter().take(ROWS) {
        let label = shortened(namespace.name.as_deref().unwrap_or("-"), name);
        let mut text = format!("{:<11}{label:<name$}", namespace.netns);
        text.extend(
            columns
                .iter()
                .map(|&state| format!("{:>12}", count(now(namespace, state)))),
        );
        lines.push(Line::of(Tone::Plain, text));
    }
    lines.extend(more(
        hidden(snapshot.namespaces.len()),
        "namespace",
        "namespaces",
    ));
    Some(Block::new("namespaces", lines))
}

pub(super) fn other_lives(snapshot: &Snapshot) -> Option<Block> {
    let mut lines = vec![Line::of(
        Tone::Strong,
        format!("{:<11} {:>9} {:>9} {:>9}", "TIME IN", "LEFT", "p50", "p99"),
    )];
    for (state, distribution) in &snapshot.in_state_s {
        let cell = |name| quantile(distribution, name).map_or("-".to_owned(), seconds);
        if distribution.count > 0 {
            lines.push(Line::of(
                Tone::Plain,
                format!(
                    "{state:<11} {:>9} {:>9} {:>9}",
                    count(distribution.count),
                    cell("p50"),
                    cell("p99")
                ),
            ));
        }
    }
    (lines.len() > 1).then(|| Block::new("time in other states", lines))
}
