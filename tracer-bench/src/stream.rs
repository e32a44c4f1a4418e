//! Records as the kernel side would send them: `churn`'s connections, one after
//! the other, each with a life of 61 s in TIME_WAIT.
//!
//! Byte for byte what the ring or the iterator would hold, so that decoding is
//! part of what is measured. No kernel is asked and no clock.

use tracer::model::event::{Moment, Tick};
use tracer_common::state::State;
use tracer_common::walk::SocketRecord;
use tracer_common::wire::{
    Arming, BATCH_BYTES, Birth, Child, End, FullStep, Head, Process, Reason, Stamp, Step, Tuple,
    kind,
};

pub const NETNS: u32 = 4_026_532_000;
const HZ: u32 = 250;
const TICK_NS: u64 = 1_000_000_000 / HZ as u64;
const LIFE_NS: u64 = 61_000_000_000;
const TIMEOUT: u32 = 60 * HZ;

/// Long enough ago that stamps lie in the past of [`Stream::now`].
const START_NS: u64 = 1_000_000_000_000;

const CLIENT: u32 = 800;
const SERVER: u32 = 900;

/// Records in the order of the ring.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Records {
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |&end| {
            let record = &self.bytes[begin..end as usize];
            begin = end as usize;
            record
        })
    }

    /// The same as one CPU sends them.
    pub fn batches(&self) -> impl Iterator<Item = &[u8]> {
        let mut ends = self.ends.iter().map(|&end| end as usize).peekable();
        let mut begin = 0;
        std::iter::from_fn(move || {
            let mut end = begin;
            while let Some(next) = ends.next_if(|next| next - begin <= BATCH_BYTES) {
                end = next;
            }
            let batch = &self.bytes[begin..end];
            begin = end;
            (!batch.is_empty()).then_some(batch)
        })
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push<T: Copy>(&mut self, record: T) {
        self.bytes.extend_from_slice(bytes_of(&record));
        self.ends.push(self.bytes.len() as u32);
    }
}

/// A load that has always `live` connections in TIME_WAIT once it made as many.
#[derive(Debug)]
pub struct Stream {
    live: u64,
    made: u64,
    now_ns: u64,
    step_ns: u64,
}

impl Stream {
    pub fn new(live: u64) -> Stream {
        // Eleven steps of time a connection; its minisocket ends `live` later.
        Stream {
            live,
            made: 0,
            now_ns: START_NS,
            step_ns: LIFE_NS / live / 11,
        }
    }

    pub fn tick() -> Tick {
        Tick {
            hz: HZ,
            moment: Moment(START_NS),
            jiffies: 1_000_000,
        }
    }

    /// After the last record.
    pub fn now(&self) -> Moment {
        Moment(self.now_ns)
    }

    /// Who the two processes are.
    pub fn processes(&mut self, out: &mut Records) {
        for (pid, comm) in [(CLIENT, b"client\0\0"), (SERVER, b"server\0\0")] {
            let mut head = self.head(0, State::Close, State::Close, pid, kind::PROCESS);
            head.cookie = 4242;
            head.detail = 0;
            out.push(Process {
                head,
                comm: [u64::from_ne_bytes(*comm), 0],
            });
        }
    }

    /// The ten transitions of one connection, and the end of an older one.
    pub fn connection(&mut self, out: &mut Records) {
        use State::{
            Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
            TimeWait,
        };
        let n = self.made;
        self.made += 1;
        let (client, server) = (2 * n + 1, 2 * n + 2);
        let tuple = tuple(n);
        let back = Tuple {
            local: tuple.remote,
            remote: tuple.local,
            local_port: tuple.remote_port,
            remote_port: tuple.local_port,
            ..tuple
        };
        let nowhere_yet = Tuple {
            local_port: 0,
            ..tuple
        };

        let head = self.head(client, Close, SynSent, CLIENT, kind::FULL_STEP);
        out.push(FullStep {
            step: step(client, head),
            tuple: nowhere_yet,
        });
        let head = self.head(0, Listen, SynRecv, NETNS, kind::CHILD);
        out.push(Child {
            head,
            address: address(server),
        });
        let head = self.head(server, SynRecv, Established, CLIENT, kind::FULL_STEP);
        out.push(FullStep {
            step: step(server, head),
            tuple: back,
        });
        let head = self.head(client, SynSent, Established, CLIENT, kind::FULL_STEP);
        out.push(FullStep {
            step: step(client, head),
            tuple,
        });
        for (socket, from, to, pid) in [
            (client, Established, FinWait1, CLIENT),
            (server, Established, CloseWait, CLIENT),
            (client, FinWait1, FinWait2, CLIENT),
            (server, CloseWait, LastAck, SERVER),
        ] {
            let head = self.head(socket, from, to, pid, kind::STEP);
            out.push(step(socket, head));
        }
        let head = self.head(client, TimeWait, TimeWait, NETNS, kind::BIRTH);
        out.push(Birth {
            head,
            timer: self.timer(n),
            arming: Arming {
                expires: self.jiffies() + TIMEOUT,
                timeout: TIMEOUT,
            },
        });
        let head = self.head(server, LastAck, Close, SERVER, kind::STEP);
        out.push(step(server, head));
        if let Some(old) = n.checked_sub(self.live) {
            self.end(old, out);
        } else {
            self.now_ns += self.step_ns;
        }
    }

    /// The timer of the `n`th connection runs out.
    fn end(&mut self, n: u64, out: &mut Records) {
        let mut head = self.head(2 * n + 1, State::TimeWait, State::TimeWait, 0, kind::END);
        head.detail = Reason::Expired as u8;
        out.push(End {
            head,
            timer: self.timer(n),
            expires: self.jiffies() - HZ,
            netns: NETNS,
        });
    }

    /// The `n`th of so many sockets, as the walk finds it: established, or every
    /// `time_wait`th a TIME_WAIT.
    pub fn found(&self, n: u64, time_wait: u64) -> SocketRecord {
        SocketRecord {
            address: address(n),
            cookie: n + 1,
            time_ns: self.now_ns,
            tuple: tuple(n),
            expires: self.jiffies() + (n % u64::from(TIMEOUT)) as u32,
            state: if n.is_multiple_of(time_wait) {
                State::TimeWait
            } else {
                State::Established
            } as u8,
            substate: State::TimeWait as u8,
            family: 2,
            ..SocketRecord::default()
        }
    }

    fn head(&mut self, cookie: u64, from: State, to: State, pid: u32, kind: u8) -> Head {
        self.now_ns += self.step_ns;
        Head {
            cookie,
            stamp: Stamp::new(self.now_ns, from as u8, to as u8),
            pid,
            kind,
            detail: 2,
            error: 0,
        }
    }

    /// Used again by the connection that comes `live` and one later.
    fn timer(&self, n: u64) -> u64 {
        TIMERS + n % (self.live + 1) * 256
    }

    fn jiffies(&self) -> u32 {
        let Tick { jiffies, .. } = Stream::tick();
        jiffies + ((self.now_ns - START_NS) / TICK_NS) as u32
    }
}

fn step(cookie: u64, head: Head) -> Step {
    Step {
        head,
        address: address(cookie),
    }
}

/// The slab hands out the same few addresses again and again.
fn address(n: u64) -> u64 {
    0xffff_8880_0000_0000 + n % 128 * 2304
}

const TIMERS: u64 = 0xffff_9990_0000_00a0;

/// 256 destinations, and ports that are used again when all were.
fn tuple(n: u64) -> Tuple {
    let address = |last: u8| [u64::from_ne_bytes([127, 0, 0, last, 0, 0, 0, 0]), 0];
    Tuple {
        local: address(1),
        remote: address(1 + (n / 16 % 16) as u8),
        netns: NETNS,
        local_port: 1024 + (n / 256 % 64_000) as u16,
        remote_port: 40_000 + (n % 16) as u16,
    }
}

fn bytes_of<T: Copy>(record: &T) -> &[u8] {
    // SAFETY: wire records are `repr(C)` integers without padding, which a test
    // of the decoder checks.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
}
