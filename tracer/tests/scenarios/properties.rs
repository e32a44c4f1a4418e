//! What holds whatever happens.

use proptest::prelude::*;
use tracer::model::event::{
    Address, Arming, Counters, Event, Family, Identity, Lost, Moment, Netns, Reason, Seed, State,
    Step, Tuple,
};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;
use tracer::model::ledger::{Config, Ledger, Limits};

use super::identities::check;
use super::script::{config, moment, new_ledger, snapshot};

const STATES: [State; 12] = [
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
    State::NewSynRecv,
];

/// What a session may do to a ledger.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Apply(Event),
    BeginSeed(Moment),
    EndSeed(Moment),
    Snapshot(Moment),
}

fn any_state() -> impl Strategy<Value = State> {
    proptest::sample::select(&STATES[..])
}

/// Mostly what a minisocket may be in.
fn any_substate() -> impl Strategy<Value = State> {
    prop_oneof![6 => Just(State::TimeWait), 6 => Just(State::FinWait2), 1 => any_state()]
}

fn any_moment() -> impl Strategy<Value = Moment> {
    prop_oneof![9 => (0_u64..200_000).prop_map(|ms| moment(ms as f64 / 1e3)), 1 => any::<u64>().prop_map(Moment)]
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    (0_u32..3, 0_u8..3, 0_u8..3, 0_u16..3, any::<bool>()).prop_map(
        |(netns, local, remote, port, v6)| {
            let mut tuple = Tuple {
                netns: Netns(netns),
                family: if v6 { Family::Inet6 } else { Family::Inet },
                local: [0; 16],
                remote: [0; 16],
                local_port: if port == 0 { 0 } else { 40_000 + port },
                remote_port: 443,
            };
            tuple.local[0] = local;
            tuple.remote[0] = remote;
            tuple
        },
    )
}

/// Years of a million a second at the most: what is read of more is no count, and
/// a recording has room for that.
fn counted(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0..most, 1 => 0..1_u64 << 45]
}

fn any_event() -> impl Strategy<Value = Event> {
    // Some have no cookie, and addresses are used again.
    let identity = || {
        (0_u64..6, 1_u64..5).prop_map(|(cookie, n)| Identity {
            cookie,
            address: Address(n << 8),
        })
    };
    let arming = || {
        (
            prop_oneof![0_u32..60_000, any::<u32>()],
            prop_oneof![Just(15_000_u32), any::<u32>()],
        )
            .prop_map(|(expires, timeout)| Arming { expires, timeout })
    };
    let tuple = || proptest::option::of(any_tuple());
    prop_oneof![
        8 => (identity(), any_moment(), any_state(), any_state(), 0_u32..4, 0_u16..120, any::<bool>(), tuple()).prop_map(
            |(socket, at, from, to, pid, error, linger2_negative, tuple)| Event::Step(Step {
                socket, at, from, to, pid, error, linger2_negative, tuple,
                never_hashed: linger2_negative,
            })
        ),
        4 => (identity(), any_moment(), any_substate(), arming(), tuple())
            .prop_map(|(minisocket, at, substate, arming, tuple)| Event::Birth {
                minisocket, at, substate, netns: Netns(1), arming, tuple
            }),
        2 => (identity(), any_moment(), any_substate(), arming()).prop_map(|(minisocket, at, substate, arming)| Event::Rearm {
            minisocket, at, substate, arming, netns: Netns(1)
        }),
        4 => (identity(), any_moment(), any_substate(), 0_u8..9, any::<u32>()).prop_map(
            |(minisocket, at, substate, reason, expires)| Event::End {
                minisocket, at, substate, expires, netns: Netns(1), pid: 3,
                reason: Reason::from_wire(reason).expect("nine reasons"),
            }
        ),
        2 => (identity(), any_moment(), any_substate(), any::<u32>())
            .prop_map(|(minisocket, at, substate, expires)| Event::Reading { minisocket, at, substate, expires }),
        4 => (identity(), any_moment(), prop_oneof![any_state(), any_substate()], proptest::option::of(any::<u32>()), any_tuple()).prop_map(
            |(socket, at, state, timer_expires, tuple)| Event::Seed(Seed { socket, at, state, timer_expires, tuple })
        ),
        1 => (0_u32..3, 0_u64..50).prop_map(|(netns, now)| Event::HalfOpen { netns: Netns(netns), now }),
        1 => counted(9).prop_map(Event::SynAckTimeouts),
        1 => (counted(9), counted(9)).prop_map(|(ring, recursion)| Event::Lost(Lost { ring, recursion })),
        1 => (0_u32..4, any::<bool>())
            .prop_map(|(pid, kernel_thread)| Event::Process { pid, comm: [pid as u8; 16], cgroup: 1, kernel_thread }),
        1 => (0_u32..3, any_moment(), counted(100), counted(100), counted(9)).prop_map(|(netns, to, births, overflowed, tw)| {
            let counters = Counters {
                from: to, to, births: Some(births), reused_by_connect: 0, overflowed, listen_overflows: 0, minisockets: tw, full_sockets: tw,
            };
            Event::Counters { netns: Netns(netns), counters }
        }),
    ]
}

pub(crate) fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        30 => any_event().prop_map(Act::Apply),
        1 => any_moment().prop_map(Act::BeginSeed),
        1 => any_moment().prop_map(Act::EndSeed),
        1 => any_moment().prop_map(Act::Snapshot),
    ]
}

pub(crate) fn play(ledger: &mut Ledger, act: &Act) {
    play_telling(ledger, act, &mut |_| {});
}

fn play_telling(ledger: &mut Ledger, act: &Act, tell: &mut impl FnMut(&Happening)) {
    match act {
        Act::Apply(event) => ledger.apply(event, tell),
        Act::BeginSeed(at) => ledger.begin_seed(*at, tell),
        Act::EndSeed(at) => ledger.end_seed(*at),
        Act::Snapshot(at) => drop(snapshot(ledger, 0, *at)),
    }
}

/// The same, with another remote address, socket and process.
fn elsewhere(act: &Act, place: u8) -> Act {
    let mut act = act.clone();
    let further = |identity: &mut Identity| {
        if identity.cookie != 0 {
            identity.cookie += u64::from(place) << 16;
        }
        identity.address.0 += u64::from(place) << 16;
    };
    if let Act::Apply(event) = &mut act {
        match event {
            Event::Step(step) => {
                further(&mut step.socket);
                step.pid += u32::from(place);
                step.tuple
                    .iter_mut()
                    .for_each(|tuple| tuple.remote[1] = place);
            }
            Event::Birth {
                minisocket, tuple, ..
            } => {
                further(minisocket);
                tuple.iter_mut().for_each(|tuple| tuple.remote[1] = place);
            }
            Event::Seed(seed) => {
                further(&mut seed.socket);
                seed.tuple.remote[1] = place;
            }
            Event::End { minisocket, .. }
            | Event::Rearm { minisocket, .. }
            | Event::Reading { minisocket, .. } => further(minisocket),
            _ => {}
        }
    }
    act
}

/// One connection's whole story, in its own order.
pub(crate) fn connection(number: u64, start: f64, reason: Reason) -> Vec<Event> {
    let at_address = |address: u64| Identity {
        cookie: number,
        address: Address(address),
    };
    let (socket, minisocket) = (
        at_address(number << 16),
        at_address((number << 16) + (1 << 40)),
    );
    let at = |seconds: f64| moment(start + seconds);
    let mut tuple = Tuple {
        netns: Netns(1 + (number % 2) as u32),
        family: Family::Inet,
        local: [0; 16],
        remote: [0; 16],
        local_port: 40_000 + number as u16,
        remote_port: 443,
    };
    tuple.local[0] = 10;
    tuple.remote[0] = number as u8 % 3;
    let step = |seconds: f64, from, to, tuple| {
        let pid = 5 + number as u32 % 3;
        Event::Step(Step {
            socket,
            at: at(seconds),
            from,
            to,
            pid,
            error: 0,
            linger2_negative: false,
            never_hashed: false,
            tuple,
        })
    };
    let expires = ((start + 60.3) * 250.0) as u32 + 1000;
    vec![
        step(
            0.0,
            State::Close,
            State::SynSent,
            Some(Tuple {
                local_port: 0,
                ..tuple
            }),
        ),
        step(0.1, State::SynSent, State::Established, Some(tuple)),
        step(0.2, State::Established, State::FinWait1, None),
        step(0.25, State::FinWait1, State::FinWait2, None),
        Event::Birth {
            minisocket,
            at: at(0.3),
            substate: if number.is_multiple_of(2) {
                State::TimeWait
            } else {
                State::FinWait2
            },
            netns: tuple.netns,
            arming: Arming {
                expires,
                timeout: 15_000,
            },
            tuple: None,
        },
        Event::Reading {
            minisocket,
            at: at(0.5),
            substate: State::TimeWait,
            expires: expires + 10,
        },
        Event::End {
            minisocket,
            at: at(1.0),
            substate: State::TimeWait,
            reason,
            expires: expires + 10,
            netns: tuple.netns,
            pid: 0,
        },
    ]
}

/// `PROPTEST_CASES` soaks.
pub(crate) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(128)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn the_identities_hold_after_any_events(acts in proptest::collection::vec(any_act(), 0..120), every in 1_usize..20) {
        let mut ledger = new_ledger(Filter::default());
        for (number, act) in acts.iter().enumerate() {
            play(&mut ledger, act);
            if number % every == 0 {
                check(&snapshot(&mut ledger, 0, moment(100.0)));
            }
        }
        check(&snapshot(&mut ledger, 0, moment(500.0)));
    }

    #[test]
    fn no_count_of_losses_steps_back(acts in proptest::collection::vec(any_act(), 0..120)) {
        let mut ledger = new_ledger(Filter::default());
        let mut before = [0; 4];
        for act in &acts {
            play(&mut ledger, act);
            let lost = snapshot(&mut ledger, 0, moment(100.0)).lost;
            let now = [lost.ring, lost.map, lost.recursion, lost.unseen];
            prop_assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{:?} {:?}", before, now);
            before = now;
        }
    }

    #[test]
    fn the_identities_hold_behind_a_filter(acts in proptest::collection::vec(any_act(), 0..120)) {
        let mut ledger = new_ledger(Filter::new(None, vec![40_001], vec![], vec![], vec![]));
        for act in &acts {
            play(&mut ledger, act);
        }
        check(&snapshot(&mut ledger, 0, moment(500.0)));
    }

    #[test]
    fn unrelated_sockets_come_in_any_order(
        starts in proptest::collection::vec((0.0..5.0_f64, 0_u8..9), 1..8),
        order in any::<proptest::sample::Index>(),
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 80),
    ) {
        let stories: Vec<Vec<Event>> = starts
            .iter()
            .enumerate()
            .map(|(n, &(start, reason))| connection(n as u64 + 1, start, Reason::from_wire(reason).expect("nine")))
            .collect();
        let cut = order.index(7) + 1;
        let mut straight = new_ledger(Filter::default());
        for event in stories.iter().flat_map(|story| &story[..cut]) {
            straight.apply(event, &mut |_: &Happening| {});
        }
        let mut left: Vec<&[Event]> = stories.iter().map(|story| &story[..cut]).collect();
        let mut mixed = new_ledger(Filter::default());
        for pick in picks {
            left.retain(|story| !story.is_empty());
            if left.is_empty() {
                break;
            }
            let index = pick.index(left.len());
            let (first, rest) = left[index].split_first().expect("none is empty");
            mixed.apply(first, &mut |_: &Happening| {});
            left[index] = rest;
        }
        prop_assert!(left.iter().all(|story| story.is_empty()));
        let at = moment(10.0);
        prop_assert_eq!(snapshot(&mut straight, 1, at), snapshot(&mut mixed, 1, at));
    }

    #[test]
    fn a_birth_emitted_twice_is_one(number in 1_u64..20, later_us in 0_u64..900) {
        let story = connection(number, 1.0, Reason::Expired);
        let mut once = new_ledger(Filter::default());
        let mut twice = new_ledger(Filter::default());
        for event in &story {
            once.apply(event, &mut |_: &Happening| {});
            twice.apply(event, &mut |_: &Happening| {});
            if let Event::Birth { minisocket, at, substate, netns, arming, tuple } = *event {
                let at = Moment(at.0 + later_us * 1000);
                let again = Event::Birth { minisocket, at, substate, netns, arming, tuple };
                twice.apply(&again, &mut |_: &Happening| {});
            }
        }
        let at = moment(10.0);
        prop_assert_eq!(snapshot(&mut once, 1, at), snapshot(&mut twice, 1, at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases() / 4) })]

    #[test]
    fn nothing_told_hangs_on_the_secret(
        acts in proptest::collection::vec((any_act(), 0_u8..60), 0..400),
        secrets in any::<[u64; 2]>(),
    ) {
        let told = secrets.map(|secret| {
            let mut ledger = Ledger::new(Config {
                secret,
                // Small enough to be overfull.
                limits: Limits { processes: 16, remotes: 16, destinations: 4, rows: 5, ports: 3 },
                ..config(Filter::default())
            });
            let mut told = String::new();
            for (act, place) in &acts {
                let act = elsewhere(act, *place);
                play_telling(&mut ledger, &act, &mut |happening| told += &format!("{happening:?}\n"));
            }
            let snapshot = snapshot(&mut ledger, 0, moment(500.0));
            told + &serde_json::to_string(&snapshot).expect("a snapshot is JSON")
        });
        prop_assert_eq!(&told[0], &told[1]);
    }
}
