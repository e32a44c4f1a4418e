//! The tracer against the real kernel: real sockets in private network
//! namespaces, and what `ss` and the kernel's counters say of them as the truth.
//!
//! It needs root and fails without. The tests run side by side whatever the
//! number of cores, the ones that wait out 2MSL first, so that those 60 seconds
//! pass once. Started with a role as its first argument it is a helper process
//! of one of the tests instead.

mod bystander;
mod churn;
mod ends;
mod errors;
mod lives;
mod loss;
mod owners;
mod population;
mod story;
mod truth;
mod twtrace;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a test gives: nothing, or why this host cannot run it, loudly.
pub(crate) enum Verdict {
    Held,
    Impossible(String),
}

pub(crate) type Outcome = anyhow::Result<Verdict>;

type Test = (&'static str, fn() -> Outcome);

/// In the order in which they start.
const TESTS: &[Test] = &[
    (
        "lives::seeded_ones_are_dated_and_share_is_known",
        lives::seeded_ones_are_dated_and_share_is_known,
    ),
    (
        "lives::expired_ones_lie_in_the_band",
        lives::expired_ones_lie_in_the_band,
    ),
    ("ends::time_wait_expired", ends::time_wait_expired),
    ("population::equals_ss", population::equals_ss),
    (
        "churn::births_equal_the_counters",
        churn::births_equal_the_counters,
    ),
    (
        "churn::rps_on_both_ends_of_a_veth",
        churn::rps_on_both_ends_of_a_veth,
    ),
    (
        "bystander::stacks_on_the_same_tracepoints",
        bystander::stacks_on_the_same_tracepoints,
    ),
    ("loss::a_ring_of_one_page", loss::a_ring_of_one_page),
    (
        "owners::four_processes_under_foreign_load",
        owners::four_processes_under_foreign_load,
    ),
    ("ends::fin_wait2_expired", ends::fin_wait2_expired),
    ("ends::reused_by_connect", ends::reused_by_connect),
    (
        "ends::reused_by_bound_connect",
        ends::reused_by_bound_connect,
    ),
    (
        "ends::fin_wait2_reused_by_bound_connect",
        ends::fin_wait2_reused_by_bound_connect,
    ),
    ("ends::reused_by_syn", ends::reused_by_syn),
    ("ends::time_wait_reset", ends::time_wait_reset),
    ("ends::fin_wait2_reset", ends::fin_wait2_reset),
    ("ends::data_after_close", ends::data_after_close),
    ("ends::destroyed", ends::destroyed),
    ("ends::netns_exit", ends::netns_exit),
    ("ends::overflow", ends::overflow),
    (
        "ends::no_time_wait_for_an_abort",
        ends::no_time_wait_for_an_abort,
    ),
    ("ends::tproxy", ends::tproxy),
    ("ends::rearmed", ends::rearmed),
    (
        "story::one_connection_is_one_story",
        story::one_connection_is_one_story,
    ),
    (
        "story::reuse_names_the_process",
        story::reuse_names_the_process,
    ),
    ("errors::an_unprivileged_user", errors::an_unprivileged_user),
    ("errors::an_unknown_namespace", errors::an_unknown_namespace),
    ("errors::a_bad_filter", errors::a_bad_filter),
    ("errors::a_closed_pipe", errors::a_closed_pipe),
];

/// Enough for all that only wait, few enough to leave the busy ones their time.
const SIDE_BY_SIDE: usize = 7;

fn main() -> std::process::ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(owners::ROLE) {
        return owners::work();
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let trials = TESTS
        .iter()
        .map(|&(name, test)| {
            Trial::ignorable_test(name, move || match test() {
                Ok(Verdict::Held) => Ok(Completion::Completed),
                Ok(Verdict::Impossible(why)) => Ok(Completion::ignored_with(why)),
                Err(error) => Err(Failed::from(format!("{error:#}"))),
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
