//! The ring buffer and the batches that are on their way into it: what they hold,
//! in the order in which it was made.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use aya::programs::RawTracePoint;

use super::batches::Batches;
use super::clock;
use super::merge::Merge;
use super::tracer::Distortion;
use crate::model::event::Event;

pub(super) struct Ring {
    ring: RingBuf<MapData>,
    /// Bytes that it can hold.
    bytes: usize,
    batches: Batches,
    merge: Merge,
    distortion: Option<Distortion>,
    /// Records read so far.
    read: u64,
}

impl Ring {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        bytes: usize,
        batches: Batches,
        distortion: Option<Distortion>,
    ) -> Ring {
        Ring {
            ring,
            bytes,
            batches,
            merge: Merge::default(),
            distortion,
            read: 0,
        }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands over, in order, all that was made before this was called, once `flush`
    /// has been run wherever something waits. It ends where the machine fills the
    /// ring faster than it is read, too: after as much as can have been waiting.
    pub(super) fn drain(
        &mut self,
        flush: &RawTracePoint,
        mut take: impl FnMut(&Event),
    ) -> Result<()> {
        let horizon = clock::now();
        let Ring {
            ring,
            batches,
            merge,
            read,
            distortion,
            ..
        } = self;
        let mut take = |event: &Event| match distortion {
            None => take(event),
            Some(distort) => distort(event, &mut take),
        };
        batches.flush(flush, |batch| *read += merge.push(batch))?;
        let mut bytes = 0;
        while bytes < self.bytes
            && let Some(batch) = ring.next()
        {
            bytes += batch.len();
            *read += merge.push(&batch);
            if merge.is_large() {
                merge.emit_half(clock::now(), &mut take);
            }
        }
        merge.emit(horizon, clock::now(), &mut take);
        Ok(())
    }

    pub(super) fn records(&self) -> u64 {
        self.read
    }

    /// Records that could not be decoded.
    pub(super) fn malformed(&self) -> u64 {
        self.merge.malformed
    }
}
