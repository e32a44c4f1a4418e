//! What a network namespace is set to: the sysctls that have to do with
//! TIME_WAIT and with ports.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens a file there, so
//! they are read by a thread in that namespace. A value is never judged here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use super::netns::{self, Namespace};
use crate::knowledge::sysctls::{self, Sysctl};
use crate::model::event::NamespaceFacts;

/// What the ledger goes by, in `net.ipv4`. Not every kernel has each: `tcp_tw_reuse_delay` came with
/// 6.14, `tcp_tw_timeout` only some vendors' kernels have.
const KEYS: [&str; 9] = [
    "ip_local_port_range",
    "ip_local_reserved_ports",
    "tcp_fin_timeout",
    "tcp_max_tw_buckets",
    "tcp_rfc1337",
    "tcp_timestamps",
    "tcp_tw_reuse",
    "tcp_tw_reuse_delay",
    "tcp_tw_timeout",
];

/// Before 6.14 a TIME_WAIT may be taken over once its last timestamp is a
/// second old; later kernels begin with the same.
pub(super) const TW_REUSE_DELAY: Duration = Duration::from_secs(1);

/// Size of the table of connections, from which other defaults follow (6.2+);
/// negative where a namespace shares that of the first.
pub const EHASH_ENTRIES: &str = "tcp_ehash_entries";

/// By the last word of the key, as text, blanks in one. Keys that this kernel
/// has not are absent.
pub type Values = BTreeMap<&'static str, String>;

/// What the ledger goes by, of one namespace.
fn values(namespace: &Namespace) -> io::Result<Values> {
    let wanted = || sysctls::ALL.iter().filter(|s| KEYS.contains(&s.key()));
    netns::visit(std::slice::from_ref(namespace), |_| read(wanted()))?
        .pop()
        .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?
}

/// What the ledger wants to know of one namespace.
pub fn facts(namespace: &Namespace) -> io::Result<NamespaceFacts> {
    interpret(&values(namespace)?, namespace.name.clone())
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// All that is known of sysctls, as each namespace has it.
pub fn studied(namespaces: &[Namespace]) -> io::Result<Vec<io::Result<Values>>> {
    let all = netns::visit(namespaces, |_| studied_here())?;
    Ok(all.into_iter().map(Result::flatten).collect())
}

/// The same of the namespace that the calling thread is in.
pub fn studied_here() -> io::Result<Values> {
    let mut values = read(sysctls::ALL.iter())?;
    if let Ok(entries) = fs::read_to_string(format!("/proc/sys/net/ipv4/{EHASH_ENTRIES}")) {
        values.insert(EHASH_ENTRIES, entries.trim().to_owned());
    }
    Ok(values)
}

/// Of the namespace that the calling thread is in.
fn read(keys: impl Iterator<Item = &'static Sysctl>) -> io::Result<Values> {
    let mut values = Values::new();
    for key in keys {
        match fs::read_to_string(format!("/proc/sys/{}", key.name.replace('.', "/"))) {
            Ok(text) => {
                values.insert(
                    key.key(),
                    text.split_whitespace().collect::<Vec<_>>().join(" "),
                );
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(values)
}

/// All of a namespace that has to do with TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllOfTcp {
    /// As [`netns::cookie`].
    pub cookie: Option<u64>,
    /// By full names: `net.ipv4.tcp_*` and the local ports.
    pub sysctls: BTreeMap<String, String>,
}

/// In the order of the namespaces; `None` for one that can no longer be entered.
#[must_use]
pub fn all_of_tcp(namespaces: &[Namespace]) -> Vec<Option<AllOfTcp>> {
    let read = netns::visit(namespaces, |_| {
        Ok(AllOfTcp {
            cookie: netns::cookie(),
            sysctls: read_all_of_tcp()?,
        })
    });
    let read = read.unwrap_or_default().into_iter();
    let mut all: Vec<_> = read
        .map(|one: io::Result<io::Result<_>>| one.ok()?.ok())
        .collect();
    all.resize(namespaces.len(), None);
    all
}

/// A key of cryptography, which is nobody's to keep.
const SECRET: &str = "tcp_fastopen_key";

fn read_all_of_tcp() -> io::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for entry in fs::read_dir("/proc/sys/net/ipv4")? {
        let entry = entry?;
        let Ok(key) = entry.file_name().into_string() else {
            continue;
        };
        let concerns = key.starts_with("tcp_") && key != SECRET || KEYS.contains(&key.as_str());
        // Some may only be written.
        if concerns && let Ok(text) = fs::read_to_string(entry.path()) {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            values.insert(format!("net.ipv4.{key}"), text);
        }
    }
    Ok(values)
}

/// Pure; the error is a sentence.
pub fn interpret(values: &Values, name: Option<String>) -> Result<NamespaceFacts, String> {
    let text = |key: &str| {
        values
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| format!("this kernel has no net.ipv4.{key}"))
    };
    let odd = |key: &str| format!("net.ipv4.{key} is {:?}", values.get(key));
    let number = |key: &'static str| text(key)?.parse::<u64>().map_err(|_| odd(key));
    let ports =
        parse_range(text("ip_local_port_range")?).ok_or_else(|| odd("ip_local_port_range"))?;
    // Some kernels are built without reserved ports.
    let reserved = values
        .get("ip_local_reserved_ports")
        .map_or("", String::as_str);
    Ok(NamespaceFacts {
        name,
        ports,
        reserved_ports: reserved_within(reserved, ports)
            .ok_or_else(|| odd("ip_local_reserved_ports"))?,
        max_tw_buckets: number("tcp_max_tw_buckets")?,
        tw_reuse: number("tcp_tw_reuse")? as u8,
        tw_reuse_delay: match values.get("tcp_tw_reuse_delay") {
            Some(_) => Duration::from_millis(number("tcp_tw_reuse_delay")?),
            None => TW_REUSE_DELAY,
        },
        timestamps: number("tcp_timestamps")? != 0,
    })
}

/// `32768 60999`.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(' ')?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// Counts the ports of `8080,9148-9150` that lie in a range. The kernel prints
/// them from a bitmap: none comes twice.
fn reserved_within(list: &str, (low, high): (u16, u16)) -> Option<u32> {
    let mut count = 0;
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = first.parse::<u16>().ok()?.max(low);
        let last = last.parse::<u16>().ok()?.min(high);
        count += (u32::from(last) + 1).saturating_sub(u32::from(first));
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    fn sample() -> Values {
        Values::from([
            ("ip_local_port_range", "32768 60999".to_owned()),
            (
                "ip_local_reserved_ports",
                "8080,40000-40009,60990-61010".to_owned(),
            ),
            ("tcp_max_tw_buckets", "262144".to_owned()),
            ("tcp_tw_reuse", "2".to_owned()),
            ("tcp_timestamps", "1".to_owned()),
        ])
    }

    #[test]
    fn facts_of_a_kernel_without_a_delay() {
        let facts = interpret(&sample(), Some("a".into())).unwrap();
        assert_eq!(
            facts,
            NamespaceFacts {
                name: Some("a".into()),
                ports: (32768, 60999),
                reserved_ports: 10 + 10,
                max_tw_buckets: 262_144,
                tw_reuse: 2,
                tw_reuse_delay: Duration::from_secs(1),
                timestamps: true,
            }
        );
    }

    #[test]
    fn the_delay_is_in_milliseconds() {
        let mut values = sample();
        values.insert("tcp_tw_reuse_delay", "250".into());
        assert_eq!(
            interpret(&values, None).unwrap().tw_reuse_delay,
            Duration::from_millis(250)
        );
    }

    #[test]
    fn reserved_ports_count_within_the_range_only() {
        for (list, count) in [
            ("", 0),
            ("1-32767", 0),
            ("32768", 1),
            ("1-65535", 28232),
            ("61000-65535", 0),
        ] {
            assert_eq!(reserved_within(list, (32768, 60999)), Some(count), "{list}");
        }
        assert_eq!(reserved_within("1-x", (1, 2)), None);
        assert_eq!(reserved_within("70000", (1, 2)), None);
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        let mut values = sample();
        values.remove("tcp_tw_reuse");
        let said = interpret(&values, None).unwrap_err();
        assert_eq!(said, "this kernel has no net.ipv4.tcp_tw_reuse");
        values = sample();
        values.insert("ip_local_port_range", "many".into());
        assert!(
            interpret(&values, None)
                .unwrap_err()
                .contains("ip_local_port_range is Some(\"many\")")
        );
    }

    #[test]
    fn values_are_those_of_the_namespace_asked_about() {
        thread::spawn(|| {
            let host = netns::resolve("self").unwrap().unwrap();
            // SAFETY: only the network namespace of this thread changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("this test makes a network namespace and needs root for it");
            fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "4321").unwrap();
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 2999").unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero();
            let path = format!("/proc/self/task/{tid}/ns/net").into();
            let here = Namespace {
                way: netns::Way::Link(path),
                ..netns::current().unwrap()
            };
            let [Some(of_host), Some(of_here), None] = &all_of_tcp(&[
                host.clone(),
                here.clone(),
                Namespace {
                    inode: 7,
                    ..here.clone()
                },
            ])[..] else {
                panic!("two of the three can be entered");
            };
            assert!(of_here.cookie.is_none() || of_here.cookie != of_host.cookie);
            let (of_host, of_here) = (&of_host.sysctls, &of_here.sysctls);
            assert_eq!(of_here["net.ipv4.ip_local_port_range"], "2000 2999");
            assert_ne!(of_host["net.ipv4.ip_local_port_range"], "2000 2999");
            assert!(of_host.keys().filter(|key| key.contains(".tcp_")).count() > 40);
            assert!(of_host.keys().all(|key| !key.contains(SECRET)));
            let facts = facts(&here).unwrap();
            assert_eq!((facts.max_tw_buckets, facts.ports), (4321, (2000, 2999)));
            assert_ne!(super::facts(&host).unwrap().ports, (2000, 2999));
        })
        .join()
        .unwrap();
    }
}
