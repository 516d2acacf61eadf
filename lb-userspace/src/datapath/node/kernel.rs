//! What this kernel and this process must be able to do before anything is loaded.
use std::{fs, path::Path};

use nix::{
    sys::utsname::uname,
    time::{ClockId, clock_getres},
};
use thiserror::Error;

/// The oldest kernel whose verifier and helpers the programs are tested with.
pub const OLDEST: Version = Version(6, 1);

/// Major and minor number of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// From a release such as `6.12.9-cloud-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release
            .split(|character: char| !character.is_ascii_digit())
            .map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// Why nothing can be loaded here.
#[derive(Debug, Error)]
pub enum Unable {
    /// Capabilities are missing.
    #[error(
        "needs root: loading and attaching BPF programs takes CAP_NET_ADMIN with CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN); try sudo, or a privileged container"
    )]
    NotRoot,
    /// The kernel is too old.
    #[error("Linux {0} is too old: the kernel programs are made for 6.1 and newer")]
    OldKernel(String),
    /// The kernel describes its types to nobody.
    #[error(
        "this kernel has no BTF: {0} is missing; use a kernel built with CONFIG_DEBUG_INFO_BTF (every current distribution's is)"
    )]
    NoBtf(String),
}

/// The running kernel's release, as `uname -r` prints it.
pub fn release() -> String {
    uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Checks privilege, version and BTF, in the order in which a person can do something about them.
pub fn require(release: &str, btf: &Path) -> Result<(), Unable> {
    if !may_load() {
        return Err(Unable::NotRoot);
    }
    if Version::parse(release).is_none_or(|version| version < OLDEST) {
        return Err(Unable::OldKernel(release.to_owned()));
    }
    if !btf.exists() {
        return Err(Unable::NoBtf(btf.display().to_string()));
    }
    Ok(())
}

/// Whether this process's effective capabilities suffice.
pub fn may_load() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    capabilities(&status).is_some_and(sufficient)
}

fn capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Bit numbers are those of linux/capability.h.
const fn sufficient(set: u64) -> bool {
    const fn has(set: u64, bit: u32) -> bool {
        set & (1 << bit) != 0
    }
    let (net_admin, sys_admin, perfmon, bpf) =
        (has(set, 12), has(set, 21), has(set, 38), has(set, 39));
    net_admin && (sys_admin || (perfmon && bpf))
}

/// The kernel's HZ: one over the resolution of the coarse clock, which moves once a tick.
pub fn jiffies_per_second() -> std::io::Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = tick.tv_nsec().max(1);
    // The resolution is a whole number of nanoseconds: HZ 300 reads as 3,333,333.
    let rounded = (1_000_000_000 + nanoseconds / 2) / nanoseconds;
    Ok(u32::try_from(rounded).unwrap_or(250))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(Version::parse("6.1.0-44-cloud-amd64"), Some(Version(6, 1)));
        assert_eq!(Version::parse("6.18.44-fc-v445"), Some(Version(6, 18)));
        assert!(Version::parse("5.15.0").unwrap() < OLDEST);
        assert!(Version::parse("6.12").unwrap() > Version::parse("6.6.1").unwrap());
        assert_eq!(Version::parse("rawhide"), None);
    }

    #[test]
    fn an_old_kernel_is_refused_before_anything_is_tried() {
        let nowhere = Path::new("/nowhere/vmlinux");
        for (release, part) in [("5.15.0-generic", "too old"), ("6.12.1", "no BTF")] {
            let refused = require(release, nowhere).unwrap_err().to_string();
            let part = if may_load() { part } else { "needs root" };
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn root_in_a_container_without_capabilities_is_not_enough() {
        assert!(capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_some_and(sufficient));
        assert!(!sufficient(0x0000_0000_a804_25fb), "docker's default set");
        assert!(sufficient(1 << 12 | 1 << 38 | 1 << 39));
        assert!(!sufficient(1 << 12 | 1 << 39));
        assert_eq!(capabilities("nothing"), None);
    }
}
