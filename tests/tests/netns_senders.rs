//! Who is a pod of the cluster and who is a stranger (`--cluster-cidr`, `--detect-local-mode`, `--masquerade-all`):
//! strangers at a ClusterIP are masqueraded, and the policy `Local` of external addresses binds strangers alone.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{
    addresses_of, is_address_of, seen_as, tcp_meets_exactly, udp_meets_exactly,
};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, UDP_PORT, with_services,
};
use tests::cluster::topology::PodNetwork;

const CLUSTER_CIDR: &str = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48";
const NODE_PORT_HTTP: u16 = 30_080;
const NODE_PORT_UDP: u16 = 30_053;
const CLUSTER_IPS: [&str; 2] = ["10.96.0.81", "fd00:10:96::81"];

/// Pods on both nodes behind a Service with the policy `Local`, agents with some options, and the outside's packets for
/// ClusterIPs routed to node 1.
fn open(cluster: &mut ServiceCluster, options: &str) -> Result<Vec<ServingPod>> {
    let [v4, v6] = CLUSTER_IPS;
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [{v4}, '{v6}']
  externalTrafficPolicy: Local
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT_HTTP}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: {NODE_PORT_UDP}}}
"
    );
    cluster.state.apply("service-door", &service)?;
    let pods = vec![
        cluster.add_serving_pod(1, "near", 2)?,
        cluster.add_serving_pod(2, "far", 2)?,
    ];
    let options: Vec<_> = options.split_whitespace().collect();
    cluster.start_agents_with(&pods.iter().collect::<Vec<_>>(), &options)?;
    let node = cluster.cluster.node(1);
    cluster.cluster.outside.ip(&format!(
        "route add {v4} via {}\nroute add {v6} via {}",
        node.v4(),
        node.v6()
    ))?;
    Ok(pods)
}

fn cluster_addresses() -> Result<Vec<SocketAddr>> {
    let addresses = CLUSTER_IPS.into_iter();
    let addresses = addresses.map(|it| Ok(SocketAddr::new(it.parse()?, 80)));
    addresses.collect()
}

#[test]
fn the_policy_local_binds_the_outside_and_neither_pods_nor_processes_of_the_node() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, CLUSTER_CIDR)?;
        let all: Vec<_> = pods.iter().collect();
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        for address in addresses_of(node) {
            let http = SocketAddr::new(address, NODE_PORT_HTTP);
            let udp = SocketAddr::new(address, NODE_PORT_UDP);
            tcp_meets_exactly(&cluster.cluster.outside, http, &[&pods[0]])?;
            udp_meets_exactly(&cluster.cluster.outside, udp, &[&pods[0]])?;
            for namespace in [&client.namespace, &node.namespace] {
                tcp_meets_exactly(namespace, http, &all)?;
                udp_meets_exactly(namespace, udp, &all)?;
            }
            let own = [client.v4.into(), client.v6.into()];
            let seen = seen_as(&client.namespace, http)?;
            ensure!(own.contains(&seen), "a pod is seen as {seen}");
        }
        Ok(())
    })
}

/// The outside is masqueraded at a ClusterIP, a pod is not.
fn strangers_are_masqueraded_with(network: PodNetwork, option: &str) -> Result<()> {
    with_services(network, |cluster| {
        let pods = open(cluster, option)?;
        let all: Vec<_> = pods.iter().collect();
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        let own = [client.v4.into(), client.v6.into()];
        for frontend in cluster_addresses()? {
            tcp_meets_exactly(&cluster.cluster.outside, frontend, &all)?;
            for _ in 0..4 {
                let seen = seen_as(&cluster.cluster.outside, frontend)?;
                ensure!(is_address_of(node, seen), "the outside is seen as {seen}");
                let seen = seen_as(&client.namespace, frontend)?;
                ensure!(own.contains(&seen), "a pod is seen as {seen}");
            }
        }
        Ok(())
    })
}

#[test]
fn strangers_are_told_by_the_clusters_prefix() -> Result<()> {
    strangers_are_masqueraded_with(PodNetwork::Vxlan, CLUSTER_CIDR)
}

#[test]
fn strangers_are_told_by_the_names_of_devices() -> Result<()> {
    let option = "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth";
    strangers_are_masqueraded_with(PodNetwork::Routed, option)
}

#[test]
fn strangers_are_told_by_the_bridge() -> Result<()> {
    let network = PodNetwork::Bridged {
        bridge_netfilter: false,
    };
    let option = "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0";
    strangers_are_masqueraded_with(network, option)
}

#[test]
fn all_requests_to_a_cluster_address_can_be_masqueraded() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let _pods = open(cluster, "--masquerade-all")?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        for frontend in cluster_addresses()? {
            for _ in 0..4 {
                let seen = seen_as(&client.namespace, frontend)?;
                ensure!(is_address_of(node, seen), "a pod is seen as {seen}");
            }
        }
        Ok(())
    })
}
