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
