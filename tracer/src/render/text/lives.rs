//! How long TIME_WAITs lived: the histogram with the edges that mean
//! something, the 2MSL band marked, and what lies beyond it.

use crate::model::snapshot::{Bucket, Snapshot, Timer};
use crate::render::line::{Block, Line, Tone};
use crate::units;

/// Columns before the bar.
const BEFORE_BAR: usize = 13 + 1 + 9 + 1 + 7 + 1;

/// Narrower, the histogram stands alone.
pub(super) const NARROWEST: usize = BEFORE_BAR + 3;

/// Longer bars say no more.
const LONGEST_BAR: usize = 30;

/// Needed behind the bar for the words of the band.
const WORDS: usize = 18;

pub(super) fn block(snapshot: &Snapshot, width: usize) -> Block {
    let lifetime = &snapshot.time_wait.lifetime_s;
    let whole = lifetime.distribution.count;
    let words = width >= BEFORE_BAR + 10 + WORDS;
    let bar = width
        .saturating_sub(BEFORE_BAR + if words { WORDS } else { 0 })
        .min(LONGEST_BAR);
    let heading = format!("{:<14} {:>8} {:>7}", "TIME_WAIT LIFE", "ENDED", "SHARE");
    let mut lines = vec![Line::of(Tone::Strong, heading)];
    let band = lifetime
        .buckets
        .iter()
        .find(|bucket| is_band(bucket, &snapshot.time_wait.timer));
    for bucket in &lifetime.buckets {
        let place = match band {
            Some(band) if bucket == band => Place::Band,
            Some(band) if band.lt.is_some_and(|end| bucket.ge >= end) => Place::Beyond,
            _ => Place::Before,
        };
        // RFC 9293's 2MSL is worth a row where there is room, or a life that long.
        if words || place != Place::Beyond || bucket.lt.is_some() || bucket.count > 0 {
            lines.push(row(bucket, whole, place, bar, words));
        }
    }
    Block::new("lives", lines)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Band,
    Beyond,
}

/// The band is as wide as the timer wheel's slack, which no other bucket is.
fn is_band(bucket: &Bucket, timer: &Timer) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() < 0.005;
    match timer.nominal_s {
        Some(nominal) => near(bucket.ge, nominal),
        None => bucket
            .lt
            .is_some_and(|lt| timer.slack_s > 0.0 && near(lt - bucket.ge, timer.slack_s)),
    }
}

fn row(bucket: &Bucket, whole: u64, place: Place, bar: usize, words: bool) -> Line {
    // Where no words fit behind the bar, the band is named instead of measured.
    let label = match place {
        Place::Band if !words => "2MSL".to_owned(),
        Place::Beyond if !words && bucket.lt.is_some() => "later".to_owned(),
        _ => label(bucket),
    };
    let tone = match (bucket.count, place) {
        (0, Place::Before | Place::Beyond) => Tone::Faint,
        (_, Place::Band) => Tone::Good,
        (_, Place::Beyond) => Tone::Warn,
        _ => Tone::Plain,
    };
    let share = if whole == 0 {
        0.0
    } else {
        bucket.count as f64 / whole as f64
    };
    let share_text = if bucket.count == 0 {
        String::new()
    } else {
        units::percent(share)
    };
    let mut line = Line::of(
        tone,
        format!(
            "{label:<14} {:>8} {share_text:>7} ",
            units::count(bucket.count)
        ),
    );
    let cells = units::bar(share, bar);
    let words = match (words, place) {
        (true, Place::Band) => " 2MSL",
        (true, Place::Beyond) => " re-armed or late",
        _ => "",
    };
    line.push(tone, cells);
    line.push(Tone::Faint, words);
    line
}

/// `< 1 ms`, `1 - 100 ms`, `60 - 62.05 s`, `> 62.05 s`.
fn label(bucket: &Bucket) -> String {
    match bucket.lt {
        None => format!("> {}", units::edge(bucket.ge)),
        Some(lt) if bucket.ge <= 0.0 => format!("< {}", units::edge(lt)),
        Some(lt) => {
            let (from, to) = (units::edge(bucket.ge), units::edge(lt));
            match (from.split_once(' '), to.split_once(' ')) {
                (Some((number, unit)), Some((_, same))) if unit == same => {
                    format!("{number} - {to}")
                }
                _ => format!("{from} - {to}"),
            }
        }
    }
}
