//! `doctor`: what it says of a namespace made for it, and `--self-test`: what the
//! figures rest on holds on this kernel.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tracer::lab::churn::Listener;
use tracer::lab::netns::Netns;

use super::twtrace;
use super::{Outcome, Verdict};

/// What may be left untried, for want of a module.
const MAY_LACK: &str = "destroyed";

/// Its report. Its status tells whether something hurts, be it another test's.
fn doctor(more: &[&str]) -> Result<Value> {
    let output = twtrace::command()
        .args(["doctor", "--json", "--duration", "500ms"])
        .args(more)
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "doctor printed no JSON: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let hurts = report["verdict"] == "hurts";
    ensure!(
        output.status.code() == Some(i32::from(hurts)) && report["ready"] == true,
        "{} with the verdict {}: {report:#}",
        output.status,
        report["verdict"]
    );
    Ok(report)
}

pub(crate) fn tells_ports_and_beliefs() -> Outcome {
    const USED: usize = 40;
    let netns = Netns::new()?;
    // Before the range is narrowed, so that it takes none of it.
    let listener = netns.run(|| Listener::new(Ipv4Addr::LOCALHOST))??;
    netns.set_sysctl("ipv4.ip_local_port_range", "61000 61063")?;
    netns.set_sysctl("ipv4.tcp_tw_reuse", "0")?;
    netns.set_sysctl("ipv4.tcp_fin_timeout", "15")?;
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.port);
    for _ in 0..USED {
        let (client, server) = netns.run(|| listener.connect(target))??;
        drop(client);
        // Its FIN is there: this end is not the first to close.
        ensure!(TcpStream::from(server).read(&mut [0])? == 0);
    }
    let report = doctor(&[])?;
    let of_ours = |value: &&Value| value["netns"] == netns.inode();
    let rows = |key: &str| report[key].as_array().cloned().unwrap_or_default();

    let near = rows("findings")
        .into_iter()
        .find(|finding| finding["netns"] == netns.inode() && finding["id"] == "ports_near");
    let near = near.with_context(|| format!("40 of 64 ports: {:#}", report["findings"]))?;
    ensure!(
        near["cause"] == "time_wait" && near["figures"]["used"] == USED,
        "{near:#}"
    );
    let ports = rows("ports");
    let ours: Vec<&Value> = ports.iter().filter(of_ours).collect();
    let [row] = ours[..] else {
        anyhow::bail!("not one destination of ours in {ports:#?}");
    };
    for (key, expected) in [
        ("used", json!(USED)),
        ("time_wait", json!(USED)),
        ("usable", json!(64)),
        ("reusable", json!(0)),
        ("remote_port", json!(listener.port)),
    ] {
        ensure!(row[key] == expected, "{key} is not {expected} in {row:#}");
    }
    let namespaces = rows("namespaces");
    let here = namespaces.iter().find(of_ours).context("our namespace")?;
    ensure!(
        here["minisockets"]["now"] == USED && here["sysctls"]["tcp_fin_timeout"] == "15",
        "{here:#}"
    );
    let memory = report["memory"]["time_waits"].as_u64();
    ensure!(memory >= Some(USED as u64), "{:#}", report["memory"]);
    let believed = rows("myths").into_iter().find(|myth| {
        myth["found"] == "net.ipv4.tcp_fin_timeout = 15"
            && myth["namespaces"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(netns.inode())))
    });
    ensure!(
        believed.is_some(),
        "no belief of ours in {:#}",
        report["myths"]
    );
    Ok(Verdict::Held)
}

pub(crate) fn self_test_holds() -> Outcome {
    let report = doctor(&["--self-test"])?;
    let schema = serde_json::from_str(include_str!("../../../docs/schema/doctor-1.json"))?;
    let schema = jsonschema::validator_for(&schema)?;
    if let Some(error) = schema.iter_errors(&report).next() {
        bail!("the report is not as its schema says: {error}");
    }
    let trials = report["self_test"]
        .as_array()
        .with_context(|| format!("no self-test in {report:#}"))?;
    ensure!(
        trials.len() > 20,
        "only {} trials: {report:#}",
        trials.len()
    );
    for trial in trials {
        ensure!(
            trial["verdict"] == "held"
                || trial["verdict"] == "untried" && trial["name"] == MAY_LACK,
            "an assumption does not hold here: {trial}"
        );
    }
    Ok(Verdict::Held)
}
