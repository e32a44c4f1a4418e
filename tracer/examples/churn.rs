//! The benchmark's load as a program: connections per second over loopback, in a
//! private namespace or, with `--netns own`, in the one it is started in.
//!
//! With `--on-demand` it is a load to be measured: its namespace is there before
//! the load and after it, so that neither its birth nor its end is measured.

use std::io::{BufRead, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, ValueEnum};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tracer::lab::churn::{self, Churn, Done, First};
use tracer::lab::netns::Netns;

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
    /// Print the namespace's path, then make as many connections as each line
    /// read says; speaks JSON, and ends with its input.
    #[arg(long, conflicts_with_all = ["connections", "netns"])]
    on_demand: bool,
    /// Threads that share each such load.
    #[arg(long, default_value_t = 1, requires = "on_demand")]
    threads: u64,
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
    if cli.on_demand {
        return on_demand(&load, cli.threads, &churn::namespace()?);
    }
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

fn on_demand(load: &Churn, threads: u64, netns: &Netns) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}",
        json!({"netns": netns.path(), "inode": netns.inode()})
    )?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let connections: u64 = line
            .parse()
            .with_context(|| format!("{line:?} is no number of connections"))?;
        let load = Churn {
            connections: connections / threads,
            ..*load
        };
        let one = || {
            netns.run(|| -> Result<(Done, f64)> {
                let before = thread_cpu_s();
                let done = load.run()?;
                Ok((done, thread_cpu_s() - before))
            })?
        };
        let all = thread::scope(|scope| {
            let loads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            loads
                .into_iter()
                .map(|load| load.join().map_err(|_| anyhow!("a load panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        let elapsed = all.iter().map(|(done, _)| done.elapsed).max();
        writeln!(
            out,
            "{}",
            json!({
                "connections": all.iter().map(|(done, _)| done.connections).sum::<u64>(),
                "elapsed_s": elapsed.unwrap_or_default().as_secs_f64(),
                "cpu_s": all.iter().map(|(_, cpu_s)| cpu_s).sum::<f64>(),
            })
        )?;
    }
    Ok(())
}

/// CPU time of the calling thread, the kernel's work for it included.
fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
