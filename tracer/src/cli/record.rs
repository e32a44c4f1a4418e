//! The arguments of `record`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;

use super::{LONG, Request, RingArgs, SHOW, ScopeArgs, ToldArgs, values};
use crate::options::RecordOptions;

/// Two lives of a TIME_WAIT, and the timer wheel's slack: what was there at the
/// start has gone, and what began since has been seen to its end.
const DEFAULT_DURATION: Duration = Duration::from_secs(130);

const RUN: &str = "What to run meanwhile";

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace record -o before.jsonl
  twtrace record -o day.jsonl.zst --duration 24h
  twtrace record -o test.jsonl.zst -- ./load-test.sh
  twtrace record -o db.jsonl --dport 5432 --events --duration 30s
  jq -c 'select(.kind == \"frame\") | [.elapsed_s, .states.TIME_WAIT.now]' before.jsonl

docs/recording.md says what stands in a recording, and how to read one with jq,
DuckDB and pandas.";

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// Where to write; compressed by zstd if the name ends in .zst
    ///
    /// What is there already is written over, but not before the run has begun.
    /// A new file is readable by its owner alone; one that is there keeps its mode.
    #[arg(long, short, value_name = "FILE", help_heading = SHOW)]
    output: PathBuf,

    #[command(flatten)]
    scope: ScopeArgs,

    /// Keep every event too, as `twtrace events --json` prints it
    ///
    /// The file then grows with the load, by several lines for each connection.
    #[arg(long, help_heading = SHOW)]
    events: bool,

    /// Time between two frames, such as 500ms, 1s or 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::interval, help_heading = LONG)]
    interval: Duration,

    /// Stop after this time, such as 90s or 24h [default: 130s, or when COMMAND ends]
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = LONG)]
    duration: Option<Duration>,

    #[command(flatten)]
    ring: RingArgs,

    #[command(flatten)]
    told: ToldArgs,

    /// Run COMMAND as this user, a name or a number [default: who called sudo]
    ///
    /// With his groups, without any capability, and with HOME, USER, LOGNAME and
    /// SHELL as `sudo -u` sets them. `--user root` keeps root where sudo was called.
    #[arg(long, value_name = "USER", requires = "command", help_heading = RUN)]
    user: Option<String>,

    /// What to run meanwhile, with its arguments; the recording ends with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl RecordArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let default = self.command.is_empty().then_some(DEFAULT_DURATION);
        let options = RecordOptions {
            scope: self.scope.scope(),
            output: self.output,
            interval: self.interval,
            duration: self.duration.or(default),
            events: self.events,
            command: self.command,
            user: self.user,
            ring_bytes: self.ring.ring_size.0,
        };
        (Request::Record(options), self.told.log_level())
    }
}
