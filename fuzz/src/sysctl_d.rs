//! What the next boot will set.

use tracer::kernel::sysctl_d::{Files, Program};
use tracer::knowledge::sysctls;

/// The files of sysctl.d: the first byte says which program reads them, a NUL
/// begins the next file, and the last one is `/etc/sysctl.conf`. What a key will
/// be set to stands where it is said to stand, and a pattern alone sets what
/// glob(7) says it does.
pub fn sysctl_d(bytes: &[u8]) {
    let Some((&program, bytes)) = bytes.split_first() else {
        return;
    };
    let program = if program.is_multiple_of(2) {
        Program::SystemdSysctl
    } else {
        Program::Procps
    };
    let text = String::from_utf8_lossy(bytes);
    let mut texts: Vec<&str> = text.split('\0').collect();
    let conf = (texts.len() > 1).then(|| texts.pop()).flatten();
    let named = texts
        .iter()
        .zip(0..)
        .map(|(text, n)| (format!("/{n}.conf"), (*text).to_owned()));
    let files = Files::of(program, named, conf);
    for key in sysctls::ALL.iter().map(|sysctl| sysctl.name) {
        for setting in [files.setting(key), files.unread_setting(key)]
            .into_iter()
            .flatten()
        {
            let text = match setting
                .file
                .strip_prefix("/")
                .and_then(|name| name.split('.').next())
            {
                Some("etc/sysctl") => conf.expect("a file that is there"),
                Some(n) => texts[n.parse::<usize>().expect("one of the files")],
                None => panic!("{} is no path", setting.file),
            };
            let line = text.lines().nth(setting.line as usize - 1);
            let line = line.unwrap_or_else(|| panic!("{} is no line", setting.place()));
            let (_, value) = line.split_once('=').expect("an assignment");
            let words: Vec<&str> = value.split_whitespace().collect();
            assert_eq!(setting.value, words.join(" "), "{}", setting.place());
        }
    }
    // Each line is quickly read alone; that there are many is no other matter.
    for line in texts.iter().flat_map(|text| text.lines()).take(16) {
        alone(program, line);
    }
}

fn alone(program: Program, line: &str) {
    let file = ("/a.conf".to_owned(), line.to_owned());
    let files = Files::of(program, [file], None);
    let line = line.trim();
    let assigned = line.strip_prefix('-').unwrap_or(line).split_once('=');
    let comment = line.starts_with(['#', ';']);
    let pattern = assigned
        .filter(|_| !comment)
        .map(|(key, _)| sysctls::dotted(key.trim()));
    for key in sysctls::ALL.iter().map(|sysctl| sysctl.name) {
        let expected = pattern
            .as_ref()
            .is_some_and(|pattern| pattern == key || glob(pattern, key));
        assert_eq!(files.setting(key).is_some(), expected, "{line:?} and {key}");
    }
}

/// glob(7) by its definition, of paths with dots.
fn glob(pattern: &str, key: &str) -> bool {
    let words = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, key) = (words(pattern), words(key));
    pattern.len() == key.len()
        && pattern
            .iter()
            .zip(&key)
            .all(|(pattern, word)| glob_word(pattern.as_bytes(), word.as_bytes()))
}

/// The lengths of all beginnings of the word that the pattern matches so far.
fn glob_word(mut pattern: &[u8], word: &[u8]) -> bool {
    let mut reached = vec![false; word.len() + 1];
    reached[0] = true;
    while let Some((&first, rest)) = pattern.split_first() {
        pattern = rest;
        if first == b'*' {
            let from = reached.iter().position(|&it| it).unwrap_or(reached.len());
            reached[from..].fill(true);
            continue;
        }
        let mut allowed = [false; 256];
        match first {
            b'?' => allowed.fill(true),
            b'[' => match closing(rest) {
                Some(end) => {
                    allowed = set(&rest[..end]);
                    pattern = &rest[end + 1..];
                }
                None => allowed[usize::from(first)] = true,
            },
            _ => allowed[usize::from(first)] = true,
        }
        for at in (0..word.len()).rev() {
            reached[at + 1] = reached[at] && allowed[usize::from(word[at])];
        }
        reached[0] = false;
    }
    reached[word.len()]
}

/// A bracket that comes first, or after a negation, closes no set.
fn closing(rest: &[u8]) -> Option<usize> {
    (1..rest.len()).find(|&at| rest[at] == b']')
}

fn set(members: &[u8]) -> [bool; 256] {
    let (negated, mut members) = match members {
        [b'!' | b'^', members @ ..] => (true, members),
        _ => (false, members),
    };
    let mut allowed = [negated; 256];
    loop {
        members = match members {
            [from, b'-', to, rest @ ..] => {
                for byte in *from..=*to {
                    allowed[usize::from(byte)] = !negated;
                }
                rest
            }
            [one, rest @ ..] => {
                allowed[usize::from(*one)] = !negated;
                rest
            }
            [] => return allowed,
        };
    }
}
