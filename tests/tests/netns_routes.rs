//! The default route says whose address devices without one masquerade with. It is followed by the kernel's messages,
//! however many other routes there are.
use std::fs;

use anyhow::{Context as _, Result};
use tests::{cluster::agent_without_services::LoneAgent, machine::require::measured, require_root};

/// More than are read again and again.
const ROUTES: u32 = 3000;

/// Processor time that a process has used, in ticks of a hundredth of a second (proc(5), fields 14 and 15 of `stat`).
fn ticks(pid: u64) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let [user, system] = [11, 12].map(|at: usize| fields.get(at).context("no time"));
    Ok(user?.parse::<u64>()? + system?.parse::<u64>()?)
}

#[test]
fn a_default_route_that_is_replaced_is_followed_among_thousands_of_others() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    // Nothing but messages may tell of it.
    let node = LoneAgent::start(&["--device-check-period", "1h"])?;
    let shows = |address: &str| {
        node.wait_for("bare", |device| {
            device.is_some_and(|device| device["masqueradeV4"] == address)
        })
    };
    node.namespace.ip(
        "link add one type veth peer name one-peer\nlink add two type veth peer name two-peer\n\
         link add bare type veth peer name bare-peer\n\
         addr add 192.0.2.1/24 dev one\naddr add 198.51.100.1/24 dev two\n\
         link set one up\nlink set one-peer up\nlink set two up\nlink set two-peer up\n\
         link set bare up\n\
         route replace default via 192.0.2.254 dev one",
    )?;
    shows("192.0.2.1")?;
    let status: serde_json::Value = serde_json::from_str(&node.agent.waggle("status -o json")?)?;
    let pid = status["agent"]["pid"].as_u64().context("a process")?;
    let before = ticks(pid)?;
    let others = (0..ROUTES).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        format!("route add 172.16.{high}.{low}/32 dev two\n")
    });
    node.namespace.ip(&others.collect::<String>())?;
    node.namespace
        .ip("route replace default via 198.51.100.254 dev two")?;
    shows("198.51.100.1")?;
    let spent = (ticks(pid)? - before) * 10;
    measured(&format!("{spent} ms of processor time for {ROUTES} routes"));
    node.namespace
        .ip("route replace default via 192.0.2.254 dev one")?;
    shows("192.0.2.1")?;
    // The kernel tells nobody of the routes that go with a device.
    node.namespace.ip("link set one down")?;
    node.wait_for("bare", |device| {
        device.is_some_and(|device| device["masqueradeV4"] != "192.0.2.1")
    })
}
