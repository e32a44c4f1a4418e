//! What the next boot will set: the files of sysctl.d, in the order in which
//! systemd-sysctl or `sysctl --system` applies them.
//!
//! Reading is one thing and resolving another: [`Files`] is pure once it is
//! made. docs/sysctls.md, "Which file wins", has the rules;
//! `tracer/tests/kernel/sysctl_d.rs` holds them to what both programs do.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use super::open;
use crate::knowledge::sysctls::dotted;

/// The first that has a file of some name hides those of that name in the others.
const DIRECTORIES: [&str; 5] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
    "lib/sysctl.d",
];

const SYSCTL_CONF: &str = "etc/sysctl.conf";

/// Which program sets sysctls at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    SystemdSysctl,
    /// `sysctl --system`, of procps, run by whatever starts the host.
    Procps,
}

impl Program {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Program::SystemdSysctl => "systemd-sysctl",
            Program::Procps => "sysctl --system",
        }
    }
}

/// An assignment, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Blanks in one.
    pub value: String,
    pub file: String,
    /// From 1.
    pub line: u32,
}

impl Setting {
    /// `/etc/sysctl.d/tune.conf:3`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    /// With dots; may be a pattern.
    key: String,
    /// `None`: patterns are not to set this key.
    setting: Option<Setting>,
}

/// All that is set at boot.
#[derive(Clone, Debug)]
pub struct Files {
    pub program: Program,
    /// Those that are read, in their order.
    pub read: Vec<String>,
    assignments: Vec<Assignment>,
    /// Of a file that is there and that nobody reads.
    unread: Vec<Assignment>,
}

impl Files {
    /// Of the host whose files lie below `root`.
    #[must_use]
    pub fn find(root: &Path) -> Files {
        // What sd_booted(3) looks at.
        let program = if root.join("run/systemd/system").is_dir() {
            Program::SystemdSysctl
        } else {
            Program::Procps
        };
        Files::read_for(program, root)
    }

    /// As that program would read them.
    #[must_use]
    pub fn read_for(program: Program, root: &Path) -> Files {
        let mut by_name = BTreeMap::new();
        for directory in DIRECTORIES {
            let entries = fs::read_dir(root.join(directory)).into_iter().flatten();
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".conf") {
                    by_name
                        .entry(name.clone())
                        .or_insert_with(|| format!("{directory}/{name}"));
                }
            }
        }
        let text = |path: &str| io::read_to_string(open::regular(&root.join(path)).ok()?).ok();
        let texts = by_name
            .into_values()
            .filter_map(|path| Some((format!("/{path}"), text(&path)?)));
        Files::of(program, texts, text(SYSCTL_CONF).as_deref())
    }

    /// Of the paths and texts of files in their order, and of the text of
    /// `/etc/sysctl.conf` where there is one.
    #[must_use]
    pub fn of(
        program: Program,
        texts: impl IntoIterator<Item = (String, String)>,
        sysctl_conf: Option<&str>,
    ) -> Files {
        let mut files = Files {
            program,
            read: Vec::new(),
            assignments: Vec::new(),
            unread: Vec::new(),
        };
        for (path, text) in texts {
            parse(&text, &path, &mut files.assignments);
            files.read.push(path);
        }
        if let Some(text) = sysctl_conf {
            let path = format!("/{SYSCTL_CONF}");
            match program {
                Program::Procps => {
                    parse(text, &path, &mut files.assignments);
                    files.read.push(path);
                }
                Program::SystemdSysctl => parse(text, &path, &mut files.unread),
            }
        }
        files
    }

    /// What a key, named in full with dots, will be set to; `None`: nothing.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        let named = self.assignments.iter().rev().find(|a| a.key == key);
        match named {
            Some(named) => named.setting.as_ref(),
            None => self
                .assignments
                .iter()
                .rev()
                .filter(|a| is_pattern(&a.key) && matches(&a.key, key))
                .find_map(|a| a.setting.as_ref()),
        }
    }

    /// Where a key is set without effect, since nobody reads that file.
    #[must_use]
    pub fn unread_setting(&self, key: &str) -> Option<&Setting> {
        let named = self.unread.iter().rev().find(|a| a.key == key)?;
        named.setting.as_ref()
    }

    /// Whether a file sets any of the keys.
    #[must_use]
    pub fn sets_any(&self, file: &str, keys: &[&str]) -> bool {
        self.assignments.iter().any(|a| {
            keys.contains(&a.key.as_str()) && a.setting.as_ref().is_some_and(|s| s.file == file)
        })
    }
}

fn parse(text: &str, file: &str, into: &mut Vec<Assignment>) {
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (silent, line) = match line.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None if silent => (line, None),
            // Neither program makes anything of it.
            None => continue,
        };
        into.push(Assignment {
            key: dotted(key.trim()),
            setting: value.map(|value| Setting {
                value: value.split_whitespace().collect::<Vec<_>>().join(" "),
                file: file.to_owned(),
                line: number,
            }),
        });
    }
}

fn is_pattern(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

/// As glob(7) matches paths: no wildcard stands for a separator.
fn matches(pattern: &str, key: &str) -> bool {
    let words = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, key) = (words(pattern), words(key));
    pattern.len() == key.len()
        && pattern
            .iter()
            .zip(&key)
            .all(|(pattern, word)| matches_word(pattern.as_bytes(), word.as_bytes()))
}

/// Takes time in proportion to both lengths: a file may hold any pattern.
fn matches_word(mut pattern: &[u8], mut word: &[u8]) -> bool {
    // What follows the last star, and the bytes that the star has not taken.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = pattern.split_first() {
            pattern = rest;
            star = Some((rest, word));
        } else if let Some(rest) = after_one(pattern, word) {
            (pattern, word) = (rest, &word[1..]);
        } else if pattern.is_empty() && word.is_empty() {
            return true;
        } else {
            // What an earlier star could take besides, the last one can as well.
            let Some((rest, [_, left @ ..])) = star else {
                return false;
            };
            star = Some((rest, left));
            (pattern, word) = (rest, left);
        }
    }
}

/// The pattern after what the first byte of the word matches; a star is not asked.
fn after_one<'a>(pattern: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (&byte, (&first, rest)) = (word.first()?, pattern.split_first()?);
    let set = || {
        let end = rest.iter().skip(1).position(|&b| b == b']')? + 1;
        Some((&rest[..end], &rest[end + 1..]))
    };
    let (matches, rest) = match first {
        b'?' => (true, rest),
        b'[' => match set() {
            Some(([b'!' | b'^', set @ ..], rest)) => (!is_in_set(set, byte), rest),
            Some((set, rest)) => (is_in_set(set, byte), rest),
            None => (byte == b'[', rest),
        },
        _ => (first == byte, rest),
    };
    matches.then_some(rest)
}

fn is_in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [from, b'-', to, rest @ ..] => {
                if (*from..=*to).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REUSE: &str = "net.ipv4.tcp_tw_reuse";

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn value(files: &[(&str, &str)], program: Program, key: &str) -> Option<String> {
        let root = host(files);
        let files = Files::read_for(program, root.path());
        files.setting(key).map(|setting| setting.value.clone())
    }

    #[test]
    fn the_last_name_wins_and_the_first_directory_of_one_name() {
        let files = [
            ("usr/lib/sysctl.d/50-a.conf", "net.ipv4.tcp_tw_reuse = 0"),
            ("etc/sysctl.d/40-b.conf", "net/ipv4/tcp_tw_reuse=1\n"),
            (
                "run/sysctl.d/50-a.conf",
                "# none\n; none\n\nnet.ipv4.tcp_tw_reuse =  2 ",
            ),
            ("etc/sysctl.d/60-c.txt", "net.ipv4.tcp_tw_reuse = 9"),
        ];
        assert_eq!(
            value(&files, Program::SystemdSysctl, REUSE),
            Some("2".into())
        );
        let root = host(&files);
        let setting = Files::read_for(Program::Procps, root.path());
        let setting = setting.setting(REUSE).unwrap();
        assert_eq!(
            (setting.file.as_str(), setting.line),
            ("/run/sysctl.d/50-a.conf", 4)
        );
    }

    #[test]
    fn only_procps_reads_sysctl_conf() {
        let files = [
            ("etc/sysctl.conf", "net.ipv4.tcp_tw_reuse=1"),
            ("etc/sysctl.d/99-z.conf", "net.ipv4.tcp_tw_reuse=0"),
        ];
        assert_eq!(value(&files, Program::Procps, REUSE), Some("1".into()));
        assert_eq!(
            value(&files, Program::SystemdSysctl, REUSE),
            Some("0".into())
        );
        let root = host(&files[..1]);
        let files = Files::read_for(Program::SystemdSysctl, root.path());
        assert_eq!(files.setting(REUSE), None);
        assert_eq!(files.unread_setting(REUSE).unwrap().value, "1");
    }

    #[test]
    fn a_link_to_nothing_hides_a_file() {
        let root = host(&[("usr/lib/sysctl.d/50-a.conf", "net.ipv4.tcp_tw_reuse=1")]);
        fs::create_dir_all(root.path().join("etc/sysctl.d")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/sysctl.d/50-a.conf"))
            .unwrap();
        assert_eq!(
            Files::read_for(Program::Procps, root.path()).setting(REUSE),
            None
        );
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let root = host(&[("etc/sysctl.d/60-c.conf", "net.ipv4.tcp_tw_reuse=1")]);
        let fifo = root.path().join("etc/sysctl.d/70-d.conf");
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, rustix::fs::Mode::RUSR).unwrap();
        let files = Files::read_for(Program::Procps, root.path());
        assert_eq!(files.read, ["/etc/sysctl.d/60-c.conf"]);
    }

    #[test]
    fn patterns_leave_alone_what_is_named_or_excluded() {
        let text = "\
net.ipv4.tcp_tw_* = 1
-net.ipv4.tcp_fin_timeout = 30
net.ipv4.tcp_[f]in_timeout = 20
-net.ipv4.tcp_rfc1337
net.ipv4.tcp_rfc???? = 1
net.ipv4.tcp_tw_reuse_delay = 500
";
        let files = [("etc/sysctl.d/a.conf", text)];
        for (key, expected) in [
            ("net.ipv4.tcp_tw_reuse", Some("1")),
            ("net.ipv4.tcp_tw_reuse_delay", Some("500")),
            ("net.ipv4.tcp_fin_timeout", Some("30")),
            ("net.ipv4.tcp_rfc1337", None),
            ("net.ipv4.conf.tcp_tw_x", None),
        ] {
            assert_eq!(
                value(&files, Program::SystemdSysctl, key).as_deref(),
                expected,
                "{key}"
            );
        }
    }

    #[test]
    fn many_stars_cost_no_more_time_and_no_stack() {
        let word = "tcp_slow_start_after_idle_tcp_slow_start";
        let slow = "*_".repeat(12) + "x";
        assert!(!matches_word(slow.as_bytes(), word.as_bytes()));
        assert!(matches_word("*".repeat(1 << 20).as_bytes(), b""));
    }

    #[test]
    fn words_match_as_in_glob() {
        for (pattern, word, does) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("?", "", false),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxa", false),
            ("a**", "a", true),
            ("x*[0-9]", "xx7", true),
        ] {
            assert_eq!(
                matches_word(pattern.as_bytes(), word.as_bytes()),
                does,
                "{pattern} {word}"
            );
        }
    }
}
