//! What is added up: states, transitions, closes, ends and durations, for the
//! whole run. It decides nothing; every rule is its callers'.

use std::time::Duration;

use super::super::clock::Clock;
use super::super::event::{Reason, State};
use super::super::happening::{CloseReason, Side};
use super::super::histogram::{Durations, Lives};
use super::super::life_table::Ages;
use super::super::snapshot::{Closes, ConnectFailures, FinWait2Ends, Sides, States, TimeWaitEnds};

/// Place of a state among the counted ten, by the kernel's number; 10: not counted.
const PLACE: [u8; 16] = {
    let mut places = [10; 16];
    let mut i = 0;
    while i < State::COUNTED.len() {
        places[State::COUNTED[i] as usize] = i as u8;
        i += 1;
    }
    places[State::NewSynRecv as usize] = places[State::SynRecv as usize];
    places
};

/// Counts by state, without the gauge: `now` follows from the other three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) [Count; 10]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) seeded: u64,
    pub(super) entered: u64,
    pub(super) left: u64,
}

impl Count {
    pub(super) fn now(&self) -> u64 {
        self.seeded + self.entered - self.left
    }
}

impl Counts {
    #[inline(always)]
    pub(super) fn of(&mut self, state: State) -> Option<&mut Count> {
        self.0.get_mut(usize::from(PLACE[state as usize & 15]))
    }

    pub(super) fn rendered(&self) -> States {
        let mut states = States::default();
        for (shown, count) in states.0.iter_mut().zip(&self.0) {
            shown.now = count.now();
            shown.seeded = count.seeded;
            shown.entered = count.entered;
            shown.left = count.left;
        }
        states
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|count| count.now() == 0)
    }
}

/// Orphans in FIN_WAIT2 that went on as minisockets.
#[derive(Clone, Debug, Default)]
pub(super) struct Orphans {
    pub(super) seeded: u64,
    pub(super) entered: u64,
    pub(super) became_time_wait: u64,
    pub(super) ended: FinWait2Ends,
    pub(super) lives: Durations,
}

#[derive(Debug)]
pub(super) struct Tally {
    pub(super) states: Counts,
    /// By the kernel's numbers, from and to.
    pub(super) transitions: [[u64; 16]; 16],
    pub(super) closes: Closes,
    pub(super) connect_failures: ConnectFailures,
    pub(super) connect_latency: Durations,
    pub(super) in_state: [Durations; 16],
    /// Of the TIME_WAITs there are now.
    pub(super) sides: Sides,
    pub(super) rearmed: u64,
    pub(super) ended: TimeWaitEnds,
    pub(super) ended_seeded: u64,
    pub(super) lives: Lives,
    pub(super) lives_by_reason: [Durations; Reason::ALL.len()],
    pub(super) ages: Ages,
    pub(super) orphans: Orphans,
}

impl Tally {
    pub(super) fn new(clock: &Clock) -> Tally {
        Tally {
            states: Counts::default(),
            transitions: [[0; 16]; 16],
            closes: Closes::default(),
            connect_failures: ConnectFailures::default(),
            connect_latency: Durations::default(),
            in_state: Default::default(),
            sides: Sides::default(),
            rearmed: 0,
            ended: TimeWaitEnds::default(),
            ended_seeded: 0,
            lives: Lives::new(clock.nominal_ns(), clock.slack_ns()),
            lives_by_reason: Default::default(),
            ages: Ages::default(),
            orphans: Orphans::default(),
        }
    }

    #[inline(always)]
    pub(super) fn transition(&mut self, from: State, to: State) {
        self.transitions[from as usize & 15][to as usize & 15] += 1;
    }

    /// A transition that turned out to have gone elsewhere.
    pub(super) fn redirect(&mut self, from: State, to: State, really: State) {
        let row = &mut self.transitions[from as usize & 15];
        row[to as usize & 15] = row[to as usize & 15].saturating_sub(1);
        row[really as usize & 15] += 1;
    }

    #[inline(always)]
    pub(super) fn spent(&mut self, state: State, time: Duration) {
        self.in_state[state as usize & 15].record(time);
    }

    pub(super) fn side(&mut self, side: Side) -> &mut u64 {
        match side {
            Side::Client => &mut self.sides.client,
            Side::Server => &mut self.sides.server,
            Side::Unknown => &mut self.sides.unknown,
        }
    }

    /// The counter of `closes` or `connect_failures` that this reason belongs to.
    pub(super) fn close(&mut self, from: State, reason: CloseReason) -> Option<&mut u64> {
        let straight = &mut self.closes.straight_to_closed;
        if from == State::SynSent {
            return Some(self.connect_failures.by(reason));
        }
        Some(match (from, reason) {
            (_, CloseReason::StoppedListening) => return None,
            (_, CloseReason::Passive) => &mut self.closes.passive,
            (_, CloseReason::Overflow) => &mut straight.overflow,
            (_, CloseReason::Reset) => &mut straight.reset,
            (_, CloseReason::Aborted) => &mut straight.aborted,
            _ => &mut straight.other,
        })
    }

    pub(super) fn time_wait_ended(&mut self, reason: Reason) {
        let ended = &mut self.ended;
        *match reason {
            Reason::Unknown => &mut ended.unknown,
            Reason::Expired => &mut ended.expired,
            Reason::ReusedByConnect => &mut ended.reused_by_connect,
            Reason::ReusedByBoundConnect => &mut ended.reused_by_bound_connect,
            Reason::Received => &mut ended.reused_by_syn,
            Reason::Reset => &mut ended.reset,
            Reason::Destroyed => &mut ended.destroyed,
            Reason::NetnsExit => &mut ended.netns_exit,
            Reason::Tproxy => &mut ended.tproxy,
        } += 1;
    }

    pub(super) fn orphan_ended(&mut self, reason: Reason) {
        let ended = &mut self.orphans.ended;
        *match reason {
            Reason::Unknown => &mut ended.unknown,
            Reason::Expired => &mut ended.expired,
            Reason::ReusedByConnect => &mut ended.reused_by_connect,
            Reason::ReusedByBoundConnect => &mut ended.reused_by_bound_connect,
            Reason::Received => &mut ended.data_after_close,
            Reason::Reset => &mut ended.reset,
            Reason::Destroyed => &mut ended.destroyed,
            Reason::NetnsExit => &mut ended.netns_exit,
            Reason::Tproxy => &mut ended.tproxy,
        } += 1;
    }
}

/// How an end is called where its state is known.
pub(super) const fn end_name(state: State, reason: Reason) -> &'static str {
    match reason {
        Reason::Unknown => "unknown",
        Reason::Expired => "expired",
        Reason::ReusedByConnect => "reused_by_connect",
        Reason::ReusedByBoundConnect => "reused_by_bound_connect",
        Reason::Received if matches!(state, State::FinWait2) => "data_after_close",
        Reason::Received => "reused_by_syn",
        Reason::Reset => "reset",
        Reason::Destroyed => "destroyed",
        Reason::NetnsExit => "netns_exit",
        Reason::Tproxy => "tproxy",
    }
}
