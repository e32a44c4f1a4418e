//! What the namespaces in scope are set to, and what is new in that: namespaces
//! and values.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::kernel::netns::Namespace;
use crate::kernel::{clock, sysctl};
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

        let mut lines = Vec::new();
        for (namespace, sysctls) in moment.namespaces.iter().zip(read) {
            let Some(sysctls) = sysctls else { continue };
            match self.by_netns.get(&namespace.inode) {
                None => lines.push(Line::Namespace(moment.settings(namespace, &sysctls))),
                Some(known) => {
                    lines.extend(moment.changes(namespace, known, &sysctls).map(Line::Sysctl));
                }
            }
            let elapsed_s = moment.elapsed_s;
            self.by_netns
                .insert(namespace.inode, Known { sysctls, elapsed_s });
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
            sysctls: sysctls.clone(),
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
