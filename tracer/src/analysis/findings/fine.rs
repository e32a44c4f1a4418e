//! What is said first where nothing is wrong: the TIME_WAITs, and what they cost.

use crate::analysis::load::Load;
use crate::model::snapshot::Snapshot;
use crate::units::{bytes, count, endpoint, percent_of};

/// A TIME_WAIT's slab object, and with its port's two bind buckets, in bytes.
const SERVER_BYTES: u64 = 256;
const CLIENT_BYTES: u64 = 614;

/// `TIME_WAIT 5,204, 98 % of them on the client side`.
#[must_use]
pub fn stock(snapshot: &Snapshot) -> String {
    let time_wait = &snapshot.time_wait;
    let side = time_wait.side;
    let known = side.client + side.server;
    let whose = match (time_wait.now, side.client, side.server, side.unknown) {
        (0, ..) => return "TIME_WAIT 0".to_owned(),
        (_, 0, 0, _) => ", side not known yet".to_owned(),
        (_, 0, _, 0) => ", all on the server side".to_owned(),
        (_, _, 0, 0) => ", all on the client side".to_owned(),
        (_, client, server, _) if client >= server => {
            format!(", {} on the client side", percent_of(client, known))
        }
        (_, _, server, _) => format!(", {} on the server side", percent_of(server, known)),
    };
    let unknown = match (known, side.unknown) {
        (0, _) | (_, 0) => String::new(),
        (_, unknown) => format!(" (not known of {})", count(unknown)),
    };
    format!("TIME_WAIT {}{whose}{unknown}", count(time_wait.now))
}

/// Why these hurt nobody, in whole sentences.
#[must_use]
pub fn harmless(snapshot: &Snapshot) -> String {
    let loads = snapshot.ports.iter().map(|to| Load::of(snapshot, to));
    let worst = loads.max_by(|a, b| a.fill().total_cmp(&b.fill()));
    let ports = match worst {
        Some(worst) => format!(
            "No destination uses {} of its local ports (the most: {}, {} of {}).{}",
            at_most(&percent_of(worst.taken, worst.to.usable)),
            endpoint(worst.to.remote, worst.to.remote_port),
            count(worst.taken),
            count(worst.to.usable),
            worst.again()
        ),
        None => "None takes a local port from a client.".to_owned(),
    };
    let side = snapshot.time_wait.side;
    let memory = match side.server {
        0 => String::new(),
        server => format!(
            " The {} on the server side cost memory only, about {}.",
            count(server),
            bytes(server * SERVER_BYTES)
        ),
    };
    let memory = match (snapshot.time_wait.now, side.server) {
        (0, _) => return ports,
        (now, 0) => format!(" They cost about {} of memory.", bytes(now * CLIENT_BYTES)),
        _ => memory,
    };
    ports + &memory
}

/// `more than 40 %`, `as much as 0.1 %`: what none of them uses.
fn at_most(share: &str) -> String {
    match share.strip_prefix('<') {
        Some(bound) => format!("as much as {bound}"),
        None => format!("more than {share}"),
    }
}
