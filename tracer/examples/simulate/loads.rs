//! Loads made up by rule, and what the phases of a trial would measure of them.
//!
//! Nothing of the analysis is used here: births come second by second from a
//! rate that the model moves, the stock is what was born and still lives, and
//! each phase gives three numbers.

/// Closes a second, on average.
pub(crate) const RATE: f64 = 300.0;
/// One in ten ends early, at any age below 60 s alike.
const EARLY: f64 = 0.10;
/// The others: 60 s and what the timer wheel of HZ=250 adds, seconds.
const LATE_MEAN: f64 = 61.024;
const LATE_VARIANCE: f64 = 2.048 * 2.048 / 12.0;
/// How far a load's logarithm strays, one standard deviation.
const STRAY: f64 = 0.2;

/// xoshiro256++ (Blackman and Vigna 2018), seeded by SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut z = seed;
        Random(std::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, variance 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A Poisson number of a mean so large that it is nearly normal.
    fn poisson(&mut self, mean: f64) -> f64 {
        (mean + mean.sqrt() * self.normal()).round().max(0.0)
    }
}

/// How the load moves, second by second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    Constant,
    /// Its logarithm strays and comes back within this time, seconds
    /// (Ornstein and Uhlenbeck).
    Strays(f64),
    /// Twice the rate for 5 s each minute, three times for 20 s each five minutes.
    Cron,
}

pub(crate) const LOADS: [(&str, Load); 5] = [
    ("constant", Load::Constant),
    ("strays, 10 s", Load::Strays(10.0)),
    ("strays, 60 s", Load::Strays(60.0)),
    ("wanders, 10 min", Load::Strays(600.0)),
    ("cron", Load::Cron),
];

/// A load at work.
#[derive(Debug)]
pub(crate) struct Machine {
    load: Load,
    second: u64,
    /// Where the logarithm strayed to.
    strayed: f64,
}

impl Machine {
    pub(crate) fn new(load: Load, random: &mut Random) -> Machine {
        Machine {
            load,
            // Nobody begins on cron's minute.
            second: random.bits() % 300,
            strayed: STRAY * random.normal(),
        }
    }

    /// This second's load, as a multiple of the mean.
    pub(crate) fn next(&mut self, random: &mut Random) -> f64 {
        self.second += 1;
        match self.load {
            Load::Constant => 1.0,
            Load::Strays(seconds) => {
                let keeps = (-1.0 / seconds).exp();
                self.strayed =
                    keeps * self.strayed + STRAY * (1.0 - keeps * keeps).sqrt() * random.normal();
                self.strayed.exp()
            }
            Load::Cron => {
                let by_minute = if self.second % 60 < 5 { 1.0 } else { 0.0 };
                let by_five = if self.second % 300 < 20 { 2.0 } else { 0.0 };
                1.0 + by_minute + by_five
            }
        }
    }
}

/// The sockets of one namespace: what is born, and what still lives.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Of the last 61 s, the newest last.
    births: std::collections::VecDeque<f64>,
    of_61: f64,
    of_60: f64,
    /// Early ones still alive, were all of them early.
    early: f64,
}

impl Sockets {
    /// A second in which this many are born; gives how many live at its end.
    fn second(&mut self, born: f64) -> f64 {
        self.early += born - self.of_60 / 60.0;
        self.births.push_back(born);
        self.of_61 += born;
        self.of_60 += born;
        if self.births.len() > 60 {
            self.of_60 -= self.births[self.births.len() - 61];
        }
        if self.births.len() > 61 {
            self.of_61 -= self.births.pop_front().unwrap_or(0.0);
        }
        EARLY * self.early + (1.0 - EARLY) * self.of_61
    }
}

/// What a phase measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) connections_per_s: f64,
    pub(crate) time_wait_live_mean: f64,
    pub(crate) time_wait_life_mean_s: f64,
}

/// Lets `seconds` pass, at so many times the rate, and measures them.
pub(crate) fn pass(
    machine: &mut Machine,
    sockets: &mut Sockets,
    random: &mut Random,
    seconds: u32,
    times: f64,
) -> Measured {
    let path: Vec<f64> = (0..seconds).map(|_| machine.next(random)).collect();
    pass_along(&path, sockets, random, times)
}

/// The same where the load of each second is known.
pub(crate) fn pass_along(
    path: &[f64],
    sockets: &mut Sockets,
    random: &mut Random,
    times: f64,
) -> Measured {
    let (mut born, mut stock) = (0.0, 0.0);
    for load in path {
        let births = random.poisson(RATE * times * load);
        born += births;
        stock += sockets.second(births);
    }
    let seconds = path.len().max(1) as f64;
    Measured {
        connections_per_s: born / seconds,
        time_wait_live_mean: stock / seconds,
        time_wait_life_mean_s: mean_life(born, random),
    }
}

/// The mean of so many lives.
fn mean_life(born: f64, random: &mut Random) -> f64 {
    let early = born * EARLY + (born * EARLY * (1.0 - EARLY)).sqrt() * random.normal();
    let early = early.clamp(0.0, born);
    let late = born - early;
    let lives = early * 30.0
        + (early * 300.0).sqrt() * random.normal()
        + late * LATE_MEAN
        + (late * LATE_VARIANCE).sqrt() * random.normal();
    lives / born.max(1.0)
}
