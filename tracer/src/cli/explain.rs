//! The arguments of `explain`.

use clap::Args;
use log::LevelFilter;

use super::{Request, ToldArgs};
use crate::options::ExplainOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace explain                    what there is to explain
  twtrace explain TIME_WAIT
  twtrace explain fin-wait-2         in the spelling of ss
  twtrace explain tcp_tw_reuse
  twtrace explain net.ipv4.tcp_fin_timeout=30";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A state in the spelling of ss or of netstat, or a sysctl [default: list them]
    #[arg(value_name = "STATE|SYSCTL")]
    word: Option<String>,

    #[command(flatten)]
    told: ToldArgs,
}

impl ExplainArgs {
    pub(super) fn into_request(self) -> (Request, LevelFilter) {
        let options = ExplainOptions {
            word: self.word,
            color: self.told.color.into(),
        };
        (Request::Explain(options), self.told.log_level())
    }
}
