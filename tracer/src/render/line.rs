//! Lines of toned text, and how blocks of them share a screen.
//!
//! A line knows its width without its colours, so that columns can be laid
//! out first and coloured when they are written. Tones are few: what is wrong
//! must be the brightest thing on the screen. Whatever text comes in is made
//! safe for a terminal ([`printable`]): colours are the only escapes in a line.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::printable;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// A heading, or the number that matters.
    Strong,
    /// Zeros, units, the time of day.
    Faint,
    Good,
    Warn,
    Bad,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Pieces of printable text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    #[must_use]
    pub fn of(tone: Tone, text: impl Into<String>) -> Line {
        Line::default().and(tone, text)
    }

    pub fn push(&mut self, tone: Tone, text: impl Into<String>) {
        let text: String = text.into();
        self.0.push((tone, printable::text(text).into_owned()));
    }

    #[must_use]
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.push(tone, text);
        self
    }

    /// In characters, all of which are taken to be one cell wide.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// One after the other.
    #[must_use]
    pub fn joined(mut self, right: Line) -> Line {
        self.0.extend(right.0);
        self
    }

    fn beside(self, right: Line, column: usize) -> Line {
        let gap = column.saturating_sub(self.width());
        self.and(Tone::Plain, " ".repeat(gap)).joined(right)
    }

    /// At most the first `width` cells.
    #[must_use]
    pub fn cut(self, width: usize) -> Line {
        let mut left = width;
        let mut kept = Line::default();
        for (tone, text) in self.0 {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            kept.push(tone, text);
        }
        kept
    }

    /// The line without blanks at its end, and its newline.
    pub fn write(&self, out: &mut dyn Write, styled: bool) -> io::Result<()> {
        let last = self
            .0
            .iter()
            .rposition(|(_, text)| !text.trim_end().is_empty());
        for (i, (tone, text)) in self.0.iter().enumerate() {
            let text = match last {
                Some(last) if i < last => text.as_str(),
                Some(last) if i == last => text.trim_end(),
                _ => break,
            };
            if styled && *tone != Tone::Plain {
                let style = tone.style();
                write!(out, "{style}{text}{style:#}")?;
            } else {
                out.write_all(text.as_bytes())?;
            }
        }
        out.write_all(b"\n")
    }
}

/// Words broken into lines of at most `width` cells; all but the first begin
/// with `indent` blanks. A number stays with its unit.
#[must_use]
pub fn wrapped(tone: Tone, text: &str, width: usize, indent: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(text) {
        let blank = usize::from(!line.trim().is_empty());
        if blank == 1 && line.chars().count() + blank + word.chars().count() > width {
            lines.push(Line::of(
                tone,
                std::mem::replace(&mut line, " ".repeat(indent)),
            ));
        } else if blank == 1 {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(Line::of(tone, line));
    lines
}

/// What stands between the parts of a list.
const SEPARATOR: &str = " · ";

/// Parts in a row, broken into lines only between them, where no separator stays.
#[must_use]
pub fn listed(tone: Tone, parts: &[String], width: usize) -> Vec<Line> {
    let mut rows: Vec<String> = Vec::new();
    for part in parts {
        match rows.last_mut() {
            Some(row)
                if [row.as_str(), SEPARATOR, part]
                    .iter()
                    .map(|text| text.chars().count())
                    .sum::<usize>()
                    <= width =>
            {
                row.push_str(SEPARATOR);
                row.push_str(part);
            }
            _ => rows.push(part.clone()),
        }
    }
    rows.iter()
        .flat_map(|row| wrapped(tone, row, width, 0))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let unit = word.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '%');
        match words.last_mut() {
            Some(number)
                if number.ends_with(|c: char| c.is_ascii_digit())
                    && matches!(
                        unit,
                        "%" | "µs" | "ms" | "s" | "min" | "h" | "d" | "B" | "kB" | "MB" | "GB"
                    ) =>
            {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// Lines that belong together and are shown or left out together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What a block that did not fit is called.
    pub name: &'static str,
    pub lines: Vec<Line>,
    /// Follows the block before it without an empty line between.
    pub tight: bool,
}

impl Block {
    #[must_use]
    pub fn new(name: &'static str, lines: Vec<Line>) -> Block {
        Block {
            name,
            lines,
            tight: false,
        }
    }

    #[must_use]
    pub fn width(&self) -> usize {
        self.lines.iter().map(Line::width).max().unwrap_or(0)
    }

    /// Both as one, `right` beginning `gap` cells after the widest line.
    #[must_use]
    pub fn beside(self, right: Block, gap: usize) -> Block {
        let column = self.width() + gap;
        let mut rights = right.lines.into_iter();
        let mut lines: Vec<Line> = self
            .lines
            .into_iter()
            .map(|left| left.beside(rights.next().unwrap_or_default(), column))
            .collect();
        lines.extend(rights.map(|right| Line::default().beside(right, column)));
        Block {
            name: self.name,
            lines,
            tight: self.tight,
        }
    }
}

/// A table cut short below this many lines says nothing.
const WORTH_SHOWING: usize = 4;

/// Blocks below one another, an empty line between them. Where `height` does
/// not suffice, the first that does not fit is cut short, those after it are
/// left out, and the last line names as many of them as fit it.
#[must_use]
pub fn stacked(blocks: Vec<Block>, width: usize, height: Option<usize>) -> Vec<Line> {
    let between = |first: bool, block: &Block| usize::from(!first && !block.tight);
    let all: usize = blocks
        .iter()
        .enumerate()
        .map(|(i, block)| block.lines.len() + between(i == 0, block))
        .sum();
    let room = match height {
        Some(height) if all > height => height.saturating_sub(1),
        _ => usize::MAX,
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut missing = Vec::new();
    for block in blocks {
        let first = lines.is_empty();
        let gap = between(first, &block);
        let left = room.saturating_sub(lines.len() + gap);
        let fits = block.lines.len() <= left;
        let shown = if fits || first || left >= WORTH_SHOWING {
            left
        } else {
            0
        };
        if !missing.is_empty() || shown == 0 {
            missing.push(block.name);
            continue;
        }
        if !fits {
            missing.push(block.name);
        }
        lines.extend((0..gap).map(|_| Line::default()));
        lines.extend(block.lines.into_iter().take(shown));
    }
    if !missing.is_empty() {
        lines.push(Line::of(Tone::Faint, in_a_taller_window(&missing, width)));
    }
    lines.into_iter().map(|line| line.cut(width)).collect()
}

fn in_a_taller_window(missing: &[&str], width: usize) -> String {
    let all = format!("in a taller window: {}", missing.join(", "));
    let fits = |text: &String| text.chars().count() <= width;
    let number = missing.len();
    let shortened = (1..number).rev().map(|named| {
        let names = missing[..named].join(", ");
        format!("in a taller window: {number} more ({names}, …)")
    });
    std::iter::once(all)
        .chain(shortened)
        .find(fits)
        .unwrap_or_else(|| format!("in a taller window: {number} more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line], styled: bool) -> String {
        let mut out = Vec::new();
        for line in lines {
            line.write(&mut out, styled).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn block(name: &'static str, lines: &[&str]) -> Block {
        Block::new(
            name,
            lines
                .iter()
                .map(|line| Line::of(Tone::Plain, *line))
                .collect(),
        )
    }

    #[test]
    fn tones_are_written_only_when_styled() {
        let line = Line::of(Tone::Bad, "hurts")
            .and(Tone::Plain, "  ")
            .and(Tone::Faint, "   ");
        assert_eq!(text(std::slice::from_ref(&line), false), "hurts\n");
        assert_eq!(text(&[line], true), "\u{1b}[1m\u{1b}[31mhurts\u{1b}[0m\n");
    }

    #[test]
    fn words_wrap_and_hang() {
        let lines = wrapped(Tone::Plain, "one two three four", 9, 2);
        assert_eq!(text(&lines, false), "one two\n  three\n  four\n");
        assert_eq!(
            text(&wrapped(Tone::Plain, "unbreakable", 4, 2), false),
            "unbreakable\n"
        );
    }

    #[test]
    fn lists_break_between_their_parts() {
        let parts = ["one two", "three", "four five six"].map(str::to_owned);
        let page = |width| text(&listed(Tone::Plain, &parts, width), false);
        assert_eq!(page(31), "one two · three · four five six\n");
        assert_eq!(page(30), "one two · three\nfour five six\n");
        assert_eq!(page(14), "one two\nthree\nfour five six\n");
        assert_eq!(page(9), "one two\nthree\nfour five\nsix\n");
    }

    #[test]
    fn blocks_stand_side_by_side() {
        let both = block("a", &["a", "aaa"]).beside(block("b", &["b", "bb", "bbb"]), 2);
        assert_eq!(text(&both.lines, false), "a    b\naaa  bb\n     bbb\n");
        assert_eq!(both.width(), 8);
    }

    #[test]
    fn names_that_do_not_fit_are_counted() {
        let names = ["Estimate", "Lives", "remote addresses"];
        for (width, said) in [
            (53, "in a taller window: Estimate, Lives, remote addresses"),
            (47, "in a taller window: 3 more (Estimate, Lives, …)"),
            (46, "in a taller window: 3 more (Estimate, …)"),
            (39, "in a taller window: 3 more"),
        ] {
            assert_eq!(in_a_taller_window(&names, width), said);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let blocks = || {
            vec![
                block("a", &["a1", "a2"]),
                block("b", &["b1", "b2"]),
                block("c", &["c1"]),
            ]
        };
        assert_eq!(
            text(&stacked(blocks(), 80, Some(7)), false),
            "a1\na2\n\nb1\nb2\n\nc1\n"
        );
        assert_eq!(
            text(&stacked(blocks(), 80, Some(6)), false),
            "a1\na2\n\nb1\nb2\nin a taller window: c\n"
        );
        assert_eq!(
            text(&stacked(blocks(), 80, Some(5)), false),
            "a1\na2\nin a taller window: b, c\n"
        );
        assert_eq!(
            text(&stacked(blocks(), 80, Some(2)), false),
            "a1\nin a taller window: a, b, c\n"
        );
        assert_eq!(
            text(&stacked(blocks(), 26, Some(2)), false),
            "a1\nin a taller window: 3 more\n"
        );
        assert_eq!(
            text(&stacked(blocks(), 2, None), false),
            "a1\na2\n\nb1\nb2\n\nc1\n"
        );
    }
}
