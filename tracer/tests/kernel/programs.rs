//! The programs of others that tests ask, and what becomes of a test where one is
//! not installed: it is passed over, with the command that would let it run.

use std::env;
use std::fmt::{self, Display, Formatter};

/// An absolute path, or a name that is looked for as a shell does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Debian's, which has it.
    package: &'static str,
}

/// The truth about sockets, by a way that twtrace does not go.
pub(crate) const SS: Program = Program {
    name: "ss",
    package: "iproute2",
};
pub(crate) const NFT: Program = Program {
    name: "nft",
    package: "nftables",
};
pub(crate) const SYSCTL: Program = Program {
    name: "sysctl",
    package: "procps",
};
pub(crate) const SYSTEMD_SYSCTL: Program = Program {
    name: "/usr/lib/systemd/systemd-sysctl",
    package: "systemd",
};

/// Ends a test that is not run, and does not fail, for want of a program.
#[derive(Debug)]
pub(crate) struct Absent(Program);

impl Program {
    pub(crate) fn needed(self) -> Result<(), Absent> {
        let path = env::var_os("PATH").unwrap_or_default();
        // What is absolute stays so, whatever it is joined to.
        if env::split_paths(&path).any(|folder| folder.join(self.name).is_file()) {
            Ok(())
        } else {
            Err(Absent(self))
        }
    }
}

/// `cargo xtask test` reads the packages of it.
impl Display for Absent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Program { name, package } = self.0;
        write!(f, "{name} is not installed: apt-get install {package}")
    }
}

impl std::error::Error for Absent {}
