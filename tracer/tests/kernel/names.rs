//! What others call their processes, control groups, namespaces and files: the
//! kernel hands all of it on as it is, and no verb does.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_name};
use serde_json::Value;
use tracer::kernel::cgroup;
use tracer::lab::churn::{self, Churn};
use tracer::lab::mounts;

use super::hostile::{COMM, fault, file_name};
use super::twtrace::{self, PATIENCE};
use super::{Outcome, Verdict, truth};

/// The first argument that makes this program a process of that name, which
/// connects; the others are its control group, `-` for none, and its namespace.
pub(crate) const EVIL: &str = "evil-churn";

/// The first argument that makes this program another, before which a namespace
/// has been given a name; the others are the namespace, the name and the command.
pub(crate) const NAMED: &str = "with-a-named-namespace";

const CONNECTIONS: u64 = 50;

/// The name as the kernel has it, and as it is shown.
fn comm() -> &'static CStr {
    CStr::from_bytes_until_nul(COMM).expect("a comm ends with a NUL")
}

const COMM_SHOWN: &str = "ev\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}";
const NAME_SHOWN: &str = "n\u{fffd}[2J\u{fffd}]0;t";

fn exit_code(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = fs::write("/dev/stderr", format!("{error:?}\n"));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn churn(mut words: impl Iterator<Item = String>) -> ExitCode {
    exit_code((|| {
        let group = words.next().context("no control group")?;
        let netns = words.next().context("no namespace")?;
        if group != "-" {
            fs::write(Path::new(&group).join("cgroup.procs"), "0")?;
        }
        set_name(comm())?;
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&File::open(netns)?),
            Some(LinkNameSpaceType::Network),
        )?;
        Churn {
            connections: CONNECTIONS,
            ..Churn::default()
        }
        .run()?;
        Ok(())
    })())
}

/// In a mount namespace of its own, so that the machine's `/run` stays as it is.
pub(crate) fn named(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    exit_code((|| {
        let netns = words.next().context("no namespace")?;
        let name = words.next().context("no name")?;
        let program = words.next().context("no command")?;
        mounts::unshare()?;
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
        fs::create_dir("/run/netns")?;
        let point = Path::new("/run/netns").join(name);
        File::create(&point)?;
        mount_bind(&netns, &point)?;
        Err(Command::new(program).args(words).exec().into())
    })())
}

/// A control group of that name, taken away at the end.
struct Group(Option<PathBuf>);

impl Group {
    fn new() -> Result<Group> {
        let Some(mount) = cgroup::mount() else {
            return Ok(Group(None));
        };
        // A newline is all that the kernel refuses.
        let name = format!("{}{}", file_name().replace('\n', ""), std::process::id());
        let path = mount.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Group(Some(path)))
    }

    fn word(&self) -> &OsStr {
        self.0
            .as_ref()
            .map_or(OsStr::new("-"), |path| path.as_os_str())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_dir(path);
        }
    }
}

struct Scene {
    netns: tracer::lab::netns::Netns,
    group: Group,
    /// This program under that name.
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Scene> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join(file_name());
        std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
        Ok(Scene {
            netns: churn::namespace()?,
            group: Group::new()?,
            program,
            folder,
        })
    }

    /// What makes connections under that name.
    fn load(&self) -> Vec<OsString> {
        vec![
            self.program.clone().into(),
            EVIL.into(),
            self.group.word().to_owned(),
            self.netns.path().into(),
        ]
    }

    fn run_load(&self) -> Result<()> {
        let words = self.load();
        let status = Command::new(&words[0]).args(&words[1..]).status()?;
        ensure!(status.success(), "the load ended with {status}");
        Ok(())
    }

    /// `twtrace`, which sees the namespace by that name.
    fn twtrace(&self, words: &[&OsStr]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(NAMED)
            .arg(self.netns.path())
            .arg(file_name())
            .arg(twtrace::binary())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// To its end.
    fn says(&self, words: &[&OsStr]) -> Result<String> {
        let output = self.twtrace(words)?.output()?;
        clean(words, &output)
    }

    /// Under load until it has printed all of these, and then to its end.
    fn says_under_load(&self, words: &[&str], wanted: &[&str]) -> Result<String> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let mut child = self.twtrace(&words)?.spawn()?;
        let (said, reader) = listen(&mut child)?;
        let met = truth::wait("what a name looks like", PATIENCE, || {
            self.run_load()?;
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let text = String::from_utf8_lossy(&said);
            let missing = wanted.iter().find(|wanted| !text.contains(**wanted));
            Ok(match missing {
                None => Ok(()),
                Some(missing) => {
                    let last: Vec<&str> = text.lines().rev().take(60).collect();
                    Err(format!("{words:?} does not say {missing:?}: {last:#?}"))
                }
            })
        });
        kill_process(Pid::from_child(&child), Signal::INT)?;
        let mut output = child.wait_with_output()?;
        reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        met.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        output.stdout = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        clean(&words, &output)
    }
}

type Said = Arc<Mutex<Vec<u8>>>;

fn listen(child: &mut Child) -> Result<(Said, thread::JoinHandle<()>)> {
    let mut stdout = child.stdout.take().context("no stdout")?;
    let said = Said::default();
    let heard = Arc::clone(&said);
    let reader = thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        while let Ok(n @ 1..) = stdout.read(&mut bytes) {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.extend_from_slice(&bytes[..n]);
        }
    });
    Ok((said, reader))
}

/// Standard output and errors, neither of which holds anything that steers.
fn clean(words: &[&OsStr], output: &Output) -> Result<String> {
    for bytes in [&output.stdout, &output.stderr] {
        if let Some(fault) = fault(bytes, &[]) {
            bail!("{words:?}: {fault}");
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.code().is_some_and(|code| code != 2),
        "{words:?} ended with {}: {}",
        output.status,
        text(&output.stderr)
    );
    Ok(text(&output.stdout) + &text(&output.stderr))
}

fn must_say(said: &str, wanted: &str) -> Result<()> {
    ensure!(said.contains(wanted), "{wanted:?} is not in: {said}");
    Ok(())
}

pub(crate) fn of_others_do_not_steer_the_terminal() -> Outcome {
    let scene = Scene::new()?;
    let group = format!("/{NAME_SHOWN}");
    let grouped = |shown: &'static str| -> Vec<String> {
        let known = scene.group.0.is_some().then(|| group.clone());
        known.into_iter().chain([shown.to_owned()]).collect()
    };
    let owner = grouped(COMM_SHOWN);
    let owner: Vec<&str> = owner.iter().map(String::as_str).collect();

    let live = ["live", "--plain", "--interval", "200ms", "--netns", "all"];
    scene.says_under_load(&live, &[&owner[..], &[" n\u{fffd}[2\u{2026}"]].concat())?;
    scene.says_under_load(&["events", "--netns", "all"], &[COMM_SHOWN])?;

    let name = file_name();
    let own = comm().to_str()?;
    let only = [
        "live",
        "--plain",
        "--interval",
        "200ms",
        "--netns",
        &name,
        "--comm",
        own,
    ];
    let scope = format!("netns {NAME_SHOWN}");
    scene.says_under_load(&only, &[&*scope, "only comm ev\u{fffd}[2J"])?;

    // JSON has the name itself.
    let is_said = |line: &str, of: &dyn Fn(&Value) -> Value| -> Result<()> {
        let value: Value = serde_json::from_str(line)?;
        let said = of(&value);
        ensure!(said == own, "{said} is not {own:?}: {line}");
        Ok(())
    };
    let escaped = r"ev\u001b[2J\u009b\u202e\ufeff\n";
    let live = ["live", "--json", "--interval", "200ms", "--netns", &name];
    let said = scene.says_under_load(&live, &[escaped])?;
    let last = said.lines().last().context("no snapshot")?;
    is_said(last, &|snapshot| snapshot["owners"][0]["comm"].clone())?;
    let events = ["events", "--json", "--netns", &name];
    let said = scene.says_under_load(&events, &[escaped])?;
    let told = said.lines().find(|line| line.contains(escaped));
    let one = told.context("no such event")?;
    if one.contains("\"comm\"") && !one.contains("\"by\"") {
        is_said(one, &|event| event["comm"].clone())?;
    }

    let file = scene.folder.path().join(format!("{name}.jsonl"));
    let load = scene.load();
    let mut record: Vec<&OsStr> = ["record", "--events", "--netns", "all", "-o"]
        .map(OsStr::new)
        .to_vec();
    record.extend([file.as_os_str(), OsStr::new("--")]);
    record.extend(load.iter().map(OsString::as_os_str));
    must_say(&scene.says(&record)?, NAME_SHOWN)?;
    // Nor does the file itself, which somebody may well have printed.
    if let Some(fault) = fault(&fs::read(&file)?, &[]) {
        bail!("in the recording, {fault}");
    }
    let report = scene.says(&[OsStr::new("report"), file.as_os_str()])?;
    for wanted in [COMM_SHOWN, NAME_SHOWN] {
        must_say(&report, wanted)?;
    }
    scene.says(
        &["report", "--json"]
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([file.as_os_str()])
            .collect::<Vec<_>>(),
    )?;
    let refused = scene
        .twtrace(&[OsStr::new("compare"), file.as_os_str()])?
        .output()?;
    ensure!(
        fault(&refused.stderr, &[]).is_none() && refused.status.code() == Some(2),
        "{refused:?}"
    );

    let doctor = scene.says(&["doctor", "--duration", "200ms"].map(OsStr::new))?;
    must_say(&doctor, NAME_SHOWN)?;
    scene.says(&["doctor", "--json", "--duration", "200ms"].map(OsStr::new))?;
    must_say(
        &scene.says(&["explain", "tcp_tw_reuse"].map(OsStr::new))?,
        NAME_SHOWN,
    )?;
    Ok(Verdict::Held)
}
