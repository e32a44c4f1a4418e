//! Other values for lines of JSON: what a mutation of bytes would hardly find.

use serde_json::{Map, Value};

/// A sequence of numbers that a seed gives (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

const STRINGS: [&str; 14] = [
    "",
    "-",
    "\u{1b}[31m",
    "\u{202e}a\u{200b}",
    "\n\r\t\u{9b}",
    "TIME_WAIT",
    "ESTABLISHED",
    "expired",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.ip_local_port_range",
    "32768 60999",
    "9999999999999999999",
    "2024-01-01T00:00:00.000Z",
    "::1",
];

/// Mutates a line of `bytes`, or a few values of one. `None` three times out of
/// ten, where no line is JSON, and where the result is longer than `max`.
#[must_use]
pub fn mutate_lines(bytes: &[u8], max: usize, seed: u32) -> Option<Vec<u8>> {
    let mut dice = Dice(u64::from(seed));
    if dice.below(10) < 3 {
        return None;
    }
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    if lines.is_empty() {
        return None;
    }
    let at = dice.below(lines.len());
    let written;
    match dice.below(12) {
        0 => {
            let to = dice.below(lines.len() + 1);
            lines.insert(to, lines[at]);
        }
        1 => drop(lines.remove(at)),
        2 => {
            let other = dice.below(lines.len());
            lines.swap(at, other);
        }
        _ => {
            // A NUL begins the second recording.
            let nul = lines[at].starts_with(b"\0");
            let mut value: Value = serde_json::from_slice(&lines[at][usize::from(nul)..]).ok()?;
            for _ in 0..=dice.below(3) {
                mutate(&mut value, &mut dice);
            }
            let mut line = vec![0; usize::from(nul)];
            serde_json::to_writer(&mut line, &value).ok()?;
            line.push(b'\n');
            written = line;
            lines[at] = &written;
        }
    }
    let mutated = lines.concat();
    (mutated.len() <= max).then_some(mutated)
}

/// Goes down to some value, and makes it another one.
fn mutate(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(map) if !map.is_empty() && dice.below(12) > 0 => {
            let key = dice.below(map.len());
            let (_, inner) = map.iter_mut().nth(key).expect("it has as many");
            mutate(inner, dice);
        }
        Value::Array(all) if !all.is_empty() && dice.below(4) > 0 => {
            let at = dice.below(all.len());
            mutate(&mut all[at], dice);
        }
        Value::Object(map) => mutate_map(map, dice),
        Value::Array(all) => match dice.below(4) {
            0 => all.clear(),
            1 => drop(all.pop()),
            _ => {
                let new = all.last().cloned().unwrap_or_else(|| number(dice));
                let count = 1 + dice.below(if new.is_number() { 200 } else { 3 });
                all.extend(std::iter::repeat_n(new, count));
            }
        },
        Value::Number(n) => {
            *value = match (dice.below(4), n.as_i64()) {
                (0, Some(n)) => n.wrapping_add(dice.below(9) as i64 - 4).into(),
                (1, Some(n)) => n.wrapping_mul(dice.below(9) as i64 - 4).into(),
                _ => number(dice),
            }
        }
        Value::String(_) => *value = dice.one(&STRINGS).into(),
        Value::Bool(it) => *it = !*it,
        Value::Null => *value = number(dice),
    }
}

fn mutate_map(map: &mut Map<String, Value>, dice: &mut Dice) {
    let key = map.keys().nth(dice.below(map.len())).cloned();
    match (dice.below(3), key) {
        (0, Some(key)) => drop(map.remove(&key)),
        (1, Some(key)) => {
            let value = map[&key].clone();
            map.insert(dice.one(&STRINGS).to_owned(), value);
        }
        _ => drop(map.insert(dice.one(&STRINGS).to_owned(), number(dice))),
    }
}

fn number(dice: &mut Dice) -> Value {
    match dice.below(20) {
        0 => 0.into(),
        1 => 1.into(),
        2 => (-1).into(),
        3 => i64::MAX.into(),
        4 => i64::MIN.into(),
        5 => u64::MAX.into(),
        6 => (1_u64 << 53).into(),
        7 => u32::MAX.into(),
        8 => (1e308).into(),
        9 => (-1e308).into(),
        10 => (5e-324).into(),
        11 => (-0.0).into(),
        12 => (0.5).into(),
        13 => (1e9).into(),
        14 => (1e18).into(),
        15 => (2e19).into(),
        16 => Value::Null,
        _ => (dice.roll() >> dice.below(64)).into(),
    }
}
