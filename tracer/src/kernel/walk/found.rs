//! A socket as the walk met it, decoded.

use tracer_common::layout::Layout;
use tracer_common::state::State as Kernel;
use tracer_common::walk::{SocketRecord, flag, listener, request};

use crate::model::event::{Address, Family, Identity, Moment, Netns, Seed, State, Tuple};

/// What the walk met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the socket, minisocket or request itself.
    pub address: Address,
    /// Which no other socket has while the machine runs; a minisocket has its full
    /// socket's, and a child its request's. 0 until somebody has asked for it.
    pub cookie: u64,
    /// When it was read.
    pub at: Moment,
    /// A minisocket's is `TimeWait` or `FinWait2`.
    pub state: State,
    /// Minisockets and requests.
    pub timer: Option<Timer>,
    pub tuple: Tuple,
    pub netns_cookie: u64,
    pub flags: Flags,
    /// Listeners.
    pub listener: Option<Listener>,
    /// Requests: the address of their listener.
    pub requested_of: Option<Address>,
}

impl Found {
    /// As the ledger takes it in; `None` for a half-open request, of which only the
    /// listener's count matters.
    #[must_use]
    pub fn seed(&self) -> Option<Seed> {
        if self.state == State::NewSynRecv {
            return None;
        }
        Some(Seed {
            socket: Identity {
                cookie: self.cookie,
                address: self.timer.map_or(self.address, |timer| timer.address),
            },
            at: self.at,
            state: self.state,
            timer_expires: self.timer.map(|timer| timer.expires),
            tuple: self.tuple,
        })
    }

    /// Whether it is a minisocket.
    #[must_use]
    pub fn is_minisocket(&self) -> bool {
        self.timer.is_some() && self.state != State::NewSynRecv
    }
}

/// The timer of a minisocket or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Of its `timer_list`.
    pub address: Address,
    /// In jiffies, low 32 bits.
    pub expires: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The program chose the port with `bind()`. Full sockets only: a minisocket
    /// does not say.
    pub bound_port: bool,
    pub bound_address: bool,
    pub reuseaddr: bool,
    pub reuseport: bool,
    /// Minisockets: the peer sent timestamps, without which no `connect()` takes
    /// its place.
    pub timestamps: bool,
}

/// A listener's queues, as `ss -l` has them, and its half-open requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    pub half_open: u32,
    /// Connections that wait for `accept()`.
    pub accept_queue: u32,
    pub accept_limit: u32,
    pub drops: u32,
}

/// What it takes to decode a record.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    tw_timer: u32,
    rsk_timer: u32,
}

impl Decoder {
    #[must_use]
    pub fn new(layout: &Layout) -> Decoder {
        Decoder {
            tw_timer: layout.tw_timer,
            rsk_timer: layout.rsk_timer,
        }
    }

    /// `None` for what no kernel we know would give.
    #[must_use]
    pub fn decode(self, record: &SocketRecord) -> Option<Found> {
        let family = match record.family {
            2 => Family::Inet,
            10 => Family::Inet6,
            _ => return None,
        };
        let state = Kernel::from_kernel(record.state)?;
        let (state, timer_offset) = match state {
            State::Close => return None,
            State::TimeWait => match Kernel::from_kernel(record.substate)? {
                substate @ (State::TimeWait | State::FinWait2) => (substate, Some(self.tw_timer)),
                _ => return None,
            },
            State::NewSynRecv => (state, Some(self.rsk_timer)),
            full => (full, None),
        };
        let has = |bit| record.flags & bit != 0;
        let [low, high] = [request::LISTENER_LOW, request::LISTENER_HIGH]
            .map(|word| u64::from(record.details[word]));
        Some(Found {
            address: Address(record.address),
            cookie: record.cookie,
            at: Moment(record.time_ns),
            state,
            timer: timer_offset.map(|offset| Timer {
                address: Address(record.address.wrapping_add(u64::from(offset))),
                expires: record.expires,
            }),
            tuple: Tuple {
                netns: Netns(record.tuple.netns),
                family,
                local: bytes(record.tuple.local),
                remote: bytes(record.tuple.remote),
                local_port: record.tuple.local_port,
                remote_port: record.tuple.remote_port,
            },
            netns_cookie: record.netns_cookie,
            flags: Flags {
                bound_port: has(flag::BOUND_PORT),
                bound_address: has(flag::BOUND_ADDRESS),
                reuseaddr: has(flag::REUSEADDR),
                reuseport: has(flag::REUSEPORT),
                timestamps: has(flag::TIMESTAMPS),
            },
            listener: (state == State::Listen).then(|| Listener {
                half_open: record.details[listener::HALF_OPEN],
                accept_queue: record.details[listener::ACCEPT_QUEUE],
                accept_limit: record.details[listener::ACCEPT_LIMIT],
                drops: record.details[listener::DROPS],
            }),
            requested_of: (state == State::NewSynRecv).then_some(Address(high << 32 | low)),
        })
    }
}

/// An address as it lies in memory.
fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::wire;

    use super::*;

    const DECODER: Decoder = Decoder {
        tw_timer: 160,
        rsk_timer: 152,
    };

    fn record(state: State, substate: u8) -> SocketRecord {
        SocketRecord {
            address: 0x1000,
            cookie: 7,
            netns_cookie: 9,
            time_ns: 5,
            tuple: wire::Tuple {
                local: [u64::from_ne_bytes([10, 0, 0, 2, 0, 0, 0, 0]), 0],
                remote: [u64::from_ne_bytes([10, 0, 0, 9, 0, 0, 0, 0]), 0],
                netns: 4_026_531_840,
                local_port: 443,
                remote_port: 45_556,
            },
            expires: 77,
            state: state as u8,
            substate,
            family: 2,
            flags: flag::REUSEADDR | flag::TIMESTAMPS,
            details: [1, 2, 3, 4],
        }
    }

    #[test]
    fn a_record_has_no_padding() {
        let tuple = 16 + 16 + 4 + 2 + 2;
        assert_eq!(size_of::<SocketRecord>(), 4 * 8 + tuple + 4 + 4 + 4 * 4);
    }

    #[test]
    fn a_minisocket_is_in_its_substate_and_has_a_timer() {
        let found = DECODER.decode(&record(State::TimeWait, State::FinWait2 as u8));
        let found = found.expect("a minisocket");
        assert!(found.is_minisocket() && found.flags.timestamps && found.flags.reuseaddr);
        assert_eq!(found.state, State::FinWait2);
        let timer = found.timer.expect("a timer");
        assert_eq!((timer.address, timer.expires), (Address(0x1000 + 160), 77));
        assert_eq!(found.tuple.local_addr().to_string(), "10.0.0.2");
        assert_eq!(DECODER.decode(&record(State::TimeWait, 1)), None);
    }

    #[test]
    fn listeners_and_requests_have_what_is_theirs() {
        let listener = DECODER
            .decode(&record(State::Listen, 0))
            .expect("a listener");
        let queues = listener.listener.expect("queues");
        assert_eq!((queues.half_open, queues.accept_queue), (1, 2));
        assert_eq!((queues.accept_limit, queues.drops), (3, 4));
        assert!(!listener.is_minisocket() && listener.requested_of.is_none());
        let request = DECODER
            .decode(&record(State::NewSynRecv, 0))
            .expect("a request");
        assert_eq!(request.requested_of, Some(Address(2 << 32 | 1)));
        assert!(!request.is_minisocket() && request.listener.is_none());
        assert_eq!(
            request.timer.expect("a timer").address,
            Address(0x1000 + 152)
        );
        assert_eq!(DECODER.decode(&record(State::Close, 0)), None);
    }

    proptest! {
        #[test]
        fn no_record_panics(state: u8, substate: u8, family: u8, flags: u8, address: u64) {
            let record = SocketRecord {
                address,
                state,
                substate,
                family,
                flags,
                ..record(State::Listen, 0)
            };
            let _ = DECODER.decode(&record);
        }
    }
}
