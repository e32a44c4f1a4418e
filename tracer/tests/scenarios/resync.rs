//! Seeds, losses, resyncs and witnesses.

use std::collections::HashSet;

use tracer::model::filter::Filter;

use super::script::{run, run_filtered};

#[test]
fn a_seed_counts_what_was_there_and_dates_time_wait_by_its_last_arm() {
    run("
        1.0  begin
        1.1  seed L LISTEN 0.0.0.0:80-0.0.0.0:0
        1.1  seed A ESTABLISHED 10.0.0.1:80-10.0.0.9:5000
        1.1  seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=41.0
        1.1  facts first=32768 last=60999
        1.2  end-seed
        = states.LISTEN.seeded 1
        = states.ESTABLISHED.now 1
        = time_wait.seeded 1
        = time_wait.side.client 1
        = ports.0.used 1
        = ports.0.time_wait 1
        = ports.0.connects_per_s 0
        = exactness exact
        41.5 end t TIME_WAIT expired until=41.0
        > t ends TIME_WAIT expired 60.500s since armed client
        = time_wait.ended_seeded 1
        = time_wait.lifetime_s.count 0
        = time_wait.ended.expired 1
    ");
}

#[test]
fn events_from_before_a_seed_are_reflected_in_it() {
    run("
        1.0 begin
        1.5 seed A FIN_WAIT2 10.0.0.1:40000-10.0.0.9:443
        1.6 end-seed
        # They happened between the attach and the seed, and come after it.
        1.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        1.2 step A ESTABLISHED FIN_WAIT1 pid=7
        1.3 step A FIN_WAIT1 FIN_WAIT2
        = states.FIN_WAIT2.seeded 1
        = states.FIN_WAIT2.entered 0
        = states.FIN_WAIT1.seeded 0
        1.9 birth A t TIME_WAIT
        = owners.0.pid 7
        = in_state_s.FIN_WAIT2.max 0.6
        = states.TIME_WAIT.entered 1
        = lost.unseen 0
        = exactness exact
    ");
}

#[test]
fn events_after_a_seed_go_on_from_it() {
    run("
        1.0    begin
        1.1    seed A ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        1.2    end-seed
        1.1005 step A ESTABLISHED FIN_WAIT1 pid=7
        1.15   step A FIN_WAIT1 FIN_WAIT2
        = states.ESTABLISHED.seeded 1
        = states.ESTABLISHED.left 1
        = states.FIN_WAIT2.now 1
        = lost.unseen 0
    ");
}

#[test]
fn a_socket_that_ends_during_the_seed_is_no_socket_twice() {
    run("
        1.0  begin
        1.05 end t TIME_WAIT reset until=30.0
        1.06 step B ESTABLISHED CLOSE err=104
        # Both were read just before, and told just after.
        1.04 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=30.0
        1.04 seed B ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        1.2  end-seed
        = time_wait.now 0
        = time_wait.seeded 1
        = states.ESTABLISHED.seeded 1
        = states.ESTABLISHED.now 0
    ");
}

#[test]
fn an_end_that_comes_late_still_ends_what_was_seeded() {
    run("
        1.0  begin
        1.05 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=30.0
        1.2  end-seed
        1.04 end t TIME_WAIT reset until=30.0
        = time_wait.now 0
        = time_wait.ended.reset 1
        = time_wait.ended_seeded 1
    ");
}

/// The slab gives the addresses of those that expire to those that are born: what
/// a start finds at one may have come after the end that is still on its way.
#[test]
fn an_end_before_the_seed_is_no_death_of_who_was_found_there() {
    let tuple = |n: usize| format!("10.0.0.1:{}-10.0.0.9:443", 40_000 + n);
    let all = |line: &dyn Fn(usize) -> String| (0..300).map(|n| line(n) + "\n").collect::<String>();
    let script = [
        "1.0 begin\n".to_owned(),
        all(&|n| format!("1.1 seed t{n} TIME_WAIT {} until=61.05", tuple(n))),
        "1.2 end-seed\n".to_owned(),
        all(&|n| format!("1.02 end t{n} TIME_WAIT expired until=0.9 of=old{n}")),
        all(&|n| format!("1.05 birth A{n} t{n} TIME_WAIT {}", tuple(n))),
        "= time_wait.now 300\n".to_owned(),
        all(&|n| format!("61.5 end t{n} TIME_WAIT expired until=61.05")),
        "= time_wait.life_table.reaches_2msl.share 1\n".to_owned(),
    ];
    run(&script.concat());
}

#[test]
fn one_whose_addresses_and_birth_were_lost_waits_where_it_is_found() {
    run("
        0.1 begin
        0.1 end-seed
        # Its first steps are lost, and so is its birth.
        1.0 step A ESTABLISHED FIN_WAIT1
        1.1 step A FIN_WAIT1 FIN_WAIT2
        1.2 lost ring=3
        2.0 begin
        2.0 seed t TIME_WAIT 10.0.0.1:80-10.0.0.9:5000 of=A until=61.2
        2.0 end-seed
        2.1 pass
        = namespaces.0.states.TIME_WAIT.now 1
        = states.TIME_WAIT.now 1
    ");
}

#[test]
fn a_reading_older_than_a_birth_says_nothing_of_it() {
    run("
        1.0  birth A t TIME_WAIT
        2.0  end t TIME_WAIT reset until=61.0
        2.1  birth B t FIN_WAIT2 until=62.1
        1.9  read t TIME_WAIT until=61.0 of=A
        = states.FIN_WAIT2.now 1
        = states.TIME_WAIT.now 0
        = fin_wait2_orphan.became_time_wait 0
    ");
}

#[test]
fn a_socket_met_before_and_after_its_birth_is_one() {
    run("
        1.0  begin
        1.05 seed A FIN_WAIT2 10.0.0.1:40000-10.0.0.9:443
        1.15 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=61.1
        1.2  end-seed
        1.1  birth A t TIME_WAIT
        = states.TIME_WAIT.now 1
        = states.TIME_WAIT.seeded 0
        = states.TIME_WAIT.entered 1
        = states.FIN_WAIT2.now 0
        61.5 end t TIME_WAIT expired until=61.1
        = time_wait.lifetime_s.max 60.4
    ");
}

#[test]
fn a_loss_is_approximate_until_a_resync_puts_it_right() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED
        1.2 step B CLOSE SYN_SENT 10.0.0.1:40001-10.0.0.9:443 pid=7
        2.0 lost ring=3
        ? doubts 3 for want of room in the ring
        = exactness approximate
        2.1 begin
        2.2 seed A FIN_WAIT1 10.0.0.1:40000-10.0.0.9:443
        2.2 seed C ESTABLISHED 10.0.0.1:80-10.0.0.9:5000
        2.2 seed t TIME_WAIT 10.0.0.1:40009-10.0.0.9:443 until=61.0
        2.3 end-seed
        = states.FIN_WAIT1.now 1
        = states.ESTABLISHED.now 1
        = states.SYN_SENT.now 0
        = states.TIME_WAIT.now 1
        = states.TIME_WAIT.seeded 0
        = exactness exact
        = resyncs 1
        # The ring's counter told of it: nothing went unseen.
        = lost.unseen 0
        ? doubts none
        61.5 end t TIME_WAIT expired until=61.0
        = time_wait.ended_seeded 1
        = time_wait.lifetime_s.count 0
    ");
}

#[test]
fn sockets_of_a_namespace_that_could_not_be_read_are_left_as_they_were() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED
        2.0 lost ring=3
        2.1 begin
        2.1 passed-over
        2.3 end-seed
        = states.ESTABLISHED.now 1
        ? doubts none
        # The next one reads it, and it is gone.
        3.0 lost ring=4
        3.1 begin
        3.3 end-seed
        = states.ESTABLISHED.now 0
    ");
}

#[test]
fn a_step_that_does_not_follow_is_explained_by_a_loss_told_after_it() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        2.0 step A ESTABLISHED FIN_WAIT1 pid=7
        2.1 lost ring=1
        = states.FIN_WAIT1.now 1
        = lost.ring 1
        = lost.unseen 0
        = exactness approximate
    ");
}

#[test]
fn a_birth_is_never_taken_for_another_sockets() {
    run("
        0.0 begin
        0.0 facts first=32768 last=60999
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.0 step A SYN_SENT ESTABLISHED
        1.0 step A ESTABLISHED FIN_WAIT1 pid=7
        1.0 step A FIN_WAIT1 FIN_WAIT2
        # Its birth goes unseen, and so do the first steps of the next socket at
        # its address, whose birth is seen.
        1.1 birth B t TIME_WAIT until=61.1
        = ports.0.used 1
        = states.FIN_WAIT2.now 1
        1.2 begin
        1.2 seed u TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=61.0 of=A
        1.2 seed t TIME_WAIT 10.0.0.1:40001-10.0.0.8:80 until=61.1
        1.3 end-seed
        1.4 pass
        = states.TIME_WAIT.now 2
        = states.TIME_WAIT.entered 2
        = states.TIME_WAIT.left 0
        = time_wait.ended.unknown 0
        = time_wait.side.client 2
        = ports.0.time_wait 1
        = ports.1.time_wait 1
        62.0 end t TIME_WAIT expired until=61.1
        = time_wait.lifetime_s.count 1
        = ports.0.remote 10.0.0.9
        = ports.1 null
    ");
}

#[test]
fn one_without_a_cookie_keeps_its_story_when_it_has_one() {
    run("
        0.0 begin
        0.1 seed @A ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        0.1 seed @B ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        0.1 seed @t TIME_WAIT 10.0.0.1:40002-10.0.0.9:443 until=40.0
        0.2 end-seed
        # A step carries both; ss has asked for B's meanwhile.
        1.0 step A ESTABLISHED FIN_WAIT1 pid=7
        2.0 begin
        2.1 seed A FIN_WAIT1 10.0.0.1:40000-10.0.0.9:443
        2.1 seed B ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        2.1 seed @t TIME_WAIT 10.0.0.1:40002-10.0.0.9:443 until=40.0
        2.2 end-seed
        2.3 step B ESTABLISHED CLOSE err=104
        = states.ESTABLISHED.seeded 2
        = states.ESTABLISHED.now 0
        = states.FIN_WAIT1.now 1
        = lost.unseen 0
        ? doubts none
        40.5 end @t TIME_WAIT expired until=40.0
        = time_wait.ended_seeded 1
    ");
}

#[test]
fn one_with_a_cookie_at_the_address_of_one_without_is_somebody_else() {
    run("
        0.0 begin
        0.1 seed @A LAST_ACK 10.0.0.1:40000-10.0.0.9:443
        0.1 seed @B FIN_WAIT2 10.0.0.1:40001-10.0.0.9:443
        0.2 end-seed
        # The end of the first went unseen.
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        = states.LAST_ACK.now 0
        = states.SYN_SENT.now 1
        = lost.unseen 1
        # Neither half of the other's birth has a cookie.
        1.1 birth @B @t TIME_WAIT 10.0.0.1:40001-10.0.0.9:443
        = states.FIN_WAIT2.now 0
        = states.TIME_WAIT.entered 1
        = time_wait.now 1
    ");
}

#[test]
fn a_socket_that_connects_anew_keeps_its_cookie_and_not_its_story() {
    run("
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT CLOSE err=111
        2.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        2.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        3.0 step A ESTABLISHED FIN_WAIT1 pid=7
        3.1 step A FIN_WAIT1 FIN_WAIT2
        3.2 birth A t TIME_WAIT
        # It was disconnected, and connects while its minisocket waits.
        4.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        4.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        5.0 step A ESTABLISHED FIN_WAIT1 pid=7
        5.1 step A FIN_WAIT1 FIN_WAIT2
        5.2 birth A u TIME_WAIT
        = time_wait.now 2
        = time_wait.entered 2
        63.5 end t TIME_WAIT expired until=63.2
        = time_wait.now 1
        = time_wait.lifetime_s.max 60.3
        ? doubts none
    ");
}

#[test]
fn a_child_is_known_by_its_address_until_it_has_a_cookie() {
    run("
        1.0 step A LISTEN SYN_RECV 0.0.0.0:0-0.0.0.0:0 child
        > A LISTEN->SYN_RECV server
        1.1 step A SYN_RECV ESTABLISHED 10.0.0.1:80-10.0.0.9:5000
        > A SYN_RECV->ESTABLISHED server
        2.0 step A ESTABLISHED CLOSE_WAIT
        = states.CLOSE_WAIT.now 1
        = states.SYN_RECV.entered 1
        = states.SYN_RECV.now 0
        ? doubts none
    ");
}

#[test]
fn a_resync_changes_nothing_where_nothing_was_missed() {
    run("
        0.0  begin
        0.0  end-seed
        1.0  step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.1  step A SYN_SENT ESTABLISHED
        1.2  step B CLOSE SYN_SENT 10.0.0.1:40001-10.0.0.9:443 pid=7
        2.0  begin
        2.1  seed A FIN_WAIT2 10.0.0.1:40000-10.0.0.9:443
        2.1  seed C SYN_SENT 10.0.0.1:40002-10.0.0.9:443
        2.1  seed t TIME_WAIT 10.0.0.1:40003-10.0.0.9:443 until=62.05
        2.2  end-seed
        # All of this was still in the ring.
        2.01 step A ESTABLISHED FIN_WAIT1 pid=7
        2.02 step A FIN_WAIT1 FIN_WAIT2
        2.03 step C CLOSE SYN_SENT 10.0.0.1:40002-10.0.0.9:443 pid=7
        2.04 step D CLOSE SYN_SENT 10.0.0.1:40003-10.0.0.9:443 pid=7
        2.04 step D SYN_SENT ESTABLISHED
        2.05 step D ESTABLISHED FIN_WAIT1 pid=7
        2.05 step D FIN_WAIT1 FIN_WAIT2
        2.05 birth D t TIME_WAIT
        2.06 step B SYN_SENT CLOSE err=111
        2.3  pass
        = lost.unseen 0
        = states.FIN_WAIT2.now 1
        = states.FIN_WAIT2.entered 2
        = states.TIME_WAIT.entered 1
        = states.SYN_SENT.now 1
        = connect_failures.refused 1
        = resyncs 1
        = exactness exact
        62.9 end t TIME_WAIT expired until=62.05
        = time_wait.lifetime_s.count 1
    ");
}

#[test]
fn a_birth_that_was_missed_is_joined_by_the_resync() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED
        1.2 step A ESTABLISHED FIN_WAIT1 pid=7
        1.3 step A FIN_WAIT1 FIN_WAIT2
        2.0 begin
        2.1 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=61.5 of=A
        2.2 end-seed
        = states.FIN_WAIT2.now 0
        = states.TIME_WAIT.now 1
        = owners.0.pid 7
        = lost.unseen 1
        9.0 end t TIME_WAIT reset until=61.5
        = time_wait.ended_seeded 1
        = time_wait.lifetime_s.count 0
    ");
}

#[test]
fn a_silent_step_found_by_a_resync_is_no_loss() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 birth A t FIN_WAIT2
        2.0 begin
        2.1 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=61.5
        2.2 end-seed
        = fin_wait2_orphan.became_time_wait 1
        > A starts FIN_WAIT2 60s
        > A FIN_WAIT2->TIME_WAIT
        9.0 end t TIME_WAIT reset until=61.5
        = time_wait.lifetime_s.max 7.5
    ");
}

#[test]
fn what_a_resync_settles_when_it_begins_is_emitted() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        > A CLOSED->SYN_SENT client by 7
        2.0 begin
        2.1 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=61.5 of=A
        2.2 end-seed
        2.2 begin
        > A SYN_SENT->TIME_WAIT client by 7
        > A starts TIME_WAIT 60s client by 7
    ");
}

#[test]
fn a_time_wait_of_a_namespace_without_a_way_in_was_not_missed() {
    run("
        0.0 begin
        0.0 end-seed
        2.0 end t TIME_WAIT expired until=2.0
        = time_wait.ended.expired 1
        = time_wait.seeded 1
        = lost.unseen 0
        3.0 end u TIME_WAIT reset until=62.0
        = lost.unseen 1
        3.5 facts first=32768 last=60999
        4.0 end v TIME_WAIT expired until=4.0
        = lost.unseen 2
    ");
}

#[test]
fn births_that_only_the_kernel_counted_are_unseen() {
    run("
        0.0 counters births=100
        0.0 begin
        0.0 end-seed
        0.5 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.0 birth A t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443
        1.1 end t TIME_WAIT reset until=61.0
        2.0 counters births=103
        ? doubts counted 2 minisocket births
        = lost.unseen 2
        = exactness approximate
        2.1 begin
        2.2 seed u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443 until=61.0
        2.3 end-seed
        # What the resync finds had been counted when it was noticed.
        = lost.unseen 2
        = exactness exact
        3.0 counters births=103 tw=1
        ? doubts none
    ");
}

#[test]
fn births_that_a_loss_explains_are_not_unseen_as_well() {
    run("
        0.0 counters births=100
        0.0 begin
        0.0 end-seed
        1.0 pass
        # The counters are told before the losses they are explained by.
        2.0 counters births=105
        2.0 lost ring=4
        2.1 begin
        2.2 seed u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443 until=61.0
        2.3 end-seed
        = lost.ring 4
        = lost.unseen 1
        3.0 counters births=105 tw=1
        = lost.unseen 1
        ? doubts none
    ");
}

/// Four records were lost, of which none was a birth. That does not explain a
/// birth that goes unseen later.
#[test]
fn a_loss_explains_no_birth_that_goes_missing_long_after_it() {
    run("
        0.0 counters births=100
        0.0 begin
        0.0 end-seed
        1.0 pass
        2.0 ask
        2.0 counters births=100
        2.0 lost recursion=4
        2.1 begin
        2.3 end-seed
        = lost.recursion 4
        ? doubts none
        3.0 ask
        3.0 counters births=100
        4.0 ask
        4.0 counters births=100
        # Either of these two may have been a birth.
        4.5 lost recursion=6
        4.6 begin
        4.8 end-seed
        = lost.recursion 6
        5.0 ask
        5.0 counters births=102
        = lost.unseen 0
        ? doubts none
        6.0 ask
        6.0 counters births=103
        = lost.unseen 1
        ? doubts counted 1 minisocket births
        6.1 begin
        6.2 seed u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443 until=61.0
        6.3 end-seed
        = lost.unseen 1
        ? doubts none
    ");
}

#[test]
fn a_birth_emitted_twice_hides_no_missing_one() {
    run("
        0.0 counters births=100
        0.0 begin
        0.0 end-seed
        1.0 birth A t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443
        1.1 counters births=101
        ? doubts none
        1.2 birth A t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443
        1.3 birth B u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443
        2.0 counters births=103
        ? doubts counted 1 minisocket births
    ");
}

#[test]
fn counters_that_begin_anew_are_another_namespace() {
    run("
        0.0 counters births=100 overflowed=10
        0.0 begin
        0.0 end-seed
        1.0 counters births=100 overflowed=14
        = time_wait.overflowed 4
        2.0 counters births=5 overflowed=1
        = time_wait.overflowed 5
        = lost.unseen 0
        ? doubts none
        3.0 counters births=7 overflowed=1
        = lost.unseen 2
    ");
}

#[test]
fn a_connect_that_still_searches_its_port_is_not_gone() {
    run("
        0.0   begin
        0.0   end-seed
        1.0   step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.01  begin
        1.02  end-seed
        1.03  pass
        = states.SYN_SENT.now 1
        = lost.unseen 0
    ");
}

#[test]
fn a_step_traced_while_the_seed_read_is_not_undone() {
    run("
        0.0    begin
        0.0    end-seed
        1.0    step A CLOSE SYN_SENT 10.0.0.1:4000-10.0.0.9:443 pid=7
        1.1    step A SYN_SENT ESTABLISHED
        2.0    begin
        2.1001 seed A ESTABLISHED 10.0.0.1:4000-10.0.0.9:443
        2.2    end-seed
        2.1    step A ESTABLISHED FIN_WAIT1 pid=7
        2.3    pass
        = states.FIN_WAIT1.now 1
        = lost.unseen 0
    ");
}

#[test]
fn a_socket_of_no_known_namespace_moves_to_its_own() {
    run("
        0.0 step A ESTABLISHED FIN_WAIT1 pid=7
        = namespaces.0 null
        1.0 begin
        1.1 seed A FIN_WAIT1 10.0.0.1:4000-10.0.0.9:443
        1.2 end-seed
        = namespaces.0.states.FIN_WAIT1.now 1
        = states.FIN_WAIT1.now 1
    ");
}

#[test]
fn a_birth_tells_the_namespace_of_a_socket_unheard_of() {
    run("
        0.0 step A ESTABLISHED FIN_WAIT1 pid=7
        0.1 birth A t TIME_WAIT
        = namespaces.0.states.TIME_WAIT.now 1
        = namespaces.0.states.FIN_WAIT1.now 0
        1.0 begin
        1.1 seed t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443 until=60.0
        1.2 end-seed
        = time_wait.now 1
        = time_wait.entered 1
        2.0 end t TIME_WAIT reset until=60.0
        = namespaces.0.states.TIME_WAIT.left 1
        = time_wait.lifetime_s.count 1
    ");
}

#[test]
fn a_minisocket_that_took_the_address_of_another_unseen_is_another() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 birth A t TIME_WAIT 10.0.0.1:4000-10.0.0.9:443
        2.0 begin
        2.1 seed t TIME_WAIT 10.0.0.1:4001-10.0.0.9:443 until=61.5 of=B
        2.2 end-seed
        2.3 pass
        = time_wait.now 1
        = time_wait.entered 2
        = time_wait.ended.unknown 1
        = time_wait.ended_seeded 1
        # A's first steps, and A's end and B's beginning.
        = lost.unseen 3
    ");
}

#[test]
fn an_address_used_again_just_before_its_seed_is_no_mismatch() {
    run("
        0.0     begin
        1.0     seed A ESTABLISHED 10.0.0.1:4001-10.0.0.9:443
        1.1     end-seed
        0.9997  step A FIN_WAIT1 FIN_WAIT2
        0.9998  birth A t TIME_WAIT
        0.9999  step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        0.99995 step A SYN_SENT ESTABLISHED 10.0.0.1:4001-10.0.0.9:443
        = states.ESTABLISHED.now 1
        = states.TIME_WAIT.now 1
        = lost.unseen 0
        1.2     step A ESTABLISHED FIN_WAIT1 pid=7
        = states.FIN_WAIT1.now 1
        = lost.unseen 0
    ");
}

#[test]
fn a_birth_after_the_counters_were_read_hides_no_other() {
    run("
        0.0 counters births=100
        0.0 begin
        0.0 end-seed
        1.0 birth A t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443
        2.1 birth B u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443
        2.0 counters births=102
        ? doubts counted 1 minisocket births
    ");
}

#[test]
fn sockstat_is_believed_at_rest_but_not_for_ever() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        2.0 counters tw=1 inuse=1
        ? doubts none
        3.0 counters tw=1 inuse=1
        ? doubts has 1 minisockets by sockstat, 0 by events
        3.1 begin
        3.1 seed A SYN_SENT 10.0.0.1:40000-10.0.0.9:443
        3.1 end-seed
        3.2 pass
        = exactness exact
        4.0 counters tw=1 inuse=1
        ? doubts has 1 minisockets
        4.1 begin
        4.1 seed A SYN_SENT 10.0.0.1:40000-10.0.0.9:443
        4.1 end-seed
        4.2 pass
        = lost.unseen 0
        # Two seeds found nothing: that is how sockstat counts there.
        5.0 counters tw=1 inuse=1
        6.0 counters tw=1 inuse=1
        7.0 counters tw=1 inuse=1
        ? doubts none
        8.0 counters tw=2 inuse=1
        ? doubts has 2 minisockets
    ");
}

#[test]
fn a_difference_in_a_busy_namespace_must_last() {
    run("
        0.0 begin
        0.0 end-seed
        1.5 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        2.0 counters inuse=3
        2.5 step B CLOSE SYN_SENT 10.0.0.1:40001-10.0.0.9:443 pid=7
        3.0 counters inuse=1
        3.5 step C CLOSE SYN_SENT 10.0.0.1:40002-10.0.0.9:443 pid=7
        4.0 counters inuse=5
        4.5 step D CLOSE SYN_SENT 10.0.0.1:40003-10.0.0.9:443 pid=7
        5.0 counters inuse=5
        ? doubts none
        5.5 step D SYN_SENT CLOSE
        6.0 counters inuse=5
        ? doubts has 5 full sockets by sockstat, 3 by events
    ");
}

#[test]
fn what_came_after_the_counters_were_read_makes_no_difference() {
    run("
        0.0 begin
        0.0 end-seed
        1.0 ask
        1.1 step A CLOSE SYN_SENT 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.2 counters inuse=0
        2.0 ask
        2.1 step B CLOSE SYN_SENT 10.0.0.1:40001-10.0.0.9:443 pid=7
        2.2 counters inuse=1
        3.0 ask
        3.1 step C CLOSE SYN_SENT 10.0.0.1:40002-10.0.0.9:443 pid=7
        3.2 counters inuse=2
        4.0 ask
        4.1 step D CLOSE SYN_SENT 10.0.0.1:40003-10.0.0.9:443 pid=7
        4.2 counters inuse=3
        ? doubts none
        5.0 ask
        5.1 step E CLOSE SYN_SENT 10.0.0.1:40004-10.0.0.9:443 pid=7
        5.2 counters inuse=3
        6.0 ask
        6.1 step F CLOSE SYN_SENT 10.0.0.1:40005-10.0.0.9:443 pid=7
        6.2 counters inuse=4
        7.0 ask
        7.1 step G CLOSE SYN_SENT 10.0.0.1:40006-10.0.0.9:443 pid=7
        7.2 counters inuse=5
        ? doubts has 5 full sockets by sockstat, 7 by events
    ");
}

#[test]
fn a_minisocket_that_outlives_its_timer_is_doubted() {
    run("
        0.0  begin
        0.0  end-seed
        1.0  birth A t TIME_WAIT
        63.0 pass
        ? doubts none
        66.5 pass
        ? doubts 1 minisockets are past their expiry
        66.6 begin
        66.6 end-seed
        66.7 pass
        = time_wait.now 0
        = time_wait.ended.unknown 1
        = time_wait.ended_seeded 1
        ? doubts none
    ");
}

#[test]
fn a_filter_leaves_strangers_out_and_judges_a_port_when_it_is_known() {
    let filter = Filter::new(None, vec![40000], vec![], vec![], vec![]);
    run_filtered(
        filter,
        "
        0.0 begin
        0.1 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443 until=30.0
        0.1 seed u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443 until=30.0
        0.2 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.0 step B CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        = states.SYN_SENT.now 0
        1.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        1.1 step B SYN_SENT ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        1.1 step C LISTEN SYN_RECV 0.0.0.0:0-0.0.0.0:0
        1.1 step C SYN_RECV ESTABLISHED 10.0.0.1:40000-10.0.0.8:50000
        = states.SYN_SENT.entered 0
        = states.SYN_RECV.entered 0
        = states.ESTABLISHED.entered 2
        = states.ESTABLISHED.seeded 0
        1.2 step B ESTABLISHED FIN_WAIT1 10.0.0.1:40001-10.0.0.9:443 pid=7
        2.0 end u TIME_WAIT reset until=30.0
        2.0 birth B v TIME_WAIT
        = time_wait.now 1
        = time_wait.ended.reset 0
        = lost.unseen 0
        ? doubts none
        ",
    );
}

#[test]
fn sides_follow_the_listener_and_the_port_range() {
    run("
        0.0 begin
        0.1 seed L LISTEN 0.0.0.0:40000-0.0.0.0:0
        0.1 seed t TIME_WAIT 10.0.0.1:40000-10.0.0.9:5000 until=30.0
        0.1 seed u TIME_WAIT 10.0.0.1:40001-10.0.0.9:443 until=30.0
        0.1 seed v TIME_WAIT 10.0.0.1:22-10.0.0.9:5001 until=30.0
        0.2 end-seed
        = time_wait.side.unknown 2
        0.3 facts first=32768 last=60999
        = time_wait.side.server 1
        = time_wait.side.client 1
        = time_wait.side.unknown 1
        = ports.0.used 1
    ");
}

#[test]
fn names_of_addresses_do_not_collide() {
    let names = ["A", "B", "C", "D", "L", "t", "u", "v"];
    let addresses: HashSet<_> = names.into_iter().map(super::script::address).collect();
    assert_eq!(addresses.len(), names.len());
}
