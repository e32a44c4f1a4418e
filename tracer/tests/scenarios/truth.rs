//! What the ledger says of an invented host (`world.rs`), held against what
//! happened there: in everything while every event comes, and in what there is
//! once a resync has followed a loss.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tracer::model::event::{Event, Lost, Netns, State};
use tracer::model::filter::Filter;
use tracer::model::happening::{Happening, What};
use tracer::model::ledger::Ledger;
use tracer::model::snapshot::{Distribution, Exactness, FinWait2Ends, Snapshot, TimeWaitEnds};

use super::properties::cases;
use super::script::{new_ledger, snapshot};
use super::world::{Choice, NAMESPACES, Truth, World};

fn choices(most: usize) -> impl Strategy<Value = Vec<Choice>> {
    // Mostly close together, now and then longer than a TIME_WAIT.
    let jiffies = prop_oneof![3 => Just(0_u16), 6 => 0_u16..300, 1 => 300_u16..20_000];
    let choice = (any::<u8>(), any::<u16>(), jiffies);
    let choice = choice.prop_map(|(act, which, jiffies)| Choice {
        act,
        which,
        jiffies,
    });
    proptest::collection::vec(choice, 0..most)
}

/// What was told of transitions, and of ends.
#[derive(Default)]
struct Told {
    transitions: BTreeMap<(&'static str, &'static str), u64>,
}

impl Told {
    fn hear(&mut self, happening: &Happening) {
        let step = match happening.what {
            What::Transition { from, to, .. } => (from, to),
            What::MinisocketEnd { state, .. } => (state, State::Close),
            What::MinisocketStart { .. } | What::MinisocketRearm { .. } => return,
        };
        let (from, to) = step;
        *self
            .transitions
            .entry((from.name(), to.name()))
            .or_default() += 1;
    }
}

struct Watch {
    world: World,
    ledger: Ledger,
    told: Told,
    snapshots: u64,
}

impl Watch {
    /// Of a host on which this has happened before.
    fn begin(mut world: World, before: &[Choice]) -> Watch {
        for &choice in before {
            world.play(choice);
        }
        world.watch();
        let mut watch = Watch {
            world,
            ledger: new_ledger(Filter::default()),
            told: Told::default(),
            snapshots: 0,
        };
        watch.ask();
        watch.take_stock();
        watch
    }

    fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.ledger.apply(&event, &mut |happening: &Happening| {
                self.told.hear(happening);
            });
        }
    }

    fn take_stock(&mut self) {
        let at = self.world.now();
        self.ledger
            .begin_seed(at, &mut |happening: &Happening| self.told.hear(happening));
        self.apply(self.world.walk());
        self.apply(self.world.facts());
        self.ledger.end_seed(at);
        self.ledger
            .settle(&mut |happening: &Happening| self.told.hear(happening));
    }

    fn ask(&mut self) {
        self.ledger.asks(self.world.now());
        self.apply(self.world.counters());
    }

    /// As a session has it before a snapshot.
    fn snapshot(&mut self) -> Snapshot {
        let sweep = self.world.sweep();
        self.apply(sweep);
        self.ask();
        let at = self.world.now();
        self.ledger
            .settle(&mut |happening: &Happening| self.told.hear(happening));
        self.snapshots += 1;
        snapshot(&mut self.ledger, self.snapshots, at)
    }
}

fn summed(distribution: &Distribution) -> (u64, u64) {
    let sum = distribution
        .summary
        .as_ref()
        .map_or(0.0, |summary| summary.sum);
    (distribution.count, (sum * 1e3).round() as u64)
}

/// What a snapshot says, in the words of the truth.
fn said(snapshot: &Snapshot) -> Truth {
    let mut said = Truth::default();
    for namespace in &snapshot.namespaces {
        for (state, count) in namespace.states.iter() {
            let counts = [count.seeded, count.entered, count.left, count.now];
            if counts != [0; 4] {
                let netns = Netns(namespace.netns);
                said.states.insert((netns, state.name()), counts);
            }
        }
    }
    for transition in &snapshot.transitions {
        let step = (transition.from, transition.to);
        said.transitions.insert(step, transition.count);
    }
    let closes = &snapshot.closes;
    said.passive = closes.passive;
    said.reset = closes.straight_to_closed.reset;
    said.aborted = closes.straight_to_closed.aborted;
    said.refused = snapshot.connect_failures.refused;
    said.timed_out = snapshot.connect_failures.timed_out;
    said.latency = summed(&snapshot.connect_latency_s);
    said.in_state = snapshot
        .in_state_s
        .iter()
        .map(|(state, distribution)| (*state, summed(distribution)))
        .collect();
    let time_wait = &snapshot.time_wait;
    said.lives = summed(&time_wait.lifetime_s.distribution);
    let ended = time_wait.ended.since(&TimeWaitEnds::default());
    let ended = ended.named().filter(|(_, n)| *n > 0);
    said.ended = ended.map(|(reason, n)| (reason, n as u64)).collect();
    said.ended_seeded = time_wait.ended_seeded;
    said.rearmed = time_wait.rearmed;
    let orphans = &snapshot.fin_wait2_orphan;
    said.orphans_seeded = orphans.seeded;
    said.orphans_entered = orphans.entered;
    said.orphans_stepped = orphans.became_time_wait;
    let ended = orphans.ended.since(&FinWait2Ends::default());
    said.orphans_ended = ended.named().map(|(_, n)| n as u64).sum();
    said.orphan_lives = summed(&orphans.lifetime_s);
    for owner in &snapshot.owners {
        said.owners.insert(owner.pid, owner.time_wait_entered);
    }
    for remote in &snapshot.remotes {
        if let std::net::IpAddr::V4(addr) = remote.addr {
            said.remotes
                .insert(addr.octets()[3], remote.time_wait_entered);
        }
    }
    said.sides = [time_wait.side.client, time_wait.side.server];
    for to in &snapshot.ports {
        let std::net::IpAddr::V4(addr) = to.remote else {
            panic!("{to:?}")
        };
        let netns = Netns(to.netns);
        said.ports
            .insert((netns, addr.octets()[3]), [to.used, to.time_wait]);
    }
    said
}

/// Sockets there are, by namespace and state.
fn there(truth: &Truth) -> BTreeMap<(u32, &'static str), u64> {
    let now = truth
        .states
        .iter()
        .map(|((netns, state), counts)| ((netns.0, *state), counts[3]));
    now.filter(|(_, now)| *now > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn while_every_event_comes_all_that_is_said_is_true(
        before in choices(60), during in choices(200), every in 1_usize..60, reuse in any::<bool>(),
    ) {
        let mut watch = Watch::begin(World::new(reuse), &before);
        for (number, &choice) in during.iter().enumerate() {
            watch.world.play(choice);
            let told = watch.world.told();
            watch.apply(told);
            if number % every == 0 {
                let snapshot = watch.snapshot();
                prop_assert_eq!(said(&snapshot), watch.world.truth());
                prop_assert_eq!(snapshot.exactness, Exactness::Exact);
            }
        }
        let snapshot = watch.snapshot();
        let truth = watch.world.truth();
        prop_assert_eq!(&said(&snapshot), &truth);
        prop_assert_eq!(&watch.told.transitions, &truth.transitions);
        prop_assert_eq!(watch.ledger.doubts(watch.world.now()), None);
        prop_assert_eq!(snapshot.lost.unseen, 0);
        for netns in NAMESPACES {
            let sockets: u64 = there(&truth).iter().filter(|((n, _), _)| *n == netns.0).map(|(_, n)| n).sum();
            prop_assert_eq!(watch.ledger.sockets_in(netns), sockets);
        }
        // A resync finds nothing to put right.
        watch.world.pass(400);
        let told = watch.world.told();
        watch.apply(told);
        let truth = watch.world.truth();
        watch.take_stock();
        let snapshot = watch.snapshot();
        prop_assert_eq!(&said(&snapshot), &truth);
        prop_assert_eq!((snapshot.resyncs, snapshot.lost.unseen), (1, 0));
    }

    #[test]
    fn after_a_loss_a_resync_counts_what_there_is(
        before in choices(60), during in choices(150), after in choices(60), dropped in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut watch = Watch::begin(World::new(false), &before);
        let mut lost = 0;
        for (number, &choice) in during.iter().enumerate() {
            watch.world.play(choice);
            for event in watch.world.told() {
                if dropped[(number * 7) % dropped.len()] && number % 3 == 0 {
                    lost += 1;
                } else {
                    watch.apply([event]);
                }
            }
        }
        watch.apply([Event::Lost(Lost { ring: lost, recursion: 0 })]);
        if lost > 0 {
            prop_assert!(watch.ledger.doubts(watch.world.now()).is_some());
            prop_assert_eq!(watch.snapshot().exactness, Exactness::Approximate);
        }
        watch.world.pass(400);
        let told = watch.world.told();
        watch.apply(told);
        watch.take_stock();
        let snapshot = watch.snapshot();
        prop_assert_eq!(there(&said(&snapshot)), there(&watch.world.truth()));
        prop_assert_eq!(snapshot.exactness, Exactness::Exact, "{:?}", watch.ledger.doubts(watch.world.now()));
        prop_assert_eq!((snapshot.lost.ring, snapshot.lost.unseen), (lost, 0));
        // And so it does from then on.
        for &choice in &after {
            watch.world.play(choice);
            let told = watch.world.told();
            watch.apply(told);
        }
        let snapshot = watch.snapshot();
        prop_assert_eq!(there(&said(&snapshot)), there(&watch.world.truth()));
        prop_assert_eq!(snapshot.lost.unseen, 0);
        prop_assert_eq!(snapshot.exactness, Exactness::Exact, "{:?}", watch.ledger.doubts(watch.world.now()));
    }
}
