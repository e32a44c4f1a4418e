//! What TIME_WAITs take of the kernel's memory: the slab caches they lie in.
//!
//! Caches that the kernel has merged with others cannot be told apart; of those
//! only the size of one object is known.

use std::fs;

/// What is known; `None` where this kernel does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slabs {
    /// Of one TIME_WAIT minisocket, in bytes.
    pub minisocket: Option<u64>,
    /// All memory of the caches of minisockets, free objects included, in bytes.
    pub minisockets_total: Option<u64>,
    /// Of the buckets that a bound port takes, together, in bytes.
    pub bind_buckets: Option<u64>,
}

/// What this kernel shows to this process: slabs are for root alone.
#[must_use]
pub fn read() -> Slabs {
    let (minisocket, minisockets_total) = fs::read_to_string("/proc/slabinfo")
        .ok()
        .and_then(|text| minisockets(&text, rustix::param::page_size() as u64))
        .unzip();
    let size = |cache: &str| -> Option<u64> {
        let path = format!("/sys/kernel/slab/{cache}/object_size");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // The second came with Linux 6.1.
    let bind_buckets = size("tcp_bind_bucket")
        .map(|first| first.saturating_add(size("tcp_bind2_bucket").unwrap_or(0)));
    Slabs {
        minisocket,
        minisockets_total,
        bind_buckets,
    }
}

/// Of the text of `/proc/slabinfo`: size of an object, and of all slabs, of `tw_sock_TCP` and `tw_sock_TCPv6`.
#[must_use]
pub fn minisockets(slabinfo: &str, page: u64) -> Option<(u64, u64)> {
    let mut size = None;
    let mut total = 0_u64;
    for line in slabinfo.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>
        // : tunables … : slabdata <active_slabs> <num_slabs> <sharedavail>
        if !matches!(words.first(), Some(&("tw_sock_TCP" | "tw_sock_TCPv6"))) {
            continue;
        }
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        size = size.max(number(3));
        let slabs = number(14)?.checked_mul(number(5)?)?.checked_mul(page)?;
        total = total.checked_add(slabs)?;
    }
    size.map(|size| (size, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_added_up() {
        let text = "\
slabinfo - version: 2.1
tw_sock_TCPv6          0      0    256   16    1 : tunables    0    0    0 : slabdata      0      0      0
tw_sock_TCP          100    112    248   16    2 : tunables    0    0    0 : slabdata      7      7      0
TCP                   26     26   2368   13    8 : tunables    0    0    0 : slabdata      2      2      0
";
        assert_eq!(minisockets(text, 4096), Some((256, 7 * 2 * 4096)));
        assert_eq!(minisockets("TCP 1 2 3", 4096), None);
    }
}
