//! Numbers and names as people read them at three in the morning.
//!
//! Thousands are separated, and a share is only 0 or 100 % when it is exactly
//! that. Names stay as they are: what shows them makes them safe
//! ([`crate::printable`]).

use std::net::{IpAddr, SocketAddr};

/// `5,204`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `5,204 connects`, `1 connect`.
#[must_use]
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A rate per second: one decimal below 100, `0` only for none at all.
#[must_use]
pub fn rate(per_s: f64) -> String {
    if per_s <= 0.0 {
        "0".to_owned()
    } else if per_s < 0.05 {
        "<0.1".to_owned()
    } else if per_s < 99.95 {
        format!("{per_s:.1}")
    } else {
        count(per_s.round() as u64)
    }
}

/// `98.8 %`; `part` of nothing is `-`.
#[must_use]
pub fn percent_of(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    percent(part as f64 / whole as f64)
}

/// A share of 1 in per cent, with a decimal where it matters: near both ends.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent <= 0.0 {
        "0 %".to_owned()
    } else if percent < 0.1 {
        "<0.1 %".to_owned()
    } else if percent > 99.9 && percent < 100.0 {
        ">99.9 %".to_owned()
    } else if (10.0..90.0).contains(&percent) || percent.fract() == 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A time: three figures and a unit, from microseconds to days.
#[must_use]
pub fn seconds(s: f64) -> String {
    if s <= 0.0 {
        return "0 s".to_owned();
    }
    if s < 0.000_999_5 {
        return format!("{} µs", figures(s * 1e6));
    }
    if s < 0.999_5 {
        return format!("{} ms", figures(s * 1e3));
    }
    if s < 119.95 {
        return format!(
            "{} s",
            if s < 9.995 {
                format!("{s:.2}")
            } else {
                format!("{s:.1}")
            }
        );
    }
    let whole = s.round() as u64;
    let (large, unit, small, rest) = match whole {
        ..7_200 => (whole / 60, "min", "s", whole % 60),
        7_200..172_800 => (whole / 3_600, "h", "min", whole % 3_600 / 60),
        _ => (whole / 86_400, "d", "h", whole % 86_400 / 3_600),
    };
    if rest == 0 {
        format!("{large} {unit}")
    } else {
        format!("{large} {unit} {rest} {small}")
    }
}

/// A time to plan by: one unit, no more figures than a forecast deserves.
#[must_use]
pub fn roughly(s: f64) -> String {
    match s {
        ..120.0 => format!("{s:.0} s"),
        120.0..7_200.0 => format!("{:.0} min", s / 60.0),
        7_200.0..172_800.0 => format!("{:.0} h", s / 3_600.0),
        _ => format!("{:.0} d", s / 86_400.0),
    }
}

/// A bound that was chosen rather than measured: `1 ms`, `60 s`, `62.05 s`.
#[must_use]
pub fn edge(s: f64) -> String {
    let (number, unit) = if s < 1.0 { (s * 1e3, "ms") } else { (s, "s") };
    let number = format!("{number:.2}");
    format!(
        "{} {unit}",
        number.trim_end_matches('0').trim_end_matches('.')
    )
}

fn figures(x: f64) -> String {
    if x < 9.995 {
        format!("{x:.2}")
    } else if x < 99.95 {
        format!("{x:.1}")
    } else {
        format!("{x:.0}")
    }
}

/// `1.3 MB`, decimal units.
#[must_use]
pub fn bytes(n: u64) -> String {
    match n {
        ..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{} kB", figures(n as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{} MB", figures(n as f64 / 1e6)),
        _ => format!("{} GB", figures(n as f64 / 1e9)),
    }
}

/// Horizontal bar of at most `width` cells, in eighths of a cell; a share that
/// is not zero shows at least one eighth.
#[must_use]
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if share.is_nan() || share <= 0.0 {
        return String::new();
    }
    let eighths = ((share.min(1.0) * (width * 8) as f64).round() as usize).max(1);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// `10.0.0.9:443`, `[::ffff:10.0.0.9]:443`.
#[must_use]
pub fn endpoint(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

/// An address where a port may follow: `10.0.0.9`, `[fe80::1]`.
#[must_use]
pub fn host(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// What the kernel calls a process, up to the first NUL.
#[must_use]
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The number of a process that owns something, which is 0 where the PID namespace
/// of `/proc` has none for it.
#[must_use]
pub fn pid(pid: u32) -> String {
    match pid {
        0 => "outside".to_owned(),
        pid => pid.to_string(),
    }
}

/// A network namespace by its name, or by its inode where it has none.
#[must_use]
pub fn namespace(inode: u32, name: Option<&str>) -> String {
    name.map_or_else(|| inode.to_string(), str::to_owned)
}

/// At most `width` characters, with `…` in the place of what was cut out of
/// the middle: the ends of addresses and paths say most.
#[must_use]
pub fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head: String = text.chars().take(kept - kept / 2).collect();
    let tail: String = text.chars().skip(length - kept / 2).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_thousands() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (5204, "5,204"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(counted(1, "life", "lives"), "1 life");
        assert_eq!(counted(2000, "life", "lives"), "2,000 lives");
    }

    #[test]
    fn rates_and_shares_are_never_rounded_to_nothing_or_to_all() {
        for (r, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.1, "0.1"),
            (99.9, "99.9"),
            (99.96, "100"),
            (12_345.6, "12,346"),
        ] {
            assert_eq!(rate(r), text);
        }
        for (part, whole, text) in [
            (0, 0, "-"),
            (0, 5, "0 %"),
            (5, 5, "100 %"),
            (1, 100_000, "<0.1 %"),
            (99_999, 100_000, ">99.9 %"),
            (1, 2, "50 %"),
            (27_900, 28_232, "98.8 %"),
            (98, 100, "98 %"),
            (3, 1000, "0.3 %"),
        ] {
            assert_eq!(percent_of(part, whole), text, "{part} of {whole}");
        }
    }

    #[test]
    fn times_have_three_figures_and_a_unit() {
        for (s, text) in [
            (0.0, "0 s"),
            (0.000_000_4, "0.40 µs"),
            (0.000_121, "121 µs"),
            (0.000_999_6, "1.00 ms"),
            (0.0123, "12.3 ms"),
            (0.9996, "1.00 s"),
            (4.1, "4.10 s"),
            (61.02, "61.0 s"),
            (120.0, "2 min"),
            (125.4, "2 min 5 s"),
            (7_260.0, "2 h 1 min"),
            (180_000.0, "2 d 2 h"),
        ] {
            assert_eq!(seconds(s), text);
        }
        for (s, text) in [
            (0.001, "1 ms"),
            (0.1, "100 ms"),
            (60.0, "60 s"),
            (62.048, "62.05 s"),
            (65.12, "65.12 s"),
        ] {
            assert_eq!(edge(s), text);
        }
    }

    #[test]
    fn bars_grow_by_eighths_and_show_the_least_share() {
        assert_eq!(bar(0.0, 10), "");
        assert_eq!(bar(f64::NAN, 10), "");
        assert_eq!(bar(0.0001, 10), "▏");
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(bar(1.0, 3), "███");
        assert_eq!(bar(7.0, 3), "███");
    }

    #[test]
    fn a_process_is_called_what_comes_before_the_nul() {
        assert_eq!(
            comm(b"curl\0garbage....."[..16].try_into().unwrap()),
            "curl"
        );
        assert_eq!(comm(b"sixteen-bytes-xx"), "sixteen-bytes-xx");
        assert_eq!(
            comm(b"\xff\xfe\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            "\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn what_is_cut_is_cut_in_the_middle() {
        assert_eq!(shortened("10.0.0.9", 8), "10.0.0.9");
        assert_eq!(shortened("/system.slice/x.service", 11), "/syst…rvice");
        assert_eq!(shortened("abcdef", 1), "…");
    }
}
