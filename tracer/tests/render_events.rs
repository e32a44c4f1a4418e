//! Events as people and as programs read them.

mod invented;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tracer::model::event::Moment;
use tracer::model::snapshot::Lost;
use tracer::render::events::{Happenings, Json, Show, Text};
use tracer::render::terminal::Terminal;

/// The calendar at that moment, if the story began at noon.
fn time(at: Moment) -> Timestamp {
    let noon: Timestamp = "2026-01-31T12:00:00.000123Z".parse().unwrap();
    noon + SignedDuration::try_from(at.since(invented::START)).unwrap()
}

fn tell(sink: &mut dyn Happenings) {
    for happening in invented::happenings() {
        let cgroup = happening.owner.and_then(|owner| owner.cgroup);
        sink.happening(
            &happening,
            time(happening.at),
            cgroup.map(|_| "/system.slice/x.service"),
        )
        .unwrap();
    }
    let lost = Lost {
        ring: 1_210,
        recursion: 2,
        ..Lost::default()
    };
    sink.lost(time(invented::START), &lost).unwrap();
    sink.flush().unwrap();
}

fn text(netns: bool, styled: bool) -> String {
    let mut out = Vec::new();
    let terminal = Terminal::new(&mut out, styled);
    tell(&mut Text::new(terminal, TimeZone::UTC, Show { netns }));
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_for_people() {
    insta::assert_snapshot!(text(false, false));
}

#[test]
fn lines_for_people_with_namespaces() {
    insta::assert_snapshot!(text(true, false));
}

#[test]
fn lines_for_programs() {
    let mut out = Vec::new();
    tell(&mut Json::new(Terminal::new(&mut out, false)));
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

#[test]
fn colours_change_no_word() {
    let styled = text(true, true);
    let plain = text(true, false);
    assert_ne!(styled, plain);
    assert_eq!(anstream::adapter::strip_str(&styled).to_string(), plain);
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let plain = text(true, false);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert!(plain.contains("ev\u{fffd}[2Jil"), "{plain}");
}
