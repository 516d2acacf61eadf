//! The machine's file system: a newc archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive being written. Folders are made as files need them.
pub(crate) struct Archive {
    path: PathBuf,
    file: BufWriter<File>,
    folders: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Archive {
    /// Begins an archive in a file, with the links by which `/bin` is `/usr/bin` and so on.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut archive = Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            folders: BTreeSet::new(),
            files: BTreeSet::new(),
        };
        for name in ["bin", "sbin", "lib", "lib64"] {
            archive.folder(Path::new(&format!("/usr/{name}")))?;
            archive.link(Path::new(&format!("/{name}")), &format!("usr/{name}"))?;
        }
        Ok(archive)
    }

    /// Adds a folder and those above it.
    pub(crate) fn folder(&mut self, path: &Path) -> Result<()> {
        let path = merged(path);
        if path == Path::new("/") || self.folders.contains(&path) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above)?;
        }
        self.entry(&path, ModeFileType::Directory, 0o755, b"")?;
        self.folders.insert(path);
        Ok(())
    }

    /// Adds a file; one that is there already stays.
    pub(crate) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.new_entry(path, ModeFileType::Regular, mode, content)
    }

    /// Adds a symbolic link; a file that is there already stays.
    pub(crate) fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        self.new_entry(path, ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    /// Adds a file of this machine under another or the same path.
    pub(crate) fn copy(&mut self, source: &Path, path: &Path, mode: u32) -> Result<()> {
        let content =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.file(path, mode, &content)
    }

    /// Whether a file or link of this path was added.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.files.contains(&merged(path))
    }

    /// Ends the archive; gives its path and its size in bytes.
    pub(crate) fn finish(self) -> Result<(PathBuf, u64)> {
        let path = self.path;
        let mut file =
            trailer(self.file).with_context(|| format!("cannot write {}", path.display()))?;
        file.flush()
            .with_context(|| format!("cannot write {}", path.display()))?;
        let size = file.get_ref().metadata()?.len();
        Ok((path, size))
    }

    fn new_entry(&mut self, path: &Path, kind: ModeFileType, mode: u32, data: &[u8]) -> Result<()> {
        let path = merged(path);
        if !self.files.insert(path.clone()) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        self.entry(&path, kind, mode, data)
    }

    fn entry(&mut self, path: &Path, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for the archive"))?;
        let number = u32::try_from(self.folders.len() + self.files.len())?;
        let builder = Builder::new(&name)
            .ino(number)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind);
        let mut writer = builder.write(&mut self.file, size);
        writer
            .write_all(content)
            .and_then(|()| writer.finish().map(drop))
            .with_context(|| format!("cannot write {name} to {}", self.path.display()))
    }
}

/// The path under `/usr` for those that the links lead there.
fn merged(path: &Path) -> PathBuf {
    let moved = ["/bin/", "/sbin/", "/lib/", "/lib64/"];
    if moved
        .iter()
        .any(|prefix| path.to_string_lossy().starts_with(prefix))
    {
        return Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path));
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, mode, content) of every entry.
    fn entries(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut file = File::open(path).unwrap();
        let mut entries = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(&mut file).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.to_writer(&mut content).unwrap();
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn folders_come_before_files_and_first_files_stay() {
        let path = std::env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        let mut archive = Archive::create(&path).unwrap();
        archive
            .file(Path::new("/lib/x/libc.so"), 0o755, b"library")
            .unwrap();
        archive
            .file(Path::new("/usr/lib/x/libc.so"), 0o755, b"another")
            .unwrap();
        archive.link(Path::new("/bin/sh"), "busybox").unwrap();
        let (_, size) = archive.finish().unwrap();
        assert_eq!(size, fs::metadata(&path).unwrap().len());

        let entries = entries(&path);
        let find = |name: &str| entries.iter().position(|entry| entry.0 == name).unwrap();
        assert!(find("usr") < find("usr/lib") && find("usr/lib") < find("usr/lib/x"));
        let library = find("usr/lib/x/libc.so");
        assert!(find("usr/lib/x") < library);
        assert_eq!(
            (entries[library].1, &*entries[library].2),
            (0o100_755, &b"library"[..])
        );
        let shell = &entries[find("usr/bin/sh")];
        assert_eq!((shell.1, &*shell.2), (0o120_777, &b"busybox"[..]));
        assert_eq!(
            entries
                .iter()
                .filter(|entry| entry.0.ends_with("libc.so"))
                .count(),
            1
        );
        fs::remove_file(&path).unwrap();
    }
}
