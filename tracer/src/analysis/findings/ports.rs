//! A plain `connect()` finds no local port to a destination, or soon will not.

use std::borrow::Cow;

use super::words::{time_left, who};
use super::{Finding, Moved, NOW_S, Severity, Subject};
use crate::analysis::load::{KNEE, Load};
use crate::model::snapshot::{Connects, Destination, Snapshot};
use crate::model::stock::Route;
use crate::units::{count, counted, endpoint, percent_of, roughly};

/// Exhaustion within this time is near, whatever the share.
const SOON_S: f64 = 600.0;

/// A rate that has lasted for so long is no burst.
const STEADY_S: f64 = 10.0;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let routes: Cow<'_, [Route]> = match &snapshot.stock {
        Some(stock) => Cow::Borrowed(&stock.routes),
        None => snapshot
            .ports
            .iter()
            .map(|to| counted_from(snapshot, to))
            .collect(),
    };
    let without_one = held_by_bind(snapshot, &routes);
    routes
        .iter()
        .chain(&without_one)
        .filter_map(|route| judged(snapshot, route))
        .collect()
}

/// A destination that no socket has a port towards, because `bind()` holds them all.
fn held_by_bind(snapshot: &Snapshot, routes: &[Route]) -> Option<Route> {
    let last = snapshot
        .last_without_port
        .filter(|last| last.ago_s <= NOW_S)?;
    let (local, remote) = (last.local.to_canonical(), last.remote.to_canonical());
    let has_route = |route: &Route| {
        (route.netns, route.remote, route.remote_port) == (last.netns, remote, last.remote_port)
    };
    let pools = snapshot.stock.iter().flat_map(|stock| &stock.pools);
    let pool = pools.into_iter().find(|pool| pool.netns == last.netns)?;
    let full = pool.bound >= pool.usable && !routes.iter().any(has_route);
    full.then_some(Route {
        netns: last.netns,
        local,
        remote,
        remote_port: last.remote_port,
        usable: pool.usable,
        bound: pool.bound,
        time_wait: 0,
        with_timestamps: 0,
        close_wait: 0,
        fin_wait2: 0,
        open: 0,
        outside: 0,
        privileged: 0,
        free_in_s: None,
        reuse: false,
        reuse_set: false,
        timestamps: true,
        holder: None,
    })
}

/// Where nobody looked, as in a recording, what the events of connections tell.
fn counted_from(snapshot: &Snapshot, to: &Destination) -> Route {
    let load = Load::of(snapshot, to);
    let again = to.used - load.taken;
    Route {
        netns: to.netns,
        local: to.local.to_canonical(),
        remote: to.remote.to_canonical(),
        remote_port: to.remote_port,
        usable: to.usable,
        time_wait: to.time_wait.min(to.used),
        with_timestamps: again,
        close_wait: 0,
        fin_wait2: 0,
        open: to.used.saturating_sub(to.time_wait),
        bound: 0,
        outside: 0,
        privileged: 0,
        free_in_s: None,
        reuse: again > 0,
        reuse_set: again > 0,
        timestamps: true,
        holder: None,
    }
}

fn judged(snapshot: &Snapshot, route: &Route) -> Option<Finding> {
    let connects = snapshot.connects.iter().find(|connects| {
        (
            connects.netns,
            connects.local.to_canonical(),
            connects.remote.to_canonical(),
            connects.remote_port,
        ) == (route.netns, route.local, route.remote, route.remote_port)
    });
    let recent = snapshot.last_without_port.is_some_and(|last| {
        last.ago_s <= NOW_S
            && (last.netns, last.remote.to_canonical(), last.remote_port)
                == (route.netns, route.remote, route.remote_port)
    });
    let failed = match connects {
        Some(connects) => connects.failed.ports_exhausted,
        None => 0,
    };
    let again = if failed > 0 {
        0
    } else {
        again(route, connects)
    };
    let taken = route.taken() - again;
    // What bind() holds is told of its source, unless connects fail for it.
    if failed == 0 && !recent && route.bound * 2 >= taken {
        return None;
    }
    let fill = taken as f64 / route.usable.max(1) as f64;
    let exhausted = fill >= 1.0 || (failed > 0 || recent) && fill >= KNEE;
    let soon = exhausted_in(snapshot, route);
    if !exhausted && fill < KNEE && soon.is_none() {
        return None;
    }
    Some(told(route, connects, taken, again, failed, exhausted, soon))
}

/// TIME_WAITs whose ports serve again: all that are older than the delay, of a second.
fn again(route: &Route, connects: Option<&Connects>) -> u64 {
    if !route.reuse {
        return 0;
    }
    let young = connects.map_or(0.0, |connects| {
        connects.established as f64 / connects.window_s.max(1.0)
    });
    route.with_timestamps.saturating_sub(young.ceil() as u64)
}

/// At the present rate, where all of its ports are of the range.
fn exhausted_in(snapshot: &Snapshot, route: &Route) -> Option<f64> {
    let same = snapshot.ports.iter().find(|to| {
        (
            to.netns,
            to.local.to_canonical(),
            to.remote.to_canonical(),
            to.remote_port,
        ) == (route.netns, route.local, route.remote, route.remote_port)
    });
    same.filter(|_| route.outside == 0)
        .and_then(|to| to.exhausted_in_s)
        .filter(|in_s| *in_s <= SOON_S)
}

fn told(
    route: &Route,
    connects: Option<&Connects>,
    taken: u64,
    again: u64,
    failed: u64,
    exhausted: bool,
    soon: Option<f64>,
) -> Finding {
    let fill = taken as f64 / route.usable.max(1) as f64;
    let waiting = route.time_wait - again.min(route.time_wait);
    let parts = [
        (waiting, "time_wait", "by TIME_WAITs"),
        (route.open, "open_connections", "by open connections"),
        (
            route.fin_wait2,
            "fin_wait2_orphans",
            "by orphans in FIN_WAIT2",
        ),
        (
            route.close_wait,
            "close_wait",
            "by connections in CLOSE_WAIT",
        ),
        (
            route.bound,
            "bound",
            "by bind() or listen(), for all destinations",
        ),
    ];
    let (_, cause, _) = parts
        .into_iter()
        .max_by_key(|part| part.0)
        .unwrap_or(parts[0]);
    let named: Vec<String> = parts
        .iter()
        .filter(|part| part.0 > 0)
        .map(|(n, _, by)| format!("{} {by}", count(*n)))
        .collect();
    let to = endpoint(route.remote, route.remote_port);
    let (id, severity) = if exhausted {
        ("ports_exhausted", Severity::Hurts)
    } else {
        ("ports_near", Severity::Near)
    };
    let holds = match cause {
        "time_wait" => "TIME_WAITs hold them",
        "open_connections" => "open connections hold them",
        "close_wait" => "connections that their program does not close hold them",
        "fin_wait2_orphans" => "connections that the other end does not close hold them",
        _ => "bind() holds them",
    };
    let headline = if exhausted {
        format!(
            "no local port is free from {} to {to}: {holds}",
            route.local
        )
    } else {
        format!(
            "local ports get scarce from {} to {to}: {} of {} ({}), {holds}",
            route.local,
            count(taken),
            count(route.usable),
            percent_of(taken, route.usable)
        )
    };
    let holder = route
        .holder
        .as_ref()
        .or_else(|| connects.and_then(|connects| connects.failing.as_ref()));
    let mut because = format!(
        "{} of {} ports are taken: {}.",
        count(taken),
        count(route.usable),
        named.join(", ")
    );
    if failed > 0 {
        because += &format!(
            " {} failed for it within the last seconds.",
            counted(failed, "connect", "connects")
        );
    }
    if let Some(left) = route.free_in_s.filter(|_| exhausted && waiting > 0) {
        because += &format!(" The next one is free in {}.", time_left(left));
    }
    if let Some(in_s) = soon.filter(|_| !exhausted) {
        because += &format!(" At the present rate none is left in {}.", roughly(in_s));
    }
    let mut finding = Finding {
        netns: Some(route.netns),
        headline,
        because,
        subject: Subject {
            local: Some(route.local),
            remote: Some(route.remote),
            remote_port: Some(route.remote_port),
            ..Subject::default()
        }
        .held_by(holder),
        // Where TIME_WAITs serve again, a burst is over in a second or two.
        after_s: if exhausted || fill >= KNEE && !(route.reuse && route.with_timestamps > 0) {
            0.0
        } else {
            STEADY_S
        },
        ..Finding::new(id, severity, cause)
    };
    finding.remedies = remedies(cause, &who(holder, "the program"), connects);
    finding
        .figure("used", taken)
        .figure("usable", route.usable)
        .figure("time_wait", route.time_wait)
        .figure("open", route.open)
        .figure("close_wait", route.close_wait)
        .figure("bound", route.bound)
        .figure("failed", failed)
}

fn remedies(cause: &str, who: &str, connects: Option<&Connects>) -> Vec<String> {
    let kept = connects.and_then(|connects| {
        let rate = connects.established as f64 / connects.window_s.max(1.0);
        Some((rate * connects.mean_life_s?).ceil().max(1.0) as u64)
    });
    let first = match (cause, kept) {
        ("time_wait", Some(kept)) => format!(
            "let {who} keep its connections: {} would carry this load",
            count(kept)
        ),
        ("time_wait", None) => format!("let {who} keep its connections and use them again"),
        ("fin_wait2_orphans", _) => {
            "have the server close what its clients have closed; tcp_fin_timeout ends these"
                .to_owned()
        }
        ("close_wait", _) => format!("have {who} close what its peers have closed"),
        ("bound", _) => {
            "set IP_BIND_ADDRESS_NO_PORT where programs bind() before they connect()".to_owned()
        }
        _ => format!("have {who} keep fewer connections open, or use more source addresses"),
    };
    let then = match cause {
        "time_wait" => "twtrace explain tcp_tw_reuse",
        _ => "twtrace explain ip_local_port_range",
    };
    vec![first, then.to_owned()]
}
