//! The binary: parse, dispatch, exit codes.

fn main() {}
