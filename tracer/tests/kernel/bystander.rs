//! Another tracer on the same tracepoints, which takes kernel stacks and reads
//! them: the kernel skips runs of programs that are attached as its are, and there
//! is one frame more on every stack, however many others there are.

mod perf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use tracer::kernel::requirements::{self, Reach};
use tracer::kernel::tracer::{Tracer, Wanted};
use tracer::lab::churn::{self, Churn, First, Listener};
use tracer::lab::link::Pair;

use super::churn::{Steered, check_births};
use super::stage::{self, TIME_WAIT};
use super::truth;
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, allowance, ends, guest};
use perf::{Attached, Map, Program};

const TRANSITIONS: &str = "sock/inet_sock_set_state";
const TRACEPOINTS: [&str; 3] = [TRANSITIONS, "timer/timer_start", "timer/timer_cancel"];

struct Bystander {
    /// How often it was run for a transition.
    runs: Map,
    _attached: Vec<Attached>,
    done: Arc<AtomicBool>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Bystander {
    /// With so many readers of its stacks, which take a CPU each.
    fn start(readers: u32) -> Result<Bystander> {
        perf::lift_limit_of_locked_memory();
        let (runs, stacks) = (Map::number()?, Arc::new(Map::stacks(1024)?));
        let (counting, taking) = (Program::counting(&runs)?, Program::taking_stacks(&stacks)?);
        let mut attached = vec![counting.attach(TRANSITIONS)?];
        for tracepoint in TRACEPOINTS {
            attached.push(taking.attach(tracepoint)?);
        }
        // While a map is read, the kernel runs no program of its kind on that CPU.
        let done = Arc::new(AtomicBool::new(false));
        let readers = (0..readers)
            .map(|_| {
                let (stacks, done) = (Arc::clone(&stacks), Arc::clone(&done));
                thread::spawn(move || {
                    let mut stack = Vec::new();
                    while !done.load(Relaxed) {
                        for id in 0..stacks.entries {
                            stacks.look_up(id, &mut stack);
                        }
                    }
                })
            })
            .collect();
        Ok(Bystander {
            runs,
            _attached: attached,
            done,
            readers,
        })
    }

    fn runs(&self) -> Result<u64> {
        let mut runs = Vec::new();
        ensure!(self.runs.look_up(0, &mut runs), "a map has lost its number");
        Ok(runs[0])
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        for reader in self.readers.drain(..) {
            // It panics only where it cannot be helped here.
            let _ = reader.join();
        }
    }
}

/// Interrupts land in the readers and in programs. The bystander's own programs miss
/// much of it, as would any attached like them.
pub(crate) fn stacks_on_the_same_tracepoints() -> Outcome {
    /// Of a batch.
    const CONNECTIONS: u64 = 10_000;
    const MOST: u64 = 10;
    /// Runs of the bystander's that have to be skipped, for it to be a test.
    const ENOUGH: u64 = 100;

    let Steered {
        pair,
        before,
        lives,
    } = Steered::new()?;
    let listener = pair.far.run(|| Listener::new([0, 0, 0, 0].into()))??;
    let listeners = [listener];
    let far = [Pair::FAR[0].parse()?];
    let bystander = Bystander::start(2)?;
    let batch = Churn {
        connections: guest::lighter(CONNECTIONS),
        ..Churn::default()
    };
    let (mut made, mut skipped) = (0, 0);
    while made < MOST && skipped < ENOUGH {
        made += 1;
        pair.near.run(|| batch.run_towards(&listeners, &far))??;
        // Those of other sockets of this machine count as if they were ours.
        skipped = (made * batch.connections * churn::TRANSITIONS).saturating_sub(bystander.runs()?);
    }
    drop(bystander);
    ensure!(
        skipped >= ENOUGH,
        "only {skipped} runs were skipped: this kernel was not provoked"
    );
    // In either namespace half of them.
    let load = made * batch.connections * churn::TRANSITIONS;
    let mut lost = 0;
    for ((netns, live), before) in [&pair.near, &pair.far].into_iter().zip(lives).zip(&before) {
        live.equals_ss(netns)?;
        let last = live.last()?;
        check_births(netns, before, &last)?;
        allowance::check(&last, load)?;
        // Every end is read off its own stack, whatever was skipped of the other's.
        let unknown = truth::count(&last, &[TIME_WAIT, "ended", "unknown"]);
        ensure!(unknown == 0, "{unknown} ends have no reason: {last:#}");
        lost += truth::count(&last, &["lost", "recursion"]);
    }
    ensure!(
        lost * 10 <= skipped,
        "the kernel skipped {lost} runs of twtrace's, and {skipped} of the bystander's"
    );
    Ok(Verdict::Held)
}

type End = (&'static str, fn() -> Outcome);

/// With the frame of two others between the timer's and the program's, every early end
/// has the reason that it has without, each of them and a crowd of one kind.
pub(crate) fn ends_keep_their_reasons() -> Outcome {
    const CONNECTIONS: u64 = 5_000;
    // One attached through perf, and one as twtrace itself is.
    let _bystander = Bystander::start(0)?;
    let facts = requirements::check(Reach::Other)?;
    let wanted = Wanted {
        ring_bytes: 1 << 20,
        ..Wanted::default()
    };
    let mut beside = Tracer::load(&facts, &wanted)?;
    beside.attach()?;
    let each: [End; 10] = [
        ("reused_by_connect", ends::reused_by_connect),
        ("reused_by_bound_connect", ends::reused_by_bound_connect),
        (
            "fin_wait2_reused_by_bound_connect",
            ends::fin_wait2_reused_by_bound_connect,
        ),
        ("reused_by_syn", ends::reused_by_syn),
        ("time_wait_reset", ends::time_wait_reset),
        ("fin_wait2_reset", ends::fin_wait2_reset),
        ("data_after_close", ends::data_after_close),
        ("destroyed", ends::destroyed),
        ("netns_exit", ends::netns_exit),
        ("rearmed", ends::rearmed),
    ];
    thread::scope(|scope| {
        let running = each.map(|(name, test)| (name, scope.spawn(test)));
        running.into_iter().try_for_each(|(name, test)| {
            let done = test.join().map_err(|_| anyhow!("it panicked"))?;
            done.map(drop)
                .with_context(|| format!("beside a bystander, ends::{name}"))
        })
    })?;

    // A server that closes first keeps the TIME_WAITs, and the next SYN from the
    // same port ends one.
    let netns = churn::namespace()?;
    let listeners = [netns.run(|| Listener::new([0, 0, 0, 0].into()))??];
    netns.set_sysctl("ipv4.ip_local_port_range", "61000 61099")?;
    let live = Twtrace::live(&netns, &[])?;
    let connections = guest::lighter(CONNECTIONS);
    let load = Churn {
        connections,
        first: First::Server,
        ..Churn::default()
    };
    netns.run(|| load.run_towards(&listeners, &[[127, 0, 0, 1].into()]))??;
    let stand = truth::minisockets(&netns)?;
    ensure!(stand <= 100, "{stand} TIME_WAITs on 100 ports");
    stage::found(&live, TIME_WAIT, "reused_by_syn", connections - stand)?;
    stage::check(
        &live.last()?,
        TIME_WAIT,
        "reused_by_syn",
        connections - stand,
    )?;
    Ok(Verdict::Held)
}
