//! Which kernel the machine boots: one of the distribution's by version, or one of the user's own.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::debian::{self, Suite};
use crate::{cache, report};

/// The name for the newest kernel there is.
const NEWEST: &str = "newest";

/// Suites of Debian that carry kernels, those with short package lists first.
const SUITES: &[&str] = &[
    "bookworm-backports",
    "trixie-backports",
    "bookworm",
    "trixie",
    "sid",
];

/// The one that carries the newest.
const NEWEST_SUITE: &str = "trixie-backports";

/// How many releases of one version are tried if the newest ones cannot be used.
const CANDIDATES: usize = 3;

/// What the names of kernels for virtual machines end in: Debian's small ones, Ubuntu's only ones.
const FLAVOURS: [&str; 2] = ["-cloud-amd64", "-generic"];

/// The package of a kernel's image.
const IMAGE: &str = "linux-image-";

/// The packages that one kernel may be split into.
const PARTS: &[&str] = &[
    IMAGE,
    "linux-binary-",
    "linux-modules-",
    "linux-modules-extra-",
];

/// A kernel with its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` will say.
    pub(crate) release: String,
    /// The image that boots.
    pub(crate) image: PathBuf,
    /// The folder of `modules.builtin` and `kernel/`; none if everything is built in.
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    /// Finds the kernel a person asked for: a version such as `6.12`, `newest`, or a path to an
    /// image or to the folder of an unpacked kernel package.
    pub(crate) fn find(wanted: &str) -> Result<Self> {
        let path = Path::new(wanted);
        if wanted.contains('/') || path.exists() {
            return if path.is_dir() {
                Self::in_folder(path)
            } else {
                Self::from_image(path)
            };
        }
        if wanted != NEWEST && version(wanted).len() < 2 {
            bail!("--kernel {wanted}: give a version such as 6.12, `{NEWEST}`, or a path");
        }
        let folder = cache::folder("kernels")?.join(wanted);
        if let Ok(kernel) = Self::in_folder(&folder) {
            return Ok(kernel);
        }
        report::step(&format!("fetching the kernel {wanted}"), || {
            fetch(wanted, &folder)
        })?;
        Self::in_folder(&folder)
    }

    /// The kernel in a folder laid out as Debian's packages are.
    fn in_folder(folder: &Path) -> Result<Self> {
        for modules in ["usr/lib/modules", "lib/modules"].map(|place| folder.join(place)) {
            let Ok(mut entries) = fs::read_dir(&modules) else {
                continue;
            };
            let Some(entry) = entries.next().transpose()? else {
                continue;
            };
            let release = entry.file_name().to_string_lossy().into_owned();
            let image = [
                folder.join(format!("boot/vmlinuz-{release}")),
                modules.join(&release).join("vmlinuz"),
            ];
            if let Some(image) = image.into_iter().find(|image| image.is_file()) {
                return Ok(Self {
                    image,
                    modules: Some(modules.join(&release)),
                    release,
                });
            }
        }
        bail!(
            "no kernel in {}: expected boot/vmlinuz-* and lib/modules/*",
            folder.display()
        )
    }

    /// A kernel image, with the modules this machine has for its release, if any.
    fn from_image(image: &Path) -> Result<Self> {
        let content =
            fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        let release = release_of_image(&content)
            .with_context(|| format!("{} is not an x86 Linux image", image.display()))?;
        let modules = Path::new("/lib/modules").join(&release);
        Ok(Self {
            modules: modules.is_dir().then_some(modules),
            image: image.to_path_buf(),
            release,
        })
    }
}

/// The version that boots if none is named: that of Debian's stable release; Ubuntu has another.
pub(crate) fn default() -> &'static str {
    if debian::is_ubuntu() { NEWEST } else { "6.12" }
}

/// The versions that tests run on: the oldest supported, the default and the newest, as far as
/// this distribution has them.
pub(crate) fn matrix() -> &'static [&'static str] {
    if debian::is_ubuntu() {
        &[NEWEST]
    } else {
        &["6.1", "6.12", NEWEST]
    }
}

fn fetch(wanted: &str, folder: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("only x86-64 kernels are fetched; name another by `--kernel PATH`");
    }
    if debian::is_ubuntu() {
        if fetch_from(&Suite::own()?, wanted, folder)? {
            return Ok(());
        }
        bail!("this machine's suites have no kernel {wanted}; `{NEWEST}` or a path may do");
    }
    let suites: &[&str] = if wanted == NEWEST {
        &[NEWEST_SUITE]
    } else {
        SUITES
    };
    let mut problems = Vec::new();
    for name in suites {
        match Suite::open(name).and_then(|suite| fetch_from(&suite, wanted, folder)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => problems.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "Debian has no kernel {wanted} now (looked in {}): name one from 6.1 on that it has, `{NEWEST}`, or a path\n{}",
        suites.join(", "),
        problems.join("\n")
    )
}

/// Fetches the newest kernel of the wanted version that the suite has whole; false if it has none
/// of this version. An archive may list a kernel before all of its packages have arrived.
fn fetch_from(suite: &Suite, wanted: &str, folder: &Path) -> Result<bool> {
    let names = suite.names("linux-")?;
    let images = names.iter().filter_map(|name| release_of_package(name));
    let mut problem = None;
    for release in newest_first(images, wanted).into_iter().take(CANDIDATES) {
        let parts = names.iter().filter(|name| is_part(name, release));
        let packages: Vec<String> = parts.cloned().collect();
        report::note(&format!("{release} of {}", suite.name()));
        let result = suite.download(&packages).and_then(|archives| {
            debian::unpack(&archives, folder, |unpacked| {
                Kernel::in_folder(unpacked).map(drop)
            })
        });
        match result {
            Ok(()) => return Ok(true),
            Err(error) => {
                report::note(&format!("{release} cannot be used: {error:#}"));
                problem = Some(error);
            }
        }
    }
    problem.map_or(Ok(false), Err)
}

/// The release that a package is the image of; none if it is another package, such as a
/// metapackage, which names no version.
fn release_of_package(package: &str) -> Option<&str> {
    let release = package.strip_prefix(IMAGE)?;
    let is_version = release.starts_with(|c: char| c.is_ascii_digit());
    let is_flavour = FLAVOURS.iter().any(|flavour| release.ends_with(flavour));
    (is_version && is_flavour).then_some(release)
}

fn is_part(package: &str, release: &str) -> bool {
    PARTS
        .iter()
        .any(|prefix| package.strip_prefix(prefix) == Some(release))
}

/// The releases of the wanted version, such as `6.1.0-50-cloud-amd64` for `6.1`, newest first.
fn newest_first<'a>(releases: impl Iterator<Item = &'a str>, wanted: &str) -> Vec<&'a str> {
    let prefix = if wanted == NEWEST {
        Vec::new()
    } else {
        version(wanted)
    };
    let mut found: Vec<&str> = releases
        .filter(|release| version(release).starts_with(&prefix))
        .collect();
    found.sort_by_key(|release| Reverse(version(release)));
    found
}

/// The numbers of a release, by which releases are ordered.
fn version(release: &str) -> Vec<u32> {
    let mut endings = FLAVOURS.iter();
    let numbers = endings
        .find_map(|ending| release.strip_suffix(ending))
        .unwrap_or(release);
    numbers
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The release that an x86 boot image carries (Documentation/arch/x86/boot.rst, `kernel_version`).
fn release_of_image(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    let word = text.split(|byte| *byte == 0 || *byte == b' ').next()?;
    String::from_utf8(word.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASES: [&str; 5] = [
        "6.1.0-9-cloud-amd64",
        "6.1.0-50-cloud-amd64",
        "6.12.90+deb12-cloud-amd64",
        "6.12.90+deb12.1-cloud-amd64",
        "6.9.12+bpo-cloud-amd64",
    ];

    #[test]
    fn newest_of_a_version_is_found_by_its_numbers() {
        let find = |wanted| newest_first(RELEASES.into_iter(), wanted).first().copied();
        assert_eq!(find("6.1"), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(find("6.12"), Some("6.12.90+deb12.1-cloud-amd64"));
        assert_eq!(find("newest"), Some("6.12.90+deb12.1-cloud-amd64"));
        assert_eq!(find("6.18"), None);
    }

    #[test]
    fn only_packages_of_a_version_are_images() {
        for (package, release) in [
            (
                "linux-image-7.3.4+deb13-cloud-amd64",
                Some("7.3.4+deb13-cloud-amd64"),
            ),
            ("linux-image-cloud-amd64", None),
            ("linux-headers-7.3.4+deb13-cloud-amd64", None),
            ("linux-image-7.3.4+deb13-amd64", None),
        ] {
            assert_eq!(release_of_package(package), release, "{package}");
        }
    }

    #[test]
    fn folder_without_an_image_is_no_kernel() {
        let folder = std::env::temp_dir().join(format!("waggle-no-kernel-{}", std::process::id()));
        fs::create_dir_all(folder.join("usr/lib/modules/7.3.4+deb13-cloud-amd64")).unwrap();
        let error = Kernel::in_folder(&folder).unwrap_err();
        fs::remove_dir_all(&folder).unwrap();
        assert!(error.to_string().starts_with("no kernel in"), "{error}");
    }

    #[test]
    fn parts_of_a_kernel_are_those_of_its_very_release() {
        assert!(is_part(
            "linux-modules-7.2.1+deb13-cloud-amd64",
            "7.2.1+deb13-cloud-amd64"
        ));
        assert!(!is_part(
            "linux-image-7.2.11+deb13-cloud-amd64",
            "7.2.1+deb13-cloud-amd64"
        ));
        assert!(!is_part(
            "linux-headers-7.2.1+deb13-cloud-amd64",
            "7.2.1+deb13-cloud-amd64"
        ));
    }

    #[test]
    fn release_is_read_from_the_image() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.1.0-50-cloud (");
        assert_eq!(release_of_image(&image).as_deref(), Some("6.1.0-50-cloud"));
        assert_eq!(release_of_image(b"ELF"), None);
    }
}
