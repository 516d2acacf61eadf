//! `cargo xtask ebpf`: builds the object of the kernel programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{process, report, toolchain, workspace};

/// Rust flags of every crate that goes into the object.
///
/// bpf-linker takes the place of a linker: it joins LLVM bitcode, keeps BTF and generates code.
/// `v3` gives 32-bit instructions and jumps; kernels from 6.1 on allow loads that are not aligned,
/// which byte-array headers need to be read in whole words. (`-Z` is for the linker flavour.)
const FLAGS: &[&str] = &[
    "-Zunstable-options",
    "-Clinker=bpf-linker",
    "-Clinker-flavor=bpf",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    // LLVM's in-order expansion has no case for copies of 16-byte alignment, and stops.
    "-Clink-arg=--disable-expand-memcpy-in-order",
];

/// The target of the kernel programs: BPF, little endian.
const TARGET: &str = "bpfel-unknown-none";

/// Where the finished object lies; lb-userspace embeds it.
pub fn object() -> PathBuf {
    workspace::target().join("bpf/waggle-bpf")
}

/// Where the object of the programs that measurements compare with lies.
pub fn floor_object() -> PathBuf {
    workspace::target().join("bpf/floor-bpf")
}

/// Builds the object, after whatever the build needs has been installed.
pub fn build() -> Result<()> {
    toolchain::ensure_bpf()?;
    report::step("building the kernel programs", || {
        build_program("waggle-bpf", &object())
    })
}

/// Builds the programs that measurements compare with.
pub fn build_floor() -> Result<()> {
    toolchain::ensure_bpf()?;
    report::step("building the floor programs", || {
        build_program("floor-bpf", &floor_object())
    })
}

fn build_program(name: &str, destination: &Path) -> Result<()> {
    let mut cargo = cargo("rustc");
    process::run(cargo.args(["--bin", name]))?;
    let built = target_folder().join(TARGET).join("bpf").join(name);
    let changed = copy_if_changed(&built, destination)?;
    let word = if changed { "written" } else { "unchanged" };
    report::note(&format!("{} {word}", destination.display()));
    Ok(())
}

/// A cargo command on the crate of the kernel programs, for their target.
///
/// It has a target folder of its own, so that it neither waits for a host build nor undoes one.
/// core is built from source, for no compiled one exists for BPF; stable cargo allows this only
/// with `RUSTC_BOOTSTRAP`.
pub(crate) fn cargo(subcommand: &str) -> std::process::Command {
    let mut cargo = process::cargo();
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("PATH", toolchain::path_with_cargo_programs())
        .args([
            subcommand,
            "--quiet",
            "--package",
            "lb-ebpf",
            "--profile",
            "bpf",
        ])
        .args(["--target", TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(target_folder());
    cargo
}

fn target_folder() -> PathBuf {
    workspace::target().join("ebpf")
}

/// Copies a file unless the destination has the same content already: what depends on it is then
/// not built again. Says whether it copied.
fn copy_if_changed(source: &Path, destination: &Path) -> Result<bool> {
    let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    if fs::read(destination).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    if let Some(folder) = destination.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(destination, content)
        .with_context(|| format!("cannot write {}", destination.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_content_is_not_copied_again() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (source, destination) = (folder.join("a"), folder.join("b/c"));
        fs::write(&source, "one").unwrap();
        assert!(copy_if_changed(&source, &destination).unwrap());
        assert!(!copy_if_changed(&source, &destination).unwrap());
        fs::write(&source, "two").unwrap();
        assert!(copy_if_changed(&source, &destination).unwrap());
        assert_eq!(fs::read(&destination).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
