//! What is told once, or now and then: the header, namespaces, changes, the end.

use std::fmt::Arguments;

use crate::model::snapshot::{Distribution, Namespace, Summary};
use crate::recording::bounds::{
    Breach, COUNT, Checked, EVER, SOCKET_SECONDS, SOCKETS, SPAN, TICKS, TOTAL,
};
use crate::recording::header::{End, Header, NamespaceSettings, SysctlChange};

/// The first line.
pub(in crate::recording) fn header(header: &Header) -> Checked {
    let Header {
        schema: _,
        version: _,
        time: _,
        host,
        clock: _,
        scope: _,
        interval_s,
        duration_s,
        command: _,
        events: _,
        seeded,
        namespaces,
    } = header;
    TICKS.number(format_args!("host.hz"), host.hz.into())?;
    // What is asked for may be more than a machine lives.
    EVER.check(format_args!("interval_s"), *interval_s)?;
    if let Some(duration_s) = duration_s {
        EVER.check(format_args!("duration_s"), *duration_s)?;
    }
    for (state, &n) in seeded {
        SOCKETS.number(format_args!("seeded.{state}"), n)?;
    }
    for (i, settings) in namespaces.iter().enumerate() {
        namespace_settings(format_args!("namespaces[{i}].elapsed_s"), settings)?;
    }
    Ok(())
}

/// The member is the one number there is.
pub(super) fn namespace_settings(
    elapsed_s: Arguments<'_>,
    settings: &NamespaceSettings,
) -> Checked {
    SPAN.check(elapsed_s, settings.elapsed_s)
}

pub(super) fn sysctl_change(change: &SysctlChange) -> Checked {
    let SysctlChange {
        time: _,
        elapsed_s,
        unchanged_s,
        netns: _,
        name: _,
        key: _,
        before: _,
        after: _,
    } = change;
    SPAN.check(format_args!("elapsed_s"), *elapsed_s)?;
    SPAN.check(format_args!("unchanged_s"), *unchanged_s)?;
    if unchanged_s > elapsed_s {
        let why = format!("{unchanged_s} is after elapsed_s, {elapsed_s}");
        return Err(Breach::of(format_args!("unchanged_s"), why));
    }
    Ok(())
}

pub(super) fn end(end: &End) -> Checked {
    let End {
        time: _,
        elapsed_s,
        frames,
        ended: _,
        command_status: _,
        owners,
        remotes,
        left_out,
        namespaces,
        in_state_s,
    } = end;
    SPAN.check(format_args!("elapsed_s"), *elapsed_s)?;
    TOTAL.number(format_args!("frames"), *frames)?;
    for (i, owner) in owners.iter().enumerate() {
        let member = format_args!("owners[{i}].time_wait_entered");
        COUNT.number(member, owner.time_wait_entered)?;
    }
    for (i, remote) in remotes.iter().enumerate() {
        let member = format_args!("remotes[{i}].time_wait_entered");
        COUNT.number(member, remote.time_wait_entered)?;
    }
    for (name, n) in [
        ("destinations", left_out.destinations),
        (
            "owners_time_wait_entered",
            left_out.owners_time_wait_entered,
        ),
        (
            "remotes_time_wait_entered",
            left_out.remotes_time_wait_entered,
        ),
    ] {
        COUNT.number(format_args!("left_out.{name}"), n)?;
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        namespace_at_the_end(i, namespace)?;
    }
    for (state, distribution) in in_state_s {
        let Distribution { count, summary } = distribution;
        COUNT.number(format_args!("in_state_s.{state}.count"), *count)?;
        if let Some(summary) = summary {
            let Summary {
                min,
                p50,
                p90,
                p99,
                max,
                sum,
            } = *summary;
            for (name, s) in [
                ("min", min),
                ("p50", p50),
                ("p90", p90),
                ("p99", p99),
                ("max", max),
            ] {
                SPAN.check(format_args!("in_state_s.{state}.{name}"), s)?;
            }
            SOCKET_SECONDS.check(format_args!("in_state_s.{state}.sum"), sum)?;
        }
    }
    Ok(())
}

fn namespace_at_the_end(i: usize, namespace: &Namespace) -> Checked {
    for (state, count) in namespace.states.iter() {
        let state = state.name();
        SOCKETS.number(
            format_args!("namespaces[{i}].states.{state}.now"),
            count.now,
        )?;
        for (name, n) in [
            ("seeded", count.seeded),
            ("entered", count.entered),
            ("left", count.left),
        ] {
            COUNT.number(format_args!("namespaces[{i}].states.{state}.{name}"), n)?;
        }
    }
    Ok(())
}
