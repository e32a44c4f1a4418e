//! Debian's kernels, found by pattern, fetched and verified by apt.
//!
//! Names of kernel packages live for weeks, so none is written down: the newest
//! of a series is looked for in the indices of every suite. apt runs with state
//! and sources of its own, so the machine's are neither read nor changed; the
//! mirror is the one the machine is set to.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::arch::{AMD64, ARCHS, Arch};
use crate::command::{output, run};
use crate::say;

/// Where a series may be. One that the mirror no longer has is passed over.
const SUITES: [&str; 8] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "forky",
    "sid",
    "experimental",
];
const SECURITY: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Indices younger than this are not asked for again.
const FRESH: Duration = Duration::from_secs(12 * 60 * 60);

/// What a guest may load, in the order of dependence.
pub(crate) const MODULES: [&str; 4] = ["inet_diag", "tcp_diag", "tun", "veth"];

/// Where the guests' `ss` comes from: its packages and those it needs.
const SUITE_OF_SS: &str = "bookworm";

/// Kernels of a kind: `6.12`, `6.12-rt`, `7-arm64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// As asked for.
    pub(crate) name: String,
    pub(crate) arch: &'static Arch,
    number: String,
    flavour: &'static str,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    /// Of the package.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// Unpacked, in the order of [`MODULES`]; those it lacks are absent.
    pub(crate) modules: Vec<PathBuf>,
}

/// Debian's packages for one processor.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) arch: &'static Arch,
    cache: PathBuf,
    /// Of apt.
    state: PathBuf,
}

/// A package of a certain version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    name: String,
    version: String,
}

impl Series {
    /// Without a flavour it is the kernel for the cloud, which is the smallest.
    pub(crate) fn of(name: &str) -> Series {
        let with_arch =
            |arch: &'static Arch| Some((name.strip_suffix(arch.name)?.strip_suffix('-')?, arch));
        let (number, arch) = ARCHS
            .into_iter()
            .find_map(with_arch)
            .unwrap_or((name, &AMD64));
        let (number, flavour) = number
            .strip_suffix("-rt")
            .map_or((number, "cloud"), |number| (number, "rt"));
        Series {
            name: name.to_owned(),
            arch,
            number: number.to_owned(),
            flavour,
        }
    }
}

impl Archive {
    /// Brings the indices up to date.
    pub(crate) fn open(cache: &Path, arch: &'static Arch) -> Result<Archive> {
        let state = cache.join("apt").join(arch.name);
        let archive = Archive {
            arch,
            cache: cache.to_owned(),
            state,
        };
        for folder in ["lists/partial", "cache/archives/partial", "empty"]
            .map(|folder| archive.state.join(folder))
            .into_iter()
            .chain(["packages", "kernels", "ss"].map(|folder| cache.join(folder)))
        {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(archive.state.join("status"), "")?;
        fs::write(archive.state.join("sources.list"), sources()?)?;
        let stamp = archive.state.join("updated");
        #[expect(clippy::disallowed_methods, reason = "the age of a file")]
        let fresh = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age < FRESH)
            });
        if !fresh {
            say(format_args!(
                "fetching Debian's package indices of {}",
                arch.name
            ))?;
            // Fails if a single suite is gone; a series that is then nowhere to
            // be found says so itself.
            let updated = run(archive.apt("apt-get").args(["update", "--quiet=2"]));
            match updated {
                Ok(()) => fs::write(&stamp, "")?,
                Err(error) => say(format_args!("not every suite could be fetched: {error:#}"))?,
            }
        }
        Ok(archive)
    }

    /// The newest kernel of a series, ready to boot.
    pub(crate) fn kernel(&self, series: &Series) -> Result<Kernel> {
        let image = self.newest(series)?;
        let folder = self
            .cache
            .join(format!("kernels/{}_{}", image.name, image.version));
        if !folder.is_dir() {
            let scratch = self.cache.join("kernels/unfinished");
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            fs::create_dir_all(&scratch)?;
            self.fetch(&image, &scratch)?;
            // From 6.19 on the modules are in a package of their own.
            if let Some(release) = image.name.strip_prefix("linux-binary-") {
                let modules = Offer {
                    name: format!("linux-modules-{release}"),
                    version: image.version.clone(),
                };
                self.fetch(&modules, &scratch)?;
            }
            fs::rename(&scratch, &folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut files = Vec::new();
        list(&folder, &mut files)?;
        let image_file = files
            .iter()
            .find(|path| named(path).starts_with("vmlinuz"))
            .with_context(|| format!("the package {} holds no kernel", image.name))?;
        let modules = MODULES
            .iter()
            .filter_map(|module| {
                files
                    .iter()
                    .find(|path| named(path) == format!("{module}.ko"))
            })
            .cloned()
            .collect();
        Ok(Kernel {
            series: series.clone(),
            version: image.version,
            image: image_file.clone(),
            modules,
        })
    }

    fn newest(&self, series: &Series) -> Result<Offer> {
        let Series {
            number, flavour, ..
        } = series;
        let arch = self.arch.name;
        let pattern = format!(
            "^linux-(image|binary)-{}[.-].*-{flavour}-{arch}$",
            number.replace('.', r"\.")
        );
        let names = output(
            self.apt("apt-cache")
                .args(["search", "--names-only", &pattern]),
        )?;
        let names: Vec<&str> = names
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let offers = if names.is_empty() {
            String::new()
        } else {
            output(self.apt("apt-cache").arg("madison").args(&names))?
        };
        newest(&offers, number)
            .with_context(|| format!("no suite has a {flavour} kernel {number} on {arch}"))
    }

    /// A root that holds `ss` and all it needs, and nothing of this machine.
    pub(crate) fn ss(&self) -> Result<PathBuf> {
        let root = self.cache.join("ss").join(self.arch.name);
        if root.is_dir() {
            return Ok(root);
        }
        say(format_args!("fetching ss for {}", self.arch.name))?;
        // By the state of a machine on which nothing is installed.
        run(self
            .apt("apt-get")
            .args(["install", "--yes", "--quiet=2", "--download-only"])
            .arg("--no-install-recommends")
            .arg(format!("--target-release={SUITE_OF_SS}"))
            .arg("iproute2")
            .stdout(Stdio::null()))?;
        let scratch = self.cache.join("ss/unfinished");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let mut packages = Vec::new();
        list(&self.state.join("cache/archives"), &mut packages)?;
        for package in packages.iter().filter(|path| named(path).ends_with(".deb")) {
            run(Command::new("dpkg-deb")
                .arg("--extract")
                .args([package, &scratch]))?;
            fs::remove_file(package)?;
        }
        fs::rename(&scratch, &root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(root)
    }

    /// Downloads a package, unless it is there, and takes out of it what a guest
    /// needs.
    fn fetch(&self, offer: &Offer, to: &Path) -> Result<()> {
        let Offer { name, version } = offer;
        say(format_args!("fetching {name} {version}"))?;
        run(self
            .apt("apt-get")
            .args(["download", "--quiet=2", &format!("{name}={version}")])
            .current_dir(self.cache.join("packages")))?;
        let package = fs::read_dir(self.cache.join("packages"))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| named(path).starts_with(&format!("{name}_")))
            .with_context(|| format!("apt-get left no package of {name}"))?;
        let modules: Vec<String> = MODULES
            .iter()
            .map(|module| format!("*/{module}.ko*"))
            .collect();
        let tar = to.join("content.tar");
        let out = fs::File::create(&tar)?;
        run(Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(out))?;
        // An absent member is no error here: two packages share the patterns.
        let listed = output(Command::new("tar").arg("-tf").arg(&tar))?;
        let wanted: Vec<&str> = listed
            .lines()
            .filter(|path| {
                let name = named(Path::new(path));
                name.starts_with("vmlinuz")
                    || modules
                        .iter()
                        .any(|m| name.starts_with(m.trim_start_matches("*/").trim_end_matches('*')))
            })
            .collect();
        run(Command::new("tar")
            .arg("-xf")
            .arg(&tar)
            .arg("-C")
            .arg(to)
            .args(&wanted))?;
        fs::remove_file(&tar)?;
        fs::remove_file(&package)?;
        let mut files = Vec::new();
        list(to, &mut files)?;
        for file in files.iter().filter(|path| named(path).ends_with(".ko.xz")) {
            run(Command::new("xz").arg("--decompress").arg(file))?;
        }
        Ok(())
    }

    /// An apt program that has nothing to do with the machine's own state.
    fn apt(&self, program: &str) -> Command {
        let apt = &self.state;
        let mut command = Command::new(program);
        // On the command line, which no file of the machine's overrules.
        for (key, value) in [
            ("Dir::State", &**apt),
            ("Dir::State::lists", &apt.join("lists")),
            ("Dir::State::status", &apt.join("status")),
            ("Dir::Cache", &apt.join("cache")),
            ("Dir::Cache::archives", &apt.join("cache/archives")),
            ("Dir::Etc::sourcelist", &apt.join("sources.list")),
            ("Dir::Etc::sourceparts", &apt.join("empty")),
        ] {
            let mut option = std::ffi::OsString::from(format!("{key}="));
            option.push(value);
            command.arg("-o").arg(option);
        }
        for key in ["APT::Architecture", "APT::Architectures"] {
            command.args(["-o", &format!("{key}={}", self.arch.name)]);
        }
        for option in [
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "APT::Update::Post-Invoke-Success::=true",
            "Dir::Cache::pkgcache=pkgcache.bin",
            "Dir::Cache::srcpkgcache=srcpkgcache.bin",
        ] {
            command.args(["-o", option]);
        }
        if is_root() {
            // apt's own user may not write into a home directory.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_end() == "0")
}

/// Where this machine gets packages of Debian from.
pub(crate) fn mirror() -> Result<String> {
    mirror_of(&SUITES)?.context(
        "this machine has no Debian suite among its package sources, so no mirror is known; \
         run this on Debian",
    )
}

/// Where it gets those of one of these suites from.
fn mirror_of(suites: &[&str]) -> Result<Option<String>> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(SITE) $(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    Ok(targets.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (uri, release) = (words.next()?, words.next()?);
        suites.contains(&release).then(|| uri.to_owned())
    }))
}

/// Every suite, on the mirrors that the machine uses for its own.
fn sources() -> Result<String> {
    let mut text = String::new();
    let mut add = |uri: &str, suites: &[&str]| {
        for suite in suites {
            text += &format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
        }
    };
    add(&mirror()?, &SUITES);
    if let Some(security) = mirror_of(&SECURITY)? {
        add(&security, &SECURITY);
    }
    Ok(text)
}

/// The newest of what `apt-cache madison` lists.
fn newest(madison: &str, series: &str) -> Option<Offer> {
    let wanted: Vec<u64> = numbers(series);
    let offers = madison.lines().filter_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        let (name, version) = (fields.next()?, fields.next()?);
        numbers(version).starts_with(&wanted).then(|| Offer {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    });
    // Where there is a linux-binary, the linux-image beside it is empty.
    offers.max_by_key(|offer| {
        (
            !offer.version.contains("~rc"),
            numbers(&offer.version),
            offer.name.starts_with("linux-binary-"),
        )
    })
}

/// The numbers at the head of a version: `6.1.192-2` is 6, 1, 192, 2.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(['.', '-'])
        .map_while(|part| {
            let digits = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part[..digits].parse().ok()
        })
        .collect()
}

fn named(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{AMD64, Series, newest};
    use crate::vm::arch::ARM64;

    #[test]
    fn a_series_names_its_processor_and_its_kind() {
        for (name, arch, number, flavour) in [
            ("6.1", &AMD64, "6.1", "cloud"),
            ("6.12-rt", &AMD64, "6.12", "rt"),
            ("7-arm64", &ARM64, "7", "cloud"),
            ("6.12-rt-arm64", &ARM64, "6.12", "rt"),
        ] {
            let series = Series::of(name);
            assert_eq!(series.name, name);
            assert_eq!(series.arch, arch, "{name}");
            assert_eq!(
                (&*series.number, series.flavour),
                (number, flavour),
                "{name}"
            );
        }
    }

    const MADISON: &str = "\
linux-image-6.1.0-47-cloud-amd64 | 6.1.170-3 | http://mirror bookworm-security/main amd64 Packages
linux-image-6.1.0-56-cloud-amd64 | 6.1.192-2 | http://mirror bookworm-security/main amd64 Packages
linux-image-6.1.0-0.deb11.52-cloud-amd64 | 6.1.192-1~deb11u1 | http://mirror bullseye-security/main amd64 Packages
linux-image-7.2.9+deb13-cloud-amd64 | 7.2.9-1~bpo13+1 | http://mirror trixie-backports/main amd64 Packages
linux-image-7.3.4+deb13-cloud-amd64 | 7.3.4-1~bpo13+1 | http://mirror trixie-backports/main amd64 Packages
linux-binary-7.3.4+deb13-cloud-amd64 | 7.3.4-1~bpo13+1 | http://mirror trixie-backports/main amd64 Packages
linux-binary-7.4-cloud-amd64 | 7.4~rc1-1~exp1 | http://mirror experimental/main amd64 Packages
";

    #[test]
    fn the_newest_of_a_series_is_taken() {
        for (series, name) in [
            ("6.1", "linux-image-6.1.0-56-cloud-amd64"),
            ("7", "linux-binary-7.3.4+deb13-cloud-amd64"),
            ("7.2", "linux-image-7.2.9+deb13-cloud-amd64"),
            ("7.4", "linux-binary-7.4-cloud-amd64"),
        ] {
            let found = newest(MADISON, series).map(|offer| offer.name);
            assert_eq!(found.as_deref(), Some(name), "{series}");
        }
        assert_eq!(newest(MADISON, "6.12"), None);
    }
}
