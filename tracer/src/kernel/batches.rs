//! The batches in which each CPU gathers its records, and having them sent.
//!
//! Their map is mapped into our memory, so that a CPU is interrupted only where
//! something waits: to look costs nothing. Here is no record and no ring.

use std::thread;

use anyhow::{Context, Result, bail};
use aya::maps::Map;
use aya::programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun};
use log::debug;
use rustix::io::Errno;
use tracer_common::wire::{BATCH_BYTES, Batch, flush};

use super::mapped::Mapped;

/// A program that is at work on a batch is done within microseconds; a CPU whose
/// batch cannot be had so often is looked at again at the next tick.
const TRIES: u32 = 1000;

/// The batches of all CPUs.
#[derive(Debug)]
pub(super) struct Batches {
    mapped: Mapped<Batch>,
    cpus: usize,
}

impl Batches {
    pub(super) fn map(map: &Map, cpus: usize) -> Result<Batches> {
        let Map::Array(data) = map else {
            bail!("the batches are in no array");
        };
        let mapped = Mapped::new(data.fd(), cpus).context("cannot map the batches of the CPUs")?;
        Ok(Batches { mapped, cpus })
    }

    /// Has every CPU send what waits there. What can only be read, of a CPU that is
    /// offline, is handed over.
    pub(super) fn flush(
        &mut self,
        program: &RawTracePoint,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        for cpu in 0..self.cpus {
            let mut tries = 0;
            while self.filled(cpu) != 0 && tries < TRIES {
                let options = RawTracePointRunOptions {
                    cpu: Some(cpu as u32),
                    ..RawTracePointRunOptions::new()
                };
                match program.test_run(options) {
                    Ok(run) if run.return_value == flush::DONE => break,
                    Ok(_) => thread::yield_now(),
                    Err(error) if is_offline(&error) => {
                        self.take_over(cpu, &mut take);
                        break;
                    }
                    Err(error) => return Err(error).context("cannot flush a CPU's records"),
                }
                tries += 1;
            }
            if tries == TRIES {
                debug!("CPU {cpu} is writing records all the time: they come later");
            }
        }
        Ok(())
    }

    fn filled(&self, cpu: usize) -> u64 {
        // SAFETY: of a value that is mapped as long as this lives. Programs write it
        // meanwhile: hence by address, and volatile.
        unsafe { (&raw const (*self.mapped.at(cpu)).filled).read_volatile() }
    }

    /// Nothing runs on a CPU that is offline, so its batch is ours.
    fn take_over(&mut self, cpu: usize, take: &mut impl FnMut(&[u8])) {
        let filled = self.filled(cpu) as u32 as usize;
        let batch = self.mapped.at(cpu);
        // SAFETY: as in `filled`; the words are as long as the bytes.
        let bytes = unsafe {
            let bytes = (&raw const (*batch).words)
                .cast::<[u8; BATCH_BYTES]>()
                .read_volatile();
            (&raw mut (*batch).filled).write_volatile(0);
            bytes
        };
        take(&bytes[..filled.min(BATCH_BYTES)]);
    }
}

fn is_offline(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => {
            error.io_error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
        }
        _ => false,
    }
}
