//! What both sides of the ring buffer must agree on.
//!
//! TCP states as the kernel numbers them, the records that travel from the
//! eBPF programs to userspace, and the layout of the kernel's structures that
//! travels the other way. It refuses to know who reads it: no aya programs, no
//! ledger, no I/O.
#![no_std]

pub mod handled;
pub mod layout;
pub mod seat;
pub mod state;
pub mod walk;
pub mod wire;
