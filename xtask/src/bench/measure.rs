//! One measurement: the load in a namespace of its own, with a tracer or none.
//!
//! The namespace is there before the tracer and goes after it, and the CPUs are
//! given time to rest in between: neither its birth nor its end is measured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::machine::{Cpus, TICKS_PER_S, calm};
use super::process::{Cpu, Holdings, Process, shell};

/// Enough for caches, slabs and a tracer's maps to be warm.
const WARM_UP: u64 = 2_000;

/// A tracer whose programs have been the same for so long is attached.
const SETTLED: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(100);

/// What each connection of `churn` makes, both ends together.
const TRANSITIONS: u64 = 10;

/// What is switched on beside the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    None,
    /// Empty programs on the tracer's hooks.
    Floor,
    Live,
    Events,
    /// A command for the shell.
    Peer(String),
}

impl Mode {
    pub(crate) fn name(&self) -> String {
        match self {
            Mode::None => "no tracer".to_owned(),
            Mode::Floor => "empty programs on the same hooks".to_owned(),
            Mode::Live => "`twtrace live --json`".to_owned(),
            Mode::Events => "`twtrace events --json`".to_owned(),
            Mode::Peer(command) => format!("`{}`", command.replace('|', "\\|")),
        }
    }
}

/// The programs that a benchmark runs, built.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) twtrace: PathBuf,
    pub(crate) churn: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) floor: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    /// CPU of its loading thread for one connection.
    pub(crate) load_cpu_us: f64,
    /// Share of the machine that neither load nor tracer took.
    pub(crate) others: f64,
    pub(crate) stolen: f64,
    /// Other tracers of this kind that watched as well.
    pub(crate) bystanders: usize,
    pub(crate) connections: u64,
    pub(crate) tracer: Option<Tracer>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tracer {
    /// From before the first connection until all was told.
    pub(crate) cpu: Cpu,
    pub(crate) transitions: u64,
    pub(crate) peak_kib: u64,
    /// `None` where it does not say.
    pub(crate) lost: Option<u64>,
    pub(crate) programs: Vec<Program>,
}

/// What the kernel counted of one eBPF program during the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) runs: u64,
    /// 0 unless run times were asked for.
    pub(crate) run_time_ns: u64,
}

/// What is made beside a tracer, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: u64,
    /// Threads that make them, side by side.
    pub(crate) threads: u64,
}

/// Measures `mode` once. Run times of the programs are counted only if asked
/// for: that counting slows every run.
pub(crate) fn measure(built: &Built, mode: &Mode, load: Load, run_times: bool) -> Result<Measured> {
    let Load {
        connections,
        threads,
    } = load;
    calm()?;
    let mut load = Process::talking(
        Command::new(&built.churn)
            .arg("--on-demand")
            .args(["--threads", &threads.to_string()]),
    )?;
    let place = load.line()?;
    let netns = PathBuf::from(
        place["netns"]
            .as_str()
            .context("churn names no namespace")?,
    );
    let inode = number(&place, "inode")?;
    let mut kernel = Command::new(&built.programs);
    if run_times {
        kernel.arg("--run-times");
    }
    let mut kernel = Process::talking(&mut kernel)?;
    let mut tracer = start(built, mode, &netns, inode)?;
    let mut first = None;
    let mut own = Holdings::default();
    match &mut tracer {
        Some(tracer) => {
            if *mode == Mode::Live {
                first = Some(tracer.line()?);
            }
            own = until_attached(tracer, mode)?;
        }
        // As long as a tracer takes at least, so that all loads begin alike.
        None => sleep(SETTLED),
    }
    load.ask(&WARM_UP.to_string())?;

    let ready = Loaded::ask(&mut kernel)?;
    let cpu_ready = tracer.as_ref().map(Process::cpu).transpose()?;
    let cpus = Cpus::now()?;
    let done = load.ask(&connections.to_string())?;
    let cpus = Cpus::now()?.since(cpus);
    let elapsed = real(&done, "elapsed_s")?;
    let cpu = real(&done, "cpu_s")?;
    let mut taken = cpu;
    if let (Some(tracer), Some(before)) = (&tracer, cpu_ready) {
        let spent = tracer.cpu()?.since(before);
        taken += spent.user + spent.system;
    }

    let mut measured = Measured {
        per_second: connections as f64 / elapsed,
        load_cpu_us: 1e6 * cpu / connections as f64,
        others: (cpus.busy / TICKS_PER_S - taken).max(0.0) * TICKS_PER_S / cpus.all,
        stolen: cpus.stolen / cpus.all,
        bystanders: ready.bystanders(&own),
        connections,
        tracer: None,
    };
    if let (Some(mut tracer), Some(cpu_ready)) = (tracer, cpu_ready) {
        match mode {
            // The second snapshot from here was begun after the load's end.
            Mode::Live => {
                tracer.last_line()?;
                tracer.line()?;
                tracer.line()?;
            }
            _ => sleep(Duration::from_secs(1)),
        }
        let after = Loaded::ask(&mut kernel)?;
        let cpu = tracer.cpu()?.since(cpu_ready);
        let peak_kib = tracer.peak_kib()?;
        let last = tracer.interrupt()?;
        let (transitions, lost) = match (mode, first, last) {
            (Mode::Live, Some(first), Some(last)) => {
                (transitions(&last) - transitions(&first), Some(lost(&last)?))
            }
            (Mode::Live, ..) => bail!("twtrace live ended without a last snapshot"),
            (Mode::Events, ..) => (TRANSITIONS * connections, after.lost(&own)),
            _ => (TRANSITIONS * connections, None),
        };
        measured.tracer = Some(Tracer {
            cpu,
            transitions,
            peak_kib,
            lost,
            programs: after.programs_since(&ready, &own),
        });
    }
    kernel.end_of_input()?;
    load.end_of_input()?;
    Ok(measured)
}

fn start(built: &Built, mode: &Mode, netns: &Path, inode: u64) -> Result<Option<Process>> {
    let mut twtrace = Command::new(&built.twtrace);
    Ok(match mode {
        Mode::None => None,
        Mode::Floor => Some(Process::silent(&mut Command::new(&built.floor))?),
        Mode::Live => {
            twtrace.args(["live", "--json", "--netns"]).arg(netns);
            Some(Process::talking(&mut twtrace)?)
        }
        Mode::Events => {
            twtrace.args(["events", "--json", "--netns"]).arg(netns);
            Some(Process::silent(&mut twtrace)?)
        }
        Mode::Peer(command) => Some(Process::silent(&mut shell(command, netns, inode))?),
    })
}

/// A tracer says by nothing but its programs that it is there: when their
/// number has stood still for [`SETTLED`], they are attached as well.
fn until_attached(tracer: &Process, mode: &Mode) -> Result<Holdings> {
    let mut stood = 0;
    let mut held = Holdings::default();
    for _ in 0..300 {
        let now = tracer.holds()?;
        stood = if !now.programs.is_empty() && now == held {
            stood + 1
        } else {
            0
        };
        held = now;
        if stood == SETTLED.as_millis() / LOOK.as_millis() {
            return Ok(held);
        }
        sleep(LOOK);
    }
    bail!("{} loaded no eBPF program within 30 s", mode.name())
}

/// The eBPF programs in the kernel, and the losses that tracers count.
struct Loaded(Value);

impl Loaded {
    fn ask(kernel: &mut Process) -> Result<Self> {
        kernel.ask("").map(Loaded)
    }

    fn list(&self, what: &str) -> impl Iterator<Item = &Value> {
        self.0[what].as_array().into_iter().flatten()
    }

    /// Other tracers of this kind that are there: they slow the load as well.
    fn bystanders(&self, own: &Holdings) -> usize {
        self.list("losses")
            .filter(|map| !is_one_of(map, &own.maps))
            .count()
    }

    /// What the tracer's own programs did since `ready`.
    fn programs_since(&self, ready: &Loaded, own: &Holdings) -> Vec<Program> {
        self.list("programs")
            .filter(|program| is_one_of(program, &own.programs))
            .map(|program| {
                let earlier = ready.list("programs").find(|p| p["id"] == program["id"]);
                let grown = |key: &str| {
                    let was = earlier.and_then(|program| program[key].as_u64());
                    program[key].as_u64().unwrap_or(0) - was.unwrap_or(0)
                };
                Program {
                    name: program["name"].as_str().unwrap_or_default().to_owned(),
                    runs: grown("runs"),
                    run_time_ns: grown("run_time_ns"),
                }
            })
            .collect()
    }

    /// By the tracer's own count.
    fn lost(&self, own: &Holdings) -> Option<u64> {
        let losses = self.list("losses").find(|map| is_one_of(map, &own.maps))?;
        losses["ring"].as_u64()
    }
}

fn is_one_of(object: &Value, ids: &BTreeSet<u64>) -> bool {
    object["id"].as_u64().is_some_and(|id| ids.contains(&id))
}

fn transitions(snapshot: &Value) -> u64 {
    let list = snapshot["transitions"].as_array().into_iter().flatten();
    list.filter_map(|transition| transition["count"].as_u64())
        .sum()
}

fn lost(snapshot: &Value) -> Result<u64> {
    ["ring", "map", "recursion", "unseen"]
        .iter()
        .map(|name| number(&snapshot["lost"], name))
        .sum()
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("no number {name:?} in {value}"))
}

fn real(value: &Value, name: &str) -> Result<f64> {
    value[name]
        .as_f64()
        .with_context(|| format!("no number {name:?} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_tracer_holds_is_its_own() {
        let program = |id: u32, runs: u64, ns: u64| json!({"id": id, "name": "set_state", "runs": runs, "run_time_ns": ns});
        let ready = Loaded(json!({
            "programs": [program(1, 6, 60), program(7, 20, 2_000)],
            "losses": [],
        }));
        let after = Loaded(json!({
            "programs": [program(1, 9, 90), program(7, 120, 17_000), program(8, 1, 10)],
            "losses": [{"id": 3, "ring": 9}, {"id": 8, "ring": 5}],
        }));
        let own = Holdings {
            programs: BTreeSet::from([7]),
            maps: BTreeSet::from([8]),
        };
        assert_eq!(
            after.programs_since(&ready, &own),
            [Program {
                name: "set_state".to_owned(),
                runs: 100,
                run_time_ns: 15_000
            }]
        );
        assert_eq!(after.lost(&own), Some(5));
        assert_eq!(ready.lost(&own), None);
        assert_eq!(after.bystanders(&own), 1);
        assert_eq!(after.bystanders(&Holdings::default()), 2);
    }

    #[test]
    fn a_snapshot_is_read_by_its_schema() {
        let snapshot = json!({
            "transitions": [{"from": "CLOSED", "to": "SYN_SENT", "count": 3}, {"count": 4}],
            "lost": {"ring": 1, "map": 0, "recursion": 2, "unseen": 5},
        });
        assert_eq!(transitions(&snapshot), 7);
        assert_eq!(lost(&snapshot).expect("all four are there"), 8);
        let error = lost(&json!({"lost": {"ring": 1}})).expect_err("three are missing");
        assert!(error.to_string().contains("\"map\""), "{error}");
    }
}
