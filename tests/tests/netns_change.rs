//! What must not hurt: endpoints that change, an agent that ends, crashes or starts again. And what
//! must be gone after a clean-up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::agent_process::Agent;
use tests::cluster::agent_without_services::{attached, device_names};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{ask_udp, tcp_meets_exactly, udp_meets_exactly};
use tests::cluster::nginx::Settings;
use tests::cluster::service_cluster::{UDP_V4, WEB_V4, WEB_V6, address, pod_object, with_services};
use tests::cluster::topology::PodNetwork;
use tests::traffic::client::http_get;
use tests::traffic::load::{Load, LongConnection};

/// New connections per second of each load.
const RATE: u32 = 100;

/// No load runs longer.
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn endpoints_that_come_and_go_under_load_lose_no_request() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let stays = cluster.add_serving_pod(1, "stays", 2)?;
        let wavers = cluster.add_serving_pod(2, "wavers", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&stays, &wavers])?;
        let node = cluster.cluster.node(2).namespace.clone();
        let loads = [
            Load::start(&client.namespace, address(WEB_V4)?, RATE, LIMIT)?,
            Load::start(&node, address(WEB_V6)?, RATE, LIMIT)?,
        ];
        let mut long = Vec::new();
        for _ in 0..6 {
            long.push(LongConnection::start(
                &client.namespace,
                address(WEB_V4)?,
                LIMIT,
            )?);
        }
        for _ in 0..15 {
            // It stays the same pod: to one that is gone for good connections are reset.
            let elsewhere = pod_object(&wavers.pod, &[("app", "other")]);
            cluster.state.relabel(&elsewhere)?;
            cluster.wait_for(&[&stays])?;
            loads.iter().try_for_each(|load| load.wait_for_more(10))?;
            let here = pod_object(&wavers.pod, &[("app", "web")]);
            cluster.state.relabel(&here)?;
            cluster.wait_for(&[&stays, &wavers])?;
            loads.iter().try_for_each(|load| load.wait_for_more(10))?;
        }
        for load in loads {
            load.stop()?.check(200)?;
        }
        let mut servers = BTreeSet::new();
        for connection in long {
            servers.insert(connection.stop()?.0);
        }
        ensure!(!servers.is_empty());
        Ok(())
    })
}

#[test]
fn the_datapath_works_on_after_the_agent_has_ended() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let pods = [&near, &far];
        cluster.start_agents(&pods)?;
        let long = LongConnection::start(&client.namespace, address(WEB_V4)?, LIMIT)?;
        for agent in &mut cluster.agents {
            agent.terminate()?;
        }
        let node = &cluster.cluster.node(1).namespace;
        for namespace in [&client.namespace, node] {
            tcp_meets_exactly(namespace, address(WEB_V4)?, &pods)?;
            tcp_meets_exactly(namespace, address(WEB_V6)?, &pods)?;
            udp_meets_exactly(namespace, address(UDP_V4)?, &pods)?;
        }
        long.wait_for_more(10)?;
        long.stop().map(drop)
    })
}

/// Ends and starts the agents by turns while requests come in; nothing may be lost.
fn restarts_lose_nothing(end: impl Fn(&mut Agent) -> Result<()>) -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let pods = [&near, &far];
        cluster.start_agents(&pods)?;
        let node = cluster.cluster.node(1).namespace.clone();
        let loads = [
            Load::start(&client.namespace, address(WEB_V4)?, RATE, LIMIT)?,
            Load::start(&node, address(WEB_V6)?, RATE, LIMIT)?,
        ];
        let long = [
            LongConnection::start(&client.namespace, address(WEB_V6)?, LIMIT)?,
            LongConnection::start(&node, address(WEB_V4)?, LIMIT)?,
        ];
        for _ in 0..2 {
            for agent in &mut cluster.agents {
                end(agent)?;
                long.iter().try_for_each(|it| it.wait_for_more(5))?;
                loads.iter().try_for_each(|load| load.wait_for_more(20))?;
                agent.launch()?;
                long.iter().try_for_each(|it| it.wait_for_more(5))?;
                loads.iter().try_for_each(|load| load.wait_for_more(20))?;
            }
        }
        cluster.wait_for(&pods)?;
        loads.iter().try_for_each(|load| load.wait_for_more(50))?;
        for load in loads {
            load.stop()?.check(100)?;
        }
        for connection in long {
            connection.stop()?;
        }
        // What happened while nobody watched is caught up with.
        cluster.agents.iter_mut().try_for_each(Agent::terminate)?;
        cluster.state.set_terminating("near")?;
        cluster.agents.iter_mut().try_for_each(Agent::launch)?;
        cluster.wait_for(&[&far])?;
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&far])
    })
}

#[test]
fn an_agent_that_is_restarted_under_load_loses_no_request() -> Result<()> {
    restarts_lose_nothing(Agent::terminate)
}

#[test]
fn an_agent_that_crashes_under_load_loses_no_request() -> Result<()> {
    restarts_lose_nothing(Agent::kill)
}

#[test]
fn a_clean_up_leaves_nothing_behind() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let settings = Settings::default();
        let near = cluster.add_serving_pod_with(1, "near", 2, settings)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&near])?;
        ask_udp(&client.namespace, address(UDP_V4)?, "before")?;
        let node = cluster.cluster.node(1).namespace.clone();
        let devices = device_names(&node)?;
        let others = |device: &&String| *device != "lo" && *device != "waggle0";
        for device in devices.iter().filter(others) {
            ensure!(
                attached(&node, device)? == [1, 1],
                "{device} is not attached to"
            );
        }
        for agent in &mut cluster.agents {
            agent.terminate()?;
            agent.cleanup()?;
            let left = agent.bpf_root();
            ensure!(!left.exists(), "{} is still there", left.display());
        }
        for namespace in [&client.namespace, &node] {
            let frontend = address(WEB_V4)?;
            let result = namespace.run(|| Ok(http_get(frontend, Duration::from_millis(500))))?;
            ensure!(
                result.is_err(),
                "still translated in {}: {result:?}",
                namespace.name()
            );
        }
        let left = device_names(&node)?;
        let is_own = |device: &&String| device.starts_with("waggle");
        ensure!(!left.iter().any(|it| is_own(&it)), "{left:?}");
        ensure!(
            devices
                .iter()
                .filter(|device| !is_own(device))
                .all(|device| { attached(&node, device).is_ok_and(|programs| programs == [0, 0]) }),
            "still attached to one of {devices:?}"
        );
        Ok(())
    })
}
