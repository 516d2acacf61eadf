//! The shared libraries a program needs, as ldd tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The libraries and the loader of all these programs.
pub(crate) fn of(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let said = Command::new("ldd")
        .env("LC_ALL", "C")
        .args(programs)
        .output()
        .context("cannot start ldd")?;
    // ldd fails on programs that are linked statically and on scripts, which is no failure here.
    let text = String::from_utf8_lossy(&said.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        anyhow::bail!("a library is missing on this machine: {}", missing.trim());
    }
    Ok(text
        .lines()
        .filter_map(library)
        .map(Path::to_path_buf)
        .collect())
}

/// The file of a line such as `libc.so.6 => /lib/x/libc.so.6 (0x7f…)` or `/lib64/ld.so (0x7f…)`.
fn library(line: &str) -> Option<&Path> {
    let (text, address) = line.trim().rsplit_once(' ')?;
    if !address.starts_with("(0x") {
        return None;
    }
    let path = text.split_once(" => ").map_or(text, |(_, path)| path);
    path.starts_with('/').then(|| Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ldd_are_told_apart() {
        let path = |line| library(line).and_then(Path::to_str);
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffc)"), None);
        assert_eq!(
            path("\tlibc.so.6 => /lib/x86/libc.so.6 (0x00007f)"),
            Some("/lib/x86/libc.so.6")
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(path("/usr/sbin/nginx:"), None);
        assert_eq!(path("\tnot a dynamic executable"), None);
    }

    #[test]
    fn this_very_program_has_a_loader_and_a_c_library() {
        let libraries = of(&[std::env::current_exe().unwrap()]).unwrap();
        assert!(
            libraries
                .iter()
                .any(|path| path.to_string_lossy().contains("libc.so"))
        );
        assert!(
            libraries
                .iter()
                .any(|path| path.to_string_lossy().contains("ld-linux"))
        );
    }
}
