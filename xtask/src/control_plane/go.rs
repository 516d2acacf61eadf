//! Go, which builds the control plane: the machine's own, or one that is fetched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::version::Version;
use crate::debian::Suite;
use crate::debian::packages::{self, Package, Proof};
use crate::{cache, debian, process, report};

/// The oldest Go that builds Kubernetes 1.36 (the `go` line of its go.mod).
const NEEDED: Version = Version::new(1, 26, 0);

/// The Go that is fetched through the Go module proxy where the machine's is older.
const FETCHED: Version = Version::new(1, 26, 8);

/// From this version on, Go can fetch another Go through the module proxy.
const ABLE_TO_FETCH: Version = Version::new(1, 21, 0);

/// Suites with a Go that can fetch, the one built against the oldest C library first.
const SUITES: [(&str, &str); 3] = [
    ("bookworm-backports", "1.23"),
    ("trixie", "1.24"),
    ("sid", "1.26"),
];

/// The machine's own package, for machines whose apt knows no mirror of Debian.
const GO: Package = Package {
    name: "golang-go",
    proof: Proof::Program("go"),
    why: "builds the control plane that tests run against, or fetches the Go that does",
};

/// A Go that is new enough, or can make itself so.
pub(super) struct Go {
    program: PathBuf,
    /// The value of `GOTOOLCHAIN`.
    toolchain: String,
}

impl Go {
    /// Looks for Go where it is usually found; fetches it if there is none of use.
    pub(super) fn find() -> Result<Self> {
        match best() {
            Some((version, program)) if version >= ABLE_TO_FETCH => {
                Ok(Self::with(version, program))
            }
            Some((version, program)) => {
                report::note(&format!(
                    "{} is Go {version}, too old to build Kubernetes or to fetch a newer Go",
                    program.display()
                ));
                Self::fetch()
            }
            None => {
                report::note("there is no Go, which builds etcd and Kubernetes");
                Self::fetch()
            }
        }
    }

    fn with(version: Version, program: PathBuf) -> Self {
        let toolchain = if version >= NEEDED {
            "local".to_owned()
        } else {
            report::note(&format!(
                "{} is Go {version}, Kubernetes needs {NEEDED}: Go {FETCHED} is fetched through \
                 the Go module proxy",
                program.display()
            ));
            format!("go{FETCHED}")
        };
        Self { program, toolchain }
    }

    /// A Go that can at least fetch another: Debian's, unpacked into the cache, which leaves the
    /// machine's packages as they are and needs no root; else the machine's own package.
    fn fetch() -> Result<Self> {
        for (suite, series) in SUITES {
            match unpacked(suite, series) {
                Ok(program) => {
                    if let Some(version) = version_of(&program) {
                        return Ok(Self::with(version, program));
                    }
                }
                Err(error) => report::note(&format!("not from Debian's {suite}: {error}")),
            }
        }
        packages::ensure(&[&[GO]])?;
        match best() {
            Some((version, program)) if version >= ABLE_TO_FETCH => {
                Ok(Self::with(version, program))
            }
            _ => bail!(
                "no Go to build the control plane with: install Go {ABLE_TO_FETCH} or newer, or \
                 name a folder with the built programs in KUBEBUILDER_ASSETS"
            ),
        }
    }

    /// The text of the go.mod of `module@version`, fetched if need be.
    pub(super) fn module_file_of(&self, module: &str) -> Result<String> {
        let mut list = self.command();
        list.args(["list", "-mod=mod", "-m", "-f", "{{.GoMod}}", module]);
        let path = process::output(list.current_dir("/"))
            .with_context(|| format!("cannot fetch {module} through the Go module proxy"))?;
        fs::read_to_string(path.trim()).with_context(|| format!("cannot read {}", path.trim()))
    }

    /// Builds packages in the module of `work`; `into` is a folder, or a file for a single package.
    ///
    /// What Go says goes to build.log in `work`, whose end is in the error if it fails.
    pub(super) fn build(
        &self,
        work: &Path,
        linker_flags: &str,
        into: &Path,
        packages: &[String],
    ) -> Result<()> {
        let log_path = work.join("build.log");
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut build = self.command();
        build
            .args(["build", "-mod=mod", "-trimpath", "-buildvcs=false"])
            .arg(format!("-ldflags=-s -w {linker_flags}"))
            .arg("-o")
            .arg(into)
            .args(packages)
            .current_dir(work)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let status = build
            .status()
            .with_context(|| format!("cannot start {}", process::line(&build)))?;
        if !status.success() {
            bail!(
                "{} failed in {}: {status}\n{}",
                process::line(&build),
                work.display(),
                tail(&fs::read_to_string(&log_path).unwrap_or_default(), 20)
            );
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("GOTOOLCHAIN", &self.toolchain);
        for (name, value) in [("GOFLAGS", ""), ("GOWORK", "off"), ("CGO_ENABLED", "0")] {
            command.env(name, value);
        }
        for name in ["GOOS", "GOARCH", "GOROOT"] {
            command.env_remove(name);
        }
        command
    }
}

/// The newest Go in the folders where it usually is.
fn best() -> Option<(Version, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/go/bin", "/usr/lib/go/bin"].map(PathBuf::from))
        .map(|folder| folder.join("go"))
        .filter_map(|program| Some((version_of(&program)?, program)))
        .max_by_key(|(version, _)| *version)
}

/// The program of Debian's package of a series, in the cache.
fn unpacked(suite: &str, series: &str) -> Result<PathBuf> {
    let folder = cache::folder("go")?.join(series);
    let inside = format!("usr/lib/go-{series}/bin/go");
    let program = folder.join(&inside);
    if program.is_file() {
        return Ok(program);
    }
    // Without its standard library, which the Go it fetches has too.
    let package = format!("golang-{series}-go");
    report::note(&format!("fetching {package} of Debian's {suite}"));
    let opened = Suite::open(suite)?;
    let versions = opened.versions(&package)?;
    let Some(version) = versions.first() else {
        bail!("it has no {package}");
    };
    let archives = opened.download(&[format!("{package}={version}")])?;
    debian::unpack(&archives, &folder, |unpacked| {
        if !unpacked.join(&inside).is_file() {
            bail!("{package} {version} lacks {inside}");
        }
        Ok(())
    })?;
    Ok(program)
}

/// A go.mod of a module that only exists to build others.
pub(super) fn module_file(builds: &str, requirements: &str) -> String {
    format!("// Only here to build {builds}.\nmodule waggle/build\n\ngo {NEEDED}\n\n{requirements}")
}

/// The version of this Go itself, not of one that it would fetch.
fn version_of(program: &Path) -> Option<Version> {
    let mut ask = Command::new(program);
    ask.args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOROOT")
        .current_dir("/");
    let said = process::output(&mut ask).ok()?;
    // Distributions append words of their own: `go1.24.4 X:nodwarf5`.
    Version::parse(said.split_whitespace().next()?.strip_prefix("go")?)
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn go_that_cannot_run_has_no_version() {
        assert_eq!(version_of(Path::new("/no/such/go")), None);
    }
}
