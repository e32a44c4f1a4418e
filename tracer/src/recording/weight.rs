//! Roughly what lines take in memory, in bytes, for those who keep them: a map of
//! short names takes ten times what it takes in a file.

use std::collections::BTreeMap;

use super::header::{End, Header, NamespaceSettings, SysctlChange, Sysctls};
use crate::model::snapshot::{Namespace, Owner, Remote};

/// Of the allocator, for each piece.
const PIECE: usize = 16;

/// Of an entry of a map beside its key and value, whose nodes are half empty.
const ENTRY: usize = 32;

pub(super) fn header(header: &Header) -> usize {
    let namespace = |namespace| settings(namespace) + sysctls(&namespace.sysctls);
    let namespaces: usize = header.namespaces.iter().map(namespace).sum();
    let command: usize = header.command.iter().flatten().map(text).sum();
    let words = [
        &header.schema,
        &header.version,
        &header.host.name,
        &header.host.kernel,
        &header.host.boot_id,
        &header.scope.netns,
        &header.scope.filter,
    ];
    size_of::<Header>()
        + namespaces
        + command
        + words.into_iter().map(text).sum::<usize>()
        + map(&header.seeded)
}

/// Without the sysctls, which may be shared.
pub(super) fn settings(settings: &NamespaceSettings) -> usize {
    size_of::<NamespaceSettings>() + optional(settings.name.as_ref())
}

pub(super) fn sysctls(sysctls: &Sysctls) -> usize {
    let one = |(key, value): (&String, &String)| entry::<String>(key) + value.capacity() + PIECE;
    sysctls.iter().map(one).sum()
}

pub(super) fn change(change: &SysctlChange) -> usize {
    let words = [&change.key, &change.before, &change.after];
    size_of::<SysctlChange>()
        + optional(change.name.as_ref())
        + words.into_iter().map(text).sum::<usize>()
}

pub(super) fn end(end: &End) -> usize {
    let owners: usize = end
        .owners
        .iter()
        .map(|owner| size_of::<Owner>() + text(&owner.comm) + optional(owner.cgroup.as_ref()))
        .sum();
    let namespaces: usize = end
        .namespaces
        .iter()
        .map(|namespace| size_of::<Namespace>() + optional(namespace.name.as_ref()))
        .sum();
    size_of::<End>()
        + owners
        + namespaces
        + list::<Remote>(end.remotes.capacity())
        + optional(end.command_status.as_ref())
        + map(&end.in_state_s)
}

fn list<T>(capacity: usize) -> usize {
    PIECE + capacity * size_of::<T>()
}

fn text(text: &String) -> usize {
    size_of::<String>() + PIECE + text.capacity()
}

fn optional(name: Option<&String>) -> usize {
    name.map_or(0, text)
}

fn map<V>(map: &BTreeMap<String, V>) -> usize {
    map.keys().map(|key| entry::<V>(key)).sum()
}

fn entry<V>(key: &String) -> usize {
    ENTRY + text(key) + size_of::<V>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Lines;

    /// The lines of the example that are kept as they are.
    fn kept() -> (Header, End) {
        let example = include_bytes!("../../tests/examples/recording.jsonl");
        let recording = Lines::new(&example[..]).unwrap().collect().unwrap();
        (recording.header, recording.end.unwrap())
    }

    const MORE: usize = 10_000;

    fn long() -> String {
        "x".repeat(MORE)
    }

    /// What each of `put` adds, where there was an empty text.
    fn each_adds_its_own<T: Clone>(
        of: &T,
        weigh: impl Fn(&T) -> usize,
        put: &[fn(&mut T, String)],
    ) {
        for (number, put) in put.iter().enumerate() {
            let with = |text| {
                let mut value = of.clone();
                put(&mut value, text);
                weigh(&value)
            };
            assert_eq!(with(long()) - with(String::new()), MORE, "{number}");
        }
    }

    #[test]
    fn each_part_adds_its_own() {
        let (first, last) = kept();
        each_adds_its_own(
            &first,
            header,
            &[
                |header, text| header.version = text,
                |header, text| header.host.name = text,
                |header, text| header.scope.filter = text,
                |header, text| header.command = Some(vec![text]),
                |header, text| header.namespaces[0].name = Some(text),
                |header, text| {
                    let one = Sysctls::from([("a".to_owned(), text)]);
                    header.namespaces[0].sysctls = one.into();
                },
                |header, text| header.seeded = [(text, 1)].into(),
            ],
        );
        each_adds_its_own(
            &last,
            end,
            &[
                |end, text| end.owners[0].comm = text,
                |end, text| end.owners[0].cgroup = Some(text),
                |end, text| end.namespaces[0].name = Some(text),
                |end, text| end.command_status = Some(text),
            ],
        );
        let changed = SysctlChange {
            time: first.time,
            elapsed_s: 1.0,
            unchanged_s: 0.0,
            netns: 1,
            name: None,
            key: "k".to_owned(),
            before: "0".to_owned(),
            after: "1".to_owned(),
        };
        each_adds_its_own(
            &changed,
            change,
            &[
                |change, text| change.name = Some(text),
                |change, text| change.key = text,
                |change, text| change.before = text,
                |change, text| change.after = text,
            ],
        );
        let mut more = last.clone();
        more.remotes = Vec::with_capacity(last.remotes.capacity() + MORE);
        assert_eq!(end(&more) - end(&last), MORE * size_of::<Remote>());
    }

    #[test]
    fn nothing_weighs_less_than_it_takes_itself() {
        let (first, last) = kept();
        assert!(header(&first) > size_of::<Header>());
        assert!(end(&last) > size_of::<End>());
        assert!(text(&String::new()) > size_of::<String>());
        assert!(entry::<u64>(&String::new()) > size_of::<(String, u64)>());
        assert!(list::<u64>(0) > 0);
    }
}
