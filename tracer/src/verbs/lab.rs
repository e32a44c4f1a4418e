//! `twtrace lab`: a pair of namespaces with a load between them, for another verb
//! to watch. What it watches and how it shows that is the verb's affair.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::lab::link::Pair;
use crate::lab::scenes::Scene;
use crate::lab::shape::{Shape, raise_descriptor_limit};
use crate::lab::workload::{Done, Workload};
use crate::options::{Load, NetnsChoice};
use crate::output;

/// The two ends, as `--netns` calls them in a lab.
const CLIENT: &str = "client";
const SERVER: &str = "server";

/// A scene begins so long after the verb.
const BEGINS_AFTER: Duration = Duration::from_secs(1);

/// The namespaces under load.
#[derive(Debug)]
pub struct Lab {
    client: PathBuf,
    server: PathBuf,
}

impl Lab {
    /// What a choice means in here: `client` and `server` are the two ends.
    #[must_use]
    pub fn within(&self, choice: &NetnsChoice) -> NetnsChoice {
        match choice {
            NetnsChoice::Name(name) if name == CLIENT => NetnsChoice::Path(self.client.clone()),
            NetnsChoice::Name(name) if name == SERVER => NetnsChoice::Path(self.server.clone()),
            other => other.clone(),
        }
    }
}

/// Runs the verb while the load goes on. Nothing has to be taken back: the
/// kernel does that when this process has gone, however it went.
pub fn run(load: &Load, verb: impl FnOnce(&Lab) -> Result<ExitCode>) -> Result<ExitCode> {
    match load {
        Load::Shape(shape) => run_shape(shape, verb),
        Load::Scene(scene) => run_scene(scene, verb),
    }
}

/// The scene begins once the verb watches, and ends with it.
fn run_scene(scene: &Scene, verb: impl FnOnce(&Lab) -> Result<ExitCode>) -> Result<ExitCode> {
    let netns = Scene::ground()?;
    let lab = Lab {
        client: netns.path(),
        server: netns.path(),
    };
    output::say(&format!(
        "lab: {} in {}: {}",
        scene.name,
        netns.path().display(),
        scene.about
    ))?;
    thread::scope(|scope| {
        let (over, ended) = mpsc::channel::<()>();
        let ground = &netns;
        let played = scope.spawn(move || {
            // Whoever is to see it begin has to be there.
            if ended.recv_timeout(BEGINS_AFTER) != Err(RecvTimeoutError::Timeout) {
                return Ok(());
            }
            let props = scene.play(ground);
            if props.is_ok() {
                let _ = ended.recv();
            }
            props.map(drop)
        });
        let code = verb(&lab);
        drop(over);
        match played.join() {
            Ok(played) => played.and(code),
            Err(panic) => resume_unwind(panic),
        }
    })
}

fn run_shape(shape: &Shape, verb: impl FnOnce(&Lab) -> Result<ExitCode>) -> Result<ExitCode> {
    raise_descriptor_limit(shape, 1)?;
    let pair = Pair::new()?;
    shape.prepare(&pair)?;
    let workload = Workload::start(&pair, shape, 0.0)?;
    let lab = Lab {
        client: pair.near.path(),
        server: pair.far.path(),
    };
    output::say(&format!(
        "lab: client {}, server {}, {} connections a second",
        lab.client.display(),
        lab.server.display(),
        shape.rate
    ))?;
    let code = verb(&lab)?;
    output::say(&format!("lab: {}", said(&workload.stop()?)))?;
    Ok(code)
}

fn said(done: &Done) -> String {
    let Done {
        begun,
        answered,
        without_port,
        failed,
        left_out,
    } = done;
    let mut said = format!("{begun} connections begun, {answered} answered");
    for (count, what) in [
        (without_port, "found no free local port"),
        (failed, "failed otherwise"),
        (left_out, "were due and could not begin in time"),
    ] {
        if *count > 0 {
            said.push_str(&format!(", {count} {what}"));
        }
    }
    said
}
