//! Which connected UDP sockets of the node are ended: those whose backend has left the Service they have dialled, however
//! that was missed before, and no others.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lb_common::{Port, SocketFlowEntry, SocketFlowKey, V4, maps::LAYOUT_VERSION};
use lb_userspace::maps::bpf::Plain;
use tests::cluster::cluster_state::{ClusterState as _, ServiceObject};
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{
    ServiceCluster, ServingPod, UDP_PORT, UDP_V4, UDP_V6, address, pod_object, wait_for_backends,
    with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::now;
use tests::packets::socket_option::cookie;
use tests::traffic::udp::{any_like, exchange_connected};

/// The agent looks every five seconds; the machine may be busy with other tests.
const LOOKED_WITHIN: Duration = Duration::from_secs(30);

/// The frontend of the second Service, `dns`, whose pods are some of those of `web`.
const DNS_V4: &str = "10.96.0.53:53";
/// The same for IPv6.
const DNS_V6: &str = "[fd00:10:96::53]:53";

fn start(cluster: &mut ServiceCluster) -> Result<[ServingPod; 2]> {
    let near = cluster.add_serving_pod(1, "near", 2)?;
    let far = cluster.add_serving_pod(2, "far", 2)?;
    cluster.start_agents_with(&[&near, &far], &["--node-device", "socket"])?;
    Ok([near, far])
}

fn connected(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    namespace.run(|| {
        let socket = udp_socket(any_like(to, 0))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// Who answers over a connected socket.
fn peer(socket: &UdpSocket) -> Result<String> {
    let answer = exchange_connected(socket, "who")?;
    Ok(answer.context("no answer")?.pod)
}

fn wait_until_ended(socket: &UdpSocket) -> Result<()> {
    let begin = now();
    while exchange_connected(socket, "still").is_ok() {
        ensure!(begin.elapsed() < LOOKED_WITHIN, "it still speaks");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Makes both pods members of a second Service, `dns`.
fn add_dns(cluster: &mut ServiceCluster, pods: &[ServingPod; 2]) -> Result<()> {
    let dns = ServiceObject {
        name: "dns".to_owned(),
        cluster_ips: vec![address(DNS_V4)?.ip(), address(DNS_V6)?.ip()],
        selector: vec![("dns".to_owned(), "yes".to_owned())],
        ports: vec![("UDP", 53, UDP_PORT)],
    };
    cluster.state.apply("service-dns", &dns.yaml()?)?;
    for pod in pods {
        let both = pod_object(&pod.pod, &[("app", "web"), ("dns", "yes")]);
        cluster.state.relabel(&both)?;
    }
    wait_for_dns(cluster, &[&pods[0], &pods[1]])
}

fn wait_for_dns(cluster: &ServiceCluster, pods: &[&ServingPod]) -> Result<()> {
    let sockets = |pod: &&ServingPod| [pod.pod.socket_v4(UDP_PORT), pod.pod.socket_v6(UDP_PORT)];
    let wanted: BTreeSet<_> = pods.iter().flat_map(sockets).collect();
    for agent in &cluster.agents {
        wait_for_backends(agent, "default/dns", &wanted)?;
    }
    Ok(())
}

#[test]
fn a_pod_that_leaves_one_service_keeps_the_sockets_of_another() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = start(cluster)?;
        add_dns(cluster, &pods)?;
        let node = cluster.cluster.node(1).namespace.clone();
        let mut sockets = Vec::new();
        for frontend in [DNS_V4, DNS_V6, UDP_V4, UDP_V6]
            .into_iter()
            .cycle()
            .take(40)
        {
            let socket = connected(&node, address(frontend)?)?;
            let pod = peer(&socket)?;
            sockets.push((socket, frontend, pod));
        }
        let web_only = pod_object(&pods[0].pod, &[("app", "web")]);
        cluster.state.relabel(&web_only)?;
        wait_for_dns(cluster, &[&pods[1]])?;
        let is_dns = |frontend: &str| [DNS_V4, DNS_V6].contains(&frontend);
        let (leave, stay): (Vec<_>, Vec<_>) = sockets
            .iter()
            .partition(|(_, frontend, pod)| is_dns(frontend) && pod == "near");
        ensure!(!leave.is_empty() && leave.len() < 20, "chance: {sockets:?}");
        for (socket, _, _) in leave {
            wait_until_ended(socket)?;
        }
        // Whoever would be ended wrongly is ended by now: all are looked at in one go.
        for (socket, frontend, pod) in stay {
            let after = peer(socket).with_context(|| format!("{frontend} on {pod}"))?;
            ensure!(after == *pod, "{frontend} moved from {pod} to {after}");
        }
        Ok(())
    })
}

/// A socket that speaks to a pod, and of which the maps say that a hook has sent it there: what a `connect` leaves
/// behind that chose its backend before that left, and was seen after the sockets were looked through.
fn late(cluster: &ServiceCluster, pod: &ServingPod) -> Result<UdpSocket> {
    let (frontend, backend) = (address(UDP_V4)?, pod.pod.socket_v4(UDP_PORT));
    let socket = connected(&cluster.cluster.node(1).namespace, backend)?;
    let maps = cluster.agents[0].bpf_root();
    let map = maps.join(format!("v{LAYOUT_VERSION}/SOCKET_FLOWS_V4"));
    let map = Map::from_map_data(MapData::from_pin(map)?)?;
    let mut sent: HashMap<_, Plain<SocketFlowKey<V4>>, Plain<SocketFlowEntry<V4>>> =
        map.try_into()?;
    let (SocketAddr::V4(frontend), SocketAddr::V4(backend)) = (frontend, backend) else {
        anyhow::bail!("not IPv4");
    };
    let key = SocketFlowKey::new(
        cookie(&socket)?,
        (*backend.ip()).into(),
        Port::new(backend.port()),
    );
    let entry = SocketFlowEntry::new((*frontend.ip()).into(), Port::new(frontend.port()));
    sent.insert(Plain(key), Plain(entry), 0)?;
    Ok(socket)
}

/// `near` leaves the Service and goes on answering.
fn without_near(cluster: &mut ServiceCluster) -> Result<[ServingPod; 2]> {
    let pods = start(cluster)?;
    cluster.state.set_terminating("near")?;
    cluster.wait_for(&[&pods[1]])?;
    Ok(pods)
}

#[test]
fn a_socket_that_was_connected_while_its_backend_left_is_ended_by_a_later_look() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [near, far] = without_near(cluster)?;
        let node = cluster.cluster.node(1).namespace.clone();
        let direct = connected(&node, near.pod.socket_v4(UDP_PORT))?;
        let stays = late(cluster, &far)?;
        wait_until_ended(&late(cluster, &near)?)?;
        ensure!(peer(&direct)? == "near", "it has dialled the pod itself");
        ensure!(peer(&stays)? == "far", "its backend has not left");
        Ok(())
    })
}

#[test]
fn an_agent_ends_the_sockets_that_the_one_before_it_has_left_behind() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [near, _far] = without_near(cluster)?;
        cluster.agents[0].kill()?;
        let socket = late(cluster, &near)?;
        ensure!(peer(&socket)? == "near");
        cluster.agents[0].launch()?;
        wait_until_ended(&socket)
    })
}
