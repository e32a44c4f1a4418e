//! How long the walk over the kernel's tables takes, with so many sockets in so
//! many namespaces, beside `iter/tcp` namespace by namespace and `ss`.
//!
//! `cargo run --release --example walk -- --time-waits 60000 --over 1`

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracer::kernel::netns::{self, Search};
use tracer::kernel::requirements::{self, Reach};
use tracer::kernel::tracer::{Tracer, Wanted};
use tracer::kernel::walk::{Outcome, OwnersOutcome};
use tracer::lab::churn::{self, Churn};
use tracer::lab::netns::Netns;
use tracer::model::event::Event;

#[derive(Parser)]
#[command(about = "Times the walk over the kernel's tables")]
struct Cli {
    /// TIME_WAITs to make, in all.
    #[arg(long, default_value_t = 0)]
    time_waits: u64,
    /// Namespaces to make them in.
    #[arg(long, default_value_t = 1)]
    over: u64,
    /// Namespaces to make besides.
    #[arg(long, default_value_t = 0)]
    namespaces: usize,
    /// Established sockets in each of these.
    #[arg(long, default_value_t = 0)]
    sockets: usize,
    /// Listeners to make.
    #[arg(long, default_value_t = 0)]
    listeners: usize,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    pieces: Vec<u32>,
    /// Time iter/tcp and `ss` too.
    #[arg(long)]
    others: bool,
}

/// Milliseconds, in order.
struct Times(Vec<f64>);

impl Times {
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn of(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<Times> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(Times(times))
    }

    fn said(&self) -> String {
        let of = |at: usize| self.0[at.min(self.0.len() - 1)];
        format!(
            "median {:8.3} ms, {:.3} to {:.3}",
            of(self.0.len() / 2),
            of(0),
            of(usize::MAX)
        )
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        rustix::process::Rlimit {
            current: limits.maximum,
            ..limits
        },
    )?;
    let mut out = std::io::stdout().lock();
    let mut held = Vec::new();
    let mut crowded = Vec::new();
    for _ in 0..cli.over.min(cli.time_waits) {
        let netns = churn::namespace()?;
        let load = Churn {
            connections: cli.time_waits / cli.over,
            ..Churn::default()
        };
        netns.run(|| load.run())??;
        crowded.push(netns);
    }
    let mut calm = Vec::new();
    for _ in 0..cli.namespaces {
        let netns = Netns::new()?;
        held.extend(netns.run(|| pairs(cli.sockets / 2))??);
        calm.push(netns);
    }
    for _ in 0..cli.listeners {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into());
    }

    let facts = requirements::check(Reach::All)?;
    let wanted = Wanted {
        ring_bytes: 1 << 20,
        ..Wanted::default()
    };
    let mut tracer = Tracer::load(&facts, &wanted)?;
    let load = Times::of(3, || Tracer::load(&facts, &wanted).map(drop))?;
    writeln!(out, "loading the whole object {}", load.said())?;
    for info in loaded_programs().flatten() {
        let name = info.name_as_str().unwrap_or_default();
        if name.starts_with("walk_")
            && let Some(verified) = info.verified_instruction_count()
        {
            writeln!(out, "{name:15} took the verifier {verified} instructions")?;
        }
    }
    let mut walk = tracer.walk()?;
    let namespaces = Times::of(cli.rounds, || walk.namespaces().map(drop))?;
    let all = walk.namespaces()?.all;
    writeln!(
        out,
        "{:6} namespaces        {}",
        all.len(),
        namespaces.said()
    )?;
    let each = Times::of(cli.rounds, || {
        all.iter().try_for_each(|of| walk.facts(of).map(drop))
    })?;
    writeln!(out, "their sysctls            {}", each.said())?;
    for &piece in &cli.pieces {
        let mut walk = tracer.walk()?;
        walk = walk.in_pieces_of(piece);
        let (mut outcome, mut without, mut listeners) = (Outcome::default(), 0, Vec::new());
        let times = Times::of(cli.rounds, || {
            (without, listeners) = (0, Vec::new());
            outcome = walk.sockets(None, |found| {
                without += found.iter().filter(|found| found.cookie == 0).count();
                let doors = found.iter().filter(|found| found.listener.is_some());
                listeners.extend(doors.map(|found| found.address));
                Ok(())
            })?;
            Ok(())
        })?;
        ensure!(outcome.stuck.is_empty(), "{outcome:?}");
        writeln!(
            out,
            "{:6} sockets, piece {piece:5} {}; in programs {:.3} ms, {} runs, longest {:.3} ms, \
             {} restarts, {without} without a cookie",
            outcome.sockets,
            times.said(),
            outcome.running.as_secs_f64() * 1e3,
            outcome.runs,
            outcome.longest.as_secs_f64() * 1e3,
            outcome.restarts,
        )?;
        let known = Times::of(cli.rounds, || walk.known(&listeners, |_| {}))?;
        writeln!(
            out,
            "{:6} listeners in place {}",
            listeners.len(),
            known.said()
        )?;
    }
    let mut owners = OwnersOutcome::default();
    let times = Times::of(cli.rounds, || {
        owners = tracer.walk()?.owners(|_| Ok(()))?;
        Ok(())
    })?;
    writeln!(
        out,
        "{:6} among open files   {}; in programs {:.3} ms, {} runs, longest {:.3} ms, {} processes",
        owners.owned,
        times.said(),
        owners.running.as_secs_f64() * 1e3,
        owners.runs,
        owners.longest.as_secs_f64() * 1e3,
        owners.processes,
    )?;
    if cli.others {
        let all = netns::enumerate(Search::Everywhere)?;
        let mut met = 0;
        let iterated = Times::of(3, || {
            met = 0;
            for namespace in &all {
                tracer.seed(namespace, |event| {
                    met += u64::from(matches!(event, Event::Seed(_)));
                })?;
            }
            Ok(())
        })?;
        writeln!(out, "{met:6} by iter/tcp        {}", iterated.said())?;
        let netns = crowded.iter().chain(&calm);
        let ss = Times::of(1, || {
            for netns in netns.clone() {
                let mut command = Command::new("ss");
                command.args(["-t", "-a", "-n", "-H"]).stdout(Stdio::null());
                netns.spawn(&mut command)?.wait().context("ss")?;
            }
            Ok(())
        })?;
        writeln!(out, "ss                       {}", ss.said())?;
    }
    Ok(())
}

/// Connections on loopback: two sockets each, and a listener.
fn pairs(count: usize) -> Result<Vec<OwnedFd>> {
    let mut kept: Vec<OwnedFd> = Vec::new();
    if count == 0 {
        return Ok(kept);
    }
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    for _ in 0..count {
        let client = TcpStream::connect(door.local_addr()?)?;
        kept.extend([client.into(), door.accept()?.0.into()]);
    }
    kept.push(door.into());
    Ok(kept)
}
