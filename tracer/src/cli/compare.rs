//! The arguments of `compare`.

use std::path::PathBuf;

use clap::Args;
use log::LevelFilter;

use super::{Request, SHOW, ToldArgs, values};
use crate::options::{At, CompareOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace compare before.jsonl after.jsonl
  twtrace compare day.jsonl.zst               where its sysctls changed
  twtrace compare day.jsonl.zst --at 12m30s   where something else did
  twtrace compare before.jsonl after.jsonl --json | jq -r .verdict

A verdict needs a recording of 17 minutes or more before the change, and of 3
minutes after it; what is shorter gives an estimate. With --json it is one
object; its schema is docs/schema/comparison-1.json.

Exit status: 0 decided and not worse, 1 worse, 2 an error, 3 undecided.";

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The recording from before the change, or one of before and after
    #[arg(value_name = "BEFORE")]
    before: PathBuf,

    /// The recording from after the change
    ///
    /// Without it BEFORE is split where its sysctls changed.
    #[arg(value_name = "AFTER")]
    after: Option<PathBuf>,

    /// Split one recording at this time
    ///
    /// From its start, such as 12m30s, or by the clock, such as
    /// 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = values::at, conflicts_with = "after")]
    at: Option<At>,

    /// Print one JSON object
    #[arg(long, help_heading = SHOW)]
    json: bool,

    #[command(flatten)]
    told: ToldArgs,
}

impl CompareArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let options = CompareOptions {
            before: self.before,
            after: self.after,
            at: self.at,
            json: self.json,
            color: self.told.color.into(),
        };
        (Request::Compare(options), self.told.log_level())
    }
}
