//! What a load looks like, and what it needs: ports, sysctls, descriptors.
//!
//! Plain values and how a pair of namespaces is made to fit them; the load itself
//! is in [`super::workload`].

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::churn::First;
use super::link::Pair;
use super::setting::Setting;
use super::workload::{AT_ONCE, LEFT_OPEN};

/// What the load looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Connections that begin in a second.
    pub rate: u32,
    pub first: First,
    /// How many local ports the client may use; `None`: the kernel's default.
    pub ports: Option<u16>,
    /// Ports of the server that are connected to in turn.
    pub destinations: u16,
    /// Share of connections whose second end never closes as long as the first
    /// waits for it: CLOSE_WAIT here, an orphan in FIN_WAIT2 there.
    pub left_open: f64,
    /// Of both ends, before the load begins.
    pub settings: Vec<Setting>,
}

impl Shape {
    pub const MAX_RATE: u32 = 10_000;
    pub const MAX_DESTINATIONS: u16 = 1000;
    /// 1024 to 65535: below, ports are for privileged users.
    pub const MAX_PORTS: u16 = 64_512;

    /// Brings both ends of a fresh pair into shape. Nothing connects yet.
    pub fn prepare(&self, pair: &Pair) -> Result<()> {
        if let Some(ports) = self.ports {
            let range = port_range(ports);
            pair.near.set_sysctl("ipv4.ip_local_port_range", &range)?;
        }
        for setting in &self.settings {
            setting.apply(&pair.near)?;
            setting.apply(&pair.far)?;
        }
        Ok(())
    }

    /// Descriptors that one pair's load has open at most.
    fn descriptors(&self) -> u64 {
        let left_open = f64::from(self.rate) * self.left_open * LEFT_OPEN.as_secs_f64();
        left_open.ceil() as u64 + 2 * AT_ONCE as u64 + u64::from(self.destinations)
    }

    /// Whether connection number `n` is one that is left open: they are spread
    /// evenly.
    pub(super) fn leaves_open(&self, n: u64) -> bool {
        let before = (n as f64 * self.left_open).floor();
        ((n + 1) as f64 * self.left_open).floor() > before
    }
}

/// The kernel's own range from its beginning, as long as that suffices.
fn port_range(ports: u16) -> String {
    const KERNELS: (u16, u16) = (32_768, 60_999);
    const UNPRIVILEGED: u16 = 1024;
    let low = if ports <= KERNELS.1 - KERNELS.0 + 1 {
        KERNELS.0
    } else {
        UNPRIVILEGED
    };
    format!("{low} {}", low + (ports - 1))
}

/// Lets this process open as many descriptors as its hard limit allows, and says
/// if that is too few for the load of `pairs` pairs of this shape.
pub fn raise_descriptor_limit(shape: &Shape, pairs: usize) -> Result<()> {
    /// Those of the tracer, and of the process before it.
    const OTHERS: u64 = 512;
    let limit = getrlimit(Resource::Nofile);
    let needed = shape.descriptors() * pairs as u64 + OTHERS;
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|hard| hard >= needed),
        "this load opens up to {needed} descriptors and `ulimit -Hn` allows {}: take a lower --rate or --close-wait",
        limit.maximum.unwrap_or_default()
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        },
    )
    .context("cannot raise the limit of open descriptors")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            rate: 100,
            first: First::Client,
            ports: None,
            destinations: 1,
            left_open: 0.02,
            settings: Vec::new(),
        }
    }

    #[test]
    fn ports_are_the_kernels_as_long_as_they_suffice() {
        assert_eq!(port_range(1), "32768 32768");
        assert_eq!(port_range(28_232), "32768 60999");
        assert_eq!(port_range(28_233), "1024 29256");
        assert_eq!(port_range(Shape::MAX_PORTS), "1024 65535");
    }

    #[test]
    fn those_left_open_are_the_share_asked_for_spread_evenly() {
        let shape = shape();
        let left_open: Vec<u64> = (0..1000).filter(|&n| shape.leaves_open(n)).collect();
        assert_eq!(left_open.len(), 20);
        assert!(
            left_open
                .windows(2)
                .all(|two| (49..=51).contains(&(two[1] - two[0])))
        );
        let count = |left_open| {
            let shape = Shape {
                left_open,
                ..shape.clone()
            };
            (0..1000).filter(|&n| shape.leaves_open(n)).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 1000));
    }
}
