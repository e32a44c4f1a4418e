//! What a start tries before its first figure: a few connections, in a private
//! network namespace, seen by programs of its own. They are the same that a run
//! attaches, but for what they are told to leave out, so that nothing of this is
//! counted by the run.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use log::{debug, warn};

use super::Tried;
use super::life;
use super::scene::Scene;
use crate::kernel::requirements::Facts;
use crate::kernel::tracer::{Distortion, Tracer, Wanted};
use crate::lab::netns::Netns;

/// An event may be missed by chance: on some guests no program is run while a
/// thread of process 1 is current, so that what a softirq does that interrupts it
/// is not seen. What is wrong with a kernel is wrong each time.
const TRIES: u32 = 5;

/// How long the first try waits for each thing that it made, each further one twice
/// as long. All but one expiry is over when it is looked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Loads the kernel side once connections were seen as they were made. The error
/// says what was not: on such a kernel every count would be wrong.
pub fn load_checked(facts: &Facts, wanted: &Wanted) -> Result<Tracer> {
    let stage = match Stage::new() {
        Ok(stage) => stage,
        Err(why) => {
            say_untried(&why);
            return Tracer::load(facts, wanted);
        }
    };
    let events = stage.wanted.clone();
    let check = |tracer| stage.check(tracer, facts);
    let (tried, tracer) = Tracer::load_beside(facts, &events, check, wanted)?;
    if let Tried::Untried(why) = tried? {
        say_untried(&anyhow!(why));
    }
    Ok(tracer)
}

fn say_untried(why: &Error) {
    warn!("this start has not checked itself on connections of its own: {why:#}");
}

/// The same for its own sake.
pub fn at_start(facts: &Facts) -> Result<Tried> {
    at_start_distorted(facts, None)
}

/// The same of events as a test distorts them.
#[doc(hidden)]
pub fn at_start_distorted(facts: &Facts, distortion: Option<Distortion>) -> Result<Tried> {
    let stage = match Stage::new() {
        Ok(stage) => stage,
        Err(why) => return Ok(Tried::Untried(format!("{why:#}"))),
    };
    let wanted = Wanted {
        distortion,
        ..stage.wanted.clone()
    };
    stage.check(Tracer::load(facts, &wanted)?, facts)
}

/// A namespace in which nothing waits, and what is to be seen there.
struct Stage {
    netns: Netns,
    wanted: Wanted,
    /// Whether orphans expire soon.
    expires: bool,
}

impl Stage {
    fn new() -> Result<Stage> {
        let netns = Netns::new()?;
        Ok(Stage {
            expires: life::prepare(&netns)?,
            wanted: Wanted {
                events_alone: true,
                ..Scene::wanted(&netns)?
            },
            netns,
        })
    }

    fn check(self, tracer: Tracer, facts: &Facts) -> Result<Tried> {
        let mut scene = Scene::of(self.netns, tracer, facts)?;
        let mut tries = 0;
        loop {
            scene.forget()?;
            scene.be_patient(PATIENCE * 2_u32.pow(tries));
            tries += 1;
            let made = match life::make(&scene.netns) {
                Ok(made) => made,
                Err(why) => return Ok(Tried::Untried(format!("{why:#}"))),
            };
            match life::judge(&mut scene, &made, self.expires) {
                Ok(()) => return Ok(Tried::Held),
                Err(error) if tries < TRIES => debug!("try {tries} of a connection: {error:#}"),
                Err(error) => {
                    return Err(error.context(format!(
                        "connections made for it were not seen as they were in {TRIES} tries, so \
                         counts would be wrong on this kernel (`twtrace doctor --self-test` tries \
                         more)"
                    )));
                }
            }
        }
    }
}
