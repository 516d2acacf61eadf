//! What is inside the machine: small tools, the programs of scenarios and tests, kernel modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::kernel::Kernel;
use super::{Job, libraries, modules};
use crate::{process, workspace};

/// Programs of this machine that go in when they are here.
const PROGRAMS: &[&str] = &[
    "sh",
    "bash",
    "nginx",
    "curl",
    "ip",
    "tc",
    "bridge",
    "ss",
    "nft",
    "conntrack",
    "ethtool",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
    "wg",
    "bpftool",
    "iperf3",
    "tcpdump",
    "strace",
];

/// Data that those programs open by name.
const DATA: &[&str] = &["/etc/nginx/mime.types", "/etc/protocols", "/etc/services"];

/// Folders that programs expect.
const FOLDERS: &[&str] = &[
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/root",
    "/var/log/nginx",
    "/var/lib/nginx",
    "/var/run",
    "/etc/iproute2",
];

const TEXTS: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
      www-data:x:33:33::/:/bin/false\n",
    ),
    (
        "/etc/group",
        "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\nadm:x:4:\n",
    ),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Writes the machine's file system to a file; gives its size in bytes.
pub(super) fn write(job: &Job, kernel: &Kernel, path: &Path) -> Result<u64> {
    let mut archive = Archive::create(path)?;
    for folder in FOLDERS {
        archive.folder(Path::new(folder))?;
    }
    for (path, text) in TEXTS {
        archive.file(Path::new(path), 0o644, text.as_bytes())?;
    }
    archive.file(Path::new("/job"), 0o644, job.text()?.as_bytes())?;
    let init = super::init()?;
    let mut programs = vec![init.clone()];
    archive.copy(&stripped(&init)?, Path::new("/init"), 0o755)?;
    if !job.is_probe {
        add_modules(&mut archive, kernel)?;
        for (source, place) in &job.programs {
            archive.copy(&stripped(source)?, place, 0o755)?;
            programs.push(source.clone());
        }
        for (source, place) in &job.data {
            archive.copy(source, place, 0o644)?;
        }
        programs.extend(add_tools(&mut archive)?);
    }
    for library in libraries::of(&programs)? {
        archive.copy(&library, &library, 0o755)?;
    }
    add_busybox(&mut archive)?;
    Ok(archive.finish()?.1)
}

fn add_modules(archive: &mut Archive, kernel: &Kernel) -> Result<()> {
    let mut list = String::new();
    for module in modules::select(kernel)? {
        let place = format!("/modules/{}.ko", module.name);
        archive.copy(&module.file, Path::new(&place), 0o644)?;
        list.push_str(&place);
        list.push('\n');
    }
    archive.file(Path::new("/modules.list"), 0o644, list.as_bytes())
}

/// Adds this machine's programs with what they open; gives the files whose libraries they need.
fn add_tools(archive: &mut Archive) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for program in PROGRAMS.iter().filter_map(|name| process::find(name)) {
        let folder = if program
            .parent()
            .is_some_and(|folder| folder.ends_with("sbin"))
        {
            "/usr/sbin"
        } else {
            "/usr/bin"
        };
        let name = program.file_name().unwrap_or_default();
        archive.copy(&program, &Path::new(folder).join(name), 0o755)?;
        found.push(program);
    }
    let data = DATA.iter().map(Path::new).filter(|path| path.is_file());
    for path in data {
        archive.copy(path, path, 0o644)?;
    }
    let plugins = xtables_plugins()?;
    for plugin in &plugins {
        archive.copy(plugin, plugin, 0o644)?;
    }
    found.extend(plugins);
    Ok(found)
}

/// iptables' matches and targets, which it loads by name.
fn xtables_plugins() -> Result<Vec<PathBuf>> {
    let mut plugins = Vec::new();
    for folder in fs::read_dir("/usr/lib")? {
        let Ok(files) = fs::read_dir(folder?.path().join("xtables")) else {
            continue;
        };
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "so") && !path.is_symlink() {
                plugins.push(path);
            }
        }
    }
    plugins.sort();
    Ok(plugins)
}

/// Adds busybox, by each of the names it answers to that no program of its own has.
fn add_busybox(archive: &mut Archive) -> Result<()> {
    let busybox = process::find("busybox").context("busybox is not installed")?;
    archive.copy(&busybox, Path::new("/usr/bin/busybox"), 0o755)?;
    for library in libraries::of(std::slice::from_ref(&busybox))? {
        archive.copy(&library, &library, 0o755)?;
    }
    let names = process::output(Command::new(&busybox).arg("--list"))?;
    for name in names.lines() {
        let places = ["/usr/sbin", "/usr/bin"].map(|folder| Path::new(folder).join(name));
        if !places.iter().any(|place| archive.has(place)) {
            archive.link(&places[1], "busybox")?;
        }
    }
    Ok(())
}

/// A copy of a program without its debugging sections, which the machine would keep in memory.
fn stripped(program: &Path) -> Result<PathBuf> {
    let folder = workspace::target().join("vm/stripped");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = program.file_name().unwrap_or_default();
    let copy = folder.join(name);
    let age = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if age(&copy) < age(program) {
        process::output(
            Command::new("strip")
                .args(["--strip-debug", "-o"])
                .arg(&copy)
                .arg(program),
        )?;
    }
    Ok(copy)
}
