//! What happened: events, the ledger that adds them up, and the snapshot it gives.
//!
//! Pure. Nothing here does I/O or asks the time; the same events give the same
//! snapshot, byte for byte.

pub(crate) mod clock;
mod counters;
mod destinations;
pub mod event;
pub mod filter;
pub mod found;
pub mod happening;
mod hash;
pub mod histogram;
pub mod ledger;
pub mod life_table;
pub(crate) mod owners;
pub mod ports;
pub mod snapshot;
pub mod state_set;
pub mod stock;
