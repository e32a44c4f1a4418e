//! Filters by port and address: who is told of, and that the kernel side leaves
//! the others out by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer::lab::netns::Netns;

use super::truth;
use super::twtrace::{PATIENCE, Twtrace};
use super::{Outcome, Verdict};

const FOREIGN: u64 = 300;
const WANTED: usize = 20;

/// Two servers, and filters that each mean the second alone.
pub(crate) fn others_are_left_out_in_the_kernel() -> Outcome {
    let netns = Netns::new()?;
    let v6 = netns.run(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())?;
    let mut second: Vec<(IpAddr, &[&str])> = vec![
        (Ipv4Addr::new(127, 0, 0, 2).into(), &["--dport", "PORT"]),
        (Ipv4Addr::new(127, 0, 0, 2).into(), &["--sport", "PORT"]),
        (Ipv4Addr::new(127, 0, 0, 2).into(), &["--dst", "127.0.0.2"]),
        (
            Ipv4Addr::new(127, 0, 0, 2).into(),
            &["--src", "127.0.0.2/31"],
        ),
        (
            Ipv4Addr::new(127, 0, 0, 2).into(),
            &["--dport", "1", "--dport", "PORT", "--dst", "127.0.0.2/31"],
        ),
    ];
    if v6 {
        second.push((Ipv6Addr::LOCALHOST.into(), &["--dst", "::1"]));
    }
    for (address, filter) in second {
        holds(&netns, address, filter).with_context(|| format!("{filter:?}"))?;
    }
    if v6 {
        Ok(Verdict::Held)
    } else {
        Ok(Verdict::Impossible("this kernel has no IPv6".to_owned()))
    }
}

fn holds(netns: &Netns, address: IpAddr, filter: &[&str]) -> Result<()> {
    let door = |address: IpAddr| {
        netns
            .run(|| TcpListener::bind((address, 0)))?
            .map_err(anyhow::Error::from)
    };
    let (first, second) = (door(Ipv4Addr::LOCALHOST.into())?, door(address)?);
    let port = second.local_addr()?.port().to_string();
    let mut words = vec!["--log-level", "debug"];
    words.extend(
        filter
            .iter()
            .map(|&word| if word == "PORT" { &*port } else { word }),
    );
    let events = Twtrace::events(netns, &words)?;
    truth::wait("the first event", PATIENCE, || {
        connect(netns, &second)?;
        std::thread::sleep(std::time::Duration::from_millis(20));
        Ok(if events.printed() > 0 {
            Ok(())
        } else {
            Err("no line".to_owned())
        })
    })?;
    for _ in 0..FOREIGN {
        connect(netns, &first)?;
    }
    for _ in 0..WANTED {
        connect(netns, &second)?;
    }

    let wanted = second.local_addr()?;
    let is_wanted = |event: &&Value| {
        ["local", "remote"]
            .iter()
            .any(|end| truth::end(event, end) == Some(wanted))
    };
    events.until("those that are wanted", |lines| {
        let closes = |e: &&Value| e["to"] == "TIME_WAIT" || e["to"] == "CLOSED";
        (lines.iter().filter(is_wanted).filter(closes).count() >= WANTED).then_some(())
    })?;
    let (lines, log) = events.stop_with_log()?;
    for event in lines.iter().filter(|e| e["local"].is_object()) {
        ensure!(is_wanted(&event), "it was not asked for: {event:#}");
    }
    let records: u64 = log
        .lines()
        .find_map(|line| line.split_once("records read: ")?.1.trim().parse().ok())
        .with_context(|| format!("no number of records in {log:?}"))?;
    // Of those that are wanted each record is told. Of the others there are first
    // steps, before a connect has its port and a listener's child its ends, where
    // unfiltered there are ten records or more. A few name processes.
    let most = 2 * lines.len() as u64 + FOREIGN * 3;
    ensure!(
        records <= most,
        "{records} records for {} lines and {FOREIGN} foreign connections",
        lines.len()
    );
    Ok(())
}

/// One that begins and ends, the client's end first.
fn connect(netns: &Netns, door: &TcpListener) -> Result<()> {
    let address = door.local_addr()?;
    let client = netns.run(|| TcpStream::connect(address))??;
    let server = door.accept()?.0;
    drop(client);
    drop(server);
    Ok(())
}
