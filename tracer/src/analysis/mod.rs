//! Pure judgements: values in, sentences out.

pub mod compare;
pub mod condition;
pub mod findings;
pub mod headroom;
pub mod load;
pub mod lot;
pub mod metric;
pub mod myths;
pub mod past;
pub mod phase;
pub mod stats;
pub mod switch;
