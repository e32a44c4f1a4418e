//! What a trial leaves to chance, from a seed that is printed: the same seed
//! gives the same order again, on every machine.

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Lot(u64);

impl Lot {
    #[must_use]
    pub fn new(seed: u64) -> Lot {
        Lot(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Half of `n` (rounded down), by lot.
    pub fn half(&mut self, n: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            let other = (self.draw() % (last as u64 + 1)) as usize;
            order.swap(last, other);
        }
        order.iter().map(|&place| place < n / 2).collect()
    }

    /// Whether each of `n` pairs begins with the changed value.
    pub fn coins(&mut self, n: usize) -> Vec<bool> {
        (0..n).map(|_| self.draw() >> 63 == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        // The first values for seed 1234567 of the authors' own program.
        let mut lot = Lot::new(1_234_567);
        let first = [lot.draw(), lot.draw(), lot.draw()];
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn every_split_comes_up_and_a_seed_gives_it_again() {
        let mut lot = Lot::new(7);
        let halves: Vec<_> = (0..2000).map(|_| lot.half(8)).collect();
        assert!(halves.iter().all(|h| h.iter().filter(|c| **c).count() == 4));
        let mut different = halves.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 70);
        assert_eq!(Lot::new(7).half(8), halves[0]);
        let heads = lot.coins(1000).iter().filter(|c| **c).count();
        assert!((430..570).contains(&heads), "{heads} of 1000");
    }
}
