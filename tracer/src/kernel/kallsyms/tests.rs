//! Listings as text, and the running kernel's own.

use super::*;

fn read(text: &str) -> Symbols {
    Symbols::read(text.as_bytes()).unwrap()
}

fn meaning_of(callers: &Callers, address: u64) -> Option<u32> {
    callers
        .table
        .iter()
        .find(|c| c.length != 0 && (c.start..c.start + u64::from(c.length)).contains(&address))
        .map(|c| c.meaning)
}

const SMALL: &str = "\
ffffffff81000000 T _text
ffffffff81000100 t __mod_timer
ffffffff81000200 T mod_timer
ffffffff81000300 T tcp_v4_rcv
ffffffff81000400 T tcp_timewait_state_process
ffffffff81000500 t tw_timer_handler
ffffffff81000600 t reqsk_timer_handler
ffffffff81000700 T _etext
";

#[test]
fn a_function_ends_where_the_next_begins() {
    let callers = callers(&read(SMALL)).unwrap();
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_02ff),
        Some(MEANS_REARM)
    );
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_0300),
        Some(Reason::Received as u32)
    );
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_03ff),
        Some(Reason::Received as u32)
    );
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_0400),
        Some(Reason::Reset as u32)
    );
    assert_eq!(meaning_of(&callers, 0), None);
}

#[test]
fn handlers_are_addresses_and_no_callers() {
    let symbols = read(SMALL);
    let found = handlers(&symbols).unwrap();
    assert_eq!(found.tw_timer, 0xffff_ffff_8100_0500);
    assert_eq!(found.reqsk_timer, 0xffff_ffff_8100_0600);
    assert_eq!(
        meaning_of(&callers(&symbols).unwrap(), found.tw_timer),
        None
    );
}

#[test]
fn order_of_lines_does_not_matter() {
    let mut lines: Vec<&str> = SMALL.lines().collect();
    lines.reverse();
    assert_eq!(
        callers(&read(&lines.join("\n"))).unwrap(),
        callers(&read(SMALL)).unwrap()
    );
}

#[test]
fn suffixed_copies_mean_the_same() {
    for suffix in [
        ".cold",
        ".part.0",
        ".isra.0",
        ".constprop.0",
        ".llvm.1234",
        ".isra.0.cold",
        ".__uniq.9.llvm.8",
    ] {
        let text = format!("{SMALL}ffffffff81000800 t tcp_abort{suffix}\nffffffff81000880 t end\n");
        let callers = callers(&read(&text)).unwrap();
        let found = meaning_of(&callers, 0xffff_ffff_8100_087f);
        assert_eq!(found, Some(Reason::Destroyed as u32), "{suffix}");
    }
}

#[test]
fn a_longer_name_is_another_function() {
    let text =
        format!("{SMALL}ffffffff81000800 t tcp_v4_rcv_more\nffffffff81000880 t __pfx_tcp_abort\n");
    let callers = callers(&read(&text)).unwrap();
    assert_eq!(meaning_of(&callers, 0xffff_ffff_8100_0800), None);
    assert_eq!(meaning_of(&callers, 0xffff_ffff_8100_0880), None);
}

#[test]
fn data_is_no_function_and_ends_none() {
    let text = format!("{SMALL}ffffffff81000380 d tcp_v4_rcv.table\n");
    assert_eq!(
        callers(&read(&text)).unwrap(),
        callers(&read(SMALL)).unwrap()
    );
}

#[test]
fn modules_count_only_where_the_function_lives_in_that_module() {
    let text = format!(
        "{SMALL}ffffffffc0000000 t nf_tproxy_handle_time_wait4\t[nf_tproxy_ipv4]
ffffffffc0000100 t tcp_v6_rcv\t[ipv6]
ffffffffc0000200 t tcp_v4_rcv\t[livepatch]
ffffffffc0000300 t inet_twsk_purge\t[ipv6]
"
    );
    let callers = callers(&read(&text)).unwrap();
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_c000_0010),
        Some(Reason::Tproxy as u32)
    );
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_c000_0110),
        Some(Reason::Received as u32)
    );
    assert_eq!(meaning_of(&callers, 0xffff_ffff_c000_0210), None);
    assert_eq!(meaning_of(&callers, 0xffff_ffff_c000_0310), None);
}

#[test]
fn tproxy_built_into_the_kernel_counts_too() {
    let text = format!("{SMALL}ffffffff81000800 T nf_tproxy_handle_time_wait6\n");
    let callers = callers(&read(&text)).unwrap();
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_0800),
        Some(Reason::Tproxy as u32)
    );
}

#[test]
fn the_last_function_has_a_bounded_length() {
    let text = format!("{SMALL}ffffffff81000800 T tcp_abort\n");
    let callers = callers(&read(&text)).unwrap();
    assert_eq!(meaning_of(&callers, 0xffff_ffff_8100_0800 + LONGEST), None);
}

#[test]
fn aliases_share_a_range() {
    let text = format!("{SMALL}ffffffff81000300 W alias_of_tcp_v4_rcv\n");
    let callers = callers(&read(&text)).unwrap();
    assert_eq!(
        meaning_of(&callers, 0xffff_ffff_8100_03ff),
        Some(Reason::Received as u32)
    );
}

#[test]
fn hidden_addresses_are_said() {
    let hidden: String = SMALL
        .lines()
        .map(|line| format!("0000000000000000{}\n", &line[16..]))
        .collect();
    let said = Symbols::read(hidden.as_bytes()).unwrap_err().to_string();
    assert_eq!(said, "/proc/kallsyms shows every address as 0");
    assert!(matches!(Symbols::read(&b""[..]), Err(Error::Hidden)));
}

#[test]
fn what_is_missing_is_named() {
    let without = |name: &str| {
        let text: String = SMALL
            .lines()
            .filter(|l| !l.ends_with(name))
            .map(|l| format!("{l}\n"))
            .collect();
        read(&text)
    };
    let said = handlers(&without("tw_timer_handler"))
        .unwrap_err()
        .to_string();
    assert_eq!(said, "/proc/kallsyms has no symbol tw_timer_handler");
    assert!(handlers(&without("reqsk_timer_handler")).is_err());
    let said = callers(&without("mod_timer")).unwrap_err().to_string();
    assert_eq!(said, "/proc/kallsyms has no symbol __mod_timer");
    assert!(read(SMALL).unplaced().contains(&"tcp_abort"));
    assert!(!read(SMALL).unplaced().contains(&"tcp_v4_rcv"));
}

/// A function that is found around another one that is not known could be there
/// for either reason.
#[test]
fn what_could_mean_two_things_means_none() {
    const CONNECTS: &str = "\
ffffffff81001000 t __mod_timer
ffffffff81001100 T __inet_hash_connect
ffffffff81001200 t __inet_check_established
ffffffff81001300 t __inet6_check_established
ffffffff81001400 T tcp_v4_rcv
ffffffff81001500 T tcp_v6_rcv
ffffffff81001600 T tcp_timewait_state_process
ffffffff81001700 T end
";
    let (connect, v4, v6) = (
        0xffff_ffff_8100_1100,
        0xffff_ffff_8100_1400,
        0xffff_ffff_8100_1500,
    );
    let meanings = |text: &str| {
        let callers = callers(&read(text)).unwrap();
        [connect, v4, v6].map(|address| meaning_of(&callers, address))
    };
    let by_connect = Some(Reason::ReusedByConnect as u32);
    let received = Some(Reason::Received as u32);
    assert_eq!(meanings(CONNECTS), [by_connect, received, received]);
    for (renamed, expected) in [
        ("__inet_check_established", [None, received, received]),
        ("__inet6_check_established", [None, received, received]),
        ("tcp_timewait_state_process", [by_connect, None, None]),
    ] {
        let text = CONNECTS.replace(&format!(" {renamed}\n"), " renamed\n");
        assert_eq!(meanings(&text), expected, "without {renamed}");
        assert!(read(&text).unplaced().contains(&renamed));
    }
}

#[test]
fn a_split_handler_is_its_whole_part() {
    let text = SMALL.replace("tw_timer_handler", "tw_timer_handler.cold")
        + "ffffffff81000800 t tw_timer_handler.llvm.77\n";
    assert_eq!(
        handlers(&read(&text)).unwrap().tw_timer,
        0xffff_ffff_8100_0800
    );
    let only_cold = SMALL.replace("tw_timer_handler", "tw_timer_handler.cold");
    assert!(handlers(&read(&only_cold)).is_err());
}

#[test]
fn more_callers_than_there_is_room_for_are_refused() {
    let mut text = SMALL.to_owned();
    for n in 0..CALLERS {
        text += &format!("ffffffff8200{n:02x}00 t tcp_abort.part.{n}\n");
    }
    let said = callers(&read(&text)).unwrap_err().to_string();
    assert!(
        said.contains("has 36 functions") && said.contains("tcp_abort.part.28"),
        "{said}"
    );
}

#[test]
fn lines_of_another_form_are_passed_over() {
    let text =
        format!("\n \nnonsense\n12 T\nxyz T tcp_abort\n+81 T tcp_abort\n81 TT tcp_abort\n{SMALL}");
    assert_eq!(
        callers(&read(&text)).unwrap(),
        callers(&read(SMALL)).unwrap()
    );
}

#[test]
fn this_kernel_has_every_function_that_matters() {
    let file =
        std::fs::File::open(PATH).expect("this test reads the symbols of the kernel it runs on");
    let symbols =
        Symbols::read(io::BufReader::new(file)).expect("this test needs root or CAP_SYSLOG");
    assert_eq!(symbols.unplaced(), Vec::<&str>::new());
    handlers(&symbols).unwrap();
    let callers = callers(&symbols).unwrap();
    for reason in [
        Reason::ReusedByConnect,
        Reason::ReusedByBoundConnect,
        Reason::Received,
    ] {
        let rows = callers.table.iter().filter(|c| c.meaning == reason as u32);
        assert!(
            rows.clone().count() > 0,
            "{reason:?} is missing in {callers:?}"
        );
        assert!(
            rows.clone().all(|c| c.length >= 64),
            "{reason:?} is too short in {callers:?}"
        );
    }
}
