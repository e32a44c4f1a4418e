//! tcp_max_tw_buckets is reached, or nearly.

use super::{Finding, Moved, Severity};
use crate::model::snapshot::Snapshot;
use crate::units::{count, counted, percent_of};

pub(super) fn found(snapshot: &Snapshot, moved: &Moved) -> Vec<Finding> {
    let Some(stock) = &snapshot.stock else {
        return Vec::new();
    };
    let mut found: Vec<Finding> = Vec::new();
    let fullest = stock
        .buckets
        .iter()
        .max_by(|a, b| a.fill().total_cmp(&b.fill()));
    if moved.overflowed > 0
        && let Some(buckets) = fullest
    {
        found.push(
            Finding {
                netns: Some(buckets.netns),
                headline: format!(
                    "tcp_max_tw_buckets ({}) is reached: {} skipped TIME_WAIT",
                    count(buckets.limit),
                    counted(moved.overflowed, "connection", "connections")
                ),
                because: "A connection that skips TIME_WAIT leaves nobody who answers its peer's \
                          last FIN, and old segments can meet the next connection of the same \
                          ports. A TIME_WAIT costs memory, some 256 bytes."
                    .to_owned(),
                ..Finding::new("time_wait_overflow", Severity::Hurts, "tcp_max_tw_buckets")
            }
            .remedy("raise net.ipv4.tcp_max_tw_buckets")
            .remedy("twtrace explain tcp_max_tw_buckets")
            .figure("skipped", moved.overflowed)
            .figure("skipped_in_all", snapshot.time_wait.overflowed)
            .figure("now", buckets.now)
            .figure("limit", buckets.limit),
        );
    }
    for buckets in &stock.buckets {
        if buckets.fill() < 0.8 || found.iter().any(|told| told.netns == Some(buckets.netns)) {
            continue;
        }
        found.push(
            Finding {
                netns: Some(buckets.netns),
                headline: format!(
                    "TIME_WAITs are near tcp_max_tw_buckets: {} of {} ({})",
                    count(buckets.now),
                    count(buckets.limit),
                    percent_of(buckets.now, buckets.limit)
                ),
                because: "Beyond it connections skip TIME_WAIT, which saves memory alone."
                    .to_owned(),
                ..Finding::new("time_wait_near_limit", Severity::Near, "tcp_max_tw_buckets")
            }
            .remedy("raise net.ipv4.tcp_max_tw_buckets")
            .figure("now", buckets.now)
            .figure("limit", buckets.limit),
        );
    }
    found
}
