//! What each TCP state means: who waits there for whom, and what ends it.
//!
//! The table is in [`table`]. Ends are named by the words that `twtrace live`
//! and `twtrace events` print, so that one leads to the other.

mod table;

pub use table::ALL;
use tracer_common::state::State;

/// One state.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    pub state: State,
    /// As `ss` prints it.
    pub ss: &'static str,
    /// What else it is called: in RFC 9293, in other systems' netstat.
    pub also: &'static [&'static str],
    /// What has happened, in sentences.
    pub means: &'static str,
    /// Who waits for whom, and for how long, in sentences.
    pub waits: &'static str,
    pub ends: &'static [End],
    /// When many of them matter, in sentences.
    pub hurts: &'static str,
    /// Sysctls that bear on it, by their last word.
    pub keys: &'static [&'static str],
}

/// One way out of a state.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The next state, or the reason that twtrace prints.
    pub word: &'static str,
    /// What brings it about, as a clause.
    pub when: &'static str,
}

/// A name without what differs between its spellings: `FIN-WAIT-1`, `fin_wait1`
/// and `FIN_WAIT_1` are one.
fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

impl Meaning {
    /// netstat's spelling, ss's, and the others.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.state.name(), self.ss]
            .into_iter()
            .chain(self.also.iter().copied())
    }
}

/// The state of that name, in the spelling of `ss`, of netstat, or of the RFC.
#[must_use]
pub fn find(name: &str) -> Option<&'static Meaning> {
    let name = folded(name);
    ALL.iter()
        .find(|meaning| meaning.names().any(|known| folded(known) == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::sysctls;

    #[test]
    fn each_spelling_finds_its_state() {
        for (name, state) in [
            ("TIME_WAIT", State::TimeWait),
            ("time-wait", State::TimeWait),
            ("TimeWait", State::TimeWait),
            ("FIN-WAIT-2", State::FinWait2),
            ("FIN_WAIT2", State::FinWait2),
            ("fin_wait_1", State::FinWait1),
            ("ESTAB", State::Established),
            ("SYN_RCVD", State::SynRecv),
            ("UNCONN", State::Close),
            ("LISTENING", State::Listen),
        ] {
            assert_eq!(find(name).map(|m| m.state), Some(state), "{name}");
        }
        assert!(find("WAIT").is_none());
    }

    #[test]
    fn every_counted_state_is_explained_and_no_name_means_two() {
        for state in State::COUNTED {
            assert!(ALL.iter().any(|m| m.state == state), "{}", state.name());
        }
        for meaning in ALL {
            for name in meaning.names() {
                assert_eq!(find(name).map(|m| m.state), Some(meaning.state), "{name}");
            }
            for key in meaning.keys {
                assert!(sysctls::find(key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn ways_out_are_states_or_words_that_are_printed() {
        use crate::model::happening::CloseReason;
        use crate::model::snapshot::{FinWait2Ends, TimeWaitEnds};
        let closes = [
            CloseReason::Passive,
            CloseReason::Overflow,
            CloseReason::Reset,
            CloseReason::Aborted,
            CloseReason::TimedOut,
            CloseReason::PortsExhausted,
            CloseReason::Refused,
            CloseReason::Abandoned,
            CloseReason::Unreachable,
            CloseReason::StoppedListening,
        ]
        .map(CloseReason::name);
        let reasons = |state| -> Vec<String> {
            let ends = match state {
                State::TimeWait => serde_json::to_value(<TimeWaitEnds>::default()),
                State::FinWait2 => serde_json::to_value(<FinWait2Ends>::default()),
                _ => return Vec::new(),
            };
            let ends = ends.unwrap();
            ends.as_object().unwrap().keys().cloned().collect()
        };
        for meaning in ALL {
            for End { word, .. } in meaning.ends {
                let known = ALL.iter().any(|m| m.state.name() == *word)
                    || closes.contains(word)
                    || reasons(meaning.state).iter().any(|r| r == word);
                assert!(known, "{}: {word}", meaning.state.name());
            }
        }
        // None of the reasons a minisocket ends by is left unexplained.
        for state in [State::TimeWait, State::FinWait2] {
            let explained = find(state.name()).unwrap().ends;
            for reason in reasons(state) {
                assert!(
                    reason == "unknown" || explained.iter().any(|end| end.word == reason),
                    "{}: {reason}",
                    state.name()
                );
            }
        }
    }
}
