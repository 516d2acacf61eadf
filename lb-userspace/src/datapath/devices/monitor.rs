//! Watches the network namespace's devices: attaches to those that come, lets go of those that leave, keeps DEVICES
//! true. A thread of its own, because attaching waits for the kernel's routing lock.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lb_common::DeviceEntry;
use netlink_packet_route::rule::RuleMessage;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::datapath::devices::{
    attach::{Attacher, Hook},
    clsact::Route,
    device::{Device, Filter, Layer},
    inventory::{Inventory, Touched},
    masquerade,
    node_device::{self, NodeDevice},
};
use crate::{
    maps::bpf::DeviceTable,
    model::{DetectLocal, DeviceAddresses},
    netlink::Received,
    supervise::Tasks,
};

/// Multicast groups of linux/rtnetlink.h: link, TC, IPv4 and IPv6 addresses, IPv4 and IPv6 rules.
const GROUPS: &[u32] = &[1, 4, 5, 9, 8, 19];

/// What is known of a device, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge`, `wireguard` …; empty for hardware.
    pub kind: String,
    /// Where packets start.
    pub layer: Option<Layer>,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// The source of masqueraded IPv4 packets that leave here.
    pub masquerade_v4: Option<Ipv4Addr>,
    /// The source of masqueraded IPv6 packets that leave here.
    pub masquerade_v6: Option<Ipv6Addr>,
    /// Where our programs hang, and where they ought to; empty if they are to hang nowhere.
    pub hooks: Vec<Hook>,
    /// Why they are to hang nowhere.
    pub not_attached: Option<String>,
}

/// Which devices are attached to, and as what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which are left out.
    pub filter: Filter,
    /// How those of pods are told from others.
    pub detect_local: DetectLocal,
    /// The pair for processes of the node, which is kept as it should be.
    pub node_device: Option<Arc<NodeDevice>>,
    /// How often everything is looked at again, for changes of which netlink tells nothing.
    pub check_period: Duration,
}

/// All devices, by index; replaced as a whole.
pub type Reports = Arc<BTreeMap<u32, DeviceReport>>;

/// The running watch. Dropping it ends the thread and leaves everything attached.
#[derive(Debug)]
pub struct Monitor {
    reports: watch::Receiver<Reports>,
    addresses: watch::Receiver<DeviceAddresses>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Attaches to every device there is, then goes on watching in a thread of the same network namespace.
    pub(crate) fn start(
        attacher: Attacher,
        table: DeviceTable,
        options: Options,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let mut events = Route::route()?;
        events.subscribe(GROUPS)?;
        let written = table.read();
        let (sender, reports) = watch::channel(Reports::default());
        let (address_sender, addresses) = watch::channel(DeviceAddresses::default());
        let Options {
            filter,
            detect_local,
            node_device,
            check_period,
        } = options;
        let mut watched = Watched {
            events,
            questions: Route::route()?,
            attacher,
            table,
            filter,
            check_period,
            detect_local,
            node_device: node_device::Keeper::new(node_device),
            inventory: Inventory::default(),
            written,
            reports: BTreeMap::new(),
            sender,
            address_sender,
        };
        watched.refresh()?;
        let stop = Arc::new(EventFd::new()?);
        let stopped = Arc::clone(&stop);
        let thread = tasks.thread("devices", move || watched.run(&stopped))?;
        Ok(Self {
            reports,
            addresses,
            stop,
            thread: Some(thread),
        })
    }

    /// The devices as they are, and a way to wait until that changes.
    pub fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.clone()
    }

    /// The addresses the node answers to, and a way to wait until they change.
    pub fn device_addresses(&self) -> watch::Receiver<DeviceAddresses> {
        self.addresses.clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

struct Watched {
    events: Route,
    questions: Route,
    attacher: Attacher,
    table: DeviceTable,
    filter: Filter,
    /// How often everything is looked at again, for changes of which netlink tells nothing.
    check_period: Duration,
    detect_local: DetectLocal,
    node_device: node_device::Keeper,
    inventory: Inventory,
    /// What DEVICES holds.
    written: BTreeMap<u32, DeviceEntry>,
    reports: BTreeMap<u32, DeviceReport>,
    sender: watch::Sender<Reports>,
    address_sender: watch::Sender<DeviceAddresses>,
}

impl Watched {
    #[expect(
        clippy::disallowed_methods,
        reason = "a loop that waits must read the clock"
    )]
    fn run(mut self, stop: &EventFd) {
        let mut next_check = Instant::now() + self.check_period;
        loop {
            let left = next_check.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waiting = [
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            ];
            if let Err(error) = poll(&mut waiting, timeout) {
                tracing::debug!("waited shorter than meant: {error}");
            }
            let [stopping, _] = &waiting;
            if stopping.any() == Some(true) {
                return;
            }
            let result = if Instant::now() >= next_check {
                next_check = Instant::now() + self.check_period;
                self.refresh()
            } else {
                self.take_events()
            };
            if let Err(error) = result {
                tracing::warn!(
                    "cannot watch the network devices: {error}; trying again in {} s",
                    self.check_period.as_secs()
                );
            }
        }
    }

    /// Learns everything anew.
    fn refresh(&mut self) -> io::Result<()> {
        // What has been told so far is in the answers too.
        drop(self.events.received()?);
        self.node_device.restore();
        self.inventory = Inventory::read(&mut self.questions)?;
        self.settle_all()
    }

    /// Brings everything to what it should be.
    fn settle_all(&mut self) -> io::Result<()> {
        let known = self.reports.keys().copied();
        let left_behind = self.attacher.pinned_devices()?;
        let gone: BTreeSet<u32> = known
            .chain(left_behind)
            .filter(|index| !self.inventory.devices.contains_key(index))
            .collect();
        self.settle(&Touched {
            changed: self.inventory.devices.keys().copied().collect(),
            gone,
            is_readdressed: true,
        });
        Ok(())
    }

    /// Takes notice of what netlink tells.
    fn take_events(&mut self) -> io::Result<()> {
        let messages = match self.events.received()? {
            Received::Messages(messages) => messages,
            Received::Lost => {
                self.inventory = Inventory::read(&mut self.questions)?;
                return self.settle_all();
            }
        };
        let mut touched = Touched::default();
        for message in messages {
            self.inventory.take(message, &mut touched);
        }
        // Most messages change nothing here.
        if !touched.is_nothing() {
            self.settle(&touched);
        }
        Ok(())
    }

    /// Lets go of a device that has left this network namespace.
    fn forget(&mut self, index: u32) {
        self.inventory.forget(index);
        if let Some(report) = self.reports.remove(&index) {
            tracing::info!("{} is gone", report.name);
        }
        if let Err(error) = self.attacher.detach(index) {
            tracing::debug!("nothing to detach from device {index}: {error}");
        }
    }

    /// Brings DEVICES and the touched devices' programs to what they should be.
    fn settle(&mut self, touched: &Touched) {
        for index in &touched.gone {
            self.forget(*index);
        }
        self.node_device
            .fit(self.inventory.devices.values(), &self.filter);
        let local = self.inventory.device_addresses();
        self.address_sender.send_if_modified(|current| {
            let changed = *current != local;
            *current = local;
            changed
        });
        let Inventory {
            devices,
            addresses,
            rules,
        } = &self.inventory;
        let of_others = |it: &RuleMessage| it.header.table != node_device::routes::TABLE;
        let has_rules = rules.iter().any(of_others);
        self.node_device
            .follow(devices.values(), has_rules, touched.is_readdressed);
        let entries = masquerade::entries(
            devices,
            addresses,
            has_rules,
            &self.detect_local,
            &self.filter,
        );
        self.write(&entries);
        for index in &touched.changed {
            if let Some(device) = self.inventory.devices.get(index).cloned() {
                self.attach(&device);
            }
        }
        for (index, report) in &mut self.reports {
            let (device, entry) = (self.inventory.devices.get(index), entries.get(index));
            let (v4, v6) = entry.map_or_else(Default::default, |entry| {
                (entry.masquerade_v4, entry.masquerade_v6)
            });
            report.masquerade_v4 = Some(v4.into()).filter(|v4: &Ipv4Addr| !v4.is_unspecified());
            report.masquerade_v6 = Some(v6.into()).filter(|v6: &Ipv6Addr| !v6.is_unspecified());
            report.bridge = device
                .filter(|device| device.bridge_port)
                .and_then(|device| self.inventory.devices.get(&device.master))
                .map(|bridge| bridge.name.clone());
        }
        let reports = Arc::new(self.reports.clone());
        self.sender.send_if_modified(|current| {
            let changed = *current != reports;
            *current = reports;
            changed
        });
    }

    fn attach(&mut self, device: &Device) {
        let mut report = DeviceReport {
            index: device.index,
            name: device.name.clone(),
            kind: device.kind.clone(),
            layer: device.layer,
            bridge: None,
            masquerade_v4: None,
            masquerade_v6: None,
            hooks: Vec::new(),
            not_attached: self.filter.reason_against(device).map(str::to_owned),
        };
        let before = self.reports.get(&device.index);
        match (&report.not_attached, device.layer) {
            (None, Some(layer)) => {
                let Some(hooks) = self.attacher.attach(device, layer) else {
                    tracing::debug!("{} went away while it was attached to", device.name);
                    return self.forget(device.index);
                };
                if before.is_none_or(|before| before.hooks != hooks) {
                    log(device, &hooks);
                }
                report.hooks = hooks;
            }
            // It may have been chosen under its old name, or by an earlier agent.
            _ => match self.attacher.detach(device.index) {
                Ok(true) => tracing::info!("detached from {}", device.name),
                Ok(false) => {}
                Err(error) => tracing::debug!("cannot detach from {}: {error}", device.name),
            },
        }
        self.reports.insert(device.index, report);
    }

    fn write(&mut self, entries: &BTreeMap<u32, DeviceEntry>) {
        let stale: Vec<_> = self
            .written
            .keys()
            .copied()
            .filter(|index| !entries.contains_key(index))
            .collect();
        for index in stale {
            self.table.remove(index);
            self.written.remove(&index);
        }
        for (index, entry) in entries {
            if self.written.get(index) == Some(entry) {
                continue;
            }
            match self.table.put(*index, entry) {
                Ok(()) => {
                    self.written.insert(*index, *entry);
                }
                Err(error) => tracing::warn!("cannot note device {index}: {error}"),
            }
        }
    }
}

fn log(device: &Device, hooks: &[Hook]) {
    for hook in hooks {
        let side = hook.direction.name();
        match (&hook.how, &hook.error) {
            (Some(how), _) => tracing::info!("attached to {} {side} by {how:?}", device.name),
            (None, Some(error)) => tracing::warn!(
                "cannot attach to {} {side}: {error}; services are not reachable through it",
                device.name
            ),
            (None, None) => {}
        }
    }
}
