//! Hashing of what somebody else may choose: an address, a pid.
//!
//! Who knows where keys fall can have them all fall into one place, and a table
//! is a list then. So the hash hangs on a secret, which is a session's to draw
//! ([`Config::secret`]); nothing that leaves the model may hang on it, since the
//! same events give the same bytes. What nobody chooses (a kernel address, an
//! index) is hashed by `rustc_hash`.
//!
//! [`Config::secret`]: super::ledger::Config::secret

use std::hash::{BuildHasher, Hasher};

pub(super) type Map<K, V> = std::collections::HashMap<K, V, Keyed>;
pub(super) type Set<K> = std::collections::HashSet<K, Keyed>;

/// Spreads the bits of a product over all of it.
#[inline(always)]
pub(super) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// A hash function of the many that a secret chooses from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    start: u64,
    factor: u64,
}

impl Keyed {
    pub(super) fn new(secret: u64) -> Keyed {
        // The finisher of SplitMix64: each bit of the secret moves each of the key.
        let key = |n: u64| {
            let mut z = secret.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Keyed {
            start: key(1),
            // Neither small nor even, or low bits of a key would not reach far.
            factor: key(2) | 1 << 63 | 1,
        }
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    #[inline(always)]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher {
            state: self.start,
            factor: self.factor,
        }
    }
}

/// Each word is mixed with the state, which nobody outside knows, and multiplied
/// by a factor that nobody knows: two keys meet by chance alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl Hasher for KeyedHasher {
    #[inline(always)]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.factor);
    }

    #[inline(always)]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline(always)]
    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline(always)]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;

    const SECRETS: [u64; 4] = [0, 1, 0x0123_4567_89ab_cdef, u64::MAX];

    /// Addresses that somebody may have been given, and some that he may choose.
    fn addresses() -> Vec<IpAddr> {
        let in_a_row = (0..1000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        let net = 0x2001_0db8_u128 << 96;
        let anywhere = [0, 16, 32, 56, 63, 64, 90];
        let in_one_net = anywhere.into_iter().flat_map(|shift| {
            (1..500_u128).map(move |n| Ipv6Addr::from(net ^ (n << shift)).into())
        });
        in_a_row.chain(in_one_net).collect()
    }

    #[test]
    fn keys_fall_everywhere_whatever_the_secret() {
        let addresses: HashSet<IpAddr> = addresses().into_iter().collect();
        for secret in SECRETS {
            let keyed = Keyed::new(secret);
            let hashes: HashSet<u64> = addresses.iter().map(|it| keyed.hash_one(it)).collect();
            assert_eq!(hashes.len(), addresses.len(), "secret {secret:#x}");
            // A table goes by the lowest bits and by the seven highest.
            for shift in [0, 57] {
                let mut places = [0_usize; 128];
                for hash in &hashes {
                    places[(hash >> shift) as usize & 127] += 1;
                }
                let mean = addresses.len() / 128;
                let (least, most) = (places.iter().min(), places.iter().max());
                assert!(
                    least > Some(&(mean / 2)) && most < Some(&(mean * 2)),
                    "secret {secret:#x}, bits from {shift}: {places:?}"
                );
            }
        }
    }

    #[test]
    fn who_knows_one_hash_does_not_know_another() {
        let addresses = addresses();
        let [a, b] = [SECRETS[0], SECRETS[1]].map(Keyed::new);
        // That two keys share a place with one secret says nothing of another:
        // of 4,493 keys in 128 places, one in 128 of such pairs does again.
        let place = |keyed: &Keyed, it: &IpAddr| keyed.hash_one(it) & 127;
        let first = place(&a, &addresses[0]);
        let together = addresses.iter().filter(|it| place(&a, it) == first);
        let then: HashSet<u64> = together.map(|it| place(&b, it)).collect();
        assert!(then.len() > 16, "{then:?}");
    }
}
