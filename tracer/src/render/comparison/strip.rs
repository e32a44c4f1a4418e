//! The phases of a comparison as dots on a line, so that an eye can judge what
//! a number claims.

use crate::analysis::compare::words::number;
use crate::analysis::compare::{Compared, Design};
use crate::render::line::{Line, Tone};

/// Cells of the line.
const WIDEST: usize = 49;
const NARROWEST: usize = 15;
/// Cells before the line.
const INDENT: usize = 4;

/// Nothing where there is nothing to show.
pub(super) fn of(metric: &Compared, design: &Design, width: usize) -> Vec<Line> {
    let is_ratio = !matches!(metric.unit, "share" | "1/1000" | "per TIME_WAIT");
    let away = |value: f64, from: f64| {
        if is_ratio {
            value / from - 1.0
        } else {
            value - from
        }
    };
    let rows: Vec<(&str, Vec<f64>)> = match design {
        Design::Pairs { .. } => vec![("pairs", between(metric, away))],
        Design::Parallel { .. } => {
            let Some(from) = metric.before else {
                return Vec::new();
            };
            let arm = |values: &[Option<f64>]| {
                let known = values.iter().flatten();
                known.map(|value| away(*value, from)).collect()
            };
            vec![
                ("before", arm(&metric.values.before)),
                ("after", arm(&metric.values.after)),
            ]
        }
        Design::Switch { .. } => {
            let placebos = metric.values.placebos.iter();
            let placebos = placebos.filter_map(|[a, b]| Some(away((*b)?, (*a)?)));
            vec![
                ("placebos", placebos.collect()),
                ("switch", between(metric, away)),
            ]
        }
    };
    let dots = || rows.iter().flat_map(|(_, dots)| dots);
    if dots().count() == 0 || dots().any(|dot| !dot.is_finite()) {
        return Vec::new();
    }
    let edge = 1.25 * metric.margin;
    let axis = Axis {
        low: dots().fold(-edge, |low, dot| low.min(*dot)),
        high: dots().fold(edge, |high, dot| high.max(*dot)),
        margin: metric.margin,
    };
    let (scale, unit) = match metric.unit {
        "share" => (100.0, "points"),
        _ if is_ratio => (100.0, "%"),
        "1/1000" => (1.0, "in 1,000"),
        _ => (1.0, ""),
    };
    let left = number(scale * axis.low);
    let right = format!("+{} {unit}", number(scale * axis.high));
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let around = INDENT + names + left.chars().count() + right.chars().count() + 5;
    let cells = width.saturating_sub(around).clamp(NARROWEST, WIDEST);
    rows.iter()
        .map(|(name, dots)| {
            let drawn = axis.drawn(dots, cells);
            Line::of(Tone::Faint, format!("{:INDENT$}{name:<names$} {left} ", ""))
                .and(Tone::Plain, drawn)
                .and(Tone::Faint, format!(" {right}"))
        })
        .collect()
}

/// Of each pair, from before to after.
fn between(metric: &Compared, away: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let values = &metric.values;
    let pairs = values.before.iter().zip(&values.after);
    pairs
        .filter_map(|(before, after)| Some(away((*after)?, (*before)?)))
        .collect()
}

struct Axis {
    low: f64,
    high: f64,
    margin: f64,
}

impl Axis {
    /// No change is `│`, the margin `┊`; dots in one cell are counted.
    fn drawn(&self, dots: &[f64], cells: usize) -> String {
        let last = cells.saturating_sub(1) as f64;
        let place = |x: f64| {
            let share = (x - self.low) / (self.high - self.low);
            (share * last).round().clamp(0.0, last) as usize
        };
        let mut line = vec!['·'; cells];
        line[place(-self.margin)] = '┊';
        line[place(self.margin)] = '┊';
        line[place(0.0)] = '│';
        let mut counts = vec![0_u32; cells];
        for &dot in dots {
            counts[place(dot)] += 1;
        }
        for (cell, count) in line.iter_mut().zip(counts) {
            match count {
                0 => {}
                1 => *cell = '●',
                n => *cell = char::from_digit(n, 10).unwrap_or('+'),
            }
        }
        line.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn dots_stand_where_they_belong() {
        let axis = |low: f64, high: f64| Axis {
            low,
            high,
            margin: 0.1,
        };
        let even = axis(-0.2, 0.2);
        assert_eq!(even.drawn(&[], 9), "··┊·│·┊··");
        assert_eq!(even.drawn(&[-0.2, 0.0, 0.2], 9), "●·┊·●·┊·●");
        assert_eq!(even.drawn(&[0.05, 0.05, 0.1], 9), "··┊·│2●··");
        assert_eq!(axis(-0.1, 0.7).drawn(&[0.7], 9), "┊│┊·····●");
    }
}
