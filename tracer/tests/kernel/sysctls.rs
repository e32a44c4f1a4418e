//! What `tracer::knowledge` says of sysctls, tried on this kernel in namespaces
//! made for it: what each can do, and what it cannot.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};
use tracer::kernel::clock;
use tracer::knowledge::sysctls::{self, Reach, Value};
use tracer::lab::netns::Netns;
use tracer::lab::segments::{ACK, FIN, RST};

use super::programs::SYSCTL;
use super::stage::{Ip, Stage};
use super::truth;
use super::twtrace::PATIENCE;
use super::{Outcome, Verdict};

const TIME_WAIT: u8 = 6;
const FIN_WAIT2: u8 = 5;

/// State and remaining time, in seconds, of every minisocket: timers of other
/// kinds have another code in `/proc/net/tcp`.
fn minisockets(netns: &Netns) -> Result<Vec<(u8, f64)>> {
    let table = netns.read("/proc/thread-self/net/tcp")?;
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (state, timer) = (words[3], words[5]);
        if let Some(ticks) = timer.strip_prefix("03:") {
            // USER_HZ is 100 on every architecture that twtrace runs on.
            let left = f64::from(u32::from_str_radix(ticks, 16)?) / 100.0;
            found.push((u8::from_str_radix(state, 16)?, left));
        }
    }
    Ok(found)
}

/// The only minisocket, which is in this state.
fn only(netns: &Netns, state: u8) -> Result<f64> {
    truth::wait(
        &format!("one minisocket in state {state}"),
        PATIENCE,
        || {
            let found = minisockets(netns)?;
            Ok(match found[..] {
                [(is, left)] if is == state => Ok(left),
                _ => Err(format!("{found:?}")),
            })
        },
    )
}

/// A pair of connected sockets on loopback: the client's end first.
fn pair(netns: &Netns) -> Result<(TcpStream, TcpStream)> {
    netns.run(|| {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(door.local_addr()?)?;
        Ok((client, door.accept()?.0))
    })?
}

pub(crate) fn fin_timeout_sets_the_orphans_wait_and_no_other() -> Outcome {
    for timeout in [5.0, 15.0, 60.0] {
        let netns = Netns::new()?;
        netns.set_sysctl("ipv4.tcp_fin_timeout", &timeout.to_string())?;
        let (client, server) = pair(&netns)?;
        drop(client);
        let left = only(&netns, FIN_WAIT2)?;
        ensure!(
            left > timeout - 4.0 && left < timeout + 0.5,
            "an orphan waits {left} s at tcp_fin_timeout={timeout}"
        );
        // Whatever is set now: this wait has begun.
        netns.set_sysctl("ipv4.tcp_fin_timeout", "1")?;
        let still = only(&netns, FIN_WAIT2)?;
        ensure!(still > timeout - 4.0, "{left} s became {still} s");
        drop(server);
        let left = only(&netns, TIME_WAIT)?;
        ensure!(
            left > 55.0 && left < 60.5,
            "a TIME_WAIT lives {left} s more after tcp_fin_timeout={timeout} and 1"
        );
    }
    Ok(Verdict::Held)
}

pub(crate) fn syncookies_have_no_part_in_time_wait() -> Outcome {
    for cookies in ["0", "1", "2"] {
        let netns = Netns::new()?;
        netns.set_sysctl("ipv4.tcp_syncookies", cookies)?;
        let (client, server) = pair(&netns)?;
        drop(client);
        drop(server);
        let left = only(&netns, TIME_WAIT)?;
        ensure!(left > 55.0, "{left} s at tcp_syncookies={cookies}");
    }
    Ok(Verdict::Held)
}

pub(crate) fn rfc1337_lets_no_reset_end_a_time_wait() -> Outcome {
    let stage = Stage::new(Ip::V4)?;
    stage.netns.set_sysctl("ipv4.tcp_rfc1337", "1")?;
    let mut peer = stage.time_wait()?;
    peer.send(RST)?;
    // The FIN again, which a TIME_WAIT that still stands answers.
    peer.send_at(peer.seq.wrapping_sub(1), FIN | ACK, b"")?;
    peer.expect(ACK)?;
    only(&stage.netns, TIME_WAIT)?;
    Ok(Verdict::Held)
}

/// What writing a key of the namespace is answered with.
fn answer(netns: &Netns, key: &str, value: &str) -> Result<io::Result<()>> {
    netns.run(|| fs::write(format!("/proc/sys/net/{key}"), value))
}

pub(crate) fn values_that_are_refused() -> Outcome {
    let netns = Netns::new()?;
    const DELAY: &str = "ipv4/tcp_tw_reuse_delay";
    if netns.sysctl(DELAY).is_err() {
        let came = sysctls::find("tcp_tw_reuse_delay").context("not in the table")?;
        ensure!(
            !came.is_in(clock::kernel_version()),
            "a kernel of {:?} has no {DELAY}",
            clock::kernel_version()
        );
        return Ok(Verdict::Impossible(format!("this kernel has no {DELAY}")));
    }
    for (value, refused) in [("0", true), ("1", false), ("60000", false), ("60001", true)] {
        let answer = answer(&netns, DELAY, value)?;
        let invalid = matches!(&answer, Err(e) if e.kind() == io::ErrorKind::InvalidInput);
        ensure!(
            invalid == refused && (refused || answer.is_ok()),
            "{DELAY}={value}: {answer:?}"
        );
    }
    Ok(Verdict::Held)
}

pub(crate) fn what_is_gone() -> Outcome {
    let netns = Netns::new()?;
    for key in ["tcp_tw_recycle", "tcp_tw_timeout"] {
        let answer = answer(&netns, &format!("ipv4/{key}"), "1")?;
        ensure!(
            matches!(&answer, Err(e) if e.kind() == io::ErrorKind::NotFound),
            "{key}: {answer:?}"
        );
    }
    Ok(Verdict::Held)
}

pub(crate) fn what_is_gone_stops_no_other_line() -> Outcome {
    SYSCTL.needed()?;
    let netns = Netns::new()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("article.conf");
    fs::write(
        &file,
        "net.ipv4.tcp_tw_recycle = 1\nnet.ipv4.tcp_fin_timeout = 30\n",
    )?;
    let mut sysctl = Command::new(SYSCTL.name);
    sysctl.arg("-p").arg(&file);
    let output = netns
        .run(|| sysctl.output())?
        .context("cannot run sysctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("tcp_tw_recycle"), "sysctl -p said {said:?}");
    let applied = netns.sysctl("ipv4.tcp_fin_timeout")?;
    ensure!(applied == "30", "the next line gave {applied}");
    Ok(Verdict::Held)
}

pub(crate) fn what_belongs_to_the_machine() -> Outcome {
    let netns = Netns::new()?;
    for sysctl in sysctls::ALL.iter().filter(|s| s.reach == Reach::Machine) {
        let path = format!("/proc/sys/{}", sysctl.name.replace('.', "/"));
        let found = netns.run(|| fs::exists(&path))??;
        ensure!(!found, "another namespace has {path}");
    }
    Ok(Verdict::Held)
}

pub(crate) fn a_new_namespace_begins_with_the_defaults() -> Outcome {
    let set = Netns::new()?;
    for (key, value) in [
        ("ipv4.tcp_fin_timeout", "15"),
        ("ipv4.tcp_tw_reuse", "1"),
        ("ipv4.ip_local_port_range", "20000 30000"),
        ("ipv4.tcp_timestamps", "0"),
        ("core.somaxconn", "77"),
    ] {
        set.set_sysctl(key, value)?;
    }
    let fresh = set.run(Netns::new)??;
    for sysctl in sysctls::ALL {
        let (Value::Always(default), Reach::Namespace) = (sysctl.default, sysctl.reach) else {
            continue;
        };
        let key = sysctl.name.strip_prefix("net.").context("a key of net")?;
        let Ok(value) = fresh.sysctl(key) else {
            // A module that is not loaded, or a key that came later.
            ensure!(
                key.starts_with("netfilter.") || !sysctl.is_in(clock::kernel_version()),
                "this kernel has no {}",
                sysctl.name
            );
            continue;
        };
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(value == default, "{} is {value:?}", sysctl.name);
    }
    // Negative where the table is that of the first namespace.
    if let Ok(entries) = fresh.sysctl("ipv4.tcp_ehash_entries") {
        let limit: i64 = fresh.sysctl("ipv4.tcp_max_tw_buckets")?.parse()?;
        let entries: i64 = entries.parse()?;
        ensure!(
            limit == entries.abs() / 2,
            "tcp_max_tw_buckets is {limit} at {entries} buckets of connections"
        );
    }
    Ok(Verdict::Held)
}

pub(crate) fn ip_forward_is_not_undone_by_putting_it_back() -> Outcome {
    let here = Netns::new()?;
    let read = |key: &str| here.sysctl(key);
    let interface = "ipv4.conf.lo.forwarding";
    here.set_sysctl(interface, "1")?;
    let before = read("ipv4.conf.all.accept_redirects")?;
    here.set_sysctl("ipv4.ip_forward", "1")?;
    let meanwhile = read("ipv4.conf.all.accept_redirects")?;
    here.set_sysctl("ipv4.ip_forward", "0")?;
    ensure!(
        (before.as_str(), meanwhile.as_str()) == ("1", "0"),
        "accept_redirects went from {before} to {meanwhile}"
    );
    let lost = read(interface)?;
    ensure!(lost == "0", "{interface} kept its own value, {lost}");
    Ok(Verdict::Held)
}

pub(crate) fn somaxconn_waits_for_listen() -> Outcome {
    let netns = Netns::new()?;
    let door = netns.run(tcp_socket)??;
    netns.set_sysctl("core.somaxconn", "100")?;
    listen(&door, 1000)?;
    let first = backlog(&door)?;
    netns.set_sysctl("core.somaxconn", "4096")?;
    let raised = backlog(&door)?;
    listen(&door, 1000)?;
    let again = backlog(&door)?;
    ensure!(
        [first, raised, again] == [100, 100, 1000],
        "a backlog of {first}, then {raised}, then {again}"
    );
    Ok(Verdict::Held)
}

/// The most connections that may wait to be accepted: of a listener,
/// `tcpi_sacked` is that.
fn backlog(listener: &OwnedFd) -> Result<u32> {
    // SAFETY: all of it are integers, of which 0 is one.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: both live through the call, and the size is that of the value.
    let got = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    ensure!(got == 0, "no TCP_INFO: {}", io::Error::last_os_error());
    Ok(info.tcpi_sacked)
}

fn tcp_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// How a client comes to its local port.
#[derive(Clone, Copy, Debug)]
enum Chosen {
    Connect,
    Bind,
    /// bind() to an address, with IP_BIND_ADDRESS_NO_PORT.
    AddressOnly,
}

fn client(how: Chosen, to: SocketAddrV4) -> rustix::io::Result<OwnedFd> {
    let socket = tcp_socket()?;
    if let Chosen::AddressOnly = how {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is one int, which lives through the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
    if !matches!(how, Chosen::Connect) {
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    }
    connect(&socket, &to)?;
    Ok(socket)
}

pub(crate) fn ports_are_counted_per_destination_unless_bound() -> Outcome {
    const PORTS: usize = 8;
    for (how, each, refusal) in [
        (Chosen::Connect, [PORTS, PORTS], Errno::ADDRNOTAVAIL),
        (Chosen::AddressOnly, [PORTS, PORTS], Errno::ADDRNOTAVAIL),
        (Chosen::Bind, [PORTS, 0], Errno::ADDRINUSE),
    ] {
        let netns = Netns::new()?;
        let doors = netns.run(|| -> io::Result<_> {
            Ok([
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            ])
        })??;
        netns.set_sysctl("ipv4.ip_local_port_range", "61000 61007")?;
        let mut clients = Vec::new();
        for (door, expected) in doors.iter().zip(each) {
            let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, door.local_addr()?.port());
            let mut made = 0;
            let refused = loop {
                match netns.run(|| client(how, to))? {
                    Ok(client) => clients.push(client),
                    Err(refused) => break refused,
                }
                made += 1;
                ensure!(
                    made <= PORTS,
                    "{how:?}: {made} connections from {PORTS} ports"
                );
            };
            ensure!(
                made == expected && refused == refusal,
                "{how:?}: {made} connections to {to}, then {refused}"
            );
        }
    }
    Ok(Verdict::Held)
}
