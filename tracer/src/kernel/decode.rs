//! Records of the kernel side, read back into events.
//!
//! Nothing is trusted: a record of a wrong length, kind, state or reason is
//! `None`, never a panic and never an event. The caller counts it.

use std::iter;

use tracer_common::{
    state::State,
    wire::{self, Reason, Stamp, kind},
};

use crate::model::event::{
    Address, Arming, Event, Family, Identity, Moment, Netns, Seed, Step, Tuple,
};

/// Where the kind of a record stands.
const KIND_AT: usize = 20;

/// The records of one batch, as they were made on one CPU; where one cannot be told
/// from the next, the rest is `None`.
pub fn records(mut batch: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    iter::from_fn(move || {
        if batch.is_empty() {
            return None;
        }
        let length = batch.get(KIND_AT).and_then(|&kind| wire::length(kind));
        let record = length.and_then(|length| batch.split_at_checked(length));
        Some(match record {
            Some((record, rest)) => {
                batch = rest;
                Some(record)
            }
            None => {
                batch = &[];
                None
            }
        })
    })
}

/// When a record was made, in the 56 bits of its stamp.
#[must_use]
pub fn made_at(record: &[u8]) -> u64 {
    let stamp = record.get(8..16).and_then(|bytes| bytes.try_into().ok());
    stamp.map_or(0, |bytes| Stamp(u64::from_ne_bytes(bytes)).time_ns())
}

/// An event from one record, read at `now`.
#[must_use]
pub fn record(bytes: &[u8], now: Moment) -> Option<Event> {
    let mut fields = Fields(bytes);
    let cookie = fields.u64()?;
    let stamp = Stamp(fields.u64()?);
    let pid = fields.u32()?;
    let kind = fields.u8()?;
    let detail = fields.u8()?;
    let error = fields.u16()?;
    let at = widen(stamp.time_ns(), now);
    let event = match kind {
        kind::STEP | kind::FULL_STEP | kind::CHILD => Event::Step(Step {
            socket: fields.identity(cookie)?,
            at,
            from: full_state(stamp.from()?)?,
            to: full_state(stamp.to()?)?,
            pid: if kind == kind::CHILD { 0 } else { pid },
            error: error & !(wire::LINGER2_NEGATIVE | wire::NEVER_HASHED),
            linger2_negative: error & wire::LINGER2_NEGATIVE != 0,
            never_hashed: error & wire::NEVER_HASHED != 0,
            tuple: match kind {
                kind::FULL_STEP => Some(fields.tuple(detail)?),
                kind::CHILD => Some(Tuple::nameless(Netns(pid), family(detail)?)),
                _ => None,
            },
        }),
        kind::BIRTH | kind::FULL_BIRTH => Event::Birth {
            minisocket: fields.identity(cookie)?,
            at,
            substate: substate(stamp.to()?)?,
            netns: Netns(pid),
            arming: fields.arming()?,
            tuple: if kind == kind::FULL_BIRTH {
                Some(fields.tuple(detail)?)
            } else {
                None
            },
        },
        kind::REARM => Event::Rearm {
            minisocket: fields.identity(cookie)?,
            at,
            substate: substate(stamp.to()?)?,
            arming: fields.arming()?,
            netns: Netns(pid),
        },
        kind::END => Event::End {
            minisocket: fields.identity(cookie)?,
            at,
            substate: substate(stamp.to()?)?,
            reason: Reason::from_wire(detail)?,
            expires: fields.u32()?,
            netns: Netns(fields.u32()?),
            pid,
        },
        kind::PROCESS => Event::Process {
            pid,
            comm: fields.bytes16()?,
            cgroup: cookie,
            kernel_thread: detail != 0,
        },
        _ => return None,
    };
    fields.0.is_empty().then_some(event)
}

/// What a seed found in one record of the iterator.
#[derive(Debug, PartialEq)]
pub enum Found {
    Socket(Seed),
    /// A half-open request, of which only the number matters.
    Request,
    /// A socket in a state that is not counted.
    Uncounted,
}

/// Bytes of one record of the iterator.
pub const SEED_BYTES: usize = size_of::<wire::Seed>();

/// One record of the iterator; `timer_offset` is where a minisocket has its timer.
#[must_use]
pub fn seed(bytes: &[u8], timer_offset: u32) -> Option<Found> {
    let mut fields = Fields(bytes);
    let cookie = fields.u64()?;
    let address = fields.u64()?;
    let at = Moment(fields.u64()?);
    let _jiffies = fields.u32()?;
    let expires = fields.u32()?;
    let state = fields.u8()?;
    let substate_number = fields.u8()?;
    let family = fields.u8()?;
    let _unused = fields.u8()?;
    let _unused = fields.u32()?;
    let tuple = fields.tuple(family)?;
    if !fields.0.is_empty() {
        return None;
    }
    let (address, state, timer_expires) = match State::from_kernel(state) {
        Some(State::TimeWait) => (
            address.wrapping_add(u64::from(timer_offset)),
            substate(State::from_kernel(substate_number)?)?,
            Some(expires),
        ),
        Some(State::NewSynRecv) => return Some(Found::Request),
        // Kernels since 6.9 list bound sockets too, which have no state yet.
        Some(State::Close) | None => return Some(Found::Uncounted),
        Some(state) => (address, state, None),
    };
    Some(Found::Socket(Seed {
        socket: Identity {
            cookie,
            address: Address(address),
        },
        at,
        state,
        timer_expires,
        tuple,
    }))
}

/// A stamp holds 56 bits of the time, which is two years of uptime: the rest is
/// that of the moment nearest to now.
fn widen(stamp_ns: u64, now: Moment) -> Moment {
    const BITS: u32 = 56;
    let ahead = stamp_ns.wrapping_sub(now.0) << (u64::BITS - BITS);
    let ahead = (ahead as i64) >> (u64::BITS - BITS);
    Moment(now.0.wrapping_add_signed(ahead))
}

/// A state a full socket can be in.
fn full_state(state: State) -> Option<State> {
    (!matches!(state, State::TimeWait | State::NewSynRecv)).then_some(state)
}

fn substate(state: State) -> Option<State> {
    matches!(state, State::TimeWait | State::FinWait2).then_some(state)
}

fn family(number: u8) -> Option<Family> {
    match number {
        2 => Some(Family::Inet),
        10 => Some(Family::Inet6),
        _ => None,
    }
}

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn bytes16(&mut self) -> Option<[u8; 16]> {
        self.take()
    }

    fn identity(&mut self, cookie: u64) -> Option<Identity> {
        Some(Identity {
            cookie,
            address: Address(self.u64()?),
        })
    }

    fn arming(&mut self) -> Option<Arming> {
        Some(Arming {
            expires: self.u32()?,
            timeout: self.u32()?,
        })
    }

    fn tuple(&mut self, number: u8) -> Option<Tuple> {
        Some(Tuple {
            family: family(number)?,
            local: self.bytes16()?,
            remote: self.bytes16()?,
            netns: Netns(self.u32()?),
            local_port: self.u16()?,
            remote_port: self.u16()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::wire::{Birth, End, FullBirth, FullStep, Head, Process, Rearm};

    use super::*;

    /// The bytes the kernel side would write.
    fn bytes_of<T: Copy>(record: &T) -> &[u8] {
        // SAFETY: wire records are `repr(C)` integers without padding, which
        // `records_have_no_padding` checks.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
    }

    fn decoded(bytes: &[u8]) -> Option<Event> {
        record(bytes, Moment(8_000_000_000))
    }

    #[test]
    fn two_years_of_uptime_do_not_turn_time_back() {
        let year_ns = 31_536_000 * 1_000_000_000;
        for now in [5, year_ns, 3 * year_ns, 9 * year_ns] {
            let mask = (1 << 56) - 1;
            for then in [now - 5, now, now + 1_000_000] {
                assert_eq!(widen(then & mask, Moment(now)), Moment(then));
            }
        }
    }

    fn head(kind: u8, detail: u8, from: State, to: State) -> Head {
        Head {
            cookie: 4711,
            stamp: Stamp::new(7_000_000_001, from as u8, to as u8),
            pid: 812,
            kind,
            detail,
            error: 0,
        }
    }

    const ADDRESS: u64 = 0xffff_8880_0000_1000;

    const TUPLE: wire::Tuple = wire::Tuple {
        local: [u64::from_ne_bytes([10, 0, 0, 2, 0, 0, 0, 0]), 0],
        remote: [u64::from_ne_bytes([10, 0, 0, 9, 0, 0, 0, 0]), 0],
        netns: 4_026_531_840,
        local_port: 45556,
        remote_port: 443,
    };

    #[test]
    fn records_have_no_padding() {
        let head = size_of::<Head>();
        let tuple = 16 + 16 + 4 + 2 + 2;
        assert_eq!(head, 8 + 8 + 4 + 1 + 1 + 2);
        assert_eq!(size_of::<wire::Step>(), head + 8);
        assert_eq!(size_of::<FullStep>(), head + 8 + tuple);
        assert_eq!(size_of::<Birth>(), head + 8 + 8);
        assert_eq!(size_of::<FullBirth>(), head + 8 + 8 + tuple);
        assert_eq!(size_of::<Rearm>(), head + 8 + 8);
        assert_eq!(size_of::<End>(), head + 8 + 8);
        assert_eq!(size_of::<Process>(), head + 16);
        assert_eq!(SEED_BYTES, 8 + 8 + 8 + 4 + 4 + 4 + 4 + tuple);
    }

    #[test]
    fn a_step_with_addresses() {
        let head = head(kind::FULL_STEP, 2, State::SynSent, State::Established);
        let step = wire::Step {
            head,
            address: ADDRESS,
        };
        let Some(Event::Step(step)) = decoded(bytes_of(&FullStep { step, tuple: TUPLE })) else {
            panic!("no step")
        };
        let tuple = step.tuple.expect("a tuple");
        assert_eq!(step.at, Moment(7_000_000_001));
        assert_eq!((step.from, step.to), (State::SynSent, State::Established));
        assert_eq!(tuple.local_addr().to_string(), "10.0.0.2");
        assert_eq!(tuple.remote_addr().to_string(), "10.0.0.9");
        assert_eq!((tuple.local_port, tuple.remote_port), (45556, 443));
        assert_eq!(tuple.netns, Netns(4_026_531_840));
    }

    #[test]
    fn a_child_has_its_namespace_and_no_addresses() {
        let head = Head {
            pid: 4_026_531_840,
            ..head(kind::CHILD, 10, State::Listen, State::SynRecv)
        };
        let Some(Event::Step(step)) = decoded(bytes_of(&wire::Child {
            head,
            address: ADDRESS,
        })) else {
            panic!("no step")
        };
        let tuple = step.tuple.expect("a tuple");
        assert_eq!(
            (tuple.netns, tuple.family),
            (Netns(4_026_531_840), Family::Inet6)
        );
        assert_eq!((tuple.local_port, tuple.remote_port, step.pid), (0, 0, 0));
    }

    #[test]
    fn the_error_of_a_close_and_its_linger_are_told_apart() {
        let mut head = head(kind::STEP, 2, State::FinWait2, State::Close);
        head.error = 104 | wire::LINGER2_NEGATIVE | wire::NEVER_HASHED;
        let Some(Event::Step(step)) = decoded(bytes_of(&wire::Step {
            head,
            address: ADDRESS,
        })) else {
            panic!("no step")
        };
        assert_eq!((step.error, step.linger2_negative), (104, true));
        assert!(step.never_hashed);
    }

    #[test]
    fn a_birth_and_an_end() {
        let birth = Birth {
            head: head(kind::BIRTH, 2, State::FinWait2, State::TimeWait),
            timer: 42,
            arming: wire::Arming {
                expires: 100,
                timeout: 15_000,
            },
        };
        assert!(matches!(
            decoded(bytes_of(&birth)),
            Some(Event::Birth {
                minisocket: Identity {
                    cookie: 4711,
                    address: Address(42)
                },
                substate: State::TimeWait,
                netns: Netns(812),
                tuple: None,
                ..
            })
        ));
        let mut full = FullBirth {
            birth,
            tuple: TUPLE,
        };
        full.birth.head.kind = kind::FULL_BIRTH;
        full.birth.head.cookie = 0;
        assert!(matches!(
            decoded(bytes_of(&full)),
            Some(Event::Birth {
                minisocket: Identity {
                    cookie: 0,
                    address: Address(42)
                },
                tuple: Some(_),
                ..
            })
        ));
        let end = End {
            head: head(
                kind::END,
                Reason::Reset as u8,
                State::TimeWait,
                State::TimeWait,
            ),
            timer: 42,
            expires: 100,
            netns: 1,
        };
        assert!(matches!(
            decoded(bytes_of(&end)),
            Some(Event::End {
                reason: Reason::Reset,
                expires: 100,
                netns: Netns(1),
                ..
            })
        ));
    }

    #[test]
    fn nonsense_is_no_event() {
        let step = wire::Step {
            head: head(kind::STEP, 2, State::Established, State::FinWait1),
            address: ADDRESS,
        };
        let good = bytes_of(&step);
        assert!(decoded(good).is_some());
        assert_eq!(decoded(&good[..31]), None, "too short");
        assert_eq!(decoded(&[good, &[0]].concat()), None, "too long");
        let unknown = wire::Step {
            head: head(99, 2, State::Established, State::FinWait1),
            address: ADDRESS,
        };
        assert_eq!(decoded(bytes_of(&unknown)), None, "unknown kind");
        let full_in_time_wait = wire::Step {
            head: head(kind::STEP, 2, State::TimeWait, State::Close),
            address: ADDRESS,
        };
        assert_eq!(
            decoded(bytes_of(&full_in_time_wait)),
            None,
            "no full socket is in TIME_WAIT"
        );
    }

    #[test]
    fn seeds_of_every_kind() {
        let mut found = wire::Seed {
            cookie: 4711,
            address: 1000,
            time_ns: 5,
            jiffies: 0,
            expires: 77,
            state: State::TimeWait as u8,
            substate: State::FinWait2 as u8,
            family: 10,
            unused: 0,
            unused2: 0,
            tuple: TUPLE,
        };
        let Some(Found::Socket(orphan)) = seed(bytes_of(&found), 160) else {
            panic!("no socket")
        };
        assert_eq!(
            orphan.socket,
            Identity {
                cookie: 4711,
                address: Address(1160)
            },
            "a minisocket has the address of its timer"
        );
        assert_eq!(
            (orphan.state, orphan.timer_expires),
            (State::FinWait2, Some(77))
        );
        found.state = State::NewSynRecv as u8;
        assert_eq!(seed(bytes_of(&found), 160), Some(Found::Request));
        found.state = 13;
        assert_eq!(seed(bytes_of(&found), 160), Some(Found::Uncounted));
        found.family = 3;
        found.state = State::Listen as u8;
        assert_eq!(seed(bytes_of(&found), 160), None, "no such family");
    }

    #[test]
    fn a_batch_is_taken_apart_by_the_kinds_of_its_records() {
        let step = wire::Step {
            head: head(kind::STEP, 2, State::Established, State::FinWait1),
            address: ADDRESS,
        };
        let end = End {
            head: head(kind::END, 1, State::TimeWait, State::TimeWait),
            timer: 42,
            expires: 100,
            netns: 1,
        };
        let mut batch = [bytes_of(&step), bytes_of(&end), bytes_of(&step)].concat();
        let lengths = |batch: &[u8]| {
            let lengths = records(batch).map(|record| record.map(<[u8]>::len));
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(lengths(&batch), [Some(32), Some(40), Some(32)]);
        assert_eq!(made_at(&batch[32..72]), 7_000_000_001);
        batch.truncate(100);
        assert_eq!(lengths(&batch), [Some(32), Some(40), None]);
        batch[32 + KIND_AT] = 99;
        assert_eq!(lengths(&batch), [Some(32), None]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), offset: u32) {
            let _ = decoded(&bytes);
            let _ = seed(&bytes, offset);
            let whole = records(&bytes).flatten().map(<[u8]>::len).sum::<usize>();
            prop_assert!(whole <= bytes.len());
        }

        /// Bytes that begin like a record of each kind reach further.
        #[test]
        fn no_likely_bytes_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 24..100),
            kind in 0u8..10,
        ) {
            bytes[20] = kind;
            let _ = decoded(&bytes);
        }
    }
}
