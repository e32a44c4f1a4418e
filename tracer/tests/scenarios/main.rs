//! The ledger by scenarios: what happens to sockets, line by line, and what
//! must come of it. `script.rs` says how to read them.

#[path = "../identities/mod.rs"]
mod identities;
mod population;
mod processes;
mod properties;
mod recording;
mod resync;
mod script;
#[path = "../strict/mod.rs"]
mod strict;
mod truth;
mod world;

use script::run;

#[test]
fn an_active_close_through_time_wait() {
    run("
        0.0   process 7 curl cgroup=5
        1.0   step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        > A CLOSED->SYN_SENT client by 7
        1.002 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        > A SYN_SENT->ESTABLISHED client by 7
        = connect_latency_s.max 0.002
        2.0   step A ESTABLISHED FIN_WAIT1 pid=7
        > A ESTABLISHED->FIN_WAIT1 client by 7
        2.1   step A FIN_WAIT1 FIN_WAIT2
        > A FIN_WAIT1->FIN_WAIT2 client by 7
        2.2   birth A t TIME_WAIT
        > A FIN_WAIT2->TIME_WAIT client by 7
        > A starts TIME_WAIT 60s client by 7
        = states.TIME_WAIT.now 1
        = states.FIN_WAIT2.now 0
        = time_wait.side.client 1
        = time_wait.timer.nominal_s 60
        = time_wait.timer.slack_s 2.048
        62.9  end t TIME_WAIT expired until=62.2
        > A ends TIME_WAIT expired after 60.700s client by 7
        = time_wait.now 0
        = time_wait.ended.expired 1
        = time_wait.lifetime_s.count 1
        = time_wait.lifetime_s.max 60.7
        = time_wait.lifetime_s.buckets.8.ge 60
        = time_wait.lifetime_s.buckets.8.count 1
        = closes.via_time_wait 1
        = owners.0.comm curl
        = owners.0.cgroup /cg5
        = owners.0.time_wait_entered 1
        = remotes.0.addr 10.0.0.9
        = in_state_s.ESTABLISHED.max 0.998
        = lost.unseen 0
        ? doubts none
    ");
}

#[test]
fn an_orphan_steps_in_silence_and_is_dated_by_its_expiry() {
    run("
        1.0  step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.1  step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        2.0  step A ESTABLISHED FIN_WAIT1 pid=7
        2.1  step A FIN_WAIT1 FIN_WAIT2
        2.1  birth A t FIN_WAIT2 until=62.1
        = states.FIN_WAIT2.now 1
        = states.FIN_WAIT2.entered 1
        = fin_wait2_orphan.now 1
        2.3  read t FIN_WAIT2 until=62.1
        = fin_wait2_orphan.became_time_wait 0
        3.0  read t TIME_WAIT until=62.5
        = fin_wait2_orphan.became_time_wait 1
        = fin_wait2_orphan.now 0
        = fin_wait2_orphan.lifetime_s.max 0.4
        = states.FIN_WAIT2.left 1
        = states.TIME_WAIT.now 1
        = time_wait.rearmed 0
        63.0 end t TIME_WAIT expired until=62.5
        = time_wait.lifetime_s.max 60.5
        = owners.0.time_wait_entered 1
        = owners.0.pid 7
    ");
}

#[test]
fn the_silent_step_is_still_found_at_the_end() {
    run("
        1.0 step A LISTEN SYN_RECV 10.0.0.1:80-10.0.0.9:5000
        > A LISTEN->SYN_RECV server
        1.0 step A SYN_RECV ESTABLISHED
        > A SYN_RECV->ESTABLISHED server
        2.0 step A ESTABLISHED FIN_WAIT1 pid=9
        > A ESTABLISHED->FIN_WAIT1 server by 9
        2.0 step A FIN_WAIT1 FIN_WAIT2
        > A FIN_WAIT1->FIN_WAIT2 server by 9
        2.0 birth A t FIN_WAIT2
        > A starts FIN_WAIT2 60s server by 9
        9.0 end t TIME_WAIT reset until=62.4
        > A FIN_WAIT2->TIME_WAIT server by 9
        > A ends TIME_WAIT reset after 6.600s server by 9
        = time_wait.ended.reset 1
        = time_wait.entered 1
        = fin_wait2_orphan.became_time_wait 1
        = time_wait.lifetime_by_reason_s.reset.count 1
    ");
}

#[test]
fn rearms_are_counted_and_do_not_restart_the_life() {
    run("
        1.0  step A ESTABLISHED FIN_WAIT1 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.1  step A FIN_WAIT1 FIN_WAIT2
        1.2  birth A t TIME_WAIT
        9.0  rearm t TIME_WAIT
        20.0 rearm t TIME_WAIT
        = time_wait.rearmed 2
        # A third of which no tracepoint told, seen by what the timer was set to.
        82.0 end t TIME_WAIT expired until=81.0
        = time_wait.rearmed 3
        = time_wait.lifetime_s.max 80.8
        = states.ESTABLISHED.seeded 1
    ");
}

#[test]
fn each_end_has_its_reason() {
    for (reason, time_wait, orphan) in [
        ("expired", "expired", "expired"),
        ("connect", "reused_by_connect", "reused_by_connect"),
        (
            "bound",
            "reused_by_bound_connect",
            "reused_by_bound_connect",
        ),
        ("received", "reused_by_syn", "data_after_close"),
        ("reset", "reset", "reset"),
        ("destroyed", "destroyed", "destroyed"),
        ("netns", "netns_exit", "netns_exit"),
        ("tproxy", "tproxy", "tproxy"),
        ("unknown", "unknown", "unknown"),
    ] {
        run(&format!(
            "
            1.0 birth A t TIME_WAIT
            1.0 birth B u FIN_WAIT2
            2.0 end t TIME_WAIT {reason} until=61.0
            2.0 end u FIN_WAIT2 {reason} until=61.0
            = time_wait.ended.{time_wait} 1
            = fin_wait2_orphan.ended.{orphan} 1
            = states.TIME_WAIT.left 1
            = states.FIN_WAIT2.left 2
            = fin_wait2_orphan.now 0
            "
        ));
    }
}

#[test]
fn closes_that_never_wait() {
    for (from, options, counter) in [
        ("LAST_ACK", "", "passive"),
        ("LAST_ACK", "err=104", "straight_to_closed.reset"),
        ("ESTABLISHED", "err=104", "straight_to_closed.reset"),
        ("CLOSE_WAIT", "err=32", "straight_to_closed.reset"),
        ("ESTABLISHED", "", "straight_to_closed.aborted"),
        ("FIN_WAIT2", "linger2<0", "straight_to_closed.aborted"),
        ("FIN_WAIT1", "err=103", "straight_to_closed.aborted"),
        ("FIN_WAIT1", "err=110", "straight_to_closed.other"),
        ("SYN_RECV", "err=104", "straight_to_closed.reset"),
        ("SYN_RECV", "", "straight_to_closed.other"),
    ] {
        run(&format!(
            "
            1.0 step A {from} CLOSE 10.0.0.1:0-10.0.0.9:443 {options}
            = closes.{counter} 1
            = states.{from}.now 0
            "
        ));
    }
}

#[test]
fn a_connect_without_a_port_tells_where_to_and_when() {
    run("
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        2.0 step A SYN_SENT CLOSE
        = last_without_port.remote_port 443
        = last_without_port.remote \"10.0.0.9\"
        ");
}

#[test]
fn connects_that_fail() {
    for (line, kind) in [
        ("1.0001 step A SYN_SENT CLOSE", "ports_exhausted"),
        // A search through 28,232 taken ports takes its time.
        ("1.5    step A SYN_SENT CLOSE", "ports_exhausted"),
        (
            "1.0001 step A SYN_SENT CLOSE 10.0.0.1:4000-10.0.0.9:443",
            "abandoned",
        ),
        ("1.0001 step A SYN_SENT CLOSE err=111", "refused"),
        ("9.0    step A SYN_SENT CLOSE err=110", "timed_out"),
        ("9.0    step A SYN_SENT CLOSE err=113", "unreachable"),
        ("9.0    step A SYN_SENT CLOSE err=101", "unreachable"),
        ("9.0    step A SYN_SENT CLOSE err=13", "other"),
    ] {
        run(&format!(
            "
            1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
            {line}
            = connect_failures.{kind} 1
            = closes.straight_to_closed.other 0
            = states.SYN_SENT.now 0
            "
        ));
    }
}

#[test]
fn a_listener_stays_when_its_child_steps_and_its_close_is_no_close() {
    run("
        1.0 step L CLOSE LISTEN 0.0.0.0:80-0.0.0.0:0 pid=3
        2.0 step A LISTEN SYN_RECV 10.0.0.1:80-10.0.0.9:5000
        2.0 step A SYN_RECV ESTABLISHED
        = states.LISTEN.now 1
        = states.ESTABLISHED.now 1
        3.0 step L LISTEN CLOSE
        = states.LISTEN.now 0
        = closes.passive 0
        = closes.straight_to_closed.aborted 0
        = transitions.2.from LISTEN
    ");
}

#[test]
fn a_child_has_its_namespace_before_its_addresses() {
    run("
        1.0 step A LISTEN SYN_RECV 0.0.0.0:0-0.0.0.0:0
        = namespaces.0.states.SYN_RECV.now 1
        1.0 step A SYN_RECV ESTABLISHED 10.0.0.1:80-10.0.0.9:5000
        2.0 step A ESTABLISHED FIN_WAIT1 pid=9
        2.1 step A FIN_WAIT1 FIN_WAIT2
        2.2 birth A t TIME_WAIT
        = time_wait.side.server 1
        = remotes.0.addr 10.0.0.9
        = namespaces.0.states.TIME_WAIT.now 1
        ? doubts none
    ");
}

#[test]
fn a_full_table_is_told_from_an_abort() {
    run("
        # So small a table is full at any time.
        0.0 facts first=32768 last=60999 max_tw=8
        1.0 counters overflowed=100
        1.5 step A FIN_WAIT2 CLOSE 10.0.0.1:40000-10.0.0.9:443
        = closes.straight_to_closed.overflow 1
        = closes.straight_to_closed.aborted 0
        2.0 counters overflowed=100
        = closes.straight_to_closed.overflow 0
        = closes.straight_to_closed.aborted 1
        2.4 facts first=32768 last=60999 max_tw=100
        2.5 step B FIN_WAIT2 CLOSE 10.0.0.1:40001-10.0.0.9:443
        = closes.straight_to_closed.aborted 2
        3.0 counters overflowed=101
        = closes.straight_to_closed.overflow 1
        = closes.straight_to_closed.aborted 1
        = time_wait.overflowed 1
    ");
}

#[test]
fn an_mptcp_step_to_the_same_state_is_none() {
    run("
        1.0 step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT SYN_SENT
        = states.SYN_SENT.entered 1
        = states.SYN_SENT.now 1
        ? doubts none
    ");
}

#[test]
fn a_birth_and_an_end_told_twice_count_once() {
    run("
        1.0     step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        1.1     step A SYN_SENT ESTABLISHED
        2.0     step A ESTABLISHED FIN_WAIT1 pid=7
        2.1     step A FIN_WAIT1 FIN_WAIT2
        2.2     birth A t TIME_WAIT
        2.20001 birth A t TIME_WAIT
        2.20002 step A FIN_WAIT2 CLOSE
        = states.TIME_WAIT.entered 1
        = states.ESTABLISHED.entered 1
        = states.FIN_WAIT2.seeded 0
        = closes.straight_to_closed.aborted 0
        3.0     end t TIME_WAIT reset until=62.2
        3.00001 end t TIME_WAIT reset until=62.2
        = time_wait.ended.reset 1
        = time_wait.seeded 0
        ? doubts none
    ");
}

#[test]
fn a_birth_joins_the_close_that_follows() {
    run("
        1.0     step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.1     step A SYN_SENT ESTABLISHED 10.0.0.1:4000-10.0.0.9:443
        2.0     step A ESTABLISHED FIN_WAIT1 pid=7
        2.1     step A FIN_WAIT1 FIN_WAIT2
        2.2     birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        2.20001 step A FIN_WAIT2 CLOSE 10.0.0.1:0-10.0.0.9:443
        = states.TIME_WAIT.now 1
        = states.FIN_WAIT2.now 0
        = closes.straight_to_closed.aborted 0
        = owners.0.pid 7
        = time_wait.side.client 1
        62.9    end t TIME_WAIT expired until=62.2
        = time_wait.lifetime_s.max 60.7
        ? doubts none
    ");
}

#[test]
fn a_birth_joins_the_close_that_came_before() {
    run("
        1.0     step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.1     step A SYN_SENT ESTABLISHED 10.0.0.1:4000-10.0.0.9:443
        2.0     step A ESTABLISHED FIN_WAIT1 pid=7
        2.1     step A FIN_WAIT1 FIN_WAIT2
        2.20001 step A FIN_WAIT2 CLOSE 10.0.0.1:0-10.0.0.9:443
        = closes.straight_to_closed.aborted 1
        2.2     birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        = closes.straight_to_closed.aborted 0
        = states.TIME_WAIT.now 1
        = time_wait.side.client 1
        = transitions.3.from FIN_WAIT2
        = transitions.3.to TIME_WAIT
        = transitions.3.count 1
        = owners.0.pid 7
        62.9    end t TIME_WAIT expired until=62.2
        = time_wait.ended.expired 1
        = states.TIME_WAIT.now 0
    ");
}

#[test]
fn a_birth_is_not_joined_with_a_close_of_a_forgotten_namespace() {
    run("
        1.0 step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443
        1.1 step A SYN_SENT ESTABLISHED 10.0.0.1:4000-10.0.0.9:443
        2.0 step A ESTABLISHED FIN_WAIT1
        2.1 step A FIN_WAIT1 FIN_WAIT2
        2.2 step A FIN_WAIT2 CLOSE
        # Nothing came of this namespace for longer than it is remembered.
        400 pass
        = closes.straight_to_closed.aborted 1
        401 birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        = states.TIME_WAIT.now 1
        = closes.straight_to_closed.aborted 1
    ");
}

#[test]
fn a_birth_whose_close_was_lost_takes_its_socket_along() {
    run("
        1.0 step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED
        2.0 step A ESTABLISHED FIN_WAIT1 pid=7
        2.1 step A FIN_WAIT1 FIN_WAIT2
        2.2 birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        3.0 pass
        = states.TIME_WAIT.now 1
        = states.FIN_WAIT2.now 0
        = owners.0.pid 7
    ");
}

#[test]
fn a_birth_of_an_unknown_socket_begins_its_story() {
    run("
        2.2 birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        2.3 end t TIME_WAIT reset until=62.2
        > A FIN_WAIT2->TIME_WAIT
        > A starts TIME_WAIT 60s
        > A ends TIME_WAIT reset after 0.100s
        = time_wait.entered 1
        = time_wait.ended.reset 1
    ");
}

#[test]
fn an_unseen_step_is_mended_and_told() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        2.0 step A ESTABLISHED FIN_WAIT1 pid=7
        = states.SYN_SENT.now 0
        = states.ESTABLISHED.now 0
        = states.FIN_WAIT1.now 1
        = lost.unseen 1
        = exactness approximate
        ? doubts 1 transitions did not follow
    ");
}

#[test]
fn a_namespace_of_half_open_requests_alone_is_remembered() {
    run("
        0.0 half-open now=2
        # Longer than one that is empty would be.
        400 pass
        = states.SYN_RECV.now 2
        400 half-open now=1
        401 pass
        = states.SYN_RECV.now 1
        = states.SYN_RECV.left 1
    ");
}

#[test]
fn half_open_requests_are_a_gauge_inside_syn_recv() {
    run("
        0.0 begin
        0.1 half-open now=2
        0.2 end-seed
        1.0 half-open now=5
        1.1 step A LISTEN SYN_RECV 10.0.0.1:80-10.0.0.9:5000
        = states.SYN_RECV.now 6
        = states.SYN_RECV.seeded 2
        = namespaces.0.states.SYN_RECV.now 6
        ? doubts none
    ");
}

#[test]
fn kernel_threads_own_nothing_and_the_opener_stands_in() {
    run("
        0.0 process 7 curl
        0.0 process 30 kworker kthread
        1.0 step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED
        2.0 step A ESTABLISHED FIN_WAIT1 pid=30
        2.1 step A FIN_WAIT1 FIN_WAIT2
        2.2 birth A t TIME_WAIT
        = owners.0.pid 7
    ");
}
