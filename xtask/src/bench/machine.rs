//! The machine a benchmark runs on: what it is, and how busy it is with other
//! things. Reads /proc and changes nothing.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// `USER_HZ`, the unit of the times in /proc: 100 on every architecture that
/// Linux still has but Alpha.
pub(crate) const TICKS_PER_S: f64 = 100.0;

/// A machine with more to do than this cannot say what 5 % are.
const BUSY: f64 = 0.08;
const STOLEN: f64 = 0.02;

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The first line of /proc/stat: what all CPUs have done since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cpus {
    pub(crate) busy: f64,
    pub(crate) stolen: f64,
    pub(crate) all: f64,
}

impl Cpus {
    pub(crate) fn now() -> Result<Self> {
        Cpus::parse(&read("/proc/stat")?).context("/proc/stat has no line of all CPUs")
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // Guest time, after the eighth, is contained in user time.
        let ticks: Vec<f64> = line
            .split_whitespace()
            .take(8)
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let [_, _, _, idle, waiting, _, _, stolen] = ticks[..] else {
            return None;
        };
        let all: f64 = ticks.iter().sum();
        Some(Cpus {
            busy: all - idle - waiting - stolen,
            stolen,
            all,
        })
    }

    pub(crate) fn since(self, earlier: Cpus) -> Cpus {
        Cpus {
            busy: self.busy - earlier.busy,
            stolen: self.stolen - earlier.stolen,
            all: self.all - earlier.all,
        }
    }
}

/// How the machine is before we make it busy ourselves.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// Over the last minute.
    pub(crate) load: f64,
    /// Shares of all CPUs, over two seconds.
    pub(crate) busy: f64,
    pub(crate) stolen: f64,
    pub(crate) cores: usize,
}

impl Rest {
    pub(crate) fn look() -> Result<Self> {
        let before = Cpus::now()?;
        sleep(Duration::from_secs(2));
        let spent = Cpus::now()?.since(before);
        ensure!(spent.all > 0.0, "/proc/stat stands still");
        let load = read("/proc/loadavg")?
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .context("/proc/loadavg has no number")?;
        Ok(Rest {
            load,
            busy: spent.busy / spent.all,
            stolen: spent.stolen / spent.all,
            cores: std::thread::available_parallelism()?.get(),
        })
    }

    /// What speaks against measuring here and now, if anything does.
    pub(crate) fn objection(&self) -> Option<String> {
        let mut said = Vec::new();
        if self.load > 0.75 * self.cores as f64 {
            said.push(format!("its load over the last minute is {:.2}", self.load));
        }
        if self.busy > BUSY {
            said.push(format!("its CPUs are busy for {:.0} %", 100.0 * self.busy));
        }
        if self.stolen > STOLEN {
            let stolen = 100.0 * self.stolen;
            said.push(format!("its host takes {stolen:.0} % of its time"));
        }
        (!said.is_empty()).then(|| format!("this machine is busy: {}", said.join(", ")))
    }
}

/// Waits until the CPUs rest, so that what the last measurement left to be done
/// does not fall into the next; for ten seconds at most.
pub(crate) fn calm() -> Result<()> {
    for _ in 0..40 {
        let before = Cpus::now()?;
        sleep(Duration::from_millis(250));
        let spent = Cpus::now()?.since(before);
        if spent.busy < 0.05 * spent.all {
            break;
        }
    }
    Ok(())
}

/// `AMD EPYC, 2 cores, Linux 6.18.1`.
pub(crate) fn description() -> Result<String> {
    let cpuinfo = read("/proc/cpuinfo")?;
    // ARM's /proc/cpuinfo names no model.
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or(std::env::consts::ARCH);
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "{}, {cores} cores, Linux {}",
        model.trim(),
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_cpus_did() {
        let cpus = Cpus::parse("cpu  10 20 30 400 5 6 7 8 9 0\ncpu0 1 2 3\n").expect("a line");
        assert_eq!(
            cpus,
            Cpus {
                busy: 73.0,
                stolen: 8.0,
                all: 486.0
            }
        );
        assert_eq!(Cpus::parse("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(Cpus::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn objects_to_a_busy_machine_only_and_says_why() {
        let rest = Rest {
            load: 0.4,
            busy: 0.02,
            stolen: 0.0,
            cores: 2,
        };
        assert_eq!(rest.objection(), None);
        let busy = Rest {
            load: 3.5,
            busy: 0.91,
            stolen: 0.05,
            ..rest
        };
        assert_eq!(
            busy.objection().as_deref(),
            Some(
                "this machine is busy: its load over the last minute is 3.50, \
                 its CPUs are busy for 91 %, its host takes 5 % of its time"
            )
        );
    }
}
