//! Records of the walk, decoded.

use tracer_common::layout::Layout;
use tracer_common::state::State as Kernel;
use tracer_common::walk::{SocketRecord, bound, flag, full, listener, request};

use crate::model::event::{Address, Family, Moment, Netns, State, Tuple};
use crate::model::found::{BoundPort, Flags, Found, Full, Listener, Timer};

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
            full: (timer_offset.is_none() && state != State::Listen).then(|| Full {
                orphan: has(flag::ORPHAN),
                received: record.details[full::RECEIVED],
            }),
            requested_of: (state == State::NewSynRecv).then_some(Address(high << 32 | low)),
        })
    }
}

/// A record of the table of bound ports.
#[must_use]
pub(super) fn bound_port(record: &SocketRecord) -> BoundPort {
    BoundPort {
        netns: Netns(record.tuple.netns),
        port: record.tuple.local_port,
        shared: record.details[bound::SHARED] != 0,
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
