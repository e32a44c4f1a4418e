//! The life table, tried on populations whose share of early ends is known.

use tracer::model::event::Moment;
use tracer::model::life_table::Ages;
use tracer::model::snapshot::LifeTable;

use super::loads::Random;

/// At HZ=250.
const NOMINAL_S: f64 = 60.0;
const SLACK_S: f64 = 2.048;
/// Long enough ago that whoever was born before is gone.
const WARM_UP_S: f64 = 64.0;

/// How long those live that do not reach 2MSL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Early {
    /// At any age alike.
    Evenly,
    /// Most of them soon: exponential, with a mean of 4 s.
    Soon,
    /// As clients with tcp_tw_reuse have them: at one second and a little.
    AtOnce,
}

pub(crate) const EARLY: [(&str, Early); 3] = [
    ("evenly below 60 s", Early::Evenly),
    ("soon, 4 s on average", Early::Soon),
    ("at 1 s, as by reuse", Early::AtOnce),
];

impl Early {
    fn life(self, random: &mut Random) -> f64 {
        match self {
            Early::Evenly => NOMINAL_S * random.unit(),
            Early::Soon => (-4.0 * (1.0 - random.unit()).ln()).min(NOMINAL_S - 0.001),
            Early::AtOnce => 1.0 + 0.02 * random.unit(),
        }
    }

    fn mean(self) -> f64 {
        match self {
            Early::Evenly => NOMINAL_S / 2.0,
            Early::Soon => 4.0 * (1.0 - (-NOMINAL_S / 4.0).exp()),
            Early::AtOnce => 1.01,
        }
    }
}

/// How often 95 % intervals covered the truth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) runs: u32,
    pub(crate) share: u32,
    pub(crate) mean: u32,
    /// Half of the share's intervals' width, on average.
    pub(crate) reach: f64,
}

/// Runs of so many seconds, with so many births a second.
pub(crate) fn covered(
    early: Early,
    share: f64,
    rate: f64,
    seconds: f64,
    runs: u32,
    seed: u64,
) -> Coverage {
    let mut coverage = Coverage::default();
    let mean = share * early.mean() + (1.0 - share) * (NOMINAL_S + SLACK_S / 2.0);
    for i in 0..runs {
        let mut random = Random::new(seed.wrapping_mul(1_000_003) + u64::from(i));
        let table = run(early, share, rate, seconds, &mut random);
        let (Some(reaches), Some(life)) = (table.reaches_2msl, table.mean_s) else {
            continue;
        };
        coverage.runs += 1;
        let truth = 1.0 - share;
        coverage.share += u32::from(reaches.low <= truth && truth <= reaches.high);
        coverage.mean += u32::from(life.low <= mean && mean <= life.high);
        coverage.reach += (reaches.high - reaches.low) / 2.0 / f64::from(runs);
    }
    coverage
}

fn run(early: Early, share: f64, rate: f64, seconds: f64, random: &mut Random) -> LifeTable {
    let at = |s: f64| Moment(((1000.0 + s) * 1e9) as u64);
    let mut ages = Ages::default();
    let mut born = -WARM_UP_S;
    loop {
        // A Poisson process: the time to the next birth is exponential.
        born -= (1.0 - random.unit()).ln() / rate;
        if born >= seconds {
            break;
        }
        let life = if random.unit() < share {
            early.life(random)
        } else {
            NOMINAL_S + SLACK_S * random.unit()
        };
        let died = born + life;
        if died <= 0.0 {
            continue;
        }
        ages.enter(at(born), at(born.max(0.0)));
        if died < seconds {
            ages.leave(at(born), at(died), true);
        }
    }
    let ns = |s: f64| (s * 1e9) as u64;
    ages.table(at(seconds), ns(NOMINAL_S), ns(SLACK_S))
}
