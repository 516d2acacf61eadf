//! What the build of the kernel programs needs beside stable Rust: bpf-linker and Rust's source.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, report, rust_source};

/// The version that fits the LLVM of the Rust version this workspace is tested with.
const BPF_LINKER: &str = "0.10.4";

/// Installs bpf-linker and Rust's source where they are missing.
pub(crate) fn ensure_bpf() -> Result<()> {
    rust_source::ensure()?;
    ensure_bpf_linker()
}

fn ensure_bpf_linker() -> Result<()> {
    let present = Command::new("bpf-linker")
        .env("PATH", path_with_cargo_programs())
        .arg("--version")
        .output()
        .is_ok_and(|said| said.status.success() && names_version(&said.stdout, BPF_LINKER));
    if present {
        return Ok(());
    }
    let what = format!("installing bpf-linker {BPF_LINKER} (it links the kernel programs)");
    report::step(&what, || {
        process::run(process::cargo().args([
            "install",
            "--quiet",
            "--locked",
            "bpf-linker",
            "--version",
            BPF_LINKER,
        ]))
        .context("without bpf-linker the kernel programs cannot be built")
    })
}

fn names_version(said: &[u8], version: &str) -> bool {
    String::from_utf8_lossy(said)
        .split_whitespace()
        .any(|word| word == version)
}

/// PATH with the folder that `cargo install` installs to in front.
pub(crate) fn path_with_cargo_programs() -> OsString {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = home
        .map(|home| home.join("bin"))
        .into_iter()
        .chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_version_counts() {
        assert!(names_version(b"bpf-linker 0.10.4\n", "0.10.4"));
        assert!(!names_version(b"bpf-linker 0.10.40\n", "0.10.4"));
        assert!(!names_version(b"", "0.10.4"));
    }
}
