//! What fits a sentence: quantiles, the life table's estimate, ends by reason,
//! orphans, closes, connects. What is zero is not said, what is not known is.

use super::{TOO_SHORT_S, named_counts, quantiles};
use crate::model::snapshot::{Distribution, FinWait2Ends, Snapshot, TimeWaitEnds};
use crate::render::line::{Block, Line, Tone, wrapped};
use crate::units::{count, counted, edge, percent, percent_of, seconds};

/// Cells of the names at the left.
const NAME: usize = 10;

/// One block a fact, so that a small screen shows as many as fit.
pub(super) fn blocks(snapshot: &Snapshot, width: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut say = |name: &'static str, text: &str| blocks.push(fact(name, text, width));
    say("Estimate", &estimate(snapshot));
    say("Ends", &ends(snapshot));
    say("Lives", &lives(snapshot));
    if let Some(text) = orphans(snapshot) {
        say("FIN_WAIT2", &text);
    }
    say("Closes", &closes(snapshot));
    say("Connects", &connects(snapshot));
    if snapshot.syn_ack_timeouts > 0 {
        let timeouts = counted(snapshot.syn_ack_timeouts, "SYN-ACK", "SYN-ACKs");
        let text = format!("{timeouts} had no ACK in time: sent again, or given up");
        say("Half-open", &text);
    }
    if let Some(text) = both_ends(snapshot) {
        say("Note", text);
    }
    if let Some(first) = blocks.first_mut() {
        first.tight = false;
    }
    blocks
}

fn fact(name: &'static str, text: &str, width: usize) -> Block {
    let body = wrapped(Tone::Plain, text, width.saturating_sub(NAME), 0);
    let lines = body
        .into_iter()
        .enumerate()
        .map(|(i, line)| {
            let head = Line::of(
                Tone::Strong,
                format!("{:<NAME$}", if i == 0 { name } else { "" }),
            );
            head.joined(line)
        })
        .collect();
    Block {
        name,
        lines,
        tight: true,
    }
}

fn ends(snapshot: &Snapshot) -> String {
    let time_wait = &snapshot.time_wait;
    let TimeWaitEnds {
        expired,
        reused_by_connect,
        reused_by_bound_connect,
        reused_by_syn,
        reset,
        tproxy,
        destroyed,
        netns_exit,
        unknown,
    } = time_wait.ended;
    let reasons = [
        ("expired", expired),
        ("reused_by_connect", reused_by_connect),
        ("reused_by_bound_connect", reused_by_bound_connect),
        ("reused_by_syn", reused_by_syn),
        ("reset", reset),
        ("tproxy", tproxy),
        ("destroyed", destroyed),
        ("netns_exit", netns_exit),
        ("unknown", unknown),
    ];
    let mut text = match shares(&reasons) {
        Some((all, shares)) => format!("{} ended: {shares}", count(all)),
        None => "no TIME_WAIT ended yet".to_owned(),
    };
    if time_wait.rearmed > 0 {
        text += &format!("; re-armed {} times", count(time_wait.rearmed));
    }
    if time_wait.overflowed > 0 {
        text += &format!(
            "; {} never began (tcp_max_tw_buckets)",
            count(time_wait.overflowed)
        );
    }
    text
}

/// The sum, and each that is not zero with its share of it; largest first.
fn shares(reasons: &[(&str, u64)]) -> Option<(u64, String)> {
    let all: u64 = reasons.iter().map(|(_, n)| n).sum();
    let mut some: Vec<_> = reasons.iter().filter(|(_, n)| *n > 0).collect();
    some.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let words: Vec<String> = some
        .iter()
        .map(|(name, n)| format!("{name} {} ({})", count(*n), percent_of(*n, all)))
        .collect();
    (all > 0).then(|| (all, words.join(", ")))
}

fn lives(snapshot: &Snapshot) -> String {
    let lifetime = &snapshot.time_wait.lifetime_s;
    let names = ["min", "p50", "p90", "p99", "max"];
    let mut text = match quantiles(&lifetime.distribution, &names) {
        Some(quantiles) => format!(
            "of {}: {quantiles}",
            counted(lifetime.distribution.count, "whole life", "whole lives"),
        ),
        None => "no whole life seen yet".to_owned(),
    };
    let timer = &snapshot.time_wait.timer;
    let longest = timer.nominal_s.unwrap_or(60.0) + timer.slack_s;
    if (TOO_SHORT_S..longest).contains(&lifetime.complete_from_s) {
        text += &format!(
            "; longer ones than {} cannot have been seen yet",
            seconds(lifetime.complete_from_s)
        );
    }
    text
}

fn estimate(snapshot: &Snapshot) -> String {
    let table = &snapshot.time_wait.life_table;
    let mut parts = Vec::new();
    if let Some(share) = table.reaches_2msl {
        parts.push(format!(
            "{} reach 2MSL ({} to {})",
            percent(share.share),
            percent(share.low).trim_end_matches(" %"),
            percent(share.high)
        ));
    }
    if let Some(mean) = table.mean_s {
        parts.push(format!(
            "mean life {} ({} to {})",
            seconds(mean.estimate),
            seconds(mean.low).trim_end_matches(" s"),
            seconds(mean.high)
        ));
    }
    let seen = format!(
        "{} socket-seconds",
        count(table.socket_seconds.round() as u64)
    );
    if parts.is_empty() {
        return match table.seen_to_s {
            Some(age) => format!(
                "no TIME_WAIT older than {} was seen yet ({seen})",
                edge(age)
            ),
            None => format!("not enough data yet ({seen})"),
        };
    }
    format!("{}, from {seen}", parts.join(", "))
}

/// `None` where there never was one.
fn orphans(snapshot: &Snapshot) -> Option<String> {
    let orphan = &snapshot.fin_wait2_orphan;
    if orphan.now + orphan.seeded + orphan.entered == 0 {
        return None;
    }
    let FinWait2Ends {
        expired,
        data_after_close,
        reset,
        reused_by_connect,
        reused_by_bound_connect,
        tproxy,
        destroyed,
        netns_exit,
        unknown,
    } = orphan.ended;
    let ends = named_counts(&[
        ("expired", expired),
        ("data_after_close", data_after_close),
        ("reset", reset),
        ("reused_by_connect", reused_by_connect),
        ("reused_by_bound_connect", reused_by_bound_connect),
        ("tproxy", tproxy),
        ("destroyed", destroyed),
        ("netns_exit", netns_exit),
        ("unknown", unknown),
    ]);
    let mut text = format!(
        "orphans: {} now, {} entered, {} became TIME_WAIT",
        count(orphan.now),
        count(orphan.entered),
        count(orphan.became_time_wait)
    );
    if !ends.is_empty() {
        text += &format!("; ended: {ends}");
    }
    if let Some(quantiles) = quantiles(&orphan.lifetime_s, &["p50", "max"]) {
        text += &format!("; lived {quantiles}");
    }
    Some(text)
}

fn closes(snapshot: &Snapshot) -> String {
    let closes = &snapshot.closes;
    let straight = closes.straight_to_closed;
    let kinds = named_counts(&[
        ("overflow", straight.overflow),
        ("reset", straight.reset),
        ("aborted", straight.aborted),
        ("other", straight.other),
    ]);
    let straight = if kinds.is_empty() {
        "none straight to CLOSED".to_owned()
    } else {
        format!("straight to CLOSED: {kinds}")
    };
    format!(
        "{} via TIME_WAIT, {} passive, {straight}",
        count(closes.via_time_wait),
        count(closes.passive)
    )
}

fn connects(snapshot: &Snapshot) -> String {
    let failures = &snapshot.connect_failures;
    let kinds = named_counts(&[
        ("ports_exhausted", failures.ports_exhausted),
        ("refused", failures.refused),
        ("timed_out", failures.timed_out),
        ("abandoned", failures.abandoned),
        ("unreachable", failures.unreachable),
        ("other", failures.other),
    ]);
    let failed = if kinds.is_empty() {
        "none failed".to_owned()
    } else {
        format!("failed: {kinds}")
    };
    match latency(&snapshot.connect_latency_s) {
        Some(latency) => format!("{failed}; {latency}"),
        None => failed,
    }
}

fn latency(distribution: &Distribution) -> Option<String> {
    let quantiles = quantiles(distribution, &["p50", "p99", "max"])?;
    Some(format!(
        "latency of {}: {quantiles}",
        count(distribution.count)
    ))
}

/// Where both ends of a connection may be among the sockets that are counted.
fn both_ends(snapshot: &Snapshot) -> Option<&'static str> {
    let loopback = snapshot
        .remotes
        .iter()
        .any(|remote| remote.addr.to_canonical().is_loopback())
        || snapshot
            .ports
            .iter()
            .any(|port| port.remote.to_canonical().is_loopback() || port.local == port.remote);
    if loopback {
        Some("a connection over loopback counts at both its ends")
    } else if snapshot.namespaces.len() > 1 {
        Some("a connection between two namespaces of this machine counts at both its ends")
    } else {
        None
    }
}
