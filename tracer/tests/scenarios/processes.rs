//! A filter by process: sockets come into sight with what that process does.

use tracer::model::filter::{Cgroup, Filter, Processes};

use super::script::run_filtered;

fn of(processes: Processes) -> Filter {
    Filter::default().of(processes)
}

fn of_process_7() -> Filter {
    of(Processes {
        pids: vec![7],
        ..Processes::default()
    })
}

#[test]
fn a_client_is_seen_from_its_connect_to_the_end_of_its_time_wait() {
    run_filtered(
        of_process_7(),
        "
        0.0 begin
        0.0 seed S ESTABLISHED 10.0.0.1:40009-10.0.0.9:443
        0.0 seed u TIME_WAIT 10.0.0.1:40008-10.0.0.9:443 until=50.0
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.0 step B CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=8
        1.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        1.1 step B SYN_SENT ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        = states.ESTABLISHED.now 1
        = time_wait.seeded 0
        # Whoever is current when a segment arrives has no part in it.
        1.2 step B ESTABLISHED CLOSE_WAIT 10.0.0.1:40001-10.0.0.9:443 pid=7
        1.2 step A ESTABLISHED FIN_WAIT1 10.0.0.1:40000-10.0.0.9:443 pid=7
        1.2 step A FIN_WAIT1 FIN_WAIT2 10.0.0.1:40000-10.0.0.9:443
        1.3 birth A t TIME_WAIT 10.0.0.1:40000-10.0.0.9:443
        = states.CLOSE_WAIT.now 0
        = time_wait.now 1
        = owners.0.pid 7
        50.1 end u TIME_WAIT expired until=50.0
        62.0 end t TIME_WAIT expired until=61.3
        = time_wait.ended.expired 1
        = time_wait.now 0
        = lost.unseen 0
        ",
    );
}

#[test]
fn what_was_accepted_or_there_before_is_seen_from_its_close() {
    let filter = of(Processes {
        comms: vec!["nginx".into()],
        cgroups: vec![Cgroup {
            path: "/web".into(),
            ids: vec![70, 71],
        }],
        ..Processes::default()
    });
    run_filtered(
        filter,
        "
        0.0 begin
        0.0 end-seed
        0.5 process 7 nginx cgroup=71
        0.5 process 8 nginx cgroup=72
        0.5 process 9 curl cgroup=71
        1.0 step A ESTABLISHED FIN_WAIT1 10.0.0.1:80-10.0.0.9:5000 pid=7
        1.0 step B ESTABLISHED FIN_WAIT1 10.0.0.1:80-10.0.0.9:5001 pid=8
        1.0 step C ESTABLISHED FIN_WAIT1 10.0.0.1:80-10.0.0.9:5002 pid=9
        > A ESTABLISHED->FIN_WAIT1 by 7
        = states.FIN_WAIT1.now 1
        = states.FIN_WAIT1.entered 1
        = states.ESTABLISHED.seeded 0
        1.1 step A FIN_WAIT1 FIN_WAIT2 10.0.0.1:80-10.0.0.9:5000
        1.2 birth A t TIME_WAIT 10.0.0.1:80-10.0.0.9:5000
        = time_wait.entered 1
        = exactness exact
        ",
    );
}

#[test]
fn a_resync_neither_drops_nor_adds() {
    run_filtered(
        of_process_7(),
        "
        0.0 begin
        0.0 end-seed
        1.0 step A CLOSE SYN_SENT 10.0.0.1:0-10.0.0.9:443 pid=7
        1.1 step A SYN_SENT ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        2.0 lost ring=1
        2.1 begin
        2.2 seed A ESTABLISHED 10.0.0.1:40000-10.0.0.9:443
        2.2 seed B ESTABLISHED 10.0.0.1:40001-10.0.0.9:443
        2.2 seed u TIME_WAIT 10.0.0.1:40002-10.0.0.9:443 until=61.0
        2.3 end-seed
        2.4 pass
        = states.ESTABLISHED.now 1
        = time_wait.now 0
        = exactness exact
        ",
    );
}
