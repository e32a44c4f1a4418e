//! Values of flags as people write them: durations, sizes, counts.
//!
//! Each parser answers with a sentence that says what is wrong and what to
//! write instead; clap puts the flag's name before it.

use std::time::Duration;

use jiff::SignedDuration;

use crate::options::At;

/// Shorter intervals would measure the tracer.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// `90s`, `2m30s`, `500ms`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const WRITE: &str = "write a number with its unit, such as 500ms, 90s or 2m30s";
    let signed: SignedDuration = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no duration: {WRITE}"))?;
    match Duration::try_from(signed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("\"{text}\" is no time ahead: {WRITE}")),
    }
}

/// A duration from the start, or a time of the calendar with its zone.
pub(super) fn at(text: &str) -> Result<At, String> {
    if let Ok(time) = text.parse() {
        return Ok(At::Time(time));
    }
    duration(text).map(At::Elapsed).map_err(|_| {
        format!(
            "\"{text}\" is no time: write how long after the start, such as 12m30s, or a time with \
             its zone, such as 2026-01-31T12:00:00Z"
        )
    })
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!(
            "an interval of {text} is too short to measure anything but twtrace itself: take {} ms or more",
            SHORTEST_INTERVAL.as_millis()
        ));
    }
    Ok(interval)
}

/// Of fewer frames than ten, one that is late is too much of the whole.
pub(super) fn measure(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(10);
    let measure = duration(text)?;
    if measure < SHORTEST {
        return Err(format!(
            "{text} is too short to measure a load: take {} s or more",
            SHORTEST.as_secs()
        ));
    }
    Ok(measure)
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "\"{text}\" is no number to stop after: write 1 or more"
        )),
        Ok(count) => Ok(count),
    }
}

/// `2`, `0.5` or `2%`, of a whole.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse();
    match number {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(format!(
            "\"{text}\" is no share: write a percentage from 0 to 100"
        )),
    }
}

/// Of a socket that is bound to none, the local port is 0.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| {
        format!(
            "\"{text}\" is no port: write a number from 0 to 65535, such as 443; \
             service names are not looked up"
        )
    })
}

pub(super) fn cgroup(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(
            "a control group has a path: write / for the root, which contains all".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// The kernel keeps no more of a process's name.
const LONGEST_COMM: usize = 15;

pub(super) fn comm(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a process has a name: write what `ps -o comm` prints".to_owned()),
        1..=LONGEST_COMM => Ok(text.to_owned()),
        _ => Err(format!(
            "the kernel keeps {LONGEST_COMM} bytes of a process's name: write \"{}\"",
            text.chars()
                .scan(0, |length, c| {
                    *length += c.len_utf8();
                    (*length <= LONGEST_COMM).then_some(c)
                })
                .collect::<String>()
        )),
    }
}

pub(super) fn ring_bytes(text: &str) -> Result<u32, String> {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    ring_bytes_of_pages(text, page)
}

/// What the kernel asks of a ring buffer: a power of two, and whole pages.
fn ring_bytes_of_pages(text: &str, page: u32) -> Result<u32, String> {
    let bytes = bytes(text).ok_or_else(|| {
        format!("\"{text}\" is no size: write bytes, or a number with K, M or G, such as 16M")
    })?;
    let largest = 1_u64 << 31;
    if bytes.is_power_of_two() && (u64::from(page)..=largest).contains(&bytes) {
        return Ok(bytes as u32);
    }
    let nearest = bytes.clamp(u64::from(page), largest).next_power_of_two();
    Err(format!(
        "a ring buffer is a power of two from one page ({}) to {}: take {} instead of {text}",
        size(page.into()),
        size(largest),
        size(nearest)
    ))
}

/// `65536`, `64K`, `64KiB`; the units are binary, and case does not matter.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(super) fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30.. => format!("{}G", bytes >> 30),
        20..30 => format!("{}M", bytes >> 20),
        10..20 => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("2m30s", 150_000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "90", "soon", "-3s", "0s"] {
            let said = duration(text).unwrap_err();
            assert!(
                said.contains("such as 500ms, 90s or 2m30s"),
                "{text}: {said}"
            );
        }
        assert!(interval("9ms").unwrap_err().contains("10 ms or more"));
        assert_eq!(interval("10ms"), Ok(Duration::from_millis(10)));
    }

    #[test]
    fn a_ring_is_whole_pages_and_a_power_of_two() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 1 << 16),
            ("64kib", 1 << 16),
            ("16M", 1 << 24),
            ("2G", 1 << 31),
        ] {
            assert_eq!(ring_bytes_of_pages(text, 4096), Ok(bytes), "{text}");
        }
        let refused = |text| ring_bytes_of_pages(text, 4096).unwrap_err();
        assert_eq!(
            refused("3M"),
            "a ring buffer is a power of two from one page (4K) to 2G: take 4M instead of 3M"
        );
        assert!(refused("1K").contains("take 4K instead of 1K"));
        assert!(refused("4G").contains("take 2G instead of 4G"));
        assert!(refused("much").contains("is no size"));
        assert!(refused("99999999999999999999G").contains("is no size"));
        assert!(
            ring_bytes_of_pages("4096", 65536)
                .unwrap_err()
                .contains("one page (64K)")
        );
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        for text in ["abc", "https", "99999", "-1", ""] {
            assert_eq!(
                port(text).unwrap_err(),
                format!(
                    "\"{text}\" is no port: write a number from 0 to 65535, such as 443; \
                     service names are not looked up"
                )
            );
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(
            (percent("2"), percent("0.5%"), percent("100")),
            (Ok(2.0), Ok(0.5), Ok(100.0))
        );
        for text in ["", "-1", "101", "NaN", "some"] {
            assert!(
                percent(text).unwrap_err().contains("from 0 to 100"),
                "{text}"
            );
        }
    }

    #[test]
    fn counts_begin_at_one() {
        assert_eq!(count("3"), Ok(3));
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
    }
}
