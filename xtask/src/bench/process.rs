//! The processes of a benchmark: those we talk with line by line, what /proc
//! says of them, and their orderly end. It refuses to know what they measure.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::machine::{TICKS_PER_S, read};

/// For whatever a process owes us.
const PATIENCE: Duration = Duration::from_secs(120);

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
        }
    }
}

/// Kernel-wide numbers of eBPF objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) programs: BTreeSet<u64>,
    pub(crate) maps: BTreeSet<u64>,
}

impl Holdings {
    /// A file of /proc/PID/fdinfo; those of other descriptors have no such lines.
    fn add(&mut self, info: &str) {
        for line in info.lines() {
            let Some((key, Ok(id))) = line
                .split_once(':')
                .map(|(key, value)| (key, value.trim().parse()))
            else {
                continue;
            };
            match key {
                "prog_id" => self.programs.insert(id),
                "map_id" => self.maps.insert(id),
                _ => continue,
            };
        }
    }
}

/// A started process; killed and reaped when the value goes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: String,
    stdin: Option<ChildStdin>,
    lines: Option<Receiver<String>>,
}

impl Process {
    /// One whose lines of JSON are read, and which is asked through its stdin.
    pub(crate) fn talking(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let stdout = process.child.stdout.take().context("it has no stdout")?;
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        process.stdin = process.child.stdin.take();
        process.lines = Some(lines);
        Ok(process)
    }

    /// One whose output goes nowhere.
    pub(crate) fn silent(command: &mut Command) -> Result<Self> {
        Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    fn start(command: &mut Command) -> Result<Self> {
        let said = format!("{command:?}");
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {said}"))?;
        Ok(Process {
            child,
            said,
            stdin: None,
            lines: None,
        })
    }

    pub(crate) fn ask(&mut self, line: &str) -> Result<Value> {
        let stdin = self.stdin.as_mut().context("this process is not asked")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} does not listen", self.said))?;
        self.line()
    }

    /// The next line, waited for.
    pub(crate) fn line(&mut self) -> Result<Value> {
        match self.lines()?.recv_timeout(PATIENCE) {
            Ok(line) => self.parse(&line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} said nothing for {PATIENCE:?}", self.said)
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("{} ended too early; its error stands above", self.said)
            }
        }
    }

    /// The last of the lines that are there.
    pub(crate) fn last_line(&mut self) -> Result<Option<Value>> {
        let last = self.lines()?.try_iter().last();
        last.map(|line| self.parse(&line)).transpose()
    }

    fn lines(&self) -> Result<&Receiver<String>> {
        self.lines
            .as_ref()
            .context("this process is not listened to")
    }

    fn parse(&self, line: &str) -> Result<Value> {
        serde_json::from_str(line).with_context(|| format!("{} wrote no JSON: {line:?}", self.said))
    }

    /// The end of its input, and then its own.
    pub(crate) fn end_of_input(mut self) -> Result<()> {
        self.stdin = None;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} failed ({status})", self.said);
        }
        Ok(())
    }

    /// SIGINT, and SIGKILL for what does not heed it within ten seconds. What it
    /// said to the last, if it is listened to.
    #[expect(clippy::disallowed_methods, reason = "a deadline")]
    pub(crate) fn interrupt(mut self) -> Result<Option<Value>> {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .with_context(|| format!("cannot interrupt {}", self.said))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut last = None;
        loop {
            // Before the wait: nothing that it said is missed then.
            let ended = self.child.try_wait()?.is_some();
            if let Some(lines) = &self.lines {
                if ended {
                    // Until its pipe is closed, which may be a moment later.
                    last = lines.iter().last().or(last);
                } else {
                    last = lines.try_iter().last().or(last);
                }
            }
            if ended || Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        last.map(|line| self.parse(&line)).transpose()
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        parse_cpu(&read(&format!("/proc/{}/stat", self.child.id()))?)
            .with_context(|| format!("cannot read the CPU time of {}", self.said))
    }

    /// The eBPF objects it holds descriptors of.
    pub(crate) fn holds(&self) -> Result<Holdings> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let mut holdings = Holdings::default();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            // A descriptor closed meanwhile is held no more.
            if let Ok(info) = fs::read_to_string(entry?.path()) {
                holdings.add(&info);
            }
        }
        Ok(holdings)
    }

    /// The most memory it ever had resident.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        read(&path)?
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|size| size.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| anyhow!("{path} has no VmHWM: {} has ended", self.said))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail harmlessly for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// utime and stime of /proc/PID/stat; the name before them may hold anything.
fn parse_cpu(stat: &str) -> Option<Cpu> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || Some(words.next()?.parse::<f64>().ok()? / TICKS_PER_S);
    Some(Cpu {
        user: seconds()?,
        system: seconds()?,
    })
}

/// `command` through the shell, and in its place, so that its pid is the one we
/// know.
pub(crate) fn shell(command: &str, netns: &Path, inode: u64) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {command}")])
        .env("NETNS", netns)
        .env("NETNS_INODE", inode.to_string());
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 100 0 0 0 250 75 3 4 20 0 1 0 99 1 2";
        let cpu = parse_cpu(stat).expect("a line of /proc/PID/stat");
        assert_eq!(
            cpu,
            Cpu {
                user: 2.5,
                system: 0.75
            }
        );
        assert_eq!(parse_cpu("12 (a) S 1"), None);
    }

    #[test]
    fn what_is_held_is_told_by_programs_links_and_maps() {
        let mut holdings = Holdings::default();
        holdings.add("pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_id:\t17\nrun_cnt:\t4\n");
        holdings.add("link_type:\ttracing\nlink_id:\t5\nprog_id:\t17\n");
        holdings.add("map_type:\t27\nmap_id:\t9\n");
        holdings.add("pos:\t0\nflags:\t02\n");
        assert_eq!(holdings.programs, BTreeSet::from([17]));
        assert_eq!(holdings.maps, BTreeSet::from([9]));
    }

    #[test]
    fn a_process_is_asked_and_ended() {
        let mut cat = Process::talking(&mut Command::new("cat")).expect("cat starts");
        assert_eq!(cat.ask("[1]").expect("an answer"), serde_json::json!([1]));
        assert!(cat.peak_kib().expect("it lives") > 0);
        cat.end_of_input().expect("it ends well");
    }

    #[test]
    fn what_is_said_at_the_end_is_heard() {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "trap 'echo 2; exit' INT; echo 1; while :; do sleep 0.01; done",
        ]);
        let mut shell = Process::talking(&mut shell).expect("sh starts");
        assert_eq!(shell.line().expect("a line"), 1);
        let last = shell.interrupt().expect("it ends");
        assert_eq!(last, Some(serde_json::json!(2)));
    }
}
