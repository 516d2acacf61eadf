//! SCTP by real sockets: pods, processes of the node and the outside reach a Service's pods, at another port than the one they dial. Where the
//! devices leave the sum to the sender, what arrives must have the right one.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::addresses_of;
use tests::cluster::service_cluster::{ServiceCluster, ServingPod, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::machine::require::optional;
use tests::traffic::client::requests_to_meet_all;

const PORT: u16 = 9;
const TARGET_PORT: u16 = 9009;
const NODE_PORT: u16 = 30_009;
const CLUSTER_IPS: [&str; 2] = ["10.96.0.9", "fd00:10:96::9"];
const PATIENCE: Duration = Duration::from_secs(10);

/// A one-to-one socket (RFC 6458, section 4): used like one of TCP.
fn socket(at: SocketAddr) -> std::io::Result<Socket> {
    let protocol = Protocol::from(libc::IPPROTO_SCTP);
    Socket::new(Domain::for_address(at), Type::STREAM, Some(protocol))
}

/// Answers each association with the pod's name, in both families, as long as the namespace lives.
fn serve(pod: &ServingPod) -> Result<()> {
    for any in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        let at = SocketAddr::new(any, TARGET_PORT);
        let name = pod.pod.name.clone();
        let listener = pod.pod.namespace.run(|| {
            let listener = socket(at)?;
            if at.is_ipv6() {
                listener.set_only_v6(true)?;
            }
            listener.bind(&at.into())?;
            listener.listen(64)?;
            Ok(TcpListener::from(listener))
        })?;
        // It ends with the test's process: nobody waits for it.
        let _serving = std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                drop(client.write_all(name.as_bytes()));
            }
        });
    }
    Ok(())
}

/// The name of the pod that answers.
fn ask(namespace: &Namespace, at: SocketAddr) -> Result<String> {
    namespace.run(|| {
        let socket = socket(at)?;
        socket.connect_timeout(&at.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = TcpStream::from(socket);
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    })
}

fn meets_exactly(namespace: &Namespace, at: SocketAddr, pods: &[ServingPod]) -> Result<()> {
    let mut met = BTreeSet::new();
    for _ in 0..requests_to_meet_all(pods.len()) {
        met.insert(ask(namespace, at)?);
    }
    let wanted: BTreeSet<String> = pods.iter().map(|it| it.pod.name.clone()).collect();
    ensure!(met == wanted, "from {} at {at}: {met:?}", namespace.name());
    Ok(())
}

fn open(cluster: &mut ServiceCluster, app: &str) -> Result<()> {
    let [v4, v6] = CLUSTER_IPS;
    let service = format!(
        "kind: Service
metadata: {{name: signals, namespace: default}}
spec:
  type: NodePort
  selector: {{app: {app}}}
  clusterIPs: [{v4}, '{v6}']
  ports:
  - {{name: m3ua, protocol: SCTP, port: {PORT}, targetPort: {TARGET_PORT}, nodePort: {NODE_PORT}}}
"
    );
    cluster.state.apply("service-signals", &service)
}

fn has_sctp() -> bool {
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    optional(
        socket(at).is_ok(),
        "no SCTP: the kernel has no such sockets",
    )
}

#[test]
fn pods_the_node_and_the_outside_reach_a_service_over_sctp() -> Result<()> {
    if !has_sctp() {
        return Ok(());
    }
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "web")?;
        let pods = [
            cluster.add_serving_pod(1, "near", 2)?,
            cluster.add_serving_pod(2, "far", 2)?,
        ];
        for pod in &pods {
            serve(pod)?;
        }
        cluster.start_agents(&pods.iter().collect::<Vec<_>>())?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        for sums_by_device in [true, false] {
            if !sums_by_device {
                let off = ["-K", "eth0", "tx-checksum-sctp", "off"];
                client.namespace.output("ethtool", &off)?;
                for pod in &pods {
                    pod.pod.namespace.output("ethtool", &off)?;
                }
            }
            for address in CLUSTER_IPS {
                let at = SocketAddr::new(address.parse()?, PORT);
                meets_exactly(&client.namespace, at, &pods)?;
                meets_exactly(&cluster.cluster.node(1).namespace, at, &pods)?;
            }
        }
        for address in addresses_of(cluster.cluster.node(1)) {
            let at = SocketAddr::new(address, NODE_PORT);
            meets_exactly(&cluster.cluster.outside, at, &pods)?;
        }
        Ok(())
    })
}

/// The refusal is an ICMP port unreachable as for every protocol; Linux's SCTP takes that for a hint and goes on trying.
#[test]
fn a_service_without_endpoints_makes_no_association() -> Result<()> {
    if !has_sctp() {
        return Ok(());
    }
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "nobody")?;
        let pod = cluster.add_serving_pod(1, "near", 2)?;
        cluster.start_agents(&[&pod])?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let [address, _] = CLUSTER_IPS;
        let at = SocketAddr::new(address.parse()?, PORT);
        let answer = ask(&client.namespace, at);
        ensure!(answer.is_err(), "{at}: {answer:?}");
        cluster.agents[0].wait_until("status -o json", |status| {
            status.contains("drop_no_backend")
        })
    })
}
