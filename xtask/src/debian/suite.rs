//! Packages that are downloaded and unpacked, never installed: of other suites, or the machine's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages;
use crate::{cache, process};

/// The keys by which apt knows Debian's archive.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite such as `trixie-backports`, with package lists of its own in the cache, or the machine's
/// own suites.
///
/// Neither the machine's sources nor its lists are touched; no root is needed.
pub(crate) struct Suite {
    name: String,
    folder: PathBuf,
    is_own: bool,
}

impl Suite {
    /// Fetches the suite's package lists from the mirror that the machine's own apt uses.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let suite = Self {
            name: name.to_owned(),
            folder: cache::folder("apt")?.join(name),
            is_own: false,
        };
        let lists = suite.folder.join("lists/partial");
        fs::create_dir_all(&lists).with_context(|| format!("cannot make {}", lists.display()))?;
        let keys = if Path::new(KEYS).exists() {
            format!("[signed-by={KEYS}] ")
        } else {
            String::new()
        };
        let line = format!("deb {keys}{} {name} main\n", mirror()?);
        let sources = suite.sources();
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        process::output(suite.apt("apt-get").args(["--quiet", "update"]))
            .with_context(|| format!("cannot fetch the package lists of Debian's {name}"))?;
        Ok(suite)
    }

    /// The suites that the machine itself installs from.
    pub(crate) fn own() -> Result<Self> {
        let suite = Self {
            name: "this machine's own suites".to_owned(),
            folder: cache::folder("apt")?.join("own"),
            is_own: true,
        };
        if suite.names("busybox-static")?.is_empty() {
            packages::update_lists()?;
        }
        Ok(suite)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All versions of a package that the suite carries, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let said = process::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(madison_versions(&said))
    }

    /// The packages whose own names start with `prefix`.
    ///
    /// `apt-cache search` is of no use here: it also finds packages by the names they provide.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads package files, each wanted as `name` or `name=version`; gives their paths.
    pub(crate) fn download(&self, wanted: &[String]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join(format!("download-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        process::output(
            self.apt("apt-get")
                .args(["--quiet", "download"])
                .args(wanted)
                .current_dir(&folder),
        )
        .with_context(|| format!("cannot download {} of {}", wanted.join(" "), self.name))?;
        let files = fs::read_dir(&folder)?.map(|file| Ok(file?.path()));
        files.collect()
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    /// An apt program that sees this suite and nothing else.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        // The user apt would drop root for cannot write to the cache of ours.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if self.is_own {
            return command;
        }
        let options = [
            format!("Dir::Etc::sourcelist={}", self.sources().display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            // The machine's pins are about the machine's own suites.
            "Dir::Etc::preferences=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State::lists={}", self.folder.join("lists").display()),
            format!("Dir::Cache={}", self.folder.display()),
            // Package lists only, no descriptions of desktop components.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        for option in options {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Unpacks package files into one folder, which replaces `destination` if `check` accepts what was
/// unpacked. The package files are removed in any case.
pub(crate) fn unpack(
    archives: &[PathBuf],
    destination: &Path,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    // Not `with_extension`, which takes the end of `6.12` for one.
    let mut unfinished = destination.as_os_str().to_owned();
    unfinished.push(format!(".part-{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let result = archives
        .iter()
        .try_for_each(|archive| {
            process::output(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(archive)
                    .arg(&unfinished),
            )
            .map(drop)
        })
        .and_then(|()| check(&unfinished))
        .and_then(|()| cache::publish(&unfinished, destination));
    let downloads = archives.iter().filter_map(|archive| archive.parent());
    for folder in downloads.chain([unfinished.as_path()]) {
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    result
}

/// The mirror of Debian's main archive, as the machine's apt is configured.
fn mirror() -> Result<String> {
    if let Some(mirror) = debian_site(&index_targets()?) {
        return Ok(mirror.to_owned());
    }
    // apt names its mirrors only once it has their lists.
    packages::update_lists()?;
    debian_site(&index_targets()?).map(str::to_owned).context(
        "this machine's apt knows no mirror of Debian, so its kernels and sources cannot be \
         fetched: add a Debian source to apt's, or name a kernel by `--kernel PATH`",
    )
}

fn index_targets() -> Result<String> {
    process::output(Command::new("apt-get").env("LC_ALL", "C").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(CODENAME) $(SITE)",
        "Created-By: Packages",
    ]))
    .context("cannot ask apt for its mirrors: is this Debian or Ubuntu?")
}

/// Picks the site of Debian's main archive out of lines `origin codename site`.
fn debian_site(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (origin, codename, site) = (words.next()?, words.next()?, words.next()?);
        let is_main = origin == "Debian" && !codename.contains("-security");
        is_main.then_some(site)
    })
}

fn madison_versions(said: &str) -> Vec<String> {
    let version = |line: &str| Some(line.split('|').nth(1)?.trim().to_owned());
    said.lines().filter_map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_archive_is_told_from_security() {
        let targets = "Debian bookworm-security http://mirror/debian-security\n\
                       Docker bookworm http://other/linux\n\
                       Debian bookworm http://mirror/debian\n";
        assert_eq!(debian_site(targets), Some("http://mirror/debian"));
        assert_eq!(debian_site("Ubuntu noble http://mirror/ubuntu\n"), None);
    }

    #[test]
    fn madison_lines_give_versions() {
        let said = "  rust-src | 1.96.1+dfsg1-2 | http://mirror x main amd64 Packages\n\
                    \x20 rust-src | 1.95.0+dfsg1-2 | http://mirror x main amd64 Packages\n";
        assert_eq!(madison_versions(said), ["1.96.1+dfsg1-2", "1.95.0+dfsg1-2"]);
        assert!(madison_versions("").is_empty());
    }
}
