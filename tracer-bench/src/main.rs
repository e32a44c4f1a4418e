//! `count` lists the work there is; `count NAME` does one, once, for `cargo
//! xtask instructions` to count: only what happens inside `Work::run` is to be.
//! `scale` says how the ledger bears a crowd, a line of JSON each.

use std::env;
use std::io::{self, Write as _};

use anyhow::{Context, Result, bail};
use tracer_bench::scale::{self, Crowd};
use tracer_bench::work::ALL;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = io::stdout().lock();
    match arguments[..] {
        ["count"] => {
            for (name, unit, prepare) in ALL {
                writeln!(out, "{name} {unit} {}", prepare().units)?;
            }
        }
        ["count", wanted] => {
            let work = ALL.iter().find(|(name, ..)| *name == wanted);
            let (.., prepare) = work.with_context(|| format!("no work is named {wanted:?}"))?;
            prepare().run();
        }
        ["scale", sockets, waiting] => {
            let number = |text: &str| {
                text.parse::<u64>()
                    .with_context(|| format!("{text:?} is no number"))
            };
            // The smaller first: what it frees does not count for the other.
            for (name, crowd) in [
                ("churned", scale::churned(number(waiting)?)?),
                ("seeded", scale::seeded(number(sockets)?, 10)?),
            ] {
                let Crowd {
                    sockets,
                    events,
                    seconds,
                    rss_bytes,
                } = crowd;
                writeln!(
                    out,
                    r#"{{"crowd":"{name}","sockets":{sockets},"events":{events},"seconds":{seconds:.3},"rss_bytes":{rss_bytes}}}"#
                )?;
            }
        }
        _ => bail!("give `count [NAME]` or `scale SOCKETS TIME_WAITS`"),
    }
    Ok(())
}
