//! Sockets that are there all the time are met exactly once, whatever happens
//! beside them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use tracer::kernel::clock;
use tracer::kernel::requirements::{self, Reach};
use tracer::lab::churn::{self, Churn, Listener};
use tracer::lab::netns::Netns;

use super::sight::Sight;
use crate::guest;
use crate::twtrace::PATIENCE;
use crate::{Outcome, Verdict};

/// Connections that stay.
const PAIRS: usize = 40;

/// Looks with and without time for others between two sockets.
const LOOKS: u64 = 400;

/// Reads of the clock after each socket: some 100 microseconds.
const DAWDLE: u32 = 4096;

/// Connections of one round of the churn.
const ROUND: u64 = 64;

/// In a table of 16 buckets, each chain is long and changes all the time.
const BUCKETS: &str = "16";

pub(crate) fn nothing_is_missed_beside_churn() -> Outcome {
    let parent = Netns::new()?;
    if parent
        .set_sysctl("ipv4.tcp_child_ehash_entries", BUCKETS)
        .is_err()
    {
        let why = "this kernel has no table small enough";
        return Ok(Verdict::Impossible(why.to_owned()));
    }
    let netns = parent.run(Netns::new)??;
    churn::prepare(&netns)?;
    // What has been closed makes room at once, so that chains stay walkable.
    netns.set_sysctl("ipv4.tcp_max_tw_buckets", "200")?;
    let (kept, port) = netns.run(pairs)??;
    let facts = requirements::check(Reach::Own)?;
    let ended = AtomicBool::new(false);
    let restarts = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            netns.run(|| -> Result<()> {
                let listeners = (0..4)
                    .map(|_| Listener::new(Ipv4Addr::UNSPECIFIED))
                    .collect::<Result<Vec<_>>>()?;
                let round = Churn {
                    connections: ROUND,
                    ..Churn::default()
                };
                while !ended.load(Ordering::Relaxed) {
                    round.run_towards(&listeners, &[Ipv4Addr::LOCALHOST])?;
                }
                Ok(())
            })?
        });
        let looked = looks(&facts, port, guest::lighter(LOOKS));
        ended.store(true, Ordering::Relaxed);
        load.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        looked
    })?;
    drop(kept);
    Ok(if restarts == 0 {
        Verdict::Impossible("CPUs that take turns change no chain under a reader".to_owned())
    } else {
        Verdict::Held
    })
}

fn pairs() -> Result<(Vec<OwnedFd>, u16)> {
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = door.local_addr()?.port();
    let mut kept: Vec<OwnedFd> = Vec::new();
    for _ in 0..PAIRS {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        kept.extend([client.into(), door.accept()?.0.into()]);
    }
    kept.push(door.into());
    Ok((kept, port))
}

/// How often a chain was begun again.
fn looks(facts: &requirements::Facts, port: u16, looks: u64) -> Result<u64> {
    let (mut restarts, mut others) = (0, 0);
    for dawdle in [0, DAWDLE] {
        let mut facts = facts.clone();
        facts.walk.object.dawdle = dawdle;
        let mut sight = Sight::with(&facts)?;
        let stays = |tuple: &tracer::model::event::Tuple| {
            tuple.local_port == port || tuple.remote_port == port
        };
        // The slow ones go on until one has had to begin a chain again.
        let began = clock::now();
        for look in 0.. {
            let tried = dawdle == 0
                || restarts > 0
                || guest::is_emulated()
                || clock::now().since(began) > PATIENCE;
            if look >= looks && tried {
                break;
            }
            let (met, outcome) = sight.walk(None)?;
            let mut times: HashMap<_, u32> = HashMap::new();
            for found in met.iter().filter(|found| stays(&found.tuple)) {
                *times.entry(found.address).or_default() += 1;
            }
            let twice = times.values().filter(|&&n| n > 1).count();
            ensure!(
                times.len() == 2 * PAIRS + 1 && twice == 0,
                "{} of {} were met, {twice} more than once: {outcome:?}",
                times.len(),
                2 * PAIRS + 1
            );
            restarts += outcome.restarts;
            others += met.len() - times.len();
        }
    }
    // Or it has not tried what it is for.
    let tried = others > 0 && (restarts > 0 || guest::is_emulated());
    tried
        .then_some(restarts)
        .with_context(|| format!("{restarts} restarts, {others} others met"))
}
