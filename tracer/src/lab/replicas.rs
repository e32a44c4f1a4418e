//! Pairs of namespaces under the same load, side by side, of which half are
//! changed: what a trial compares. Which half, and what it shows, others know.

use anyhow::Result;

use super::link::Pair;
use super::setting::{Refused, Setting};
use super::shape::Shape;
use super::workload::{Done, Workload};

/// One pair, and which half it belongs to.
#[derive(Debug)]
pub struct Replica {
    pub pair: Pair,
    pub changed: bool,
}

/// What the keys of a change were set to before it, in its order.
pub type Before = Vec<String>;

/// Brings as many pairs into shape as there are entries, and changes those that
/// the lot fell on. The load is yet to begin.
pub fn prepare(
    shape: &Shape,
    settings: &[Setting],
    lot: &[bool],
) -> Result<(Vec<Replica>, Before)> {
    let mut before = Before::new();
    let mut replicas = Vec::new();
    for &changed in lot {
        let pair = Pair::new()?;
        shape.prepare(&pair)?;
        if before.is_empty() {
            before = settings
                .iter()
                .map(|setting| setting.now(&pair.near))
                .collect::<Result<_>>()?;
        }
        if changed {
            for setting in settings {
                setting.apply(&pair.near)?;
                setting.apply(&pair.far)?;
            }
        }
        replicas.push(Replica { pair, changed });
    }
    Ok((replicas, before))
}

/// Whether each setting can be made at all, tried on a namespace of its own.
pub fn rehearse(settings: &[Setting]) -> Result<Vec<Result<(), Refused>>> {
    let netns = super::netns::Netns::new()?;
    Ok(settings.iter().map(|s| s.apply(&netns)).collect())
}

/// The load of all of them, begun together, their connections taking turns.
pub fn start(replicas: &[Replica], shape: &Shape) -> Result<Vec<Workload>> {
    let count = replicas.len() as f64;
    replicas
        .iter()
        .enumerate()
        .map(|(n, replica)| Workload::start(&replica.pair, shape, n as f64 / count))
        .collect()
}

/// Ends the load of all.
pub fn stop(workloads: Vec<Workload>) -> Result<Vec<Done>> {
    workloads.into_iter().map(Workload::stop).collect()
}
