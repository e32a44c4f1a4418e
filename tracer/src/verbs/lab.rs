//! `twtrace lab`: a pair of namespaces with a load between them, for another verb
//! to watch. What it watches and how it shows that is the verb's affair.

use std::process::ExitCode;

use anyhow::Result;

use crate::lab::link::Pair;
use crate::lab::shape::{Shape, raise_descriptor_limit};
use crate::lab::workload::{Done, Workload};
use crate::options::NetnsChoice;
use crate::output;

/// The two ends, as `--netns` calls them in a lab.
const CLIENT: &str = "client";
const SERVER: &str = "server";

/// A pair of namespaces under load.
#[derive(Debug)]
pub struct Lab {
    pair: Pair,
}

impl Lab {
    /// What a choice means in here: `client` and `server` are the two ends.
    #[must_use]
    pub fn within(&self, choice: &NetnsChoice) -> NetnsChoice {
        match choice {
            NetnsChoice::Name(name) if name == CLIENT => NetnsChoice::Path(self.pair.near.path()),
            NetnsChoice::Name(name) if name == SERVER => NetnsChoice::Path(self.pair.far.path()),
            other => other.clone(),
        }
    }
}

/// Runs the verb while the load goes on. Nothing has to be taken back: the
/// kernel does that when this process has gone, however it went.
pub fn run(shape: &Shape, verb: impl FnOnce(&Lab) -> Result<ExitCode>) -> Result<ExitCode> {
    raise_descriptor_limit(shape, 1)?;
    let lab = Lab { pair: Pair::new()? };
    shape.prepare(&lab.pair)?;
    let workload = Workload::start(&lab.pair, shape, 0.0)?;
    output::say(&format!(
        "lab: client {}, server {}, {} connections a second",
        lab.pair.near.path().display(),
        lab.pair.far.path().display(),
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
