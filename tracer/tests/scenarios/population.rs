//! Many sockets at once: the share that lives its 2MSL, known after 5 s.

use tracer::model::event::{Address, Event, Family, Identity, Netns, Reason, Seed, State, Tuple};
use tracer::model::filter::Filter;
use tracer::model::happening::Happening;

use super::script::{jiffies, moment, new_ledger, snapshot};

/// Started on 20,000 TIME_WAITs of which a known share will end early, five
/// seconds tell that share within 3 points.
#[test]
fn five_seconds_tell_the_share_that_reaches_2msl() {
    const EARLY: f64 = 0.2;
    let mut random = 7_u64;
    let mut unit = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let nobody = &mut |_: &Happening| {};
    let mut ledger = new_ledger(Filter::default());
    ledger.begin_seed(moment(100.0), &mut |_: &Happening| {});
    // Some end before the seed comes to them: nobody was watching those, and of
    // the likes of them that live on nothing is known either.
    for n in 0..2000 {
        let end = Event::End {
            minisocket: without_cookie(0xeeee_0000_0000 + n * 256),
            at: moment(100.0),
            substate: State::TimeWait,
            reason: Reason::Reset,
            expires: jiffies(130.0),
            netns: Netns(1),
            pid: 0,
        };
        ledger.apply(&end, nobody);
    }
    let mut ends = Vec::new();
    let mut seeded = 0_u32;
    for n in 0.. {
        if seeded == 20_000 {
            break;
        }
        let born = 100.0 - 64.0 * unit();
        let life = if unit() < EARLY {
            60.0 * unit()
        } else {
            60.0 + 2.048 * unit()
        };
        if born + life <= 100.0 {
            continue;
        }
        seeded += 1;
        let minisocket = without_cookie(0xffff_0000_0000 + n * 256);
        let mut tuple = Tuple {
            netns: Netns(1),
            family: Family::Inet,
            local: [0; 16],
            remote: [0; 16],
            local_port: 1024 + (n % 60_000) as u16,
            remote_port: 443,
        };
        tuple.remote[..4].copy_from_slice(&(n as u32 / 60_000).to_be_bytes());
        let expires = jiffies(born + 60.0);
        let seed = Seed {
            socket: minisocket,
            at: moment(100.0),
            state: State::TimeWait,
            timer_expires: Some(expires),
            tuple,
        };
        ledger.apply(&Event::Seed(seed), nobody);
        if born + life <= 105.0 {
            ends.push((
                born + life,
                minisocket,
                expires,
                if life < 60.0 {
                    Reason::Reset
                } else {
                    Reason::Expired
                },
            ));
        }
    }
    ledger.end_seed(moment(100.0));
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at, minisocket, expires, reason) in ends {
        let at = moment(at);
        let netns = Netns(1);
        let end = Event::End {
            minisocket,
            at,
            substate: State::TimeWait,
            reason,
            expires,
            netns,
            pid: 0,
        };
        ledger.apply(&end, nobody);
    }
    let time_wait = snapshot(&mut ledger, 1, moment(105.0)).time_wait;
    let share = time_wait
        .life_table
        .reaches_2msl
        .expect("every age was seen");
    assert!((share.share - (1.0 - EARLY)).abs() < 0.03, "{share:?}");
    assert!(
        share.low < 1.0 - EARLY && 1.0 - EARLY < share.high,
        "{share:?}"
    );
    assert_eq!(
        time_wait.lifetime_s.distribution.count, 0,
        "no whole life was seen"
    );
}

/// Nobody had asked for theirs before the start.
fn without_cookie(timer: u64) -> Identity {
    Identity {
        cookie: 0,
        address: Address(timer),
    }
}
