//! Words of a command line, and the options they become.

use clap::CommandFactory as _;

use super::*;

fn request(words: &str) -> Request {
    let words = std::iter::once("twtrace").chain(words.split_whitespace());
    Cli::try_parse_from(words)
        .unwrap_or_else(|error| panic!("{error}"))
        .into_request()
        .0
}

fn live(words: &str) -> LiveOptions {
    match request(words) {
        Request::Live(options) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn live_is_what_no_verb_means() {
    let words = "--netns self -4 --dport 443,80 --state time-wait --interval 500ms --plain";
    assert_eq!(request(words), request(&format!("live {words}")));
    let options = live(words);
    assert_eq!(options.scope.netns, NetnsChoice::Own);
    assert_eq!(
        options.scope.filter.to_string(),
        "family inet and ( dport = :80 or dport = :443 )"
    );
    assert_eq!(options.interval, Duration::from_millis(500));
    assert_eq!(options.form, LiveForm::Plain);
    assert_eq!(options.ring_bytes, 16 << 20);
}

#[test]
fn states_add_up_and_none_means_all() {
    assert!(live("").scope.states.is_all());
    let some = live("--state time-wait --state fin-wait-2,ESTABLISHED")
        .scope
        .states;
    assert_eq!(
        format!("{some:?}"),
        r#"{"ESTABLISHED", "FIN_WAIT2", "TIME_WAIT"}"#
    );
    assert!(live("-4 -6").scope.filter.is_empty());
}

#[test]
fn events_take_the_same_filters() {
    let Request::Events(options) = request("events --json --dst ::1 --count 5 --ring-size 64K")
    else {
        panic!("no events")
    };
    assert!(options.json);
    assert_eq!(options.count, Some(5));
    assert_eq!(options.ring_bytes, 65536);
    assert_eq!(options.scope.filter.to_string(), "dst ::1");
}

#[test]
fn log_levels_are_those_of_log() {
    for level in LEVELS {
        assert!(level.parse::<LevelFilter>().is_ok(), "{level}");
    }
}
