//! What must hold of the table as a whole, and of its look-ups.

use super::*;

#[test]
fn a_key_is_found_by_each_of_its_spellings() {
    for name in [
        "net.ipv4.tcp_tw_reuse",
        "net/ipv4/tcp_tw_reuse",
        "/proc/sys/net/ipv4/tcp_tw_reuse",
        "tcp_tw_reuse",
    ] {
        assert_eq!(find(name).map(Sysctl::key), Some("tcp_tw_reuse"), "{name}");
    }
    assert!(find("net.ipv6.tcp_tw_reuse").is_none());
    assert!(find("tcp_tw").is_none());
}

#[test]
fn the_first_separator_is_the_separator() {
    assert_eq!(
        dotted("net.ipv4.conf.eth0/1.forwarding"),
        "net.ipv4.conf.eth0/1.forwarding"
    );
    assert_eq!(
        dotted("net/ipv4/conf/eth0.1/forwarding"),
        "net.ipv4.conf.eth0/1.forwarding"
    );
    assert_eq!(dotted("somaxconn"), "somaxconn");
}

#[test]
fn what_decides_can_be_moved_or_is_a_belief_to_be_tried() {
    for sysctl in ALL {
        assert!((1..=3).contains(&sysctl.primary.len()), "{}", sysctl.name);
        // A key that can do something is decided by something it can do.
        assert!(
            sysctl.effects.is_empty()
                || sysctl
                    .primary
                    .iter()
                    .any(|metric| sysctl.effect_on(metric).is_some()),
            "{}",
            sysctl.name
        );
    }
}

#[test]
fn nothing_is_said_twice() {
    for (i, sysctl) in ALL.iter().enumerate() {
        assert!(
            ALL[..i].iter().all(|other| other.key() != sysctl.key()),
            "{}",
            sysctl.name
        );
        for (j, effect) in sysctl.effects.iter().enumerate() {
            assert!(
                sysctl.effects[..j]
                    .iter()
                    .all(|other| !other.covers(effect.metric)),
                "{}: {}",
                sysctl.name,
                effect.metric
            );
        }
    }
}

#[test]
fn fin_timeout_cannot_change_a_life_in_time_wait() {
    let key = find("tcp_fin_timeout").unwrap();
    for cannot in [metric::LIFE, metric::LIFE_P50, metric::REACHES_2MSL] {
        assert_eq!(key.effect_on(cannot), None, "{cannot}");
    }
    assert_eq!(
        key.effect_on(metric::ORPHAN_LIFE).map(|e| e.only),
        Some(None)
    );
}

#[test]
fn a_family_covers_its_members_and_nothing_else() {
    let key = find("tcp_tw_reuse").unwrap();
    assert!(key.effect_on("time_wait_ended_share.expired").is_some());
    assert!(key.effect_on("connect_failures_per_1000.refused").is_some());
    assert_eq!(key.effect_on("time_wait_ended_shares"), None);
    assert_eq!(key.effect_on(metric::PER_CLOSE), None);
}

#[test]
fn a_kernel_without_a_key_is_told_so() {
    let said = |name, kernel| find(name).unwrap().absent_from(kernel);
    assert_eq!(
        said("tcp_tw_recycle", (6, 18)).unwrap(),
        "net.ipv4.tcp_tw_recycle is gone: Linux 4.11 was the last to have it; this is 6.18."
    );
    assert_eq!(
        said("tcp_tw_reuse_delay", (6, 12)).unwrap(),
        "net.ipv4.tcp_tw_reuse_delay came with Linux 6.14; this is 6.12."
    );
    assert_eq!(said("tcp_tw_reuse_delay", (6, 14)), None);
    assert_eq!(said("tcp_fin_timeout", (5, 10)), None);
}

#[test]
fn several_keys_decide_by_three_metrics() {
    assert_eq!(
        primary_metrics(["net.ipv4.tcp_tw_reuse"]),
        [metric::CONNECTIONS, metric::NO_PORT, metric::ENDED_REUSED]
    );
    assert_eq!(
        primary_metrics(["net.ipv4.tcp_ecn"]),
        PRIMARY_OF_THE_UNKNOWN
    );
    assert_eq!(primary_metrics([]), PRIMARY_OF_THE_UNKNOWN);
    assert_eq!(
        primary_metrics(["tcp_fin_timeout", "tcp_tw_reuse"]),
        [metric::ORPHAN_LIFE, metric::LIFE, metric::STOCK]
    );
}

#[test]
fn what_is_said_to_be_held_by_a_test_has_one() {
    let tests = include_str!("../../../tests/kernel/main.rs");
    let claims = ALL.iter().flat_map(|s| s.can.iter().chain(s.cannot));
    for claim in claims {
        if let Known::Held(test) = claim.known {
            assert!(
                tests.contains(&format!("\"{test}\"")),
                "{test}: {}",
                claim.says
            );
        }
    }
}
