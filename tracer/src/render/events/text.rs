//! Events as lines of columns, in the order in which a person asks: when,
//! which socket, between whom, what, after how long, whose.

use std::borrow::Cow;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Happenings;
use crate::model::event::{State, Tuple};
use crate::model::happening::{Happening, Process, Side, What};
use crate::model::snapshot::Lost;
use crate::render::line::{Line, Tone};
use crate::render::terminal::Terminal;
use crate::units;

/// Text with one heading before the first line. Nothing is cut: an IPv6
/// address pushes what follows it to the right.
#[derive(Debug)]
pub struct Text<W> {
    out: Terminal<W>,
    zone: TimeZone,
    show: Show,
    headed: bool,
}

/// What the lines contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    /// A column with the namespace of each socket, where there are several.
    pub netns: bool,
}

impl<W: Write> Text<W> {
    /// Times are shown as `zone` has them.
    pub fn new(out: Terminal<W>, zone: TimeZone, show: Show) -> Text<W> {
        Text {
            out,
            zone,
            show,
            headed: false,
        }
    }

    fn time(&self, time: Timestamp) -> String {
        time.to_zoned(self.zone.clone())
            .strftime("%H:%M:%S%.6f")
            .to_string()
    }

    fn heading(&mut self) -> io::Result<()> {
        if self.headed {
            return Ok(());
        }
        self.headed = true;
        let netns = if self.show.netns {
            format!("{:<11}", "NETNS")
        } else {
            String::new()
        };
        let text = format!(
            "{:<15} {:>8}  {netns}{:<22} {:<22} {:<6}  {:<34} {:>10}  OWNER",
            "TIME", "SOCKET", "LOCAL", "REMOTE", "SIDE", "EVENT", "AFTER"
        );
        self.out.line(&Line::of(Tone::Strong, text))
    }
}

impl<W: Write> Happenings for Text<W> {
    fn happening(
        &mut self,
        happening: &Happening,
        time: Timestamp,
        _cgroup: Option<&str>,
    ) -> io::Result<()> {
        self.heading()?;
        let (netns, local, remote) = match &happening.tuple {
            Some(tuple) => ends(tuple),
            None => ("?".to_owned(), "?".to_owned(), "?".to_owned()),
        };
        let netns = if self.show.netns {
            format!("{netns:<11}")
        } else {
            String::new()
        };
        let side = match happening.side {
            Side::Client => "client",
            Side::Server => "server",
            Side::Unknown => "-",
        };
        let (tone, what, after) = words(&happening.what);
        let mut line = Line::of(Tone::Faint, self.time(time));
        line.push(
            Tone::Plain,
            format!(
                " {:>8}  {netns}{local:<22} {remote:<22} {side:<6}  ",
                happening.socket.0
            ),
        );
        line.push(tone, format!("{what:<34}"));
        line.push(Tone::Plain, format!(" {after:>10}  {}", owners(happening)));
        self.out.line(&line)
    }

    fn lost(&mut self, time: Timestamp, lost: &Lost) -> io::Result<()> {
        self.heading()?;
        let mut line = Line::of(Tone::Faint, self.time(time));
        line.push(
            Tone::Warn,
            format!(
                " events lost since the start: {}",
                crate::render::text::causes(lost)
            ),
        );
        self.out.line(&line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn ends(tuple: &Tuple) -> (String, String, String) {
    if tuple.is_nameless() {
        return (tuple.netns.0.to_string(), "?".to_owned(), "?".to_owned());
    }
    let local = match tuple.local_port {
        0 => format!("{}:?", units::host(tuple.local_addr())),
        port => units::endpoint(tuple.local_addr(), port),
    };
    (
        tuple.netns.0.to_string(),
        local,
        units::endpoint(tuple.remote_addr(), tuple.remote_port),
    )
}

/// What happened, and the time it took: of the state left, of the minisocket's
/// life (at least that, where only its last arm is known), or ahead of it.
fn words(what: &What) -> (Tone, Cow<'static, str>, String) {
    let after = |time: &Option<std::time::Duration>| match time {
        Some(time) => units::seconds(time.as_secs_f64()),
        None => "-".to_owned(),
    };
    match what {
        What::Transition {
            from,
            to,
            in_state,
            reason,
        } => {
            let step = format!("{} -> {}", from.name(), to.name());
            let step = match reason {
                Some(reason) => format!("{step} {}", reason.name()),
                None => step,
            };
            let tone = if *to == State::Close {
                Tone::Faint
            } else {
                Tone::Plain
            };
            (tone, step.into(), after(in_state))
        }
        What::MinisocketStart { state, timeout } => (
            Tone::Plain,
            format!(
                "{} begins, timeout {}",
                state.name(),
                units::edge(timeout.as_secs_f64())
            )
            .into(),
            "-".to_owned(),
        ),
        What::MinisocketRearm { state } => (
            Tone::Warn,
            format!("{} re-armed", state.name()).into(),
            "-".to_owned(),
        ),
        What::MinisocketEnd {
            state,
            reason,
            lifetime,
            since_last_arm,
            ..
        } => {
            let after = match (lifetime, since_last_arm) {
                (None, Some(time)) => format!("≥{}", units::seconds(time.as_secs_f64())),
                _ => after(lifetime),
            };
            (
                Tone::Strong,
                format!("{} ends {reason}", state.name()).into(),
                after,
            )
        }
    }
}

/// The owner, and who ended it where that was somebody's doing: at any other
/// end the current process is only the one that the timer or segment interrupted.
fn owners(happening: &Happening) -> String {
    let mut text = happening
        .owner
        .as_ref()
        .map_or_else(|| "-".to_owned(), process);
    if let What::MinisocketEnd {
        reason,
        by,
        rearmed,
        ..
    } = &happening.what
    {
        if matches!(
            *reason,
            "reused_by_connect" | "reused_by_bound_connect" | "destroyed"
        ) {
            text += &format!(" by {}", process(by));
        }
        if *rearmed > 0 {
            text += &format!(", re-armed {rearmed}×");
        }
    }
    text
}

fn process(process: &Process) -> String {
    let pid = units::pid(process.pid);
    match &process.comm {
        Some(comm) => format!("{}[{pid}]", units::comm(comm)),
        None => format!("[{pid}]"),
    }
}
