//! Where this program's maps and links are pinned, and the BPF file system below them.
//!
//! ```text
//! <bpf-root>/v3/FRONTENDS_V4 …            maps; the number is the layout's version
//! <bpf-root>/links/<index>-ingress        TCX links, by interface index
//! <bpf-root>/links/connect4 …             cgroup links, by program name
//! ```
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{FsType, statfs},
};

/// `BPF_FS_MAGIC` in linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Name of the folder of links.
pub(crate) const LINKS: &str = "links";

/// Where the BPF file system usually is.
const USUAL: &str = "/sys/fs/bpf";

/// The root of everything this agent pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfRoot(PathBuf);

impl BpfRoot {
    /// The root at this path; nothing is looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    /// The root itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The folder of the maps of this program's layout.
    pub fn maps(&self) -> PathBuf {
        self.0.join(format!("v{}", lb_common::maps::LAYOUT_VERSION))
    }
    /// The folder of the links.
    pub fn links(&self) -> PathBuf {
        self.0.join(LINKS)
    }

    /// Makes the folders, and mounts a BPF file system if there is none: at its usual place if the root is below it,
    /// else at the root itself.
    pub fn prepare(&self) -> Result<()> {
        if !self.is_on_bpffs() {
            let place = if self.0.starts_with(USUAL) {
                Path::new(USUAL)
            } else {
                self.0.as_path()
            };
            // /sys/fs/bpf is there wherever the kernel has BPF, and nobody can make it where it is not.
            if !place.starts_with(USUAL) {
                fs::create_dir_all(place)
                    .with_context(|| format!("cannot make {}", place.display()))?;
            }
            mount(
                Some("bpf"),
                place,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .with_context(|| {
                format!(
                    "{} is not on a BPF file system, and one cannot be mounted at {}; try: mount -t bpf bpf {}",
                    self.0.display(),
                    place.display(),
                    place.display()
                )
            })?;
            tracing::info!("mounted a BPF file system at {}", place.display());
        }
        for folder in [self.maps(), self.links()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        if self.is_on_bpffs() {
            Ok(())
        } else {
            bail!("{} is not on a BPF file system", self.0.display())
        }
    }

    /// Whether the root, or the nearest of its parents that exists, lies on a BPF file system.
    pub fn is_on_bpffs(&self) -> bool {
        self.0
            .ancestors()
            .find(|path| path.exists())
            .and_then(|path| statfs(path).ok())
            .is_some_and(|found| found.filesystem_type() == BPF_FS)
    }

    /// Names of the pins in a folder of the root, sorted; none if the folder is not there.
    pub fn pins(folder: &Path) -> io::Result<Vec<String>> {
        let mut names = match fs::read_dir(folder) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        names.sort();
        Ok(names)
    }
}
