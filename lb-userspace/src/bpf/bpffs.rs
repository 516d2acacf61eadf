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
    errno::Errno,
    mount::{MsFlags, mount, umount},
    sys::statfs::{FsType, statfs},
};

/// `BPF_FS_MAGIC` in linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Name of the folder of links.
pub(crate) const LINKS: &str = "links";

/// The source, as mounts are listed, of a BPF file system that was mounted for a root of ours alone.
const OWN: &str = "waggle";

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
            // By its source we know it again: one that is ours alone goes with the clean-up.
            let source = if place == Path::new(USUAL) {
                "bpf"
            } else {
                OWN
            };
            mount(
                Some(source),
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

    /// Unmounts the BPF file system at the root if it was mounted by [`BpfRoot::prepare`]. While somebody else keeps
    /// something in it, it stays.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        let root = match self.0.canonicalize() {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_ours = has_own_mount(&fs::read_to_string("/proc/self/mounts")?, &root);
        // What the kernel puts into each BPF file system is nobody's.
        let is_kept = |name: &String| !matches!(name.as_str(), "maps.debug" | "progs.debug");
        if !is_ours || Self::pins(&root)?.iter().any(is_kept) {
            return Ok(());
        }
        match umount(&root) {
            Err(Errno::EBUSY) => Ok(()),
            result => result.map_err(io::Error::from),
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

/// Whether the last mount at this place is one of ours. White space in paths is written in octal (proc(5)).
fn has_own_mount(mounts: &str, place: &Path) -> bool {
    let written = place.to_string_lossy().replace('\\', "\\134");
    let written = written.replace(' ', "\\040").replace('\t', "\\011");
    let written = written.replace('\n', "\\012");
    let mut here = mounts.lines().rev().filter_map(|line| {
        let mut words = line.split(' ');
        let (source, place, kind) = (words.next()?, words.next()?, words.next()?);
        (place == written).then_some((source, kind))
    });
    here.next() == Some((OWN, "bpf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_of_ours_is_unmounted() {
        let mounts = "bpf /sys/fs/bpf bpf rw 0 0\nwaggle /tmp/a\\040b bpf rw 0 0\nwaggle /tmp/c tmpfs rw 0 0\n\
                      waggle /tmp/d bpf rw 0 0\nbpf /tmp/d bpf rw 0 0\n";
        for (place, is_ours) in [
            ("/tmp/a b", true),
            ("/sys/fs/bpf", false),
            ("/tmp/c", false),
            ("/tmp/d", false),
            ("/tmp", false),
        ] {
            assert_eq!(has_own_mount(mounts, Path::new(place)), is_ours, "{place}");
        }
    }
}
