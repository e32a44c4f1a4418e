//! sockstat's `tw` is another number than that of the TIME_WAITs.

use super::{Finding, Moved, Severity};
use crate::model::snapshot::Snapshot;
use crate::units::count;

/// Fewer are no riddle.
const SOME: u64 = 100;

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let (waiting, orphans) = (snapshot.time_wait.now, snapshot.fin_wait2_orphan.now);
    if orphans < SOME || orphans * 10 <= waiting {
        return Vec::new();
    }
    vec![
        Finding {
            headline: format!(
                "sockstat and `ss -s` tell of {} TIME_WAITs: {} of them are orphans in FIN_WAIT2",
                count(waiting + orphans),
                count(orphans)
            ),
            because: format!(
                "Their `tw` counts minisockets: {} in TIME_WAIT and {} in FIN_WAIT2 that no program \
                 holds and whose peers have not closed. tcp_fin_timeout ends the latter.",
                count(waiting),
                count(orphans),
            ),
            ..Finding::new("sockstat_differs", Severity::Note, "fin_wait2_orphans")
        }
        .remedy("twtrace explain FIN_WAIT2")
        .figure("time_wait", waiting)
        .figure("fin_wait2_orphans", orphans),
    ]
}
