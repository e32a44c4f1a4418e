//! Which states are shown: `--state`, in the words of `ss` and of netstat.
//!
//! It decides which rows a table has and which events are printed, never what
//! is counted: a socket is followed through all its states either way.

use std::fmt;
use std::str::FromStr;

use super::event::State;
use super::happening::What;

/// A set of the ten counted states.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    pub const ALL: StateSet = StateSet((1 << State::COUNTED.len()) - 1);
    pub const NONE: StateSet = StateSet(0);

    #[must_use]
    pub fn of(states: &[State]) -> StateSet {
        states.iter().fold(StateSet::NONE, |set, &state| {
            set.union(StateSet(bit(state)))
        })
    }

    #[must_use]
    pub const fn union(self, other: StateSet) -> StateSet {
        StateSet(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: StateSet) -> StateSet {
        StateSet(self.0 & !other.0)
    }

    #[must_use]
    pub fn contains(self, state: State) -> bool {
        self.0 & bit(state) != 0
    }

    #[must_use]
    pub fn is_all(self) -> bool {
        self == StateSet::ALL
    }

    /// Whether this happening touches one of the states: a transition by what
    /// it leaves or enters, a minisocket by the state it is in.
    #[must_use]
    pub fn concerns(self, what: &What) -> bool {
        match *what {
            What::Transition { from, to, .. } => self.contains(from) || self.contains(to),
            What::MinisocketStart { state, .. }
            | What::MinisocketRearm { state }
            | What::MinisocketEnd { state, .. } => self.contains(state),
        }
    }
}

/// 0 for CLOSED, which is no member of any set.
fn bit(state: State) -> u16 {
    let counted = if state == State::NewSynRecv {
        State::SynRecv
    } else {
        state
    };
    State::COUNTED
        .iter()
        .position(|&s| s == counted)
        .map_or(0, |i| 1 << i)
}

impl Default for StateSet {
    fn default() -> StateSet {
        StateSet::ALL
    }
}

impl fmt::Debug for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(
                State::COUNTED
                    .into_iter()
                    .filter(|&s| self.contains(s))
                    .map(State::name),
            )
            .finish()
    }
}

impl FromStr for StateSet {
    type Err = NoSuchState;

    /// Upper or lower case, `_`, `-` or nothing between the words; also the
    /// groups `all`, `connected`, `synchronized`, `bucket` and `big` of `ss`.
    fn from_str(text: &str) -> Result<StateSet, NoSuchState> {
        let word: String = text
            .trim()
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let connected = StateSet::ALL.without(StateSet::of(&[State::Listen]));
        let bucket = StateSet::of(&[State::SynRecv, State::TimeWait]);
        Ok(match word.as_str() {
            "all" => StateSet::ALL,
            "connected" => connected,
            "synchronized" => connected.without(StateSet::of(&[State::SynSent])),
            "bucket" => bucket,
            "big" => StateSet::ALL.without(bucket),
            "established" | "estab" => StateSet::of(&[State::Established]),
            "synsent" => StateSet::of(&[State::SynSent]),
            "synrecv" => StateSet::of(&[State::SynRecv]),
            "finwait1" => StateSet::of(&[State::FinWait1]),
            "finwait2" => StateSet::of(&[State::FinWait2]),
            "timewait" => StateSet::of(&[State::TimeWait]),
            "closewait" => StateSet::of(&[State::CloseWait]),
            "lastack" => StateSet::of(&[State::LastAck]),
            "listen" | "listening" => StateSet::of(&[State::Listen]),
            "closing" => StateSet::of(&[State::Closing]),
            _ => return Err(NoSuchState(text.to_owned())),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchState(String);

impl fmt::Display for NoSuchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is no TCP state that is counted: write one of established, syn-sent, syn-recv, fin-wait-1, \
             fin-wait-2, time-wait, close-wait, last-ack, listen, closing, or a group: connected, synchronized, \
             bucket, big, all",
            self.0
        )
    }
}

impl std::error::Error for NoSuchState {}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> StateSet {
        text.parse().unwrap()
    }

    #[test]
    fn both_spellings_of_each_state_are_understood() {
        for state in State::COUNTED {
            let netstat = state.name();
            let ss = netstat
                .to_lowercase()
                .replace('_', "-")
                .replace("wait1", "wait-1")
                .replace("wait2", "wait-2");
            for text in [netstat, &ss] {
                assert_eq!(set(text), StateSet::of(&[state]), "{text}");
            }
        }
        assert_eq!(set("ESTAB"), StateSet::of(&[State::Established]));
    }

    #[test]
    fn groups_are_those_of_ss() {
        let members = |text| {
            State::COUNTED
                .into_iter()
                .filter(|&s| set(text).contains(s))
                .count()
        };
        assert!(set("all").is_all());
        assert_eq!(members("connected"), 9);
        assert!(!set("connected").contains(State::Listen));
        assert_eq!(members("synchronized"), 8);
        assert!(!set("synchronized").contains(State::SynSent));
        assert_eq!(
            set("bucket"),
            StateSet::of(&[State::SynRecv, State::TimeWait])
        );
        assert_eq!(set("bucket").union(set("big")), StateSet::ALL);
        assert_eq!(members("big"), 8);
    }

    #[test]
    fn half_open_requests_are_syn_recv_and_closed_is_nothing() {
        assert!(set("syn-recv").contains(State::NewSynRecv));
        assert!(!StateSet::ALL.contains(State::Close));
        assert!("closed".parse::<StateSet>().is_err());
    }

    #[test]
    fn a_transition_concerns_both_its_states() {
        let step = |from, to| What::Transition {
            from,
            to,
            in_state: None,
            reason: None,
        };
        assert!(set("established").concerns(&step(State::SynSent, State::Established)));
        assert!(set("established").concerns(&step(State::Established, State::CloseWait)));
        assert!(!set("time-wait").concerns(&step(State::Established, State::CloseWait)));
        assert!(set("time-wait").concerns(&What::MinisocketRearm {
            state: State::TimeWait
        }));
        assert!(!set("fin-wait-2").concerns(&What::MinisocketRearm {
            state: State::TimeWait
        }));
    }

    #[test]
    fn an_unknown_state_is_refused_with_the_known_ones() {
        let said = "waiting".parse::<StateSet>().unwrap_err().to_string();
        assert!(
            said.starts_with("\"waiting\" is no TCP state") && said.contains("fin-wait-1"),
            "{said}"
        );
    }
}
