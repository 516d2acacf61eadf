//! Rust's own source, of which `core` is built for the BPF target.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::debian::Suite;
use crate::{cache, debian, process, report};

/// Suites that carry a rust-src package for more than one version of Rust.
const SUITES: &[&str] = &["trixie-backports", "sid"];

/// Makes sure that the compiler finds its own source: by rustup, or, where that cannot download,
/// by Debian's package of exactly the compiler's version.
pub(crate) fn ensure() -> Result<()> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    if is_whole(&source) {
        return Ok(());
    }
    let what = "installing Rust's source (core is built from it for the BPF target)";
    report::step(what, || {
        let rustup = process::output(Command::new("rustup").args(["component", "add", "rust-src"]));
        if is_whole(&source) {
            return Ok(());
        }
        if let Err(error) = rustup {
            let reason = error.to_string();
            report::note(&format!(
                "rustup could not ({}); taking Debian's package",
                reason.lines().last().unwrap_or_default()
            ));
        }
        let unpacked = from_debian(&compiler_version()?)?;
        link(&unpacked, &source)?;
        if !is_whole(&source) {
            bail!(
                "{} lacks library/core; remove it and try again",
                source.display()
            );
        }
        Ok(())
    })
}

fn is_whole(source: &Path) -> bool {
    source.join("library/core/src/lib.rs").is_file() && source.join("library/Cargo.lock").is_file()
}

fn compiler_version() -> Result<String> {
    let said = process::output(Command::new("rustc").arg("-vV"))?;
    let release = said.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc -vV names no release")?.to_owned())
}

/// Downloads and unpacks the package; gives the folder that holds `library`.
fn from_debian(version: &str) -> Result<PathBuf> {
    let folder = cache::folder("rust-src")?.join(version);
    let inside = format!("usr/src/rustc-{version}");
    let source = folder.join(&inside);
    if is_whole(&source) {
        return Ok(source);
    }
    for name in SUITES {
        let suite = Suite::open(name)?;
        let versions = suite.versions("rust-src")?;
        let Some(package_version) = versions.iter().find(|v| is_release(v, version)) else {
            continue;
        };
        let archives = suite.download(&[format!("rust-src={package_version}")])?;
        debian::unpack(&archives, &folder, |unpacked| {
            if !is_whole(&unpacked.join(&inside)) {
                bail!("rust-src {package_version} of {name} lacks {inside}/library/core");
            }
            Ok(())
        })?;
        return Ok(source);
    }
    bail!(
        "no rust-src package of version {version} in {}: install it by `rustup component add \
         rust-src`, or use the Rust version named in Cargo.toml",
        SUITES.join(" or ")
    )
}

/// Whether a Debian version such as `1.95.0+dfsg1-2~bpo13+1` is a package of this Rust release.
fn is_release(package_version: &str, release: &str) -> bool {
    package_version
        .strip_prefix(release)
        .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

fn link(unpacked: &Path, source: &Path) -> Result<()> {
    if let Some(folder) = source.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    if source.is_symlink() {
        fs::remove_file(source).with_context(|| format!("cannot replace {}", source.display()))?;
    }
    symlink(unpacked, source)
        .with_context(|| format!("cannot link {} to {}", source.display(), unpacked.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_must_be_of_exactly_the_compilers_release() {
        assert!(is_release("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(!is_release("1.95.1+dfsg1-1", "1.95.0"));
        assert!(!is_release("1.95.01+dfsg1-1", "1.95.0"));
    }
}
