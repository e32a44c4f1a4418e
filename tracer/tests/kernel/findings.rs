//! Each scene of the lab provokes its finding on the real kernel, and the control beside
//! it, which is the same load without the cause, provokes none.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tracer::lab::scenes::{self, Scene};

use super::twtrace::{self, PATIENCE, Twtrace};
use super::{Outcome, Verdict};

/// Scenes side by side: they wait more than they work.
const SIDE_BY_SIDE: usize = 4;

/// A control is watched for so long after it began, which is longer than what it
/// controls takes to be found.
const WATCHED_S: f64 = 4.0;

/// Those that take time: a leak is none before 10 s, or a minute.
const SLOW: &[(&str, f64)] = &[
    ("close-wait", 14.0),
    ("close-wait-closed", 14.0),
    ("fin-wait2", 66.0),
    ("fin-wait2-orphans", 14.0),
];

fn is_slow(scene: &Scene) -> bool {
    SLOW.iter().any(|(name, _)| *name == scene.name)
}

pub(crate) fn quick_scenes() -> Outcome {
    play(scenes::ALL.iter().filter(|scene| !is_slow(scene)))
}

pub(crate) fn slow_scenes() -> Outcome {
    play(scenes::ALL.iter().filter(|scene| is_slow(scene)))
}

fn play(scenes: impl Iterator<Item = &'static Scene> + Send) -> Outcome {
    let scenes = Mutex::new(scenes);
    let failed = Mutex::new(Vec::new());
    let next = || scenes.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(scene) = next() {
                    if let Err(error) = play_one(scene)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(format!("{}: {error:#}", scene.name));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(Verdict::Held)
}

fn play_one(scene: &Scene) -> Result<()> {
    let ground = Scene::ground()?;
    let mut live = Twtrace::live(&ground, &[])?;
    live.be_patient(2 * PATIENCE);
    let began = elapsed(&live.snapshot("a snapshot", |_| Ok(()))?)?;
    let slow = SLOW.iter().find(|(name, _)| *name == scene.name);
    let props = scene.play(&ground).context("cannot be played")?;
    match scene.finding {
        Some(id) => {
            let found = live.snapshot("its finding", |snapshot| {
                let found = ids(snapshot);
                if found.iter().any(|(found, _)| *found == id) {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            })?;
            is_whole(&found, id)?;
        }
        None => {
            let watched = slow.map_or(WATCHED_S, |(_, seconds)| *seconds);
            let last = live.snapshot("the end of a control", |snapshot| {
                let bad: Vec<_> = ids(snapshot)
                    .into_iter()
                    .filter(|(_, severity)| *severity != "note")
                    .collect();
                match elapsed(snapshot) {
                    _ if !bad.is_empty() => Ok(()),
                    Ok(at) if at - began >= watched => Ok(()),
                    at => Err(format!("{at:?}")),
                }
            })?;
            // A note is no alarm; but no control has the note of what it controls.
            let told = ids(&last);
            let alarms = told.iter().filter(|(_, severity)| *severity != "note");
            ensure!(alarms.count() == 0, "a control gave {:#}", last["findings"]);
            ensure!(
                ["fine", "undecided"].contains(&last["verdict"].as_str().unwrap_or_default()),
                "the verdict is {}",
                last["verdict"]
            );
            ensure!(
                scene.name != "few-lived" && scene.name != "listen-reserved" || told.is_empty(),
                "a control gave {:#}",
                last["findings"]
            );
        }
    }
    drop(props);
    live.stop()?;
    Ok(())
}

/// It says what, why, and what to do, and of which socket.
fn is_whole(snapshot: &Value, id: &str) -> Result<()> {
    let findings = snapshot["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|finding| finding["id"] == id);
    let finding = finding.context("it is not there")?;
    let text = |member: &str| finding[member].as_str().unwrap_or_default().len();
    ensure!(
        text("headline") > 20 && text("because") > 20 && text("cause") > 2,
        "{finding:#}"
    );
    let steps = finding["do"].as_array().map_or(0, Vec::len);
    ensure!(steps > 0, "{finding:#}");
    let subject = finding["subject"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    // Of the whole host there is no subject.
    let of_all = ["sockstat_differs", "time_wait_overflow"].contains(&id);
    ensure!(of_all || subject > 0, "{finding:#}");
    let severe = finding["severity"] != "note";
    if severe && snapshot["findings"][0]["id"] == *id {
        ensure!(
            snapshot["verdict"] == finding["severity"],
            "the verdict is {}",
            snapshot["verdict"]
        );
    }
    Ok(())
}

fn ids(snapshot: &Value) -> Vec<(&str, &str)> {
    let findings = snapshot["findings"].as_array();
    findings
        .into_iter()
        .flatten()
        .filter_map(|finding| Some((finding["id"].as_str()?, finding["severity"].as_str()?)))
        .collect()
}

fn elapsed(snapshot: &Value) -> Result<f64> {
    match snapshot["elapsed_s"].as_f64() {
        Some(elapsed) => Ok(elapsed),
        None => bail!("no elapsed_s in {snapshot:#}"),
    }
}

/// What was there before the start is found at the first snapshot.
pub(crate) fn at_the_first_snapshot() -> Outcome {
    for (name, id) in [
        ("restart", "bind_blocked"),
        ("accept-queue", "accept_queue_full"),
        ("ports-exhausted", "ports_exhausted"),
        ("bind-first", "source_address_exhausted"),
        ("self-connect", "self_connect"),
    ] {
        let scene = scenes::find(name).context("no such scene")?;
        let ground = Scene::ground()?;
        let props = scene.play(&ground)?;
        thread::sleep(Duration::from_millis(10));
        let live = Twtrace::live(&ground, &["--count", "1"])?;
        let first = live.until("its first snapshot", |lines| lines.first().cloned())?;
        ensure!(
            ids(&first).iter().any(|(found, _)| *found == id),
            "{name}: at first {:#}",
            first["findings"]
        );
        drop(props);
    }
    Ok(Verdict::Held)
}

pub(crate) fn a_run_waits_for_conditions() -> Outcome {
    let scene = scenes::find("restart").context("no such scene")?;
    let ground = Scene::ground()?;
    let props = scene.play(&ground)?;
    let wait_for = |conditions: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = twtrace::command();
        command
            .args(["live", "--json", "--interval", "100ms", "--timeout", "2s"])
            .args(["--netns", &ground.inode().to_string()]);
        for condition in conditions {
            command.args(["--until", condition]);
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code(), said))
    };
    for (conditions, code, says) in [
        (&["time_wait == 20"][..], 0, ""),
        (&["bind_blocked", "verdict == hurts"], 0, ""),
        (&["time_wait < 20"], 3, "by their timers"),
        (&["time_wait == 20", "not bind_blocked"], 3, "in vain"),
    ] {
        let (found, said) = wait_for(conditions)?;
        ensure!(
            found == Some(code) && said.contains(says),
            "{conditions:?} gave {found:?} and said {said:?}"
        );
    }
    drop(props);
    Ok(Verdict::Held)
}
