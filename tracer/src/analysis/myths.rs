//! What somebody who set these sysctls may have believed, and what refutes it.
//!
//! A value alone proves no belief, so each is told as a possibility, beside the
//! measurement. Values and files come in; nothing here reads them.

use std::collections::BTreeMap;

use serde::Serialize;

/// A belief that a setting suggests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Myth {
    /// As it is set: `net.ipv4.tcp_fin_timeout = 15`.
    pub found: String,
    /// Inode numbers of the namespaces that are set so; empty where a file says
    /// it and no namespace can.
    pub namespaces: Vec<u32>,
    /// File and line, where it stands in sysctl.d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A clause that follows "that".
    pub belief: &'static str,
    /// Whole sentences.
    pub truth: String,
    /// Figures that show it, as whole sentences.
    pub measured: &'static str,
    /// A command that shows it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_it: Option<String>,
}

/// A network namespace and what it is set to, by the last word of each key.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub netns: u32,
    pub values: &'a BTreeMap<&'static str, String>,
}

impl Place<'_> {
    fn number(&self, key: &str) -> Option<i64> {
        self.values.get(key)?.parse().ok()
    }
}

/// What the host sets at boot, of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtBoot {
    /// The last word of the key.
    pub key: &'static str,
    pub value: String,
    /// File and line.
    pub at: String,
    /// The same file sets keys that articles on TIME_WAIT set.
    pub among_others: bool,
}

/// Whose TIME_WAITs there are, where that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub client: u64,
    pub server: u64,
}

/// What a namespace's default of `tcp_max_tw_buckets` follows from; negative
/// where the namespace shares the table of the first.
const EHASH: &str = "tcp_ehash_entries";

/// Fewer TIME_WAITs than this say nothing of a host.
const SOME: u64 = 100;

type Rule = (
    fn(&Place<'_>) -> bool,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// When, the key, what is believed, what is true, what was measured.
const RULES: &[Rule] = &[
    (
        |place| place.number("tcp_fin_timeout").is_some_and(|s| s < 60),
        "tcp_fin_timeout",
        "it shortens TIME_WAIT",
        "It sets how long an orphan waits in FIN_WAIT2 for its peer to close, and nothing else.",
        "At 2, 15 and 60 the TIME_WAITs lived 60.4 to 62.0 s; the orphans in FIN_WAIT2 lived \
         2.02, 15.1 and 61.6 s.",
    ),
    (
        |place| place.number("tcp_fin_timeout").is_some_and(|s| s > 60),
        "tcp_fin_timeout",
        "orphans in FIN_WAIT2 then wait so long",
        "Above 60 the kernel keeps a full socket for what is beyond 60 s, and then a minisocket \
         for as long again. TIME_WAIT stays as it is.",
        "61 gave 2.1 s, 75 gave 30.4 s, 90 gave 60.9 s.",
    ),
    (
        |place| {
            place.number("tcp_tw_reuse") == Some(1) && place.number("tcp_timestamps") == Some(0)
        },
        "tcp_tw_reuse",
        "connect() can now take over ports in TIME_WAIT",
        "It does so only where connections carry timestamps, and tcp_timestamps is 0 here.",
        "100 ports gave 100 connects and then no free port, as with tcp_tw_reuse=0.",
    ),
    (
        |place| match (place.number("tcp_max_tw_buckets"), place.number(EHASH)) {
            (Some(limit), Some(entries)) => limit < entries.abs() / 2,
            _ => false,
        },
        "tcp_max_tw_buckets",
        "fewer TIME_WAITs are better",
        "No TIME_WAIT ends sooner for it. Beyond it connections skip TIME_WAIT: nobody then \
         answers a FIN that comes again, and old segments can meet the next connection of the \
         same ports.",
        "At 10, 30 closes left 10 TIME_WAITs and 20 that skipped it.",
    ),
    (
        |place| place.number("tcp_rfc1337") == Some(1),
        "tcp_rfc1337",
        "it makes TIME_WAITs fewer, or shorter",
        "It keeps those that an RST would have ended: they live longer, and there are more.",
        "At 0 an RST ends a TIME_WAIT; at 1 the same RST leaves it standing.",
    ),
];

/// Every belief that these settings suggest.
#[must_use]
pub fn suggested(places: &[Place<'_>], at_boot: &[AtBoot], own: u32, seen: Seen) -> Vec<Myth> {
    let mut myths = Vec::new();
    for &(applies, key, belief, truth, measured) in RULES {
        let mut by_value: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for place in places.iter().filter(|place| applies(place)) {
            let value = place.values.get(key).map_or("", String::as_str);
            by_value.entry(value).or_default().push(place.netns);
        }
        for (value, namespaces) in by_value {
            let set = at_boot
                .iter()
                .find(|set| set.key == key && set.value == value);
            myths.push(Myth {
                found: format!("net.ipv4.{key} = {value}"),
                namespaces,
                at: set.map(|set| set.at.clone()),
                belief,
                truth: truth.to_owned(),
                measured,
                try_it: Some(trial(key, value)),
            });
        }
    }
    myths.extend(of_servers(places, own, seen));
    myths.extend(at_boot.iter().filter_map(of_files));
    myths.extend(of_containers(places, at_boot, own));
    myths
}

fn trial(key: &str, value: &str) -> String {
    let given = if key == "tcp_tw_reuse" {
        "--sysctl tcp_timestamps=0 --ports 100 "
    } else {
        ""
    };
    format!("twtrace lab {given}-- trial --set net.ipv4.{key}={value}")
}

/// Reuse, on a host that closes its clients' connections first.
fn of_servers(places: &[Place<'_>], own: u32, seen: Seen) -> Option<Myth> {
    let all = seen.client + seen.server;
    let here = places.iter().find(|place| place.netns == own)?;
    let serves = all >= SOME && seen.server * 10 >= all * 9;
    (serves && here.number("tcp_tw_reuse") == Some(1)).then(|| Myth {
        found: "net.ipv4.tcp_tw_reuse = 1".to_owned(),
        namespaces: vec![own],
        at: None,
        belief: "it lowers the number of TIME_WAITs of a server",
        truth: format!(
            "It is for connect() alone, and {} of {all} TIME_WAITs of this host are on the \
             server's side, where they hold no port.",
            seen.server
        ),
        measured: "Where the server closes first, 60,465 connects in a row went through without it.",
        try_it: Some("twtrace lab --close server -- trial --set net.ipv4.tcp_tw_reuse=1".to_owned()),
    })
}

fn of_files(set: &AtBoot) -> Option<Myth> {
    let (belief, truth, measured, try_it) = match set.key {
        "tcp_tw_recycle" => (
            "it recycles TIME_WAITs",
            "Linux 4.12 removed it: the key does not exist, and its line has no effect but an \
             error message at boot. While it existed it refused clients behind NAT.",
            "Writing it gives ENOENT; the other lines of its file are applied.",
            None,
        ),
        "tcp_syncookies" if set.among_others => (
            "it helps against TIME_WAIT",
            "It answers SYNs while a listener's queue of half-open connections is full, and is 1 \
             by default.",
            "At 0, 1 and 2 a TIME_WAIT has the same 60 s to live.",
            Some(format!(
                "twtrace lab -- trial --set net.ipv4.tcp_syncookies={}",
                set.value
            )),
        ),
        _ => return None,
    };
    Some(Myth {
        found: format!("net.ipv4.{} = {}", set.key, set.value),
        namespaces: Vec::new(),
        at: Some(set.at.clone()),
        belief,
        truth: truth.to_owned(),
        measured,
        try_it,
    })
}

/// What the host sets at boot and other namespaces have otherwise.
fn of_containers(places: &[Place<'_>], at_boot: &[AtBoot], own: u32) -> Vec<Myth> {
    let mut myths = Vec::new();
    for set in at_boot {
        let differs = |place: &&Place<'_>| {
            place.netns != own
                && place
                    .values
                    .get(set.key)
                    .is_some_and(|value| *value != set.value)
        };
        let namespaces: Vec<u32> = places.iter().filter(differs).map(|p| p.netns).collect();
        if !set.among_others || namespaces.is_empty() {
            continue;
        }
        myths.push(Myth {
            found: format!("net.ipv4.{} = {}", set.key, set.value),
            at: Some(set.at.clone()),
            belief: "it holds in containers too",
            truth: "Each network namespace begins with the kernel's defaults and has values of \
                    its own: what the host sets does not reach it."
                .to_owned(),
            measured: "A namespace made from one with tcp_fin_timeout=15 and tcp_tw_reuse=1 had \
                       60 and 2.",
            try_it: None,
            namespaces,
        });
    }
    myths
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values = BTreeMap<&'static str, String>;

    fn values(of: &[(&'static str, &str)]) -> Values {
        of.iter()
            .map(|&(key, value)| (key, value.to_owned()))
            .collect()
    }

    fn defaults() -> Values {
        values(&[
            ("tcp_fin_timeout", "60"),
            ("tcp_tw_reuse", "2"),
            ("tcp_timestamps", "1"),
            ("tcp_max_tw_buckets", "131072"),
            ("tcp_ehash_entries", "262144"),
            ("tcp_rfc1337", "0"),
            ("tcp_syncookies", "1"),
        ])
    }

    fn beliefs(values: &Values, at_boot: &[AtBoot], seen: Seen) -> Vec<&'static str> {
        let place = Place { netns: 1, values };
        let myths = suggested(&[place], at_boot, 1, seen);
        myths.iter().map(|myth| myth.belief).collect()
    }

    fn set(key: &'static str, value: &str) -> AtBoot {
        AtBoot {
            key,
            value: value.to_owned(),
            at: "/etc/sysctl.d/tune.conf:1".to_owned(),
            among_others: true,
        }
    }

    #[test]
    fn defaults_suggest_nothing() {
        assert_eq!(beliefs(&defaults(), &[], Seen::default()), [""; 0]);
    }

    #[test]
    fn each_setting_suggests_its_own_belief() {
        for (key, value, belief) in [
            ("tcp_fin_timeout", "15", "it shortens TIME_WAIT"),
            (
                "tcp_fin_timeout",
                "75",
                "orphans in FIN_WAIT2 then wait so long",
            ),
            ("tcp_max_tw_buckets", "5000", "fewer TIME_WAITs are better"),
            ("tcp_rfc1337", "1", "it makes TIME_WAITs fewer, or shorter"),
        ] {
            let mut set = defaults();
            set.insert(key, value.to_owned());
            assert_eq!(
                beliefs(&set, &[], Seen::default()),
                [belief],
                "{key}={value}"
            );
        }
        // On its own it is no mistake, nor is a limit that was raised.
        let mut fine = defaults();
        fine.insert("tcp_tw_reuse", "1".into());
        fine.insert("tcp_max_tw_buckets", "400000".into());
        assert_eq!(beliefs(&fine, &[], Seen::default()), [""; 0]);
        fine.insert("tcp_timestamps", "0".into());
        assert_eq!(
            beliefs(&fine, &[], Seen::default()),
            ["connect() can now take over ports in TIME_WAIT"]
        );
    }

    #[test]
    fn reuse_on_a_server_is_told_from_reuse_on_a_client() {
        let mut reuse = defaults();
        reuse.insert("tcp_tw_reuse", "1".into());
        let seen = |client, server| beliefs(&reuse, &[], Seen { client, server }).len();
        assert_eq!(seen(10, 90), 1);
        assert_eq!(seen(11, 89), 0);
        assert_eq!(seen(0, 99), 0);
    }

    #[test]
    fn the_article_is_recognized_by_its_lines() {
        let article = [set("tcp_syncookies", "1"), set("tcp_tw_recycle", "1")];
        assert_eq!(
            beliefs(&defaults(), &article, Seen::default()),
            ["it helps against TIME_WAIT", "it recycles TIME_WAITs"]
        );
        let alone = AtBoot {
            among_others: false,
            ..set("tcp_syncookies", "1")
        };
        assert_eq!(beliefs(&defaults(), &[alone], Seen::default()), [""; 0]);
    }

    #[test]
    fn namespaces_of_one_value_are_told_together_and_containers_by_name() {
        let (mut host, container) = (defaults(), defaults());
        host.insert("tcp_fin_timeout", "30".into());
        let places = [(1, &host), (2, &host), (3, &container)]
            .map(|(netns, values)| Place { netns, values });
        let myths = suggested(&places, &[set("tcp_fin_timeout", "30")], 1, Seen::default());
        assert_eq!(myths.len(), 2, "{myths:?}");
        assert_eq!(myths[0].namespaces, [1, 2]);
        assert_eq!(myths[0].at.as_deref(), Some("/etc/sysctl.d/tune.conf:1"));
        assert_eq!(myths[1].namespaces, [3]);
    }
}
