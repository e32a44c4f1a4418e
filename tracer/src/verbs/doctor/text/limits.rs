//! How near the limits are: ports of clients, minisockets, and memory.

use super::Page;
use crate::analysis::headroom::{Buckets, Ports};
use crate::model::snapshot::Exactness;
use crate::units::{
    bytes, count, counted, edge, endpoint, host, namespace, percent_of, rate, roughly,
};
use crate::verbs::doctor::report::{Inspected, Memory, Report};

/// Destinations that are shown; `--json` has them all.
const ROWS: usize = 10;

pub(super) fn write(report: &Report, page: &mut Page) {
    ports(report, page);
    buckets(report, page);
    if let Some(memory) = &report.memory {
        page.heading("Memory of TIME_WAITs");
        page.paragraph(2, &memory_of(memory));
    }
}

fn ports(report: &Report, page: &mut Page) {
    let (Some(look), Some(ports)) = (&report.look, &report.ports) else {
        page.heading("Local ports of clients");
        page.paragraph(
            2,
            "Not looked at: the tracer does not run here. `ss -tan` lists connections.",
        );
        return;
    };
    page.heading(&format!(
        "Local ports of clients, after watching {} for {}",
        if look.netns == "all" {
            "all network namespaces"
        } else {
            "this network namespace"
        },
        edge((look.duration_s * 10.0).round() / 10.0)
    ));
    if look.exactness == Exactness::Approximate {
        page.paragraph(2, "Some events were lost, so the counts are approximate.");
    }
    if ports.is_empty() {
        page.paragraph(2, "No connection takes a local port from a client.");
        return;
    }
    let mut rows = vec![
        [
            "netns",
            "from -> to",
            "used",
            "",
            "TIME_WAIT",
            "again now",
            "conn/s",
            "limit/s",
            "half used",
            "exhausted",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(ports.iter().take(ROWS).map(|ports| port_row(report, ports)));
    page.table(&rows);
    if ports.len() > ROWS {
        page.paragraph(
            2,
            &format!(
                "and {} more; --json has them",
                count((ports.len() - ROWS) as u64)
            ),
        );
    }
    page.paragraph(
        2,
        "\"again now\" is how many of the TIME_WAITs' ports connect() may take over. From half of \
         the ports on, connect() searches long for a free one (its latency was seen to rise from \
         20 µs to 8 ms). What grows is foretold from the present rate.",
    );
    page.paragraph(
        2,
        "Two limits lie below these and do not show here. A program that calls bind() before \
         connect(), without IP_BIND_ADDRESS_NO_PORT, has one range of ports for all destinations \
         together (measured; its bind() fails with EADDRINUSE).",
    );
    page.paragraph(2, &snat(report));
}

fn snat(report: &Report) -> String {
    let key = "nf_conntrack_tcp_timeout_time_wait";
    let own = report.namespaces.iter().find(|n| n.own);
    let here = own
        .and_then(|n| n.sysctls.get(key))
        .map_or(String::new(), |s| {
            format!(" Should this host be such a one: it is set to {s} s here.")
        });
    format!(
        "And a host on the way that translates addresses (SNAT) keeps each closed connection for \
         net.netfilter.{key}, 120 s by default: twice a TIME_WAIT, and shared by all behind it \
         (as the kernel documents; not measured).{here}"
    )
}

fn port_row(report: &Report, ports: &Ports) -> Vec<String> {
    let name = report
        .namespaces
        .iter()
        .find(|n| n.netns == ports.netns)
        .and_then(|n| n.name.as_deref());
    let in_s = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("in {}", roughly(s)));
    vec![
        namespace(ports.netns, name),
        format!(
            "{} -> {}",
            host(ports.local),
            endpoint(ports.remote, ports.remote_port)
        ),
        format!("{}/{}", count(ports.used), count(ports.usable)),
        percent_of(ports.used, ports.usable),
        count(ports.time_wait),
        count(ports.reusable),
        rate(ports.connects_per_s),
        rate(ports.limit_per_s),
        if ports.past_half() {
            "passed".to_owned()
        } else {
            in_s(ports.half_used_in_s)
        },
        // What can be taken again does not run out.
        if ports.used >= ports.usable && ports.reusable == 0 {
            "now".to_owned()
        } else {
            in_s(ports.exhausted_in_s)
        },
    ]
}

fn buckets(report: &Report, page: &mut Page) {
    page.heading("TIME_WAITs and orphans in FIN_WAIT2 against tcp_max_tw_buckets");
    let some = |n: &&Inspected| n.minisockets.is_some_and(|b| b.now > 0 || b.skipped > 0);
    let busy: Vec<&Inspected> = report.namespaces.iter().filter(some).collect();
    if busy.is_empty() {
        let known = report.namespaces.iter().filter(|n| n.minisockets.is_some());
        page.paragraph(
            2,
            &match known.count() {
                0 => "Not known: the counters of no network namespace can be read.".to_owned(),
                1 => "The network namespace has none, and none has skipped TIME_WAIT.".to_owned(),
                n => format!(
                    "None of {n} network namespaces has any, and none has skipped TIME_WAIT."
                ),
            },
        );
        return;
    }
    let mut rows = vec![
        [
            "netns",
            "now",
            "of",
            "",
            "born/s",
            "leads to",
            "full",
            "skipped since it was made",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for inspected in busy {
        if let Some(buckets) = &inspected.minisockets {
            rows.push(bucket_row(inspected, buckets));
        }
    }
    page.table(&rows);
    if rows
        .iter()
        .skip(1)
        .any(|row| row.last().is_some_and(|n| n != "0"))
    {
        page.paragraph(
            2,
            "Who skipped TIME_WAIT was closed without it, since the limit was reached (or memory \
             was short): the peer's FIN is not answered if it comes again.",
        );
    }
}

fn bucket_row(inspected: &Inspected, buckets: &Buckets) -> Vec<String> {
    vec![
        namespace(inspected.netns, inspected.name.as_deref()),
        count(buckets.now),
        count(buckets.limit),
        percent_of(buckets.now, buckets.limit),
        buckets.births_per_s.map_or("-".to_owned(), rate),
        // Who skips it is not born, so a full one's rate leads nowhere.
        match buckets.settles_at {
            Some(n) if buckets.now < buckets.limit => count(n),
            _ => "-".to_owned(),
        },
        match buckets.full_in_s {
            Some(0.0) => "now".to_owned(),
            Some(in_s) => format!("in {}", roughly(in_s)),
            None => "-".to_owned(),
        },
        count(buckets.skipped),
    ]
}

fn memory_of(memory: &Memory) -> String {
    let stock = counted(memory.time_waits, "TIME_WAIT", "TIME_WAITs");
    let Some(all) = memory.all_bytes else {
        return format!("{stock}; this kernel does not show what one takes.");
    };
    let of_one = match (memory.minisocket_bytes, memory.port_bytes) {
        (Some(one), Some(port)) => format!(
            "one takes {one} B on this kernel, and {port} B more where it holds a client's port"
        ),
        _ => String::new(),
    };
    let slabs = memory.slabs_bytes.map_or(String::new(), |slabs| {
        format!(
            " Their slabs take {} now, free places included.",
            bytes(slabs)
        )
    });
    match memory.time_waits {
        0 => format!("There is none; {of_one}.{slabs}"),
        _ => format!("{stock} take {} at most: {of_one}.{slabs}", bytes(all)),
    }
}
