//! `events --json`: one connection is one story under one number.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tracer::lab::churn::{self, Churn, Listener};
use tracer::lab::destroy::Destroyer;
use tracer::lab::netns::Netns;

use super::stage::bound_connect;
use super::truth;
use super::twtrace::{PATIENCE, Twtrace};
use super::{Outcome, Verdict, allowance, guest};

/// Makes connections until one is told of: from then on all are.
pub(crate) fn listening(events: &Twtrace, netns: &Netns) -> Result<()> {
    let door = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let address = door.local_addr()?;
    truth::wait("the first event", PATIENCE, || {
        let client = netns.run(|| TcpStream::connect(address))??;
        let server = door.accept()?.0;
        drop(client);
        drop(server);
        if events.printed() > 0 {
            return Ok(Ok(()));
        }
        std::thread::sleep(Duration::from_millis(50));
        Ok(Err("no line".to_owned()))
    })
}

/// The events of the socket whose two ends are these, once the last is there.
fn story(events: &Twtrace, local: SocketAddr, remote: SocketAddr) -> Result<Vec<Value>> {
    events.until("the end of a minisocket", |lines| {
        let is_ours = |event: &&Value| {
            truth::end(event, "local") == Some(local)
                && truth::end(event, "remote") == Some(remote)
                && event["kind"] == "minisocket_end"
        };
        let socket = &lines.iter().find(is_ours)?["socket"];
        Some(
            lines
                .iter()
                .filter(|event| event["socket"] == *socket)
                .cloned()
                .collect(),
        )
    })
}

pub(crate) fn one_connection_is_one_story() -> Outcome {
    let netns = Netns::new()?;
    let events = Twtrace::events(&netns, &[])?;
    listening(&events, &netns)?;

    let door = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let remote = door.local_addr()?;
    let client = netns.run(|| TcpStream::connect(remote))??;
    let local = client.local_addr()?;
    let server = door.accept()?.0;
    client.shutdown(Shutdown::Write)?;
    drop(server);
    drop(client);
    let destroyed = netns.run(|| anyhow::Ok(Destroyer::new()?.destroy(local, remote)))??;
    if let Err(error) = &destroyed
        && error.kind() == std::io::ErrorKind::Unsupported
    {
        return Ok(Verdict::Impossible(
            "this kernel destroys no minisockets on request".to_owned(),
        ));
    }
    destroyed.context("cannot destroy a TIME_WAIT")?;

    let story = story(&events, local, remote)?;
    events.stop()?;
    let steps: Vec<String> = story.iter().map(told).collect::<Result<_>>()?;
    let expected = [
        "SYN_SENT -> ESTABLISHED",
        "ESTABLISHED -> FIN_WAIT1",
        "FIN_WAIT1 -> FIN_WAIT2",
        "FIN_WAIT2 -> TIME_WAIT",
        "start TIME_WAIT",
        "end TIME_WAIT destroyed",
    ];
    let mut rest = steps.iter();
    for step in expected {
        // The two lines of the hand-over may come in either order.
        let there = if step.starts_with("start") {
            steps.iter().any(|s| s == step)
        } else {
            rest.any(|s| s == step)
        };
        ensure!(there, "no {step:?} in order in {steps:?}: {story:#?}");
    }

    let me = u64::from(std::process::id());
    for event in &story {
        ensure!(
            event["side"] == "client",
            "not the client's side: {event:#}"
        );
        ensure!(
            event["netns"] == netns.inode() && event["family"] == "inet",
            "not where it was: {event:#}"
        );
        ensure!(event["pid"] == me, "the owner is not known: {event:#}");
        ensure!(event["schema"] == "twtrace.event/1", "no schema: {event:#}");
    }
    let of_kind = |kind: &str| {
        story
            .iter()
            .find(|event| event["kind"] == kind)
            .context("the kind was found above")
    };
    let timeout = of_kind("minisocket_start")?["timeout_s"]
        .as_f64()
        .context("no timeout_s")?;
    ensure!(
        (59.9..=60.1).contains(&timeout),
        "TIME_WAIT was armed for {timeout} s"
    );
    let end = of_kind("minisocket_end")?;
    ensure!(end["by"]["pid"] == me, "ended by another: {end:#}");
    let life = end["lifetime_s"].as_f64().context("no lifetime_s")?;
    ensure!(
        (0.0..10.0).contains(&life),
        "a TIME_WAIT destroyed at once lived {life} s"
    );
    Ok(Verdict::Held)
}

/// Of a thousand connections each step leaves the state that the last one entered,
/// and none is told before it.
pub(crate) fn each_step_follows_the_last() -> Outcome {
    let connections = guest::lighter(1_000);
    let netns = churn::namespace()?;
    let mut doors = netns.run(|| {
        (0..2)
            .map(|_| Listener::new(Ipv4Addr::UNSPECIFIED))
            .collect::<Result<Vec<_>>>()
    })??;
    let marker = doors.split_off(1);
    let events = Twtrace::events(&netns, &[])?;
    listening(&events, &netns)?;
    let load = Churn {
        connections,
        ..Churn::default()
    };
    netns.run(|| load.run_towards(&doors, &[Ipv4Addr::LOCALHOST]))??;
    let last = Churn {
        connections: 1,
        ..load
    };
    netns.run(|| last.run_towards(&marker, &[Ipv4Addr::LOCALHOST]))??;

    let is_at = |event: &Value, door: &Listener| {
        ["local", "remote"].map(|end| event[end]["port"] == door.port) != [false; 2]
    };
    let lines = events.until("what came after the load", |lines| {
        let over = lines.iter().any(|event| is_at(event, &marker[0]));
        over.then(|| lines.to_vec())
    })?;
    events.stop()?;
    let mut stories: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for event in lines.iter().filter(|event| event["kind"] != "lost") {
        let socket = event["socket"].as_u64().context("no socket")?;
        stories.entry(socket).or_default().push(event);
    }
    stories.retain(|_, story| story.iter().any(|event| is_at(event, &doors[0])));
    let torn: Vec<String> = stories
        .values()
        .filter_map(|story| follows(story).err())
        .collect();
    ensure!(
        torn.len() as u64 <= allowance::of(connections),
        "{} of {} stories are torn, the first: {}",
        torn.len(),
        stories.len(),
        torn[0]
    );
    // Its listener is none of them: it says nothing before it is let go.
    let ends = 2 * connections;
    allowance::check_seen("sockets", stories.len() as u64, ends, ends)?;
    Ok(Verdict::Held)
}

/// The steps of a connection that is opened and closed at both ends, whichever
/// closes first.
const STEPS: [(&str, &str); 12] = [
    ("CLOSED", "SYN_SENT"),
    ("SYN_SENT", "ESTABLISHED"),
    ("LISTEN", "SYN_RECV"),
    ("SYN_RECV", "ESTABLISHED"),
    ("ESTABLISHED", "FIN_WAIT1"),
    ("ESTABLISHED", "CLOSE_WAIT"),
    ("FIN_WAIT1", "FIN_WAIT2"),
    ("FIN_WAIT1", "CLOSING"),
    ("FIN_WAIT2", "TIME_WAIT"),
    ("CLOSING", "TIME_WAIT"),
    ("CLOSE_WAIT", "LAST_ACK"),
    ("LAST_ACK", "CLOSED"),
];

/// Whether each event of a socket goes on from where it was, by a step that TCP
/// has; else which does not.
fn follows(story: &[&Value]) -> Result<(), String> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let mut state = None;
    let mut time = String::new();
    for event in story {
        let (from, to) = match word(event, "kind").as_str() {
            "transition" => (word(event, "from"), word(event, "to")),
            _ => (word(event, "state"), word(event, "state")),
        };
        let is_step = from == to || STEPS.contains(&(from.as_str(), to.as_str()));
        let goes_on = match &state {
            Some(state) => from == *state,
            None => from == "CLOSED" || from == "LISTEN",
        };
        if !is_step || !goes_on || word(event, "time") < time {
            return Err(format!("{event} does not follow in {story:#?}"));
        }
        state = Some(to);
        time = word(event, "time");
    }
    Ok(())
}

fn told(event: &Value) -> Result<String> {
    let word = |key: &str| {
        event[key]
            .as_str()
            .with_context(|| format!("no {key} in {event}"))
    };
    Ok(match word("kind")? {
        "transition" => format!("{} -> {}", word("from")?, word("to")?),
        "minisocket_start" => format!("start {}", word("state")?),
        "minisocket_rearm" => format!("rearm {}", word("state")?),
        "minisocket_end" => format!("end {} {}", word("state")?, word("reason")?),
        other => bail!("an event of unknown kind {other:?}: {event}"),
    })
}

pub(crate) fn reuse_names_the_process() -> Outcome {
    let netns = Netns::new()?;
    let events = Twtrace::events(&netns, &[])?;
    listening(&events, &netns)?;

    let door = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let remote = door.local_addr()?;
    let first = netns.run(|| bound_connect(0, remote))??;
    let local = first.local_addr()?;
    let server = door.accept()?.0;
    drop(first);
    drop(server);
    let again = netns.run(|| bound_connect(local.port(), remote))??;

    let story = story(&events, local, remote)?;
    drop(again);
    events.stop()?;
    let end = story.last().context("the end was found")?;
    ensure!(
        end["reason"] == "reused_by_bound_connect",
        "another reason: {end:#}"
    );
    ensure!(
        end["by"]["pid"] == std::process::id(),
        "the process that took the port is not named: {end:#}"
    );
    // Of whichever of its threads was seen first.
    let comm = end["by"]["comm"].as_str().unwrap_or_default();
    ensure!(!comm.is_empty(), "the process has no name: {end:#}");
    Ok(Verdict::Held)
}
