//! The arguments of `report`.

use std::path::PathBuf;

use clap::Args;
use log::LevelFilter;

use super::{Request, SHOW, ToldArgs};
use crate::model::state_set::StateSet;
use crate::options::ReportOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace report before.jsonl
  twtrace report day.jsonl.zst --state time-wait
  twtrace report before.jsonl --json | jq .time_wait.life_table

With --json it is one snapshot of the whole run, as `twtrace live --json` ends
with, and what the recording tells besides in its member `recording`.";

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// What `twtrace record` wrote, whole or as far as it is
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only the rows of this state, or group of states; may be given more than once
    #[arg(long, value_name = "STATE", value_delimiter = ',', help_heading = SHOW)]
    state: Vec<StateSet>,

    /// Print one JSON object
    #[arg(long, help_heading = SHOW)]
    json: bool,

    #[command(flatten)]
    told: ToldArgs,
}

impl ReportArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let states = self.state.into_iter().reduce(StateSet::union);
        let options = ReportOptions {
            file: self.file,
            states: states.unwrap_or_default(),
            json: self.json,
            color: self.told.color.into(),
        };
        (Request::Report(options), self.told.log_level())
    }
}
