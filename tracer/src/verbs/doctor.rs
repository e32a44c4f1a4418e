//! `twtrace doctor`: what this host offers, what it lacks to run the tracer, and
//! what its network namespaces are set to.
//!
//! [`Report`] is the whole answer as one value; its renderers are pure. It
//! reports values and judges none of them.

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use serde::Serialize;

use crate::kernel::netns::{self, Namespace, Search};
use crate::kernel::requirements::{self, Check, Reach, Verdict};
use crate::kernel::sysctl::{self, Values};
use crate::kernel::{cgroup, clock};
use crate::model::clock::wheel_slack;
use crate::model::snapshot::Host;
use crate::options::DoctorOptions;
use crate::selftest::{self, Trial};

const SCHEMA: &str = "twtrace.doctor/1";

/// `TCP_TIMEWAIT_LEN`: what mainline asks for.
const TIME_WAIT_S: u32 = 60;

/// Tells what the host offers; a negative answer if something needed is missing
/// or an assumption does not hold.
pub fn run(options: &DoctorOptions) -> anyhow::Result<ExitCode> {
    let mut report = examine()?;
    if options.self_test && report.ready {
        let facts = requirements::check(Reach::Other)?;
        report.self_test = Some(selftest::run(&facts));
    }
    let mut out = anstream::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        report.write_text(&mut out)?;
    }
    Ok(if report.ready && !report.has_failed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    schema: &'static str,
    version: &'static str,
    host: Host,
    /// Nothing that is needed is missing.
    ready: bool,
    checks: Vec<Check>,
    time_wait: Band,
    /// Mount point of cgroup v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup2: Option<String>,
    namespaces: Vec<Inspected>,
    /// Where it was asked for, and nothing that is needed is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    self_test: Option<Vec<Trial>>,
}

/// When the timer of a TIME_WAIT ends on this kernel, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Band {
    nominal_s: u32,
    from_s: f64,
    to_s: f64,
}

impl Band {
    /// The timer wheel is from one tick to one bucket late.
    fn at(hz: u32) -> Band {
        let ticks = |n: u32| f64::from(TIME_WAIT_S) + f64::from(n) / f64::from(hz);
        Band {
            nominal_s: TIME_WAIT_S,
            from_s: ticks(1),
            to_s: ticks(wheel_slack(TIME_WAIT_S * hz)),
        }
    }
}

/// A network namespace and what it is set to.
#[derive(Clone, Debug, Serialize)]
struct Inspected {
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The one twtrace runs in.
    own: bool,
    /// Of `net.ipv4`, as the kernel spells them.
    sysctls: Values,
    /// Ports of `ip_local_port_range` that are not reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    usable_ports: Option<u32>,
    /// Why its sysctls are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Inspected {
    fn of(namespace: &Namespace, own: u32, values: io::Result<Values>) -> Inspected {
        let (sysctls, error) = match values {
            Ok(values) => (values, None),
            Err(why) => (Values::new(), Some(why.to_string())),
        };
        let facts = sysctl::interpret(&sysctls, None).ok();
        Inspected {
            netns: namespace.inode,
            name: namespace.name.clone(),
            own: namespace.inode == own,
            usable_ports: facts.map(|facts| {
                let (low, high) = facts.ports;
                (u32::from(high) + 1).saturating_sub(u32::from(low) + facts.reserved_ports)
            }),
            sysctls,
            error,
        }
    }
}

fn examine() -> anyhow::Result<Report> {
    let checks = requirements::judge(&requirements::probe());
    let own = netns::current()
        .context("cannot tell this network namespace")?
        .inode;
    let namespaces =
        netns::enumerate(Search::Everywhere).context("cannot list the network namespaces")?;
    let namespaces = namespaces
        .iter()
        .map(|n| Inspected::of(n, own, sysctl::values(n)))
        .collect();
    let host = clock::host().context("cannot tell what host this is")?;
    Ok(Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        ready: checks.iter().all(|check| check.verdict != Verdict::Missing),
        checks,
        time_wait: Band::at(host.hz),
        cgroup2: cgroup::mount().map(|path| path.display().to_string()),
        namespaces,
        self_test: None,
        host,
    })
}

/// Columns of the table of namespaces: heading and sysctl.
const COLUMNS: [(&str, &str); 7] = [
    ("port range", "ip_local_port_range"),
    ("max_tw_buckets", "tcp_max_tw_buckets"),
    ("tw_reuse", "tcp_tw_reuse"),
    ("tw_reuse_delay", "tcp_tw_reuse_delay"),
    ("fin_timeout", "tcp_fin_timeout"),
    ("timestamps", "tcp_timestamps"),
    ("rfc1337", "tcp_rfc1337"),
];

impl Report {
    /// Whether an assumption was tried and does not hold.
    fn has_failed(&self) -> bool {
        let failed = |trial: &Trial| trial.verdict == selftest::Verdict::Failed;
        self.self_test.iter().flatten().any(failed)
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "twtrace {} on {}, Linux {}\n",
            self.version, self.host.name, self.host.kernel
        )?;
        for check in &self.checks {
            let (word, style) = word(check.verdict);
            writeln!(
                out,
                "{style}{word:<9}{style:#} {:<17} {}",
                check.name, check.found
            )?;
            if let Some(remedy) = &check.remedy {
                writeln!(out, "{:28}to mend it: {remedy}", "")?;
            }
        }
        let Band {
            nominal_s,
            from_s,
            to_s,
        } = self.time_wait;
        writeln!(
            out,
            "\nA timer of {nominal_s} s, which is 2MSL in mainline Linux, ends after {from_s:.3} to {to_s:.3} s \
             on this kernel ({} ticks a second).\n",
            self.host.hz
        )?;
        if self
            .namespaces
            .iter()
            .any(|n| n.sysctls.contains_key("tcp_tw_timeout"))
        {
            writeln!(
                out,
                "This kernel has net.ipv4.tcp_tw_timeout, which mainline has not: 2MSL is what it says.\n"
            )?;
        }
        self.write_namespaces(out)?;
        let missing = self
            .checks
            .iter()
            .filter(|check| check.verdict == Verdict::Missing)
            .count();
        if let Some(trials) = &self.self_test {
            write_trials(trials, out)?;
        }
        match missing {
            0 if self.has_failed() => writeln!(
                out,
                "\nThis host has what twtrace needs, but figures that rest on what failed \
                 above cannot be trusted: report it with the kernel's version and configuration."
            ),
            0 => writeln!(out, "\nThis host has what twtrace needs."),
            1 => writeln!(
                out,
                "\ntwtrace cannot run here: one thing it needs is missing."
            ),
            n => writeln!(
                out,
                "\ntwtrace cannot run here: {n} things it needs are missing."
            ),
        }
    }

    fn write_namespaces(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Network namespaces and their sysctls (net.ipv4, tcp_ left out; - where this kernel has none):"
        )?;
        let mut rows = vec![vec!["netns".to_owned(), "name".to_owned()]];
        rows[0].extend(COLUMNS.map(|(heading, _)| heading.to_owned()));
        rows[0].push("usable ports".to_owned());
        for namespace in &self.namespaces {
            let name = match (&namespace.name, namespace.own) {
                (Some(name), _) => crate::units::printable(name),
                (None, true) => "(this one)".to_owned(),
                (None, false) => "-".to_owned(),
            };
            let mut row = vec![namespace.netns.to_string(), name];
            if let Some(why) = &namespace.error {
                row.push(format!("cannot be read: {why}"));
            } else {
                let value = |key| namespace.sysctls.get(key).map_or("-", String::as_str);
                row.extend(COLUMNS.map(|(_, key)| value(key).replace(' ', "-")));
                row.push(
                    namespace
                        .usable_ports
                        .map_or("-".to_owned(), |ports| ports.to_string()),
                );
            }
            rows.push(row);
        }
        // What could not be read is a sentence and no cell.
        let full = rows[0].len();
        let cells = |column: usize| {
            rows.iter()
                .filter(move |row| row.len() == full || column < 2)
        };
        let widths: Vec<usize> = (0..full)
            .map(|column| {
                cells(column)
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &rows {
            let padded = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(
                out,
                "  {}",
                padded.collect::<Vec<_>>().join("  ").trim_end()
            )?;
        }
        Ok(())
    }
}

fn write_trials(trials: &[Trial], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\nTried on this kernel, in a network namespace of its own:"
    )?;
    for trial in trials {
        let (word, colour) = match trial.verdict {
            selftest::Verdict::Held => ("held", AnsiColor::Green),
            selftest::Verdict::Failed => ("failed", AnsiColor::Red),
            selftest::Verdict::Untried => ("untried", AnsiColor::Yellow),
        };
        let style = colour.on_default();
        let row = format!("{:<27} {}", trial.name, trial.found);
        writeln!(out, "{style}{word:<9}{style:#} {}", row.trim_end())?;
    }
    Ok(())
}

fn word(verdict: Verdict) -> (&'static str, Style) {
    let colour = |colour: AnsiColor| colour.on_default();
    match verdict {
        Verdict::Ok => ("ok", colour(AnsiColor::Green)),
        Verdict::Degraded => ("with less", colour(AnsiColor::Yellow)),
        Verdict::Missing => ("missing", colour(AnsiColor::Red).bold()),
        Verdict::Unknown => ("unknown", colour(AnsiColor::Yellow)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, verdict: Verdict, found: &str, remedy: Option<&str>) -> Check {
        Check {
            name,
            verdict,
            found: found.into(),
            remedy: remedy.map(Into::into),
        }
    }

    fn sample() -> Report {
        let values = Values::from([
            ("ip_local_port_range", "32768 60999".to_owned()),
            ("ip_local_reserved_ports", "40000-40009".to_owned()),
            ("tcp_fin_timeout", "60".to_owned()),
            ("tcp_max_tw_buckets", "65536".to_owned()),
            ("tcp_rfc1337", "0".to_owned()),
            ("tcp_timestamps", "1".to_owned()),
            ("tcp_tw_reuse", "2".to_owned()),
        ]);
        let namespace = |inode, name: Option<&str>| Namespace {
            inode,
            path: "/proc/1/ns/net".into(),
            name: name.map(Into::into),
        };
        Report {
            schema: SCHEMA,
            version: "0.1.0",
            host: Host {
                name: "db01".into(),
                kernel: "6.12.1".into(),
                boot_id: "00000000-0000-0000-0000-000000000000".into(),
                hz: 250,
            },
            ready: false,
            checks: vec![
                check("kernel", Verdict::Ok, "6.12.1", None),
                check(
                    "load programs",
                    Verdict::Missing,
                    "CAP_BPF is missing",
                    Some("run it as root"),
                ),
                check(
                    "JIT",
                    Verdict::Unknown,
                    "net.core.bpf_jit_enable cannot be read here",
                    Some("x"),
                ),
            ],
            time_wait: Band::at(250),
            cgroup2: None,
            namespaces: vec![
                Inspected::of(&namespace(4026531840, None), 4026531840, Ok(values.clone())),
                Inspected::of(&namespace(4026532281, Some("blue")), 4026531840, Ok(values)),
                Inspected::of(
                    &namespace(4026532999, None),
                    4026531840,
                    Err(io::ErrorKind::PermissionDenied.into()),
                ),
            ],
            self_test: None,
        }
    }

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        report.write_text(&mut out).unwrap();
        anstream::adapter::strip_str(str::from_utf8(&out).unwrap()).to_string()
    }

    #[test]
    fn text_names_what_is_missing_and_the_remedy() {
        insta::assert_snapshot!(text(&sample()));
    }

    #[test]
    fn a_vendors_own_2msl_is_pointed_out() {
        let mut report = sample();
        assert!(!text(&report).contains("tcp_tw_timeout"));
        report.namespaces[1]
            .sysctls
            .insert("tcp_tw_timeout", "30".into());
        assert!(text(&report).contains("net.ipv4.tcp_tw_timeout"));
    }

    #[test]
    fn json_has_the_same_in_fields() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["schema"], "twtrace.doctor/1");
        assert_eq!(json["ready"], false);
        assert_eq!(json["checks"][1]["verdict"], "missing");
        assert_eq!(json["checks"][1]["remedy"], "run it as root");
        assert_eq!(json["checks"][0].get("remedy"), None);
        assert_eq!(json["time_wait"]["from_s"], 60.004);
        assert_eq!(json["time_wait"]["to_s"], 62.048);
        assert_eq!(json["namespaces"][0]["own"], true);
        assert_eq!(json["namespaces"][0]["usable_ports"], 28222);
        assert_eq!(json["namespaces"][1]["sysctls"]["tcp_tw_reuse"], "2");
        assert_eq!(json["namespaces"][2]["error"], "permission denied");
    }

    #[test]
    fn a_self_test_names_what_does_not_hold() {
        let trial = |name, verdict, found: &str| Trial {
            name,
            verdict,
            found: found.into(),
        };
        let mut report = sample();
        report.ready = true;
        report
            .checks
            .retain(|check| check.verdict != Verdict::Missing);
        report.self_test = Some(vec![
            trial("births", selftest::Verdict::Held, ""),
            trial("destroyed", selftest::Verdict::Untried, "no sock_diag here"),
        ]);
        assert!(!report.has_failed());
        let failed = trial(
            "re-arms",
            selftest::Verdict::Failed,
            "a re-arm was not seen",
        );
        report.self_test.as_mut().unwrap().push(failed);
        assert!(report.has_failed());
        let said = text(&report);
        for words in [
            "held      births\n",
            "failed    re-arms",
            "cannot be trusted",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["self_test"][2]["verdict"], "failed");
    }

    #[test]
    fn the_band_is_that_of_the_timer_wheel() {
        for (hz, from, to) in [
            (100, 60.010, 65.120),
            (300, 60.003, 61.707),
            (1000, 60.001, 64.096),
        ] {
            let band = Band::at(hz);
            assert!(
                (band.from_s - from).abs() < 5e-4 && (band.to_s - to).abs() < 5e-4,
                "{hz}: {band:?}"
            );
        }
    }

    #[test]
    fn this_host_has_what_is_needed() {
        let report = examine().unwrap();
        assert!(report.ready, "this test needs root:\n{}", text(&report));
        let own = report
            .namespaces
            .iter()
            .find(|n| n.own)
            .expect("its own namespace is among them");
        assert!(own.usable_ports.is_some_and(|ports| ports > 0), "{own:?}");
        assert!(
            text(&report).ends_with("This host has what twtrace needs.\n"),
            "{}",
            text(&report)
        );
    }
}
