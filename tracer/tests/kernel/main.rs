//! The tracer against the real kernel: real sockets in private network
//! namespaces, and what `ss` and the kernel's counters say of them as the truth.
//!
//! It needs root and fails without. The tests run side by side whatever the
//! number of cores, the ones that wait out 2MSL first, so that those 60 seconds
//! pass once. Started with a role as its first argument it is a helper process
//! of one of the tests instead; as process 1 it is the `/init` of a guest.

mod allowance;
mod apart;
mod bystander;
mod canaries;
mod churn;
mod doctor;
mod ends;
mod errors;
mod facts;
mod filters;
mod findings;
mod guest;
#[path = "../hostile/mod.rs"]
mod hostile;
mod lab;
mod lives;
mod loss;
mod names;
mod netns;
mod owners;
mod population;
mod programs;
mod recording;
mod requests;
mod scale;
mod size;
mod soak;
mod stage;
mod start;
mod story;
mod sysctl_d;
mod sysctls;
mod terminal;
mod truth;
mod twtrace;
mod user;
mod walk;

use std::sync::{PoisonError, RwLock};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a test gives: nothing, or why this host cannot run it, loudly.
pub(crate) enum Verdict {
    Held,
    Impossible(String),
}

pub(crate) type Outcome = anyhow::Result<Verdict>;

/// What a test wants of the tests beside it. Programs of all tracers run on all
/// events of the machine, so one test's load is another's disturbance.
#[derive(Clone, Copy)]
enum Room {
    /// Whatever the others do.
    Any,
    /// No test that loads the machine.
    Calm,
    /// Loads the machine: no other but those that wait.
    Alone,
}

type Test = (&'static str, Room, fn() -> Outcome);

/// In the order in which they start.
const TESTS: &[Test] = &[
    (
        "lives::seeded_ones_are_dated_and_share_is_known",
        Room::Any,
        lives::seeded_ones_are_dated_and_share_is_known,
    ),
    (
        "lives::expired_ones_lie_in_the_band",
        Room::Any,
        lives::expired_ones_lie_in_the_band,
    ),
    ("findings::slow_scenes", Room::Any, findings::slow_scenes),
    ("findings::quick_scenes", Room::Any, findings::quick_scenes),
    (
        "findings::at_the_first_snapshot",
        Room::Any,
        findings::at_the_first_snapshot,
    ),
    (
        "findings::a_run_waits_for_conditions",
        Room::Any,
        findings::a_run_waits_for_conditions,
    ),
    ("canaries::expiries_dropped", Room::Any, || {
        canaries::notice("expiries_dropped")
    }),
    (
        "ends::time_wait_expired",
        Room::Any,
        ends::time_wait_expired,
    ),
    (
        "requests::retransmitted_and_given_up",
        Room::Any,
        requests::retransmitted_and_given_up,
    ),
    (
        "requests::hundreds_over_ipv4",
        Room::Any,
        requests::hundreds_over_ipv4,
    ),
    (
        "requests::hundreds_over_ipv6",
        Room::Any,
        requests::hundreds_over_ipv6,
    ),
    (
        "filters::others_are_left_out_in_the_kernel",
        Room::Calm,
        filters::others_are_left_out_in_the_kernel,
    ),
    ("population::equals_ss", Room::Calm, population::equals_ss),
    ("walk::equals_ss", Room::Calm, walk::equals_ss),
    (
        "walk::sysctls_are_those_of_proc",
        Room::Any,
        walk::sysctls_are_those_of_proc,
    ),
    (
        "walk::nothing_is_missed_beside_churn",
        Room::Alone,
        walk::nothing_is_missed_beside_churn,
    ),
    (
        "walk::owners_of_what_is_there",
        Room::Alone,
        walk::owners_of_what_is_there,
    ),
    (
        "walk::owners_share_a_socket",
        Room::Any,
        walk::owners_share_a_socket,
    ),
    (
        "walk::owners_behind_one_that_ends",
        Room::Any,
        walk::owners_behind_one_that_ends,
    ),
    (
        "walk::owners_beside_churn",
        Room::Alone,
        walk::owners_beside_churn,
    ),
    (
        "churn::births_equal_the_counters",
        Room::Alone,
        churn::births_equal_the_counters,
    ),
    (
        "churn::closers_that_are_preempted_and_moved",
        Room::Alone,
        churn::closers_that_are_preempted_and_moved,
    ),
    (
        "churn::rps_on_both_ends_of_a_veth",
        Room::Alone,
        churn::rps_on_both_ends_of_a_veth,
    ),
    (
        "bystander::stacks_on_the_same_tracepoints",
        Room::Alone,
        bystander::stacks_on_the_same_tracepoints,
    ),
    (
        "bystander::ends_keep_their_reasons",
        Room::Alone,
        bystander::ends_keep_their_reasons,
    ),
    (
        "loss::a_ring_of_one_page",
        Room::Alone,
        loss::a_ring_of_one_page,
    ),
    (
        "soak::counts_and_memory",
        Room::Alone,
        soak::counts_and_memory,
    ),
    (
        "owners::four_processes_under_foreign_load",
        Room::Alone,
        owners::four_processes_under_foreign_load,
    ),
    (
        "owners::one_process_alone",
        Room::Alone,
        owners::one_process_alone,
    ),
    ("canaries::births_dropped", Room::Alone, || {
        canaries::notice("births_dropped")
    }),
    ("canaries::ends_dropped", Room::Alone, || {
        canaries::notice("ends_dropped")
    }),
    ("canaries::transitions_dropped", Room::Alone, || {
        canaries::notice("transitions_dropped")
    }),
    ("canaries::births_twice", Room::Alone, || {
        canaries::notice("births_twice")
    }),
    ("canaries::records_swapped", Room::Alone, || {
        canaries::notice("records_swapped")
    }),
    ("canaries::no_fault", Room::Alone, || {
        canaries::notice("no_fault")
    }),
    (
        "ends::fin_wait2_expired",
        Room::Calm,
        ends::fin_wait2_expired,
    ),
    (
        "ends::reused_by_connect",
        Room::Calm,
        ends::reused_by_connect,
    ),
    (
        "ends::reused_by_bound_connect",
        Room::Calm,
        ends::reused_by_bound_connect,
    ),
    (
        "ends::fin_wait2_reused_by_bound_connect",
        Room::Calm,
        ends::fin_wait2_reused_by_bound_connect,
    ),
    (
        "ends::every_reuse_is_an_end",
        Room::Alone,
        ends::every_reuse_is_an_end,
    ),
    ("ends::reused_by_syn", Room::Calm, ends::reused_by_syn),
    ("ends::time_wait_reset", Room::Calm, ends::time_wait_reset),
    ("ends::fin_wait2_reset", Room::Calm, ends::fin_wait2_reset),
    ("ends::data_after_close", Room::Calm, ends::data_after_close),
    ("ends::destroyed", Room::Calm, ends::destroyed),
    ("ends::netns_exit", Room::Calm, ends::netns_exit),
    ("ends::overflow", Room::Calm, ends::overflow),
    (
        "ends::no_time_wait_for_an_abort",
        Room::Calm,
        ends::no_time_wait_for_an_abort,
    ),
    ("ends::tproxy", Room::Calm, ends::tproxy),
    ("ends::rearmed", Room::Calm, ends::rearmed),
    (
        "doctor::self_test_holds",
        Room::Calm,
        doctor::self_test_holds,
    ),
    (
        "doctor::tells_ports_and_beliefs",
        Room::Calm,
        doctor::tells_ports_and_beliefs,
    ),
    (
        "sysctl_d::systemd_sets_what_is_foretold",
        Room::Any,
        sysctl_d::systemd_sets_what_is_foretold,
    ),
    (
        "sysctl_d::procps_sets_what_is_foretold",
        Room::Any,
        sysctl_d::procps_sets_what_is_foretold,
    ),
    (
        "story::one_connection_is_one_story",
        Room::Calm,
        story::one_connection_is_one_story,
    ),
    (
        "story::each_step_follows_the_last",
        Room::Alone,
        story::each_step_follows_the_last,
    ),
    (
        "story::reuse_names_the_process",
        Room::Calm,
        story::reuse_names_the_process,
    ),
    (
        "recording::frames_add_up_to_the_snapshot",
        Room::Calm,
        recording::frames_add_up_to_the_snapshot,
    ),
    (
        "recording::holds_what_the_kernel_counted",
        Room::Calm,
        recording::holds_what_the_kernel_counted,
    ),
    (
        "recording::an_interrupted_one_is_whole",
        Room::Calm,
        recording::an_interrupted_one_is_whole,
    ),
    (
        "recording::a_command_that_is_not_there_is_told",
        Room::Calm,
        recording::a_command_that_is_not_there_is_told,
    ),
    (
        "user::a_command_runs_as_who_called_sudo_or_as_asked",
        Room::Calm,
        user::a_command_runs_as_who_called_sudo_or_as_asked,
    ),
    ("lab::nothing_remains", Room::Calm, lab::nothing_remains),
    (
        "lab::the_load_has_its_shape",
        Room::Calm,
        lab::the_load_has_its_shape,
    ),
    (
        "lab::a_trial_finds_what_differs",
        Room::Calm,
        lab::a_trial_finds_what_differs,
    ),
    (
        "lab::what_cannot_be_is_said_first",
        Room::Any,
        lab::what_cannot_be_is_said_first,
    ),
    (
        "sysctls::rfc1337_lets_no_reset_end_a_time_wait",
        Room::Calm,
        sysctls::rfc1337_lets_no_reset_end_a_time_wait,
    ),
    (
        "sysctls::fin_timeout_sets_the_orphans_wait_and_no_other",
        Room::Any,
        sysctls::fin_timeout_sets_the_orphans_wait_and_no_other,
    ),
    (
        "sysctls::syncookies_have_no_part_in_time_wait",
        Room::Any,
        sysctls::syncookies_have_no_part_in_time_wait,
    ),
    (
        "sysctls::ports_are_counted_per_destination_unless_bound",
        Room::Any,
        sysctls::ports_are_counted_per_destination_unless_bound,
    ),
    (
        "sysctls::somaxconn_waits_for_listen",
        Room::Any,
        sysctls::somaxconn_waits_for_listen,
    ),
    (
        "sysctls::ip_forward_is_not_undone_by_putting_it_back",
        Room::Any,
        sysctls::ip_forward_is_not_undone_by_putting_it_back,
    ),
    (
        "sysctls::a_new_namespace_begins_with_the_defaults",
        Room::Any,
        sysctls::a_new_namespace_begins_with_the_defaults,
    ),
    (
        "sysctls::values_that_are_refused",
        Room::Any,
        sysctls::values_that_are_refused,
    ),
    ("sysctls::what_is_gone", Room::Any, sysctls::what_is_gone),
    (
        "sysctls::what_is_gone_stops_no_other_line",
        Room::Any,
        sysctls::what_is_gone_stops_no_other_line,
    ),
    (
        "sysctls::what_belongs_to_the_machine",
        Room::Any,
        sysctls::what_belongs_to_the_machine,
    ),
    (
        "apart::what_is_held_outside_is_counted",
        Room::Calm,
        apart::what_is_held_outside_is_counted,
    ),
    (
        "apart::nobody_counts_every_namespace",
        Room::Calm,
        apart::nobody_counts_every_namespace,
    ),
    (
        "apart::processes_go_by_the_numbers_in_there",
        Room::Calm,
        apart::processes_go_by_the_numbers_in_there,
    ),
    (
        "apart::another_clock_moves_no_event",
        Room::Calm,
        apart::another_clock_moves_no_event,
    ),
    (
        "facts::a_change_is_shown_within_two_seconds",
        Room::Calm,
        facts::a_change_is_shown_within_two_seconds,
    ),
    (
        "facts::ports_that_ran_out_are_read_anew_at_once",
        Room::Calm,
        facts::ports_that_ran_out_are_read_anew_at_once,
    ),
    (
        "start::wrong_facts_are_refused",
        Room::Calm,
        start::wrong_facts_are_refused,
    ),
    (
        "start::what_is_never_seen_is_refused",
        Room::Calm,
        start::what_is_never_seen_is_refused,
    ),
    (
        "start::a_refusal_says_what_was_not_seen",
        Room::Any,
        start::a_refusal_says_what_was_not_seen,
    ),
    (
        "start::nothing_of_it_remains",
        Room::Alone,
        start::nothing_of_it_remains,
    ),
    (
        "start::where_it_cannot_it_says_so",
        Room::Any,
        start::where_it_cannot_it_says_so,
    ),
    (
        "errors::an_unprivileged_user",
        Room::Any,
        errors::an_unprivileged_user,
    ),
    (
        "errors::an_unknown_namespace",
        Room::Any,
        errors::an_unknown_namespace,
    ),
    ("errors::a_bad_filter", Room::Any, errors::a_bad_filter),
    ("errors::a_closed_pipe", Room::Any, errors::a_closed_pipe),
    (
        "errors::a_stalled_reader",
        Room::Calm,
        errors::a_stalled_reader,
    ),
    (
        "terminal::keeps_its_cursor",
        Room::Calm,
        terminal::keeps_its_cursor,
    ),
    (
        "names::of_others_do_not_steer_the_terminal",
        Room::Alone,
        names::of_others_do_not_steer_the_terminal,
    ),
    ("netns::an_end_is_told", Room::Any, netns::an_end_is_told),
    (
        "netns::a_number_that_is_used_again",
        Room::Alone,
        netns::a_number_that_is_used_again,
    ),
    ("size::of_a_day", Room::Alone, size::of_a_day),
];

/// What only runs when asked for by its environment.
const ON_DEMAND: (&str, Test) = (
    scale::WANTED,
    ("scale::a_crowd", Room::Alone, scale::a_crowd),
);

/// Held shared by the calm, exclusively by those alone.
static MACHINE: RwLock<()> = RwLock::new(());

fn in_its_room(room: Room, test: fn() -> Outcome) -> Outcome {
    let test = || {
        allowance::begin()?;
        test()
    };
    // A test that panicked has left nothing behind that concerns another.
    match room {
        Room::Any => test(),
        Room::Calm => {
            let _calm = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
            test()
        }
        Room::Alone => {
            let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
            test()
        }
    }
}

/// What the environment asks of a test: more than it does among the others.
pub(crate) fn number(name: &str) -> anyhow::Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) => {
            let number = text.parse();
            Ok(Some(
                number.with_context(|| format!("{name}={text} is no number"))?,
            ))
        }
        Err(_) => Ok(None),
    }
}

/// Enough for all that only wait, few enough to leave the busy ones their time.
const SIDE_BY_SIDE: usize = 9;

fn main() -> std::process::ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(owners::ROLE) => return owners::work(),
        Some(canaries::ROLE) => return canaries::be_twtrace(),
        // Process 1 of its PID namespace, and of no machine.
        Some(apart::ROLE) => return apart::hold(words.next().is_some()),
        Some(names::EVIL) => return names::churn(words),
        Some(names::NAMED) => return names::named(std::env::args_os().skip(2)),
        Some(walk::HOLD) => return walk::hold(words.next().as_deref()),
        Some(walk::ROLE) => return walk::work(words.next().as_deref()),
        _ if guest::is_guest() => guest::be_init(),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let (wanted, crowd) = &ON_DEMAND;
    let trials = TESTS
        .iter()
        .chain(std::env::var_os(wanted).map(|_| crowd))
        .map(|&(name, room, test)| {
            Trial::ignorable_test(name, move || match in_its_room(room, test) {
                Ok(Verdict::Held) => Ok(Completion::Completed),
                Ok(Verdict::Impossible(why)) => Ok(Completion::ignored_with(why)),
                Err(error) => match error.downcast_ref::<programs::Absent>() {
                    Some(absent) => Ok(Completion::ignored_with(absent.to_string())),
                    None => Err(Failed::from(format!("{error:#}"))),
                },
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
