//! The kernel's own TCP counters, per network namespace: the witnesses.
//!
//! `/proc/net` shows the namespace of the process's first thread, so
//! `/proc/thread-self/net` is read, by one short-lived thread that goes from
//! namespace to namespace. What the counters count differs from what their names
//! say and from version to version: docs/kernel.md, "Counters".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};

use super::clock;
use super::netns::{self, Namespace};
use crate::model::event::{Counters, Moment, Netns};

/// From here on TW and TWKilled count births; before, they count expiries.
pub const COUNTS_BIRTHS: (u32, u32) = (6, 1);

/// What was read of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub netns: Netns,
    /// As [`netns::cookie`].
    pub cookie: Option<u64>,
    pub counters: Counters,
}

/// The counters of each namespace that can still be entered.
#[must_use]
pub fn read(namespaces: &[Namespace]) -> Vec<Reading> {
    let births = clock::kernel_version() >= COUNTS_BIRTHS;
    let one = |namespace: &Namespace| {
        Some(Reading {
            netns: Netns(namespace.inode),
            cookie: netns::cookie(),
            counters: read_here(births).ok()?,
        })
    };
    let all = netns::visit(namespaces, one).unwrap_or_default();
    all.into_iter()
        .filter_map(|read| read.ok().flatten())
        .collect()
}

/// What is recorded of the kernel's counters, by its own names: of
/// `/proc/net/snmp` and of `/proc/net/netstat`. Not every kernel has each.
const TCP: [&str; 5] = [
    "ActiveOpens",
    "PassiveOpens",
    "AttemptFails",
    "EstabResets",
    "RetransSegs",
];
const TCP_EXT: [&str; 9] = [
    "ListenDrops",
    "ListenOverflows",
    "PAWSTimewait",
    "TCPACKSkippedTimeWait",
    "TCPSynRetrans",
    "TCPTimeWaitOverflow",
    "TW",
    "TWKilled",
    "TWRecycled",
];

/// The kernel's counters of one namespace since it came into being, and
/// sockstat's gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// As [`netns::cookie`].
    pub cookie: Option<u64>,
    pub counters: BTreeMap<&'static str, u64>,
    pub minisockets: u64,
    pub full_sockets: u64,
}

/// Those of each namespace that can still be entered.
#[must_use]
pub fn read_named(namespaces: &[Namespace]) -> Vec<(Netns, Named)> {
    let one = |namespace: &Namespace| {
        let (snmp, netstat) = (file("snmp").ok()?, file("netstat").ok()?);
        let (sockstat, sockstat6) = (file("sockstat").ok()?, file("sockstat6"));
        let named = Named {
            cookie: netns::cookie(),
            ..name(&snmp, &netstat, &sockstat, &sockstat6.unwrap_or_default())
        };
        Some((Netns(namespace.inode), named))
    };
    let all = netns::visit(namespaces, one).unwrap_or_default();
    all.into_iter()
        .filter_map(|read| read.ok().flatten())
        .collect()
}

/// The texts of the four files, as what is recorded of them.
#[must_use]
pub fn name(snmp: &str, netstat: &str, sockstat: &str, sockstat6: &str) -> Named {
    let tcp = TCP.map(|name| (name, column(snmp, "Tcp: ", name)));
    let ext = TCP_EXT.map(|name| (name, column(netstat, "TcpExt: ", name)));
    let gauge = |text, line, name| socket_stat(text, line, name).unwrap_or(0);
    Named {
        cookie: None,
        counters: tcp
            .into_iter()
            .chain(ext)
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        minisockets: gauge(sockstat, "TCP:", "tw"),
        full_sockets: gauge(sockstat, "TCP:", "inuse") + gauge(sockstat6, "TCP6:", "inuse"),
    }
}

/// One of the files of the namespace that the calling thread is in. They tell
/// no size before they are read, and reading in small steps costs more than they do.
fn file(name: &str) -> io::Result<String> {
    let mut text = String::with_capacity(8 << 10);
    File::open(format!("/proc/thread-self/net/{name}"))?.read_to_string(&mut text)?;
    Ok(text)
}

/// Of the namespace that the calling thread is in.
fn read_here(births: bool) -> io::Result<Counters> {
    let from = clock::now();
    let netstat = file("netstat")?;
    let sockstat = file("sockstat")?;
    // Absent where the kernel has no IPv6 or it is disabled.
    let sockstat6 = file("sockstat6").unwrap_or_default();
    let to = clock::now();
    let parsed = parse(&netstat, &sockstat, &sockstat6, births);
    let counters = parsed.map_err(|name| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the kernel shows no counter {name}"),
        )
    })?;
    Ok(Counters {
        from,
        to,
        ..counters
    })
}

/// The texts of the three files, as numbers; `from` and `to` are left 0. The
/// error is the name of a counter that is not there.
pub fn parse(
    netstat: &str,
    sockstat: &str,
    sockstat6: &str,
    births: bool,
) -> Result<Counters, &'static str> {
    let ext = |name| column(netstat, "TcpExt: ", name).ok_or(name);
    let tcp = |name| socket_stat(sockstat, "TCP:", name).ok_or(name);
    Ok(Counters {
        from: Moment(0),
        to: Moment(0),
        births: if births {
            Some(ext("TW")? + ext("TWKilled")?)
        } else {
            None
        },
        reused_by_connect: ext("TWRecycled")?,
        overflowed: ext("TCPTimeWaitOverflow")?,
        listen_overflows: ext("ListenOverflows")?,
        minisockets: tcp("tw")?,
        full_sockets: tcp("inuse")? + socket_stat(sockstat6, "TCP6:", "inuse").unwrap_or(0),
    })
}

/// A value from a pair of lines that begin alike, names above values.
pub(crate) fn column(text: &str, line: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(line));
    let column = lines.next()?.split(' ').position(|word| word == name)?;
    figure(lines.next()?.split(' ').nth(column)?)
}

/// A value from a line of names each followed by its value.
fn socket_stat(text: &str, line: &str, name: &str) -> Option<u64> {
    let mut words = text
        .lines()
        .find_map(|l| l.strip_prefix(line))?
        .split_whitespace();
    words.find(|word| *word == name)?;
    figure(words.next()?)
}

/// Beyond what a kernel counts that adds a million a second for years: no count,
/// and so no part of a sum.
const MOST: u64 = 1 << 48;

fn figure(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&figure| figure < MOST)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    const NETSTAT: &str = "\
TcpExt: SyncookiesSent TW TWRecycled TWKilled PAWSTimewait ListenOverflows TCPTimeWaitOverflow
TcpExt: 1 200 30 4 5 3 6
IpExt: InNoRoutes TW
IpExt: 0 77
";
    const SOCKSTAT: &str = "\
sockets: used 25
TCP: inuse 12 orphan 1 tw 9 alloc 14 mem 3
UDP: inuse 2 mem 0
";
    const SOCKSTAT6: &str = "TCP6: inuse 5\nUDP6: inuse 1\n";

    #[test]
    fn reads_the_three_files() {
        let read = parse(NETSTAT, SOCKSTAT, SOCKSTAT6, true).unwrap();
        assert_eq!(
            read,
            Counters {
                from: Moment(0),
                to: Moment(0),
                births: Some(204),
                reused_by_connect: 30,
                overflowed: 6,
                listen_overflows: 3,
                minisockets: 9,
                full_sockets: 17,
            }
        );
    }

    #[test]
    fn counters_go_by_the_kernels_names_where_it_has_them() {
        let snmp = "Tcp: RtoAlgorithm ActiveOpens AttemptFails\nTcp: 1 20 3\n";
        let named = name(snmp, NETSTAT, SOCKSTAT, SOCKSTAT6);
        assert_eq!(
            named,
            Named {
                cookie: None,
                counters: BTreeMap::from([
                    ("ActiveOpens", 20),
                    ("AttemptFails", 3),
                    ("ListenOverflows", 3),
                    ("PAWSTimewait", 5),
                    ("TCPTimeWaitOverflow", 6),
                    ("TW", 200),
                    ("TWKilled", 4),
                    ("TWRecycled", 30),
                ]),
                minisockets: 9,
                full_sockets: 17,
            }
        );
    }

    #[test]
    fn an_older_kernel_has_no_count_of_births() {
        assert_eq!(
            parse(NETSTAT, SOCKSTAT, SOCKSTAT6, false).unwrap().births,
            None
        );
    }

    #[test]
    fn a_host_without_ipv6_has_no_second_file() {
        assert_eq!(parse(NETSTAT, SOCKSTAT, "", true).unwrap().full_sockets, 12);
    }

    #[test]
    fn a_counter_that_is_not_there_is_named() {
        let netstat = NETSTAT.replace("TWRecycled", "Other");
        assert_eq!(parse(&netstat, SOCKSTAT, "", true), Err("TWRecycled"));
        assert_eq!(parse(NETSTAT, "TCP: inuse 1\n", "", true), Err("tw"));
        assert_eq!(parse("", SOCKSTAT, "", false), Err("TWRecycled"));
        assert_eq!(
            parse("TcpExt: TW TWKilled\nTcpExt: 1\n", SOCKSTAT, "", true),
            Err("TWKilled")
        );
    }

    #[test]
    fn a_figure_that_no_kernel_can_have_counted_is_none() {
        let netstat = NETSTAT.replace("200", "18446744073709551615");
        assert_eq!(parse(&netstat, SOCKSTAT, "", true), Err("TW"));
        let sockstat = SOCKSTAT.replace("inuse 12", "inuse 18446744073709551615");
        assert_eq!(parse(NETSTAT, &sockstat, "", true), Err("inuse"));
        assert_eq!(name("", &netstat, &sockstat, "").full_sockets, 0);
    }

    #[test]
    fn a_namespace_has_counters_of_its_own() {
        thread::spawn(|| {
            let host = netns::resolve("self").unwrap().unwrap();
            // SAFETY: only the network namespace of this thread changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("this test makes a network namespace and needs root for it");
            crate::lab::link::bring_up("lo").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero();
            let path = format!("/proc/self/task/{tid}/ns/net").into();
            let here = Namespace {
                way: netns::Way::Link(path),
                ..netns::current().unwrap()
            };
            let gone = Namespace {
                inode: 7,
                ..here.clone()
            };

            let read = read(&[host, gone, here.clone()]);
            assert_eq!(read.len(), 2, "{read:?}");
            let Reading {
                netns,
                cookie,
                counters: open,
            } = read[1];
            assert_eq!(netns, Netns(here.inode));
            assert!(cookie.is_none() || cookie != read[0].cookie, "{read:?}");
            assert_eq!((open.full_sockets, open.minisockets), (3, 0));
            assert!(open.from <= open.to && open.from > Moment(0));

            drop(client);
            drop(server);
            let closed = super::read(&[here])[0].counters;
            assert_eq!((closed.full_sockets, closed.minisockets), (1, 1));
            let births = closed
                .births
                .zip(open.births)
                .map(|(after, before)| after - before);
            assert_eq!(
                births,
                (clock::kernel_version() >= COUNTS_BIRTHS).then_some(1)
            );
        })
        .join()
        .unwrap();
    }
}
