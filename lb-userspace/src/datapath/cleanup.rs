//! Takes everything of a root out of the kernel.
use std::{collections::BTreeSet, fs, io, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    bpf::{
        bpffs::{BpfRoot, LINKS},
        link,
    },
    datapath::{
        devices::{
            attach::QDISCS,
            clsact::{self, Direction, Route},
            device::Device,
            inventory::devices,
            node_device,
        },
        object::lock::SOCKET,
        sockets::cgroup,
    },
};

/// What was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Devices that programs hung on; an index where the name is not known any more.
    pub devices: Vec<String>,
    /// Socket hooks.
    pub socket_hooks: Vec<String>,
    /// Maps, with their layout.
    pub maps: Vec<String>,
}

/// Detaches every program of this root and removes its pins and notes. The caller holds the node's lock.
pub fn remove_everything(root: &BpfRoot, run_dir: &Path) -> Result<Removed> {
    let mut removed = Removed {
        socket_hooks: cgroup::detach(root)
            .context("cannot detach the socket hooks")?
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ..Removed::default()
    };
    let devices = devices(&mut Route::route()?).context("cannot list the network devices")?;
    let mut found: BTreeSet<String> = BTreeSet::new();
    for name in BpfRoot::pins(&root.links()).context("cannot list the pinned links")? {
        link::remove(&root.links().join(&name)).with_context(|| format!("cannot detach {name}"))?;
        let index = name.split('-').next().unwrap_or_default();
        found.insert(device_name(&devices, index));
    }
    remove_filters(&devices, &run_dir.join(QDISCS), &mut found)?;
    node_device::remove(&mut Route::route()?).context("cannot remove the node's device")?;
    removed.devices = found.into_iter().collect();
    // Every layout's maps, not only this program's.
    for layout in BpfRoot::pins(root.path()).context("cannot list the root")? {
        if !is_ours(&layout) {
            continue;
        }
        let folder = root.path().join(&layout);
        for map in BpfRoot::pins(&folder).unwrap_or_default() {
            fs::remove_file(folder.join(&map))
                .with_context(|| format!("cannot remove {layout}/{map}"))?;
            removed.maps.push(format!("{layout}/{map}"));
        }
        fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    absent(fs::remove_dir(root.path())).or_else(mounted_here)?;
    for file in [SOCKET, "lock"] {
        absent(fs::remove_file(run_dir.join(file)))?;
    }
    // Somebody else may keep something in it, or have made it for us.
    drop(fs::remove_dir(run_dir));
    Ok(removed)
}

/// Takes away a BPF file system that was mounted for this root alone, which must be empty, and the folder if nobody keeps
/// anything in it. Whoever has the root open keeps it from going: the node's lock is one of them.
pub fn remove_root(root: &BpfRoot) -> Result<()> {
    root.unmount()
        .with_context(|| format!("cannot unmount {}", root.path().display()))?;
    Ok(absent(fs::remove_dir(root.path())).or_else(mounted_here)?)
}

fn device_name(devices: &[Device], index: &str) -> String {
    devices
        .iter()
        .find(|device| device.index.to_string() == index)
        .map_or_else(|| format!("index {index}"), |device| device.name.clone())
}

/// Removes our clsact filters, and the qdiscs that we made and nobody else uses.
fn remove_filters(
    devices: &[Device],
    notes: &Path,
    found: &mut BTreeSet<String>,
) -> io::Result<()> {
    let mut netlink = Route::route()?;
    for device in devices {
        let mut used = false;
        for direction in Direction::ALL {
            for filter in clsact::filters(&mut netlink, device.index, direction)? {
                if filter.is_ours() {
                    clsact::remove_filter(&mut netlink, device.index, direction, &filter)?;
                    found.insert(device.name.clone());
                } else {
                    used = true;
                }
            }
        }
        if !used && notes.join(device.index.to_string()).exists() {
            clsact::remove_qdisc(&mut netlink, device.index)?;
        }
    }
    absent(fs::remove_dir_all(notes))
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The folder of links, and those of maps: `v` and a layout's version. A root that is itself a BPF file system has files
/// of the kernel's beside them.
fn is_ours(folder: &str) -> bool {
    let version = folder.strip_prefix('v').map(str::parse::<u32>);
    folder == LINKS || matches!(version, Some(Ok(_)))
}

/// A root that is itself a mount point stays, and so does one in which others keep something.
fn mounted_here(error: io::Error) -> io::Result<()> {
    if matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::PermissionDenied
    ) {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_files_are_not_ours() {
        for (name, ours) in [
            ("links", true),
            ("v1", true),
            ("v12", true),
            ("maps.debug", false),
            ("v", false),
            ("vault", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }
}
