//! Who holds each TCP socket, by the open files of every process of the machine.

use std::time::Duration;

use anyhow::{Result, bail};
use tracer_common::walk::{OWNED, OwnedRecord, Tasks};

use super::{Walk, run};
use crate::model::event::Address;
use crate::model::found::Owned;
use crate::model::happening::Process;

/// How often the walk is begun again because the task at which it stood had gone.
const PATIENCE: u32 = 256;

/// How a walk over all open files went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnersOutcome {
    /// As many as were handed over.
    pub owned: u64,
    /// Processes with open files.
    pub processes: u64,
    /// How often the process at which the walk stood had ended between two runs.
    pub restarts: u64,
    /// It came to the end of the list, and of each process's files; else some may
    /// be missing.
    pub whole: bool,
    /// As in [`super::Outcome`].
    pub runs: u64,
    pub running: Duration,
    pub longest: Duration,
}

impl Walk<'_> {
    /// Hands over every TCP socket that is among the open files of a process, once
    /// for each of these files, in pieces, some of which are empty. A socket has
    /// none while it waits to be accepted, and once its program has closed it.
    pub fn owners(
        &mut self,
        mut take: impl FnMut(&[Owned]) -> Result<()>,
    ) -> Result<OwnersOutcome> {
        (self.runs, self.running, self.longest) = (0, Duration::ZERO, Duration::ZERO);
        let mut outcome = OwnersOutcome::default();
        let mut piece = Vec::new();
        self.maps.tasks.get_mut()[0] = Tasks {
            limit: self.piece.min(OWNED as u32),
            ..Tasks::EMPTY
        };
        loop {
            run(self.owners)?;
            let tasks = self.maps.tasks.get(1)[0];
            self.ran(tasks.began_ns, tasks.ended_ns);
            if tasks.faults != 0 {
                bail!("the kernel's list of processes is not where its types say");
            }
            piece.clear();
            let records = self.maps.owned.get(tasks.count as usize);
            piece.extend(records.iter().map(decode));
            outcome.owned += piece.len() as u64;
            outcome.processes = tasks.processes;
            outcome.restarts = u64::from(tasks.restarts);
            outcome.whole = tasks.done != 0 && tasks.cut == 0;
            take(&piece)?;
            if tasks.done != 0 || tasks.restarts >= PATIENCE {
                break;
            }
        }
        (outcome.runs, outcome.running, outcome.longest) = (self.runs, self.running, self.longest);
        Ok(outcome)
    }
}

fn decode(record: &OwnedRecord) -> Owned {
    let mut comm = [0; 16];
    comm[..8].copy_from_slice(&record.comm[0].to_ne_bytes());
    comm[8..].copy_from_slice(&record.comm[1].to_ne_bytes());
    Owned {
        socket: Address(record.address),
        cookie: record.cookie,
        process: Process {
            pid: record.pid,
            comm: Some(comm),
            cgroup: Some(record.cgroup),
        },
    }
}
