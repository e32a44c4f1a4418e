//! `twtrace.event/1`, docs/schema/event-1.json: one object a line, members that
//! are not known are absent.

use std::io::{self, Write};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Happenings;
use crate::model::event::{Family, Tuple};
use crate::model::happening::{CloseReason, Happening, Process, Side, What};
use crate::model::snapshot::Lost;
use crate::units;

pub const SCHEMA: &str = "twtrace.event/1";

/// JSON Lines of events.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
}

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Json<W> {
        Json { out }
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Happenings for Json<W> {
    fn happening(
        &mut self,
        happening: &Happening,
        time: Timestamp,
        cgroup: Option<&str>,
    ) -> io::Result<()> {
        self.line(&HappeningLine {
            time,
            happening,
            cgroup,
        })
    }

    fn lost(&mut self, time: Timestamp, lost: &Lost) -> io::Result<()> {
        self.line(&LostLine { time, lost })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct HappeningLine<'a> {
    time: Timestamp,
    happening: &'a Happening,
    cgroup: Option<&'a str>,
}

impl Serialize for HappeningLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Happening {
            socket,
            side,
            tuple,
            owner,
            what,
            ..
        } = self.happening;
        let mut map = begin(serializer, self.time)?;
        map.serialize_entry("socket", &socket.0)?;
        what_happened(&mut map, what)?;
        match side {
            Side::Client => map.serialize_entry("side", "client")?,
            Side::Server => map.serialize_entry("side", "server")?,
            Side::Unknown => {}
        }
        if let Some(tuple) = tuple {
            both_ends(&mut map, tuple)?;
        }
        if let Some(owner) = owner {
            map.serialize_entry("pid", &owner.pid)?;
            entry(&mut map, "comm", owner.comm.as_ref().map(units::comm))?;
        }
        entry(&mut map, "cgroup", self.cgroup)?;
        map.end()
    }
}

struct LostLine<'a> {
    time: Timestamp,
    lost: &'a Lost,
}

impl Serialize for LostLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = begin(serializer, self.time)?;
        map.serialize_entry("kind", "lost")?;
        map.serialize_entry("lost", self.lost)?;
        map.end()
    }
}

fn begin<S: Serializer>(serializer: S, time: Timestamp) -> Result<S::SerializeMap, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("schema", SCHEMA)?;
    map.serialize_entry("time", &format_args!("{time:.6}"))?;
    Ok(map)
}

fn what_happened<M: SerializeMap>(map: &mut M, what: &What) -> Result<(), M::Error> {
    match what {
        What::Transition {
            from,
            to,
            in_state,
            reason,
        } => {
            map.serialize_entry("kind", "transition")?;
            map.serialize_entry("from", from.name())?;
            map.serialize_entry("to", to.name())?;
            entry(map, "reason", reason.map(CloseReason::name))?;
            entry(map, "in_state_s", in_state.map(|time| time.as_secs_f64()))
        }
        What::MinisocketStart { state, timeout } => {
            map.serialize_entry("kind", "minisocket_start")?;
            map.serialize_entry("state", state.name())?;
            map.serialize_entry("timeout_s", &timeout.as_secs_f64())
        }
        What::MinisocketRearm { state } => {
            map.serialize_entry("kind", "minisocket_rearm")?;
            map.serialize_entry("state", state.name())
        }
        What::MinisocketEnd {
            state,
            reason,
            lifetime,
            since_last_arm,
            rearmed,
            by,
        } => {
            map.serialize_entry("kind", "minisocket_end")?;
            map.serialize_entry("state", state.name())?;
            map.serialize_entry("reason", reason)?;
            entry(map, "lifetime_s", lifetime.map(|time| time.as_secs_f64()))?;
            entry(
                map,
                "since_last_arm_s",
                since_last_arm.map(|time| time.as_secs_f64()),
            )?;
            map.serialize_entry("rearmed", rearmed)?;
            map.serialize_entry("by", &Who(by))
        }
    }
}

fn both_ends<M: SerializeMap>(map: &mut M, tuple: &Tuple) -> Result<(), M::Error> {
    map.serialize_entry("netns", &tuple.netns.0)?;
    let family = match tuple.family {
        Family::Inet => "inet",
        Family::Inet6 => "inet6",
    };
    map.serialize_entry("family", family)?;
    if tuple.is_nameless() {
        return Ok(());
    }
    map.serialize_entry(
        "local",
        &End {
            addr: tuple.local_addr(),
            port: tuple.local_port,
        },
    )?;
    map.serialize_entry(
        "remote",
        &End {
            addr: tuple.remote_addr(),
            port: tuple.remote_port,
        },
    )
}

fn entry<M: SerializeMap>(
    map: &mut M,
    key: &str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, &value),
        None => Ok(()),
    }
}

#[derive(serde::Serialize)]
struct End {
    addr: IpAddr,
    port: u16,
}

/// Who ended it.
struct Who<'a>(&'a Process);

impl Serialize for Who<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.0.pid)?;
        entry(&mut map, "comm", self.0.comm.as_ref().map(units::comm))?;
        map.end()
    }
}
