//! Which sockets the user wants to see, judged by their addresses and by the
//! processes that open and close them.
//!
//! Within one kind (local ports, remote ports, local and remote addresses,
//! pids, ...) any value admits; between kinds all must. That is how a person reads
//! `--dport 80 --dport 443 --dst 10.0.0.0/8`, and how `ss` spells it out:
//! `( dport = :80 or dport = :443 ) and dst 10.0.0.0/8`. Which states are shown
//! is another question: [`super::state_set`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::event::{Family, Tuple};

/// An empty filter lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    family: Option<Family>,
    local_ports: Vec<u16>,
    remote_ports: Vec<u16>,
    local: Vec<Network>,
    remote: Vec<Network>,
    processes: Processes,
}

/// Which processes' sockets; an empty list is no restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub pids: Vec<u32>,
    /// Names as the kernel has them, at most 15 bytes.
    pub comms: Vec<String>,
    pub cgroups: Vec<Cgroup>,
}

/// A control group and those below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// As it was asked for.
    pub path: String,
    /// Empty until [`Filter::look_up_cgroups`].
    pub ids: Vec<u64>,
}

impl Processes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Processes::default()
    }

    /// Whether this process is one of them; what is not known of it is not it.
    #[must_use]
    pub fn admit(&self, pid: u32, comm: Option<[u8; 16]>, cgroup: Option<u64>) -> bool {
        any_or_none(&self.pids, |&wanted| wanted == pid)
            && any_or_none(&self.comms, |wanted| {
                comm.is_some_and(|comm| {
                    let length = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
                    comm[..length] == *wanted.as_bytes()
                })
            })
            && any_or_none(&self.cgroups, |wanted| {
                cgroup.is_some_and(|id| wanted.ids.contains(&id))
            })
    }
}

impl Filter {
    /// The same wishes in any order, or twice, give the same filter.
    #[must_use]
    pub fn new(
        family: Option<Family>,
        local_ports: Vec<u16>,
        remote_ports: Vec<u16>,
        local: Vec<Network>,
        remote: Vec<Network>,
    ) -> Filter {
        Filter {
            family,
            local_ports: sorted(local_ports),
            remote_ports: sorted(remote_ports),
            local: sorted(local),
            remote: sorted(remote),
            processes: Processes::default(),
        }
    }

    /// The same, of these processes alone.
    #[must_use]
    pub fn of(self, processes: Processes) -> Filter {
        let Processes {
            pids,
            comms,
            cgroups,
        } = processes;
        Filter {
            processes: Processes {
                pids: sorted(pids),
                comms: sorted(comms),
                cgroups: sorted(cgroups),
            },
            ..self
        }
    }

    /// Has the ids of the control groups told by their paths.
    pub fn look_up_cgroups<E>(
        &mut self,
        mut ids: impl FnMut(&str) -> Result<Vec<u64>, E>,
    ) -> Result<(), E> {
        for cgroup in &mut self.processes.cgroups {
            cgroup.ids = ids(&cgroup.path)?;
        }
        Ok(())
    }

    #[must_use]
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Whether a socket is judged by more than its family, so that one of which
    /// nothing is known is not wanted. The family alone is the kernel side's
    /// affair.
    #[must_use]
    pub fn judges(&self) -> bool {
        self.needs_addresses() || !self.processes.is_empty()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether addresses or ports matter, so that a socket whose tuple has not
    /// travelled cannot be judged.
    fn needs_addresses(&self) -> bool {
        !(self.local_ports.is_empty()
            && self.remote_ports.is_empty()
            && self.local.is_empty()
            && self.remote.is_empty())
    }

    /// The one address family wanted, as the socket was made; `None`: both.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        self.family
    }

    /// What the local end has to be: ports, and prefixes.
    #[must_use]
    pub fn local(&self) -> (&[u16], &[Network]) {
        (&self.local_ports, &self.local)
    }

    /// What the remote end has to be.
    #[must_use]
    pub fn remote(&self) -> (&[u16], &[Network]) {
        (&self.remote_ports, &self.remote)
    }

    /// Whether a socket with these ends is wanted, whosever it is. What cannot be judged yet,
    /// because its local port or all of it is unknown, is not: it is looked at
    /// again when more is told.
    #[must_use]
    pub fn admits(&self, tuple: &Tuple) -> bool {
        if tuple.is_nameless() && self.needs_addresses() {
            return false;
        }
        self.family.is_none_or(|family| family == tuple.family)
            && any_or_none(&self.local_ports, |&p| p == tuple.local_port)
            && any_or_none(&self.remote_ports, |&p| p == tuple.remote_port)
            && any_or_none(&self.local, |n| n.contains(tuple.local_addr()))
            && any_or_none(&self.remote, |n| n.contains(tuple.remote_addr()))
    }
}

/// No wish is no restriction.
fn any_or_none<T>(wanted: &[T], admits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(admits)
}

fn sorted<T: Ord>(mut wanted: Vec<T>) -> Vec<T> {
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        match self.family {
            Some(Family::Inet) => clauses.push("family inet".to_owned()),
            Some(Family::Inet6) => clauses.push("family inet6".to_owned()),
            None => {}
        }
        clauses.extend(clause("sport = :", &self.local_ports));
        clauses.extend(clause("dport = :", &self.remote_ports));
        clauses.extend(clause("src ", &self.local));
        clauses.extend(clause("dst ", &self.remote));
        clauses.extend(clause("pid ", &self.processes.pids));
        clauses.extend(clause("comm ", &self.processes.comms));
        clauses.extend(clause("cgroup ", &self.processes.cgroups));
        f.write_str(&clauses.join(" and "))
    }
}

fn clause<T: fmt::Display>(word: &str, wanted: &[T]) -> Option<String> {
    let terms: Vec<String> = wanted
        .iter()
        .map(|value| format!("{word}{value}"))
        .collect();
    match terms.len() {
        0 => None,
        1 => terms.into_iter().next(),
        _ => Some(format!("( {} )", terms.join(" or "))),
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// An address or a prefix, as `--src` and `--dst` take it. One of IPv4 also
/// means the v4-mapped addresses of IPv6 sockets that talk to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(IpNet);

impl Network {
    /// Its bits and its mask in the words of memory, both of IPv6; those of IPv4 as
    /// `::ffff:10.0.0.9`.
    #[must_use]
    pub fn mapped(&self) -> ([u64; 2], [u64; 2]) {
        let (bits, length) = match self.0 {
            IpNet::V4(net) => (net.network().to_ipv6_mapped(), 96 + net.prefix_len()),
            IpNet::V6(net) => (net.network(), net.prefix_len()),
        };
        let mask = u128::MAX
            .checked_shl(128 - u32::from(length))
            .unwrap_or_default();
        let words = |number: u128| [(number >> 64) as u64, number as u64].map(u64::to_be);
        (words(bits.to_bits()), words(mask))
    }

    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match self.0 {
            IpNet::V4(net) => match addr.to_canonical() {
                IpAddr::V4(addr) => net.contains(&addr),
                IpAddr::V6(_) => false,
            },
            IpNet::V6(_) => self.0.contains(&addr),
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Network, BadNetwork> {
        let text = text.trim();
        // As `ss` prints an IPv6 address.
        let bare = text.replace(['[', ']'], "");
        let (addr, length) = match bare.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (&*bare, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| BadNetwork::Address(text.to_owned()))?;
        let widest = if addr.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => widest,
            Some(length) => length
                .parse()
                .ok()
                .filter(|length| *length <= widest)
                .ok_or_else(|| BadNetwork::Length {
                    text: text.to_owned(),
                    widest,
                })?,
        };
        let net = IpNet::new(addr, length)
            .map_err(|_| BadNetwork::Length {
                text: text.to_owned(),
                widest,
            })?
            .trunc();
        Ok(Network(unmapped(net)))
    }
}

/// `::ffff:10.0.0.0/104` means what `10.0.0.0/8` means.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4: Option<Ipv4Addr> = v6.addr().to_ipv4_mapped();
    match (v4, v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map_or(net, IpNet::V4),
        _ => net,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadNetwork {
    Address(String),
    Length { text: String, widest: u8 },
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadNetwork::Address(text) => write!(
                f,
                "\"{text}\" is no IP address: write one such as 10.0.0.9 or fe80::1, or a prefix such as 10.0.0.0/8; \
                 names are not looked up"
            ),
            BadNetwork::Length { text, widest } => {
                write!(
                    f,
                    "the prefix length of \"{text}\" is no number from 0 to {widest}: write one such as /24"
                )
            }
        }
    }
}

impl std::error::Error for BadNetwork {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Netns;

    fn tuple(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Tuple {
        let bytes = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                bytes
            }
            IpAddr::V6(v6) => v6.octets(),
        };
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let family = if local.is_ipv4() {
            Family::Inet
        } else {
            Family::Inet6
        };
        Tuple {
            netns: Netns(1),
            family,
            local: bytes(local),
            remote: bytes(remote),
            local_port,
            remote_port,
        }
    }

    fn nets(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn dst(texts: &[&str]) -> Filter {
        Filter::new(None, vec![], vec![], vec![], nets(texts))
    }

    #[test]
    fn processes_are_judged_by_what_is_known_of_them() {
        let comm = |name: &str| {
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Some(bytes)
        };
        let nginx = Processes {
            pids: vec![],
            comms: vec!["nginx".into()],
            cgroups: vec![Cgroup {
                path: "/web".into(),
                ids: vec![70],
            }],
        };
        assert!(nginx.admit(7, comm("nginx"), Some(70)));
        assert!(!nginx.admit(7, comm("nginx2"), Some(70)));
        assert!(!nginx.admit(7, comm("nginx"), Some(71)));
        assert!(!nginx.admit(7, None, Some(70)));
        let filter = Filter::default().of(nginx);
        assert!(filter.judges());
        assert_eq!(filter.to_string(), "comm nginx and cgroup /web");
    }

    /// The kernel side leaves out what these words tell it to.
    #[test]
    fn a_prefix_is_told_in_words() {
        let holds = |prefix: &str, address: &str| {
            let (bits, mask) = prefix.parse::<Network>().unwrap().mapped();
            let address = match address.parse().unwrap() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let bytes = address.octets();
            (0..2).all(|i| {
                let half = bytes[8 * i..][..8].try_into().unwrap();
                u64::from_ne_bytes(half) & mask[i] == bits[i]
            })
        };
        assert!(holds("10.0.0.0/8", "10.9.8.7"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("0.0.0.0/0", "11.0.0.0"));
        assert!(!holds("0.0.0.0/0", "fe80::1"));
        assert!(holds("::/0", "fe80::1"));
        assert!(holds("fe80::/10", "febf::1"));
        assert!(!holds("fe80::/10", "fec0::1"));
        assert!(holds("2001:db8::7", "2001:db8::7"));
        assert!(!holds("2001:db8::7", "2001:db8::6"));
    }

    #[test]
    fn an_empty_filter_admits_all_and_says_nothing() {
        let filter = Filter::default();
        assert!(filter.is_empty());
        assert!(!filter.judges());
        assert!(filter.admits(&tuple("10.0.0.2", 0, "10.0.0.9", 443)));
        assert_eq!(filter.to_string(), "");
    }

    #[test]
    fn kinds_are_joined_by_and_values_by_or() {
        let filter = Filter::new(
            None,
            vec![],
            vec![443, 80, 80],
            vec![],
            nets(&["10.0.0.0/8"]),
        );
        assert!(filter.admits(&tuple("1.1.1.1", 9, "10.2.3.4", 80)));
        assert!(filter.admits(&tuple("1.1.1.1", 9, "10.2.3.4", 443)));
        assert!(!filter.admits(&tuple("1.1.1.1", 9, "10.2.3.4", 81)));
        assert!(!filter.admits(&tuple("1.1.1.1", 9, "11.2.3.4", 80)));
        assert_eq!(
            filter.to_string(),
            "( dport = :80 or dport = :443 ) and dst 10.0.0.0/8"
        );
    }

    #[test]
    fn what_cannot_be_judged_yet_is_not_admitted() {
        let by_port = Filter::new(None, vec![4000], vec![], vec![], vec![]);
        assert!(!by_port.admits(&tuple("10.0.0.2", 0, "10.0.0.9", 443)));
        assert!(by_port.admits(&tuple("10.0.0.2", 4000, "10.0.0.9", 443)));
        let by_remote = Filter::new(None, vec![], vec![443], vec![], vec![]);
        assert!(by_remote.admits(&tuple("10.0.0.2", 0, "10.0.0.9", 443)));
        let child = Tuple::nameless(Netns(1), Family::Inet);
        assert!(!by_remote.admits(&child));
        let by_family = Filter::new(Some(Family::Inet), vec![], vec![], vec![], vec![]);
        assert!(by_family.admits(&child));
    }

    #[test]
    fn an_ipv4_filter_means_mapped_addresses_too() {
        for text in [
            "10.0.0.9",
            "10.0.0.0/24",
            "::ffff:10.0.0.9",
            "::ffff:10.0.0.0/120",
        ] {
            let filter = dst(&[text]);
            assert!(
                filter.admits(&tuple("10.0.0.2", 1, "10.0.0.9", 2)),
                "{text}"
            );
            assert!(
                filter.admits(&tuple("::ffff:10.0.0.2", 1, "::ffff:10.0.0.9", 2)),
                "{text}"
            );
            assert!(!filter.admits(&tuple("fe80::1", 1, "fe80::9", 2)), "{text}");
        }
        assert!(!dst(&["fe80::/10"]).admits(&tuple("10.0.0.2", 1, "10.0.0.9", 2)));
        assert!(dst(&["fe80::/10"]).admits(&tuple("fe80::1", 1, "fe80::9", 2)));
    }

    #[test]
    fn the_family_is_the_sockets() {
        let four = Filter::new(Some(Family::Inet), vec![], vec![], vec![], vec![]);
        assert!(four.admits(&tuple("10.0.0.2", 1, "10.0.0.9", 2)));
        assert!(!four.admits(&tuple("::ffff:10.0.0.2", 1, "::ffff:10.0.0.9", 2)));
        assert!(!four.is_empty() && !four.judges());
    }

    #[test]
    fn networks_are_printed_canonically() {
        for (text, canonical) in [
            ("10.0.0.9", "10.0.0.9"),
            ("10.0.0.9/32", "10.0.0.9"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("[fe80::1]", "fe80::1"),
            ("FE80:0::1/64", "fe80::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(
                text.parse::<Network>().unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused_in_a_sentence() {
        for (text, words) in [
            ("db01", "\"db01\" is no IP address"),
            ("10.0.0", "\"10.0.0\" is no IP address"),
            ("", "\"\" is no IP address"),
            ("10.0.0.0/33", "is no number from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "is no number from 0 to 32"),
            ("fe80::/129", "is no number from 0 to 128"),
        ] {
            let said = text.parse::<Network>().unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
