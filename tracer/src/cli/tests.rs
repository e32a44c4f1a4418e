//! Words of a command line, and the options they become.

use clap::CommandFactory as _;

use super::*;
use crate::lab::churn::First;
use crate::lab::shape::Shape;
use crate::options::LabEnd;

fn request(words: &str) -> Request {
    let words = std::iter::once("twtrace").chain(words.split_whitespace());
    Cli::try_parse_from(words)
        .and_then(Cli::into_request)
        .unwrap_or_else(|error| panic!("{error}"))
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

fn lab(words: &str) -> (Shape, Request) {
    match request(words) {
        Request::Lab {
            load: Load::Shape(shape),
            verb,
        } => (shape, *verb),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lab_takes_a_shape_and_a_verb() {
    let (shape, verb) = lab(
        "lab --rate 50 --close server --ports 1000 --destinations 3 --close-wait 10% \
         --sysctl tcp_tw_reuse=0 -- events --json -n 3 --netns server",
    );
    assert_eq!(
        shape,
        Shape {
            rate: 50,
            first: First::Server,
            ports: Some(1000),
            destinations: 3,
            left_open: 0.1,
            settings: vec!["net.ipv4.tcp_tw_reuse=0".parse().unwrap()],
        }
    );
    let Request::Events(options) = verb else {
        panic!("{verb:?}")
    };
    assert!(options.json && options.count == Some(3));
    assert_eq!(options.scope.netns, NetnsChoice::Name("server".into()));
}

#[test]
fn in_a_lab_a_verb_watches_the_client() {
    let client = NetnsChoice::Name("client".into());
    for words in [
        "lab",
        "lab -- live",
        "lab -- --interval 1s",
        "lab -- events",
    ] {
        let (_, mut verb) = lab(words);
        assert_eq!(verb.scope_mut().unwrap().netns, client, "{words}");
    }
    assert_eq!(live("").scope.netns, NetnsChoice::All);
    assert!(matches!(lab("lab -- doctor").1, Request::Doctor(_)));
}

#[test]
fn a_trial_is_of_a_bundle() {
    let words = "lab --ports 1000 -- trial --set tcp_tw_reuse=1 --set net.ipv4.tcp_fin_timeout=30";
    let (shape, verb) = lab(words);
    assert_eq!(shape.ports, Some(1000));
    let Request::Trial(options) = verb else {
        panic!("{verb:?}")
    };
    let settings: Vec<String> = options.settings.iter().map(ToString::to_string).collect();
    assert_eq!(
        settings,
        ["net.ipv4.tcp_tw_reuse=1", "net.ipv4.tcp_fin_timeout=30"]
    );
    assert_eq!(options.end, LabEnd::Client);
    assert_eq!((options.settle, options.seed), (None, None));
    assert_eq!(options.measure, Duration::from_secs(66));
}

#[test]
fn what_is_behind_the_dashes_is_judged_as_a_command_line() {
    let refused = |words: &str| {
        let words = std::iter::once("twtrace").chain(words.split_whitespace());
        let parsed = Cli::try_parse_from(words).and_then(Cli::into_request);
        parsed.unwrap_err().to_string()
    };
    assert!(refused("lab -- lab").contains("a lab does not fit into a lab"));
    assert!(refused("lab -- life").contains("unrecognized subcommand 'life'"));
    assert!(refused("lab -- trial").contains("--set <KEY=VALUE>"));
    assert!(refused("lab -- trial --set a=1 --measure 9s").contains("take 10 s or more"));
    assert!(refused("lab --rate 0").contains("0 is not in 1..=10000"));
    assert!(refused("lab --close-wait 101").contains("from 0 to 100"));
    assert!(refused("lab --sysctl tcp_tw_reuse").contains("gives a key no value"));
}

#[test]
fn log_levels_are_those_of_log() {
    for level in LEVELS {
        assert!(level.parse::<LevelFilter>().is_ok(), "{level}");
    }
}

fn record(words: &str) -> RecordOptions {
    match request(words) {
        Request::Record(options) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recording_lasts_two_lives_or_as_long_as_a_command() {
    let seconds = |words| record(words).duration.map(|duration| duration.as_secs());
    assert_eq!(seconds("record -o a.jsonl"), Some(130));
    assert_eq!(seconds("record -o a.jsonl --duration 1m"), Some(60));
    assert_eq!(seconds("record -o a.jsonl -- sleep 5"), None);
    assert_eq!(
        seconds("record -o a.jsonl --duration 2s -- sleep 5"),
        Some(2)
    );
    assert_eq!(record("record -o a -- sleep 5").command, ["sleep", "5"]);
    assert_eq!(
        record("record -o a --dport 443").scope.filter.to_string(),
        "dport = :443"
    );
}

#[test]
fn a_user_is_one_of_the_command() {
    let user = record("record -o a --user alice -- sleep 5").user;
    assert_eq!(user.as_deref(), Some("alice"));
    assert_eq!(record("record -o a -- sleep 5").user, None);
    assert!(Cli::try_parse_from(["twtrace", "record", "-o", "a", "--user", "alice"]).is_err());
}

#[test]
fn a_lab_is_recorded_with_a_command_of_its_own() {
    let (_, verb) = lab("lab --rate 5 -- record -o a.jsonl -- sleep 5");
    let Request::Record(options) = verb else {
        panic!("{verb:?}")
    };
    assert_eq!(options.command, ["sleep", "5"]);
    assert_eq!(options.scope.netns.to_string(), "client");
}
