//! How soon a snapshot goes by what was set since in a namespace.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tracer::kernel::clock::{self, Wall};
use tracer::lab::netns::Netns;

use super::twtrace::Twtrace;
use super::{Outcome, Verdict};

/// No later than this is a change shown.
const WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// A namespace in which somebody listens, with one client.
struct Door {
    netns: Netns,
    listener: TcpListener,
    clients: Vec<TcpStream>,
}

impl Door {
    fn new() -> Result<Door> {
        let netns = Netns::new()?;
        let (listener, client) = netns.run(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            io::Result::Ok((listener, client))
        })??;
        Ok(Door {
            netns,
            listener,
            clients: vec![client],
        })
    }

    fn set_ports(&self, first: u16, count: u16) -> Result<()> {
        let range = format!("{first} {}", first + count - 1);
        self.netns.set_sysctl("ipv4.ip_local_port_range", &range)
    }

    /// Connects for as long as there are ports; how often that was.
    fn take_all_ports(&mut self) -> Result<usize> {
        let door = self.listener.local_addr()?;
        let before = self.clients.len();
        loop {
            match self.netns.run(|| TcpStream::connect(door))? {
                Ok(client) => self.clients.push(client),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Ok(self.clients.len() - before);
                }
                Err(error) => return Err(error).context("cannot connect"),
            }
        }
    }
}

/// Of the only destination.
fn usable(snapshot: &Value) -> Option<u64> {
    snapshot["ports"][0]["usable"].as_u64()
}

pub(crate) fn a_change_is_shown_within_two_seconds() -> Outcome {
    // Asked rarely or often, it is the same.
    for interval in ["200ms", "3s"] {
        // A port that is in use at the start is a client's if it is in the range.
        let door = Door::new()?;
        let live = Twtrace::live(&door.netns, &["--interval", interval])?;
        for count in [1000, 500, 2000] {
            door.set_ports(30_000, count)?;
            let shown_from = Wall::now().at(clock::now()) + WITHIN;
            let snapshot = live.snapshot("what was there two seconds later", |snapshot| {
                let time = snapshot["time"].as_str().unwrap_or_default();
                let time: Timestamp = time.parse().map_err(|_| format!("at {time:?}"))?;
                if time >= shown_from {
                    Ok(())
                } else {
                    Err("it is too early".to_owned())
                }
            })?;
            ensure!(
                usable(&snapshot) == Some(u64::from(count)),
                "{count} ports are set, and {} shown, every {interval}",
                snapshot["ports"]
            );
        }
        live.stop()?;
    }
    Ok(Verdict::Held)
}

pub(crate) fn ports_that_ran_out_are_read_anew_at_once() -> Outcome {
    let mut door = Door::new()?;
    let live = Twtrace::live(&door.netns, &["--interval", "50ms"])?;
    // By chance alone a change would be shown in time once or twice, not each time.
    for round in 1..=6 {
        // Even: of an odd number of ports a connect tries all but one.
        let count = 10 + 2 * round;
        door.set_ports(31_000 + 100 * round, count)?;
        let taken = door.take_all_ports()?;
        ensure!(taken == usize::from(count), "{taken} of {count} ports");
        let snapshot = live.snapshot("ports that ran out", |snapshot| {
            match snapshot["connect_failures"]["ports_exhausted"].as_u64() {
                Some(times) if times >= u64::from(round) => Ok(()),
                times => Err(format!("{times:?} times")),
            }
        })?;
        ensure!(
            usable(&snapshot) == Some(u64::from(count)),
            "round {round}: {count} ports ran out, and of {} it is told",
            snapshot["ports"]
        );
    }
    live.stop()?;
    Ok(Verdict::Held)
}
