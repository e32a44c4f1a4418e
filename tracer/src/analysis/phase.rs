//! One stretch of time under one setting: a number for each metric, and whether
//! what was counted agrees with what the kernel counted.
//!
//! It does not know why the stretch was taken, nor what it will be held against.

mod measure;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::measure::Witness;

/// The value of one metric over one stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// `None` where too little was seen to say.
    pub value: Option<f64>,
    /// What it was taken over: connects, closes, ends.
    pub of: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// How it is called: `pair 3`, `replica 5`.
    pub name: String,
    pub seconds: f64,
    /// By the names of [`super::metric`].
    pub readings: BTreeMap<String, Reading>,
    pub checks: Vec<Check>,
}

/// Two ways to the same number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What twtrace says.
    pub seen: f64,
    /// What the kernel, or arithmetic, says.
    pub expected: f64,
    pub agrees: bool,
}

impl Phase {
    pub fn read(&mut self, name: impl Into<String>, value: Option<f64>, of: u64) {
        let value = value.filter(|value| value.is_finite());
        self.readings.insert(name.into(), Reading { value, of });
    }

    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.readings.get(name)?.value
    }

    /// Puts two ways to one number beside each other; they agree if they differ
    /// by at most this part, or by no more than `few`.
    pub fn check(&mut self, name: &'static str, seen: f64, expected: f64, part: f64, few: f64) {
        let agrees = (seen - expected).abs() <= (part * expected.abs()).max(few);
        self.checks.push(Check {
            name,
            seen,
            expected,
            agrees,
        });
    }
}

#[cfg(test)]
mod tests;
