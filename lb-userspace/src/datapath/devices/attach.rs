//! Onto a device and off it again: TCX links where the kernel has them, else clsact.
use std::{collections::BTreeSet, io, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    bpf::{
        bpffs::BpfRoot,
        link,
        syscall::{self, AttachType, Target},
    },
    datapath::{
        devices::programs::DevicePrograms,
        devices::{
            clsact::{self, Direction, Route},
            device::{Device, Layer},
        },
    },
};

/// The folder, in the run folder, of notes about clsact qdiscs that we made.
pub(crate) const QDISCS: &str = "clsact";

/// How programs get onto devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum AttachBy {
    /// TCX links if the kernel has them (6.6 and newer), except for egress beside clsact filters of other programs
    #[default]
    Auto,
    /// clsact filters, with preference 1 on ingress and 65535 on egress
    Clsact,
}

/// How a program hangs on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A TCX link: kernel 6.6 and newer; before all clsact filters.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// Somebody else's program at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// Where it hangs.
    pub how: How,
    /// Its name, or the kind of the filter.
    pub name: String,
    /// The program's id, if it is one.
    pub id: Option<u32>,
    /// Whether it sees packets before ours does; it can then keep them from us.
    pub before_ours: bool,
}

/// One side of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Which side.
    pub direction: Direction,
    /// How we hang there; `None` if we do not.
    pub how: Option<How>,
    /// The filter's preference, for clsact.
    pub preference: Option<u16>,
    /// Why we do not hang there.
    pub error: Option<String>,
    /// Who else is there, in the order in which they run.
    pub foreign: Vec<Foreign>,
}

/// Why a device was not attached to.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    /// It went away meanwhile: nothing to complain about.
    #[error("the device is gone")]
    Gone,
    /// The kernel refuses.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// Attaches this agent's programs to devices of the calling thread's network namespace.
#[derive(Debug)]
pub struct Attacher {
    programs: DevicePrograms,
    /// Folder of the pinned links.
    links: PathBuf,
    /// Where devices are noted that got their clsact qdisc from us.
    qdiscs: PathBuf,
    tcx: bool,
    netlink: Route,
}

impl Attacher {
    pub(crate) fn new(
        programs: DevicePrograms,
        links: PathBuf,
        qdiscs: PathBuf,
        tcx: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            programs,
            links,
            qdiscs,
            tcx,
            netlink: Route::route()?,
        })
    }

    /// Makes sure that both programs hang on the device, and looks who else does; `None` if it went away meanwhile.
    pub fn attach(&mut self, device: &Device, layer: Layer) -> Option<Vec<Hook>> {
        let mut hooks = Vec::new();
        for direction in Direction::ALL {
            let hook = match self.attach_one(device.index, layer, direction) {
                Ok(hook) => hook,
                Err(AttachError::Gone) => return None,
                Err(AttachError::Io(error)) => Hook {
                    direction,
                    how: None,
                    preference: None,
                    error: Some(error.to_string()),
                    foreign: Vec::new(),
                },
            };
            hooks.push(hook);
        }
        Some(hooks)
    }

    fn attach_one(
        &mut self,
        index: u32,
        layer: Layer,
        direction: Direction,
    ) -> Result<Hook, AttachError> {
        let filters = clsact::filters(&mut self.netlink, index, direction)?;
        let others = filters.iter().any(|filter| !filter.is_ours());
        let with_tcx = self.tcx && !(direction == Direction::Egress && others);
        let ours: Vec<_> = filters.iter().filter(|filter| filter.is_ours()).collect();
        let mut hook = Hook {
            direction,
            how: None,
            preference: None,
            error: None,
            foreign: Vec::new(),
        };
        let mut own_link = None;
        // The new place is taken before the old one is left: no packet slips through between the two, and passing
        // both changes nothing twice.
        if with_tcx {
            own_link = Some(self.put_link(index, layer, direction)?);
            hook.how = Some(How::Tcx);
        } else {
            let preference = self.put_filter(index, layer, direction, &ours)?;
            hook.how = Some(How::Clsact);
            hook.preference = Some(preference);
            link::remove(&self.pin(index, direction))?;
        }
        for filter in ours {
            if Some(filter.preference) != hook.preference {
                clsact::remove_filter(&mut self.netlink, index, direction, filter)?;
            }
        }
        hook.foreign = self.foreign(index, &hook, own_link, &filters)?;
        Ok(hook)
    }

    /// Returns the link's id.
    fn put_link(&self, index: u32, layer: Layer, direction: Direction) -> Result<u32, AttachError> {
        let path = self.pin(index, direction);
        let attach = || {
            link::attach(
                &path,
                self.programs.get(layer, direction),
                Target::Device(index),
                index.into(),
                attach_type(direction),
            )
        };
        let info = attach()?;
        let attached = syscall::attached(Target::Device(index), attach_type(direction))?;
        if attached.iter().any(|attached| attached.link_id == info.id) {
            return Ok(info.id);
        }
        // The link hangs on a device of that index which has moved to another network namespace.
        link::remove(&path)?;
        Ok(attach()?.id)
    }

    fn put_filter(
        &mut self,
        index: u32,
        layer: Layer,
        direction: Direction,
        ours: &[&clsact::Filter],
    ) -> Result<u16, AttachError> {
        let program = self.programs.get(layer, direction);
        let (id, _) = syscall::program_id_and_name(program)?;
        if let Some(filter) = ours.iter().find(|filter| filter.program_id == Some(id)) {
            return Ok(filter.preference);
        }
        if clsact::add_qdisc(&mut self.netlink, index)? {
            std::fs::create_dir_all(&self.qdiscs)?;
            std::fs::write(self.qdiscs.join(index.to_string()), [])?;
        }
        Ok(clsact::put_filter(
            &mut self.netlink,
            index,
            direction,
            program,
            ours.first().map(|filter| filter.preference),
        )?)
    }

    fn foreign(
        &self,
        index: u32,
        hook: &Hook,
        own_link: Option<u32>,
        filters: &[clsact::Filter],
    ) -> Result<Vec<Foreign>, AttachError> {
        let mut foreign = Vec::new();
        if self.tcx {
            let attached = syscall::attached(Target::Device(index), attach_type(hook.direction))?;
            let own = attached
                .iter()
                .position(|attached| Some(attached.link_id) == own_link);
            for (position, attached) in attached.iter().enumerate() {
                if own != Some(position) {
                    foreign.push(Foreign {
                        how: How::Tcx,
                        name: syscall::program_name(attached.program_id),
                        id: Some(attached.program_id),
                        before_ours: own.is_none_or(|own| position < own),
                    });
                }
            }
        }
        for filter in filters.iter().filter(|filter| !filter.is_ours()) {
            foreign.push(Foreign {
                how: How::Clsact,
                name: if filter.name.is_empty() {
                    filter.kind.clone()
                } else {
                    filter.name.clone()
                },
                id: filter.program_id,
                before_ours: hook
                    .preference
                    .is_some_and(|ours| filter.preference <= ours),
            });
        }
        Ok(foreign)
    }

    /// Takes both programs off a device, here or wherever it has gone; true if anything of ours was there.
    ///
    /// A device that moves to another network namespace takes its TCX programs along: they must not stay.
    pub fn detach(&mut self, index: u32) -> io::Result<bool> {
        let mut found = false;
        for direction in Direction::ALL {
            found |= link::remove(&self.pin(index, direction))?;
            let filters = clsact::filters(&mut self.netlink, index, direction).unwrap_or_default();
            for filter in filters.iter().filter(|filter| filter.is_ours()) {
                clsact::remove_filter(&mut self.netlink, index, direction, filter)?;
                found = true;
            }
        }
        self.remove_own_qdisc(index)?;
        Ok(found)
    }

    /// Indexes of the devices that an agent of this root has attached to, by their pins and notes.
    pub(crate) fn pinned_devices(&self) -> io::Result<BTreeSet<u32>> {
        let names = BpfRoot::pins(&self.links)?
            .into_iter()
            .chain(BpfRoot::pins(&self.qdiscs)?);
        Ok(names
            .filter_map(|name| name.split('-').next()?.parse().ok())
            .collect())
    }

    /// Removes the clsact qdisc if we made it and nobody else uses it.
    fn remove_own_qdisc(&mut self, index: u32) -> io::Result<()> {
        let note = self.qdiscs.join(index.to_string());
        if !note.exists() {
            return Ok(());
        }
        let mut used = false;
        for direction in Direction::ALL {
            used |= clsact::filters(&mut self.netlink, index, direction)
                .is_ok_and(|filters| !filters.is_empty());
        }
        if !used {
            clsact::remove_qdisc(&mut self.netlink, index)?;
        }
        std::fs::remove_file(note)
    }

    fn pin(&self, index: u32, direction: Direction) -> PathBuf {
        self.links.join(pin_name(index, direction))
    }
}

/// The name of a device's link in the folder of links.
pub(crate) fn pin_name(index: u32, direction: Direction) -> String {
    format!("{index}-{}", direction.name())
}

fn attach_type(direction: Direction) -> AttachType {
    match direction {
        Direction::Ingress => AttachType::TCX_INGRESS,
        Direction::Egress => AttachType::TCX_EGRESS,
    }
}

/// Whether this kernel has TCX: asked of the loopback device, which every network namespace has.
pub(crate) fn has_tcx() -> bool {
    syscall::attached(Target::Device(1), AttachType::TCX_INGRESS).is_ok()
}
