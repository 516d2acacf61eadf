//! Services dialled from outside: node ports, addresses of load balancers, external addresses; by clients outside the
//! cluster, by pods and by processes of the nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{
    addresses_of, is_address_of, seen_as, tcp_meets_exactly, udp_meets_exactly,
};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, UDP_PORT, with_services,
};
use tests::cluster::topology::{Node, PodNetwork};
use tests::packets::socket_option::connect_from;
use tests::traffic::client::http_get_on;

const BALANCER_V4: &str = "203.0.113.80";
const BALANCER_V6: &str = "2001:db8::80";
const NODE_PORT_HTTP: u16 = 30_080;
const NODE_PORT_UDP: u16 = 30_053;

/// The Service `door` over the pods of `web`, open to the outside.
fn door(policy: &str) -> String {
    format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  externalTrafficPolicy: {policy}
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT_HTTP}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: {NODE_PORT_UDP}}}
status: {{loadBalancer: {{ingress: [{{ip: {BALANCER_V4}}}, {{ip: '{BALANCER_V6}'}}]}}}}
"
    )
}

/// A pod on each node, agents running, and the balancer's addresses routed to node 1.
fn open(cluster: &mut ServiceCluster, policy: &str) -> Result<Vec<ServingPod>> {
    cluster.state.apply("service-door", &door(policy))?;
    let pods = vec![
        cluster.add_serving_pod(1, "near", 2)?,
        cluster.add_serving_pod(2, "far", 2)?,
    ];
    cluster.start_agents(&pods.iter().collect::<Vec<_>>())?;
    let node = cluster.cluster.node(1);
    cluster.cluster.outside.ip(&format!(
        "route add {BALANCER_V4} via {}\nroute add {BALANCER_V6} via {}",
        node.v4(),
        node.v6()
    ))?;
    Ok(pods)
}

/// Both address families of the node port and of the balancer, for HTTP and for UDP.
fn frontends(node: &Node) -> Result<Vec<(SocketAddr, SocketAddr)>> {
    let of_node = addresses_of(node).map(|address| {
        let at = |port| SocketAddr::new(address, port);
        (at(NODE_PORT_HTTP), at(NODE_PORT_UDP))
    });
    let mut frontends = of_node.to_vec();
    for address in [BALANCER_V4, BALANCER_V6] {
        let address: IpAddr = address.parse()?;
        frontends.push((SocketAddr::new(address, 80), SocketAddr::new(address, 53)));
    }
    Ok(frontends)
}

fn the_outside_meets_all_pods_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        let pods = open(cluster, "Cluster")?;
        let pods: Vec<_> = pods.iter().collect();
        let outside = &cluster.cluster.outside;
        let node = cluster.cluster.node(1);
        for (http, udp) in frontends(node)? {
            tcp_meets_exactly(outside, http, &pods)?;
            let clients = udp_meets_exactly(outside, udp, &pods)?;
            let client = seen_as(outside, http)?;
            ensure!(
                clients
                    .iter()
                    .chain([&client])
                    .all(|it| is_address_of(node, *it)),
                "seen as {client} and {clients:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn the_outside_meets_all_pods_over_a_routed_network() -> Result<()> {
    the_outside_meets_all_pods_over(PodNetwork::Routed)
}

#[test]
fn the_outside_meets_all_pods_over_a_bridge() -> Result<()> {
    the_outside_meets_all_pods_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn the_outside_meets_all_pods_over_a_vxlan_overlay() -> Result<()> {
    the_outside_meets_all_pods_over(PodNetwork::Vxlan)
}

fn pods_and_nodes_meet_all_pods_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        let pods = open(cluster, "Cluster")?;
        let pods: Vec<_> = pods.iter().collect();
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        for namespace in [&client.namespace, &node.namespace] {
            for (http, udp) in frontends(node)? {
                tcp_meets_exactly(namespace, http, &pods)?;
                udp_meets_exactly(namespace, udp, &pods)?;
            }
            // The other node's port is served by the other node.
            for address in addresses_of(cluster.cluster.node(2)) {
                tcp_meets_exactly(namespace, SocketAddr::new(address, NODE_PORT_HTTP), &pods)?;
            }
        }
        Ok(())
    })
}

#[test]
fn pods_and_nodes_meet_all_pods_over_a_routed_network() -> Result<()> {
    pods_and_nodes_meet_all_pods_over(PodNetwork::Routed)
}

#[test]
fn pods_and_nodes_meet_all_pods_over_a_bridge() -> Result<()> {
    pods_and_nodes_meet_all_pods_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn with_the_policy_local_pods_see_their_clients_and_nodes_serve_their_own() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, "Local")?;
        let outside = &cluster.cluster.outside;
        let own: [IpAddr; 2] = ["192.168.77.1".parse()?, "fd00:192:168:77::1".parse()?];
        for (node, pod) in cluster.cluster.nodes().iter().zip(&pods) {
            for (address, own) in addresses_of(node).into_iter().zip(own) {
                let http = SocketAddr::new(address, NODE_PORT_HTTP);
                tcp_meets_exactly(outside, http, &[pod])?;
                ensure!(seen_as(outside, http)? == own, "not seen as {own}");
                let udp = SocketAddr::new(address, NODE_PORT_UDP);
                let clients = udp_meets_exactly(outside, udp, &[pod])?;
                ensure!(clients == [own].into(), "seen as {clients:?}");
            }
        }
        // The cluster's inside is another policy's affair.
        let inside: SocketAddr = "10.96.0.81:80".parse()?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        tcp_meets_exactly(&client.namespace, inside, &pods.iter().collect::<Vec<_>>())?;

        cluster.state.delete_pod("near")?;
        cluster.wait_for(&[&pods[1]])?;
        let nobody = SocketAddr::new(cluster.cluster.node(1).v4().into(), NODE_PORT_HTTP);
        let answer = outside.run(|| {
            Ok(tests::traffic::client::http_get(
                nobody,
                Duration::from_millis(700),
            ))
        })?;
        ensure!(answer.is_err(), "{answer:?} though node 1 has no pod left");
        Ok(())
    })
}

/// A request over a connection from a certain port.
fn get_from(port: u16, address: SocketAddr) -> Result<String> {
    let mut stream = connect_from(port, address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let answer = http_get_on(&mut stream, false);
    answer.map_err(|failure| anyhow::anyhow!("{failure}"))
}

/// The node's own connections have a source of the same address: whoever came from outside before them from the same port
/// must not get their replies.
#[test]
fn a_masquerade_leaves_the_nodes_own_connections_alone() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, "Cluster")?;
        let node = cluster.cluster.node(1);
        let [address, _] = addresses_of(node);
        let door = SocketAddr::new(address, NODE_PORT_HTTP);
        let outside = &cluster.cluster.outside;
        for port in (41_000..41_010).step_by(2) {
            // Both pods get to know a client with this port.
            for _ in 0..6 {
                let answer = outside.run(|| Ok(get_from(port, door)))?;
                ensure!(answer.is_ok(), "from outside, port {port}: {answer:?}");
            }
            for pod in &pods {
                let direct = pod.pod.socket_v4(HTTP_PORT);
                let answer = node.namespace.run(|| Ok(get_from(port, direct)))?;
                ensure!(
                    answer.is_ok(),
                    "from the node, port {port}, to {direct}: {answer:?}"
                );
            }
        }
        Ok(())
    })
}
