//! Nodes that are reached and left by several devices: a client from outside whose replies leave by another uplink than
//! its requests came in by, and backends behind devices without Ethernet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{
    addresses_of, is_address_of, seen_as, tcp_meets_exactly, udp_meets_exactly,
};
use tests::cluster::service_cluster::{HTTP_PORT, ServiceCluster, UDP_PORT, with_services};
use tests::cluster::topology::{Cluster, Node, PodNetwork};
use tests::machine::netns::Namespace;
use tests::packets::tun::WireKind;

const NODE_PORT_HTTP: u16 = 30_080;
const NODE_PORT_UDP: u16 = 30_053;
const CLIENT: [&str; 2] = ["198.51.100.9", "2001:db8:51::9"];

fn door(cluster: &mut ServiceCluster, policy: &str) -> Result<()> {
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  externalTrafficPolicy: {policy}
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT_HTTP}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: {NODE_PORT_UDP}}}
"
    );
    cluster.state.apply("service-door", &service)
}

/// The node's door over HTTP and over UDP, in both families.
fn doors(node: &Node) -> [[SocketAddr; 2]; 2] {
    addresses_of(node)
        .map(|address| [NODE_PORT_HTTP, NODE_PORT_UDP].map(|port| SocketAddr::new(address, port)))
}

/// A client far away, whose packets come to node 1 by `eth0`; those to it leave node 1 by `uplink2`.
///
/// Who routes so must not have the reverse path checked strictly, whoever balances his load.
fn client_behind_a_second_uplink(cluster: &Cluster) -> Result<Namespace> {
    let (outside, node) = (&cluster.outside, &cluster.node(1).namespace);
    let client = Namespace::new("client")?;
    outside.ip(&format!(
        "link add client type veth peer name eth0 netns {}
         link set client up
         addr add 198.51.100.1/24 dev client
         addr add 2001:db8:51::1/64 dev client nodad
         link add second type veth peer name uplink2 netns {}
         link set second up
         addr add 192.168.78.1/24 dev second
         addr add fd00:192:168:78::1/64 dev second nodad",
        client.path().display(),
        node.path().display()
    ))?;
    let [v4, v6] = CLIENT;
    client.ip(&format!(
        "link set eth0 up
         addr add {v4}/24 dev eth0
         addr add {v6}/64 dev eth0 nodad
         route add default via 198.51.100.1
         route add ::/0 via 2001:db8:51::1"
    ))?;
    node.ip("link set uplink2 up
         addr add 192.168.78.11/24 dev uplink2
         addr add fd00:192:168:78::11/64 dev uplink2 nodad
         route add 198.51.100.0/24 via 192.168.78.1
         route add 2001:db8:51::/64 via fd00:192:168:78::1")?;
    node.sysctl("net/ipv4/conf/eth0/rp_filter", "2")?;
    outside.sysctl("net/ipv4/conf/second/rp_filter", "2")?;
    Ok(client)
}

/// How many packets a device of a node has sent.
fn sent_by(node: &Node, device: &str) -> Result<u64> {
    let devices = node
        .namespace
        .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    packets.ok_or_else(|| anyhow::anyhow!("no {device} in {devices}"))
}

#[test]
fn replies_leave_by_another_uplink_than_requests_came_in_by() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "Cluster")?;
        let pods = [
            cluster.add_serving_pod(1, "near", 2)?,
            cluster.add_serving_pod(2, "far", 2)?,
        ];
        let all: Vec<_> = pods.iter().collect();
        let client = client_behind_a_second_uplink(&cluster.cluster)?;
        cluster.start_agents(&all)?;
        let node = cluster.cluster.node(1);
        let before = sent_by(node, "uplink2")?;
        for [http, udp] in doors(node) {
            tcp_meets_exactly(&client, http, &all)?;
            let clients = udp_meets_exactly(&client, udp, &all)?;
            ensure!(
                clients.iter().all(|it| is_address_of(node, *it)),
                "seen as {clients:?}"
            );
        }
        let sent = sent_by(node, "uplink2")? - before;
        ensure!(sent > 50, "{sent} replies left by the second uplink");
        // The pods of the node see the client itself.
        door(cluster, "Local")?;
        let is_local = |shown: &str| {
            let mut doors = shown.lines().filter(|line| line.contains("30053/udp"));
            doors.any(|line| line.ends_with(" 1"))
        };
        cluster.agents[0].wait_until("get services", is_local)?;
        for ([http, udp], own) in doors(cluster.cluster.node(1)).into_iter().zip(CLIENT) {
            let own: IpAddr = own.parse()?;
            tcp_meets_exactly(&client, http, &all[..1])?;
            let seen = seen_as(&client, http)?;
            ensure!(seen == own, "seen as {seen}");
            let clients = udp_meets_exactly(&client, udp, &all[..1])?;
            ensure!(clients == [own].into(), "seen as {clients:?}");
        }
        Ok(())
    })
}

#[test]
fn replies_leave_where_the_frontends_address_is_routed_to() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let (outside, node) = (&cluster.cluster.outside, cluster.cluster.node(1));
        // As a cloud's plugin for pods with addresses of a second network card: what they send leaves by that, where
        // nothing else may be sent by.
        outside.ip(&format!(
            "link add second type veth peer name uplink2 netns {}
             link set second up
             addr add 192.168.78.1/24 dev second
             addr add fd00:192:168:78::1/64 dev second nodad",
            node.namespace.path().display()
        ))?;
        outside.sysctl("net/ipv4/conf/second/rp_filter", "1")?;
        node.namespace.ip("link set uplink2 up
             addr add 192.168.78.11/24 dev uplink2
             addr add fd00:192:168:78::11/64 dev uplink2 nodad
             route add default via 192.168.78.1 table 100
             route add ::/0 via fd00:192:168:78::1 table 100
             rule add from 10.244.1.2 lookup 100")?;
        let of_v6 = [
            "-6",
            "rule",
            "add",
            "from",
            "fd00:10:244:1::2",
            "lookup",
            "100",
        ];
        node.namespace.output("ip", &of_v6)?;
        // As such plugins set it.
        node.namespace.sysctl("net/ipv4/conf/eth0/rp_filter", "2")?;
        for policy in ["Cluster", "Local"] {
            door(cluster, policy)?;
            if cluster.agents.is_empty() {
                cluster.start_agents(&[&near])?;
            }
            let node = cluster.cluster.node(1);
            let is_served = |text: &str| text.contains("30080/tcp");
            cluster.agents[0].wait_until("get services", is_served)?;
            let before = sent_by(node, "uplink2")?;
            for [http, udp] in doors(node) {
                tcp_meets_exactly(&cluster.cluster.outside, http, &[&near])?;
                udp_meets_exactly(&cluster.cluster.outside, udp, &[&near])?;
            }
            // Neighbours ask for each other's Ethernet addresses.
            let sent = sent_by(node, "uplink2")? - before;
            ensure!(
                sent < 10,
                "{policy}: {sent} packets left by the second uplink"
            );
        }
        Ok(())
    })
}

/// A client outside dials node 1, whose only backend is on node 2: whom does that see?
fn seen_from_outside(cluster: &ServiceCluster) -> Result<[IpAddr; 2]> {
    let node = addresses_of(cluster.cluster.node(1));
    let [v4, v6] = node.map(|address| SocketAddr::new(address, NODE_PORT_HTTP));
    let outside = &cluster.cluster.outside;
    Ok([seen_as(outside, v4)?, seen_as(outside, v6)?])
}

#[test]
fn the_masquerade_has_the_address_that_the_kernels_would_have() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "Cluster")?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        cluster.start_agents(&[&far])?;
        let [one, two] = cluster.cluster.nodes().each_ref().map(|it| &it.namespace);
        let first = addresses_of(cluster.cluster.node(1));
        ensure!(seen_from_outside(cluster)? == first);
        // The next hop is in another network of the same device.
        for (number, node) in [(1, one), (2, two)] {
            node.ip(&format!(
                "addr add 172.31.0.1{number}/24 dev eth0
                 addr add fd00:172:31::1{number}/64 dev eth0 nodad"
            ))?;
        }
        one.ip("route replace 10.244.2.0/24 via 172.31.0.12
            route replace fd00:10:244:2::/64 via fd00:172:31::12")?;
        let of_network: [IpAddr; 2] = ["172.31.0.11".parse()?, "fd00:172:31::11".parse()?];
        let mut left = 50;
        let mut seen = seen_from_outside(cluster)?;
        while seen != of_network {
            left -= 1;
            ensure!(left > 0, "seen as {seen:?}");
            std::thread::sleep(Duration::from_millis(100));
            seen = seen_from_outside(cluster)?;
        }
        // The device towards the other node has no address: that of the loopback device comes first.
        one.ip(&format!(
            "link add direct type veth peer name direct netns {}
             link set direct up
             addr add 203.0.113.11/32 dev lo",
            two.path().display()
        ))?;
        two.ip("link set direct up
            route add 203.0.113.11 dev direct")?;
        for node in [one, two] {
            node.sysctl("net/ipv4/conf/direct/proxy_arp", "1")?;
            node.sysctl("net/ipv4/conf/direct/rp_filter", "0")?;
        }
        one.ip("route replace 10.244.2.0/24 dev direct")?;
        let wanted: IpAddr = "203.0.113.11".parse()?;
        let [v4, _] = addresses_of(cluster.cluster.node(1));
        let door = SocketAddr::new(v4, NODE_PORT_HTTP);
        let seen = seen_as(&cluster.cluster.outside, door)?;
        ensure!(seen == wanted, "seen as {seen}");
        Ok(())
    })
}

#[test]
fn the_outside_meets_pods_behind_devices_without_ethernet() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "Cluster")?;
        let mut pods = Vec::new();
        for node in [1, 2] {
            let node = cluster.cluster.node(node).clone();
            let pod =
                node.add_pod_on_wire(&format!("wired{}", node.number), 2, WireKind::PlainIp)?;
            pods.push(cluster.serve_in(pod)?);
        }
        let all: Vec<_> = pods.iter().collect();
        cluster.start_agents(&all)?;
        let outside = &cluster.cluster.outside;
        for node in cluster.cluster.nodes() {
            for [http, udp] in doors(node) {
                tcp_meets_exactly(outside, http, &all)?;
                let clients = udp_meets_exactly(outside, udp, &all)?;
                ensure!(
                    clients.iter().all(|it| is_address_of(node, *it)),
                    "seen as {clients:?}"
                );
            }
        }
        Ok(())
    })
}
