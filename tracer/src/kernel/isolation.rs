//! Where this process stands apart from the machine: a PID namespace in which
//! processes have other numbers, a time namespace in which the clock has another
//! zero. The kernel side knows neither and reports as the machine has it.
//!
//! Read from `/proc` alone; it refuses to know what follows from it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode numbers that the kernel gives the namespaces it boots with
/// (`PROC_PID_INIT_INO`, `PROC_TIME_INIT_INO`).
const INITIAL_PID: u64 = 0xEFFF_FFFC;
const INITIAL_TIME: u64 = 0xEFFF_FFFA;

/// Whose processes `/proc` shows, and so whose numbers `ps` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// All of the machine's.
    All,
    /// Those of the PID namespace with this inode and of those below it.
    Of(u32),
    /// The error is a clause.
    Untold(String),
}

impl Processes {
    /// The PID namespace whose numbers are to be shown, where that is not the
    /// machine's.
    #[must_use]
    pub fn namespace(&self) -> Option<u32> {
        match self {
            Processes::Of(inode) => Some(*inode),
            Processes::All | Processes::Untold(_) => None,
        }
    }
}

/// Looks at `/proc`: it is that of the PID namespace it was mounted in, which
/// need not be the one that this process is in.
#[must_use]
pub fn processes() -> Processes {
    let others = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = others.filter_map(|entry| standing(&entry.path()).ok());
    processes_by(standing(Path::new("/proc/self")), others)
}

/// A process as a `/proc` shows it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// How many numbers it has, from the namespace of that `/proc` down to its own;
    /// 0 on a kernel without PID namespaces.
    numbers: usize,
    /// Inode of its own.
    namespace: u64,
}

fn standing(process: &Path) -> io::Result<Standing> {
    let status = fs::read_to_string(process.join("status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.map_or(0, |numbers| numbers.split_whitespace().count());
    let namespace = match numbers {
        0 => INITIAL_PID,
        _ => fs::metadata(process.join("ns/pid"))?.ino(),
    };
    Ok(Standing { numbers, namespace })
}

/// Pure. The namespace of `/proc` is that of whoever has but one number there: most
/// often this process itself.
fn processes_by(
    own: io::Result<Standing>,
    mut others: impl Iterator<Item = Standing>,
) -> Processes {
    let own = match own {
        Ok(own) => own,
        Err(error) => {
            return Processes::Untold(format!("/proc does not show this process: {error}"));
        }
    };
    let of = if own.numbers > 1 {
        others.find(|other| other.numbers == 1)
    } else {
        Some(own)
    };
    match of.map(|of| of.namespace) {
        Some(INITIAL_PID) => Processes::All,
        Some(inode) => match u32::try_from(inode) {
            Ok(inode) => Processes::Of(inode),
            Err(_) => Processes::Untold(format!("a PID namespace has the inode {inode}")),
        },
        None => Processes::Untold(
            "it is that of another PID namespace, none of whose processes can be looked into"
                .to_owned(),
        ),
    }
}

/// By how many nanoseconds `CLOCK_MONOTONIC` is ahead of the kernel's own. The
/// error is a clause.
pub fn clock_ahead() -> Result<i64, String> {
    clock_ahead_by(inode_at, || fs::read_to_string("/proc/self/timens_offsets"))
}

fn clock_ahead_by(
    inode: impl Fn(&str) -> io::Result<u64>,
    offsets: impl FnOnce() -> io::Result<String>,
) -> Result<i64, String> {
    const OWN: &str = "/proc/self/ns/time";
    let said = |error: io::Error| format!("the offset of this time namespace is not told: {error}");
    let own = match inode(OWN) {
        Ok(INITIAL_TIME) => return Ok(0),
        // Before 5.6, or a kernel built without.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        own => own.map_err(said)?,
    };
    // The file tells of the namespace that children will be in.
    if inode("/proc/self/ns/time_for_children").map_err(said)? != own {
        return Err(
            "the offset of this time namespace is not told, since children get another".to_owned(),
        );
    }
    let offsets = offsets().map_err(said)?;
    let monotonic = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, seconds, nanoseconds) = (words.next()?, words.next()?, words.next()?);
        let seconds: i64 = seconds.parse().ok()?;
        let nanoseconds: i64 = nanoseconds.parse().ok()?;
        let sum = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds);
        sum.filter(|_| name == "monotonic")
    });
    monotonic.ok_or_else(|| format!("the offset of this time namespace is not in {offsets:?}"))
}

fn inode_at(path: &str) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u64 = 4_026_532_178;

    /// What stands at `path`, and nothing anywhere else.
    fn only(path: &'static str, inode: u64) -> impl Fn(&str) -> io::Result<u64> {
        move |asked| match asked {
            _ if asked == path => Ok(inode),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    #[test]
    fn processes_are_told_by_where_proc_was_mounted() {
        let with = |numbers, namespace| Standing { numbers, namespace };
        let told = |own, others: &[Standing]| processes_by(Ok(own), others.iter().copied());
        assert_eq!(told(with(0, INITIAL_PID), &[]), Processes::All);
        assert_eq!(told(with(1, INITIAL_PID), &[]), Processes::All);
        assert_eq!(told(with(1, HERE), &[]), Processes::Of(HERE as u32));
        // In a namespace of its own, with the /proc of one above.
        let container = with(2, HERE + 1);
        let machine = [container, with(1, INITIAL_PID)];
        assert_eq!(told(with(2, HERE), &machine), Processes::All);
        let above = [container, with(1, HERE + 2)];
        assert_eq!(
            told(with(3, HERE), &above),
            Processes::Of((HERE + 2) as u32)
        );
        for untold in [
            told(with(2, HERE), &[container]),
            told(with(1, u64::MAX), &[]),
            processes_by(Err(io::ErrorKind::NotFound.into()), [].into_iter()),
        ] {
            assert!(matches!(untold, Processes::Untold(_)), "{untold:?}");
        }
    }

    #[test]
    fn the_clock_is_told_by_the_namespaces_offset() {
        const OFFSETS: &str = "monotonic      100000         7\nboottime            0         0\n";
        let in_one = |path: &str| match path {
            "/proc/self/ns/time" | "/proc/self/ns/time_for_children" => Ok(HERE),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let offset = |text: &str| clock_ahead_by(in_one, || Ok(text.to_owned()));
        assert_eq!(offset(OFFSETS), Ok(100_000_000_000_007));
        assert_eq!(
            offset("monotonic -10 500000000\nboottime 1 1\n"),
            Ok(-9_500_000_000)
        );
        for text in ["", "boottime 1 1\n", "monotonic x 0\n"] {
            assert!(offset(text).is_err(), "{text}");
        }
        let none = |_: &str| Err(io::ErrorKind::NotFound.into());
        assert_eq!(clock_ahead_by(none, || unreachable!()), Ok(0));
        let initial = only("/proc/self/ns/time", INITIAL_TIME);
        assert_eq!(clock_ahead_by(initial, || unreachable!()), Ok(0));
        let unshared = |path: &str| {
            Ok(if path.ends_with("time") {
                HERE
            } else {
                HERE + 1
            })
        };
        assert!(clock_ahead_by(unshared, || unreachable!()).is_err());
    }

    #[test]
    fn this_process_can_tell() {
        assert!(!matches!(processes(), Processes::Untold(_)));
        assert!(clock_ahead().is_ok());
    }
}
