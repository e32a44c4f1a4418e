//! The arguments of `trial`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use log::LevelFilter;

use super::{LONG, Request, SEE, SHOW, ToldArgs, values};
use crate::lab::setting::Setting;
use crate::options::{LabEnd, TrialOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace lab -- trial --set tcp_fin_timeout=15
  twtrace lab --ports 1000 -- trial --set tcp_tw_reuse=1
  twtrace lab --sysctl tcp_syncookies=0 -- trial --set tcp_syncookies=1 --json

Exit status: 0 decided and not worse, 1 worse, 2 an error, 3 undecided.";

#[derive(Debug, Args)]
pub(super) struct TrialArgs {
    /// The change to try; may be given more than once
    ///
    /// Such as tcp_tw_reuse=1, which is short for net.ipv4.tcp_tw_reuse=1. Several
    /// are one bundle: the verdict is of all of them together. What they are
    /// changed from is the kernel's default, or what `lab --sysctl` says.
    #[arg(long, value_name = "KEY=VALUE", required = true, help_heading = WHAT)]
    set: Vec<Setting>,

    /// The end of the connections that is measured
    #[arg(id = "end", long = "netns", value_name = "END", value_enum, default_value_t = End::Client, help_heading = SEE)]
    end: End,

    /// How long the load runs before it is measured [default: 2MSL and a little]
    ///
    /// The stock of TIME_WAITs remembers 60 s and the slack of the kernel's
    /// timer. A shorter time than the default measures how it grows.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = LONG)]
    settle: Option<Duration>,

    /// How long it is measured then
    #[arg(long, value_name = "TIME", default_value = "66s", value_parser = values::measure, help_heading = LONG)]
    measure: Duration,

    /// Draw the lot of an earlier trial again
    #[arg(long, value_name = "N", help_heading = WHAT)]
    seed: Option<u64>,

    /// Print one JSON object
    #[arg(long, help_heading = SHOW)]
    json: bool,

    #[command(flatten)]
    told: ToldArgs,
}

const WHAT: &str = "What to try";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum End {
    Client,
    Server,
}

impl TrialArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let options = TrialOptions {
            settings: self.set,
            end: match self.end {
                End::Client => LabEnd::Client,
                End::Server => LabEnd::Server,
            },
            settle: self.settle,
            measure: self.measure,
            seed: self.seed,
            json: self.json,
            color: self.told.color.into(),
        };
        (Request::Trial(options), self.told.log_level())
    }
}
