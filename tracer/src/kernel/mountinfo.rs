//! The lines of `/proc/PID/mountinfo` (proc(5)): what is mounted where. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The part of the file system that is mounted; for a namespace `net:[INODE]`.
    pub root: PathBuf,
    pub point: PathBuf,
    pub kind: String,
}

/// Mounts in the order of the file; lines of another form are passed over.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields = line.split(|&b| b == b' ');
        let root = path(fields.nth(3)?);
        let point = path(fields.next()?);
        // Optional fields end with a hyphen of its own.
        fields.find(|field| *field == b"-")?;
        let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
        Some(Mount { root, point, kind })
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'\\').then(|| tail.get(..3)).flatten();
        match escaped.and_then(octal) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    // A number may begin with a sign, an escape may not.
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_namespaces_cgroups_and_escapes() {
        let text = b"\
24 30 0:22 / /proc rw,nosuid - proc proc rw
31 24 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
77 25 0:4 net:[4026532281] /run/netns/a\\040b rw shared:5 master:2 - nsfs nsfs rw
broken line
78 25 0:4 / /x\\9 rw
";
        let mounts: Vec<Mount> = parse(text).collect();
        let shown: Vec<(&str, &str, &str)> = mounts
            .iter()
            .map(|m| {
                (
                    m.root.to_str().unwrap(),
                    m.point.to_str().unwrap(),
                    m.kind.as_str(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("/", "/proc", "proc"),
                ("/", "/sys/fs/cgroup/unified", "cgroup2"),
                ("net:[4026532281]", "/run/netns/a b", "nsfs"),
            ]
        );
    }

    #[test]
    fn a_backslash_without_octal_digits_stays() {
        assert_eq!(path(b"/a\\9\\04"), PathBuf::from("/a\\9\\04"));
        assert_eq!(path(b"/a\\134b"), PathBuf::from("/a\\b"));
        assert_eq!(path(b"/a\\+12"), PathBuf::from("/a\\+12"));
    }
}
