//! Who closes: processes as the kernel side named them, and how many
//! TIME_WAITs each left behind; and the remote addresses they talked to.
//!
//! Both tables are bounded. What they drop is counted, never forgotten.

use std::net::IpAddr;

use super::event::OUTSIDE;
use super::happening;
use super::hash::{Keyed, Map};

/// No process.
pub(super) const NOBODY: u32 = u32::MAX;

/// What a pid stood for at one time.
#[derive(Clone, Copy, Debug)]
struct Identity {
    pid: u32,
    /// `(comm, cgroup)`, once told.
    name: Option<([u8; 16], u64)>,
    kernel_thread: bool,
    in_use: bool,
    /// Stories that refer to it.
    held: u32,
    /// TIME_WAITs entered.
    entered: u64,
    /// When it was last looked up, in look-ups.
    last: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Owners {
    identities: Vec<Identity>,
    free: Vec<u32>,
    by_pid: Map<u32, u32>,
    limit: usize,
    lookups: u64,
    /// TIME_WAITs entered by identities that were dropped.
    dropped: u64,
}

impl Owners {
    pub(super) fn new(limit: usize, hash: Keyed) -> Owners {
        Owners {
            identities: Vec::new(),
            free: Vec::new(),
            by_pid: Map::with_hasher(hash),
            limit: limit.max(16),
            lookups: 0,
            dropped: 0,
        }
    }

    /// Who `pid` is from here on.
    pub(super) fn name(&mut self, pid: u32, comm: [u8; 16], cgroup: u64, kernel_thread: bool) {
        let name = Some((comm, cgroup));
        if let Some(&index) = self.by_pid.get(&pid) {
            let identity = &mut self.identities[index as usize];
            if identity.name.is_none() || identity.name == name {
                identity.name = name;
                identity.kernel_thread = kernel_thread;
                return;
            }
            // The pid was given anew, or its process called exec: what it did
            // before stays under the name it had then.
            self.by_pid.remove(&pid);
            self.drop_if_idle(index);
        }
        self.insert(Identity {
            pid,
            name,
            kernel_thread,
            in_use: true,
            held: 0,
            entered: 0,
            last: 0,
        });
    }

    /// The identity of a process that owns what it does now: not the idle task,
    /// nor a kernel thread (MPTCP closes from one).
    #[inline]
    pub(super) fn actor(&mut self, pid: u32) -> u32 {
        if pid == 0 {
            return NOBODY;
        }
        self.lookups += 1;
        let index = match self.by_pid.get(&pid) {
            Some(&index) => index,
            None => {
                let nameless = Identity {
                    pid,
                    name: None,
                    kernel_thread: false,
                    in_use: true,
                    held: 0,
                    entered: 0,
                    last: 0,
                };
                self.insert(nameless)
            }
        };
        match self.identities.get_mut(index as usize) {
            Some(identity) if !identity.kernel_thread => {
                identity.last = self.lookups;
                index
            }
            _ => NOBODY,
        }
    }

    #[inline]
    pub(super) fn hold(&mut self, owner: u32) {
        if let Some(identity) = self.identities.get_mut(owner as usize) {
            identity.held += 1;
        }
    }

    #[inline]
    pub(super) fn release(&mut self, owner: u32) {
        if let Some(identity) = self.identities.get_mut(owner as usize) {
            identity.held -= 1;
            if identity.held == 0 {
                self.drop_if_idle(owner);
            }
        }
    }

    #[inline]
    pub(super) fn entered_time_wait(&mut self, owner: u32) {
        if let Some(identity) = self.identities.get_mut(owner as usize) {
            identity.entered += 1;
        }
    }

    pub(super) fn process(&self, owner: u32) -> Option<happening::Process> {
        self.identities.get(owner as usize).map(Identity::process)
    }

    /// Whoever `pid` is at the moment, kernel threads included.
    pub(super) fn current(&self, pid: u32) -> happening::Process {
        self.by_pid
            .get(&pid)
            .and_then(|&index| self.process(index))
            .unwrap_or(happening::Process {
                pid: shown(pid),
                comm: None,
                cgroup: None,
            })
    }

    /// Those with the most TIME_WAITs, and how many TIME_WAITs the others stand for.
    pub(super) fn top(&self, rows: usize) -> (Vec<(happening::Process, u64)>, u64) {
        let mut all: Vec<&Identity> = self
            .identities
            .iter()
            .filter(|i| i.in_use && i.entered > 0)
            .collect();
        all.sort_by(|a, b| {
            b.entered
                .cmp(&a.entered)
                .then(a.pid.cmp(&b.pid))
                .then(a.name.cmp(&b.name))
        });
        let rest: u64 = all.iter().skip(rows).map(|i| i.entered).sum();
        (
            all.into_iter()
                .take(rows)
                .map(|i| (i.process(), i.entered))
                .collect(),
            rest + self.dropped,
        )
    }

    fn insert(&mut self, identity: Identity) -> u32 {
        if self.identities.len() - self.free.len() >= self.limit {
            self.make_room();
        }
        let pid = identity.pid;
        let index = match self.free.pop() {
            Some(index) => {
                self.identities[index as usize] = identity;
                index
            }
            None if self.identities.len() < self.limit => {
                self.identities.push(identity);
                (self.identities.len() - 1) as u32
            }
            // All are held by live sockets: this one stays unnamed.
            None => return NOBODY,
        };
        self.by_pid.insert(pid, index);
        index
    }

    /// Drops half of those that no live socket refers to, the least telling first.
    fn make_room(&mut self) {
        let mut idle: Vec<u32> = (0..self.identities.len() as u32)
            .filter(|&i| {
                self.identities[i as usize].in_use && self.identities[i as usize].held == 0
            })
            .collect();
        idle.sort_by_key(|&i| {
            (
                self.identities[i as usize].entered,
                self.identities[i as usize].last,
            )
        });
        for &index in idle.iter().take(idle.len().div_ceil(2)) {
            let Identity { pid, entered, .. } = self.identities[index as usize];
            self.dropped += entered;
            if self.by_pid.get(&pid) == Some(&index) {
                self.by_pid.remove(&pid);
            }
            self.discard(index);
        }
    }

    /// An identity that is nobody's present one and has nothing to tell is gone.
    fn drop_if_idle(&mut self, index: u32) {
        let identity = self.identities[index as usize];
        let current = self.by_pid.get(&identity.pid) == Some(&index);
        if identity.held == 0 && identity.entered == 0 && !current {
            self.discard(index);
        }
    }

    fn discard(&mut self, index: u32) {
        self.identities[index as usize].in_use = false;
        self.free.push(index);
    }
}

impl Identity {
    fn process(&self) -> happening::Process {
        happening::Process {
            pid: shown(self.pid),
            comm: self.name.map(|(comm, _)| comm),
            cgroup: self.name.map(|(_, cgroup)| cgroup),
        }
    }
}

/// As the kernel itself tells of a process outside: by the number 0.
pub(crate) fn shown(pid: u32) -> u32 {
    if pid & OUTSIDE == 0 { pid } else { 0 }
}

/// TIME_WAITs entered by remote address.
#[derive(Clone, Debug)]
pub(super) struct Remotes {
    entered: Map<IpAddr, u64>,
    limit: usize,
    dropped: u64,
}

impl Remotes {
    pub(super) fn new(limit: usize, hash: Keyed) -> Remotes {
        Remotes {
            entered: Map::with_hasher(hash),
            limit: limit.max(16),
            dropped: 0,
        }
    }

    pub(super) fn entered_time_wait(&mut self, addr: IpAddr) {
        *self.entered.entry(addr).or_default() += 1;
        if self.entered.len() > self.limit {
            let mut counts: Vec<(u64, IpAddr)> =
                self.entered.iter().map(|(&a, &n)| (n, a)).collect();
            counts.sort_unstable();
            for (count, addr) in counts.into_iter().take(self.limit / 2) {
                self.dropped += count;
                self.entered.remove(&addr);
            }
        }
    }

    pub(super) fn top(&self, rows: usize) -> (Vec<(IpAddr, u64)>, u64) {
        let mut all: Vec<(IpAddr, u64)> = self.entered.iter().map(|(&a, &n)| (a, n)).collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let rest: u64 = all.iter().skip(rows).map(|&(_, n)| n).sum();
        all.truncate(rows);
        (all, rest + self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Keyed, NOBODY, OUTSIDE, Owners, Remotes};

    fn comm(name: &str) -> [u8; 16] {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm
    }

    #[test]
    fn neither_the_idle_task_nor_a_kernel_thread_owns_a_socket() {
        let mut owners = Owners::new(16, Keyed::new(0));
        owners.name(30, comm("kworker/0:1"), 1, true);
        assert_eq!((owners.actor(0), owners.actor(30)), (NOBODY, NOBODY));
        assert_eq!(owners.current(30).comm, Some(comm("kworker/0:1")));
    }

    #[test]
    fn those_outside_have_no_number_and_are_told_apart() {
        let mut owners = Owners::new(16, Keyed::new(0));
        owners.name(OUTSIDE | 7, comm("nginx"), 1, false);
        owners.name(OUTSIDE | 8, comm("curl"), 1, false);
        owners.name(7, comm("wget"), 1, false);
        for (pid, name) in [(OUTSIDE | 7, "nginx"), (OUTSIDE | 8, "curl"), (7, "wget")] {
            let owner = owners.actor(pid);
            owners.entered_time_wait(owner);
            let process = owners.process(owner).unwrap();
            let number = if pid == 7 { 7 } else { 0 };
            assert_eq!((process.pid, process.comm), (number, Some(comm(name))));
        }
        assert_eq!(owners.top(9).0.len(), 3);
        assert_eq!(owners.current(OUTSIDE | 9).pid, 0);
    }

    #[test]
    fn a_pid_given_anew_does_not_take_over_the_count() {
        let mut owners = Owners::new(16, Keyed::new(0));
        owners.name(7, comm("curl"), 1, false);
        let curl = owners.actor(7);
        owners.hold(curl);
        owners.entered_time_wait(curl);
        owners.name(7, comm("wget"), 1, false);
        let wget = owners.actor(7);
        owners.entered_time_wait(wget);
        owners.entered_time_wait(wget);
        assert_eq!(
            owners.process(curl).and_then(|p| p.comm),
            Some(comm("curl"))
        );
        let (top, rest) = owners.top(9);
        assert_eq!(
            top.iter().map(|(p, n)| (p.comm, *n)).collect::<Vec<_>>(),
            [(Some(comm("wget")), 2), (Some(comm("curl")), 1)]
        );
        assert_eq!(rest, 0);
    }

    #[test]
    fn a_full_table_keeps_the_biggest_and_says_what_it_dropped() {
        let mut owners = Owners::new(64, Keyed::new(0));
        for pid in 1..=1000 {
            let owner = owners.actor(pid);
            for _ in 0..if pid == 500 { 50 } else { 1 } {
                owners.entered_time_wait(owner);
            }
        }
        let (top, rest) = owners.top(1000);
        assert!(top.len() <= 64, "{} kept", top.len());
        assert_eq!((top[0].0.pid, top[0].1), (500, 50));
        assert_eq!(top.iter().map(|t| t.1).sum::<u64>() + rest, 999 + 50);
    }

    #[test]
    fn an_owner_that_a_socket_refers_to_is_never_dropped() {
        let mut owners = Owners::new(16, Keyed::new(0));
        let held: Vec<u32> = (1..=16).map(|pid| owners.actor(pid)).collect();
        held.iter().for_each(|&owner| owners.hold(owner));
        assert_eq!(owners.actor(99), NOBODY);
        owners.release(held[3]);
        assert_ne!(owners.actor(99), NOBODY);
        assert_eq!(owners.process(held[5]).map(|p| p.pid), Some(6));
    }

    #[test]
    fn remotes_are_bounded_and_add_up() {
        let mut remotes = Remotes::new(32, Keyed::new(0));
        for n in 0..1000_u32 {
            remotes.entered_time_wait(std::net::Ipv4Addr::from(0x0a00_0000 + n % 100).into());
        }
        let (top, rest) = remotes.top(5);
        assert_eq!(top.len(), 5);
        assert_eq!(top.iter().map(|t| t.1).sum::<u64>() + rest, 1000);
    }
}
