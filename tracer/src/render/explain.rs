//! What is known of a state or a sysctl, as a page for a terminal.
//!
//! Pure: what a sysctl is set to here comes in as a value.

use tracer_common::state::State;

use super::line::{Line, Tone, wrapped};
use crate::knowledge::states::{self, Meaning};
use crate::knowledge::sysctls::{self, Bites, Claim, Known, Reach, Sysctl, Value, Version};
use crate::model::clock::wheel_slack;

/// Blanks before what a heading at the left is about.
const INDENT: usize = 12;

/// `TCP_TIMEWAIT_LEN` of mainline.
const TIME_WAIT_S: u32 = 60;

/// What a sysctl is set to on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the network namespace that we are in; `None`: there is no such key.
    pub here: Option<String>,
    /// Values of other network namespaces that differ, with the names or inodes
    /// of those that have them.
    pub elsewhere: Vec<(String, Vec<String>)>,
    /// How many other network namespaces were read.
    pub others: usize,
}

/// A state.
#[must_use]
pub fn state(meaning: &Meaning, hz: u32, width: usize) -> Vec<Line> {
    let mut page = Page::new(width);
    page.title(meaning.state.name(), &names(meaning));
    page.row("", meaning.means);
    page.row("Waits", meaning.waits);
    if meaning.state == State::TimeWait {
        let ticks = |n: u32| f64::from(TIME_WAIT_S) + f64::from(n) / f64::from(hz);
        page.row(
            "",
            &format!(
                "The kernel's timer is from one tick to one bucket late, so on this machine \
                 ({hz} ticks a second) it lives {:.3} to {:.3} s unless somebody ends it.",
                ticks(1),
                ticks(wheel_slack(TIME_WAIT_S * hz))
            ),
        );
    }
    page.lines.push(Line::default());
    page.table(
        "Ends by",
        meaning.ends.iter().map(|end| (end.word, end.when)),
    );
    page.lines.push(Line::default());
    page.row("It hurts", meaning.hurts);
    if !meaning.keys.is_empty() {
        page.row("Sysctls", &meaning.keys.join(", "));
    }
    if meaning.state != State::Close {
        let word = meaning.ss.to_ascii_lowercase();
        page.row("Watch it", &format!("twtrace events --state {word}"));
    }
    page.lines
}

/// Other spellings than netstat's.
fn names(meaning: &Meaning) -> String {
    let mut names: Vec<&str> = meaning.names().skip(1).collect();
    names.retain(|name| *name != meaning.state.name());
    format!("ss: {}", names.join(", "))
}

/// A sysctl, on this kernel.
#[must_use]
pub fn sysctl(sysctl: &Sysctl, found: &Found, kernel: Version, width: usize) -> Vec<Line> {
    let mut page = Page::new(width);
    page.title(sysctl.name, "");
    page.row("Sets", sysctl.sets);
    page.row("Values", sysctl.values);
    page.row("Here", &here(sysctl, found, kernel));
    page.row("Default", &default(sysctl.default));
    page.row("Kernels", &sysctl.versions.to_string());
    page.row("Reaches", reach(sysctl.reach));
    page.row("A change", bites(sysctl.bites));
    for (heading, claims) in [("It can", sysctl.can), ("It cannot", sysctl.cannot)] {
        if !claims.is_empty() {
            page.lines.push(Line::default());
            page.claims(heading, claims);
        }
    }
    page.lines.push(Line::default());
    page.row("It moves", &moves(sysctl));
    if let Some(caution) = sysctl.caution {
        page.row("Beware", caution);
    }
    if sysctl.bites != Bites::Never && found.here.is_some() && sysctl.reach == Reach::Namespace {
        page.row(
            "Try it",
            &format!("twtrace lab -- trial --set {}=VALUE", sysctl.name),
        );
    }
    page.lines
}

fn here(sysctl: &Sysctl, found: &Found, kernel: Version) -> String {
    let Some(value) = &found.here else {
        return match (sysctl.absent_from(kernel), sysctl.reach) {
            (Some(why), _) => why,
            (None, Reach::Machine) => {
                "not shown in this network namespace, only in the machine's first".to_owned()
            }
            (None, _) => {
                "no such key: a module is not loaded, or the kernel was built without it".to_owned()
            }
        };
    };
    let value = match value.as_str() {
        "" => "nothing",
        value => value,
    };
    let mut text = format!("{value} in this network namespace");
    for (value, names) in &found.elsewhere {
        let shown = 3.min(names.len());
        text += &format!("; {value} in {}", names[..shown].join(", "));
        match names.len() - shown {
            0 => {}
            1 => text += " and 1 other",
            n => text += &format!(" and {n} others"),
        }
    }
    let same = found.others - found.elsewhere.iter().map(|(_, n)| n.len()).sum::<usize>();
    match same {
        0 => text,
        1 => text + "; the same in 1 other",
        n => text + &format!("; the same in {n} others"),
    }
}

fn default(value: Value) -> String {
    match value {
        Value::Always("") => "nothing".to_owned(),
        Value::Always(value) => value.to_owned(),
        Value::Sized(how) => how.to_owned(),
        Value::None => "none".to_owned(),
    }
}

/// How far a value reaches, as a clause.
#[must_use]
pub fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Namespace => {
            "one network namespace; a new one begins with the kernel's default, whatever the host is set to"
        }
        Reach::Machine => "the whole machine; other network namespaces do not have it",
    }
}

/// When a change is felt, as a clause.
#[must_use]
pub fn bites(bites: Bites) -> &'static str {
    match bites {
        Bites::AtOnce => "is felt at once, by connections there are already too",
        Bites::NextWait => {
            "is felt by waits that begin from then on; one that has begun keeps its length"
        }
        Bites::NewConnections => "is felt by new connections only",
        Bites::NextListen => "is felt when the program calls listen() again, mostly at its restart",
        Bites::Never => "is never felt",
    }
}

/// How a claim is known, as a clause.
#[must_use]
pub fn known(known: Known) -> &'static str {
    match known {
        Known::Held(_) => "measured, and held by a test",
        Known::Measured => "measured",
        Known::Source => "read in the kernel's sources",
        Known::Documented => "as the kernel documents",
    }
}

/// Which metrics of a comparison it can move, as a clause.
#[must_use]
pub fn moves(sysctl: &Sysctl) -> String {
    let with = |only| -> Vec<&str> {
        let under = sysctl.effects.iter().filter(|effect| effect.only == only);
        under.map(|effect| effect.metric).collect()
    };
    let mut parts = Vec::new();
    let always = with(None);
    if !always.is_empty() {
        parts.push(always.join(", "));
    }
    let mut conditions: Vec<&str> = Vec::new();
    for only in sysctl.effects.iter().filter_map(|effect| effect.only) {
        if !conditions.contains(&only) {
            conditions.push(only);
        }
    }
    for only in conditions {
        parts.push(format!("only {only}: {}", with(Some(only)).join(", ")));
    }
    if parts.is_empty() {
        "none of the metrics that twtrace compares".to_owned()
    } else {
        parts.join("; ")
    }
}

/// All states and sysctls, a line each.
#[must_use]
pub fn list(width: usize) -> Vec<Line> {
    let mut page = Page::new(width);
    page.title("States", "");
    let first = |text: &'static str| text.split_inclusive(['.', ':']).next().unwrap_or(text);
    page.rows(
        16,
        states::ALL.iter().map(|meaning| {
            let said = first(meaning.means).trim_end_matches([':', '.']);
            (meaning.state.name(), said)
        }),
    );
    page.lines.push(Line::default());
    page.title("Sysctls", "");
    page.rows(
        28,
        sysctls::ALL
            .iter()
            .map(|sysctl| (sysctl.key(), sysctl.sets)),
    );
    page.lines.push(Line::default());
    page.lines.extend(wrapped(
        Tone::Plain,
        "`twtrace explain WORD` says more of each.",
        width,
        0,
    ));
    page.lines
}

/// Lines below one another, with headings in a column at the left.
struct Page {
    lines: Vec<Line>,
    width: usize,
}

impl Page {
    fn new(width: usize) -> Page {
        Page {
            lines: Vec::new(),
            width,
        }
    }

    fn title(&mut self, name: &str, note: &str) {
        let line = Line::of(Tone::Strong, name);
        self.lines.push(if note.is_empty() {
            line
        } else {
            line.and(Tone::Faint, format!("  {note}"))
        });
    }

    /// A heading of [`INDENT`] cells and its text.
    fn row(&mut self, heading: &str, text: &str) {
        self.indented(heading, INDENT, Tone::Plain, text);
    }

    fn rows<'a>(&mut self, indent: usize, rows: impl Iterator<Item = (&'a str, &'a str)>) {
        for (heading, text) in rows {
            self.indented(heading, indent, Tone::Plain, text);
        }
    }

    fn indented(&mut self, heading: &str, indent: usize, tone: Tone, text: &str) {
        // A heading that is too long has a line of its own.
        let long = heading.chars().count() + 4 > indent;
        if long {
            self.lines
                .push(Line::of(Tone::Strong, format!("  {heading}")));
        }
        let width = self.width.saturating_sub(indent).max(20);
        for (i, line) in wrapped(tone, text, width, 0).into_iter().enumerate() {
            let heading = if i == 0 && !long { heading } else { "" };
            let left = format!("  {heading:<0$}", indent - 2);
            self.lines.push(Line::of(Tone::Strong, left).joined(line));
        }
    }

    /// Rows of a word and its text, below a heading.
    fn table(&mut self, heading: &str, rows: impl Iterator<Item = (&'static str, &'static str)>) {
        let mut heading = heading;
        for (word, text) in rows {
            const WORDS: usize = 25;
            let indent = INDENT + WORDS;
            let width = self.width.saturating_sub(indent).max(20);
            for (i, line) in wrapped(Tone::Plain, text, width, 0).into_iter().enumerate() {
                let word = if i == 0 { word } else { "" };
                let left = Line::of(Tone::Strong, format!("  {heading:<0$}", INDENT - 2))
                    .and(Tone::Plain, format!("{word:<WORDS$}"));
                self.lines.push(left.joined(line));
                heading = "";
            }
        }
    }

    fn claims(&mut self, heading: &str, claims: &[Claim]) {
        for (i, claim) in claims.iter().enumerate() {
            let heading = if i == 0 { heading } else { "" };
            let text = format!("{} ({})", claim.says, known(claim.known));
            let width = self.width.saturating_sub(INDENT + 2).max(20);
            for (j, line) in wrapped(Tone::Plain, &text, width, 0)
                .into_iter()
                .enumerate()
            {
                let (heading, dot) = if j == 0 { (heading, "- ") } else { ("", "  ") };
                let left = format!("  {heading:<0$}{dot}", INDENT - 2);
                self.lines.push(Line::of(Tone::Strong, left).joined(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: Vec<Line>) -> String {
        let mut out = Vec::new();
        for line in lines {
            line.write(&mut out, false).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn time_wait() {
        let meaning = states::find("time-wait").unwrap();
        insta::assert_snapshot!(text(state(meaning, 250, 80)));
    }

    #[test]
    fn fin_timeout_that_differs_between_namespaces() {
        let found = Found {
            here: Some("15".into()),
            elsewhere: vec![("60".into(), vec!["blue".into(), "4026532281".into()])],
            others: 3,
        };
        let key = sysctls::find("tcp_fin_timeout").unwrap();
        insta::assert_snapshot!(text(sysctl(key, &found, (6, 18), 80)));
    }

    #[test]
    fn a_key_that_is_gone() {
        let key = sysctls::find("tcp_tw_recycle").unwrap();
        let said = text(sysctl(key, &Found::default(), (6, 18), 80));
        assert!(
            said.contains("Linux 4.11 was the last to have it"),
            "{said}"
        );
        assert!(!said.contains("Try it"), "{said}");
    }

    #[test]
    fn the_list() {
        insta::assert_snapshot!(text(list(80)));
    }

    #[test]
    fn no_line_is_wider_than_asked_for() {
        for width in [60, 80, 100] {
            let pages = sysctls::ALL
                .iter()
                .map(|key| sysctl(key, &Found::default(), (6, 18), width))
                .chain(states::ALL.iter().map(|meaning| state(meaning, 250, width)))
                .chain([list(width)]);
            for line in pages.flatten() {
                assert!(line.width() <= width, "{line:?}");
            }
        }
    }
}
