//! Every verb and flag. The doc comments here are the manual: `--help` prints
//! them, and snapshots of it hold them.
//!
//! Nothing is decided here; [`Cli::into_request`] turns the words into the
//! plain options of [`crate::options`].

mod compare;
mod doctor;
mod explain;
mod lab;
mod record;
mod report;
mod trial;
mod values;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use log::LevelFilter;

use crate::analysis::condition::Condition;
use crate::model::event::Family;
use crate::model::filter::{Cgroup, Filter, Network, Processes};
use crate::model::state_set::StateSet;
use crate::options::{
    Color, CompareOptions, DEFAULT_RING_BYTES, DoctorOptions, EventsOptions, ExplainOptions,
    LiveForm, LiveOptions, Load, NetnsChoice, RecordOptions, ReportOptions, Scope, TrialOptions,
};
use crate::printable;

const EXAMPLES: &str = "\
Examples:
  twtrace                            what is wrong with the connections of this machine?
  twtrace --json --duration 1m       the same as JSON Lines, for a minute
  twtrace events --state time-wait   every TIME_WAIT that begins and ends
  twtrace doctor                     what this host lacks to run it, if anything
  twtrace explain tcp_tw_reuse       what a sysctl, or a state, means
  twtrace lab --close server         watch a load of its own, in private namespaces

Exit status: 0 done, 1 a negative answer, 2 an error, 3 undecided.";

const LIVE_EXAMPLES: &str = "\
Examples:
  twtrace live                                the tables, redrawn in place
  twtrace live --plain --interval 10s | tee tw.log
  twtrace live --netns self --dst 10.0.0.0/8 --dport 443
  twtrace live --json --count 1 | jq .time_wait.ended
  twtrace live --until 'time_wait < 100' --timeout 90s && systemctl start app

With --json each line is one snapshot, one an interval and one at the end; its
schema is docs/schema/snapshot-1.json. Counters count since the start.";

const EVENTS_EXAMPLES: &str = "\
Examples:
  twtrace events --dport 5432     what happens to connections to a database
  twtrace events --state time-wait --count 100
  twtrace events --json | jq 'select(.kind == \"minisocket_end\") | .reason'

With --json each line is one event; its schema is docs/schema/event-1.json.
A socket that goes into TIME_WAIT lives on in the kernel as a small
`minisocket`, and so does an orphan in FIN_WAIT2: its beginning, each re-arm of
its timer and its end are events of their own, under the same socket number.";

/// Live TCP state counts and true TIME_WAIT lives, measured in the kernel
///
/// twtrace counts the sockets of this machine in every TCP state, live, and
/// measures how long each one really sat in TIME_WAIT and why it left. Its
/// first lines say what is wrong, if anything, and what to do.
///
/// It reads tracepoints and changes nothing. It needs root. Without a verb it
/// does what `twtrace live` does, with the same options.
#[derive(Debug, Parser)]
#[command(
    name = "twtrace",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_long_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    live: LiveArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Live counts per state, TIME_WAIT lives, ends by reason, port headroom
    ///
    /// Says first what is wrong, whom it concerns and what to do: ports that run
    /// out and what holds them, connections that a program does not close, full
    /// queues, ports that cannot be bound, connects that fail. Then live counts
    /// and rates of the ten states, how long TIME_WAITs really live and why they
    /// end, who makes them. docs/findings.md lists what is looked for.
    ///
    /// On a terminal the tables are redrawn in place; into a pipe they are
    /// printed once an interval.
    #[command(after_long_help = LIVE_EXAMPLES)]
    Live(Box<LiveArgs>),

    /// One line per transition and per minisocket birth, re-arm and end
    ///
    /// Each line has the time, the socket's number (never used twice in a run),
    /// what happened, how long the state lasted that was left, both addresses,
    /// and the process that opened or closed the socket, where it is known.
    #[command(after_long_help = EVENTS_EXAMPLES)]
    Events(Box<EventsArgs>),

    /// What is missing to run, how near the limits are, and how this host is set
    ///
    /// Says what is wrong, as `live` does, after watching for a few seconds, and of
    /// each thing the tracer needs whether it is there and, if not, what to do.
    /// Then how near clients are
    /// to running out of local ports, and network namespaces to
    /// tcp_max_tw_buckets; what TIME_WAITs cost in memory; what each namespace
    /// is set to, and what a reboot would undo; what somebody who set it so may
    /// have believed, and the measurement that refutes it.
    ///
    /// It changes nothing. The exit status is 1 if something hurts, or something
    /// that is needed is missing.
    #[command(after_long_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),

    /// What a TCP state means, or what a sysctl can and cannot do
    ///
    /// Of a state: who waits there for whom, what ends it, in the words that
    /// twtrace prints, and when many of them hurt. Of a sysctl: what it is set to
    /// in each network namespace, when a change is felt and by whom, what it can
    /// and cannot do, and how that is known. Needs no privileges.
    #[command(after_long_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),

    /// A verb in private network namespaces, under a load of its own
    ///
    /// Makes two network namespaces joined by a veth pair, has a client in one
    /// connect to a server in the other at a steady rate, and runs the verb on
    /// them. This machine's own sockets and sysctls are left alone, and nothing
    /// remains when it ends, however it ends.
    #[command(after_long_help = lab::EXAMPLES)]
    Lab(lab::LabArgs),

    /// Keep what happens in a file, interval by interval
    ///
    /// Writes JSON Lines: how this host and each network namespace are set, then
    /// a frame an interval with everything that moved in it, a line whenever a
    /// sysctl is changed, and an end. Its size follows the time, not the load.
    /// It can be read at any moment, and however the run ended.
    ///
    /// Records for 130 s, which is two lives of a TIME_WAIT, unless told
    /// otherwise or as long as COMMAND runs.
    #[command(after_long_help = record::EXAMPLES)]
    Record(Box<record::RecordArgs>),

    /// Show a recording: the whole run, and its course
    #[command(after_long_help = report::EXAMPLES)]
    Report(report::ReportArgs),

    /// What differs between before and after, with a verdict in words
    ///
    /// Compares two recordings, or the parts of one before and after its sysctls
    /// changed. What decides is chosen from what those sysctls can do, not from
    /// what moved. How far such figures differ by themselves is measured on the
    /// recording before the change, and what is called different differs by more.
    ///
    /// It is a comparison of before and after, not a controlled one: whatever
    /// else changed at that time is in it too.
    #[command(after_long_help = compare::EXAMPLES)]
    Compare(compare::CompareArgs),

    /// Does changing a sysctl do anything? Tried in a lab
    ///
    /// Eight pairs of private network namespaces run the same load side by side.
    /// In four of them, chosen by lot, the sysctl has the new value. What sets
    /// these apart from the others is told, with how sure that is, in a little
    /// more than two minutes. This machine's own sysctls are left alone.
    ///
    /// So far it runs in a lab only: `twtrace lab -- trial --set KEY=VALUE`.
    #[command(after_long_help = trial::EXAMPLES)]
    Trial(trial::TrialArgs),
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Live(LiveOptions),
    Events(EventsOptions),
    Doctor(DoctorOptions),
    Explain(ExplainOptions),
    Trial(TrialOptions),
    Lab { load: Load, verb: Box<Request> },
    Record(RecordOptions),
    Report(ReportOptions),
    Compare(CompareOptions),
}

impl Request {
    /// Which sockets it wants to see, where it wants to see any.
    pub fn scope_mut(&mut self) -> Option<&mut Scope> {
        match self {
            Request::Live(options) => Some(&mut options.scope),
            Request::Events(options) => Some(&mut options.scope),
            Request::Record(options) => Some(&mut options.scope),
            Request::Doctor(_)
            | Request::Explain(_)
            | Request::Trial(_)
            | Request::Lab { .. }
            | Request::Report(_)
            | Request::Compare(_) => None,
        }
    }
}

/// What a command line asks for; its first word is the program. The error has the
/// words in it, and is what a terminal can be shown.
pub fn request(
    words: impl IntoIterator<Item = OsString>,
) -> Result<(Request, LevelFilter), clap::Error> {
    let parse = |words: &[OsString]| Cli::try_parse_from(words).and_then(Cli::into_request);
    let words: Vec<OsString> = words.into_iter().collect();
    parse(&words).map_err(|error| {
        // Inside an error, words and colours cannot be told apart any more.
        let shown: Vec<OsString> = words
            .iter()
            .map(|word| printable::text(word.to_string_lossy()).into_owned().into())
            .collect();
        let unshown = "a word holds what cannot be shown, and cannot be what it is given for";
        parse(&shown).map_or_else(
            |error| error,
            |_| Cli::command().error(error.kind(), unshown),
        )
    })
}

impl Cli {
    /// Fails where the words of a verb within a verb are no command line.
    pub fn into_request(self) -> Result<(Request, LevelFilter), clap::Error> {
        Ok(match self.verb {
            None => self.live.into_request(),
            Some(Verb::Live(live)) => live.into_request(),
            Some(Verb::Events(events)) => events.into_request(),
            Some(Verb::Doctor(doctor)) => doctor.into_request(),
            Some(Verb::Explain(explain)) => explain.into_request(),
            Some(Verb::Lab(lab)) => lab.into_request()?,
            Some(Verb::Record(record)) => record.into_request(),
            Some(Verb::Report(report)) => report.into_request(),
            Some(Verb::Compare(compare)) => compare.into_request(),
            Some(Verb::Trial(trial)) => trial.into_request(),
        })
    }
}

#[derive(Debug, Args)]
struct LiveArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Print the whole table once an interval instead of redrawing it in place
    ///
    /// This is also what happens when the output is not a terminal.
    #[arg(long, conflicts_with = "json", help_heading = SHOW)]
    plain: bool,

    /// End once this holds, with exit status 0
    ///
    /// A state and a number, such as 'time_wait < 100'; a verdict, such as
    /// 'verdict == fine'; or a finding's id, such as bind_blocked or
    /// 'not bind_blocked'. May be given more than once: then all have to hold.
    #[arg(long, value_name = "CONDITION", help_heading = LONG)]
    until: Vec<Condition>,

    /// Give up waiting after this long, with exit status 3
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "until", help_heading = LONG)]
    timeout: Option<Duration>,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// What every verb lets its user choose of what it tells.
#[derive(Debug, Args)]
struct ToldArgs {
    /// Colours: auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto, help_heading = SHOW)]
    color: When,

    /// What to tell on the standard error output besides errors
    #[arg(long, value_name = "LEVEL", default_value = "warn", help_heading = TRACER,
          value_parser = clap::builder::PossibleValuesParser::new(LEVELS))]
    log_level: String,
}

impl ToldArgs {
    fn log_level(&self) -> LevelFilter {
        // The possible values are all of log's names.
        self.log_level.parse().unwrap_or(LevelFilter::Warn)
    }
}

const SEE: &str = "What to see";
const SHOW: &str = "How to show it";
const LONG: &str = "How long";
const TRACER: &str = "The tracer itself";

/// Which sockets are counted.
#[derive(Debug, Args)]
struct ScopeArgs {
    /// Network namespaces: all, self, a name, a path or an inode number
    ///
    /// A name is one that `ip netns` knows, a path a file such as
    /// /proc/PID/ns/net, an inode what `lsns -t net` prints. With `all` a
    /// connection within this machine counts at both its ends.
    #[arg(long, value_name = "NETNS", default_value = "all", help_heading = SEE)]
    netns: NetnsChoice,

    /// Only this local port; may be given more than once
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port, help_heading = SEE)]
    sport: Vec<u16>,

    /// Only this remote port; may be given more than once
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port, help_heading = SEE)]
    dport: Vec<u16>,

    /// Only this local address or prefix; may be given more than once
    ///
    /// An IPv4 address such as 10.0.0.9 or prefix such as 10.0.0.0/8 also means
    /// the same hosts as IPv6 sockets know them (::ffff:10.0.0.9).
    #[arg(long, value_name = "ADDR[/LEN]", value_delimiter = ',', help_heading = SEE)]
    src: Vec<Network>,

    /// Only this remote address or prefix; may be given more than once
    #[arg(long, value_name = "ADDR[/LEN]", value_delimiter = ',', help_heading = SEE)]
    dst: Vec<Network>,

    /// Only sockets that this process opens or closes; may be given more than once
    ///
    /// The kernel knows whose a socket is when it connects, listens or closes,
    /// so one that was accepted comes into sight when it is closed, and one that
    /// was there before when it closes. Children have pids of their own. A process
    /// goes by the number that `ps` shows here; one outside this PID namespace has none.
    #[arg(long, value_name = "PID", value_delimiter = ',', help_heading = SEE,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pid: Vec<u32>,

    /// Only sockets that processes of this name open or close
    ///
    /// The name is what `ps -o comm` prints: at most 15 bytes of it.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::comm, help_heading = SEE)]
    comm: Vec<String>,

    /// Only sockets that processes of this control group open or close
    ///
    /// A path below the cgroup v2 mount, such as /system.slice/nginx.service, or
    /// its directory. The groups below it count too, as they are at the start.
    #[arg(long, value_name = "PATH", value_parser = values::cgroup, help_heading = SEE)]
    cgroup: Vec<String>,

    /// Only sockets made for IPv4
    #[arg(short = '4', long, help_heading = SEE)]
    ipv4: bool,

    /// Only sockets made for IPv6, those that talk to IPv4 hosts included
    #[arg(short = '6', long, help_heading = SEE)]
    ipv6: bool,
}

#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Only sockets in this state, or group of states
    ///
    /// In the spelling of ss or of netstat: time-wait, TIME_WAIT, estab, ...; the
    /// groups of ss are connected, synchronized, bucket and big. May be given
    /// more than once. It selects what is shown, not what is counted: `live`
    /// leaves the other rows out of its table, `events` prints what
    /// enters or leaves such a state.
    #[arg(long, value_name = "STATE", value_delimiter = ',', help_heading = SEE)]
    state: Vec<StateSet>,

    /// Time between two snapshots, such as 500ms, 1s or 1m
    ///
    /// In `events`: how often losses are told. Steps that no tracepoint tells
    /// are looked for at least every 500 ms, whatever is asked for here.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::interval, help_heading = LONG)]
    interval: Duration,

    /// Stop after this time, such as 90s or 2m30s [default: until interrupted]
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = LONG)]
    duration: Option<Duration>,

    /// Stop after this many snapshots, or lines of events
    #[arg(long, short = 'n', value_name = "N", value_parser = values::count, help_heading = LONG)]
    count: Option<u64>,

    /// Print JSON Lines
    #[arg(long, help_heading = SHOW)]
    json: bool,

    #[command(flatten)]
    ring: RingArgs,

    #[command(flatten)]
    told: ToldArgs,
}

#[derive(Debug, Args)]
struct RingArgs {
    /// Size of the buffer between the kernel and twtrace, such as 4M
    ///
    /// A power of two. What does not fit is counted as lost and put right from
    /// the kernel; take more when the output reports `ring` losses.
    #[arg(long, value_name = "BYTES", default_value_t = RingBytes(DEFAULT_RING_BYTES),
          value_parser = RingBytes::parse, help_heading = TRACER)]
    ring_size: RingBytes,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl ScopeArgs {
    /// Every state is shown.
    fn scope(&self) -> Scope {
        // Both flags say what neither says, as in ss.
        let family = match (self.ipv4, self.ipv6) {
            (true, false) => Some(Family::Inet),
            (false, true) => Some(Family::Inet6),
            _ => None,
        };
        Scope {
            netns: self.netns.clone(),
            filter: Filter::new(
                family,
                self.sport.clone(),
                self.dport.clone(),
                self.src.clone(),
                self.dst.clone(),
            )
            .of(Processes {
                pids: self.pid.clone(),
                comms: self.comm.clone(),
                cgroups: self
                    .cgroup
                    .iter()
                    .map(|path| Cgroup {
                        path: path.clone(),
                        ids: Vec::new(),
                    })
                    .collect(),
            }),
            states: StateSet::default(),
        }
    }
}

impl CommonArgs {
    fn scope(&self) -> Scope {
        Scope {
            states: self
                .state
                .iter()
                .copied()
                .reduce(StateSet::union)
                .unwrap_or_default(),
            ..self.scope.scope()
        }
    }
}

impl LiveArgs {
    fn into_request(self) -> (Request, LevelFilter) {
        let common = &self.common;
        let options = LiveOptions {
            scope: common.scope(),
            form: match (common.json, self.plain) {
                (true, _) => LiveForm::Json,
                (false, true) => LiveForm::Plain,
                (false, false) => LiveForm::Auto,
            },
            color: common.told.color.into(),
            interval: common.interval,
            duration: common.duration,
            count: common.count,
            until: self.until.clone(),
            timeout: self.timeout,
            ring_bytes: common.ring.ring_size.0,
        };
        (Request::Live(options), common.told.log_level())
    }
}

impl EventsArgs {
    fn into_request(self) -> (Request, LevelFilter) {
        let common = &self.common;
        let options = EventsOptions {
            scope: common.scope(),
            json: common.json,
            color: common.told.color.into(),
            interval: common.interval,
            duration: common.duration,
            count: common.count,
            ring_bytes: common.ring.ring_size.0,
        };
        (Request::Events(options), common.told.log_level())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl From<When> for Color {
    fn from(when: When) -> Color {
        match when {
            When::Auto => Color::Auto,
            When::Always => Color::Always,
            When::Never => Color::Never,
        }
    }
}

/// A size that `--help` shows as people write it.
#[derive(Clone, Copy, Debug)]
struct RingBytes(u32);

impl RingBytes {
    fn parse(text: &str) -> Result<RingBytes, String> {
        values::ring_bytes(text).map(RingBytes)
    }
}

impl std::fmt::Display for RingBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&values::size(self.0.into()))
    }
}

#[cfg(test)]
mod tests;
