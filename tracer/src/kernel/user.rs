//! Users, as the system's own databases have them, and a command that runs as
//! one of them.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// A user, with what a process of his has from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `None` for a number that no database knows.
    pub name: Option<OsString>,
    pub uid: u32,
    gid: u32,
    /// Supplementary ones, his own among them.
    groups: Vec<u32>,
    home: OsString,
    shell: OsString,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}", name.to_string_lossy()),
            None => write!(f, "user {}", self.uid),
        }
    }
}

/// By a name or, where nobody is called so, by a number. The error is a sentence.
pub fn find(name_or_uid: &str) -> Result<User, String> {
    let cannot = |error| format!("cannot look up the user {name_or_uid:?}: {error}");
    let by_name = CString::new(name_or_uid)
        .ok()
        .map(|name| entry(Key::Name(&name)));
    let mut found = by_name.transpose().map_err(cannot)?.flatten();
    if found.is_none()
        && let Ok(uid) = name_or_uid.parse()
    {
        found = entry(Key::Uid(uid)).map_err(cannot)?;
    }
    found.ok_or_else(|| format!("there is no user {name_or_uid:?} here; give a name or a number"))
}

/// Who called `sudo`, if we are root by that: `SUDO_UID`, and `SUDO_GID` where no
/// database knows that number.
pub fn who_called_sudo(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<User>, String> {
    let number = |name| variable(name)?.to_str()?.parse::<u32>().ok();
    let Some(uid) = number("SUDO_UID").filter(|_| geteuid().is_root()) else {
        return Ok(None);
    };
    let known = entry(Key::Uid(uid))
        .map_err(|error| format!("cannot look up the user {uid}, who called sudo: {error}"))?;
    if known.is_some() {
        return Ok(known);
    }
    let gid = number("SUDO_GID").filter(|_| uid != u32::MAX);
    let gid = gid.ok_or_else(|| format!("there is no user {uid} here, as SUDO_UID has it"))?;
    Ok(Some(User {
        name: None,
        uid,
        gid,
        groups: vec![gid],
        home: "/".into(),
        shell: "/bin/sh".into(),
    }))
}

impl User {
    /// Whether we are him: then nothing is to be changed.
    #[must_use]
    pub fn is_ourselves(&self) -> bool {
        self.uid == geteuid().as_raw()
    }

    /// Has a command run as this user: with his groups, without a capability,
    /// and with the variables that `sudo -u` sets. The terminal and the working
    /// directory stay ours.
    pub fn runs(&self, command: &mut Command) {
        command.env("HOME", &self.home).env("SHELL", &self.shell);
        for variable in ["USER", "LOGNAME"] {
            match &self.name {
                Some(name) => command.env(variable, name),
                None => command.env_remove(variable),
            };
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
        let become_him = move || {
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            // The kernel takes them with the user id, unless it was told not to.
            let none = CapabilitySet::empty();
            set_capabilities(
                None,
                CapabilitySets {
                    effective: none,
                    permitted: none,
                    inheritable: none,
                },
            )?;
            Ok(())
        };
        // SAFETY: it makes system calls and nothing else: neither memory is asked
        // for nor a lock, which another thread may have held at the fork. The
        // child has this one thread.
        unsafe { command.pre_exec(become_him) };
    }
}

#[derive(Clone, Copy)]
enum Key<'a> {
    Name(&'a CStr),
    Uid(u32),
}

/// `None`: nobody has that name or number.
fn entry(key: Key<'_>) -> io::Result<Option<User>> {
    // Of no number: the calls below take it for "as it is".
    if matches!(key, Key::Uid(u32::MAX)) {
        return Ok(None);
    }
    let mut texts = vec![0; 1 << 10];
    loop {
        // SAFETY: all of its members may be zero: numbers, and pointers that are
        // not followed before they are set.
        let mut passwd: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: the texts are as long as is said, and all outlive the call.
        let error = unsafe {
            match key {
                Key::Name(name) => libc::getpwnam_r(
                    name.as_ptr(),
                    &raw mut passwd,
                    texts.as_mut_ptr(),
                    texts.len(),
                    &raw mut found,
                ),
                Key::Uid(uid) => libc::getpwuid_r(
                    uid,
                    &raw mut passwd,
                    texts.as_mut_ptr(),
                    texts.len(),
                    &raw mut found,
                ),
            }
        };
        match error {
            0 if found.is_null() => return Ok(None),
            0 => {}
            libc::ERANGE => {
                texts.resize(2 * texts.len(), 0);
                continue;
            }
            // How "nobody" is said, says getpwnam(3), varies.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: the entry was found, so these point to strings in `texts`.
        let [name, home, shell] = unsafe {
            [passwd.pw_name, passwd.pw_dir, passwd.pw_shell].map(|text| CStr::from_ptr(text))
        };
        let owned = |text: &CStr| OsStr::from_bytes(text.to_bytes()).to_owned();
        return Ok(Some(User {
            groups: groups(name, passwd.pw_gid),
            name: Some(owned(name)),
            uid: passwd.pw_uid,
            gid: passwd.pw_gid,
            home: owned(home),
            shell: owned(shell),
        }));
    }
}

fn groups(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 16];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the array is as long as is said.
        let whole =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if whole >= 0 {
            groups.truncate(count);
            return groups;
        }
        groups.resize(count.max(2 * groups.len()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_is_as_id_has_him() {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let &[name, _, uid, gid, _, home, shell] = &fields[..] else {
                panic!("{line}")
            };
            let user = find(name).unwrap();
            let mut groups = user.groups.clone();
            groups.sort_unstable();
            let id = Command::new("id").args(["-G", name]).output().unwrap();
            let mut expected: Vec<u32> = String::from_utf8(id.stdout)
                .unwrap()
                .split_whitespace()
                .map(|gid| gid.parse().unwrap())
                .collect();
            expected.sort_unstable();
            assert_eq!(groups, expected, "{name}");
            assert_eq!(
                (user.uid.to_string().as_str(), user.gid.to_string().as_str()),
                (uid, gid)
            );
            assert_eq!(
                (user.home.as_os_str(), user.shell.as_os_str()),
                (home.as_ref(), shell.as_ref())
            );
            assert_eq!(find(uid).unwrap().uid, user.uid);
        }
    }

    #[test]
    fn who_is_not_there_is_told() {
        for nobody in ["no-such-user", "4294967295", "-1", "", "a\0b", "3999999999"] {
            let said = find(nobody).unwrap_err();
            assert!(said.contains(&format!("no user {nobody:?} here")), "{said}");
        }
    }

    /// Needs root, as whoever called `sudo` has become.
    #[test]
    fn sudo_says_who_called_it() {
        let called = |uid: Option<&str>, gid: Option<&str>| {
            let value = |name: &str| match name {
                "SUDO_UID" => uid.map(OsString::from),
                "SUDO_GID" => gid.map(OsString::from),
                _ => None,
            };
            who_called_sudo(value).map(|user| user.map(|user| (user.uid, user.gid)))
        };
        let nobody = find("nobody").unwrap();
        assert_eq!(
            called(Some(&nobody.uid.to_string()), Some("7")),
            Ok(Some((nobody.uid, nobody.gid)))
        );
        assert_eq!(
            called(Some("3999999999"), Some("7")),
            Ok(Some((3_999_999_999, 7)))
        );
        assert_eq!(called(None, Some("7")), Ok(None));
        assert_eq!(called(Some("root"), None), Ok(None));
        for (uid, gid) in [("3999999999", None), ("4294967295", Some("7"))] {
            assert!(called(Some(uid), gid).is_err(), "{uid}");
        }
    }
}
