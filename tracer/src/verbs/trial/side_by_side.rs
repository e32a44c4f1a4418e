//! The replicas of a trial at work: each watched by a recorder of its own, their
//! load begun together, and the frames of the time to be measured.

use std::future::pending;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::tell;
use crate::kernel::requirements::Facts;
use crate::lab::replicas::{self, Replica};
use crate::lab::shape::Shape;
use crate::lab::workload::Done;
use crate::options::{LabEnd, NetnsChoice, Scope, TrialOptions};
use crate::output;
use crate::recorder::{self, Contents};
use crate::recording::{Frame, Line};
use crate::render::line::{Line as Shown, Tone};
use crate::session::{More, Plan};

const INTERVAL: Duration = Duration::from_secs(1);

/// Of each replica's ring buffer: several seconds at the highest rate of a lab.
const RING_BYTES: u32 = 4 << 20;

/// For eight tracers to load and take stock, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The frames of one replica since its load began.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Of the time of settling.
    pub(super) before: Vec<Frame>,
    /// Of the time to be measured.
    pub(super) measured: Vec<Frame>,
}

/// What a replica's recorder has to say.
enum Told {
    Frame(usize, Box<Frame>, Instant),
    /// It has nothing more to say.
    Ended,
}

/// Has all replicas recorded at once, begins their load when all are watched,
/// and keeps what they say until the time to be measured is over.
#[expect(
    clippy::disallowed_methods,
    reason = "frames are placed in the trial's timetable"
)]
pub(super) fn measure(
    facts: &Facts,
    shape: &Shape,
    replicas: &[Replica],
    options: &TrialOptions,
    settle: Duration,
) -> Result<Vec<Recorded>> {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let mut recorders = Vec::new();
        for (n, replica) in replicas.iter().enumerate() {
            let tell = tell.clone();
            let plan = plan(replica, options.end);
            recorders.push(scope.spawn(move || {
                let mut take = |line: &Line| {
                    let Line::Frame(frame) = line else {
                        return Ok(More::Yes);
                    };
                    // Where nobody listens any more, it is over.
                    let heard = tell.send(Told::Frame(n, frame.clone(), Instant::now()));
                    Ok(if heard.is_ok() {
                        More::Yes
                    } else {
                        More::Enough
                    })
                };
                let only_frames = Contents::default();
                let ended = recorder::run(facts, &plan, &only_frames, pending(), &mut take);
                let _ = tell.send(Told::Ended);
                ended
            }));
        }
        drop(tell);
        let frames = collect(&told, shape, replicas, settle, options.measure);
        // Those that are still told something see that nobody listens.
        drop(told);
        for recorder in recorders {
            let ended = recorder
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.context("cannot watch a pair of the lab")?;
        }
        frames
    })
}

#[expect(clippy::disallowed_methods, reason = "the trial's own timetable")]
fn collect(
    told: &mpsc::Receiver<Told>,
    shape: &Shape,
    replicas: &[Replica],
    settle: Duration,
    measure: Duration,
) -> Result<Vec<Recorded>> {
    let mut watched = vec![false; replicas.len()];
    let patience = Instant::now() + PATIENCE;
    while watched.contains(&false) {
        match told.recv_timeout(patience.saturating_duration_since(Instant::now())) {
            Ok(Told::Frame(n, ..)) => watched[n] = true,
            Ok(Told::Ended) | Err(RecvTimeoutError::Disconnected) => bail!(INTERRUPTED),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "not all of the lab was watched after {} s",
                    PATIENCE.as_secs()
                )
            }
        }
    }

    let load = replicas::start(replicas, shape)?;
    let from = Instant::now() + settle;
    let to = from + measure;
    let mut recorded: Vec<Recorded> = replicas.iter().map(|_| Recorded::default()).collect();
    let mut complete = vec![false; replicas.len()];
    let progress = Progress::new(from, to);
    while complete.contains(&false) {
        match told.recv_timeout(PATIENCE) {
            Ok(Told::Frame(n, frame, at)) => {
                progress.tell(at);
                let began = at.checked_sub(Duration::from_secs_f64(frame.interval_s));
                let replica = &mut recorded[n];
                if began.is_none_or(|began| began < from) {
                    replica.before.push(*frame);
                } else if !complete[n] {
                    replica.measured.push(*frame);
                }
                complete[n] |= at >= to;
            }
            Ok(Told::Ended) | Err(RecvTimeoutError::Disconnected) => bail!(INTERRUPTED),
            Err(RecvTimeoutError::Timeout) => {
                bail!("nothing was heard of the lab for {} s", PATIENCE.as_secs())
            }
        }
    }
    progress.end();
    warn_of_what_was_left_out(&replicas::stop(load)?)?;
    Ok(recorded)
}

const INTERRUPTED: &str = "interrupted: there is no verdict";

fn plan(replica: &Replica, end: LabEnd) -> Plan {
    let netns = match end {
        LabEnd::Client => &replica.pair.near,
        LabEnd::Server => &replica.pair.far,
    };
    Plan {
        scope: Scope {
            netns: NetnsChoice::Path(netns.path()),
            ..Scope::default()
        },
        interval: INTERVAL,
        looks: false,
        duration: None,
        ring_bytes: RING_BYTES,
        distortion: None,
    }
}

/// A load that could not keep its pace is not the one that was asked for.
fn warn_of_what_was_left_out(done: &[Done]) -> Result<()> {
    let due: u64 = done.iter().map(|d| d.begun + d.left_out).sum();
    let left_out: u64 = done.iter().map(|d| d.left_out).sum();
    if left_out * 1000 > due {
        tell(&format!(
            "lab: {left_out} of {due} connections could not begin in time: this machine is too busy for the load; take a lower --rate, or start it with `nice -n -19`"
        ))?;
    }
    Ok(())
}

/// On a terminal: what is left of the time, in one line.
struct Progress {
    from: Instant,
    to: Instant,
    shown: bool,
}

impl Progress {
    fn new(from: Instant, to: Instant) -> Progress {
        Progress {
            from,
            to,
            shown: output::errors_are_watched(),
        }
    }

    fn tell(&self, now: Instant) {
        if self.shown {
            let doing = if now < self.from {
                "settling"
            } else {
                "measuring"
            };
            let left = self.to.saturating_duration_since(now).as_secs();
            let line = Shown::of(Tone::Plain, format!("{doing}, {left} s left"));
            // What cannot be told is no reason to give up the trial.
            let _ = output::stderr().in_place(&line);
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = output::stderr().in_place(&Shown::default());
        }
    }
}
