//! What a run may wait for: a count below a limit, a finding that comes or goes.

use std::fmt;
use std::str::FromStr;

use super::findings::{Judged, ORDER, Verdict};
use crate::model::event::State;

/// `time_wait < 100`, `verdict == fine`, `bind_blocked`, `not bind_blocked`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    what: What,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Count(State, Compared, u64),
    Verdict(Compared, Verdict),
    /// Whether a finding is there.
    Finding(&'static str, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Less,
    AtMost,
    Equal,
    Unequal,
    AtLeast,
    More,
}

const SIGNS: [(&str, Compared); 6] = [
    // The longer of two that begin alike first.
    ("<=", Compared::AtMost),
    (">=", Compared::AtLeast),
    ("==", Compared::Equal),
    ("!=", Compared::Unequal),
    ("<", Compared::Less),
    (">", Compared::More),
];

const VERDICTS: [(&str, Verdict); 4] = [
    ("fine", Verdict::Fine),
    ("undecided", Verdict::Undecided),
    ("near", Verdict::Near),
    ("hurts", Verdict::Hurts),
];

impl Compared {
    fn holds<T: Ord + Copy>(self, a: T, b: T) -> bool {
        match self {
            Compared::Less => a < b,
            Compared::AtMost => a <= b,
            Compared::Equal => a == b,
            Compared::Unequal => a != b,
            Compared::AtLeast => a >= b,
            Compared::More => a > b,
        }
    }
}

impl Condition {
    #[must_use]
    pub fn holds(&self, judged: &Judged<'_>) -> bool {
        match self.what {
            What::Count(state, compared, limit) => compared.holds(now(judged, state), limit),
            What::Verdict(compared, verdict) => compared.holds(judged.judgement.verdict, verdict),
            What::Finding(id, there) => {
                let mut findings = judged.judgement.findings.iter();
                let found = findings.any(|finding| finding.id == id);
                // What nobody can tell yet is not absent.
                found == there && (there || judged.judgement.missing.is_none())
            }
        }
    }

    /// How it stands, and when it will hold if nothing is added, as a clause.
    #[must_use]
    pub fn outlook(&self, judged: &Judged<'_>) -> String {
        match self.what {
            What::Count(state, compared, limit) => {
                let stands = format!("{} is {}", self.name(), now(judged, state));
                match self.ends_in_s(judged, state, compared, limit) {
                    Some(in_s) => format!(
                        "{stands}, and will be so in {in_s} s if no more come (by their timers)"
                    ),
                    None => stands,
                }
            }
            What::Verdict(..) => {
                let verdict = VERDICTS
                    .iter()
                    .find(|(_, v)| *v == judged.judgement.verdict);
                format!("the verdict is {}", verdict.map_or("", |(name, _)| name))
            }
            What::Finding(id, there) if there => format!("{id} is not found"),
            What::Finding(id, _) => {
                let mut findings = judged.judgement.findings.iter();
                let headline = findings.find(|finding| finding.id == id);
                headline.map_or(String::new(), |finding| finding.headline.clone())
            }
        }
    }

    fn name(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }

    /// TIME_WAITs alone end by the clock.
    fn ends_in_s(
        &self,
        judged: &Judged<'_>,
        state: State,
        compared: Compared,
        limit: u64,
    ) -> Option<u64> {
        let ends = &judged.snapshot.stock.as_ref()?.time_wait_ends;
        if state != State::TimeWait || !matches!(compared, Compared::Less | Compared::AtMost) {
            return None;
        }
        let mut left: u64 = ends.iter().sum();
        ends.iter().zip(1..).find_map(|(ended, second)| {
            left -= ended;
            compared.holds(left, limit).then_some(second)
        })
    }
}

fn now(judged: &Judged<'_>, state: State) -> u64 {
    let count = judged.snapshot.states.get(state);
    count.map_or(0, |count| count.now)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let sign = SIGNS
            .iter()
            .filter_map(|(sign, compared)| Some((text.find(sign)?, *sign, *compared)))
            .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
        let what = match sign {
            Some((at, sign, compared)) => {
                let (name, value) = (text[..at].trim(), text[at + sign.len()..].trim());
                compared_to(name, compared, value)?
            }
            None => {
                let text = text.trim();
                let (name, there) = match text.strip_prefix("not ") {
                    Some(rest) => (rest.trim(), false),
                    None => (text, true),
                };
                let id = ORDER.iter().find(|id| **id == name);
                What::Finding(id.ok_or_else(|| unknown(name))?, there)
            }
        };
        Ok(Condition {
            what,
            text: text.trim().to_owned(),
        })
    }
}

fn compared_to(name: &str, compared: Compared, value: &str) -> Result<What, String> {
    if name.eq_ignore_ascii_case("verdict") {
        let verdict = VERDICTS.iter().find(|(word, _)| *word == value);
        let (_, verdict) = verdict.ok_or_else(|| {
            format!("{value:?} is no verdict: there are fine, undecided, near and hurts")
        })?;
        return Ok(What::Verdict(compared, *verdict));
    }
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let state = State::COUNTED
        .into_iter()
        .find(|state| plain(state.name()) == plain(name))
        .ok_or_else(|| unknown(name))?;
    let limit = value.replace([',', '_'], "");
    let limit = limit
        .parse()
        .map_err(|_| format!("{value:?} is no number of sockets"))?;
    Ok(What::Count(state, compared, limit))
}

fn unknown(name: &str) -> String {
    format!(
        "{name:?} is no state, no finding and not `verdict`: say `time_wait < 100`, \
         `verdict == fine`, or a finding's id, such as `not bind_blocked`; the ids are {}",
        ORDER.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::findings::{Findings, tests::calm};

    fn holds(text: &str, waiting: u64) -> bool {
        let mut snapshot = calm();
        let place = State::COUNTED.iter().position(|s| *s == State::TimeWait);
        snapshot.states.0[place.expect("it is counted")].now = waiting;
        let judgement = Findings::new().judge(&snapshot);
        let condition: Condition = text.parse().expect("a condition");
        condition.holds(&Judged {
            snapshot: &snapshot,
            judgement: &judgement,
        })
    }

    #[test]
    fn counts_are_compared() {
        for (text, waiting, expected) in [
            ("time_wait < 100", 99, true),
            ("time_wait < 100", 100, false),
            ("TIME_WAIT<=100", 100, true),
            ("time-wait > 1,000", 1_000, false),
            ("timewait >= 1000", 1_000, true),
            ("time_wait == 0", 0, true),
            ("time_wait != 0", 0, false),
            ("verdict == fine", 5, true),
            ("verdict < near", 5, true),
            ("verdict >= near", 5, false),
            ("not bind_blocked", 5, true),
            ("bind_blocked", 5, false),
        ] {
            assert_eq!(holds(text, waiting), expected, "{text} with {waiting}");
        }
    }

    #[test]
    fn what_is_none_is_refused_in_a_sentence() {
        for (text, said) in [
            ("time_wait", "is no state, no finding"),
            ("time_wait < many", "is no number of sockets"),
            ("verdict == good", "is no verdict"),
            ("weather > 3", "is no state"),
            ("not here", "is no state, no finding"),
        ] {
            let refused = text.parse::<Condition>().expect_err(text);
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }

    #[test]
    fn timers_say_when_it_will_hold() {
        let mut snapshot = calm();
        let stock = snapshot.stock.as_mut().expect("it has one");
        stock.time_wait_ends = vec![10, 0, 30, 60];
        let judgement = Findings::new().judge(&snapshot);
        let judged = Judged {
            snapshot: &snapshot,
            judgement: &judgement,
        };
        let in_s = |text: &str| {
            let condition: Condition = text.parse().expect("a condition");
            let What::Count(state, compared, limit) = condition.what else {
                panic!("{text} counts nothing")
            };
            condition.ends_in_s(&judged, state, compared, limit)
        };
        assert_eq!(in_s("time_wait < 100"), Some(1));
        assert_eq!(in_s("time_wait <= 60"), Some(3));
        assert_eq!(in_s("time_wait < 60"), Some(4));
        assert_eq!(in_s("time_wait > 5"), None);
        assert_eq!(in_s("established < 5"), None);
    }
}
