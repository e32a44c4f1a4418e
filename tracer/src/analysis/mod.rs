//! Pure judgements: values in, sentences out.
