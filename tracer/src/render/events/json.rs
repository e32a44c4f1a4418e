//! `twtrace.event/1`, docs/schema/event-1.json: one object a line, members that
//! are not known are absent.
//!
//! Written by hand, because at a hundred thousand lines a second this is what
//! userspace spends its time on: no value of a line is allocated, and what
//! lines have in common is written once.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::Happenings;
use crate::model::event::{Family, Netns, Tuple};
use crate::model::happening::{CloseReason, Happening, Process, Side, What};
use crate::model::snapshot::Lost;
use crate::printable;
use crate::render::terminal::Terminal;
use crate::units;

pub const SCHEMA: &str = "twtrace.event/1";

/// A line is some 330 bytes; so many are handed over at once.
const FULL: usize = 1 << 16;

/// Processes whose text is remembered.
const OWNERS: usize = 64;

/// JSON Lines of events.
#[derive(Debug)]
pub struct Json<W> {
    out: Terminal<W>,
    lines: Vec<u8>,
    second: Second,
    network: Memo<(Netns, Family)>,
    /// Processes take turns: each has its place by its number.
    owners: [Memo<(Process, Option<String>)>; OWNERS],
}

impl<W: Write> Json<W> {
    pub fn new(out: Terminal<W>) -> Json<W> {
        Json {
            out,
            lines: Vec::with_capacity(FULL + 1024),
            second: Second::default(),
            network: Memo::default(),
            owners: std::array::from_fn(|_| Memo::default()),
        }
    }

    /// Where the lines go; those of before the last flush have gone there.
    pub fn get_mut(&mut self) -> &mut W {
        self.out.get_mut()
    }

    fn begin(&mut self, time: Timestamp) {
        self.second.write(&mut self.lines, time);
    }

    fn end(&mut self) -> io::Result<()> {
        put(&mut self.lines, "}\n");
        if self.lines.len() >= FULL {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let done = self.out.verbatim(&self.lines);
        self.lines.clear();
        done
    }
}

impl<W: Write> Happenings for Json<W> {
    fn happening(
        &mut self,
        happening: &Happening,
        time: Timestamp,
        cgroup: Option<&str>,
    ) -> io::Result<()> {
        self.begin(time);
        let line = &mut self.lines;
        put(line, ",\"socket\":");
        number(line, happening.socket.0);
        what_happened(line, &happening.what);
        match happening.side {
            Side::Client => put(line, ",\"side\":\"client\""),
            Side::Server => put(line, ",\"side\":\"server\""),
            Side::Unknown => {}
        }
        if let Some(tuple) = &happening.tuple {
            let network = (tuple.netns, tuple.family);
            self.network.write(
                line,
                |last| *last == network,
                || (network, of_network(network)),
            );
            both_ends(line, tuple)?;
        }
        if let Some(owner) = &happening.owner {
            self.owners[owner.pid as usize % OWNERS].write(
                line,
                |(last, path)| last == owner && path.as_deref() == cgroup,
                || ((*owner, cgroup.map(str::to_owned)), of_owner(owner, cgroup)),
            );
        }
        self.end()
    }

    fn lost(&mut self, time: Timestamp, lost: &Lost) -> io::Result<()> {
        self.begin(time);
        put(&mut self.lines, ",\"kind\":\"lost\",\"lost\":");
        printable::write_json(&mut self.lines, lost)?;
        self.end()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.out.flush()
    }
}

fn what_happened(line: &mut Vec<u8>, what: &What) {
    match what {
        What::Transition {
            from,
            to,
            in_state,
            reason,
        } => {
            put(line, ",\"kind\":\"transition\",\"from\":\"");
            put(line, from.name());
            put(line, "\",\"to\":\"");
            put(line, to.name());
            if let Some(reason) = reason.map(CloseReason::name) {
                put(line, "\",\"reason\":\"");
                put(line, reason);
            }
            line.push(b'"');
            if let Some(time) = in_state {
                put(line, ",\"in_state_s\":");
                seconds(line, *time);
            }
        }
        What::MinisocketStart { state, timeout } => {
            put(line, ",\"kind\":\"minisocket_start\",\"state\":\"");
            put(line, state.name());
            put(line, "\",\"timeout_s\":");
            seconds(line, *timeout);
        }
        What::MinisocketRearm { state } => {
            put(line, ",\"kind\":\"minisocket_rearm\",\"state\":\"");
            put(line, state.name());
            line.push(b'"');
        }
        What::MinisocketEnd {
            state,
            reason,
            lifetime,
            since_last_arm,
            rearmed,
            by,
        } => {
            put(line, ",\"kind\":\"minisocket_end\",\"state\":\"");
            put(line, state.name());
            put(line, "\",\"reason\":\"");
            put(line, reason);
            line.push(b'"');
            if let Some(time) = lifetime {
                put(line, ",\"lifetime_s\":");
                seconds(line, *time);
            }
            if let Some(time) = since_last_arm {
                put(line, ",\"since_last_arm_s\":");
                seconds(line, *time);
            }
            put(line, ",\"rearmed\":");
            number(line, u64::from(*rearmed));
            put(line, ",\"by\":{\"pid\":");
            process(line, by);
            line.push(b'}');
        }
    }
}

fn of_network((netns, family): (Netns, Family)) -> Vec<u8> {
    let family = match family {
        Family::Inet => "inet",
        Family::Inet6 => "inet6",
    };
    format!(",\"netns\":{},\"family\":\"{family}\"", netns.0).into_bytes()
}

fn both_ends(line: &mut Vec<u8>, tuple: &Tuple) -> io::Result<()> {
    if tuple.is_nameless() {
        return Ok(());
    }
    put(line, ",\"local\":{\"addr\":\"");
    addr(line, tuple.local_addr())?;
    put(line, "\",\"port\":");
    number(line, u64::from(tuple.local_port));
    put(line, "},\"remote\":{\"addr\":\"");
    addr(line, tuple.remote_addr())?;
    put(line, "\",\"port\":");
    number(line, u64::from(tuple.remote_port));
    line.push(b'}');
    Ok(())
}

#[inline]
fn addr(line: &mut Vec<u8>, addr: IpAddr) -> io::Result<()> {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            number(line, a.into());
            for octet in [b, c, d] {
                line.push(b'.');
                number(line, octet.into());
            }
            Ok(())
        }
        IpAddr::V6(addr) => write!(line, "{addr}"),
    }
}

fn of_owner(owner: &Process, cgroup: Option<&str>) -> Vec<u8> {
    let mut member = Vec::new();
    put(&mut member, ",\"pid\":");
    process(&mut member, owner);
    if let Some(cgroup) = cgroup {
        put(&mut member, ",\"cgroup\":");
        text(&mut member, cgroup);
    }
    member
}

/// The number and, where it is known, the name.
fn process(line: &mut Vec<u8>, process: &Process) {
    number(line, u64::from(process.pid));
    if let Some(comm) = &process.comm {
        put(line, ",\"comm\":");
        text(line, &units::comm(comm));
    }
}

/// A value that somebody else chose.
fn text(line: &mut Vec<u8>, value: &str) {
    // Nothing fails that is written to memory.
    let _ = printable::write_json(line, value);
}

#[inline(always)]
fn put(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

fn seconds(line: &mut Vec<u8>, time: Duration) {
    number(line, time.as_secs());
    line.push(b'.');
    let mut nanos = time.subsec_nanos();
    let mut digits = 9;
    if nanos == 0 {
        digits = 1;
    } else if nanos.is_multiple_of(1_000) {
        nanos /= 1_000;
        digits = 6;
    }
    while digits > 1 && nanos.is_multiple_of(10) {
        nanos /= 10;
        digits -= 1;
    }
    padded(line, nanos, digits);
}

/// `00` to `99`.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut n = 0;
    while n < 100 {
        pairs[2 * n] = b'0' + (n / 10) as u8;
        pairs[2 * n + 1] = b'0' + (n % 10) as u8;
        n += 1;
    }
    pairs
};

#[inline]
fn number(line: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while n >= 10 {
        let pair = 2 * (n % 100) as usize;
        n /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    // The last digit, unless pairs ended with a digit of their own.
    if n > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + n as u8;
    }
    line.extend_from_slice(&digits[at..]);
}

/// With zeros in front, up to nine digits.
fn padded(line: &mut Vec<u8>, mut n: u32, digits: usize) {
    let mut all = [b'0'; 9];
    for digit in all[..digits].iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    line.extend_from_slice(&all[..digits]);
}

/// What was written last of a kind, for as long as it stays the same: the
/// events of a namespace, or of a process, come in runs.
#[derive(Debug)]
struct Memo<T> {
    last: Option<(T, Vec<u8>)>,
}

// Derived, it would ask the same of `T`.
impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo { last: None }
    }
}

impl<T> Memo<T> {
    #[inline]
    fn write(
        &mut self,
        line: &mut Vec<u8>,
        is_same: impl FnOnce(&T) -> bool,
        fresh: impl FnOnce() -> (T, Vec<u8>),
    ) {
        let last = match self.last.take() {
            Some(last) if is_same(&last.0) => last,
            _ => fresh(),
        };
        let (_, text) = self.last.insert(last);
        line.extend_from_slice(text);
    }
}

/// The last second that was written: most events are of the same.
#[derive(Debug, Default)]
struct Second {
    since_epoch: Option<i64>,
    /// How its lines begin, up to the point.
    text: Vec<u8>,
}

impl Second {
    /// To the microsecond, what lies below is cut off.
    fn write(&mut self, line: &mut Vec<u8>, time: Timestamp) {
        // Before 1970 both are negative.
        let (mut second, mut nanos) = (time.as_second(), time.subsec_nanosecond());
        if nanos < 0 {
            second -= 1;
            nanos += 1_000_000_000;
        }
        if self.since_epoch != Some(second) {
            // Every second that a timestamp has is one it can show.
            let whole = Timestamp::from_second(second).unwrap_or(time);
            let shown = format!("{{\"schema\":\"{SCHEMA}\",\"time\":\"{whole:.0}");
            self.text = shown.into_bytes();
            // The Z comes after the microseconds.
            self.text.pop();
            self.text.push(b'.');
            self.since_epoch = Some(second);
        }
        line.extend_from_slice(&self.text);
        padded(line, nanos as u32 / 1_000, 6);
        put(line, "Z\"");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_are_those_of_jiff_to_the_microsecond() {
        let mut second = Second::default();
        for time in [
            "2026-01-31T12:00:00.000123Z",
            "2026-01-31T12:00:00.999999Z",
            "2026-01-31T12:00:01Z",
            "1969-12-31T23:59:59.25Z",
            "2026-12-31T23:59:59.000001Z",
        ] {
            let time: Timestamp = time.parse().unwrap();
            let text = written(|line| second.write(line, time)) + "}";
            let written: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(written["time"], format!("{time:.6}"), "{text}");
        }
    }

    #[test]
    fn numbers_are_what_json_reads() {
        for n in [0, 7, 10, 99, 100, 101, 4_026_531_840, u64::MAX] {
            assert_eq!(written(|line| number(line, n)), n.to_string());
        }
        for (time, text) in [
            (Duration::from_secs(60), "60.0"),
            (Duration::from_nanos(121_000), "0.000121"),
            (Duration::from_nanos(1), "0.000000001"),
            (Duration::from_nanos(61_042_000_120), "61.04200012"),
        ] {
            assert_eq!(written(|line| seconds(line, time)), text);
        }
    }

    #[test]
    fn what_others_chose_is_read_as_it_was() {
        for value in [
            "curl",
            "a\"b\\c",
            "\u{1b}[2J\n\u{9b}\u{202e}",
            "größe",
            "",
            "/a b/c",
        ] {
            let json = written(|line| text(line, value));
            assert_eq!(
                serde_json::from_str::<Value>(&json).unwrap(),
                Value::from(value),
                "{json}"
            );
        }
    }
}
