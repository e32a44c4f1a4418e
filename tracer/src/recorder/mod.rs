//! A session as the lines of a recording: the header once stock was taken, a
//! frame an interval, namespaces and sysctls as they change, the end.
//!
//! Who takes the lines is its caller's affair: [`file`] is one way to keep them.

pub mod file;
mod settings;

use std::collections::BTreeMap;
use std::future::Future;

use anyhow::{Context as _, Result};

use self::settings::{Read, Settings};
use crate::kernel::counters;
use crate::kernel::netns::Namespace;
use crate::kernel::requirements::Facts;
use crate::model::event::Netns;
use crate::model::happening::Happening;
use crate::model::snapshot::Snapshot;
use crate::recording::{Anchor, Cutter, End, Ended, Header, Kernel, LONGEST, Line, SCHEMA};
use crate::render::events::{Happenings as _, Json};
use crate::render::terminal::Terminal;
use crate::session::{self, More, Names, Plan, Sink, Taken};

/// What a recording is to hold besides the frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Every event, as `twtrace events --json` prints it.
    pub events: bool,
    /// What is run meanwhile, for the header; it is the caller who runs it.
    pub command: Option<Vec<String>>,
}

/// Runs a session until it ends, or `command` does, and tells its lines. The
/// last one is returned instead: only the caller knows how the command ended.
pub fn run(
    facts: &Facts,
    plan: &Plan,
    contents: &Contents,
    command: impl Future<Output = ()>,
    tell: &mut impl FnMut(&Line) -> Result<More>,
) -> Result<End> {
    let mut recorder = Recorder {
        plan,
        contents,
        tell,
        cutter: Cutter::default(),
        frames: 0,
        settings: Settings::default(),
        counted: BTreeMap::new(),
        events: Json::new(Terminal::new(Vec::new(), false)),
        last: None,
        namespaces: Vec::new(),
    };
    let ended = session::run_until(facts, plan, command, &mut recorder)?;
    recorder.end(ended)
}

struct Recorder<'a, F> {
    plan: &'a Plan,
    contents: &'a Contents,
    tell: &'a mut F,
    cutter: Cutter,
    frames: u64,
    settings: Settings,
    /// The kernel's counters when they were last read.
    counted: BTreeMap<Netns, counters::Named>,
    /// Events since the last look at the ring.
    events: Json<Vec<u8>>,
    last: Option<Snapshot>,
    /// In scope then.
    namespaces: Vec<Namespace>,
}

impl<F: FnMut(&Line) -> Result<More>> Sink for Recorder<'_, F> {
    fn happening(&mut self, happening: &Happening, names: &mut Names) -> Result<More> {
        if self.contents.events {
            let cgroup = happening.owner.and_then(|owner| owner.cgroup);
            let cgroup = cgroup.and_then(|id| names.cgroups.path(id));
            let time = names.wall.at(happening.at);
            self.events.happening(happening, time, cgroup)?;
        }
        Ok(More::Yes)
    }

    fn flush(&mut self) -> Result<()> {
        self.events.flush()?;
        let events = std::mem::take(self.events.get_mut());
        for event in events
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            (self.tell)(&Line::Event(String::from_utf8_lossy(event).into_owned()))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, taken: &Taken<'_>) -> Result<More> {
        let (time, elapsed_s) = (taken.snapshot.time, taken.snapshot.elapsed_s);
        let read = Read {
            time,
            elapsed_s,
            namespaces: taken.namespaces,
        };
        // Before anybody is told that it begins: what he then does is counted.
        let kernel = self.count(taken.namespaces);
        let mut news = Vec::new();
        let first = self.last.is_none();
        if first {
            let mut settings = self.settings.read(&read);
            news = settings.split_off(in_the_header(&settings)?);
            let header = self.header(taken, settings);
            if (self.tell)(&Line::Header(Box::new(header)))? == More::Enough {
                return Ok(More::Enough);
            }
        } else if self.settings.is_time(taken.at) {
            news = self.settings.read(&read);
        }
        let mut frame = self.cutter.cut(taken.snapshot, &taken.sums, taken.at);
        frame.kernel = (!first).then_some(kernel);
        self.frames += 1;
        let mut more = (self.tell)(&Line::Frame(Box::new(frame)))?;
        for line in news {
            if (self.tell)(&line)? == More::Enough {
                more = More::Enough;
            }
        }
        self.last = Some(taken.snapshot.clone());
        self.namespaces = taken.namespaces.to_vec();
        Ok(more)
    }
}

/// How many of these lines have room in the header; the others follow it.
fn in_the_header(settings: &[Line]) -> Result<usize> {
    let mut bytes = Vec::new();
    let mut fits = 0;
    for line in settings {
        line.write(&mut bytes)?;
        if bytes.len() as u64 > LONGEST / 2 {
            break;
        }
        fits += 1;
    }
    Ok(fits)
}

impl<F: FnMut(&Line) -> Result<More>> Recorder<'_, F> {
    fn header(&self, taken: &Taken<'_>, settings: Vec<Line>) -> Header {
        let snapshot = taken.snapshot;
        Header {
            schema: SCHEMA.to_owned(),
            version: snapshot.version.clone().into_owned(),
            time: snapshot.time - jiff::SignedDuration::from_secs_f64(snapshot.elapsed_s),
            host: snapshot.host.clone(),
            clock: Anchor {
                monotonic_ns: taken.at.0,
                time: snapshot.time,
            },
            scope: snapshot.scope.clone(),
            interval_s: self.plan.interval.as_secs_f64(),
            duration_s: self.plan.duration.map(|duration| duration.as_secs_f64()),
            command: self.contents.command.clone(),
            events: self.contents.events,
            seeded: snapshot
                .states
                .iter()
                .map(|(state, count)| (state.name().to_owned(), count.seeded))
                .collect(),
            namespaces: settings
                .into_iter()
                .filter_map(|line| match line {
                    Line::Namespace(settings) => Some(settings),
                    _ => None,
                })
                .collect(),
        }
    }

    /// How far the kernel's counters moved since they were last read. Those of a
    /// namespace that is new are counted from its beginning.
    fn count(&mut self, namespaces: &[Namespace]) -> Kernel {
        let mut kernel = Kernel::default();
        for (netns, now) in counters::read_named(namespaces) {
            let before = self.counted.get(&netns);
            let before = before.filter(|before| before.cookie == now.cookie);
            for (&name, &value) in &now.counters {
                let before = before.and_then(|named| named.counters.get(name).copied());
                // One that is lower is another namespace's too, before there were cookies.
                let moved = value.checked_sub(before.unwrap_or(0)).unwrap_or(value);
                *kernel.counters.entry(name.to_owned()).or_default() += moved;
            }
            kernel.minisockets += now.minisockets;
            kernel.full_sockets += now.full_sockets;
            self.counted.insert(netns, now);
        }
        kernel
    }

    fn end(mut self, ended: Ended) -> Result<End> {
        let last = self.last.context("the run ended before it had begun")?;
        // What was set since the last look is not to be missed.
        let read = Read {
            time: last.time,
            elapsed_s: last.elapsed_s,
            namespaces: &self.namespaces,
        };
        for line in self.settings.read(&read) {
            (self.tell)(&line)?;
        }
        Ok(End {
            time: last.time,
            elapsed_s: last.elapsed_s,
            frames: self.frames,
            ended,
            command_status: None,
            owners: last.owners,
            remotes: last.remotes,
            left_out: last.left_out,
            namespaces: last.namespaces,
            in_state_s: last
                .in_state_s
                .into_iter()
                .map(|(state, distribution)| (state.to_owned(), distribution))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{NamespaceSettings, Sysctls};

    #[test]
    fn namespaces_that_have_no_room_in_the_header_follow_it() {
        let sysctls: Sysctls = (0..50)
            .map(|n| (format!("net.ipv4.tcp_number_{n}"), n.to_string()))
            .collect();
        let namespace = |netns| {
            Line::Namespace(NamespaceSettings {
                time: jiff::Timestamp::UNIX_EPOCH,
                elapsed_s: 0.0,
                netns,
                name: None,
                sysctls: sysctls.clone().into(),
            })
        };
        let bytes = |lines: &[Line]| {
            let mut bytes = Vec::new();
            for line in lines {
                line.write(&mut bytes).unwrap();
            }
            bytes.len() as u64
        };
        let few: Vec<Line> = (0..500).map(namespace).collect();
        assert_eq!(in_the_header(&few).unwrap(), 500);
        let many: Vec<Line> = (0..2_000).map(namespace).collect();
        let fits = in_the_header(&many).unwrap();
        assert!(bytes(&many[..fits]) <= LONGEST / 2);
        assert!(bytes(&many[..=fits]) > LONGEST / 2);
    }
}
