//! What the namespaces in scope are set to, and what is new in that: namespaces
//! and values.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::kernel::clock;
use crate::kernel::netns::Namespace;
use crate::kernel::sysctl::{self, AllOfTcp};
use crate::model::event::Moment;
use crate::recording::{Line, NamespaceSettings, SysctlChange, Sysctls};

/// One part in so many of the time may go into reading sysctls: there are some
/// seventy in each namespace.
const SPARING: u64 = 200;

#[derive(Debug, Default)]
pub(super) struct Settings {
    by_netns: BTreeMap<u32, Known>,
    not_before: Moment,
}

#[derive(Debug)]
struct Known {
    /// Tells it from a later namespace of that inode, where the kernel has cookies.
    cookie: Option<u64>,
    sysctls: Sysctls,
    /// When they were last read.
    elapsed_s: f64,
}

impl Settings {
    /// What is new since they were last read, whether or not it is time for that.
    pub(super) fn read(&mut self, moment: &Read<'_>) -> Vec<Line> {
        let began = clock::now();
        let read = sysctl::all_of_tcp(moment.namespaces);
        let cost = clock::now().since(began).as_nanos() as u64;
        self.not_before = Moment(began.0 + cost * SPARING);

        self.take(moment, read)
    }

    /// In the order of the namespaces.
    fn take(&mut self, moment: &Read<'_>, read: Vec<Option<AllOfTcp>>) -> Vec<Line> {
        let mut lines = Vec::new();
        for (namespace, read) in moment.namespaces.iter().zip(read) {
            let Some(AllOfTcp { cookie, sysctls }) = read else {
                continue;
            };
            let known = self.by_netns.get(&namespace.inode);
            match known.filter(|known| known.cookie == cookie) {
                None => lines.push(Line::Namespace(moment.settings(namespace, &sysctls))),
                Some(known) => {
                    lines.extend(moment.changes(namespace, known, &sysctls).map(Line::Sysctl));
                }
            }
            let known = Known {
                cookie,
                sysctls,
                elapsed_s: moment.elapsed_s,
            };
            self.by_netns.insert(namespace.inode, known);
        }
        lines
    }

    /// Whether reading them again would take no more than its share of the time.
    pub(super) fn is_time(&self, now: Moment) -> bool {
        now >= self.not_before
    }
}

/// When they are read, and of which namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) time: Timestamp,
    pub(super) elapsed_s: f64,
    pub(super) namespaces: &'a [Namespace],
}

impl Read<'_> {
    fn settings(&self, namespace: &Namespace, sysctls: &Sysctls) -> NamespaceSettings {
        NamespaceSettings {
            time: self.time,
            elapsed_s: self.elapsed_s,
            netns: namespace.inode,
            name: namespace.name.clone(),
            sysctls: Arc::new(sysctls.clone()),
        }
    }

    fn changes(
        &self,
        namespace: &Namespace,
        known: &Known,
        sysctls: &Sysctls,
    ) -> impl Iterator<Item = SysctlChange> {
        sysctls.iter().filter_map(|(key, after)| {
            let before = known.sysctls.get(key).map_or("", String::as_str);
            (before != after).then(|| SysctlChange {
                time: self.time,
                elapsed_s: self.elapsed_s,
                unchanged_s: known.elapsed_s,
                netns: namespace.inode,
                name: namespace.name.clone(),
                key: key.clone(),
                before: before.to_owned(),
                after: after.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netns::{Namespace, Way};

    fn lines(settings: &mut Settings, cookie: Option<u64>, reuse: &str) -> Vec<Line> {
        let namespace = Namespace {
            inode: 7,
            way: Way::Link("/proc/1/ns/net".into()),
            name: None,
            cookie: None,
        };
        let moment = Read {
            time: Timestamp::UNIX_EPOCH,
            elapsed_s: 1.0,
            namespaces: &[namespace],
        };
        let key = "net.ipv4.tcp_tw_reuse".to_owned();
        let sysctls = Sysctls::from([(key, reuse.to_owned())]);
        settings.take(&moment, vec![Some(AllOfTcp { cookie, sysctls })])
    }

    #[test]
    fn what_another_namespace_of_the_inode_is_set_to_is_no_change() {
        for (first, other) in [(Some(1), Some(2)), (None, Some(2))] {
            let mut settings = Settings::default();
            let new = lines(&mut settings, first, "0");
            assert!(matches!(new[..], [Line::Namespace(_)]), "{new:?}");
            assert_eq!(lines(&mut settings, first, "0").len(), 0);
            let changed = lines(&mut settings, first, "1");
            assert!(matches!(changed[..], [Line::Sysctl(_)]), "{changed:?}");

            let another = lines(&mut settings, other, "2");
            let [Line::Namespace(another)] = &another[..] else {
                panic!("{another:?}");
            };
            assert_eq!(another.sysctls["net.ipv4.tcp_tw_reuse"], "2");
        }
    }
}
