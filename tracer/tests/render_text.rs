//! The tables of `twtrace live`, as a log and as terminals of several sizes show them.

mod invented;

use tracer::model::snapshot::Snapshot;
use tracer::model::state_set::StateSet;
use tracer::render::live::{PlainTables, Redrawn, Size};
use tracer::render::terminal::Terminal;

fn plain(snapshots: &[Snapshot], states: &str) -> String {
    let mut out = Vec::new();
    let mut sink = PlainTables::new(Terminal::new(&mut out, false), states.parse().unwrap());
    for snapshot in snapshots {
        invented::show(&mut sink, snapshot);
    }
    String::from_utf8(out).unwrap()
}

/// What a terminal of this size shows after these snapshots.
fn screen(snapshots: &[Snapshot], columns: usize, rows: usize) -> String {
    let mut out = Vec::new();
    let mut sink = Redrawn::new(
        Terminal::new(&mut out, false),
        || Size { columns, rows },
        StateSet::ALL,
    );
    for snapshot in snapshots {
        invented::show(&mut sink, snapshot);
    }
    let all = String::from_utf8(out).unwrap();
    let last = all.rsplit("\x1b[H").next().unwrap();
    last.replace("\x1b[K", "").replace("\x1b[J", "")
}

/// A second after another, with some more of everything.
fn two_seconds(mut first: Snapshot) -> [Snapshot; 2] {
    let second = first.clone();
    first.elapsed_s -= 1.0;
    for count in &mut first.states.0 {
        count.entered = count.entered.saturating_sub(465);
        count.left = count.left.saturating_sub(20);
    }
    [first, second]
}

#[test]
fn a_busy_client_in_a_log() {
    insta::assert_snapshot!(plain(&[invented::busy()], "all"));
}

#[test]
fn a_quiet_server_in_a_log() {
    insta::assert_snapshot!(plain(&[invented::quiet()], "all"));
}

#[test]
fn losses_and_namespaces_in_a_log() {
    insta::assert_snapshot!(plain(&[invented::lossy()], "all"));
}

#[test]
fn what_was_lost_stays_said_once_it_is_mended() {
    let mut mended = invented::lossy();
    mended.exactness = tracer::model::snapshot::Exactness::Exact;
    let page = plain(&[mended], "all");
    let said = page.split("\n\n").next().unwrap();
    assert!(!page.contains('~'), "{page}");
    insta::assert_snapshot!(said);
}

#[test]
fn only_some_states_and_rates_between_two_snapshots() {
    let page = plain(&two_seconds(invented::busy()), "synchronized");
    let second = page.split("\n\n\n").nth(1).unwrap();
    assert!(
        second.contains("465") && !second.contains("\nLISTEN "),
        "{second}"
    );
    let rows: Vec<&str> = second
        .lines()
        .filter(|line| line.starts_with("TIME_WAIT  "))
        .collect();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn a_busy_client_on_a_classic_terminal() {
    insta::assert_snapshot!(screen(&[invented::busy()], 80, 24));
}

#[test]
fn a_busy_client_on_a_large_terminal() {
    insta::assert_snapshot!(screen(&two_seconds(invented::busy()), 120, 40));
}

#[test]
fn equal_addresses_of_two_namespaces_are_told_apart() {
    let mut snapshot = invented::busy();
    snapshot.ports[1] = snapshot.ports[0].clone();
    snapshot.ports[1].netns = 4_026_532_000;
    for (columns, share) in [(80, false), (120, true)] {
        let page = screen(std::slice::from_ref(&snapshot), columns, 60);
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("10.0.0.2 -> 10.0.0.9:443 ") && line.contains("/28,232"))
            .collect();
        assert_eq!(rows.len(), 2, "{page}");
        assert!(rows[0].starts_with("4026531840 ") && rows[1].starts_with("4026532000 "));
        assert!(rows.iter().all(|row| row.ends_with("in 2 min")), "{page}");
        assert_eq!(rows[0].contains("98.8 %"), share, "{page}");
    }
}

#[test]
fn few_values_have_no_quantiles() {
    let lives = |count| {
        let mut snapshot = invented::busy();
        snapshot.time_wait.lifetime_s.distribution.count = count;
        let page = screen(&[snapshot], 120, 60);
        let line = page.lines().find(|line| line.starts_with("Lives"));
        line.unwrap().to_owned()
    };
    for (count, said) in [
        (9, "of 9 whole lives: min 1.00 s, max 63.2 s"),
        (
            10,
            "of 10 whole lives: min 1.00 s, p50 61.0 s, p90 61.8 s, max 63.2 s",
        ),
        (
            100,
            "of 100 whole lives: min 1.00 s, p50 61.0 s, p90 61.8 s, p99 62.0 s, max 63.2 s",
        ),
    ] {
        assert!(lives(count).ends_with(said), "{}", lives(count));
    }
}

#[test]
fn a_small_terminal_gets_the_beginning() {
    insta::assert_snapshot!(screen(&[invented::busy()], 60, 16));
}

#[test]
fn losses_on_a_large_terminal() {
    insta::assert_snapshot!(screen(&[invented::lossy()], 120, 60));
}

#[test]
fn no_terminal_gets_more_than_fits_it() {
    for snapshot in [invented::busy(), invented::quiet(), invented::lossy()] {
        for (columns, rows) in [(80, 24), (120, 40), (40, 10), (20, 3), (1, 1), (300, 100)] {
            let page = screen(std::slice::from_ref(&snapshot), columns, rows);
            assert!(
                page.lines().count() < rows.max(2),
                "{columns}x{rows}:\n{page}"
            );
            for line in page.lines() {
                assert!(line.chars().count() <= columns, "{columns}x{rows}: {line}");
            }
        }
    }
}

#[test]
fn a_terminal_keeps_its_cursor_and_its_past() {
    let mut out = Vec::new();
    let size = || Size {
        columns: 80,
        rows: 24,
    };
    let mut sink = Redrawn::new(Terminal::new(&mut out, true), size, StateSet::ALL);
    invented::show(&mut sink, &invented::busy());
    let all = String::from_utf8(out).unwrap();
    assert!(!all.contains("\x1b[?"), "a mode is changed: {all}");
    assert!(!all.contains("\x1b[3J"), "the scrollback is erased: {all}");
}

#[test]
fn colours_change_no_word() {
    let mut out = Vec::new();
    let mut sink = PlainTables::new(Terminal::new(&mut out, true), StateSet::ALL);
    invented::show(&mut sink, &invented::lossy());
    let styled = String::from_utf8(out).unwrap();
    assert_ne!(styled, plain(&[invented::lossy()], "all"));
    assert_eq!(
        anstream::adapter::strip_str(&styled).to_string(),
        plain(&[invented::lossy()], "all")
    );
}
