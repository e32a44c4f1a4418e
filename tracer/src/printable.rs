//! Text that others chose, made safe for a terminal.
//!
//! What a process calls itself, the name of a namespace, a line of somebody's
//! recording: any of these may hold bytes that move the cursor, turn the reading
//! direction round, or are not seen at all. A line shows `�` for each such
//! character ([`text`]), so that columns stay where they are; JSON has the
//! character itself, as `\uXXXX` ([`write_json`]).
//!
//! Lines and JSON are put together by [`crate::render`], which is where this is
//! called: nobody who has a name to show has to think of it.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Shown for a character that is not.
pub const SUBSTITUTE: char = char::REPLACEMENT_CHARACTER;

/// Marks on one letter: pointed Hebrew has up to four. A heap of them covers the
/// lines above and below.
const MARKS: usize = 4;

/// Tells which characters of a text are shown as they are.
#[derive(Debug, Default)]
struct Eye {
    /// Marks since the last letter.
    marks: usize,
}

impl Eye {
    fn takes(&mut self, c: char) -> bool {
        if is_plain(c) {
            self.marks = 0;
            return true;
        }
        if c.is_ascii() || is_ignorable(c) {
            return false;
        }
        match get_general_category(c) {
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark => {
                self.marks += 1;
                self.marks <= MARKS
            }
            // What nobody has defined yet may turn out to be any of the others.
            GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned => false,
            _ => {
                self.marks = 0;
                true
            }
        }
    }
}

fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~')
}

/// Of `Default_Ignorable_Code_Point` what is not of the category Cf: fillers,
/// variation selectors, and places kept for more of their kind. They are letters
/// or marks by their category, and yet nothing is seen of them.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2065}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn is_all_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The text of one line, as long as it was: each control, format or otherwise
/// invisible character is a [`SUBSTITUTE`], the newline and the tab among them.
#[must_use]
pub fn text<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    if is_all_plain(&text) {
        return text;
    }
    let mut eye = Eye::default();
    if text.chars().all(|c| eye.takes(c)) {
        return text;
    }
    let mut eye = Eye::default();
    let shown = text
        .chars()
        .map(|c| if eye.takes(c) { c } else { SUBSTITUTE });
    Cow::Owned(shown.collect())
}

/// Text that may be of several lines, such as what a verifier said: those after
/// the first are indented, so that none can be taken for a line of ours.
#[must_use]
pub fn indented(several: &str) -> String {
    let lines: Vec<Cow<'_, str>> = several.split('\n').map(text).collect();
    lines.join("\n    ")
}

/// JSON whose strings hold what they held and show no character that [`text`]
/// would not.
pub fn write_json<T: Serialize + ?Sized>(out: impl Write, value: &T) -> io::Result<()> {
    value
        .serialize(&mut Serializer::with_formatter(out, Escaping))
        .map_err(io::Error::from)
}

/// As compact as serde's own.
#[derive(Clone, Copy, Debug)]
struct Escaping;

impl Formatter for Escaping {
    /// What JSON itself wants escaped is not in here.
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if is_all_plain(fragment) {
            return out.write_all(fragment.as_bytes());
        }
        let mut eye = Eye::default();
        let mut written = 0;
        for (at, c) in fragment.char_indices() {
            if eye.takes(c) {
                continue;
            }
            out.write_all(&fragment.as_bytes()[written..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            written = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(value: &str) -> String {
        let mut out = Vec::new();
        write_json(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Said by somebody else: what `Eye` says of each, spelled out.
    const NEVER_SHOWN: &[(u32, u32)] = &[
        (0x00, 0x1f),
        (0x7f, 0x9f),
        (0xad, 0xad),
        (0x061c, 0x061c),
        (0x180e, 0x180e),
        (0x200b, 0x200f),
        (0x2028, 0x202e),
        (0x2060, 0x206f),
        (0xfe00, 0xfe0f),
        (0xfeff, 0xfeff),
        (0xfff9, 0xfffb),
        (0x1d173, 0x1d17a),
        (0xe0001, 0xe007f),
        (0xe0100, 0xe01ef),
    ];

    #[test]
    fn what_steers_or_is_not_seen_is_never_shown() {
        for &(from, to) in NEVER_SHOWN {
            for c in (from..=to).filter_map(char::from_u32) {
                let name = format!("a{c}b");
                assert_eq!(text(&name), "a\u{fffd}b", "{c:?}");
                let shown = json(&name);
                assert!(!shown.contains(c), "{c:?}: {shown}");
                assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), name);
            }
        }
    }

    #[test]
    fn what_people_write_is_shown_as_it_is() {
        for name in [
            "curl",
            "größe · naïve",
            "/system.slice/сервис.service",
            "日本語 サービス 한국어",
            "Tiếng Việt",
            "e\u{301}\u{323}",
            "שָׁלוֹם",
            "مثال",
            "हिन्दी",
            "€ → █▌ ●",
            "🚀",
            "",
        ] {
            assert_eq!(text(name), name);
            assert_eq!(json(name), format!("\"{name}\""));
        }
    }

    #[test]
    fn a_heap_of_marks_is_cut_down() {
        let heap = format!("Z{}algo", "\u{335}".repeat(40));
        let shown = text(&heap);
        assert_eq!(shown.matches('\u{335}').count(), MARKS);
        assert_eq!(shown.chars().count(), heap.chars().count());
        assert_eq!(serde_json::from_str::<String>(&json(&heap)).unwrap(), heap);
    }

    #[test]
    fn a_second_line_is_no_line_of_ours() {
        assert_eq!(
            indented("no\x1b[2J\ntwtrace: all is well\r"),
            "no\u{fffd}[2J\n    twtrace: all is well\u{fffd}"
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_steers(name: String) {
            let shown = text(&name);
            prop_assert_eq!(shown.chars().count(), name.chars().count());
            prop_assert_eq!(text(&*shown), &*shown, "what is shown is shown as it is");
            let json = json(&name);
            prop_assert_eq!(text(&*json), &*json);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
        }
    }
}
