//! A device that is gone by the time the agent attaches to it: that is no error, and leaves nothing.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lb_common::DatapathConfig;
use lb_userspace::datapath::devices::attach::AttachBy;
use lb_userspace::datapath::devices::attach::Attacher;
use lb_userspace::datapath::devices::device::{Device, Layer};
use lb_userspace::datapath::object::contract::ConfiguredCapacities;
use lb_userspace::datapath::{BpfRoot, Datapath, LoadOptions, object};
use serde_json::Value;
use tests::cluster::agent_without_services::has_tcx;
use tests::machine::netns::Namespace;
use tests::machine::require::optional;
use tests::machine::scratch::{Scratch, unique_tag};

/// The folder of one test's pins, with its maps; removed with its owner.
struct Pinned(BpfRoot);

impl Drop for Pinned {
    fn drop(&mut self) {
        // What stays behind has a name of its own and hangs on nothing.
        drop(std::fs::remove_dir_all(self.0.path()));
    }
}

/// How many files there are in a folder that may be missing.
fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Attaches to a device that is being looked at while it vanishes.
fn vanishes(attach_by: AttachBy) -> Result<()> {
    let namespace = Namespace::new("vanishing")?;
    let pinned = Pinned(BpfRoot::new(format!("/sys/fs/bpf/{}", unique_tag())));
    let run_dir = Scratch::new()?;
    pinned.0.prepare()?;
    namespace.run(|| {
        let options = LoadOptions {
            root: pinned.0.clone(),
            config: DatapathConfig::DEFAULT,
            capacities: ConfiguredCapacities::default(),
        };
        let datapath = Datapath::load(object(), &options)?;
        let mut attacher = datapath.attacher(run_dir.path(), attach_by)?;
        // Pinned links of TCX, and notes of devices that got their qdisc from us.
        let left = || count(&pinned.0.links()) + count(&run_dir.path().join("clsact"));
        for was_attached in [false, true] {
            vanishes_once(&namespace, &mut attacher, was_attached, &left)?;
        }
        Ok(())
    })
}

fn vanishes_once(
    namespace: &Namespace,
    attacher: &mut Attacher,
    was_attached: bool,
    left: &dyn Fn() -> usize,
) -> Result<()> {
    namespace.ip("link add here type veth peer name there")?;
    let shown = namespace.output("ip", &["-json", "link", "show", "here"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let index = shown[0]["ifindex"].as_u64().context("an index")?;
    let device = Device {
        index: u32::try_from(index)?,
        name: "here".to_owned(),
        kind: "veth".to_owned(),
        layer: Some(Layer::Ethernet),
        loopback: false,
        master: 0,
        lower: 0,
        bridge_port: false,
        ethernet_address: [0; 6],
        mtu: 1500,
        is_up: true,
    };
    if was_attached {
        let hooks = attacher.attach(&device, Layer::Ethernet);
        let hooks = hooks.context("the device is there")?;
        ensure!(hooks.iter().all(|hook| hook.how.is_some()), "{hooks:?}");
        ensure!(left() > 0, "nothing of it is to be seen");
    }
    namespace.ip("link del here")?;
    let hooks = attacher.attach(&device, Layer::Ethernet);
    ensure!(hooks.is_none(), "{hooks:?}");
    attacher.detach(device.index)?;
    ensure!(left() == 0, "{} pins or notes are left behind", left());
    Ok(())
}

#[test]
fn a_device_that_is_gone_is_no_error_to_tcx() -> Result<()> {
    if !tests::require_root() || !optional(has_tcx(), "no TCX here") {
        return Ok(());
    }
    vanishes(AttachBy::Auto)
}

#[test]
fn a_device_that_is_gone_is_no_error_to_clsact() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    vanishes(AttachBy::Clsact)
}
