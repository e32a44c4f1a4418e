//! What each sysctl can change, what it cannot, from when on, and since which
//! kernel.
//!
//! The table is in [`table`]; docs/sysctls.md says the same to readers, held to
//! it by a test. Versions are those of mainline: a distribution's kernel may
//! have got a key earlier, so where `/proc/sys` can be asked, its answer counts.

mod table;

use std::fmt;

pub use table::ALL;

/// Major and minor number of a kernel.
pub type Version = (u32, u32);

/// Names of metrics, as comparisons print them (docs/statistics.md).
pub mod metric {
    pub const ENTERED: &str = "time_wait_entered_per_s";
    pub const STOCK: &str = "time_wait_live_mean";
    pub const LIFE: &str = "time_wait_life_mean_s";
    pub const LIFE_P50: &str = "time_wait_life_p50_s";
    pub const REACHES_2MSL: &str = "time_wait_reaches_2msl_share";
    /// A family: a reason follows after a dot.
    pub const ENDED: &str = "time_wait_ended_share";
    pub const ENDED_REUSED: &str = "time_wait_ended_share.reused_by_connect";
    pub const ENDED_BY_SYN: &str = "time_wait_ended_share.reused_by_syn";
    pub const ENDED_RESET: &str = "time_wait_ended_share.reset";
    pub const PER_CLOSE: &str = "time_wait_per_close";
    pub const REARMS: &str = "rearms_per_time_wait";
    pub const CONNECTIONS: &str = "connections_per_s";
    pub const LATENCY_P50: &str = "connect_latency_p50_s";
    pub const LATENCY_P99: &str = "connect_latency_p99_s";
    /// A family: a kind follows after a dot.
    pub const FAILURES: &str = "connect_failures_per_1000";
    pub const NO_PORT: &str = "connect_failures_per_1000.ports_exhausted";
    pub const TIMED_OUT: &str = "connect_failures_per_1000.timed_out";
    pub const REFUSED: &str = "connect_failures_per_1000.refused";
    pub const ORPHAN_LIFE: &str = "fin_wait2_orphan_life_mean_s";
}

/// What a comparison looks at first where a key says nothing of its own.
pub const PRIMARY_OF_THE_UNKNOWN: &[&str] = &[metric::CONNECTIONS, metric::STOCK, metric::LIFE];

/// One key and all that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// In full: `net.ipv4.tcp_fin_timeout`.
    pub name: &'static str,
    /// What it sets, as a clause without a full stop.
    pub sets: &'static str,
    /// What its values mean, as a clause.
    pub values: &'static str,
    pub default: Value,
    pub versions: Versions,
    pub reach: Reach,
    pub bites: Bites,
    pub can: &'static [Claim],
    pub cannot: &'static [Claim],
    /// Every metric that a change of it can move.
    pub effects: &'static [Effect],
    /// What a comparison of it decides by: at most three. Not only what it can
    /// move, but also what it is most often believed to.
    pub primary: &'static [&'static str],
    /// Why a trial has to be told twice, as a clause; `None`: it was studied.
    pub caution: Option<&'static str>,
}

/// What a kernel sets a key to where nobody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The same on every kernel that twtrace runs on.
    Always(&'static str),
    /// Follows from the machine, as a clause; differs from one to the next.
    Sized(&'static str),
    /// There is none: the kernel has no such key, or not of its own.
    None,
}

/// Mainline kernels that have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    All,
    Since(Version),
    /// This was the last.
    Until(Version),
    /// Only kernels that somebody changed.
    Vendor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Each network namespace has its own, and begins with the kernel's default
    /// whatever the host is set to.
    Namespace,
    /// One for the machine, to be seen in the first network namespace only.
    Machine,
}

/// When a change of it is first felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bites {
    /// At the next decision of its kind, for sockets there are already too.
    AtOnce,
    /// A wait that has begun keeps its length.
    NextWait,
    /// Connections there are already keep the old value.
    NewConnections,
    /// At the next `listen()` of the program.
    NextListen,
    /// Never: nothing reads it.
    Never,
}

/// A sentence about the kernel, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub says: &'static str,
    pub known: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Measured, and measured again by this test of `tracer/tests/kernel`
    /// wherever the tests run.
    Held(&'static str),
    /// Measured by hand on Linux 6.18.
    Measured,
    /// Read in the kernel's sources.
    Source,
    /// The kernel's documentation says so, or the change that made it.
    Documented,
}

/// A metric that a key can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// A name of [`metric`]; a family stands for all of its members.
    pub metric: &'static str,
    /// Under which condition alone, as a clause that follows "only".
    pub only: Option<&'static str>,
}

impl Sysctl {
    /// The last word of its name: `tcp_fin_timeout`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// How a change of it can move a metric, or `None` if it cannot.
    #[must_use]
    pub fn effect_on(&self, metric: &str) -> Option<&'static Effect> {
        self.effects.iter().find(|effect| effect.covers(metric))
    }

    #[must_use]
    pub fn is_in(&self, kernel: Version) -> bool {
        match self.versions {
            Versions::All => true,
            Versions::Since(first) => kernel >= first,
            Versions::Until(last) => kernel <= last,
            Versions::Vendor => false,
        }
    }

    /// Why a kernel has no such key, as a sentence; `None` if it should.
    #[must_use]
    pub fn absent_from(&self, kernel: Version) -> Option<String> {
        let (major, minor) = kernel;
        match self.versions {
            _ if self.is_in(kernel) => None,
            Versions::Since((since, point)) => Some(format!(
                "{} came with Linux {since}.{point}; this is {major}.{minor}.",
                self.name
            )),
            Versions::Until((last, point)) => Some(format!(
                "{} is gone: Linux {last}.{point} was the last to have it; this is {major}.{minor}.",
                self.name
            )),
            Versions::Vendor => Some(format!(
                "{} is not in mainline Linux: only some vendors' kernels have it.",
                self.name
            )),
            Versions::All => None,
        }
    }
}

impl Effect {
    fn covers(&self, metric: &str) -> bool {
        metric
            .strip_prefix(self.metric)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Versions::All => f.write_str("all"),
            Versions::Since((major, minor)) => write!(f, "{major}.{minor} and later"),
            Versions::Until((major, minor)) => write!(f, "up to {major}.{minor}"),
            Versions::Vendor => f.write_str("some vendors' kernels"),
        }
    }
}

/// The key of that name, in any of sysctl's spellings: `net.ipv4.tcp_tw_reuse`,
/// `net/ipv4/tcp_tw_reuse`, `/proc/sys/net/ipv4/tcp_tw_reuse`, `tcp_tw_reuse`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Sysctl> {
    let name = dotted(name);
    ALL.iter()
        .find(|sysctl| sysctl.name == name || sysctl.key() == name)
}

/// A name of a sysctl with dots, without `/proc/sys`. As in sysctl(8), what
/// separates first is the separator.
#[must_use]
pub fn dotted(name: &str) -> String {
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    let slashed = match (name.find('/'), name.find('.')) {
        (Some(slash), Some(dot)) => slash < dot,
        (slash, _) => slash.is_some(),
    };
    if !slashed {
        return name.to_owned();
    }
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    name.chars().map(swap).collect()
}

/// What a comparison decides by where these keys were changed: at most three,
/// in the order of the keys.
#[must_use]
pub fn primary_metrics<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let mut chosen: Vec<&'static str> = Vec::new();
    for key in keys {
        let of_key = find(key).map_or(PRIMARY_OF_THE_UNKNOWN, |sysctl| sysctl.primary);
        for &metric in of_key {
            if chosen.len() < 3 && !chosen.contains(&metric) {
                chosen.push(metric);
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(PRIMARY_OF_THE_UNKNOWN);
    }
    chosen
}

#[cfg(test)]
mod tests;
