//! The kernel's figures, as files of /proc.

use tracer::kernel::counters;
use tracer::kernel::slab;
use tracer::kernel::sysctl::{self, Values};
use tracer::knowledge::sysctls;

/// `/proc/net/snmp`, `netstat`, `sockstat`, `sockstat6`, `/proc/slabinfo` and then
/// sysctls as `key=value`, with a NUL between two. What one reader finds, the other finds too.
pub fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut texts = text.split('\0');
    let mut next = || texts.next().unwrap_or_default();
    let (snmp, netstat, sockstat, sockstat6) = (next(), next(), next(), next());
    let named = counters::name(snmp, netstat, sockstat, sockstat6);
    for births in [false, true] {
        match counters::parse(netstat, sockstat, sockstat6, births) {
            Ok(found) => {
                let counter = |name| named.counters.get(name).copied();
                assert_eq!(found.minisockets, named.minisockets);
                assert_eq!(found.full_sockets, named.full_sockets);
                assert_eq!(Some(found.reused_by_connect), counter("TWRecycled"));
                assert_eq!(Some(found.overflowed), counter("TCPTimeWaitOverflow"));
                assert_eq!(found.births.is_some(), births);
            }
            Err(name) => assert!(
                !named.counters.contains_key(name) || ["tw", "inuse"].contains(&name),
                "{name} is there"
            ),
        }
    }
    let _ = slab::minisockets(next(), 4096);
    let known = |key| sysctls::ALL.iter().find(|sysctl| sysctl.key() == key);
    let values: Values = next()
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter_map(|(key, value)| Some((known(key)?.key(), value.to_owned())))
        .collect();
    if let Ok(facts) = sysctl::interpret(&values, None) {
        let (low, high) = facts.ports;
        let range = (u32::from(high) + 1).saturating_sub(u32::from(low));
        let parts = values
            .get("ip_local_reserved_ports")
            .map_or(0, |list| list.split(',').count());
        assert!(u64::from(facts.reserved_ports) <= u64::from(range) * parts as u64);
    }
}
