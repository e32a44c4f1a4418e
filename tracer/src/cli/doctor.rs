//! The arguments of `doctor`.

use std::time::Duration;

use clap::Args;
use log::LevelFilter;

use super::{LONG, Request, SEE, SHOW, ToldArgs, values};
use crate::options::DoctorOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace doctor
  twtrace doctor --duration 30s   steadier rates
  twtrace doctor --self-test      after an update of the kernel
  twtrace doctor --json | jq -r '.checks[] | select(.remedy) | .remedy'
  twtrace doctor --json | jq '.boot.reverts, .myths'

With --json it prints one object; its schema is docs/schema/doctor-1.json.";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Try on this kernel what the tracer assumes of it
    ///
    /// Makes connections in a private network namespace, brings each to an end
    /// of its own, and compares what the tracer sees with what was done. Takes a
    /// few seconds and touches nothing else. The exit status is 1 if an
    /// assumption does not hold.
    #[arg(long, help_heading = SEE)]
    self_test: bool,

    /// How long to watch connections, such as 3s or 1m
    ///
    /// What is used is known at once; how fast it grows is not. Ports that a
    /// burst takes once a minute need a look of more than a minute.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = values::duration, help_heading = LONG)]
    duration: Duration,

    /// Print one JSON object
    #[arg(long, help_heading = SHOW)]
    json: bool,

    #[command(flatten)]
    told: ToldArgs,
}

impl DoctorArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let options = DoctorOptions {
            look: self.duration,
            self_test: self.self_test,
            json: self.json,
            color: self.told.color.into(),
        };
        (Request::Doctor(options), self.told.log_level())
    }
}
