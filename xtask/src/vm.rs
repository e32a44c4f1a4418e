//! `vm`: the tests against the kernel, on other kernels than this machine's.
//!
//! Each series is a kernel that Debian packages, booted by QEMU without KVM from
//! an initramfs whose `/init` is the test program `kernel` itself. Here are the
//! lanes and the table; processors, packages, image and machine are rooms of
//! their own.

mod arch;
mod image;
mod machine;
mod packages;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::programs::{self, Program};
use crate::say;
use crate::toolchain::Toolchain;
use arch::Arch;
use image::Guest;
use machine::Ran;
use packages::{Kernel, Series};

pub(crate) use packages::mirror;

/// Those a change has to hold on: long-term kernels, a real-time one, the newest,
/// and two of another processor.
pub(crate) const SERIES: [&str; 7] = [
    "6.1",
    "6.12",
    "6.12-rt",
    "6.18",
    "7",
    "6.1-arm64",
    "7-arm64",
];

const NEEDED: [Program; 3] = [
    ("xz", "xz-utils", "unpacks kernel modules"),
    ("readelf", "binutils", "says what libraries `ss` needs"),
    ("apt-get", "apt", "fetches and verifies Debian's kernels"),
];

/// Fetches what these series' guests are made with and run by.
pub(crate) fn install(toolchain: &Toolchain, series: &[&str]) -> Result<()> {
    programs::install(&needed(series))?;
    archs(series).try_for_each(|arch| arch.install_std(toolchain))
}

fn require(toolchain: &Toolchain, series: &[&str]) -> Result<()> {
    programs::require(&needed(series))?;
    archs(series).try_for_each(|arch| arch.require_std(toolchain))
}

fn needed(series: &[&str]) -> Vec<Program> {
    let of_archs = archs(series).flat_map(|arch| arch.needed);
    NEEDED.iter().chain(of_archs).copied().collect()
}

/// Of the guests, each once.
fn archs(series: &[&str]) -> impl Iterator<Item = &'static Arch> {
    arch::ARCHS
        .into_iter()
        .filter(|arch| series.iter().any(|name| Series::of(name).arch == *arch))
}

/// A way to run a guest.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) qemu: &'static [&'static str],
    /// Of the kernel.
    pub(crate) boot: &'static str,
    /// Tests side by side.
    pub(crate) threads: u32,
    /// What is not run, by the beginning of its name, and why.
    pub(crate) skipped: &'static [(&'static str, &'static str)],
}

const TPROXY: (&str, &str) = ("ends::tproxy", "nft is not in the guest");
const LIVES: (&str, &str) = ("lives::", OTHER_LANE);
const STANDING: (&str, &str) = (
    "lives::seeded",
    "its 20,000 sockets are too much for an emulated CPU",
);
const SOAK: (&str, &str) = ("soak::", "its crowds are too much for an emulated CPU");
const LAB: (&str, &str) = ("lab::", "it keeps a pace that an emulated CPU cannot");
const SIZE: (&str, &str) = ("size::", LAB.1);
const SYSCTL_D: (&str, &str) = (
    "sysctl_d::",
    "the programs that it asks are not in the guest",
);
const RECORDING: (&str, &str) = ("recording::", "it runs a shell, which is not in the guest");
const CANARIES: (&str, &str) = ("canaries::", "what they prove depends on no kernel");
const ERRORS: (&str, &str) = ("errors::", "what users are told depends on no kernel");
const NAMES: (&str, &str) = ("names::", ERRORS.1);
const TERMINAL: (&str, &str) = ("terminal::", ERRORS.1);
const STEERED: &str = "one CPU has nowhere to steer packets to";
const OTHER_LANE: &str = "run in the other lane";

pub(crate) const LANES: [Lane; 2] = [
    // Instructions are the clock, two nanoseconds each however busy the machine
    // is, and time in which nothing runs is skipped: a TIME_WAIT's 60 seconds pass
    // in one or two.
    Lane {
        name: "skipped-time",
        qemu: &[
            "-icount",
            "shift=1,sleep=off",
            "-rtc",
            "clock=vm",
            "-smp",
            "1",
        ],
        boot: "",
        threads: 3,
        skipped: &[
            CANARIES,
            TPROXY,
            STANDING,
            SOAK,
            LAB,
            SIZE,
            SYSCTL_D,
            RECORDING,
            ERRORS,
            NAMES,
            TERMINAL,
            ("bystander::stacks", STEERED),
            ("churn::", OTHER_LANE),
            ("loss::", OTHER_LANE),
            ("netns::", OTHER_LANE),
            ("owners::", OTHER_LANE),
            ("story::", OTHER_LANE),
        ],
    },
    // What is per CPU, and interrupts that move to the other, under lockdown. The
    // CPUs take turns: two events are never told at the very same time.
    Lane {
        name: "two-cpus",
        qemu: &["-smp", "2"],
        boot: "lockdown=integrity",
        threads: 3,
        skipped: &[
            CANARIES,
            LIVES,
            SOAK,
            LAB,
            SIZE,
            SYSCTL_D,
            RECORDING,
            ERRORS,
            NAMES,
            TERMINAL,
            ("ends::", OTHER_LANE),
            ("filters::", OTHER_LANE),
            ("findings::", OTHER_LANE),
            ("requests::", OTHER_LANE),
            ("sysctls::", OTHER_LANE),
        ],
    },
];

/// Runs this lane of every series, or each; an error unless all tests passed.
pub(crate) fn vm(
    series: &[String],
    lane: Option<&str>,
    only: Option<&str>,
    jobs: Option<NonZero<usize>>,
) -> Result<()> {
    let series: Vec<&str> = if series.is_empty() {
        SERIES.to_vec()
    } else {
        series.iter().map(String::as_str).collect()
    };
    let toolchain = Toolchain::current()?;
    require(&toolchain, &series)?;
    let cache = cache()?;
    let mut kernels = Vec::new();
    let mut guests = Vec::new();
    for arch in archs(&series) {
        let archive = packages::Archive::open(&cache, arch)?;
        for series in series.iter().map(|name| Series::of(name)) {
            if series.arch == arch {
                kernels.push(archive.kernel(&series)?);
            }
        }
        guests.push(Guest::build(&toolchain, &crate::target()?, &archive)?);
    }

    let lanes = LANES
        .iter()
        .filter(|it| lane.is_none_or(|lane| it.name == lane));
    let mut boots = Vec::new();
    for lane in lanes.clone() {
        for kernel in &kernels {
            let guest = guests
                .iter()
                .find(|guest| guest.arch == kernel.series.arch)
                .context("this processor has no guest")?;
            boots.push(Boot {
                kernel,
                lane,
                initramfs: guest.initramfs(kernel)?,
                log: guest.log(kernel, lane),
                only,
            });
        }
    }
    // Each takes one CPU of this machine, however many it has itself.
    let jobs = jobs.or_else(|| thread::available_parallelism().ok());
    let mut rows = run_all(&boots, jobs.map_or(1, NonZero::get))
        .into_iter()
        .map(|(boot, ran)| Ok((boot.kernel, boot.lane, ran?)))
        .collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|(kernel, ..)| kernels.iter().position(|k| std::ptr::eq(k, *kernel)));

    say(format_args!(
        "\n{:<9} {:<22} {:<13} {:>6} {:>7} {:>6} {:>7} {:>7} {:>7}",
        "series",
        "package version",
        "lane",
        "boot s",
        "total s",
        "CPU s",
        "passed",
        "failed",
        "skipped"
    ))?;
    for (kernel, lane, ran) in &rows {
        say(format_args!(
            "{:<9} {:<22} {:<13} {:>6.1} {:>7.1} {:>6.0} {:>7} {:>7} {:>7}",
            kernel.series.name,
            kernel.version,
            lane.name,
            ran.boot.as_secs_f64(),
            ran.total.as_secs_f64(),
            ran.cpu.as_secs_f64(),
            ran.passed,
            ran.failed.len(),
            ran.skipped.len() + lane.skipped.len(),
        ))?;
    }
    say(format_args!("\nskipped, and why:"))?;
    for lane in lanes {
        for (test, why) in lane.skipped {
            say(format_args!("  {}: {test} ({why})", lane.name))?;
        }
    }
    for (kernel, lane, ran) in &rows {
        for test in &ran.skipped {
            say(format_args!(
                "  {}, {}: {test}",
                kernel.series.name, lane.name
            ))?;
        }
    }
    let mut amiss = 0;
    for (kernel, lane, ran) in &rows {
        for test in &ran.failed {
            say(format_args!(
                "FAILED on {}, {}: {test}",
                kernel.series.name, lane.name
            ))?;
        }
        if let Some(why) = &ran.broken {
            say(format_args!(
                "BROKEN on {}, {}: {why}",
                kernel.series.name, lane.name
            ))?;
        }
        amiss += usize::from(!ran.failed.is_empty() || ran.broken.is_some());
    }
    if amiss > 0 {
        bail!(
            "{amiss} of {} runs failed; their consoles are in {}",
            rows.len(),
            image::folder(&crate::target()?).display()
        );
    }
    Ok(())
}

/// One kernel in one lane.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) lane: &'static Lane,
    pub(crate) initramfs: PathBuf,
    /// Where its console is kept.
    pub(crate) log: PathBuf,
    /// Of a test's name.
    pub(crate) only: Option<&'a str>,
}

/// Runs `boots`, so many at once, in their order; says of each how it went.
fn run_all<'b, 'a>(boots: &'b [Boot<'a>], jobs: usize) -> Vec<(&'b Boot<'a>, Result<Ran>)> {
    let queue = Mutex::new(boots.iter());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(boot) = next else { break };
                    let ran = machine::run(boot);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((boot, ran));
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Where downloads are kept from run to run, outside the repository.
fn cache() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where to keep downloads")?;
    Ok(base.join("twtrace/vm"))
}
