//! Programs bind before they connect: all destinations share one range of ports.

use super::words::who;
use super::{Finding, Moved, Severity, Subject};
use crate::model::snapshot::Snapshot;
use crate::units::{count, counted, percent_of};

pub(super) fn found(snapshot: &Snapshot, _: &Moved) -> Vec<Finding> {
    let stock = snapshot.stock.iter();
    let full = stock
        .flat_map(|stock| &stock.sources)
        .filter(|source| source.usable > 0 && source.bound * 2 >= source.usable);
    full.map(|source| {
        let exhausted = source.bound >= source.usable;
        let severity = if exhausted {
            Severity::Hurts
        } else {
            Severity::Near
        };
        let how_many = if exhausted { "no" } else { "less than half of the" };
        let ports = if exhausted { "port is" } else { "ports are" };
        Finding {
            netns: Some(source.netns),
            headline: format!(
                "{how_many} local {ports} left on {} for programs that call bind() before connect()",
                source.local
            ),
            because: format!(
                "{} of {} ports ({}) are held by bind() on that address, towards {}: who binds \
                 first has one range of ports for all destinations together, TIME_WAITs included. \
                 {} holds some. bind() fails with EADDRINUSE when none is left.",
                count(source.bound),
                count(source.usable),
                percent_of(source.bound, source.usable),
                counted(source.destinations, "destination", "destinations"),
                who(source.holder.as_ref(), "A program that is not known"),
            ),
            subject: Subject {
                local: Some(source.local),
                ..Subject::default()
            }
            .held_by(source.holder.as_ref()),
            ..Finding::new("source_address_exhausted", severity, "bind_before_connect")
        }
        .remedy("set IP_BIND_ADDRESS_NO_PORT before bind(), or do not bind at all")
        .remedy("widen net.ipv4.ip_local_port_range, or use more source addresses")
        .figure("bound", source.bound)
        .figure("usable", source.usable)
        .figure("destinations", source.destinations)
    })
    .collect()
}
