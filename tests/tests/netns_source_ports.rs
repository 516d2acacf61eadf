//! One socket, or one port, that talks by two frontends to the same backend: both conversations go on side by side, for the
//! second one's source port is translated.

use std::net::SocketAddr;

use anyhow::Result;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, UDP_PORT, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::traffic::one_port::{talk_over_tcp, talk_over_udp};

/// The Service `other` over the pod of `web`: the same backends by other frontends.
fn add_other(cluster: &mut ServiceCluster) -> Result<()> {
    let service = format!(
        "kind: Service
metadata: {{name: other, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: 30080}}
  - {{name: http-too, protocol: TCP, port: 81, targetPort: {HTTP_PORT}, nodePort: 30081}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: 30053}}
  - {{name: dns-too, protocol: UDP, port: 54, targetPort: {UDP_PORT}, nodePort: 30054}}
"
    );
    cluster.state.apply("service-other", &service)
}

fn one_port_talks_by_two_frontends_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        add_other(cluster)?;
        let pod = cluster.add_serving_pod(2, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&pod])?;
        let at = |text: &str| text.parse::<SocketAddr>();
        let node = cluster.cluster.node(1);
        let outside = &cluster.cluster.outside;
        for (number, client) in (0..).zip([&client.namespace, &pod.pod.namespace]) {
            // Pods keep their address; the second one is its own backend, and masqueraded.
            talk_over_tcp(client, 40_000 + number, [at(WEB_V4)?, at("10.96.0.81:80")?])?;
            let v6 = [at(WEB_V6)?, at("[fd00:10:96::81]:80")?];
            talk_over_tcp(client, 40_002 + number, v6)?;
            let v4 = [address(UDP_V4)?, at("10.96.0.81:53")?, at("10.96.0.81:54")?];
            talk_over_udp(client, 40_000 + number, &v4)?;
            let v6 = [address(UDP_V6)?, at("[fd00:10:96::81]:53")?];
            talk_over_udp(client, 40_002 + number, &v6)?;
        }
        for (number, of_node) in (0..).zip([node.v4().into(), node.v6().into()]) {
            let ports = [30_080, 30_081].map(|port| SocketAddr::new(of_node, port));
            talk_over_tcp(outside, 40_010 + number, ports)?;
            let ports = [30_053, 30_054].map(|port| SocketAddr::new(of_node, port));
            talk_over_udp(outside, 40_010 + number, &ports)?;
        }
        Ok(())
    })
}

#[test]
fn one_port_talks_to_a_pod_by_two_frontends() -> Result<()> {
    one_port_talks_by_two_frontends_over(PodNetwork::Routed)
}

#[test]
fn one_port_talks_to_a_bridged_pod_by_two_frontends() -> Result<()> {
    one_port_talks_by_two_frontends_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}
