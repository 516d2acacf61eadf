//! Versions of the programs that are built.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::process;

/// A release such as 1.36.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl Version {
    pub(super) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// What a program of Kubernetes says of itself (`Kubernetes v1.36.1`); None if there is no such
    /// program or it is not a release.
    pub(super) fn of(program: &Path) -> Option<Self> {
        let said = process::output(Command::new(program).arg("--version")).ok()?;
        Self::parse(said.split_whitespace().nth(1)?.strip_prefix('v')?)
    }

    /// Reads `1.36.1`; also `1.26`, which is how Go names the first release of a series.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let version = Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next().unwrap_or(Some(0))?,
        };
        numbers.next().is_none().then_some(version)
    }

    /// The name of the release's tag.
    pub(super) fn tag(self) -> String {
        format!("v{self}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_are_versions() {
        assert_eq!(Version::parse("1.36.1"), Some(Version::new(1, 36, 1)));
        assert_eq!(Version::parse("1.26"), Some(Version::new(1, 26, 0)));
        for text in ["", "1", "1.37.0-alpha.1", "1.2.3.4", "devel"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(Version::new(1, 9, 9) < Version::new(1, 26, 0));
    }
}
