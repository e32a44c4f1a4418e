//! Port headroom: how many local ports each client-side destination has taken,
//! how fast it takes more, and what its namespace allows.
//!
//! A port is taken per (local address, remote address, remote port), in any
//! state, minisockets included: that is what `connect()` runs out of.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::event::{Family, Moment, NamespaceFacts, Netns, Tuple};
use super::happening::{CloseReason, Process};
use super::hash::{Keyed, Map};
use super::snapshot::{self, ConnectFailures};

/// No destination.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Seconds over which rates are smoothed.
const SMOOTH_S: f64 = 3.0;

/// What became of connects is told of the last one to two of these, seconds.
const RECENT_S: f64 = 5.0;

/// How long a connect takes whose SYN is sent again: after 1, 3 and 7 s, or since
/// Linux 6.5 (`tcp_syn_linear_timeouts`) after each of four seconds; and how far from
/// that it may be.
const SENT_AGAIN_S: [&[f64]; 3] = [&[1.0, 2.0], &[3.0, 4.0], &[7.0, 6.0]];
const ABOUT: f64 = 0.1;

/// Who gives up after this long had no answer.
const UNANSWERED: Duration = Duration::from_millis(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    netns: Netns,
    family: Family,
    local: [u8; 16],
    remote: [u8; 16],
    remote_port: u16,
}

/// In as few words as it takes.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(self.local));
        state.write_u128(u128::from_le_bytes(self.remote));
        let place = u64::from(self.netns.0) << 32 | u64::from(self.remote_port) << 16;
        state.write_u64(place | u64::from(self.family == Family::Inet6));
    }
}

#[derive(Clone, Debug)]
struct Destination {
    key: Key,
    in_use: bool,
    /// It stands in `unused`, whether it is so still or not.
    listed: bool,
    used: u64,
    time_wait: u64,
    /// Since the last tick.
    connects: u64,
    used_before: u64,
    connects_per_s: f64,
    growth_per_s: f64,
    /// How much of the smoothing window has been filled, 0 to 1.
    filled: f64,
    /// What became of connects: lately, and in the stretch before.
    recent: [Attempts; 2],
    /// Who connected last, and who failed last.
    owner: Option<(Moment, Process)>,
    failing: Option<(Moment, Process)>,
}

/// What became of connects to one destination in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    established: u64,
    /// Of these, those that took as long as a SYN sent again takes.
    late: [u64; 3],
    failed: ConnectFailures,
    /// Of those abandoned, those that had waited for an answer.
    given_up: u64,
    /// Connections that closed, and how long they had been established.
    closed: u64,
    lived: Duration,
}

impl Attempts {
    fn is_empty(&self) -> bool {
        self.established == 0 && self.closed == 0 && self.failed.sum() == 0
    }

    fn with(mut self, other: &Attempts) -> Attempts {
        self.established += other.established;
        for (late, more) in self.late.iter_mut().zip(other.late) {
            *late += more;
        }
        self.failed = self.failed.with(&other.failed);
        self.given_up += other.given_up;
        self.closed += other.closed;
        self.lived += other.lived;
        self
    }
}

#[derive(Clone, Debug)]
pub(super) struct Destinations {
    all: Vec<Destination>,
    free: Vec<u32>,
    /// Those that nobody used any more at some time: what a full table may forget.
    unused: Vec<u32>,
    by_key: Map<Key, u32>,
    limit: usize,
    left_out: u64,
    /// Seconds since what is recent began, and the seconds of the stretch before.
    recent_s: f64,
    before_s: f64,
}

impl Destinations {
    pub(super) fn new(limit: usize, hash: Keyed) -> Destinations {
        Destinations {
            all: Vec::new(),
            free: Vec::new(),
            unused: Vec::new(),
            by_key: Map::with_hasher(hash),
            limit,
            left_out: 0,
            recent_s: 0.0,
            before_s: 0.0,
        }
    }

    /// A connect was answered, after so long.
    #[inline]
    pub(super) fn connected(
        &mut self,
        index: u32,
        at: Moment,
        after: Duration,
        owner: Option<Process>,
    ) {
        let Some(destination) = self.all.get_mut(index as usize) else {
            return;
        };
        newest(&mut destination.owner, at, owner);
        let attempts = &mut destination.recent[0];
        attempts.established += 1;
        let after = after.as_secs_f64();
        if after >= UNANSWERED.as_secs_f64() {
            for (late, nominal) in attempts.late.iter_mut().zip(SENT_AGAIN_S) {
                let about = |nominal: &f64| (after - nominal).abs() <= nominal * ABOUT;
                *late += u64::from(nominal.iter().any(about));
            }
        }
    }

    /// A connect failed.
    pub(super) fn failed(
        &mut self,
        index: u32,
        at: Moment,
        reason: CloseReason,
        after: Option<Duration>,
        owner: Option<Process>,
    ) {
        if let Some(destination) = self.all.get_mut(index as usize) {
            let attempts = &mut destination.recent[0];
            *attempts.failed.by(reason) += 1;
            let waited = after.is_some_and(|after| after >= UNANSWERED);
            attempts.given_up += u64::from(reason == CloseReason::Abandoned && waited);
            newest(&mut destination.failing, at, owner);
        }
    }

    /// A connection that was established so long closes.
    #[inline]
    pub(super) fn lived(&mut self, index: u32, time: Duration) {
        if let Some(destination) = self.all.get_mut(index as usize) {
            destination.recent[0].closed += 1;
            destination.recent[0].lived += time;
        }
    }

    /// A client-side socket took a local port. `connects` tells a connect from
    /// a socket that was there before.
    pub(super) fn take(&mut self, tuple: &Tuple, connects: bool) -> u32 {
        let key = Key {
            netns: tuple.netns,
            family: tuple.family,
            local: tuple.local,
            remote: tuple.remote,
            remote_port: tuple.remote_port,
        };
        let index = match self.by_key.get(&key) {
            Some(&index) => index,
            None => match self.insert(key) {
                Some(index) => index,
                None => {
                    self.left_out += 1;
                    return NOWHERE;
                }
            },
        };
        let destination = &mut self.all[index as usize];
        destination.used += 1;
        destination.connects += u64::from(connects);
        if !connects {
            // It did not grow: it was only found.
            destination.used_before += 1;
        }
        index
    }

    pub(super) fn release(&mut self, index: u32) {
        if let Some(destination) = self.all.get_mut(index as usize) {
            destination.used -= 1;
            if destination.used == 0 && !destination.listed {
                destination.listed = true;
                self.unused.push(index);
            }
        }
    }

    pub(super) fn time_wait(&mut self, index: u32, entered: bool) {
        if let Some(destination) = self.all.get_mut(index as usize) {
            if entered {
                destination.time_wait += 1;
            } else {
                destination.time_wait -= 1;
            }
        }
    }

    /// Of those that are in use; each as often as it has some.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = Netns> + '_ {
        let used = self.all.iter().filter(|d| d.in_use && d.used > 0);
        used.map(|d| d.key.netns)
    }

    /// Sockets whose destination found no room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Brings the rates up to date after `interval` seconds, and forgets
    /// destinations that nobody uses any more.
    pub(super) fn tick(&mut self, interval: f64) {
        if interval <= 0.0 {
            return;
        }
        let fresh = 1.0 - (-interval / SMOOTH_S).exp();
        self.recent_s += interval;
        let turns = self.recent_s >= RECENT_S;
        if turns {
            self.before_s = std::mem::take(&mut self.recent_s);
        }
        for index in 0..self.all.len() {
            let d = &mut self.all[index];
            if !d.in_use {
                continue;
            }
            if turns {
                d.recent = [Attempts::default(), d.recent[0]];
            }
            let at_rest = d.used == 0 && d.recent.iter().all(Attempts::is_empty);
            if at_rest && d.connects == 0 && d.connects_per_s / d.filled.max(fresh) < 0.5 {
                self.discard(index as u32);
                continue;
            }
            let growth = d.used as f64 - d.used_before as f64;
            d.connects_per_s += fresh * (d.connects as f64 / interval - d.connects_per_s);
            d.growth_per_s += fresh * (growth / interval - d.growth_per_s);
            d.filled += fresh * (1.0 - d.filled);
            d.connects = 0;
            d.used_before = d.used;
        }
    }

    /// Least headroom first. `facts` gives what is known of a namespace;
    /// `life_s` is how long a TIME_WAIT holds its port.
    pub(super) fn worst<'a>(
        &self,
        rows: usize,
        life_s: f64,
        mut facts: impl FnMut(Netns) -> Option<&'a NamespaceFacts>,
    ) -> Vec<snapshot::Destination> {
        let mut shown: Vec<snapshot::Destination> = self
            .all
            .iter()
            .filter(|d| d.in_use && d.used > 0)
            .filter_map(|d| facts(d.key.netns).map(|facts| d.rendered(facts, life_s)))
            .collect();
        let headroom = |d: &snapshot::Destination| d.usable as i128 - i128::from(d.used);
        shown.sort_by(|a, b| {
            headroom(a).cmp(&headroom(b)).then_with(|| {
                (a.netns, a.local, a.remote, a.remote_port).cmp(&(
                    b.netns,
                    b.local,
                    b.remote,
                    b.remote_port,
                ))
            })
        });
        shown.truncate(rows);
        shown
    }

    /// What became of connects lately, by destination: most failures first, then
    /// most connects.
    pub(super) fn attempts(
        &self,
        rows: usize,
        cgroup_path: &mut dyn FnMut(u64) -> Option<String>,
    ) -> Vec<snapshot::Connects> {
        let tried = self.all.iter().filter(|d| d.in_use).map(|d| {
            let [now, before] = &d.recent;
            (d, now.with(before))
        });
        let mut tried: Vec<_> = tried.filter(|(_, tried)| !tried.is_empty()).collect();
        let rank = |(d, tried): &(&Destination, Attempts)| {
            let late: u64 = tried.late.iter().sum();
            let key = &d.key;
            (
                std::cmp::Reverse((tried.failed.sum() + late, tried.established)),
                (key.netns, key.local, key.remote, key.remote_port),
            )
        };
        tried.sort_by_cached_key(rank);
        tried.truncate(rows);
        let window_s = self.recent_s + self.before_s;
        let shown = |(d, tried): (&Destination, Attempts)| {
            let (local, remote) = (d.key.tuple().local_addr(), d.key.tuple().remote_addr());
            snapshot::Connects {
                netns: d.key.netns.0,
                local,
                remote,
                remote_port: d.key.remote_port,
                window_s,
                established: tried.established,
                late_1s: tried.late[0],
                late_3s: tried.late[1],
                late_7s: tried.late[2],
                failed: tried.failed,
                given_up: tried.given_up,
                closed: tried.closed,
                mean_life_s: (tried.closed > 0)
                    .then(|| tried.lived.as_secs_f64() / tried.closed as f64),
                owner: d
                    .owner
                    .map(|(_, by)| snapshot::Holder::of(&by, cgroup_path)),
                failing: d
                    .failing
                    .map(|(_, by)| snapshot::Holder::of(&by, cgroup_path)),
            }
        };
        tried.into_iter().map(shown).collect()
    }

    fn insert(&mut self, key: Key) -> Option<u32> {
        if self.free.is_empty() && self.all.len() >= self.limit {
            self.discard_an_unused();
        }
        let fresh = Destination {
            key,
            in_use: true,
            listed: false,
            used: 0,
            time_wait: 0,
            connects: 0,
            used_before: 0,
            connects_per_s: 0.0,
            growth_per_s: 0.0,
            filled: 0.0,
            recent: [Attempts::default(); 2],
            owner: None,
            failing: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                let listed = self.all[index as usize].listed;
                self.all[index as usize] = Destination { listed, ..fresh };
                index
            }
            None if self.all.len() < self.limit => {
                self.all.push(fresh);
                (self.all.len() - 1) as u32
            }
            None => return None,
        };
        self.by_key.insert(key, index);
        Some(index)
    }

    /// Looks at each that fell out of use once, however many connects find the
    /// table full.
    fn discard_an_unused(&mut self) {
        while let Some(index) = self.unused.pop() {
            let destination = &mut self.all[index as usize];
            destination.listed = false;
            if destination.in_use && destination.used == 0 {
                self.discard(index);
                return;
            }
        }
    }

    fn discard(&mut self, index: u32) {
        let destination = &mut self.all[index as usize];
        destination.in_use = false;
        self.by_key.remove(&destination.key);
        self.free.push(index);
    }
}

impl Key {
    fn tuple(&self) -> Tuple {
        Tuple {
            netns: self.netns,
            family: self.family,
            local: self.local,
            remote: self.remote,
            local_port: 0,
            remote_port: self.remote_port,
        }
    }
}

impl Destination {
    fn rendered(&self, facts: &NamespaceFacts, life_s: f64) -> snapshot::Destination {
        let (key, tuple) = (&self.key, self.key.tuple());
        let (local, remote) = (tuple.local_addr(), tuple.remote_addr());
        let usable = facts.usable_ports();
        let holds_s = facts
            .reuse_delay(local, remote)
            .map_or(life_s, |delay| delay.as_secs_f64());
        let filled = if self.filled > 0.0 { self.filled } else { 1.0 };
        let growth = self.growth_per_s / filled;
        let left = usable.saturating_sub(self.used);
        let connects_per_s = self.connects_per_s / filled;
        let limit_per_s = usable as f64 / holds_s.max(0.001);
        // TIME_WAITs alone exhaust nothing at a rate that the ports sustain,
        // however fast they fill at first; connections that stay open do.
        let runs_out = connects_per_s > limit_per_s || self.time_wait * 2 < self.used;
        snapshot::Destination {
            netns: key.netns.0,
            local,
            remote,
            remote_port: key.remote_port,
            used: self.used,
            time_wait: self.time_wait,
            usable,
            connects_per_s,
            limit_per_s,
            exhausted_in_s: (growth > 0.0 && runs_out).then(|| left as f64 / growth),
        }
    }
}

/// Records of several CPUs come in the order of their sockets, so time decides.
fn newest(known: &mut Option<(Moment, Process)>, at: Moment, owner: Option<Process>) {
    if let Some(owner) = owner
        && known.is_none_or(|(then, by)| (then, by.pid) <= (at, owner.pid))
    {
        *known = Some((at, owner));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Destinations, Keyed, NOWHERE};
    use crate::model::event::{Family, NamespaceFacts, Netns, Tuple};

    fn tuple(remote: u8) -> Tuple {
        let addr = |last| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&[10, 0, 0, last]);
            bytes
        };
        Tuple {
            netns: Netns(1),
            family: Family::Inet,
            local: addr(1),
            remote: addr(remote),
            local_port: 40_000,
            remote_port: 443,
        }
    }

    fn facts(tw_reuse: u8) -> NamespaceFacts {
        NamespaceFacts {
            name: None,
            ports: (32_768, 60_999),
            reserved_ports: 4,
            max_tw_buckets: 65_536,
            tw_reuse,
            tw_reuse_delay: Duration::from_secs(1),
            timestamps: true,
        }
    }

    #[test]
    fn the_fullest_comes_first_with_its_limit() {
        let mut destinations = Destinations::new(16, Keyed::new(0));
        destinations.take(&tuple(2), true);
        for _ in 0..3 {
            destinations.take(&tuple(3), true);
        }
        let known = facts(2);
        let worst = destinations.worst(9, 61.024, |_| Some(&known));
        assert_eq!(worst.iter().map(|d| d.used).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(worst[0].usable, 28_228);
        // Reuse at 2 is for loopback alone.
        assert!((worst[0].limit_per_s - 462.6).abs() < 0.1, "{worst:?}");
        let mut reused = facts(1);
        let worst = destinations.worst(9, 61.024, |_| Some(&reused));
        assert!((worst[0].limit_per_s - 28_228.0).abs() < 1e-6, "{worst:?}");
        reused.timestamps = false;
        let worst = destinations.worst(9, 61.024, |_| Some(&reused));
        assert!((worst[0].limit_per_s - 462.6).abs() < 0.1, "{worst:?}");
    }

    #[test]
    fn what_grows_is_said_to_run_out() {
        let mut destinations = Destinations::new(16, Keyed::new(0));
        let known = facts(0);
        for _ in 0..20 {
            for _ in 0..100 {
                destinations.take(&tuple(2), true);
            }
            destinations.tick(1.0);
        }
        let worst = destinations.worst(9, 61.024, |_| Some(&known));
        assert!((worst[0].connects_per_s - 100.0).abs() < 1e-6, "{worst:?}");
        let left = worst[0].exhausted_in_s.expect("it grows");
        assert!((left - 262.28).abs() < 0.01, "{left}");
    }

    #[test]
    fn filling_up_to_what_the_ports_sustain_is_no_exhaustion() {
        let known = facts(0);
        let exhausted_at = |per_s: u64| {
            let mut destinations = Destinations::new(16, Keyed::new(0));
            for _ in 0..20 {
                for _ in 0..per_s {
                    let index = destinations.take(&tuple(2), true);
                    destinations.time_wait(index, true);
                }
                destinations.tick(1.0);
            }
            destinations.worst(9, 61.024, |_| Some(&known))[0].exhausted_in_s
        };
        assert_eq!(exhausted_at(400), None);
        assert!(exhausted_at(500).is_some());
    }

    #[test]
    fn nothing_is_shown_of_a_namespace_nobody_described() {
        let mut destinations = Destinations::new(16, Keyed::new(0));
        destinations.take(&tuple(2), true);
        assert!(destinations.worst(9, 61.0, |_| None).is_empty());
    }

    #[test]
    fn a_full_table_says_whom_it_left_out_and_forgets_the_unused() {
        let mut destinations = Destinations::new(2, Keyed::new(0));
        let first = destinations.take(&tuple(2), true);
        destinations.take(&tuple(3), true);
        assert_eq!(destinations.take(&tuple(4), true), NOWHERE);
        assert_eq!(destinations.left_out(), 1);
        destinations.release(first);
        assert_ne!(destinations.take(&tuple(4), true), NOWHERE);
    }

    #[test]
    fn what_came_into_use_again_is_not_forgotten() {
        let mut destinations = Destinations::new(2, Keyed::new(0));
        let first = destinations.take(&tuple(2), true);
        let second = destinations.take(&tuple(3), true);
        destinations.release(first);
        assert_eq!(destinations.take(&tuple(2), true), first);
        assert_eq!(destinations.take(&tuple(4), true), NOWHERE);
        for _ in 0..3 {
            destinations.release(second);
            assert_eq!(destinations.take(&tuple(3), true), second);
        }
        destinations.release(second);
        assert_eq!(destinations.take(&tuple(5), true), second);
        assert_eq!(destinations.take(&tuple(3), true), NOWHERE);
        assert_eq!(destinations.unused.len(), 0);
    }
}
