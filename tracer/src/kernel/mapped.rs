//! An array map of the kernel side, mapped into our memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use aya::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// `count` values, shared with the programs. Who has it must not run a program
/// that writes to it while a slice of it is borrowed, nor while it is written.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    first: NonNull<T>,
    count: usize,
    of: PhantomData<T>,
}

// SAFETY: who has it has the mapping for himself, and no thread is its own.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps the array, which must have been made to be mapped, and hold that many.
    pub(super) fn new(map: impl AsFd, count: usize) -> io::Result<Self> {
        const {
            assert!(
                size_of::<T>().is_multiple_of(8),
                "an array rounds up to words"
            );
        };
        // SAFETY: a new mapping where the kernel likes; nothing else is there.
        let at = unsafe {
            mmap(
                ptr::null_mut(),
                count * size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )?
        };
        let first = NonNull::new(at.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapped {
            first,
            count,
            of: PhantomData,
        })
    }

    /// The first `count` of them, or all there are.
    pub(super) fn get(&self, count: usize) -> &[T] {
        // SAFETY: mapped as long as this lives; any bytes are a value; who has it
        // runs no program meanwhile, which takes it exclusively.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), count.min(self.count)) }
    }

    /// Where one of them is, for who reads what programs write meanwhile.
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.count, "{index} of {}", self.count);
        self.first.as_ptr().wrapping_add(index)
    }

    pub(super) fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `get`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let (at, bytes) = (self.first.as_ptr().cast(), self.count * size_of::<T>());
        // SAFETY: exactly what `new` mapped, and no borrow outlives this.
        if let Err(error) = unsafe { munmap(at, bytes) } {
            log::debug!("cannot unmap an array: {error}");
        }
    }
}
