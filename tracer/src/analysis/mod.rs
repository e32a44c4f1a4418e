//! Pure judgements: values in, sentences out.

pub mod advise;
pub mod compare;
pub mod headroom;
pub mod lot;
pub mod metric;
pub mod myths;
pub mod past;
pub mod phase;
pub mod stats;
pub mod switch;
