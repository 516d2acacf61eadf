//! Processes of the node are clients like pods: UDP sockets that connect once, that ask several Services with the same
//! pods, and that send large datagrams, whatever device their packets take.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{ServiceCluster, UDP_PORT, address, with_services};
use tests::cluster::topology::{Pod, PodNetwork};
use tests::machine::netns::Namespace;
use tests::now;
use tests::traffic::udp::{UdpServer, any_like, exchange, exchange_connected};

const LIMIT: Duration = Duration::from_secs(10);
const LOGS: [&str; 2] = ["10.96.0.61:514", "[fd00:10:96::61]:514"];
const NAMES: [&str; 2] = ["10.96.0.62:53", "[fd00:10:96::62]:53"];

/// A Service of both families and its slices, with these endpoints.
fn publish(cluster: &mut ServiceCluster, name: &str, at: [&str; 2], pods: &[&Pod]) -> Result<()> {
    let [v4, v6] = [address(at[0])?, address(at[1])?];
    let service = format!(
        "kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIPs: ['{}', '{}']
  ports: [{{port: {}, targetPort: {UDP_PORT}, protocol: UDP}}]
",
        v4.ip(),
        v6.ip(),
        v4.port()
    );
    let slices = ["IPv4", "IPv6"].into_iter().zip([v4, v6]);
    let slices = slices.map(|(family, like)| slice(name, family, like, pods));
    let objects: Vec<String> = std::iter::once(service).chain(slices).collect();
    cluster.state.apply(name, &objects.join("---\n"))
}

fn slice(service: &str, family: &str, like: SocketAddr, pods: &[&Pod]) -> String {
    let endpoint = |pod: &&Pod| {
        let (name, node, address) = (&pod.name, pod.node, pod.address_like(like.ip()));
        format!(
            "{{addresses: ['{address}'], nodeName: node{node}, targetRef: {{kind: Pod, name: {name}, uid: {name}}}, conditions: {{ready: true}}}}"
        )
    };
    let endpoints: Vec<String> = pods.iter().map(endpoint).collect();
    format!(
        "kind: EndpointSlice
metadata: {{name: {service}-{}, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: {family}
ports: [{{port: {UDP_PORT}, protocol: UDP}}]
endpoints: [{}]
",
        family.to_lowercase(),
        endpoints.join(", ")
    )
}

fn connected(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    namespace.run(|| {
        let socket = udp_socket(any_like(to, 0))?;
        // What is sent before a change has arrived is lost.
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket
            .connect(to)
            .with_context(|| format!("connect to {to}"))?;
        Ok(socket)
    })
}

/// Asks over a connected socket until this pod answers; the first answers may be another's, or refusals.
fn comes_to(socket: &UdpSocket, frontend: SocketAddr, wanted: Option<&str>) -> Result<()> {
    let start = now();
    loop {
        let met = match exchange_connected(socket, "who") {
            Ok(Some(answer)) => {
                ensure!(answer.from == frontend, "{answer:?} for {frontend}");
                Some(answer.pod)
            }
            Ok(None) => None,
            Err(error) if is_refusal(&error) && wanted.is_none() => return Ok(()),
            Err(error) if is_refusal(&error) => None,
            Err(error) => return Err(error),
        };
        if wanted.is_some() && met.as_deref() == wanted {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LIMIT,
            "{frontend}: {met:?}, not {wanted:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|it| it.kind() == ErrorKind::ConnectionRefused)
}

fn two_pods(cluster: &ServiceCluster) -> Result<[(Pod, UdpServer); 2]> {
    let start = |node, name, octet| -> Result<(Pod, UdpServer)> {
        let pod = cluster.cluster.add_pod(node, name, octet)?;
        let server = UdpServer::start(&pod.namespace, name, UDP_PORT)?;
        Ok((pod, server))
    };
    Ok([start(1, "near", 11)?, start(2, "far", 12)?])
}

fn connects_once(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        let [(near, _near_server), (far, _far_server)] = two_pods(cluster)?;
        publish(cluster, "logs", LOGS, &[])?;
        cluster.start_agents(&[])?;
        for frontend in LOGS.map(address) {
            let frontend = frontend?;
            publish(cluster, "logs", LOGS, &[])?;
            let socket = connected(&cluster.cluster.node(1).namespace, frontend)?;
            comes_to(&socket, frontend, None)?;
            publish(cluster, "logs", LOGS, &[&near])?;
            comes_to(&socket, frontend, Some("near"))?;
            publish(cluster, "logs", LOGS, &[&far])?;
            comes_to(&socket, frontend, Some("far"))?;
            ensure!(socket.peer_addr()? == frontend, "{:?}", socket.peer_addr());
            publish(cluster, "logs", LOGS, &[])?;
            comes_to(&socket, frontend, None)?;
            publish(cluster, "logs", LOGS, &[&near])?;
            comes_to(&socket, frontend, Some("near"))?;
        }
        Ok(())
    })
}

#[test]
fn a_socket_that_connects_once_goes_on_while_backends_come_and_go() -> Result<()> {
    connects_once(PodNetwork::Routed)
}

#[test]
fn so_it_does_where_pods_are_behind_a_bridge() -> Result<()> {
    connects_once(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn one_socket_gets_each_answer_from_whom_it_has_asked() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [(near, _near_server), (far, _far_server)] = two_pods(cluster)?;
        for pod in [&near, &far] {
            publish(cluster, "logs", LOGS, &[pod])?;
            publish(cluster, "names", NAMES, &[pod])?;
            if cluster.agents.is_empty() {
                cluster.start_agents(&[])?;
            }
            for (logs, names) in LOGS.into_iter().zip(NAMES) {
                let (logs, names) = (address(logs)?, address(names)?);
                let direct = SocketAddr::new(pod.address_like(logs.ip()), UDP_PORT);
                let namespace = &cluster.cluster.node(1).namespace;
                comes_to(&connected(namespace, logs)?, logs, Some(&pod.name))?;
                comes_to(&connected(namespace, names)?, names, Some(&pod.name))?;
                let socket = namespace.run(|| udp_socket(any_like(logs, 0)))?;
                for round in 0..20 {
                    let asked = [logs, names, direct];
                    let mut wanted = BTreeMap::new();
                    for (number, at) in asked.into_iter().enumerate() {
                        // In another order each time.
                        let at = asked.get((number + round) % 3).copied().unwrap_or(at);
                        let text = format!("{round} {at}");
                        socket.send_to(text.as_bytes(), at)?;
                        wanted.insert(text, at);
                    }
                    let mut buffer = [0; 256];
                    while !wanted.is_empty() {
                        let (length, from) = socket
                            .recv_from(&mut buffer)
                            .with_context(|| format!("{wanted:?} do not answer"))?;
                        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        let text = answer.splitn(3, ' ').nth(2).unwrap_or_default();
                        let asked = wanted.remove(text);
                        ensure!(asked == Some(from), "{answer}: from {from}, not {asked:?}");
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_backend_may_be_a_process_of_the_same_node() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let node = cluster.cluster.node(1);
        let (v4, v6) = (node.v4(), node.v6());
        let _server = UdpServer::start(&node.namespace, "host", UDP_PORT)?;
        // A pod with the node's addresses.
        let mut host = cluster.cluster.add_pod(1, "host", 9)?;
        (host.v4, host.v6) = (v4, v6);
        publish(cluster, "logs", LOGS, &[&host])?;
        cluster.start_agents(&[])?;
        for frontend in LOGS.map(address) {
            let frontend = frontend?;
            let socket = connected(&cluster.cluster.node(1).namespace, frontend)?;
            comes_to(&socket, frontend, Some("host"))?;
            let answer = exchange_connected(&socket, "again")?.context("no answer")?;
            let seen: IpAddr = answer.seen_as.parse()?;
            ensure!(
                seen != IpAddr::from(v4) && seen != IpAddr::from(v6),
                "{answer:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn large_datagrams_and_refusals_arrive() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [(near, near_server), (far, _far_server)] = two_pods(cluster)?;
        // Answers fill the uplink's frames, though processes make smaller ones because of this device.
        let _narrow = cluster.cluster.add_pod(1, "narrow", 30)?;
        let namespace = cluster.cluster.node(1).namespace.clone();
        namespace.ip("link set veth30 mtu 1400")?;
        cluster.start_agents(&[])?;
        let route = namespace.ip("route show table all dev waggle0")?;
        ensure!(route.contains("mtu 1400"), "{route}");
        for pod in [&far, &near] {
            publish(cluster, "logs", LOGS, &[pod])?;
            for frontend in LOGS.map(address) {
                let frontend = frontend?;
                comes_to(&connected(&namespace, frontend)?, frontend, Some(&pod.name))?;
                let socket = namespace.run(|| udp_socket(any_like(frontend, 0)))?;
                for size in [1400, 1473, 4000, 20_000] {
                    let text = "x".repeat(size);
                    let answer = exchange(&socket, frontend, &text)?;
                    let answer = answer.with_context(|| format!("{size} bytes to {frontend}"))?;
                    ensure!(answer.from == frontend, "{answer:?}");
                }
            }
        }
        drop(near_server);
        for frontend in LOGS.map(address) {
            let frontend = frontend?;
            let socket = connected(&cluster.cluster.node(1).namespace, frontend)?;
            comes_to(&socket, frontend, None)
                .with_context(|| format!("the refusal of {frontend}"))?;
        }
        Ok(())
    })
}

#[test]
fn the_device_comes_back_and_cleanup_takes_it_away() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [(near, _near_server), _] = two_pods(cluster)?;
        publish(cluster, "logs", LOGS, &[&near])?;
        cluster.start_agents(&[])?;
        let namespace = &cluster.cluster.node(1).namespace;
        for frontend in LOGS.map(address) {
            let frontend = frontend?;
            let socket = connected(namespace, frontend)?;
            comes_to(&socket, frontend, Some("near"))?;
            namespace.ip("link delete waggle0")?;
            comes_to(&socket, frontend, Some("near"))?;
            for end in ["waggle0", "waggle1"] {
                namespace.ip(&format!("link set {end} down"))?;
                comes_to(&socket, frontend, Some("near"))?;
            }
        }
        for agent in &mut cluster.agents {
            agent.terminate()?;
            agent.cleanup()?;
        }
        let left = namespace.ip("link show")?;
        ensure!(!left.contains("waggle"), "{left}");
        Ok(())
    })
}

#[test]
fn a_node_without_ipv6_is_served_over_ipv4() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [(near, _near_server), _] = two_pods(cluster)?;
        publish(cluster, "logs", LOGS, &[&near])?;
        let namespace = cluster.cluster.node(1).namespace.clone();
        let setting = ["all", "default"].map(|it| format!("net.ipv6.conf.{it}.disable_ipv6=1"));
        namespace.output("sysctl", &["-qw", &setting[0], &setting[1]])?;
        cluster.start_agents(&[])?;
        let frontend = address(LOGS[0])?;
        comes_to(&connected(&namespace, frontend)?, frontend, Some("near"))?;
        let routes = namespace.ip("route show dev waggle0")?;
        ensure!(routes.contains("10.96.0.61"), "{routes}");
        Ok(())
    })
}

#[test]
fn a_socket_that_is_bound_to_a_device_is_translated_itself() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [_, (far, _far_server)] = two_pods(cluster)?;
        publish(cluster, "logs", LOGS, &[&far])?;
        cluster.start_agents(&[])?;
        for frontend in LOGS.map(address) {
            let frontend = frontend?;
            let namespace = &cluster.cluster.node(1).namespace;
            comes_to(&connected(namespace, frontend)?, frontend, Some("far"))?;
            let socket = namespace.run(|| {
                let socket = udp_socket(any_like(frontend, 0))?;
                setsockopt(&socket, sockopt::BindToDevice, &"eth0".into())?;
                socket.connect(frontend)?;
                Ok(socket)
            })?;
            comes_to(&socket, frontend, Some("far"))?;
            ensure!(socket.peer_addr()? == frontend, "{:?}", socket.peer_addr());
        }
        Ok(())
    })
}

#[test]
fn routing_rules_do_not_lead_past_the_device() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [_, (far, _far_server)] = two_pods(cluster)?;
        publish(cluster, "logs", LOGS, &[&far])?;
        cluster.start_agents(&[])?;
        let node = cluster.cluster.node(1);
        let own = [IpAddr::from(node.v4()), node.v6().into()];
        let services = [("-4", "10.96.0.0/16"), ("-6", "fd00:10:96::/112")];
        for (own, (family, services)) in own.into_iter().zip(services) {
            let route = "route add default dev eth0 table 500".to_owned();
            let rule = format!("rule add priority 100 from {own} to {services} lookup 500");
            for line in [&route, &rule] {
                let words: Vec<&str> = std::iter::once(family).chain(line.split(' ')).collect();
                node.namespace.output("ip", &words)?;
            }
        }
        for (frontend, own) in LOGS.map(address).into_iter().zip(own) {
            let frontend = frontend?;
            let socket = node.namespace.run(|| {
                let socket = udp_socket(SocketAddr::new(own, 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                socket.connect(frontend)?;
                Ok(socket)
            })?;
            comes_to(&socket, frontend, Some("far"))?;
        }
        for agent in &mut cluster.agents {
            agent.terminate()?;
            agent.cleanup()?;
        }
        let rules = cluster.cluster.node(1).namespace.ip("rule show")?;
        ensure!(!rules.contains("119"), "{rules}");
        Ok(())
    })
}

#[test]
fn packets_have_the_source_that_they_have_without_the_device() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [(near, _near_server), _] = two_pods(cluster)?;
        let node = cluster.cluster.node(1);
        // The first address of the first device.
        node.namespace.ip("addr add 203.0.113.99/32 dev lo")?;
        let own = [IpAddr::from(node.v4()), node.v6().into()];
        publish(cluster, "logs", LOGS, &[&near])?;
        cluster.start_agents(&[])?;
        let namespace = &cluster.cluster.node(1).namespace;
        for (frontend, own) in LOGS.map(address).into_iter().zip(own) {
            let frontend = frontend?;
            let socket = connected(namespace, frontend)?;
            comes_to(&socket, frontend, Some("near"))?;
            let socket = connected(namespace, frontend)?;
            ensure!(
                socket.local_addr()?.ip() == own,
                "{:?}",
                socket.local_addr()
            );
        }
        // The route goes with its source, and comes back.
        namespace.ip("addr del 192.168.77.11/24 dev eth0
addr add 192.168.77.11/24 dev eth0
route add default via 192.168.77.1 dev eth0")?;
        let frontend = address(LOGS[0])?;
        let start = now();
        let socket = loop {
            match connected(namespace, frontend) {
                Ok(socket) => break socket,
                Err(error) => ensure!(start.elapsed() < LIMIT, "{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        comes_to(&socket, frontend, Some("near"))
    })
}
