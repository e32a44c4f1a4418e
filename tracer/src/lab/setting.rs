//! One sysctl and the value it is to have, as people write it: `KEY=VALUE`.
//!
//! Only what lies below `net` can differ from one network namespace to another,
//! and not all of that does. What a key means is not known here.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::netns::Netns;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As `sysctl` prints it: `net.ipv4.tcp_tw_reuse`.
    pub key: String,
    pub value: String,
}

impl Setting {
    /// Gives the key this value in `netns`.
    pub fn apply(&self, netns: &Netns) -> Result<(), Refused> {
        let refused = |why| Refused {
            setting: self.clone(),
            why,
        };
        let path = self.path();
        let written = netns
            .run(|| fs::write(&path, &self.value))
            .map_err(|error| refused(Why::Other(format!("{error:#}"))))?;
        let Err(error) = written else { return Ok(()) };
        let why = match error.kind() {
            // Where the caller is may be the namespace of the machine.
            io::ErrorKind::NotFound if path.exists() => Why::NotPerNamespace,
            io::ErrorKind::NotFound => Why::NoSuchKey,
            io::ErrorKind::PermissionDenied => Why::ReadOnly,
            io::ErrorKind::InvalidInput => Why::BadValue,
            _ => Why::Other(error.to_string()),
        };
        Err(refused(why))
    }

    /// What the key is set to in `netns`, blanks in one.
    pub fn now(&self, netns: &Netns) -> anyhow::Result<String> {
        let text = netns.read(&self.path().to_string_lossy())?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/sys/{}", self.key.replace('.', "/")).into()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    /// `tcp_tw_reuse=1` means `net.ipv4.tcp_tw_reuse=1`; slashes do for dots.
    fn from_str(text: &str) -> Result<Setting, String> {
        const WRITE: &str = "write one such as tcp_tw_reuse=1 or net.core.somaxconn=128";
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("\"{text}\" gives a key no value: {WRITE}"))?;
        let (key, value) = (key.trim().replace('/', "."), value.trim());
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if key.is_empty() || value.is_empty() || key.contains("..") || !key.chars().all(fits) {
            return Err(format!("\"{text}\" is no KEY=VALUE: {WRITE}"));
        }
        let key = if key.starts_with("net.") {
            key
        } else if key.contains('.') {
            return Err(format!(
                "{key} is not below net: a network namespace has no value of its own for it"
            ));
        } else {
            format!("net.ipv4.{key}")
        };
        Ok(Setting {
            key,
            value: value.to_owned(),
        })
    }
}

/// Why a key did not get its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub setting: Setting,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    NoSuchKey,
    /// It is one for the whole machine.
    NotPerNamespace,
    ReadOnly,
    BadValue,
    Other(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { key, value } = &self.setting;
        match &self.why {
            Why::NoSuchKey => write!(f, "this kernel has no {key}"),
            Why::NotPerNamespace => write!(
                f,
                "{key} is one value for the whole machine, not one for each network namespace: \
                 a lab, which leaves the machine alone, cannot set it"
            ),
            Why::ReadOnly => write!(
                f,
                "the kernel lets nobody write {key} in a network namespace"
            ),
            Why::BadValue => write!(f, "the kernel does not take {value} for {key}"),
            Why::Other(why) => write!(f, "cannot set {key} to {value}: {why}"),
        }
    }
}

impl Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_key_is_one_of_ipv4() {
        for (text, canonical) in [
            ("tcp_tw_reuse=1", "net.ipv4.tcp_tw_reuse=1"),
            ("net.ipv4.tcp_tw_reuse = 1", "net.ipv4.tcp_tw_reuse=1"),
            ("net/core/somaxconn=128", "net.core.somaxconn=128"),
            (
                "ip_local_port_range=1024 65535",
                "net.ipv4.ip_local_port_range=1024 65535",
            ),
        ] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_setting_is_refused_in_a_sentence() {
        for (text, words) in [
            ("tcp_tw_reuse", "gives a key no value"),
            ("=1", "is no KEY=VALUE"),
            ("tcp_tw_reuse=", "is no KEY=VALUE"),
            ("net.../../kernel.panic=1", "is no KEY=VALUE"),
            ("kernel.panic=1", "is not below net"),
        ] {
            let said = text.parse::<Setting>().unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn each_refusal_says_why() {
        let netns = Netns::new().unwrap();
        let why = |text: &str| {
            text.parse::<Setting>()
                .unwrap()
                .apply(&netns)
                .unwrap_err()
                .why
        };
        assert_eq!(why("tcp_tw_recycle=1"), Why::NoSuchKey);
        assert_eq!(
            why("net.core.netdev_max_backlog=1000"),
            Why::NotPerNamespace
        );
        assert_eq!(why("tcp_tw_reuse=9"), Why::BadValue);
        let good: Setting = "tcp_fin_timeout=15".parse().unwrap();
        good.apply(&netns).unwrap();
        assert_eq!(good.now(&netns).unwrap(), "15");
    }
}
