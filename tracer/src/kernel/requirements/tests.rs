//! Every refusal, from plain findings; the last test asks this host.

use super::*;

const SYMBOLS: &str = "\
ffffffff81000100 t __mod_timer
ffffffff81000200 T __inet_hash_connect
ffffffff81000300 t __inet_check_established
ffffffff81000400 T tcp_v4_rcv
ffffffff81000500 T tcp_timewait_state_process
ffffffff81000600 T tcp_abort
ffffffff81000700 T inet_twsk_purge
ffffffff81000780 T timers_dead_cpu
ffffffff81000800 t tw_timer_handler
ffffffff81000900 t reqsk_timer_handler
ffffffff81000a00 T end
";

fn symbols(text: &str) -> Result<Symbols, kallsyms::Error> {
    Symbols::read(text.as_bytes())
}

/// A host that has everything.
fn good() -> Probe {
    Probe {
        kernel: "6.12.1".into(),
        capabilities: Ok(CapabilitySet::all()),
        btf: Ok(TypeFacts {
            layout: Ok((
                Layout {
                    tw_timer: 160,
                    ..Layout::default()
                },
                walk::Layout::default(),
            )),
            missing_tracepoints: Vec::new(),
            socket_iterator: true,
            socket_cookies: true,
        }),
        symbols: symbols(SYMBOLS),
        lockdown: Some("none [integrity] confidentiality".into()),
        jit: Some("1".into()),
        cgroups: Some("/sys/fs/cgroup".into()),
        shared_cgroups: Vec::new(),
        processes: Processes::All,
        clock_ahead: Ok(0),
        realtime: false,
        hz: 250,
    }
}

/// The refusal as a user reads it.
fn refusal(probe: &Probe) -> String {
    facts(probe, Reach::Own).unwrap_err().to_string()
}

/// What is not well but no hindrance.
fn concerns(probe: &Probe) -> Vec<(&'static str, Verdict)> {
    assert!(facts(probe, Reach::Own).is_ok(), "{}", refusal(probe));
    let checks = judge(probe)
        .into_iter()
        .filter(|c| c.verdict != Verdict::Ok);
    checks
        .map(|c| {
            assert!(c.remedy.is_some(), "{c:?}");
            (c.name, c.verdict)
        })
        .collect()
}

#[test]
fn every_namespace_is_seen_with_three_capabilities_and_one_is_entered_with_a_fourth() {
    let three = Probe {
        capabilities: Ok(CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYSLOG),
        ..good()
    };
    assert!(facts(&three, Reach::Own).is_ok());
    assert!(facts(&three, Reach::All).is_ok());
    let refusal = facts(&three, Reach::Other).unwrap_err().to_string();
    assert!(refusal.contains("CAP_SYS_ADMIN is missing"), "{refusal}");
    assert!(refusal.contains("--netns self"), "{refusal}");
}

#[test]
fn in_a_pid_namespace_of_its_own_processes_go_by_the_numbers_in_there() {
    let apart = Probe {
        processes: Processes::Of(4_026_532_178),
        ..good()
    };
    for reach in [Reach::Own, Reach::Other, Reach::All] {
        let found = facts(&apart, reach).unwrap();
        assert_eq!(found.pid_namespace, Some(4_026_532_178));
    }
    assert_eq!(
        concerns(&apart),
        [
            ("PID namespace", Verdict::Degraded),
            ("find ways into namespaces", Verdict::Degraded)
        ]
    );
    let untold = Probe {
        processes: Processes::Untold("none can be looked into".into()),
        ..good()
    };
    assert!(refusal(&untold).contains("none can be looked into"));
}

#[test]
fn another_clock_is_reckoned_with_if_it_is_told() {
    let with = |clock_ahead| Probe {
        clock_ahead,
        ..good()
    };
    assert_eq!(concerns(&with(Ok(-1_500_000_000))), []);
    let said = judge(&with(Ok(-1_500_000_000)));
    let said = said.iter().find(|c| c.name == "time namespace").unwrap();
    assert!(said.found.contains("1.500 s behind"), "{said:?}");
    let untold = refusal(&with(Err("the offset is not told".into())));
    assert!(untold.contains("the offset is not told"), "{untold}");
}

#[test]
fn a_real_time_kernel_is_refused_or_said_to_be_hardly_tested() {
    let on = |kernel: &str| Probe {
        kernel: kernel.into(),
        realtime: true,
        ..good()
    };
    for old in ["5.10.0-32-rt-amd64", "6.1.0-rt", "6.11.9"] {
        let said = refusal(&on(old));
        assert!(
            said.contains("real-time") && said.ends_with("run it on Linux 6.12 or later"),
            "{said}"
        );
    }
    for new in ["6.12.0-rt", "7.2.1"] {
        assert_eq!(concerns(&on(new)), [("real time", Verdict::Degraded)]);
    }
}

#[test]
fn what_cgroup_v2_does_not_tell_apart_is_said() {
    let shared = |v1: &[&str]| Shared {
        v2: "/".into(),
        v1: v1.iter().map(|&path| path.to_owned()).collect(),
    };
    let with = |v1| Probe {
        shared_cgroups: vec![shared(v1)],
        ..good()
    };
    let four = with(&["memory:/a", "memory:/b", "memory:/c", "memory:/d"]);
    assert_eq!(concerns(&four), [("cgroups", Verdict::Degraded)]);
    let found = |probe: &Probe| judge(probe).pop().unwrap().found;
    assert_eq!(
        found(&four),
        "/sys/fs/cgroup, where processes of memory:/a, memory:/b and 2 more of cgroup v1 are all \
         in /: by cgroup their sockets cannot be told apart"
    );
    assert_eq!(
        found(&with(&["memory:/a", "memory:/b"])),
        "/sys/fs/cgroup, where processes of memory:/a, memory:/b are all in /: by cgroup their \
         sockets cannot be told apart"
    );
}

#[test]
fn a_host_with_everything_gives_the_facts() {
    let found = facts(&good(), Reach::All).unwrap();
    assert_eq!(found.hz, 250);
    assert_eq!(found.layout.tw_timer, 160);
    assert_eq!(found.layout.tw_timer_handler, 0xffff_ffff_8100_0800);
    assert_eq!(found.layout.reqsk_timer_handler, 0xffff_ffff_8100_0900);
    assert_eq!(found.callers.table[0].start, 0xffff_ffff_8100_0100);
    assert_eq!(concerns(&good()), []);
}

#[test]
fn missing_capabilities_are_named() {
    let with = |capabilities| {
        refusal(&Probe {
            capabilities: Ok(capabilities),
            ..good()
        })
    };
    assert_eq!(
        with(CapabilitySet::PERFMON),
        "cannot load the tracer: CAP_BPF is missing; \
         run it as root or grant cap_bpf,cap_perfmon,cap_syslog"
    );
    assert!(with(CapabilitySet::empty()).contains("CAP_BPF and CAP_PERFMON are missing"));
}

#[test]
fn sys_admin_stands_for_the_two_that_load() {
    let probe = Probe {
        capabilities: Ok(CapabilitySet::SYS_ADMIN),
        ..good()
    };
    assert_eq!(
        concerns(&probe),
        [("find ways into namespaces", Verdict::Degraded)]
    );
}

#[test]
fn without_the_capabilities_to_look_about_it_runs_with_less() {
    let some = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYSLOG;
    let probe = Probe {
        capabilities: Ok(some),
        ..good()
    };
    assert_eq!(
        concerns(&probe),
        [
            ("enter namespaces", Verdict::Degraded),
            ("find ways into namespaces", Verdict::Degraded)
        ]
    );
}

#[test]
fn a_kernel_without_cookies_for_programs_is_refused() {
    let mut old = good();
    old.kernel = "5.10.0-30-amd64".into();
    if let Ok(types) = &mut old.btf {
        types.socket_cookies = false;
    }
    assert_eq!(
        refusal(&old),
        "cannot load the tracer: this kernel, 5.10.0-30-amd64, gives a tracing program no socket's \
         cookie, by which sockets are told apart; run it on Linux 5.15 or later"
    );
}

#[test]
fn a_kernel_locked_down_for_confidentiality_is_refused() {
    let lockdown = Some("none integrity [confidentiality]".into());
    let said = refusal(&Probe { lockdown, ..good() });
    assert!(
        said.contains("locked down") && said.contains("lockdown=integrity"),
        "{said}"
    );
    assert_eq!(
        concerns(&Probe {
            lockdown: None,
            ..good()
        }),
        []
    );
}

#[test]
fn a_kernel_without_type_information_is_refused() {
    let btf = Err(format!("there is no {}", btf::PATH));
    let said = refusal(&Probe { btf, ..good() });
    assert!(
        said.contains("/sys/kernel/btf/vmlinux") && said.contains("CONFIG_DEBUG_INFO_BTF"),
        "{said}"
    );
    assert!(TypeFacts::read(b"not it").unwrap_err().contains("BTF"));
}

#[test]
fn a_missing_member_is_named_with_the_kernel() {
    let mut probe = good();
    if let Ok(types) = &mut probe.btf {
        types.layout = Err(btf::Missing::Member {
            structure: "sock".into(),
            path: "sk_protocol".into(),
        });
    }
    let said = refusal(&probe);
    assert!(
        said.contains("6.12.1") && said.contains("struct sock has no member sk_protocol"),
        "{said}"
    );
}

#[test]
fn missing_tracepoints_and_iterators_are_named() {
    let mut probe = good();
    if let Ok(types) = &mut probe.btf {
        types.missing_tracepoints = vec!["timer_start", "timer_cancel"];
        types.socket_iterator = false;
    }
    let said = refusal(&probe);
    assert!(said.contains("lacks timer_start, timer_cancel"), "{said}");
    assert!(
        said.ends_with("(`twtrace doctor` lists this and 1 more)"),
        "{said}"
    );
}

#[test]
fn hidden_addresses_are_refused_with_the_remedy() {
    let hidden = symbols("0000000000000000 t tw_timer_handler\n");
    assert_eq!(
        refusal(&Probe {
            symbols: hidden,
            ..good()
        }),
        "cannot load the tracer: /proc/kallsyms shows every address as 0; run it as root or \
         grant cap_syslog (where kernel.kptr_restrict is 2 nobody is shown them)"
    );
}

#[test]
fn a_missing_handler_is_fatal_and_a_missing_caller_is_not() {
    let without = |name| symbols(&SYMBOLS.replace(name, "other"));
    let said = refusal(&Probe {
        symbols: without("tw_timer_handler"),
        ..good()
    });
    assert!(said.contains("no symbol tw_timer_handler"), "{said}");
    let probe = Probe {
        symbols: without("tcp_abort"),
        ..good()
    };
    assert_eq!(concerns(&probe), [("symbols", Verdict::Degraded)]);
}

#[test]
fn what_makes_it_slower_or_poorer_is_no_hindrance() {
    assert_eq!(
        concerns(&Probe {
            jit: Some("0".into()),
            ..good()
        }),
        [("JIT", Verdict::Degraded)]
    );
    assert_eq!(
        concerns(&Probe {
            jit: None,
            ..good()
        }),
        [("JIT", Verdict::Unknown)]
    );
    assert_eq!(
        concerns(&Probe {
            cgroups: None,
            ..good()
        }),
        [("cgroups", Verdict::Degraded)]
    );
}

#[test]
fn this_host_has_what_the_tracer_needs() {
    let facts = check(Reach::All).unwrap_or_else(|unmet| panic!("this test needs root: {unmet}"));
    assert!(
        facts.layout.tw_timer > 0 && facts.layout.tw_timer_handler > 0,
        "{facts:?}"
    );
}
