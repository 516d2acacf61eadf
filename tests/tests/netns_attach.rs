//! Devices come, go, move and change; the agent hangs its programs on them and keeps DEVICES true.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use tests::cluster::agent_without_services::{LoneAgent, attached, has_tcx};
use tests::control_plane::poll;
use tests::machine::bpf_link;
use tests::machine::netns::Namespace;
use tests::machine::require::{has_device_kind, measured, optional};
use tests::now;

/// No machine takes longer for a device, emulated and busy with other tests. What is promised, 100 ms,
/// is a matter of the figures that the tests tell.
const SLOWEST: Duration = Duration::from_secs(5);

/// How many devices come at once.
const BURST: u32 = 20;

fn hooks(device: Option<&Value>) -> Vec<String> {
    let hooks = device.and_then(|device| device["hooks"].as_array().cloned());
    let hooks = hooks.unwrap_or_default();
    hooks
        .iter()
        .map(|hook| hook["how"].as_str().unwrap_or("no").to_owned())
        .collect()
}

#[test]
fn a_new_device_is_attached_to_at_once() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let mut times = Vec::new();
    for number in 0..10 {
        let name = format!("new{number}");
        // The peer lives elsewhere, as a pod's end does: one device is new here, not two.
        let elsewhere = Namespace::new("elsewhere")?;
        let begin = now();
        lone.namespace.ip(&format!(
            "link add {name} type veth peer name eth0 netns {}",
            elsewhere.path().display()
        ))?;
        lone.wait_attached(&name)?;
        times.push(begin.elapsed());
    }
    times.sort();
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    measured(&format!(
        "a single new device is attached to within {} ms (median), {} ms (longest of {})",
        middle.as_millis(),
        longest.as_millis(),
        times.len()
    ));
    ensure!(middle < SLOWEST, "{times:?}");
    Ok(())
}

#[test]
fn a_burst_of_new_devices_is_attached_to_one_after_the_other() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let elsewhere = Namespace::new("elsewhere")?;
    let path = elsewhere.path();
    let mut lines = String::new();
    for number in 0..BURST {
        let line = format!(
            "link add new{number} type veth peer name far{number} netns {}\n",
            path.display()
        );
        lines.push_str(&line);
    }
    let begin = now();
    lone.namespace.ip(&lines)?;
    for number in 0..BURST {
        lone.wait_attached(&format!("new{number}"))?;
    }
    let last = begin.elapsed();
    measured(&format!(
        "of {BURST} devices that come at once the last is attached to after {} ms: {} ms each",
        last.as_millis(),
        (last / BURST).as_millis()
    ));
    ensure!(last < BURST * SLOWEST, "{last:?}");
    Ok(())
}

#[test]
fn a_device_that_moves_in_is_attached_to_and_one_that_moves_out_is_let_go() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let elsewhere = Namespace::new("elsewhere")?;
    elsewhere.ip("link add mover type veth peer name stayer")?;
    let node = lone.namespace.path();
    elsewhere.ip(&format!("link set mover netns {}", node.display()))?;
    lone.wait_attached("mover")?;
    let away = elsewhere.path();
    lone.namespace
        .ip(&format!("link set mover netns {}", away.display()))?;
    lone.wait_for("mover", |device| device.is_none())?;
    ensure!(
        attached(&elsewhere, "mover")? == [0, 0],
        "our programs went along into a foreign namespace"
    );
    Ok(())
}

#[test]
fn a_device_that_changes_its_name_is_chosen_by_its_new_one() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&["--pod-interfaces", "pod*,!podman*", "--devices", "eth0"])?;
    lone.namespace
        .ip("link add other type veth peer name pod1")?;
    lone.wait_attached("pod1")?;
    lone.wait_for("other", |device| {
        device.is_some_and(|device| {
            let why = device["notAttached"].as_str().unwrap_or_default();
            why.contains("--pod-interfaces")
        })
    })?;
    ensure!(attached(&lone.namespace, "other")? == [0, 0]);
    lone.namespace.ip("link set other name pod2")?;
    lone.wait_attached("pod2")?;
    lone.namespace.ip("link set pod1 name podman1")?;
    lone.wait_for("podman1", |device| {
        device.is_some_and(|device| device["hooks"].as_array().is_some_and(Vec::is_empty))
    })?;
    ensure!(attached(&lone.namespace, "podman1")? == [0, 0]);
    ensure!(attached(&lone.namespace, "eth0")? == [1, 1]);
    Ok(())
}

#[test]
fn devices_that_vanish_while_they_are_attached_to_are_no_news() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    for _ in 0..5 {
        let mut lines = String::new();
        for number in 0..20 {
            let (name, peer) = (format!("gone{number}"), format!("left{number}"));
            lines.extend(["link add ", &name, " type veth peer name ", &peer, "\n"]);
            lines.extend(["link del ", &name, "\n"]);
        }
        lone.namespace.ip(&lines)?;
    }
    lone.namespace
        .ip("link add last type veth peer name lastpeer")?;
    lone.wait_attached("last")?;
    lone.wait_for("gone19", |device| device.is_none())?;
    let log = lone.agent.log();
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let mut indexes = std::collections::BTreeSet::new();
    for line in lone.namespace.output("ip", &["-o", "link"])?.lines() {
        indexes.extend(line.split(':').next().map(str::to_owned));
    }
    for pin in std::fs::read_dir(lone.agent.bpf_root().join("links"))? {
        let pin = pin?.file_name().to_string_lossy().into_owned();
        let index = pin.split('-').next().unwrap_or_default().to_owned();
        let is_device = index.parse::<u32>().is_ok();
        ensure!(
            !is_device || indexes.contains(&index),
            "{pin} is left behind; there are {indexes:?}"
        );
    }
    Ok(())
}

/// The id of the link pinned at a path.
fn link_id(pin: &Path) -> Result<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    Ok(link.info()?.id())
}

#[test]
fn a_link_that_somebody_removed_is_put_back() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    if !optional(
        has_tcx(),
        "no TCX here: netlink tells of filters that are removed",
    ) {
        return Ok(());
    }
    let lone = LoneAgent::start(&["--device-check-period", "500ms"])?;
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    lone.wait_attached("d0")?;
    lone.wait_for("d0", |device| hooks(device) == ["tcx", "tcx"])?;
    let index = lone.device("d0")?.map(|device| device["index"].clone());
    let index = index.unwrap_or_default();
    let pin = lone.agent.bpf_root().join(format!("links/{index}-ingress"));
    comes_back(&pin, || lone.wait_attached("d0").map(drop))
}

/// Takes a link away in both ways there are: its pin stays behind, and it goes with its pin, which was all that held it.
fn comes_back(pin: &Path, mut is_told: impl FnMut() -> Result<()>) -> Result<()> {
    let ways: [fn(&Path) -> Result<()>; 2] =
        [bpf_link::detach, |pin| Ok(std::fs::remove_file(pin)?)];
    for remove in ways {
        let removed = link_id(pin)?;
        remove(pin)?;
        poll("there is another link", Duration::from_secs(30), || {
            let is_new = link_id(pin).is_ok_and(|id| id != removed);
            Ok(is_new.then_some(()))
        })?;
        is_told()?;
    }
    Ok(())
}

#[test]
fn socket_hooks_that_somebody_takes_away_come_back() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&["--device-check-period", "300ms"])?;
    let pin = lone.agent.bpf_root().join("links/connect4");
    comes_back(&pin, || {
        let agent = &lone.agent;
        let told = agent.wait_until("status", |text| text.contains("8 of 8 hooks"));
        told.map(drop)
    })
}

#[test]
fn a_restarted_agent_keeps_the_links_of_the_one_before_it() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&[])?;
    let ids = |lone: &LoneAgent| -> Result<Vec<(String, u32, u32)>> {
        let mut ids = Vec::new();
        for pin in std::fs::read_dir(lone.agent.bpf_root().join("links"))? {
            let path = pin?.path();
            let link = FdLink::from(PinnedLink::from_pin(&path)?);
            let info = link.info()?;
            let name = path.file_name().unwrap_or_default();
            ids.push((
                name.to_string_lossy().into_owned(),
                info.id(),
                info.program_id(),
            ));
        }
        ids.sort();
        Ok(ids)
    };
    let before = ids(&lone)?;
    // Eight socket hooks, and with TCX two links for eth0.
    ensure!(before.len() >= if has_tcx() { 10 } else { 8 }, "{before:?}");
    lone.agent.kill()?;
    ensure!(
        attached(&lone.namespace, "eth0")? == [1, 1],
        "a crash took the programs along"
    );
    lone.agent.launch()?;
    let after = ids(&lone)?;
    let links = |ids: &[(String, u32, u32)]| -> Vec<_> {
        ids.iter()
            .map(|(name, link, _)| (name.clone(), *link))
            .collect()
    };
    ensure!(links(&before) == links(&after), "{before:?}\n{after:?}");
    let is_new =
        |((_, _, old), (_, _, new)): (&(String, u32, u32), &(String, u32, u32))| old != new;
    ensure!(
        before.iter().zip(&after).all(is_new),
        "not every link runs the new agent's program: {before:?}\n{after:?}"
    );
    Ok(())
}

#[test]
fn a_device_without_ethernet_gets_the_programs_for_plain_ip() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let mut devices = vec![("tun0", "tuntap add mode tun name tun0".to_owned())];
    for kind in ["wireguard", "ipip"] {
        if has_device_kind(kind)? {
            devices.push((kind, format!("link add {kind} type {kind}")));
        }
    }
    for (name, line) in devices {
        lone.namespace.ip(&line)?;
        lone.wait_attached(name)?;
        lone.wait_for(name, |device| {
            device.is_some_and(|device| device["layer"] == "ip")
        })?;
        if !has_tcx() {
            continue;
        }
        let programs = lone
            .namespace
            .run(|| Ok(SchedClassifier::query_tcx(name, TcAttachType::Ingress)?.1))?;
        let names: Vec<_> = programs
            .iter()
            .filter_map(|program| program.name_as_str())
            .collect();
        ensure!(names == ["tc_ingress_ip"], "{name}: {names:?}");
    }
    Ok(())
}

#[test]
fn the_masquerade_address_follows_the_devices() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let masquerade = |expected: &'static str| {
        move |device: Option<&Value>| {
            device.is_some_and(|device| device["masqueradeV4"] == expected)
        }
    };
    lone.namespace
        .ip("link add br9 type bridge\nlink add port9 type veth peer name far9")?;
    // The node's own: that of eth0.
    lone.wait_for("port9", masquerade("192.168.77.11"))?;
    lone.namespace
        .ip("link set port9 master br9\naddr add 10.9.0.1/24 dev br9\nlink set br9 up")?;
    lone.wait_for("port9", masquerade("10.9.0.1"))?;
    lone.wait_for("port9", |device| {
        device.is_some_and(|device| device["bridge"] == "br9")
    })?;
    lone.namespace.ip("addr add 10.9.1.1/24 dev port9")?;
    lone.wait_for("port9", masquerade("10.9.1.1"))?;
    lone.namespace
        .ip("addr del 10.9.1.1/24 dev port9\nlink set port9 nomaster")?;
    lone.wait_for("port9", masquerade("192.168.77.11"))?;
    lone.wait_for("port9", |device| {
        device.is_some_and(|device| device["bridge"].is_null())
    })?;
    Ok(())
}
