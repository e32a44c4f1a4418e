//! Reports that were made up, and the words beside them; and the one of this host.

use std::io;

use super::report::{Boot, SCHEMA};
use super::*;
use crate::analysis::headroom::Buckets;
use crate::kernel::netns::{Namespace, Way};
use crate::kernel::requirements::Check;
use crate::model::snapshot::{Exactness, Host};
use crate::render::terminal::Terminal;
use crate::selftest::Trial;

fn check(name: &'static str, verdict: Verdict, found: &str, remedy: Option<&str>) -> Check {
    Check {
        name,
        verdict,
        found: found.into(),
        remedy: remedy.map(Into::into),
    }
}

fn sample() -> Report {
    let values = Values::from([
        ("ip_local_port_range", "32768 60999".to_owned()),
        ("ip_local_reserved_ports", "40000-40009".to_owned()),
        ("tcp_fin_timeout", "60".to_owned()),
        ("tcp_max_tw_buckets", "65536".to_owned()),
        ("tcp_rfc1337", "0".to_owned()),
        ("tcp_timestamps", "1".to_owned()),
        ("tcp_tw_reuse", "2".to_owned()),
    ]);
    let namespace = |inode, name: Option<&str>| Namespace {
        inode,
        way: Way::Link("/proc/1/ns/net".into()),
        name: name.map(Into::into),
        cookie: None,
    };
    Report {
        schema: SCHEMA,
        version: "0.1.0",
        host: Host {
            name: "db01".into(),
            kernel: "6.12.1".into(),
            boot_id: "00000000-0000-0000-0000-000000000000".into(),
            hz: 250,
        },
        ready: false,
        judgement: None,
        checks: vec![
            check("kernel", Verdict::Ok, "6.12.1", None),
            check(
                "load programs",
                Verdict::Missing,
                "CAP_BPF is missing",
                Some("run it as root"),
            ),
            check(
                "JIT",
                Verdict::Unknown,
                "net.core.bpf_jit_enable cannot be read here",
                Some("x"),
            ),
            seen(Ok(Tried::Untried("cannot make a network namespace".into()))),
        ],
        time_wait: Band::at(250),
        cgroup2: None,
        look: None,
        ports: None,
        memory: None,
        first_netns: 4026531840,
        boot: Boot {
            program: "systemd-sysctl",
            files: vec!["/etc/sysctl.d/99-sysctl.conf".into()],
            reverts: vec![],
        },
        myths: vec![],
        namespaces: vec![
            Inspected::of(&namespace(4026531840, None), 4026531840, Ok(values.clone())),
            Inspected::of(&namespace(4026532281, Some("blue")), 4026531840, Ok(values)),
            Inspected::of(
                &namespace(4026532999, None),
                4026531840,
                Err(io::ErrorKind::PermissionDenied.into()),
            ),
        ],
        self_test: None,
    }
}

/// A client that runs out of ports, a namespace that is full, and somebody who
/// read an article.
fn troubled() -> Report {
    let mut report = sample();
    report.ready = true;
    report
        .checks
        .retain(|check| check.verdict != Verdict::Missing);
    report.look = Some(Look {
        duration_s: 3.004,
        netns: "all",
        exactness: Exactness::Exact,
    });
    let ports = |remote: &str, used, reusable, half_used_in_s, exhausted_in_s| Ports {
        netns: 4026532281,
        local: "10.0.0.2".parse().unwrap(),
        remote: remote.parse().unwrap(),
        remote_port: 443,
        usable: 28_222,
        used,
        time_wait: used,
        reusable,
        connects_per_s: 500.0,
        limit_per_s: 462.4,
        half_used_in_s,
        exhausted_in_s,
    };
    report.ports = Some(vec![
        ports("10.0.0.9", 28_222, 0, None, None),
        ports("10.0.0.8", 13_000, 0, Some(31.0), Some(421.0)),
        ports("127.0.0.1", 28_222, 27_722, None, None),
    ]);
    report.memory = Some(Memory {
        time_waits: 69_444,
        client_side: 69_444,
        minisocket_bytes: Some(256),
        port_bytes: Some(256),
        slabs_bytes: Some(18_000_000),
        all_bytes: Some(35_555_328),
    });
    report.namespaces[1].minisockets = Some(Buckets {
        now: 5_000,
        limit: 5_000,
        births_per_s: Some(500.0),
        settles_at: Some(30_512),
        full_in_s: Some(0.0),
        skipped: 1_204,
    });
    report.boot.reverts = vec![
        Revert {
            name: "net.ipv4.tcp_tw_reuse",
            now: "1".into(),
            at_boot: "2".into(),
            at: None,
            unread_at: Some("/etc/sysctl.conf:7".into()),
        },
        Revert {
            name: "net.ipv4.tcp_fin_timeout",
            now: "15".into(),
            at_boot: "30".into(),
            at: Some("/etc/sysctl.d/99-sysctl.conf:3".into()),
            unread_at: None,
        },
        Revert {
            name: "net.core.somaxconn",
            now: "65535".into(),
            at_boot: "4096".into(),
            at: None,
            unread_at: None,
        },
    ];
    let mut low = report.namespaces[0].sysctls.clone();
    low.insert("tcp_fin_timeout", "15".into());
    let others = report.namespaces[1].sysctls.clone();
    let places =
        [(4026531840, &low), (4026532281, &others)].map(|(netns, values)| Place { netns, values });
    let set = |key, value: &str, line| AtBoot {
        key,
        value: value.into(),
        at: format!("/etc/sysctl.d/99-sysctl.conf:{line}"),
        among_others: true,
    };
    let at_boot = [
        set("tcp_fin_timeout", "30", 3),
        set("tcp_tw_recycle", "1", 4),
    ];
    report.myths = myths::suggested(&places, &at_boot, 4026531840, Seen::default());
    report
}

#[test]
fn text_of_a_host_in_trouble() {
    insta::assert_snapshot!(page(&troubled()));
}

#[test]
fn reports_fit_their_schema() {
    let schema = include_str!("../../../../docs/schema/doctor-1.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for report in [sample(), troubled()] {
        let json = serde_json::to_value(&report).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        for member in ["schema", "ready", "namespaces", "boot", "myths"] {
            let mut less = json.clone();
            less.as_object_mut().unwrap().remove(member);
            assert!(!validator.is_valid(&less), "passes without {member}");
        }
    }
}

#[test]
fn what_a_reboot_undoes_is_told_with_its_file() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/sysctl.d");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(
        directory.join("tune.conf"),
        "net.ipv4.tcp_fin_timeout = 30\nnet.ipv4.ip_local_port_range = 32768\t60999\n",
    )
    .unwrap();
    let files = Files::find(root.path());
    let mut values = sample().namespaces[0].sysctls.clone();
    values.insert("tcp_fin_timeout", "15".into());
    values.insert("tcp_max_tw_buckets", "5000".into());
    values.insert(sysctl::EHASH_ENTRIES, "-131072".into());
    let found = reverts(&files, &values);
    let told: Vec<(&str, &str, &str, bool)> = found
        .iter()
        .map(|r| (r.name, r.now.as_str(), r.at_boot.as_str(), r.at.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            ("net.ipv4.tcp_fin_timeout", "15", "30", true),
            ("net.ipv4.tcp_max_tw_buckets", "5000", "65536", false),
            ("net.ipv4.ip_local_reserved_ports", "40000-40009", "", false),
        ]
    );
    assert_eq!(found[0].at.as_deref(), Some("/etc/sysctl.d/tune.conf:1"));
}

fn page(report: &Report) -> String {
    let mut out = Vec::new();
    Terminal::new(&mut out, false)
        .page(&text::page(report))
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_names_what_is_missing_and_the_remedy() {
    insta::assert_snapshot!(page(&sample()));
}

#[test]
fn a_vendors_own_2msl_is_pointed_out() {
    let mut report = sample();
    assert!(!page(&report).contains("tcp_tw_timeout"));
    report.namespaces[1]
        .sysctls
        .insert("tcp_tw_timeout", "30".into());
    assert!(page(&report).contains("net.ipv4.tcp_tw_timeout"));
}

#[test]
fn json_has_the_same_in_fields() {
    let json = serde_json::to_value(sample()).unwrap();
    assert_eq!(json["schema"], "twtrace.doctor/1");
    assert_eq!(json["ready"], false);
    assert_eq!(json["checks"][1]["verdict"], "missing");
    assert_eq!(json["checks"][1]["remedy"], "run it as root");
    assert_eq!(json["checks"][0].get("remedy"), None);
    assert_eq!(json["time_wait"]["from_s"], 60.004);
    assert_eq!(json["time_wait"]["to_s"], 62.048);
    assert_eq!(json["namespaces"][0]["own"], true);
    assert_eq!(json["namespaces"][0]["usable_ports"], 28222);
    assert_eq!(json["namespaces"][1]["sysctls"]["tcp_tw_reuse"], "2");
    assert_eq!(json["namespaces"][2]["error"], "permission denied");
}

#[test]
fn a_self_test_names_what_does_not_hold() {
    let trial = |name, verdict, found: &str| Trial {
        name,
        verdict,
        found: found.into(),
    };
    let mut report = sample();
    report.ready = true;
    report
        .checks
        .retain(|check| check.verdict != Verdict::Missing);
    report.self_test = Some(vec![
        trial("births", selftest::Verdict::Held, ""),
        trial("destroyed", selftest::Verdict::Untried, "no sock_diag here"),
    ]);
    assert!(!report.has_failed());
    let failed = trial(
        "re-arms",
        selftest::Verdict::Failed,
        "a re-arm was not seen",
    );
    report.self_test.as_mut().unwrap().push(failed);
    assert!(report.has_failed());
    let said = page(&report);
    for words in [
        "held      births\n",
        "failed    re-arms",
        "cannot be trusted",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["self_test"][2]["verdict"], "failed");
}

#[test]
fn the_band_is_that_of_the_timer_wheel() {
    for (hz, from, to) in [
        (100, 60.010, 65.120),
        (300, 60.003, 61.707),
        (1000, 60.001, 64.096),
    ] {
        let band = Band::at(hz);
        assert!(
            (band.from_s - from).abs() < 5e-4 && (band.to_s - to).abs() < 5e-4,
            "{hz}: {band:?}"
        );
    }
}

#[test]
fn this_host_has_what_is_needed() {
    let report = examine(Duration::from_millis(500)).unwrap();
    assert!(report.ready, "this test needs root:\n{}", page(&report));
    let own = report
        .namespaces
        .iter()
        .find(|n| n.own)
        .expect("its own namespace is among them");
    assert!(own.usable_ports.is_some_and(|ports| ports > 0), "{own:?}");
    assert!(
        page(&report).ends_with("This host has what twtrace needs.\n"),
        "{}",
        page(&report)
    );
}

#[path = "../../../tests/hostile/mod.rs"]
mod hostile;

/// In every string that it has from others: nothing of it steers a terminal.
#[test]
fn names_and_files_of_others_are_shown_without_escapes() {
    let evil = || hostile::NAME.to_owned();
    let mut report = troubled();
    report.host.name = evil();
    report.host.kernel = evil();
    report.host.boot_id = evil();
    report.cgroup2 = Some(evil());
    for check in &mut report.checks {
        check.found = evil();
        check.remedy = Some(evil());
    }
    for namespace in &mut report.namespaces {
        namespace.name = Some(evil());
        for value in namespace.sysctls.values_mut() {
            *value = evil();
        }
        namespace.error = namespace.error.as_ref().map(|_| evil());
    }
    report.boot.files = vec![evil(), evil()];
    for revert in &mut report.boot.reverts {
        revert.now = evil();
        revert.at_boot = evil();
        revert.at = revert.at.as_ref().map(|_| evil());
        revert.unread_at = revert.unread_at.as_ref().map(|_| evil());
    }
    for myth in &mut report.myths {
        myth.found = evil();
        myth.at = myth.at.as_ref().map(|_| evil());
        myth.truth = evil();
        myth.try_it = myth.try_it.as_ref().map(|_| evil());
    }
    report.self_test = Some(vec![Trial {
        name: "x",
        verdict: selftest::Verdict::Failed,
        found: evil(),
    }]);
    let text = page(&report);
    assert_eq!(hostile::fault(text.as_bytes(), &[]), None);
    assert!(text.matches("\u{fffd}[2J").count() > 20, "{text}");
    let mut json = Vec::new();
    Terminal::new(&mut json, true).json(&report).unwrap();
    assert_eq!(hostile::fault(&json, &[]), None);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["host"]["name"], hostile::NAME);
}
