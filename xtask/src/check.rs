//! `cargo xtask check`: everything about the code that needs no test to run.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::debian::packages;
use crate::{ebpf, process, report, toolchain, workspace};

/// No source file has more lines; most have far fewer.
const FILE_LENGTH: usize = 400;

/// Licences that crates may have, each by itself or as one of several to choose from. deny.toml
/// has the same list.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
];

/// One check; its error says what is not in order.
type Check = fn() -> Result<()>;

/// Runs every check, the later ones too when one fails.
pub fn run() -> Result<()> {
    packages::ensure(&[packages::BUILD])?;
    toolchain::ensure_bpf()?;
    let checks: &[(&str, Check)] = &[
        ("format of the code (rustfmt)", format),
        ("lengths of files", lengths),
        ("lints of host code (clippy)", lints),
        ("lints of the kernel programs (clippy)", bpf_lints),
        ("documentation (rustdoc)", documentation),
        ("licences and sources of dependencies", dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = report::step(name, check) {
            println!("{error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("not in order: {}", failed.join(", "));
    }
    println!("all {} checks passed", checks.len());
    Ok(())
}

fn format() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    process::run(process::cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn bpf_lints() -> Result<()> {
    process::run(ebpf::cargo("clippy").args(["--bin", "waggle-bpf", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    process::run(process::cargo().env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]))
}

fn lengths() -> Result<()> {
    let files = process::output(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    let mut long = Vec::new();
    for file in files.lines() {
        let path = workspace::root().join(file);
        // A file that was removed and not yet committed is still listed.
        let Ok(content) = fs::read_to_string(&path) else {
            continue;
        };
        let lines = content.lines().count();
        if lines > FILE_LENGTH {
            long.push(format!("{file} has {lines} lines"));
        }
    }
    if !long.is_empty() {
        bail!(
            "{}; the limit is {FILE_LENGTH}: split by noun",
            long.join(", ")
        );
    }
    Ok(())
}

/// With cargo-deny if it is installed (deny.toml), else the licences and sources by themselves.
fn dependencies() -> Result<()> {
    if process::find("cargo-deny").is_some() {
        let checks = ["bans", "licenses", "sources"];
        return process::run(
            process::cargo()
                .args(["deny", "--all-features", "check"])
                .args(checks),
        );
    }
    report::note("cargo-deny is not installed: duplicates are only listed");
    let said = process::output(process::cargo().args(["metadata", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&said).context("cargo metadata speaks no JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        *versions.entry(name).or_default() += 1;
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            wrong.push(format!("{name}: licence {licence:?}"));
        }
        if let Some(source) = package["source"].as_str()
            && !source.starts_with("registry+")
        {
            wrong.push(format!("{name}: comes from {source}"));
        }
    }
    let several: Vec<&str> = versions
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(name, _)| name)
        .collect();
    report::note(&format!("in several versions: {}", several.join(" ")));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Whether an SPDX expression can be met with the licences in the list.
///
/// Expressions of real crates are plain: alternatives by `OR` or `/`, requirements by `AND`, and
/// parentheses around alternatives. `AND` binds looser here than SPDX says, which can only refuse.
fn is_allowed(expression: &str) -> bool {
    let allowed = |licence: &str| LICENCES.contains(&licence.trim().trim_matches(['(', ')']));
    expression
        .split(" AND ")
        .all(|part| part.replace('/', " OR ").split(" OR ").any(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_and_requirements_of_licences() {
        assert!(is_allowed("MIT"));
        assert!(is_allowed("GPL-3.0 OR MIT"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed("GPL-3.0"));
        assert!(!is_allowed(""));
    }
}
