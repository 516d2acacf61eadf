//! ICMP errors find their way through a Service: clients and pods behind narrow links learn how much a packet may hold, and
//! a closed port refuses who dials it by a frontend.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::Counter;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{ask_udp, udp_socket};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, UDP_PORT, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address,
    with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::machine::scratch::Scratch;
use tests::packets::socket_option::{never_fragment, path_mtu};
use tests::traffic::download::{download, pattern, upload};
use tests::traffic::udp::any_like;

/// What the narrow part of each path holds.
const NARROW: u32 = 1300;
/// More than a few windows.
const LENGTH: usize = 1_000_003;

const BALANCER_V4: &str = "203.0.113.80";
const BALANCER_V6: &str = "2001:db8::80";
const WEB: u16 = 80;
const DNS: u16 = 53;
/// A port of the Service behind which no server is.
const CLOSED: u16 = 9;

/// The Service `door` over the pods of `web`, at a balancer's addresses that lead to node 1.
fn open(cluster: &mut ServiceCluster, policy: &str) -> Result<()> {
    let door = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  externalTrafficPolicy: {policy}
  ports:
  - {{name: http, protocol: TCP, port: {WEB}, targetPort: {HTTP_PORT}, nodePort: 30080}}
  - {{name: dns, protocol: UDP, port: {DNS}, targetPort: {UDP_PORT}, nodePort: 30053}}
  - {{name: closed, protocol: UDP, port: {CLOSED}, targetPort: 9999, nodePort: 30009}}
status: {{loadBalancer: {{ingress: [{{ip: {BALANCER_V4}}}, {{ip: '{BALANCER_V6}'}}]}}}}
"
    );
    cluster.state.apply("service-door", &door)?;
    let node = cluster.cluster.node(1);
    cluster.cluster.outside.ip(&format!(
        "route add {BALANCER_V4} via {}\nroute add {BALANCER_V6} via {}",
        node.v4(),
        node.v6()
    ))?;
    Ok(())
}

/// A client behind two routers, of which the second, `outside`, has a narrow link to the first: neither the client nor a
/// server can see that from its own link.
fn home_behind_a_narrow_link(outside: &Namespace) -> Result<(Namespace, Namespace)> {
    let home = Namespace::new("home")?;
    let router = Namespace::new("router")?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    router.ip(&format!(
        "link add home type veth peer name eth0 netns {}\n\
         link set home up\n\
         addr add 10.80.0.1/24 dev home\n\
         addr add fd00:80::1/64 dev home nodad",
        home.path().display()
    ))?;
    home.ip("link set eth0 up\n\
         addr add 10.80.0.2/24 dev eth0\n\
         addr add fd00:80::2/64 dev eth0 nodad\n\
         route add default via 10.80.0.1\n\
         route add ::/0 via fd00:80::1")?;
    outside.ip(&format!(
        "link add narrow mtu {NARROW} type veth peer name eth0 mtu {NARROW} netns {}\n\
         link set narrow up\n\
         addr add 10.81.0.1/24 dev narrow\n\
         addr add fd00:81::1/64 dev narrow nodad",
        router.path().display()
    ))?;
    router.ip("link set eth0 up\n\
         addr add 10.81.0.2/24 dev eth0\n\
         addr add fd00:81::2/64 dev eth0 nodad\n\
         route add default via 10.81.0.1\n\
         route add ::/0 via fd00:81::1")?;
    outside.ip("route add 10.80.0.0/24 via 10.81.0.2\n\
         route add fd00:80::/64 via fd00:81::2")?;
    Ok((home, router))
}

/// Makes the way from the pod's node to the pod narrow, which only the node knows.
fn narrow_the_way_to(cluster: &ServiceCluster, pod: &ServingPod) -> Result<()> {
    let pod = &pod.pod;
    let node = &cluster.cluster.node(pod.node).namespace;
    node.ip(&format!(
        "route replace {}/32 dev {} mtu lock {NARROW}\n\
         route replace {}/128 dev {} mtu lock {NARROW}",
        pod.v4, pod.interface, pod.v6, pod.interface
    ))?;
    Ok(())
}

/// A file goes to the Service and comes back unchanged.
fn transfers_are_exact(client: &Namespace, frontend: SocketAddr, pod: &ServingPod) -> Result<()> {
    let bytes = pattern(LENGTH);
    let scratch = Scratch::new()?;
    let sent = scratch.write("sent", &bytes)?;
    let received = scratch.path().join("received");
    let url = format!("http://{frontend}/files/blob");
    upload(client, &sent, &url)?;
    let stored = pod.nginx.files().join("blob");
    ensure!(fs::read(&stored)? == bytes, "the upload to {url} differs");
    download(client, &url, &received)?;
    ensure!(
        fs::read(&received)? == bytes,
        "the download from {url} differs"
    );
    fs::remove_file(stored)?;
    Ok(())
}

/// A file comes from the Service unchanged. The client has sent it nothing long before: else it would know the narrow
/// link, and tell the server not to send more.
fn a_download_is_exact(client: &Namespace, frontend: SocketAddr, pod: &ServingPod) -> Result<()> {
    let bytes = pattern(LENGTH);
    let scratch = Scratch::new()?;
    let received = scratch.path().join("received");
    fs::write(pod.nginx.files().join("blob"), &bytes)?;
    let url = format!("http://{frontend}/files/blob");
    download(client, &url, &received)?;
    ensure!(
        fs::read(&received)? == bytes,
        "the download from {url} differs"
    );
    Ok(())
}

/// How much a packet from one to the other may hold, as the sender's kernel has learnt.
fn known_mtu(from: &Namespace, to: IpAddr) -> Result<u32> {
    let route = from.output("ip", &["route", "get", &to.to_string()])?;
    let mtu = route.split_once("mtu ").and_then(|(_, rest)| {
        let number = rest.split_whitespace().next()?;
        number.parse().ok()
    });
    Ok(mtu.unwrap_or(1500))
}

/// A socket that does not fragment learns how much it may send, and then is answered.
fn a_datagram_learns_the_mtu(client: &Namespace, frontend: SocketAddr) -> Result<()> {
    client.run(|| {
        let socket = udp_socket(any_like(frontend, 0))?;
        never_fragment(&socket)?;
        socket.connect(frontend)?;
        socket.send(&[b'x'; 1400])?;
        let mut buffer = [0; 2048];
        let error = match socket.recv(&mut buffer) {
            Ok(length) => bail!("{frontend} answered a datagram of 1400 bytes with {length}"),
            Err(error) => error,
        };
        let too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
        ensure!(too_long, "{frontend}: {error}");
        ensure!(
            path_mtu(&socket)? == NARROW,
            "{frontend}: {}",
            path_mtu(&socket)?
        );
        socket.send(&[b'x'; 1200])?;
        socket.recv(&mut buffer).context("the answer")?;
        Ok(())
    })
}

#[test]
fn a_pod_learns_how_narrow_the_way_to_a_backend_is() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        for (node, octet) in [(1, 2), (2, 2)] {
            let pod = cluster.add_serving_pod(node, "store", octet)?;
            narrow_the_way_to(cluster, &pod)?;
            if cluster.agents.is_empty() {
                cluster.start_agents(&[&pod])?;
            } else {
                cluster.wait_for(&[&pod])?;
            }
            let client = cluster.cluster.add_pod(1, "client", 100 + node)?;
            for (web, udp) in [(WEB_V4, UDP_V4), (WEB_V6, UDP_V6)] {
                let (web, udp) = (address(web)?, address(udp)?);
                a_datagram_learns_the_mtu(&client.namespace, udp)?;
                let other = cluster.cluster.add_pod(1, "other", 110 + node)?;
                transfers_are_exact(&other.namespace, web, &pod)?;
                let mtu = known_mtu(&other.namespace, web.ip())?;
                ensure!(mtu == NARROW, "packets to {web} may hold {mtu}");
            }
            ensure!(cluster.agents[0].counted(Counter::IcmpErrors)? > 0);
            cluster.state.delete_pod("store")?;
        }
        Ok(())
    })
}

#[test]
fn a_client_outside_learns_how_narrow_the_way_to_a_backend_is() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "Cluster")?;
        let pod = cluster.add_serving_pod(2, "store", 2)?;
        narrow_the_way_to(cluster, &pod)?;
        cluster.start_agents(&[&pod])?;
        let outside = &cluster.cluster.outside;
        for balancer in [BALANCER_V4, BALANCER_V6] {
            let balancer: IpAddr = balancer.parse()?;
            a_datagram_learns_the_mtu(outside, SocketAddr::new(balancer, DNS))?;
            transfers_are_exact(outside, SocketAddr::new(balancer, WEB), &pod)?;
            let mtu = known_mtu(outside, balancer)?;
            ensure!(mtu == NARROW, "packets to {balancer} may hold {mtu}");
        }
        Ok(())
    })
}

/// The pods' answers to a client behind a narrow link: routers tell the frontend, which must tell the pod.
fn a_backend_learns_how_narrow_the_way_to_a_client_is(policy: &str, node: u8) -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, policy)?;
        let pod = cluster.add_serving_pod(node, "store", 2)?;
        cluster.start_agents(&[&pod])?;
        let (home, _router) = home_behind_a_narrow_link(&cluster.cluster.outside)?;
        for balancer in [BALANCER_V4, BALANCER_V6] {
            let balancer: IpAddr = balancer.parse()?;
            a_download_is_exact(&home, SocketAddr::new(balancer, WEB), &pod)?;
            let client: IpAddr = match (policy, balancer) {
                ("Local", IpAddr::V4(_)) => "10.80.0.2".parse()?,
                ("Local", IpAddr::V6(_)) => "fd00:80::2".parse()?,
                (_, IpAddr::V4(_)) => cluster.cluster.node(1).v4().into(),
                (_, IpAddr::V6(_)) => cluster.cluster.node(1).v6().into(),
            };
            let mtu = known_mtu(&pod.pod.namespace, client)?;
            ensure!(mtu == NARROW, "packets to {client} may hold {mtu}");
        }
        ensure!(cluster.agents[0].counted(Counter::IcmpErrors)? > 0);
        Ok(())
    })
}

#[test]
fn a_backend_learns_how_narrow_the_way_to_a_masqueraded_client_is() -> Result<()> {
    a_backend_learns_how_narrow_the_way_to_a_client_is("Cluster", 2)
}

#[test]
fn a_backend_learns_how_narrow_the_way_to_its_client_is() -> Result<()> {
    a_backend_learns_how_narrow_the_way_to_a_client_is("Local", 1)
}

/// A connected socket hears that nobody listens where its frontend leads.
fn is_refused(client: &Namespace, frontend: SocketAddr) -> Result<()> {
    client.run(|| {
        let socket: UdpSocket = udp_socket(any_like(frontend, 0))?;
        socket.connect(frontend)?;
        socket.send(b"anybody?")?;
        let answer = socket.recv(&mut [0; 64]);
        let kind = answer.as_ref().err().map(std::io::Error::kind);
        ensure!(
            kind == Some(ErrorKind::ConnectionRefused),
            "{frontend}: {answer:?}"
        );
        Ok(())
    })
}

fn a_closed_port_refuses_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        open(cluster, "Cluster")?;
        let pods = [
            cluster.add_serving_pod(1, "near", 2)?,
            cluster.add_serving_pod(2, "far", 2)?,
        ];
        cluster.start_agents(&[&pods[0], &pods[1]])?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        for pod in &pods {
            // By default a kernel sends one such message a second to each peer.
            for family in ["ipv4/icmp_", "ipv6/icmp/"] {
                let pod = &pod.pod.namespace;
                pod.sysctl(&format!("net/{family}ratelimit"), "0")?;
            }
        }
        // Both backends get their turn.
        for _ in 0..8 {
            for inside in ["10.96.0.81", "fd00:10:96::81"] {
                let closed = SocketAddr::new(inside.parse()?, CLOSED);
                for namespace in [&client.namespace, &node.namespace, &pods[0].pod.namespace] {
                    is_refused(namespace, closed)?;
                }
            }
            for balancer in [BALANCER_V4, BALANCER_V6] {
                let closed = SocketAddr::new(balancer.parse()?, CLOSED);
                is_refused(&cluster.cluster.outside, closed)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_closed_port_refuses_clients_over_a_routed_network() -> Result<()> {
    a_closed_port_refuses_over(PodNetwork::Routed)
}

#[test]
fn a_closed_port_refuses_clients_over_a_bridge() -> Result<()> {
    a_closed_port_refuses_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn a_closed_port_refuses_clients_over_a_vxlan_overlay() -> Result<()> {
    a_closed_port_refuses_over(PodNetwork::Vxlan)
}

/// The balancer's node forwards to a backend by the link that the client is on, and tells the client to go there directly.
#[test]
fn redirects_about_translated_packets_are_dropped() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "Cluster")?;
        let pod = cluster.add_serving_pod(2, "far", 2)?;
        cluster.start_agents(&[&pod])?;
        let outside = &cluster.cluster.outside;
        // Over IPv6 routers speak of routers by their link's addresses only.
        let far = cluster.cluster.node(2);
        let addresses = far.namespace.output(
            "ip",
            &[
                "-6", "-o", "address", "show", "dev", "eth0", "scope", "link",
            ],
        )?;
        let words = addresses.split_whitespace();
        let of_link = words.into_iter().find_map(|word| word.strip_suffix("/64"));
        let of_link = of_link.context("an address of the link")?;
        cluster.cluster.node(1).namespace.ip(&format!(
            "route replace fd00:10:244:2::/64 via {of_link} dev eth0"
        ))?;
        let mut before = 0;
        for balancer in [BALANCER_V4, BALANCER_V6] {
            let door = SocketAddr::new(balancer.parse()?, DNS);
            for _ in 0..4 {
                ask_udp(outside, door, "which way?")?;
            }
            let dropped = cluster.agents[0].counted(Counter::DropRedirect)?;
            ensure!(dropped > before, "{balancer}: {dropped} redirects dropped");
            before = dropped;
        }
        Ok(())
    })
}
