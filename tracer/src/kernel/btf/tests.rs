//! A blob built by hand, damaged blobs, and the running kernel's own.

use super::*;
use proptest::prelude::*;

/// Writes a blob type by type; ids count from 1.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Builder {
        Builder {
            strings: vec![0],
            ..Builder::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn push(&mut self, name: &str, info: u32, word: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        for word in [name, info, word].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn plain(&mut self, kind: u8, name: &str, word: u32, rest: &[u32]) -> u32 {
        self.push(name, u32::from(kind) << 24, word, rest)
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.plain(kind::INT, name, bytes, &[bytes * 8])
    }

    /// Members: name, type, bit offset, bit field width.
    fn aggregate(&mut self, kind: u8, name: &str, members: &[(&str, u32, u32, u32)]) -> u32 {
        let flag = members.iter().any(|m| m.3 != 0);
        let mut rest = Vec::new();
        for &(name, of, bits, width) in members {
            rest.extend([self.name(name), of, bits | (width << 24)]);
        }
        let info = (u32::from(flag) << 31) | (u32::from(kind) << 24) | members.len() as u32;
        self.push(name, info, 64, &rest)
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            blob.extend_from_slice(&word.to_le_bytes());
        }
        blob.extend_from_slice(&self.types);
        blob.extend_from_slice(&self.strings);
        blob
    }
}

/// `struct s { u16 first; union { struct { u32 deep; volatile_u8 last; }; u64 pair; }; inner_t in; u32 bit:3; }`
fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    let byte = b.int("u8", 1);
    let short = b.int("u16", 2);
    let int = b.int("u32", 4);
    let long = b.int("u64", 8);
    let fickle = b.plain(kind::VOLATILE, "", byte, &[]);
    let pair = b.aggregate(
        kind::STRUCT,
        "",
        &[("deep", int, 0, 0), ("last", fickle, 32, 0)],
    );
    let either = b.aggregate(kind::UNION, "", &[("", pair, 0, 0), ("pair", long, 0, 0)]);
    let bytes = b.plain(kind::ARRAY, "", 0, &[byte, int, 16]);
    let inner = b.aggregate(
        kind::STRUCT,
        "inner",
        &[("pointer", 13, 0, 0), ("bytes", bytes, 64, 0)],
    );
    let alias = b.plain(kind::TYPEDEF, "inner_t", inner, &[]);
    b.aggregate(
        kind::STRUCT,
        "s",
        &[
            ("first", short, 0, 0),
            ("", either, 64, 0),
            ("in", alias, 128, 0),
            ("bit", int, 320, 3),
        ],
    );
    b.plain(kind::TYPEDEF, "btf_trace_timer_start", long, &[]);
    let pointer = b.plain(kind::PTR, "", 0, &[]);
    assert_eq!(pointer, 13);
    b.plain(kind::FUNC, "bpf_iter_tcp", 0, &[]);
    b.blob()
}

#[test]
fn follows_paths_through_anonymous_and_named_members() {
    let blob = sample();
    let btf = Btf::parse(&blob).unwrap();
    let at = |path, bytes| btf.member("s", path, Width::Exactly(bytes));
    assert_eq!(at("first", 2), Ok(0));
    assert_eq!(at("deep", 4), Ok(8));
    assert_eq!(at("last", 1), Ok(12));
    assert_eq!(at("pair", 8), Ok(8));
    assert_eq!(at("in.pointer", 8), Ok(16));
    assert_eq!(at("in.bytes", 16), Ok(24));
    assert_eq!(btf.member("s", "in", Width::Any), Ok(16));
}

#[test]
fn refuses_other_widths_and_bit_fields_by_name() {
    let blob = sample();
    let btf = Btf::parse(&blob).unwrap();
    let said = |path, bytes| {
        btf.member("s", path, Width::Exactly(bytes))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said("deep", 8),
        "its s.deep is 4 bytes wide where the tracer reads 8"
    );
    assert_eq!(
        said("bit", 4),
        "its s.bit is a bit field, which the tracer cannot read"
    );
    assert_eq!(said("in.none", 4), "its struct s has no member in.none");
    assert_eq!(
        btf.member("t", "x", Width::Any).unwrap_err().to_string(),
        "its type information (BTF) has no struct t"
    );
}

#[test]
fn bits_are_found_in_their_byte_and_numbers_with_their_width() {
    let mut b = Builder::new();
    let byte = b.int("u8", 1);
    let long = b.int("u64", 8);
    b.aggregate(
        kind::STRUCT,
        "s",
        &[
            ("whole", byte, 0, 0),
            ("low", byte, 8, 4),
            ("high", byte, 13, 1),
            ("across", byte, 22, 3),
            ("number", long, 64, 0),
        ],
    );
    let blob = b.blob();
    let btf = Btf::parse(&blob).unwrap();
    let bits = |offset, shift, mask| {
        Ok(Bits {
            offset,
            shift,
            mask,
        })
    };
    assert_eq!(btf.bits("s", "whole"), bits(0, 0, 0xff));
    assert_eq!(btf.bits("s", "low"), bits(1, 0, 0xf));
    assert_eq!(btf.bits("s", "high"), bits(1, 5, 1));
    assert!(btf.bits("s", "across").is_err(), "it is in two bytes");
    assert!(btf.bits("s", "number").is_err(), "it is no byte");
    assert_eq!(btf.number("s", "number"), Ok((8, 8)));
    assert!(btf.number("s", "low").is_err(), "a bit field is no number");
    assert_eq!(btf.size_of("s"), Ok(64));
    assert_eq!(btf.size_of("t"), Err(Missing::Struct("t".into())));
}

#[test]
fn knows_tracepoints_and_iterators() {
    let blob = sample();
    let btf = Btf::parse(&blob).unwrap();
    assert!(btf.has_tracepoint("timer_start"));
    assert!(!btf.has_tracepoint("timer_stop"));
    assert!(btf.has_iterator("tcp"));
    assert!(!btf.has_iterator("udp"));
}

#[test]
fn keeps_what_stands_before_a_kind_it_does_not_know() {
    let mut b = Builder::new();
    let int = b.int("u32", 4);
    b.aggregate(kind::STRUCT, "early", &[("a", int, 32, 0)]);
    b.plain(31, "new", 0, &[]);
    b.aggregate(kind::STRUCT, "late", &[("a", int, 32, 0)]);
    let blob = b.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.member("early", "a", Width::Exactly(4)), Ok(4));
    assert_eq!(
        btf.member("late", "a", Width::Any),
        Err(Missing::Struct("late".into()))
    );
}

#[test]
fn a_name_of_two_structures_is_looked_up_in_both() {
    let mut b = Builder::new();
    let int = b.int("u32", 4);
    b.aggregate(kind::STRUCT, "twice", &[("a", int, 0, 0)]);
    b.aggregate(
        kind::STRUCT,
        "twice",
        &[("a", int, 0, 0), ("b", int, 32, 0)],
    );
    let blob = b.blob();
    assert_eq!(
        Btf::parse(&blob)
            .unwrap()
            .member("twice", "b", Width::Exactly(4)),
        Ok(4)
    );
}

#[test]
fn says_what_is_wrong_with_a_blob() {
    let said = |blob: &[u8]| layout(blob).unwrap_err().to_string();
    assert!(said(&[]).contains("shorter than its header"));
    assert!(said(&[0; 64]).contains("magic number"));
    let mut cut = sample();
    cut.truncate(60);
    assert!(said(&cut).contains("outside"), "{}", said(&cut));
    assert!(said(&sample()).contains("no struct sock_common"));
}

#[test]
fn a_circle_of_types_ends() {
    let mut b = Builder::new();
    b.plain(kind::TYPEDEF, "a", 2, &[]);
    b.plain(kind::TYPEDEF, "b", 1, &[]);
    b.aggregate(kind::STRUCT, "s", &[("", 3, 0, 0), ("c", 1, 0, 0)]);
    let blob = b.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert!(btf.member("s", "d", Width::Any).is_err());
    assert!(btf.member("s", "c", Width::Exactly(4)).is_err());
}

/// Each structure has the one before twice, so that the last has 2³⁰ members.
#[test]
fn members_within_members_are_not_gone_through_for_ever() {
    let mut b = Builder::new();
    b.aggregate(kind::STRUCT, "", &[("x", 0, 0, 0)]);
    for n in 1..30 {
        let name = if n == 29 { "s" } else { "" };
        b.aggregate(kind::STRUCT, name, &[("", n, 0, 0), ("", n, 0, 0)]);
    }
    let blob = b.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.member("s", "x", Width::Any), Ok(0));
    assert!(btf.member("s", "y", Width::Any).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        mut blob in prop::collection::vec(any::<u8>(), 0..512),
        sane_header: bool,
    ) {
        if sane_header && blob.len() >= 64 {
            let rest = (blob.len() - 24) as u32;
            blob[..4].copy_from_slice(&[0x9f, 0xeb, 1, 0]);
            let strings = rest / 4;
            for (n, word) in [24, 0, rest - strings, rest - strings, strings].iter().enumerate() {
                blob[4 + n * 4..8 + n * 4].copy_from_slice(&u32::to_le_bytes(*word));
            }
        }
        let _ = layout(&blob);
    }

    #[test]
    fn a_damaged_blob_never_panics(at in 0usize..4096, value: u8) {
        let mut blob = sample();
        let at = at % blob.len();
        blob[at] = value;
        if let Ok(btf) = Btf::parse(&blob) {
            for path in ["first", "deep", "last", "in.bytes", "bit", "in.pointer.x"] {
                let _ = btf.member("s", path, Width::Exactly(4));
            }
        }
    }
}

/// Offsets that no supported kernel has elsewhere: `sock_common` is laid out
/// by hand, cache line by cache line, since 3.x, and `timer_list` has four
/// members on a 64-bit kernel.
#[test]
fn this_kernel_has_the_layout_that_all_kernels_share() {
    let blob =
        std::fs::read(PATH).expect("this test reads the type information of the kernel it runs on");
    let found = layout(&blob).unwrap();
    assert_eq!(
        (
            found.sk_addrpair,
            found.sk_dport,
            found.sk_num,
            found.sk_family
        ),
        (0, 12, 14, 16)
    );
    assert_eq!(found.sk_state, 18);
    assert_eq!(
        (found.timer_expires, found.timer_function, found.timer_flags),
        (16, 24, 32)
    );
    assert_eq!(found.sk_v6_rcv_saddr, found.sk_v6_daddr + 16);
    assert!(found.sk_cookie > found.sk_v6_rcv_saddr, "{found:?}");
    // A minisocket begins with a sock_common, and its timer comes after its substate.
    assert!(
        found.tw_substate > found.sk_v6_rcv_saddr && found.tw_timer > found.tw_substate,
        "{found:?}"
    );
    assert!(
        found.sk_protocol > found.sk_err && found.inet_sport > found.sk_protocol,
        "{found:?}"
    );
    assert!(
        found.tcp_linger2 > found.inet_sport && found.net_inum > 0,
        "{found:?}"
    );
    let btf = Btf::parse(&blob).unwrap();
    assert!(btf.has_tracepoint("inet_sock_set_state") && btf.has_iterator("tcp"));
}
