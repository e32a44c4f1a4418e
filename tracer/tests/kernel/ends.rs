//! Every end a minisocket can come to, made to happen with real segments: the
//! reason is found, and no other. In both families where the kernel's ways part.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;
use serde_json::Value;
use tracer::lab::churn::Listener;
use tracer::lab::destroy::Destroyer;
use tracer::lab::segments::{ACK, FIN, PSH, Peer, RST, SYN};

use super::allowance::{self, FEW};
use super::programs::NFT;
use super::stage::{FIN_WAIT2, Ip, Stage, TIME_WAIT, bound_connect, check, found};
use super::truth::{self, Mib, count};
use super::twtrace::{PATIENCE, Twtrace};
use super::{Outcome, Verdict, guest};

pub(crate) fn time_wait_expired() -> Outcome {
    let mut stage = Stage::new(Ip::V4)?;
    stage.time_wait()?;
    stage.live.be_patient(Duration::from_secs(75));
    let last = stage.finds(TIME_WAIT, "expired", 1)?;
    let life = truth::number(&last, &[TIME_WAIT, "lifetime_s", "max"]);
    let band = 60.0..=60.05 + truth::number(&last, &[TIME_WAIT, "timer", "slack_s"]);
    ensure!(band.contains(&life), "it lived {life} s: {last:#}");
    Ok(Verdict::Held)
}

pub(crate) fn fin_wait2_expired() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    stage.netns.set_sysctl("ipv4.tcp_fin_timeout", "1")?;
    stage.fin_wait2()?;
    stage.finds(FIN_WAIT2, "expired", 1)?;
    Ok(Verdict::Held)
}

/// With every ephemeral port in TIME_WAIT, tcp_tw_reuse lets connect() take one
/// as soon as it is a second old.
pub(crate) fn reused_by_connect() -> Outcome {
    const PORTS: u64 = 4;
    let stage = Stage::new(Ip::V4)?;
    // Before the range is narrowed, so that it takes none of it.
    let listener = stage.netns.run(|| Listener::new(Ipv4Addr::LOCALHOST))??;
    stage
        .netns
        .set_sysctl("ipv4.ip_local_port_range", "61000 61003")?;
    stage.netns.set_sysctl("ipv4.tcp_tw_reuse", "1")?;
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.port);
    for n in 0..2 * PORTS {
        let (client, server) = truth::wait("a port to connect from", PATIENCE, || {
            stage.netns.run(|| match listener.connect(target) {
                Ok(pair) => Ok(Ok(pair)),
                Err(error) if n >= PORTS => Ok(Err(format!("{error:#}"))),
                Err(error) => Err(error),
            })?
        })?;
        drop(client);
        drop(server);
    }
    stage.finds(TIME_WAIT, "reused_by_connect", PORTS)?;
    Ok(Verdict::Held)
}

pub(crate) fn reused_by_bound_connect() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        let remote = stage.local()?;
        let first = stage.netns.run(|| bound_connect(0, remote))??;
        let server = stage.door.accept()?.0;
        let port = first.local_addr()?.port();
        drop(first);
        drop(server);
        stage.stands(TIME_WAIT)?;
        let _again = stage.netns.run(|| bound_connect(port, remote))??;
        stage.finds(TIME_WAIT, "reused_by_bound_connect", 1)?;
    }
    Ok(Verdict::Held)
}

/// One port and one destination, so that each connection ends the TIME_WAIT of
/// the one before, in the middle of its `connect()`.
pub(crate) fn every_reuse_is_an_end() -> Outcome {
    let times = guest::lighter(2_000);
    let stage = Stage::new(Ip::V4)?;
    let remote = stage.local()?;
    let mut port = 0;
    stage.netns.run(|| {
        for _ in 0..=times {
            let client = bound_connect(port, remote)?;
            port = client.local_addr()?.port();
            let server = stage.door.accept()?.0;
            drop(client);
            drop(server);
        }
        anyhow::Ok(())
    })??;
    stage.live.equals_ss(&stage.netns)?;
    let recycled = Mib::read(&stage.netns)?.get("TWRecycled") - stage.before.get("TWRecycled");
    // Where a FIN waited in a backlog it is the other end that waits, for a SYN.
    ensure!(
        recycled <= times && recycled * 10 >= times * 9,
        "{times} times a port was to be reused, and {recycled} times it was"
    );
    let last = stage.live.last()?;
    allowance::check(&last, times)?;
    let reason = "reused_by_bound_connect";
    let [waits, orphans] = [TIME_WAIT, FIN_WAIT2].map(|of| truth::ended(&last, of));
    let named = |ended: &BTreeMap<String, u64>| ended.get(reason).copied().unwrap_or(0);
    let seen = named(&waits) + named(&orphans);
    allowance::check_seen("reuses", seen, recycled, times).with_context(|| format!("{last:#}"))?;
    Ok(Verdict::Held)
}

pub(crate) fn fin_wait2_reused_by_bound_connect() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        let remote = stage.local()?;
        let first = stage.netns.run(|| bound_connect(0, remote))??;
        let _open = stage.door.accept()?.0;
        let port = first.local_addr()?.port();
        drop(first);
        stage.stands(FIN_WAIT2)?;
        let _again = stage.netns.run(|| bound_connect(port, remote))??;
        stage.finds(FIN_WAIT2, "reused_by_bound_connect", 1)?;
    }
    Ok(Verdict::Held)
}

/// A SYN beyond the last sequence number opens a new connection.
pub(crate) fn reused_by_syn() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        let mut peer = stage.time_wait()?;
        peer.seq = peer.seq.wrapping_add(1_000_000);
        peer.send(SYN)?;
        peer.expect(SYN | ACK)?;
        stage.finds(TIME_WAIT, "reused_by_syn", 1)?;
    }
    Ok(Verdict::Held)
}

/// Assassination: RFC 1337.
pub(crate) fn time_wait_reset() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        stage.time_wait()?.send(RST)?;
        stage.finds(TIME_WAIT, "reset", 1)?;
    }
    Ok(Verdict::Held)
}

pub(crate) fn fin_wait2_reset() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        stage.fin_wait2()?.send(RST)?;
        stage.finds(FIN_WAIT2, "reset", 1)?;
    }
    Ok(Verdict::Held)
}

pub(crate) fn data_after_close() -> Outcome {
    for ip in Ip::BOTH {
        let stage = Stage::new(ip)?;
        let mut peer = stage.fin_wait2()?;
        peer.send_data(PSH | ACK, b"too late")?;
        peer.expect(RST)?;
        stage.finds(FIN_WAIT2, "data_after_close", 1)?;
    }
    Ok(Verdict::Held)
}

/// What `ss -K` does, to a minisocket of either kind.
pub(crate) fn destroyed() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    let waiting = stage.time_wait()?.local;
    let orphan = stage.fin_wait2()?.local;
    let address = stage.address()?;
    let destroy = |remote| {
        stage
            .netns
            .run(|| anyhow::Ok(Destroyer::new()?.destroy(address, remote)))?
    };
    for remote in [waiting, orphan] {
        match destroy(remote)? {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Verdict::Impossible(
                    "this kernel destroys no minisockets on request".to_owned(),
                ));
            }
            other => other.with_context(|| format!("cannot destroy the minisocket to {remote}"))?,
        }
    }
    found(&stage.live, FIN_WAIT2, "destroyed", 1)?;
    let last = stage.finds(TIME_WAIT, "destroyed", 1)?;
    check(&last, FIN_WAIT2, "destroyed", 1)?;
    Ok(Verdict::Held)
}

pub(crate) fn netns_exit() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    stage.time_wait()?;
    stage.fin_wait2()?;
    stage.live.snapshot("both minisockets", |snapshot| {
        let of = |of| count(snapshot, &[of, "now"]);
        if (of(TIME_WAIT), of(FIN_WAIT2)) == (1, 1) {
            Ok(())
        } else {
            Err(snapshot["states"].to_string())
        }
    })?;
    // Nothing holds the namespace but the stage.
    let live = stage.leave();
    // A run that is to see no other has nothing left to see.
    let last = live.ends()?;
    allowance::check_in_company(&last, FEW)?;
    check(&last, TIME_WAIT, "netns_exit", 1)?;
    check(&last, FIN_WAIT2, "netns_exit", 1)?;
    Ok(Verdict::Held)
}

/// Never born: not an end, but a count of its own.
pub(crate) fn overflow() -> Outcome {
    const ROOM: u64 = 5;
    const CLOSES: u64 = 15;
    let stage = Stage::new(Ip::V4)?;
    stage
        .netns
        .set_sysctl("ipv4.tcp_max_tw_buckets", &ROOM.to_string())?;
    let remote = stage.local()?;
    for _ in 0..CLOSES {
        let client = stage.netns.run(|| TcpStream::connect(remote))??;
        let server = stage.door.accept()?.0;
        client.shutdown(Shutdown::Write)?;
        drop(server);
        drop(client);
    }
    let now = Mib::read(&stage.netns)?.get("TCPTimeWaitOverflow")
        - stage.before.get("TCPTimeWaitOverflow");
    ensure!(
        now == CLOSES - ROOM,
        "the kernel let {now} of {CLOSES} overflow, with room for {ROOM}"
    );
    // The kernel's counter tells it, and that is not asked all the time.
    let overflowed = |snapshot: &Value| count(snapshot, &[TIME_WAIT, "overflowed"]);
    stage
        .live
        .snapshot("the overflow", |snapshot| match overflowed(snapshot) {
            n if n >= now => Ok(()),
            n => Err(format!("{n} overflowed")),
        })?;
    stage.live.equals_ss(&stage.netns)?;
    let last = stage.live.last()?;
    allowance::check_in_company(&last, FEW)?;
    let (overflowed, born) = (
        count(&last, &[TIME_WAIT, "overflowed"]),
        count(&last, &[TIME_WAIT, "entered"]),
    );
    ensure!(
        (overflowed, born) == (now, ROOM),
        "{overflowed} overflowed and {born} born: {last:#}"
    );
    let closes = count(&last, &["closes", "straight_to_closed", "overflow"]);
    ensure!(closes == now, "{closes} closes by overflow: {last:#}");
    Ok(Verdict::Held)
}

/// SO_LINGER 0, unread data, `linger2 < 0`: straight to CLOSED.
pub(crate) fn no_time_wait_for_an_abort() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    let remote = stage.local()?;
    let pair = || -> Result<(TcpStream, TcpStream)> {
        Ok((
            stage.netns.run(|| TcpStream::connect(remote))??,
            stage.door.accept()?.0,
        ))
    };

    let (client, server) = pair()?;
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    drop(server);

    let (client, server) = pair()?;
    io::Write::write_all(&mut &server, b"never read")?;
    truth::wait("data to be there", PATIENCE, || {
        Ok(if client.peek(&mut [0])? > 0 {
            Ok(())
        } else {
            Err("none".to_owned())
        })
    })?;
    drop(client);
    drop(server);

    let (client, server) = pair()?;
    let never: libc::c_int = -1;
    // SAFETY: the option's value is one int, which lives through the call.
    let set = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const never).cast(),
            size_of_val(&never) as libc::socklen_t,
        )
    };
    ensure!(
        set == 0,
        "cannot set TCP_LINGER2: {}",
        io::Error::last_os_error()
    );
    client.shutdown(Shutdown::Write)?;
    drop(client);
    drop(server);

    stage.live.equals_ss(&stage.netns)?;
    let last = stage.live.last()?;
    allowance::check_in_company(&last, FEW)?;
    let straight = |how| count(&last, &["closes", "straight_to_closed", how]);
    ensure!(straight("aborted") == 3, "3 aborted: {last:#}");
    ensure!(straight("reset") == 3, "their 3 peers were reset: {last:#}");
    ensure!(
        count(&last, &[TIME_WAIT, "entered"]) == 0,
        "none waited: {last:#}"
    );
    Ok(Verdict::Held)
}

/// A SYN that TPROXY redirects to a listener ends the TIME_WAIT it finds.
pub(crate) fn tproxy() -> Outcome {
    NFT.needed()?;
    let stage = Stage::new(Ip::V4)?;
    let port = stage.door.local_addr()?.port();
    let rules = format!(
        "table ip lab {{\n chain prerouting {{\n type filter hook prerouting priority mangle\n \
         tcp dport {port} tproxy to :{port} meta mark set 1 accept\n }}\n}}\n"
    );
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rules");
    fs::write(&file, rules)?;
    let mut nft = Command::new(NFT.name);
    nft.arg("-f").arg(&file);
    let output = stage
        .netns
        .run(|| nft.output())?
        .context("cannot run nft")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No such file or directory") || said.contains("Operation not supported") {
        let why = said.lines().next().unwrap_or_default();
        return Ok(Verdict::Impossible(format!(
            "this kernel has no nft_tproxy: {why}"
        )));
    }
    ensure!(output.status.success(), "nft refused the rule: {said}");
    let mut peer = stage.time_wait()?;
    peer.seq = peer.seq.wrapping_add(1_000_000);
    peer.send(SYN)?;
    peer.expect(SYN | ACK)?;
    stage.finds(TIME_WAIT, "tproxy", 1)?;
    Ok(Verdict::Held)
}

/// A duplicate FIN arms the timer anew: in the same bucket of the wheel without
/// any event, later with one. Neither begins a new life.
pub(crate) fn rearmed() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    let again = |peer: &Peer<'_>| peer.send_at(peer.seq.wrapping_sub(1), FIN | ACK, &[]);

    // Each arm in the same jiffy is the same arm: let some pass.
    let jiffies = Duration::from_millis(50);
    let mut silent = stage.time_wait()?;
    std::thread::sleep(jiffies);
    again(&silent)?;
    silent.send(RST)?;
    let once = found(&stage.live, TIME_WAIT, "reset", 1)?;
    ensure!(
        count(&once, &[TIME_WAIT, "rearmed"]) == 1,
        "re-armed once, in silence: {once:#}"
    );

    let events = Twtrace::events(&stage.netns, &["--state", "time-wait"])?;
    super::story::listening(&events, &stage.netns)?;
    let mut peer = stage.time_wait()?;
    let mine = u64::from(peer.local.port());
    let visible = truth::wait("a re-arm to be told", PATIENCE, || {
        again(&peer)?;
        std::thread::sleep(jiffies);
        let told = events.until("anything", |lines| {
            Some(
                lines
                    .iter()
                    .find(|e| e["kind"] == "minisocket_rearm" && e["remote"]["port"] == mine)
                    .cloned(),
            )
        })?;
        Ok(told.ok_or_else(|| "no minisocket_rearm".to_owned()))
    })?;
    ensure!(
        visible["state"] == "TIME_WAIT",
        "re-armed in another state: {visible:#}"
    );
    peer.send(RST)?;
    let end = events.until("its end", |lines| {
        lines
            .iter()
            .find(|e| e["kind"] == "minisocket_end" && e["remote"]["port"] == mine)
            .cloned()
    })?;
    events.stop()?;
    let life = end["lifetime_s"].as_f64().context("no lifetime_s")?;
    let Some(rearms) = end["rearmed"].as_u64() else {
        bail!("no rearmed: {end:#}")
    };
    ensure!(rearms >= 1, "its re-arm was not counted: {end:#}");
    ensure!(end["reason"] == "reset", "another reason: {end:#}");
    ensure!(
        life >= 0.05 * rearms as f64,
        "{rearms} re-arms, yet a life of {life} s"
    );
    Ok(Verdict::Held)
}
