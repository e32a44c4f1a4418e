//! The benchmark's load as a program: connections per second over loopback, in a
//! private namespace or, with `--netns own`, in the one it is started in.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tracer::lab::churn::{self, Churn, First};

#[derive(Parser)]
#[command(about = "Sequential connect, accept, close on loopback; prints the rate")]
struct Cli {
    /// How many connections to make.
    #[arg(long, default_value_t = 100_000)]
    connections: u64,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// The end that closes first, and so keeps the TIME_WAIT.
    #[arg(long, value_enum, default_value_t = Close::Client)]
    close: Close,
    /// Where to run.
    #[arg(long, value_enum, default_value_t = Where::Private)]
    netns: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum Close {
    Client,
    Server,
}

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    /// A network namespace of its own, which ends with it.
    Private,
    /// The one it is started in.
    Own,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let load = Churn {
        connections: cli.connections,
        duration: cli.seconds.map(Duration::from_secs_f64),
        first: match cli.close {
            Close::Client => First::Client,
            Close::Server => First::Server,
        },
        ..Churn::default()
    };
    let done = match cli.netns {
        Where::Private => churn::namespace()?.run(|| load.run())??,
        Where::Own => load.run()?,
    };
    writeln!(
        std::io::stdout(),
        "{} connections in {:.3} s: {:.0} per second",
        done.connections,
        done.elapsed.as_secs_f64(),
        done.per_second()
    )?;
    Ok(())
}
