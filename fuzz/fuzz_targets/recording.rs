#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| tracer_fuzz::recording(bytes));

// Damaged JSON is soon refused: most inputs are whole lines of odd values.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max: usize, seed: u32| {
    match tracer_fuzz::mutate_lines(&bytes[..size], max, seed) {
        Some(mutated) => {
            bytes[..mutated.len()].copy_from_slice(&mutated);
            mutated.len()
        }
        None => fuzzer_mutate(bytes, size, max),
    }
});
