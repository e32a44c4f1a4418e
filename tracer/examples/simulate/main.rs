//! How often the designs of docs/statistics.md err, and what they find: prints
//! the tables that stand there.
//!
//! `cargo run --release --example simulate [TRIALS]`

mod lives;
mod loads;
mod trials;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use loads::{LOADS, RATE};
use trials::{DESIGNS, Outcome, run};

const SEED: u64 = 1;

fn main() -> io::Result<()> {
    let trials = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let trials: u32 = trials.unwrap_or(2000);
    let mut out = String::new();
    for (name, design) in DESIGNS {
        let _ = writeln!(
            out,
            "\n| {name} | A/A called different | A/A called unchanged | 5 % found | 10 % found | 20 % found |\n\
             | --- | --- | --- | --- | --- | --- |"
        );
        for (load_name, load) in LOADS {
            let percent =
                |outcome: &Outcome, of: u32| format!("{:.1} %", 100.0 * outcome.share(of));
            let none = run(design, load, 0.0, trials, SEED);
            let found = [0.05, 0.10, 0.20].map(|effect| {
                let outcome = run(design, load, effect, trials / 4, SEED + 1);
                percent(&outcome, outcome.found)
            });
            let _ = writeln!(
                out,
                "| {load_name} | {} | {} | {} |",
                percent(&none, none.different),
                percent(&none, none.unchanged),
                found.join(" | ")
            );
        }
    }
    let _ = writeln!(
        out,
        "\n| early ends | 5 s | 30 s | 130 s |\n| --- | --- | --- | --- |"
    );
    for share in [0.05, 0.20, 0.50] {
        for (name, early) in lives::EARLY {
            let cells = [5.0, 30.0, 130.0].map(|seconds| {
                let found = lives::covered(early, share, RATE, seconds, trials / 4, SEED);
                let percent = |n: u32| 100.0 * f64::from(n) / f64::from(found.runs.max(1));
                format!(
                    "{:.1} %, ±{:.1} points; mean life {:.1} %",
                    percent(found.share),
                    100.0 * found.reach,
                    percent(found.mean)
                )
            });
            let _ = writeln!(
                out,
                "| {:.0} %, {name} | {} |",
                100.0 * share,
                cells.join(" | ")
            );
        }
    }
    io::stdout().lock().write_all(out.as_bytes())
}
