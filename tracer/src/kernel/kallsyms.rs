//! Which code a return address belongs to, from `/proc/kallsyms`.
//!
//! Finds the few functions that say why a minisocket's timer was cancelled, and
//! the handlers that say that a timer is a minisocket's. Compilers split and
//! clone functions (`.cold`, `.part.0`, `.isra.0`, `.constprop.0`, `.llvm.123`):
//! each copy is a range of its own with the meaning of the original. It reads
//! any text of that form and asks the kernel nothing.

use std::fmt;
use std::io::{self, BufRead};

use tracer_common::layout::{CALLERS, Caller, Callers, MEANS_REARM};
use tracer_common::wire::Reason;

/// Where the kernel lists its symbols.
pub const PATH: &str = "/proc/kallsyms";

pub const TW_TIMER_HANDLER: &str = "tw_timer_handler";
pub const REQSK_TIMER_HANDLER: &str = "reqsk_timer_handler";

/// No function asked for is longer; the last symbol of a section has no
/// neighbour to end it.
const LONGEST: u64 = 1 << 16;

/// A function on the stack of a `timer_cancel`, and what its presence means.
#[derive(Clone, Copy, Debug)]
struct Known {
    name: &'static str,
    meaning: u32,
    /// The module that may hold it. A same-named function of any other module
    /// is not the one meant.
    module: Option<&'static str>,
}

const fn known(name: &'static str, reason: Reason) -> Known {
    Known {
        name,
        meaning: reason as u32,
        module: None,
    }
}

const fn rearm(name: &'static str) -> Known {
    Known {
        name,
        meaning: MEANS_REARM,
        module: None,
    }
}

const fn in_module(module: &'static str, known: Known) -> Known {
    Known {
        module: Some(module),
        ..known
    }
}

/// The kernel side goes through the frames from the innermost outwards, and the
/// first that is found here decides. That order is right where two nest:
///
/// - `connect()` always runs through `__inet_hash_connect`. With a bound port it
///   calls `__inet_check_established` without a place to put the minisocket, which
///   therefore ends it itself: the check is the inner frame. With an ephemeral port
///   the check hands the minisocket back and has returned when
///   `__inet_hash_connect` ends it: the check is on no frame.
/// - `tcp_timewait_state_process` is called by `tcp_v4_rcv`. If it ends the
///   minisocket an RST was received; if its caller does, a SYN was accepted or an
///   RST sent. A re-arm from it has `__mod_timer` further inside.
/// - On loopback the whole of `tcp_v4_rcv` can run on the stack of a `connect()`
///   or `close()`, which are further out.
/// - TPROXY ends the minisocket before the segment reaches `tcp_v4_rcv`.
const TABLE: [Known; 19] = [
    // Which of these is a frame depends on what the compiler inlined. Minisockets
    // are armed by mod_timer, re-armed by mod_timer_pending.
    rearm("__mod_timer"),
    rearm("mod_timer"),
    rearm("mod_timer_pending"),
    // A CPU goes offline and its timers move on.
    rearm("migrate_timer_list"),
    rearm("timers_dead_cpu"),
    known("__inet_hash_connect", Reason::ReusedByConnect),
    known("__inet_check_established", Reason::ReusedByBoundConnect),
    in_module(
        "ipv6",
        known("__inet6_check_established", Reason::ReusedByBoundConnect),
    ),
    known("tcp_v4_rcv", Reason::Received),
    in_module("ipv6", known("tcp_v6_rcv", Reason::Received)),
    known("tcp_timewait_state_process", Reason::Reset),
    known("tcp_abort", Reason::Destroyed),
    in_module("tcp_diag", known("tcp_diag_destroy", Reason::Destroyed)),
    known("inet_twsk_purge", Reason::NetnsExit),
    // 6.1 and later call it around the former.
    known("tcp_twsk_purge", Reason::NetnsExit),
    in_module(
        "nf_tproxy_ipv4",
        known("nf_tproxy_handle_time_wait4", Reason::Tproxy),
    ),
    in_module(
        "nf_tproxy_ipv6",
        known("nf_tproxy_handle_time_wait6", Reason::Tproxy),
    ),
    Known {
        name: TW_TIMER_HANDLER,
        meaning: HANDLER,
        module: None,
    },
    Known {
        name: REQSK_TIMER_HANDLER,
        meaning: HANDLER,
        module: None,
    },
];

/// In [`TABLE`]: not a caller, but an address to compare `timer->function` with.
const HANDLER: u32 = u32::MAX;

/// A function, or a split-off copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Symbol {
    name: &'static str,
    meaning: u32,
    /// From the first dot on; empty for the function itself.
    suffix: String,
    start: u64,
    length: u32,
}

/// The functions that matter to the tracer, as this kernel placed them.
#[derive(Clone, Debug)]
pub struct Symbols {
    found: Vec<Symbol>,
}

/// Where the timer handlers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handlers {
    pub tw_timer: u64,
    pub reqsk_timer: u64,
}

#[derive(Debug)]
pub enum Error {
    Read(io::Error),
    /// Every address is 0: this reader may not see them.
    Hidden,
    /// A function without which nothing can be traced.
    Missing(&'static str),
    /// More copies than the kernel side has room for; the first left out.
    TooMany {
        found: usize,
        first: String,
    },
}

/// Clauses; the remedies are in [`super::requirements`].
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Read(why) => write!(f, "{PATH} cannot be read: {why}"),
            Error::Hidden => write!(f, "{PATH} shows every address as 0"),
            Error::Missing(name) => write!(f, "{PATH} has no symbol {name}"),
            Error::TooMany { found, first } => write!(
                f,
                "{PATH} has {found} functions that may end a minisocket where the tracer \
                 has room for {CALLERS} (the first left out is {first})"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Read(why) => Some(why),
            _ => None,
        }
    }
}

impl Symbols {
    /// Reads a listing of the form of `/proc/kallsyms`, in any order.
    pub fn read(mut reader: impl BufRead) -> Result<Symbols, Error> {
        let mut found = Vec::new();
        let mut text = Vec::with_capacity(1 << 17);
        let mut line = Vec::with_capacity(128);
        let mut shown = false;
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(Error::Read)? == 0 {
                break;
            }
            let Some((address, kind, full, module)) = fields(&line) else {
                continue;
            };
            shown |= address != 0;
            if !matches!(kind, b't' | b'T' | b'w' | b'W') {
                continue;
            }
            text.push(address);
            // In kernel text a dot only ever precedes what a compiler or linker
            // added to a copy, however many of them there are.
            let dot = full.iter().position(|&b| b == b'.').unwrap_or(full.len());
            let Some(known) = TABLE.iter().find(|k| k.name.as_bytes() == &full[..dot]) else {
                continue;
            };
            if module.is_some_and(|m| known.module.map(str::as_bytes) != Some(m)) {
                continue;
            }
            let suffix = String::from_utf8_lossy(&full[dot..]).into_owned();
            found.push(Symbol {
                name: known.name,
                meaning: known.meaning,
                suffix,
                start: address,
                length: 0,
            });
        }
        if !shown {
            return Err(Error::Hidden);
        }
        text.sort_unstable();
        for symbol in &mut found {
            // Aliases share an address: the end is the next greater one.
            let next = text.partition_point(|&a| a <= symbol.start);
            let end = text.get(next).copied().unwrap_or(u64::MAX);
            symbol.length = (end - symbol.start).min(LONGEST) as u32;
        }
        found.sort_by_key(|s| s.start);
        found.dedup();
        Ok(Symbols { found })
    }

    /// Functions of the table that this kernel lacks and whose lack costs a
    /// reason: such ends are counted as unknown. What may be absent by
    /// configuration (TPROXY, all of IPv6) or by age is not listed.
    #[must_use]
    pub fn unplaced(&self) -> Vec<&'static str> {
        let has = |name| self.has(name);
        let mut expected = vec![
            "__inet_hash_connect",
            "__inet_check_established",
            "tcp_v4_rcv",
            "tcp_timewait_state_process",
            "tcp_abort",
            "inet_twsk_purge",
        ];
        // One of these without the other is no matter of configuration.
        let v6 = ["tcp_v6_rcv", "__inet6_check_established"];
        if v6.iter().any(|name| has(name)) {
            expected.extend(v6);
        }
        if !has("timers_dead_cpu") {
            expected.push("migrate_timer_list");
        }
        expected.retain(|name| !has(name));
        expected
    }

    fn has(&self, name: &str) -> bool {
        self.found.iter().any(|s| s.name == name)
    }

    /// Whether finding this function says what its row says. Where a function
    /// that it may be found around is not known, it says less: such an end is
    /// unknown rather than wrong.
    fn is_unambiguous(&self, symbol: &Symbol) -> bool {
        match symbol.name {
            "__inet_hash_connect" => {
                self.has("__inet_check_established")
                    && self.has("__inet6_check_established") == self.has("tcp_v6_rcv")
            }
            "tcp_v4_rcv" | "tcp_v6_rcv" => self.has("tcp_timewait_state_process"),
            _ => true,
        }
    }

    /// The address that `timer->function` holds.
    fn handler(&self, name: &'static str) -> Result<u64, Error> {
        let mut copies = self.found.iter().filter(|s| s.name == name);
        // A renamed function is still a whole one; a split-off part never is a
        // function pointer's target.
        let whole = |s: &&Symbol| !s.suffix.contains(".cold") && !s.suffix.contains(".part");
        copies
            .clone()
            .find(|s| s.suffix.is_empty())
            .or_else(|| copies.find(whole))
            .map(|s| s.start)
            .ok_or(Error::Missing(name))
    }
}

/// Address, type, name and module of a line.
type Fields<'a> = (u64, u8, &'a [u8], Option<&'a [u8]>);

/// `None` for a line of another form.
fn fields(line: &[u8]) -> Option<Fields<'_>> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let address = words.next()?;
    // A number may begin with a sign, an address does not.
    let digits = address
        .iter()
        .all(u8::is_ascii_hexdigit)
        .then_some(address)?;
    let address = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    let kind = words.next()?;
    let name = words.next()?;
    let module = words
        .next()
        .and_then(|m| m.strip_prefix(b"[")?.strip_suffix(b"]"));
    (kind.len() == 1).then_some((address, kind[0], name, module))
}

/// The table the kernel side compares return addresses with.
pub fn callers(symbols: &Symbols) -> Result<Callers, Error> {
    let mut table = [Caller::default(); CALLERS];
    // Without it a re-arm would look like an end: its callers may jump to it and
    // be on no frame.
    const REARMS: &str = "__mod_timer";
    if !symbols.has(REARMS) {
        return Err(Error::Missing(REARMS));
    }
    let callers = || {
        symbols
            .found
            .iter()
            .filter(|s| s.meaning != HANDLER && symbols.is_unambiguous(s))
    };
    let found = callers().count();
    if let Some(first) = callers().nth(CALLERS) {
        return Err(Error::TooMany {
            found,
            first: format!("{}{}", first.name, first.suffix),
        });
    }
    for (row, symbol) in table.iter_mut().zip(callers()) {
        *row = Caller {
            start: symbol.start,
            length: symbol.length,
            meaning: symbol.meaning,
        };
    }
    Ok(Callers { table })
}

pub fn handlers(symbols: &Symbols) -> Result<Handlers, Error> {
    Ok(Handlers {
        tw_timer: symbols.handler(TW_TIMER_HANDLER)?,
        reqsk_timer: symbols.handler(REQSK_TIMER_HANDLER)?,
    })
}

#[cfg(test)]
mod tests;
