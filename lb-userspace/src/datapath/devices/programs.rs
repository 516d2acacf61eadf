//! The object's programs for network devices.
use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    attach::{self, AttachBy, Attacher, QDISCS},
    clsact::Direction,
    device::Layer,
    monitor::{Monitor, Options},
};
use crate::{
    datapath::object::load::{DEVICE_PROGRAMS, Datapath},
    maps::bpf::DeviceTable,
    supervise::Tasks,
};

/// The programs of network devices, held open.
#[derive(Debug)]
pub(crate) struct DevicePrograms {
    ingress_ethernet: OwnedFd,
    egress_ethernet: OwnedFd,
    ingress_ip: OwnedFd,
    egress_ip: OwnedFd,
}

impl DevicePrograms {
    pub(crate) fn get(&self, layer: Layer, direction: Direction) -> BorrowedFd<'_> {
        match (layer, direction) {
            (Layer::Ethernet, Direction::Ingress) => self.ingress_ethernet.as_fd(),
            (Layer::Ethernet, Direction::Egress) => self.egress_ethernet.as_fd(),
            (Layer::Ip, Direction::Ingress) => self.ingress_ip.as_fd(),
            (Layer::Ip, Direction::Egress) => self.egress_ip.as_fd(),
        }
    }
}

impl Datapath {
    /// Attaches to every device of this network namespace that the filter chooses, and goes on watching.
    pub fn attach_to_devices(
        &self,
        run_dir: &Path,
        options: Options,
        attach_by: AttachBy,
        tasks: &Tasks,
    ) -> Result<Monitor> {
        let attacher = self.attacher(run_dir, attach_by)?;
        let table =
            DeviceTable::open(&self.root().maps()).context("cannot open the map DEVICES")?;
        Monitor::start(attacher, table, options, tasks).context("cannot watch the network devices")
    }
    /// What attaches this object's programs to devices of this network namespace.
    pub fn attacher(&self, run_dir: &Path, attach_by: AttachBy) -> Result<Attacher> {
        Attacher::new(
            self.device_programs()?,
            self.root().links(),
            run_dir.join(QDISCS),
            attach_by == AttachBy::Auto && attach::has_tcx(),
        )
        .context("cannot open a netlink socket")
    }
    /// The programs of network devices.
    pub(crate) fn device_programs(&self) -> Result<DevicePrograms> {
        let [ingress_ethernet, egress_ethernet, ingress_ip, egress_ip] = DEVICE_PROGRAMS;
        let own = |name| -> Result<OwnedFd> { Ok(self.program(name)?.try_clone_to_owned()?) };
        Ok(DevicePrograms {
            ingress_ethernet: own(ingress_ethernet)?,
            egress_ethernet: own(egress_ethernet)?,
            ingress_ip: own(ingress_ip)?,
            egress_ip: own(egress_ip)?,
        })
    }
}
