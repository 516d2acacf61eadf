//! The cluster scenario on this machine, over each kind of pod network.

use anyhow::{Result, anyhow};
use tests::cluster::cluster_scenario::Scenario;
use tests::cluster::cluster_state::ManifestFolder;
use tests::cluster::topology::PodNetwork;

fn the_scenario_holds_on(network: PodNetwork) -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut story = Vec::new();
    let verdict = {
        let mut scenario = Scenario::new(network, |_| ManifestFolder::new(), &mut story)?;
        scenario.play()
    };
    verdict.map_err(|error| anyhow!("{}\n{error:#}", String::from_utf8_lossy(&story)))
}

#[test]
fn the_scenario_holds_on_a_routed_pod_network() -> Result<()> {
    the_scenario_holds_on(PodNetwork::Routed)
}

#[test]
fn the_scenario_holds_on_a_bridged_pod_network() -> Result<()> {
    the_scenario_holds_on(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn the_scenario_holds_on_a_vxlan_overlay() -> Result<()> {
    the_scenario_holds_on(PodNetwork::Vxlan)
}
