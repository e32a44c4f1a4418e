//! Half-open requests that wait for their ACK: the SYN-ACK goes out again and
//! again, until the ACK comes or the kernel gives up, and the gauge is ss's all along.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use tracer::lab::netns::Netns;
use tracer::lab::segments::{ACK, SYN};

use super::allowance::{self, FEW};
use super::stage::{Ip, Stage};
use super::truth::{self, Mib, count};
use super::twtrace::{PATIENCE, Twtrace};
use super::{Outcome, Verdict};

/// Given up seven seconds after the SYN: one, two and four after the SYN-ACKs.
const RETRIES: u64 = 2;

const NEVER_ANSWERED: u64 = 3;

pub(crate) fn retransmitted_and_given_up() -> Outcome {
    // Its timer is of no family, and neither is the gauge.
    let stage = Stage::new(Ip::V4)?;
    stage
        .netns
        .set_sysctl("ipv4.tcp_synack_retries", &RETRIES.to_string())?;
    let over = AtomicBool::new(false);
    let (done, seen) = thread::scope(|scope| {
        let sampler = scope.spawn(|| samples(&stage.live, &stage.netns, &over));
        let done = requests(&stage);
        over.store(true, Ordering::Relaxed);
        (done, sampler.join())
    });
    done?;
    let seen = seen.map_err(|_| anyhow!("the sampler panicked"))??;
    for stood in [NEVER_ANSWERED + 1, NEVER_ANSWERED, 0] {
        ensure!(seen.contains(&stood), "never {stood} at rest: {seen:?}");
    }
    let sent_again =
        Mib::read(&stage.netns)?.get("TCPSynRetrans") - stage.before.get("TCPSynRetrans");
    ensure!(
        sent_again == NEVER_ANSWERED * RETRIES + 1,
        "{sent_again} SYN-ACKs were sent again"
    );
    let last = stage.live.last()?;
    allowance::check_in_company(&last, FEW)?;
    // Whoever is given up has its last timer run out without another SYN-ACK.
    let timeouts = count(&last, &["syn_ack_timeouts"]);
    ensure!(
        timeouts == sent_again + NEVER_ANSWERED,
        "{sent_again} SYN-ACKs were sent again, {NEVER_ANSWERED} requests given up, \
         {timeouts} timeouts seen"
    );
    Ok(Verdict::Held)
}

/// One that is answered late, and some that never are, until all are gone.
fn requests(stage: &Stage) -> Result<()> {
    let mut peers = (0..=NEVER_ANSWERED)
        .map(|_| stage.peer())
        .collect::<Result<Vec<_>>>()?;
    for peer in &mut peers {
        peer.send(SYN)?;
        peer.expect(SYN | ACK)?;
    }
    let late = &mut peers[0];
    late.expect(SYN | ACK)?;
    late.send(ACK)?;
    let _server = stage.door.accept()?;
    truth::wait("the requests to be given up", PATIENCE, || {
        Ok(match truth::ss(&stage.netns)?["SYN_RECV"] {
            0 => Ok(()),
            n => Err(format!("{n} stand")),
        })
    })?;
    Ok(())
}

/// What the gauge showed whenever ss said the same before and after; an error if
/// that was ever another number than ss's.
fn samples(live: &Twtrace, netns: &Netns, over: &AtomicBool) -> Result<Vec<u64>> {
    let mut seen = Vec::new();
    loop {
        // What came to rest last is seen after that.
        let last = over.load(Ordering::Relaxed);
        let Some(gauge) = look(live, netns)? else {
            continue;
        };
        if seen.last() != Some(&gauge) {
            seen.push(gauge);
        }
        if last {
            return Ok(seen);
        }
    }
}

/// The gauge, where ss says the same before and after; an error if they differ.
fn look(live: &Twtrace, netns: &Netns) -> Result<Option<u64>> {
    let before = truth::ss(netns)?["SYN_RECV"];
    // The first may have been taken before that.
    live.snapshot("a snapshot", |_| Ok(()))?;
    let snapshot = live.snapshot("a snapshot", |_| Ok(()))?;
    if truth::ss(netns)?["SYN_RECV"] != before || !truth::is_exact(&snapshot) {
        return Ok(None);
    }
    let gauge = count(&snapshot, &["states", "SYN_RECV", "now"]);
    ensure!(
        gauge == before,
        "{gauge} half-open where ss has {before}: {snapshot:#}"
    );
    Ok(Some(gauge))
}

pub(crate) fn hundreds_over_ipv4() -> Outcome {
    hundreds(Ip::V4)
}

pub(crate) fn hundreds_over_ipv6() -> Outcome {
    hundreds(Ip::V6)
}

/// Up to 500, on two listeners that share a port, none ever answered.
fn hundreds(ip: Ip) -> Outcome {
    const LEVELS: [u64; 5] = [0, 1, 7, 80, 500];
    /// Given up after 15 seconds, which is time enough to look at each level.
    const RETRIES: u64 = 3;
    let stage = Stage::new(ip)?;
    for (name, value) in [
        ("ipv4.tcp_synack_retries", RETRIES),
        ("ipv4.tcp_max_syn_backlog", 4096),
        ("ipv4.tcp_syncookies", 0),
    ] {
        stage.netns.set_sysctl(name, &value.to_string())?;
    }
    let doors = stage.shared_door()?;
    for level in LEVELS {
        let more = level - truth::ss(&stage.netns)?["SYN_RECV"];
        for _ in 0..more {
            let mut peer = stage.peer_of(&doors[0])?;
            peer.send(SYN)?;
            peer.expect(SYN | ACK)?;
        }
        stands(&stage, level)?;
    }
    stands(&stage, 0)?;
    allowance::check_in_company(&stage.live.last()?, FEW)?;
    Ok(Verdict::Held)
}

/// Looks until the gauge is that; ss agrees at each look.
fn stands(stage: &Stage, wanted: u64) -> Result<()> {
    truth::wait("the number of half-open requests", PATIENCE, || {
        Ok(match look(&stage.live, &stage.netns)? {
            Some(gauge) if gauge == wanted => Ok(()),
            Some(gauge) => Err(format!("{gauge} of {wanted}")),
            None => Err("they come and go".to_owned()),
        })
    })
    .map(drop)
}
