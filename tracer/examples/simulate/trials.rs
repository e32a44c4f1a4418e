//! The designs of docs/statistics.md, tried on loads whose truth is known.

use tracer::analysis::compare::{Comparison, Finding, Pair, Plan, Replica, Role, Trial, compare};
use tracer::analysis::phase::Phase;
use tracer::analysis::switch::{Span, windows};

use super::loads::{Load, Machine, Measured, Random, Sockets, pass};

/// At HZ=250.
const SETTLE: u32 = 64;
/// How far two replicas differ that nothing distinguishes: one standard deviation.
const REPLICA_NOISE: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Design {
    Pairs,
    Parallel,
    /// With an hour before it.
    Switch,
}

pub(crate) const DESIGNS: [(&str, Design); 3] = [
    ("8 pairs", Design::Pairs),
    ("8 replicas", Design::Parallel),
    ("one switch, 1 h before", Design::Switch),
];

/// What became of many trials.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) trials: u32,
    /// A primary metric was called different.
    pub(crate) different: u32,
    /// One on which the change was planted, and in its direction.
    pub(crate) found: u32,
    /// All that decides was called unchanged, or too small to matter.
    pub(crate) unchanged: u32,
}

impl Outcome {
    pub(crate) fn share(&self, of: u32) -> f64 {
        f64::from(of) / f64::from(self.trials.max(1))
    }
}

/// `effect` is planted on what is born a second, and so on the stock.
pub(crate) fn run(design: Design, load: Load, effect: f64, trials: u32, seed: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for i in 0..trials {
        let mut random = Random::new(seed.wrapping_mul(1_000_003) + u64::from(i));
        let comparison = one(design, load, effect, &mut random);
        let different = |metric: &&tracer::analysis::compare::Compared| {
            matches!(
                metric.verdict,
                Finding::Lower | Finding::Higher | Finding::TooSmallToMatter
            )
        };
        outcome.trials += 1;
        outcome.different += u32::from(comparison.of_role(Role::Primary).any(|m| different(&m)));
        outcome.found += u32::from(comparison.of_role(Role::Primary).any(|metric| {
            metric.name != "time_wait_life_mean_s"
                && different(&metric)
                && metric.after > metric.before
        }));
        outcome.unchanged += u32::from(comparison.of_role(Role::Primary).all(|metric| {
            matches!(
                metric.verdict,
                Finding::Unchanged | Finding::TooSmallToMatter
            )
        }));
    }
    outcome
}

fn one(design: Design, load: Load, effect: f64, random: &mut Random) -> Comparison {
    let plan = Plan {
        primary: [
            "connections_per_s",
            "time_wait_live_mean",
            "time_wait_life_mean_s",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Plan::default()
    };
    let trial = match design {
        Design::Pairs => pairs(load, effect, random),
        Design::Parallel => parallel(load, effect, random),
        Design::Switch => switch(load, effect, random),
    };
    compare(&plan, &trial)
}

fn phase(measured: Measured) -> Phase {
    let mut phase = Phase::default();
    phase.read("connections_per_s", Some(measured.connections_per_s), 1);
    phase.read("time_wait_live_mean", Some(measured.time_wait_live_mean), 1);
    phase.read(
        "time_wait_life_mean_s",
        Some(measured.time_wait_life_mean_s),
        1,
    );
    phase
}

fn pairs(load: Load, effect: f64, random: &mut Random) -> Trial {
    let mut machine = Machine::new(load, random);
    let mut sockets = Sockets::default();
    let mut pairs = Vec::new();
    for _ in 0..8 {
        let changed_first = random.bits() >> 63 == 1;
        let mut both = [None, None];
        for changed in [changed_first, !changed_first] {
            let times = if changed { 1.0 + effect } else { 1.0 };
            pass(&mut machine, &mut sockets, random, SETTLE, times);
            let measured = pass(&mut machine, &mut sockets, random, 60, times);
            both[usize::from(changed)] = Some(phase(measured));
        }
        let [before, after] = both.map(Option::unwrap_or_default);
        pairs.push(Pair {
            before,
            after,
            changed_first,
        });
    }
    Trial::Pairs {
        pairs,
        measured_s: 60.0,
        settle_s: f64::from(SETTLE),
        seed: 0,
    }
}

/// All bear the same load of the machine, each with a noise of its own.
fn parallel(load: Load, effect: f64, random: &mut Random) -> Trial {
    let mut chosen = [false; 8];
    while chosen.iter().filter(|c| **c).count() < 4 {
        chosen[(random.bits() % 8) as usize] = true;
    }
    let shared = random.clone();
    let replicas = chosen.map(|changed| {
        // The same machine for each: its own random numbers, told again.
        let mut of_machine = shared.clone();
        let mut machine = Machine::new(load, &mut of_machine);
        let mut own = Random::new(random.bits());
        let times = (REPLICA_NOISE * own.normal()).exp() * if changed { 1.0 + effect } else { 1.0 };
        let mut sockets = Sockets::default();
        let mut measure = |seconds: u32| {
            let path: Vec<f64> = (0..seconds)
                .map(|_| machine.next(&mut of_machine))
                .collect();
            super::loads::pass_along(&path, &mut sockets, &mut own, times)
        };
        measure(SETTLE);
        Replica {
            phase: phase(measure(66)),
            changed,
        }
    });
    Trial::Parallel {
        replicas: replicas.to_vec(),
        measured_s: 66.0,
        settle_s: f64::from(SETTLE),
        seed: 0,
    }
}

fn switch(load: Load, effect: f64, random: &mut Random) -> Trial {
    let before = Span {
        from: 0.0,
        to: 3600.0,
    };
    let after = Span {
        from: 3600.0 + f64::from(SETTLE),
        to: 4300.0,
    };
    let windows = windows(before, after, f64::from(SETTLE));
    let windows = windows.expect("an hour has room for placebos");
    // In the order of time.
    let mut spans: Vec<Span> = windows.placebos.iter().rev().flatten().copied().collect();
    spans.extend([windows.before, windows.after]);
    let mut machine = Machine::new(load, random);
    let mut sockets = Sockets::default();
    pass(&mut machine, &mut sockets, random, SETTLE, 1.0);
    let mut now = 0.0;
    let mut phases: Vec<Phase> = spans
        .iter()
        .map(|span| {
            let times = if span.from >= before.to {
                1.0 + effect
            } else {
                1.0
            };
            let until = (span.from - now) as u32;
            pass(&mut machine, &mut sockets, random, until, times);
            now = span.to;
            phase(pass(
                &mut machine,
                &mut sockets,
                random,
                span.length() as u32,
                times,
            ))
        })
        .collect();
    let (after, before) = (phases.pop(), phases.pop());
    let mut placebos = Vec::new();
    let mut left = phases.into_iter();
    while let (Some(first), Some(second)) = (left.next(), left.next()) {
        placebos.push([first, second]);
    }
    Trial::Switch {
        before: before.unwrap_or_default(),
        after: after.unwrap_or_default(),
        placebos,
        measured_s: windows.measured_s,
        settle_s: f64::from(SETTLE),
    }
}
