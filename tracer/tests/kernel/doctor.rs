//! `doctor --self-test`: what the figures rest on holds on this kernel.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::twtrace;
use super::{Outcome, Verdict};

/// What may be left untried, for want of a module.
const MAY_LACK: &str = "destroyed";

pub(crate) fn self_test_holds() -> Outcome {
    let output = twtrace::command()
        .args(["doctor", "--self-test", "--json"])
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "doctor printed no JSON: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let trials = report["self_test"]
        .as_array()
        .with_context(|| format!("no self-test in {report:#}"))?;
    ensure!(
        trials.len() > 20,
        "only {} trials: {report:#}",
        trials.len()
    );
    for trial in trials {
        ensure!(
            trial["verdict"] == "held"
                || trial["verdict"] == "untried" && trial["name"] == MAY_LACK,
            "an assumption does not hold here: {trial}"
        );
    }
    ensure!(
        output.status.success() && report["ready"] == true,
        "doctor ended with {}: {report:#}",
        output.status
    );
    Ok(Verdict::Held)
}
