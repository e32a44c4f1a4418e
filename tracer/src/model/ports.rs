//! A set of ports.

use std::fmt;

/// A bit for each port.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    pub fn add(&mut self, port: u16) {
        self.0[usize::from(port) / 64] |= 1 << (port % 64);
    }

    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

impl Default for PortSet {
    fn default() -> PortSet {
        PortSet(Box::new([0; 1024]))
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ports", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::PortSet;

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        let mut ports = PortSet::default();
        for port in [0, 63, 64, 65_535] {
            ports.add(port);
            ports.add(port);
        }
        assert_eq!(ports.count(), 4);
        assert!(ports.has(64) && ports.has(65_535) && !ports.has(65));
    }
}
