//! The network namespaces of the host: finding them, and running something in one.
//!
//! The kernel keeps no list that userspace may read, so namespaces are found by
//! what holds them: processes, threads, bind mounts, open descriptors. One that
//! nothing but an open socket keeps alive is not found; its events are seen all
//! the same. A namespace is entered only by a short-lived thread of its own, so
//! that no other thread ever finds itself elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{mountinfo, open};

/// Where iproute2 keeps the namespaces it names.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace and a way into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Of its nsfs file: what `ls -l /proc/self/ns/net` and `struct net` show.
    pub inode: u32,
    /// Leads there as long as what holds it there does.
    pub way: Way,
    /// As `ip netns` calls it, where it has such a name.
    pub name: Option<String>,
    /// As [`cookie`]. Where it is known, no other that has come by the inode
    /// since is entered.
    pub cookie: Option<u64>,
}

/// A way into a network namespace. Other people make paths, and exchange what
/// they lead to: neither is opened before it is known to be a namespace's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A link of `/proc`, or what the user named: followed to its end.
    Link(PathBuf),
    /// What is mounted at `point` for processes whose root directory is `root`:
    /// no link is followed.
    Mount { root: PathBuf, point: PathBuf },
}

impl Way {
    fn find(&self) -> io::Result<open::Found> {
        match self {
            Way::Link(path) => open::namespace(path),
            Way::Mount { root, point } => open::mounted_namespace(root, point),
        }
    }
}

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Processes and this mount namespace's bind mounts: one `readlink` a
    /// process, fit for once a second.
    Quick,
    /// Also threads, bind mounts of other mount namespaces, and every open
    /// descriptor of the host: for the start and for a resync.
    Everywhere,
}

/// Every network namespace that can be found, by inode. Processes that vanish
/// meanwhile, and those one may not look into, are passed over; only a `/proc`
/// that cannot be listed is an error.
pub fn enumerate(search: Search) -> io::Result<Vec<Namespace>> {
    let mut found = Found::default();
    found.bind_mounts(Path::new("/proc/self/mountinfo"), Path::new("/"));
    let mut mount_namespaces: HashSet<u64> =
        inode_of("/proc/self/ns/mnt", "mnt").into_iter().collect();
    let everywhere = search == Search::Everywhere;
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if entry
            .file_name()
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
        {
            processes.push(entry.path());
        }
    }
    for process in &processes {
        found.link(process.join("ns/net"));
    }
    if everywhere {
        for process in &processes {
            let mount = inode_of(process.join("ns/mnt"), "mnt");
            if mount.is_some_and(|inode| mount_namespaces.insert(inode)) {
                found.bind_mounts(&process.join("mountinfo"), &process.join("root"));
            }
        }
        for process in &processes {
            for entry in fs::read_dir(process.join("fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                found.link(entry.path());
            }
        }
        // Last, as the least lasting way in: whoever looks into namespaces, as
        // this program does, visits them with threads that end at once.
        for process in &processes {
            found.threads(process);
        }
    }
    Ok(found.by_inode.into_values().collect())
}

#[derive(Default)]
struct Found {
    by_inode: BTreeMap<u32, Namespace>,
}

impl Found {
    /// Keeps the first way in; a name is taken from whoever knows one.
    fn add(&mut self, inode: u32, way: Way, name: Option<String>) {
        let namespace = self.by_inode.entry(inode).or_insert_with(|| Namespace {
            inode,
            way,
            name: None,
            cookie: None,
        });
        if namespace.name.is_none() {
            namespace.name = name;
        }
    }

    fn link(&mut self, path: PathBuf) {
        if let Some(inode) = inode_of(&path, "net") {
            self.add(inode as u32, Way::Link(path), None);
        }
    }

    fn threads(&mut self, process: &Path) {
        let tasks = process.join("task");
        // A directory has two links and one for each directory in it.
        if fs::metadata(&tasks).is_ok_and(|m| m.nlink() == 3) {
            return;
        }
        for task in fs::read_dir(&tasks).into_iter().flatten().flatten() {
            self.link(task.path().join("ns/net"));
        }
    }

    /// `root` is where the mount namespace of that file begins for us.
    fn bind_mounts(&mut self, mountinfo: &Path, root: &Path) {
        let Ok(text) = fs::read(mountinfo) else {
            return;
        };
        for mount in mountinfo::parse(&text) {
            if mount.kind != "nsfs" {
                continue;
            }
            let Some(inode) = inode_in(mount.root.as_os_str(), "net") else {
                continue;
            };
            let way = Way::Mount {
                root: root.to_owned(),
                point: mount.point.clone(),
            };
            // Another mount may lie on top of it.
            if way.find().is_ok_and(|found| found.inode == inode) {
                let named = mount
                    .point
                    .parent()
                    .is_some_and(|dir| NAMED.iter().any(|n| dir == *n));
                let name = mount.point.file_name().filter(|_| named);
                self.add(
                    inode as u32,
                    way,
                    name.map(|n| n.to_string_lossy().into_owned()),
                );
            }
        }
    }
}

/// The inode of the namespace of process 1, the one that is set at boot.
#[must_use]
pub fn of_process_one() -> Option<u32> {
    u32::try_from(inode_of("/proc/1/ns/net", "net")?).ok()
}

fn inode_of(link: impl AsRef<Path>, kind: &str) -> Option<u64> {
    inode_in(fs::read_link(link).ok()?.as_os_str(), kind)
}

/// `net:[4026531840]` -> 4026531840.
fn inode_in(target: &OsStr, kind: &str) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix(kind)?
        .strip_prefix(":[")?
        .strip_suffix("]")?
        .parse()
        .ok()
}

/// The namespace of the calling thread.
pub fn current() -> io::Result<Namespace> {
    let path = PathBuf::from("/proc/thread-self/ns/net");
    let inode = inode_of(&path, "net")
        .ok_or_else(|| io::Error::other(format!("{} leads to no namespace", path.display())))?;
    Ok(Namespace {
        inode: inode as u32,
        way: Way::Link(path),
        name: None,
        cookie: None,
    })
}

/// What `--netns` asks for, this namespace and none that follows it: `None` is
/// every namespace. The error is a sentence.
pub fn resolve(choice: &str) -> Result<Option<Namespace>, String> {
    let mut only = look_up(choice)?;
    if let Some(only) = &mut only {
        only.cookie = cookie_of(only);
    }
    Ok(only)
}

fn look_up(choice: &str) -> Result<Option<Namespace>, String> {
    match choice {
        "all" => return Ok(None),
        "self" => {
            let here = current().map_err(|e| format!("cannot tell this network namespace: {e}"))?;
            // The path has to lead there from any thread.
            return Ok(Some(Namespace {
                way: Way::Link("/proc/self/ns/net".into()),
                ..here
            }));
        }
        _ => {}
    }
    if choice.contains('/') {
        return at_path(Path::new(choice), None).map(Some);
    }
    for directory in NAMED {
        let path = Path::new(directory).join(choice);
        if !choice.is_empty() && path.exists() {
            return at_path(&path, Some(choice.to_owned())).map(Some);
        }
    }
    let all = enumerate(Search::Everywhere).map_err(|e| format!("cannot list /proc: {e}"))?;
    if let Ok(inode) = choice.parse::<u32>() {
        return all
            .into_iter()
            .find(|n| n.inode == inode)
            .map(Some)
            .ok_or_else(|| {
                format!(
                    "no network namespace has inode {inode}; `lsns -t net` lists those there are"
                )
            });
    }
    let names: Vec<String> = all.into_iter().filter_map(|n| n.name).collect();
    let known = if names.is_empty() {
        "none has a name here (`ip netns add` gives one)".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    };
    Err(format!(
        "no network namespace is named {choice:?} under {}; {known}. \
         Give all, self, a name, a path or an inode number",
        NAMED[0]
    ))
}

const WRITE: &str = "name a file such as /proc/PID/ns/net";

fn at_path(path: &Path, name: Option<String>) -> Result<Namespace, String> {
    let way = Way::Link(path.to_owned());
    match within_way(&way, || current().map(|n| n.inode)).and_then(|inode| inode) {
        Ok(inode) => Ok(Namespace {
            inode,
            way,
            name,
            cookie: None,
        }),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(format!(
            "{} is no network namespace; {WRITE}",
            path.display()
        )),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(format!(
            "cannot enter the network namespace {}: {e}; run as root or grant cap_sys_admin",
            path.display()
        )),
        Err(e) => Err(format!(
            "cannot enter the network namespace {}: {e}; {WRITE}",
            path.display()
        )),
    }
}

/// Runs `f` in a namespace, on a thread that ends with it. A panic of `f` goes on
/// in the caller.
pub fn within<T: Send>(namespace: &Namespace, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    if is_here(namespace) {
        return Ok(f());
    }
    on_own_thread(|| {
        enter_this(namespace)?;
        Ok(f())
    })?
}

/// The same where only a way in is known, and not yet where it leads.
fn within_way<T: Send>(way: &Way, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(way, None)?;
        Ok(f())
    })?
}

/// Runs `f` in each of the namespaces in turn, all on one thread that ends with
/// the last. One that has gone, or can no longer be entered, is an error of its own.
pub fn visit<T: Send>(
    namespaces: &[Namespace],
    mut f: impl FnMut(&Namespace) -> T + Send,
) -> io::Result<Vec<io::Result<T>>> {
    if namespaces.iter().all(is_here) {
        return Ok(namespaces.iter().map(|n| Ok(f(n))).collect());
    }
    on_own_thread(|| {
        let enter_and_run = |n: &Namespace| {
            enter_this(n)?;
            Ok(f(n))
        };
        namespaces.iter().map(enter_and_run).collect()
    })
}

/// Whether the calling thread is there already and needs no other: a thread a
/// second is most of what an idle run would cost.
fn is_here(namespace: &Namespace) -> bool {
    inode_of("/proc/thread-self/ns/net", "net") == Some(u64::from(namespace.inode))
}

/// Whether the way to it still leads there. Where only the inode is known, to
/// enter it would tell no more.
#[must_use]
pub fn is_there(namespace: &Namespace) -> bool {
    if namespace.cookie.is_some() {
        return within(namespace, || ()).is_ok();
    }
    let found = namespace.way.find();
    found.is_ok_and(|found| found.inode == u64::from(namespace.inode))
}

/// [`cookie`] of a namespace; `None` too where it cannot be entered.
#[must_use]
pub fn cookie_of(namespace: &Namespace) -> Option<u64> {
    within(namespace, cookie).ok().flatten()
}

/// Which namespace the calling thread is in, for as long as the machine runs:
/// inodes are used again, cookies never are. `None` before 5.14.
#[must_use]
pub fn cookie() -> Option<u64> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the pointers are to a value of that
    // size and to its size.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut size,
        )
    };
    (answer == 0).then_some(cookie)
}

fn on_own_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Takes the calling thread into this namespace and no other.
fn enter_this(namespace: &Namespace) -> io::Result<()> {
    enter(&namespace.way, Some(namespace.inode))?;
    let Some(expected) = namespace.cookie else {
        return Ok(());
    };
    match cookie() {
        Some(here) if here == expected => Ok(()),
        Some(_) => Err(gone()),
        None => Err(io::Error::other(
            "cannot tell this network namespace's cookie",
        )),
    }
}

/// Takes the calling thread into a namespace. The descriptor is closed at once:
/// an open one would keep the namespace alive.
fn enter(way: &Way, inode: Option<u32>) -> io::Result<()> {
    let found = way.find();
    // A process id may have been used again since the way was found, and where
    // something was mounted may be something else.
    if let Some(inode) = inode
        && match &found {
            Ok(found) => found.inode != u64::from(inode),
            Err(error) => error.kind() == io::ErrorKind::InvalidInput,
        }
    {
        return Err(gone());
    }
    let found = found?;
    // Staying needs no capability. All namespaces are of one file system.
    if fs::metadata("/proc/thread-self/ns/net")?.ino() == found.inode {
        return Ok(());
    }
    Ok(move_into_link_name_space(
        found.open()?.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the network namespace has gone")
}

#[cfg(test)]
mod tests;
