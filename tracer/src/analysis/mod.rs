//! Pure judgements: values in, sentences out.

pub mod advise;
