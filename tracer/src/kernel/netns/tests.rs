//! Namespaces that each test makes for itself; they need root.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use crate::lab::mounts;

/// Moves the calling thread into a new network namespace.
fn leave() -> u32 {
    // SAFETY: only the network namespace of this thread changes; memory and
    // descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("this test makes a network namespace and needs root for it");
    current().unwrap().inode
}

fn link(namespace: &Namespace) -> &str {
    match &namespace.way {
        Way::Link(path) => path.to_str().unwrap(),
        Way::Mount { .. } => panic!("a link leads there: {namespace:?}"),
    }
}

fn find(search: Search, inode: u32) -> Option<Namespace> {
    enumerate(search)
        .unwrap()
        .into_iter()
        .find(|n| n.inode == inode)
}

#[test]
fn finds_its_own_namespace_quickly() {
    let here = current().unwrap();
    let found = find(Search::Quick, here.inode).expect("every process is in /proc");
    let seen = within(&found, || current().unwrap().inode).unwrap();
    assert_eq!(seen, here.inode);
}

#[test]
fn finds_a_namespace_by_a_descriptor_rather_than_by_a_thread() {
    let (tell, told) = mpsc::channel();
    let (open, opened) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        tell.send((leave(), None)).unwrap();
        opened.recv().unwrap();
        let descriptor = File::open("/proc/thread-self/ns/net").unwrap();
        tell.send((0, Some(descriptor))).unwrap();
        let _ = ended.recv();
    });
    let (inode, _) = told.recv().unwrap();
    let found = find(Search::Everywhere, inode).expect("a thread is in it");
    assert!(link(&found).contains("/task/"), "{found:?}");
    assert_eq!(
        visit(std::slice::from_ref(&found), |_| current().unwrap().inode).unwrap()[0]
            .as_ref()
            .unwrap(),
        &inode
    );
    assert_eq!(resolve(&inode.to_string()).unwrap().unwrap().inode, inode);

    // The thread is still there, and would be gone by the time one enters.
    open.send(()).unwrap();
    let (_, descriptor) = told.recv().unwrap();
    let found = find(Search::Everywhere, inode).expect("a descriptor holds it");
    assert!(link(&found).contains("/fd/"), "{found:?}");
    end.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(within(&found, || current().unwrap().inode).unwrap(), inode);

    drop(descriptor);
    assert_eq!(
        find(Search::Everywhere, inode),
        None,
        "entering it has left it open"
    );
    let gone = visit(&[found], |_| ()).unwrap();
    assert_eq!(
        gone[0].as_ref().unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn finds_bind_mounts_of_another_mount_namespace() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // It goes back to the namespace it came from: only the bind mount holds the new one.
    let script = "mount --bind /proc/self/ns/net \"$1\" && readlink /proc/self/ns/net && \
                  exec nsenter --net=/proc/$PPID/ns/net cat";
    let mut child = mounts::privately(|| {
        leave();
        Ok(Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?)
    })
    .expect("this test makes namespaces and needs root for it");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let inode = inode_in(OsStr::new(line.trim()), "net")
        .unwrap_or_else(|| panic!("the shell said {line:?}")) as u32;
    // cat answers once it runs, and so has left the namespace.
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "there").unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    let found = find(Search::Everywhere, inode);
    let seen = found
        .as_ref()
        .map(|n| within(n, || current().unwrap().inode).unwrap());
    drop(input);
    assert!(child.wait().unwrap().success());
    let found = found.expect("its mount is in the mount namespace of a process");
    let Way::Mount { root, point } = &found.way else {
        panic!("only a mount leads there: {found:?}");
    };
    assert!(root.ends_with("root") && point == file.path(), "{found:?}");
    assert_eq!((seen, found.name), (Some(inode), None));
}

#[test]
fn the_caller_stays_where_it_is() {
    let here = current().unwrap().inode;
    let inode = thread::spawn(|| {
        let mine = leave();
        let host = within_way(&Way::Link("/proc/self/ns/net".into()), || {
            current().unwrap().inode
        })
        .unwrap();
        assert_ne!(host, mine);
        assert_eq!(current().unwrap().inode, mine);
        host
    });
    assert_eq!(inode.join().unwrap(), here);
}

#[test]
fn another_of_the_same_inode_is_not_entered() {
    thread::spawn(|| {
        leave();
        let Some(cookie) = cookie() else {
            return;
        };
        let this = Namespace {
            way: Way::Link("/proc/self/ns/net".into()),
            ..resolve("/proc/self/ns/net").unwrap().unwrap()
        };
        assert!(this.cookie.is_some_and(|of_host| of_host != cookie));
        assert!(within(&this, || ()).is_ok());
        let before = Namespace {
            cookie: Some(cookie),
            ..this
        };
        let visited = visit(std::slice::from_ref(&before), |_| ());
        let refused = [within(&before, || ()), visited.unwrap().remove(0)];
        for refusal in refused {
            assert_eq!(refusal.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    })
    .join()
    .unwrap();
}

#[test]
fn resolves_words_and_paths() {
    let here = current().unwrap().inode;
    assert_eq!(resolve("all").unwrap(), None);
    assert_eq!(resolve("self").unwrap().unwrap().inode, here);
    assert_eq!(resolve("/proc/self/ns/net").unwrap().unwrap().inode, here);
    assert_eq!(resolve(&here.to_string()).unwrap().unwrap().inode, here);
}

#[test]
fn says_what_does_not_exist() {
    let said = |choice: &str| resolve(choice).unwrap_err();
    assert!(
        said("no-such-name").contains("\"no-such-name\" under /run/netns"),
        "{}",
        said("no-such-name")
    );
    assert!(said("7").contains("inode 7"), "{}", said("7"));
    assert!(
        said("/no/such/path").contains("No such file"),
        "{}",
        said("/no/such/path")
    );
    assert_eq!(
        said("/proc/self/ns/pid"),
        "/proc/self/ns/pid is no network namespace; name a file such as /proc/PID/ns/net"
    );
    assert_eq!(
        said("/proc/self/status"),
        "/proc/self/status is no network namespace; name a file such as /proc/PID/ns/net"
    );
    assert!(
        said("").contains("no network namespace is named \"\""),
        "{}",
        said("")
    );
}

#[test]
fn what_is_no_namespace_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    // Whoever opened this one would be told that it has no driver.
    let device = directory.path().join("device");
    let number = rustix::fs::makedev(511, 0);
    mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, number).unwrap();
    let said = resolve(device.to_str().unwrap()).unwrap_err();
    assert_eq!(
        said,
        format!("{} is no network namespace; {WRITE}", device.display())
    );
}

#[test]
fn links_of_another_form_lead_nowhere() {
    for target in [
        "net:[]",
        "net:[x]",
        "net:4",
        "mnt:[4]",
        "socket:[4]",
        "/dev/null",
        "",
    ] {
        assert_eq!(inode_in(OsStr::new(target), "net"), None, "{target}");
    }
    assert_eq!(
        inode_in(OsStr::new("net:[4026531840]"), "net"),
        Some(4_026_531_840)
    );
}
