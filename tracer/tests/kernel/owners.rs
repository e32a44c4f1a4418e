//! Who made the TIME_WAITs: four processes whose connections are known by their
//! ports, while others keep the machine busy.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tracer::lab::churn::{self, Churn, Listener};
use tracer::lab::netns::Netns;

use super::truth::count;
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, guest, story};

/// The first argument that makes this program one of the four.
pub(crate) const ROLE: &str = "churn-on-stdin";

const PROCESSES: usize = 4;
pub(crate) const EACH: u64 = 2_500;

/// One of the four: says its ports, waits for a line, connects to them.
pub(crate) fn work() -> ExitCode {
    let connections = || -> Result<()> {
        let listeners = (0..4)
            .map(|_| Listener::new(Ipv4Addr::UNSPECIFIED))
            .collect::<Result<Vec<_>>>()?;
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.port).collect();
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&ports)?)?;
        std::io::stdin().read_line(&mut String::new())?;
        Churn {
            connections: guest::lighter(EACH),
            ..Churn::default()
        }
        .run_towards(&listeners, &[Ipv4Addr::LOCALHOST])?;
        Ok(())
    };
    match connections() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if that fails too; the exit code says it.
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) struct Worker {
    pub(crate) child: Child,
    stdin: ChildStdin,
    ports: Vec<u16>,
}

impl Worker {
    pub(crate) fn start(netns: &Netns) -> Result<Worker> {
        Worker::spawned(|command| netns.spawn(command))
    }

    pub(crate) fn spawned(spawn: impl FnOnce(&mut Command) -> Result<Child>) -> Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let stdin = child.stdin.take().context("no stdin")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let ports =
            serde_json::from_str(&line).with_context(|| format!("a worker said {line:?}"))?;
        Ok(Worker {
            child,
            stdin,
            ports,
        })
    }

    /// Lets it make its connections, to the last.
    pub(crate) fn go(&mut self) -> Result<()> {
        writeln!(self.stdin, "go")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "a worker ended with {status}");
        Ok(())
    }
}

pub(crate) fn four_processes_under_foreign_load() -> Outcome {
    let netns = churn::namespace()?;
    let foreign = churn::namespace()?;
    let events = Twtrace::events(&netns, &["--state", "time-wait"])?;
    story::listening(&events, &netns)?;
    let mut workers = (0..PROCESSES)
        .map(|_| Worker::start(&netns))
        .collect::<Result<Vec<_>>>()?;
    let owner_of: HashMap<u64, u64> = workers
        .iter()
        .flat_map(|w| {
            w.ports
                .iter()
                .map(|&port| (u64::from(port), u64::from(w.child.id())))
        })
        .collect();

    let busy = AtomicBool::new(true);
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| {
            let spell = Churn {
                duration: Some(Duration::from_millis(100)),
                ..Churn::default()
            };
            foreign.run(|| {
                while busy.load(Ordering::Relaxed) {
                    spell.run()?;
                }
                anyhow::Ok(())
            })?
        });
        let worked = workers
            .iter_mut()
            .try_for_each(|worker| Ok(writeln!(worker.stdin, "go")?))
            .and_then(|()| {
                workers.iter_mut().try_for_each(|worker| {
                    let status = worker.child.wait()?;
                    ensure!(status.success(), "a worker ended with {status}");
                    Ok(())
                })
            });
        busy.store(false, Ordering::Relaxed);
        load.join()
            .map_err(|_| anyhow!("the foreign load panicked"))??;
        worked
    })?;

    // Socket -> (who made it, who twtrace says made it).
    let mut waits: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    let (mut read, mut lost) = (0, None);
    let all = PROCESSES as u64 * guest::lighter(EACH);
    let told = events.until("the TIME_WAITs of the four processes", |lines| {
        for event in &lines[read..] {
            if event["kind"] == "lost" {
                // Told as sums since the start, of the whole machine's events.
                lost = Some(event.clone());
            }
            let Some(&maker) = event["remote"]["port"]
                .as_u64()
                .and_then(|port| owner_of.get(&port))
            else {
                continue;
            };
            if enters_time_wait(event) {
                let socket = event["socket"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("an event without a socket: {event}"));
                let named = event["pid"].as_u64();
                let entry = waits.entry(socket).or_insert((maker, named));
                entry.1 = entry.1.or(named);
            }
        }
        read = lines.len();
        (waits.len() as u64 + allowance::of(all) >= all).then_some(())
    });
    told.with_context(|| format!("{} of {all} seen, told lost: {lost:?}", waits.len()))?;
    events.stop()?;
    lost.map_or(Ok(()), |lost| allowance::check_lost(&lost, all))?;

    let wrong: Vec<_> = waits
        .iter()
        .filter(|(_, (maker, named))| named.is_some_and(|n| n != *maker))
        .collect();
    ensure!(
        wrong.is_empty(),
        "{} TIME_WAITs have a wrong owner (socket, (true, named)): {wrong:?}",
        wrong.len()
    );
    let known = waits.values().filter(|(_, named)| named.is_some()).count();
    ensure!(
        known * 100 >= waits.len() * 99,
        "only {known} of {} TIME_WAITs have an owner",
        waits.len()
    );
    Ok(Verdict::Held)
}

pub(crate) fn one_process_alone() -> Outcome {
    let each = guest::lighter(EACH);
    let netns = churn::namespace()?;
    let mut workers = [Worker::start(&netns)?, Worker::start(&netns)?];
    let pid = u64::from(workers[0].child.id());
    let live = Twtrace::live(&netns, &["--pid", &pid.to_string()])?;
    workers.iter_mut().try_for_each(Worker::go)?;
    let last = live.until("the TIME_WAITs of one process", |lines| {
        let last = lines.last()?;
        let entered = count(last, &["time_wait", "entered"]);
        (entered + allowance::of(each) >= each).then(|| last.clone())
    })?;
    live.stop()?;
    let entered = count(&last, &["time_wait", "entered"]);
    ensure!(
        entered <= each && count(&last, &["states", "SYN_SENT", "entered"]) <= each,
        "{each} connections of its own, and seen were: {last:#}"
    );
    let owners: Vec<_> = last["owners"].as_array().into_iter().flatten().collect();
    ensure!(
        owners.len() == 1
            && owners[0]["pid"] == pid
            && last["scope"]["filter"] == format!("pid {pid}"),
        "asked for process {pid}: {owners:?}"
    );
    Ok(Verdict::Held)
}

fn enters_time_wait(event: &Value) -> bool {
    let is = |key: &str, value: &str| event[key] == value;
    (is("kind", "transition") && is("to", "TIME_WAIT"))
        || (is("kind", "minisocket_start") && is("state", "TIME_WAIT"))
}
