//! One switch in the past: which stretches are held against each other, and
//! which pairs of stretches before it serve as placebos.
//!
//! A placebo is laid out like the real thing: a stretch, a gap, a stretch, none
//! of which overlaps another. So it shows how far two such stretches differ
//! that nothing came between. It knows lengths, not what was measured.

/// As long as whole minutes allow, but never at the price of fewer placebos
/// than these: a long stretch hardly tells more than a short one where the load
/// wanders, and a placebo more always does.
const WELCOME: usize = 8;
/// Fewer are an estimate, never a verdict.
pub const ENOUGH: usize = 5;
/// Of an estimate.
const AT_LEAST: usize = 3;

/// Those of a week; a recording may claim to be of any length.
const MOST: usize = 4096;

/// cron works by the minute: whole ones have the same share of it.
const MINUTE: f64 = 60.0;

/// Seconds, by whatever clock the stretch is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub from: f64,
    pub to: f64,
}

impl Span {
    #[must_use]
    pub fn length(self) -> f64 {
        (self.to - self.from).max(0.0)
    }

    fn ending(to: f64, length: f64) -> Span {
        Span {
            from: to - length,
            to,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    pub measured_s: f64,
    pub before: Span,
    pub after: Span,
    /// The latest first.
    pub placebos: Vec<[Span; 2]>,
}

/// `before` ends where the switch may have come, `after` begins where its
/// effect had settled, `gap_s` lies between them. `None` where there is not
/// even an estimate.
#[must_use]
pub fn windows(before: Span, after: Span, gap_s: f64) -> Option<Windows> {
    let fitting = |measured: f64, gap: f64| {
        let left = before.length() - measured;
        (left / (2.0 * measured + gap)).floor().max(0.0) as usize
    };
    let fits = |measured: f64| {
        measured <= after.length().min(before.length()) && fitting(measured, gap_s) >= ENOUGH
    };
    let welcome = WELCOME as f64;
    let longest = (before.length() - welcome * gap_s) / (2.0 * welcome + 1.0);
    let minutes = (longest.min(after.length()) / MINUTE).floor().max(1.0);
    let (measured, gap) = Some((minutes * MINUTE, gap_s))
        .filter(|&(measured, _)| fits(measured))
        .or_else(|| {
            // Too short for a verdict: closer together, to have a scale at all.
            let measured = before.length() / (2 * AT_LEAST + 1) as f64;
            let measured = measured.min(after.length()).floor();
            (measured >= 1.0).then_some((measured, 0.0))
        })?;
    let enough = gap == gap_s || gap_s <= 0.0;
    let most = if enough { MOST } else { AT_LEAST };
    let real = Span::ending(before.to, measured);
    let mut placebos = Vec::new();
    let mut end = real.from;
    for _ in 0..fitting(measured, gap).min(most) {
        let second = Span::ending(end, measured);
        let first = Span::ending(second.from - gap, measured);
        placebos.push([first, second]);
        end = first.from;
    }
    Some(Windows {
        measured_s: measured,
        before: real,
        after: Span {
            from: after.from,
            to: after.from + measured,
        },
        placebos,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(before: f64, after: f64, gap: f64) -> Option<Windows> {
        let before = Span {
            from: 0.0,
            to: before,
        };
        let after = Span {
            from: before.to + gap,
            to: before.to + gap + after,
        };
        windows(before, after, gap)
    }

    fn shape(windows: &Windows) -> (f64, usize) {
        (windows.measured_s, windows.placebos.len())
    }

    #[test]
    fn nothing_overlaps_and_all_placebos_look_like_the_switch() {
        let found = of(3600.0, 600.0, 64.0).unwrap();
        let mut spans: Vec<Span> = found.placebos.iter().flatten().copied().collect();
        spans.extend([found.before, found.after]);
        spans.sort_by(|a, b| a.from.total_cmp(&b.from));
        assert!(spans[0].from >= 0.0, "{spans:?}");
        for pair in spans.windows(2) {
            assert!(pair[0].to <= pair[1].from + 1e-9, "{pair:?}");
        }
        for [first, second] in &found.placebos {
            assert!((second.from - first.to - 64.0).abs() < 1e-9);
            assert_eq!((first.length(), second.length()), (180.0, 180.0));
        }
        assert!((found.after.from - found.before.to - 64.0).abs() < 1e-9);
    }

    #[test]
    fn stretches_grow_only_while_placebos_abound() {
        for (before, after, gap, expected) in [
            (3600.0, 600.0, 64.0, (180.0, 8)),
            (3600.0, 60.0, 64.0, (60.0, 19)),
            (1800.0, 600.0, 64.0, (60.0, 9)),
            (980.0, 600.0, 64.0, (60.0, 5)),
            // Too short, or too far apart, for a verdict.
            (979.0, 600.0, 64.0, (139.0, 3)),
            (130.0, 130.0, 64.0, (18.0, 3)),
            (3600.0, 600.0, 86_400.0, (514.0, 3)),
        ] {
            let found = of(before, after, gap).unwrap();
            assert_eq!(shape(&found), expected, "{before} {after} {gap}");
        }
        assert_eq!(shape(&of(1e12, 60.0, 64.0).unwrap()), (60.0, MOST));
        assert_eq!(of(6.0, 100.0, 64.0), None);
        assert_eq!(of(1000.0, 0.5, 64.0), None);
    }
}
