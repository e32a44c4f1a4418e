//! Records of the kernel side, read back into events.
//!
//! Nothing is trusted: a record of a wrong length, kind, state or reason is
//! `None`, never a panic and never an event. The caller counts it.

use tracer_common::{
    state::State,
    wire::{self, Reason, Stamp, kind},
};

use crate::model::event::{Address, Arming, Event, Family, Moment, Netns, Seed, Step, Tuple};

/// An event from one record of the ring buffer.
#[must_use]
pub fn record(bytes: &[u8]) -> Option<Event> {
    let mut fields = Fields(bytes);
    let address = Address(fields.u64()?);
    let stamp = Stamp(fields.u64()?);
    let pid = fields.u32()?;
    let kind = fields.u8()?;
    let detail = fields.u8()?;
    let error = fields.u16()?;
    let at = Moment(stamp.time_ns());
    let event = match kind {
        kind::STEP | kind::FULL_STEP => Event::Step(Step {
            socket: address,
            at,
            from: full_state(stamp.from()?)?,
            to: full_state(stamp.to()?)?,
            pid,
            error: error & !wire::LINGER2_NEGATIVE,
            linger2_negative: error & wire::LINGER2_NEGATIVE != 0,
            tuple: if kind == kind::FULL_STEP { Some(fields.tuple(detail)?) } else { None },
        }),
        kind::BIRTH => Event::Birth {
            socket: Some(address),
            timer: Address(fields.u64()?),
            at,
            from: Some(full_state(stamp.from()?)?),
            substate: substate(stamp.to()?)?,
            arming: fields.arming()?,
            tuple: None,
        },
        kind::LOOSE_BIRTH => Event::Birth {
            socket: None,
            timer: address,
            at,
            from: None,
            substate: substate(stamp.to()?)?,
            arming: fields.arming()?,
            tuple: Some(fields.tuple(detail)?),
        },
        kind::REARM => Event::Rearm {
            timer: address,
            at,
            substate: substate(stamp.to()?)?,
            arming: fields.arming()?,
            netns: None,
        },
        kind::END => Event::End {
            timer: address,
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
            cgroup: address.0,
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
    Some(Found::Socket(Seed { address: Address(address), at, state, timer_expires, tuple }))
}

/// A state a full socket can be in.
fn full_state(state: State) -> Option<State> {
    (!matches!(state, State::TimeWait | State::NewSynRecv)).then_some(state)
}

fn substate(state: State) -> Option<State> {
    matches!(state, State::TimeWait | State::FinWait2).then_some(state)
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

    fn arming(&mut self) -> Option<Arming> {
        Some(Arming { expires: self.u32()?, timeout: self.u32()? })
    }

    fn tuple(&mut self, family: u8) -> Option<Tuple> {
        let family = match family {
            2 => Family::Inet,
            10 => Family::Inet6,
            _ => return None,
        };
        Some(Tuple {
            family,
            local: self.bytes16()?,
            remote: self.bytes16()?,
            netns: Netns(self.u32()?),
            local_port: self.u16()?,
            remote_port: self.u16()?,
        })
    }
}
