//! The scenario of `cargo xtask run` with a real control plane: the selector and the EndpointSlices
//! are the controllers' own work, and agents read with the rights of their ServiceAccount.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use anyhow::{Result, anyhow};
use tests::cluster::cluster_scenario::Scenario;
use tests::cluster::kubernetes_cluster::control_plane_of;
use tests::cluster::topology::PodNetwork;
use tests::require_root;

#[test]
fn scenario_holds_under_a_real_control_plane() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut story = Vec::new();
    let verdict = {
        let mut scenario = Scenario::new(PodNetwork::Routed, control_plane_of, &mut story)?;
        scenario.play()
    };
    verdict.map_err(|error| anyhow!("{}\n{error:#}", String::from_utf8_lossy(&story)))
}
