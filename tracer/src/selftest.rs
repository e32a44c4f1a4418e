//! What the tracer assumes about the kernel, tried on the running one: real
//! sockets in a private network namespace, and what the kernel side says of them.
//!
//! Each trial names the assumption that it rests on and fails with what it saw.
//! It talks to the kernel side directly, below the ledger, because a wrong offset
//! shows there as itself. It judges facts it is given, so that wrong ones can be
//! tried too; it decides nothing about the host (see `kernel::requirements`).

mod life;
mod scene;
mod start;
mod trials;

pub use start::{at_start, at_start_distorted, load_checked};

use serde::Serialize;

use crate::kernel::requirements::Facts;
use scene::Scene;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Held,
    /// The assumption does not hold here: figures that rest on it are not to be had.
    Failed,
    /// This host cannot try it.
    Untried,
}

/// One assumption, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was seen, or why it could not be tried, as a clause; empty where it held.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
}

/// What a trial gives where nothing is amiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    Held,
    /// Why it could not be tried, as a clause.
    Untried(String),
}

/// Tries all assumptions; takes two to three seconds. Needs root.
#[must_use]
pub fn run(facts: &Facts) -> Vec<Trial> {
    let mut scene = match Scene::new(facts) {
        Ok(scene) => scene,
        Err(error) => {
            return vec![Trial {
                name: "load and attach",
                verdict: Verdict::Failed,
                found: format!("{error:#}"),
            }];
        }
    };
    let mut done = vec![Trial {
        name: "load and attach",
        verdict: Verdict::Held,
        found: String::new(),
    }];
    for &(name, trial) in trials::ALL {
        let before = scene.mishaps();
        let mut tried = trial(&mut scene);
        // Beside a mishap a failure proves nothing; a wrong fact fails again.
        if tried.is_err()
            && scene.mishaps() > before
            && let Ok(fresh) = Scene::new(facts)
        {
            scene = fresh;
            tried = trial(&mut scene);
        }
        let (verdict, found) = match tried {
            Ok(Tried::Held) => (Verdict::Held, String::new()),
            Ok(Tried::Untried(why)) => (Verdict::Untried, why),
            Err(error) => {
                scene.be_impatient();
                (Verdict::Failed, format!("{error:#}"))
            }
        };
        done.push(Trial {
            name,
            verdict,
            found,
        });
    }
    done
}
