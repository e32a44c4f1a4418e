//! What every snapshot says of itself, whatever happened: sums that must agree.

use tracer::model::event::State;
use tracer::model::snapshot::Snapshot;

/// Panics where a sum is not what its parts are.
pub(crate) fn check(snapshot: &Snapshot) {
    let all = snapshot
        .namespaces
        .iter()
        .map(|namespace| &namespace.states)
        .chain([&snapshot.states]);
    for states in all {
        for (state, count) in states.iter() {
            assert_eq!(
                count.now + count.left,
                count.seeded + count.entered,
                "{}: {count:?}",
                state.name()
            );
        }
    }
    let time_wait = &snapshot.time_wait;
    let ended = &time_wait.ended;
    let ends = ended.expired
        + ended.reused_by_connect
        + ended.reused_by_bound_connect
        + ended.reused_by_syn
        + ended.reset
        + ended.tproxy
        + ended.destroyed
        + ended.netns_exit
        + ended.unknown;
    assert_eq!(
        Some(ends),
        snapshot.states.get(State::TimeWait).map(|count| count.left),
        "ends are what left"
    );
    let whole = time_wait.lifetime_s.distribution.count;
    assert_eq!(
        whole + time_wait.ended_seeded,
        ends,
        "an end has a whole life or none"
    );
    assert_eq!(
        time_wait
            .lifetime_s
            .buckets
            .iter()
            .map(|bucket| bucket.count)
            .sum::<u64>(),
        whole
    );
    let side = time_wait.side;
    assert_eq!(
        side.client + side.server + side.unknown,
        time_wait.now,
        "every TIME_WAIT is on one side"
    );
    let orphans = &snapshot.fin_wait2_orphan;
    let ended = &orphans.ended;
    let ends = ended.expired
        + ended.data_after_close
        + ended.reset
        + ended.reused_by_connect
        + ended.reused_by_bound_connect
        + ended.tproxy
        + ended.destroyed
        + ended.netns_exit
        + ended.unknown;
    assert_eq!(
        orphans.now + ends + orphans.became_time_wait,
        orphans.seeded + orphans.entered,
        "{orphans:?}"
    );
}
