//! The kernel's symbols.

use tracer::kernel::kallsyms::{REQSK_TIMER_HANDLER, Symbols, TW_TIMER_HANDLER, callers, handlers};

/// `/proc/kallsyms`. What is found stands in the text, and what is said to be
/// missing does not.
pub fn kallsyms(text: &[u8]) {
    let Ok(symbols) = Symbols::read(text) else {
        return;
    };
    for name in symbols.unplaced() {
        // As the last word of a whole line it would have been found, unless it is
        // no function.
        assert!(
            !lines(text).any(|(_, kind, found)| kind == b"T" && found == name.as_bytes()),
            "{name} is there"
        );
    }
    if let Ok(found) = handlers(&symbols) {
        for (name, address) in [
            (TW_TIMER_HANDLER, found.tw_timer),
            (REQSK_TIMER_HANDLER, found.reqsk_timer),
        ] {
            let known = |(at, _, found): (u64, _, &[u8])| {
                at == address && found.starts_with(name.as_bytes())
            };
            assert!(all_lines(text).any(known), "{name} is not at {address:x}");
        }
    }
    if let Ok(callers) = callers(&symbols) {
        for caller in callers.table.iter().filter(|caller| caller.length != 0) {
            assert!(
                all_lines(text).any(|(at, _, _)| at == caller.start),
                "nothing is at {:x}",
                caller.start
            );
            let end = caller.start.checked_add(u64::from(caller.length));
            let end = end.expect("a function ends before the address space does");
            let inside = |at: u64| at > caller.start && at < end;
            let function = |kind: &[u8]| matches!(kind, b"t" | b"T" | b"w" | b"W");
            assert!(
                !all_lines(text).any(|(at, kind, _)| function(kind) && inside(at)),
                "a function begins within that at {:x}",
                caller.start
            );
        }
    }
}

/// Address, kind and name of what is not a module's.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let words: Vec<&[u8]> = words(line).collect();
        let &[address, kind, name] = words.as_slice() else {
            return None;
        };
        Some((number(address)?, kind, name))
    })
}

fn all_lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut words = words(line);
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        Some((number(address)?, kind, name))
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

fn number(word: &[u8]) -> Option<u64> {
    let digits = word.iter().all(u8::is_ascii_hexdigit).then_some(word)?;
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}
