//! The figures of a benchmark as Markdown tables. Pure: measurements in, text
//! out.

use std::fmt::Write;

use super::measure::{Measured, Mode, Program};
use super::statistics::{Ratio, median, paired_quotient, paired_ratio};

/// All measurements of one mode, in the order of the rounds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) mode: Mode,
    pub(crate) measured: Vec<Measured>,
}

impl Row {
    pub(crate) fn median(&self, value: impl Fn(&Measured) -> f64) -> Option<f64> {
        median(&self.measured.iter().map(value).collect::<Vec<_>>())
    }

    /// Of the rate kept, each round a pair.
    pub(crate) fn kept(&self, base: &Row) -> Option<Ratio> {
        self.ratio(base, |measured| measured.per_second)
    }

    /// The same by what a connection costs its own thread: other processes that
    /// want the CPUs do not move this, but neither does a tracer's reader.
    fn kept_by_cpu(&self, base: &Row) -> Option<Ratio> {
        self.ratio(base, |measured| 1.0 / measured.load_cpu_us)
    }

    /// What a connection costs its own thread beyond `base`, as a multiple of what
    /// `floor` costs it.
    pub(crate) fn times(&self, floor: &Row, base: &Row) -> Option<Ratio> {
        let rounds = self
            .measured
            .iter()
            .zip(&floor.measured)
            .zip(&base.measured);
        paired_quotient(
            &rounds
                .map(|((with, floor), without)| {
                    let beyond = |one: &Measured| one.load_cpu_us - without.load_cpu_us;
                    (beyond(with), beyond(floor))
                })
                .collect::<Vec<_>>(),
        )
    }

    fn ratio(&self, base: &Row, value: impl Fn(&Measured) -> f64) -> Option<Ratio> {
        let pairs = self.measured.iter().zip(&base.measured);
        paired_ratio(
            &pairs
                .map(|(with, without)| (value(with), value(without)))
                .collect::<Vec<_>>(),
        )
    }

    /// CPU seconds of the tracer for a million transitions, all rounds together:
    /// the clock of one round's ticks is too coarse.
    fn per_million(&self, seconds: impl Fn(&super::process::Cpu) -> f64) -> Option<f64> {
        let tracers = || self.measured.iter().filter_map(|one| one.tracer.as_ref());
        let transitions: u64 = tracers().map(|tracer| tracer.transitions).sum();
        let spent: f64 = tracers().map(|tracer| seconds(&tracer.cpu)).sum();
        (transitions > 0).then(|| 1e6 * spent / transitions as f64)
    }

    fn peak_mib(&self) -> Option<f64> {
        let tracers = self.measured.iter().filter_map(|one| one.tracer.as_ref());
        let peak = tracers.map(|tracer| tracer.peak_kib).max()?;
        Some(peak as f64 / 1024.0)
    }

    /// `None` as soon as one does not say.
    pub(crate) fn lost(&self) -> Option<u64> {
        let mut tracers = self.measured.iter().filter_map(|one| one.tracer.as_ref());
        let first = tracers.next()?.lost?;
        tracers.try_fold(first, |sum, tracer| Some(sum + tracer.lost?))
    }
}

/// The load with each mode beside it; the first row is the one without any.
pub(crate) fn rates(rows: &[Row]) -> String {
    let mut table = String::from(
        "| beside the load | connections/s | kept (95 % interval) | kept, by the load's CPU | cost, empty programs being 1 | user s/million | system s/million | peak RSS, MiB | lost |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let Some(base) = rows.first() else {
        return table;
    };
    let floor = rows.iter().find(|row| row.mode == Mode::Floor);
    for (i, row) in rows.iter().enumerate() {
        let other = (i > 0).then_some(row);
        let cells = [
            row.mode.name(),
            number(row.median(|measured| measured.per_second), 0),
            ratio(other.and_then(|row| row.kept(base))),
            ratio(other.and_then(|row| row.kept_by_cpu(base))),
            times(floor.and_then(|floor| other?.times(floor, base))),
            number(row.per_million(|cpu| cpu.user), 3),
            number(row.per_million(|cpu| cpu.system), 3),
            number(row.peak_mib(), 1),
            row.lost().map_or("–".to_owned(), |lost| lost.to_string()),
        ];
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

/// What the kernel's statistics say of each program during `connections`.
pub(crate) fn programs(mode: &Mode, programs: &[Program], connections: u64) -> String {
    let mut table = format!(
        "| programs of {} | runs per connection | ns a run | ns per connection |\n\
         | --- | ---: | ---: | ---: |\n",
        mode.name()
    );
    let per = |value: u64| value as f64 / connections as f64;
    let ran: Vec<&Program> = programs.iter().filter(|program| program.runs > 0).collect();
    for program in &ran {
        let _ = writeln!(
            table,
            "| {} | {:.2} | {:.0} | {:.0} |",
            program.name,
            per(program.runs),
            program.run_time_ns as f64 / program.runs as f64,
            per(program.run_time_ns)
        );
    }
    let sum = |value: fn(&Program) -> u64| ran.iter().map(|program| value(program)).sum::<u64>();
    let _ = writeln!(
        table,
        "| all | {:.2} | | {:.0} |",
        per(sum(|program| program.runs)),
        per(sum(|program| program.run_time_ns))
    );
    table
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"))
}

fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or("–".to_owned(), |ratio| {
        format!(
            "{:.1} % ({:.1} to {:.1})",
            100.0 * ratio.estimate,
            100.0 * ratio.low,
            100.0 * ratio.high
        )
    })
}

fn times(times: Option<Ratio>) -> String {
    times.map_or("–".to_owned(), |times| {
        format!(
            "{:.2} ({:.2} to {:.2})",
            times.estimate, times.low, times.high
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::measure::Tracer;
    use super::super::process::Cpu;
    use super::*;

    fn row(mode: Mode, rates: &[f64], tracer: Option<&Tracer>) -> Row {
        let measured = rates.iter().map(|&per_second| Measured {
            per_second,
            load_cpu_us: 1e6 / per_second,
            others: 0.0,
            stolen: 0.0,
            bystanders: 0,
            connections: 1000,
            tracer: tracer.cloned(),
        });
        Row {
            mode,
            measured: measured.collect(),
        }
    }

    fn tracer() -> Tracer {
        Tracer {
            cpu: Cpu {
                user: 0.02,
                system: 0.01,
            },
            transitions: 100_000,
            peak_kib: 10_240,
            lost: Some(2),
            programs: Vec::new(),
        }
    }

    #[test]
    fn a_table_compares_with_its_first_row() {
        let silent = Tracer {
            lost: None,
            ..tracer()
        };
        let rows = [
            row(Mode::None, &[20_000.0, 21_000.0, 25_000.0], None),
            row(Mode::Floor, &[19_600.0, 20_580.0, 24_500.0], None),
            row(Mode::Live, &[19_000.0, 19_950.0, 23_750.0], Some(&tracer())),
            row(
                Mode::Peer("a | b".to_owned()),
                &[10_000.0, 10_500.0, 12_500.0],
                Some(&silent),
            ),
        ];
        let table = rates(&rows);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| no tracer | 21000 | – | – | – | – | – | – | – |",
                "| empty programs on the same hooks | 20580 | 98.0 % (98.0 to 98.0) | 98.0 % (98.0 to 98.0) | 1.00 (1.00 to 1.00) | – | – | – | – |",
                "| `twtrace live --json` | 19950 | 95.0 % (95.0 to 95.0) | 95.0 % (95.0 to 95.0) | 2.58 (2.58 to 2.58) | 0.200 | 0.100 | 10.0 | 6 |",
                "| `a \\| b` | 10500 | 50.0 % (50.0 to 50.0) | 50.0 % (50.0 to 50.0) | 49.00 (49.00 to 49.00) | 0.200 | 0.100 | 10.0 | – |",
            ]
        );
    }

    #[test]
    fn programs_that_never_ran_are_left_out_and_the_rest_is_summed() {
        let program = |name: &str, runs, run_time_ns| Program {
            name: name.to_owned(),
            runs,
            run_time_ns,
        };
        let all = [
            program("set_state", 10_000, 2_000_000),
            program("seed", 0, 0),
            program("timer_start", 6_400, 320_000),
        ];
        let table = programs(&Mode::Live, &all, 1_000);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| set_state | 10.00 | 200 | 2000 |",
                "| timer_start | 6.40 | 50 | 320 |",
                "| all | 16.40 | | 2320 |",
            ]
        );
    }
}
