//! Who may dial what: ports that a Service does not have are refused, addresses that no Service has are silent, and load
//! balancers answer those within their source ranges.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{addresses_of, tcp_meets_exactly};
use tests::cluster::service_cluster::{HTTP_PORT, ServiceCluster, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::client::{HttpFailure, http_get};

/// A refusal comes at once; a client that hears nothing waits so long.
const PATIENCE: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_millis(1500);
const CLUSTER_IPS: [&str; 2] = ["10.96.0.81", "fd00:10:96::81"];
const OTHERS: [&str; 2] = ["10.96.0.82", "fd00:10:96::82"];
const NOBODYS: [&str; 2] = ["10.96.0.99", "fd00:10:96::99"];
const BALANCER_IPS: [&str; 2] = ["203.0.113.81", "2001:db8:113::81"];
const OPTIONS: [&str; 2] = [
    "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
    "--service-cidr=10.96.0.0/16,fd00:10:96::/112",
];

/// The Service `door`, whose load balancer is dialled from some prefixes.
fn door(cluster: &mut ServiceCluster, ranges: &str) -> Result<()> {
    let ([v4, v6], [balancer_v4, balancer_v6]) = (CLUSTER_IPS, BALANCER_IPS);
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  clusterIPs: [{v4}, '{v6}']
  loadBalancerSourceRanges: [{ranges}]
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}}}
status:
  loadBalancer: {{ingress: [{{ip: {balancer_v4}}}, {{ip: '{balancer_v6}'}}]}}
"
    );
    cluster.state.apply("service-door", &service)
}

/// A Service that another proxy serves.
fn of_another_proxy(cluster: &mut ServiceCluster) -> Result<()> {
    let [v4, v6] = OTHERS;
    let service = format!(
        "kind: Service
metadata:
  name: elsewhere
  namespace: default
  labels: {{service.kubernetes.io/service-proxy-name: another}}
spec:
  selector: {{app: web}}
  clusterIPs: [{v4}, '{v6}']
  ports:
  - {{protocol: TCP, port: 80, targetPort: {HTTP_PORT}}}
"
    );
    cluster.state.apply("service-elsewhere", &service)
}

fn ask(
    namespace: &Namespace,
    address: &str,
    port: u16,
    patience: Duration,
) -> Result<Result<(), HttpFailure>> {
    let door = SocketAddr::new(address.parse()?, port);
    namespace.run(|| Ok(http_get(door, patience).map(drop)))
}

/// What a ping of an address comes to.
fn ping(namespace: &Namespace, address: &str, patience: Duration) -> Result<std::io::Result<()>> {
    let to: IpAddr = address.parse()?;
    // Group 0 may use the sockets that `ping` uses.
    namespace.sysctl("net/ipv4/ping_group_range", "0 0")?;
    namespace.run(|| {
        let (domain, protocol, kind) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
        socket.set_read_timeout(Some(patience))?;
        let asked = socket
            .connect(&SocketAddr::new(to, 0).into())
            .and_then(|()| socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1]));
        Ok(asked.and_then(|_| (&socket).read(&mut [0; 64]).map(drop)))
    })
}

#[test]
fn a_ping_of_a_service_is_refused_at_once() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "")?;
        let pod = cluster.add_serving_pod(1, "near", 2)?;
        cluster.start_agents_with(&[&pod], &OPTIONS)?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        // A process of the node hears it from `connect`.
        for (namespace, nobody) in [
            (&client.namespace, ErrorKind::WouldBlock),
            (&node.namespace, ErrorKind::PermissionDenied),
        ] {
            let services = CLUSTER_IPS.map(|it| (it, PATIENCE, ErrorKind::ConnectionRefused));
            let others = NOBODYS.map(|it| (it, SILENCE, nobody));
            for (address, patience, expected) in services.into_iter().chain(others) {
                let answer = ping(namespace, address, patience)?;
                let kind = answer.as_ref().err().map(std::io::Error::kind);
                ensure!(kind == Some(expected), "{address}: {answer:?}");
            }
        }
        // At an address of another proxy a ping is not ours to refuse, by a packet or by `connect`.
        of_another_proxy(cluster)?;
        cluster.wait_for(&[&pod])?;
        for namespace in [&client.namespace, &cluster.cluster.node(1).namespace] {
            for address in OTHERS {
                let ours = |answer: &std::io::Result<()>| {
                    let kind = answer.as_ref().err().map(std::io::Error::kind);
                    matches!(
                        kind,
                        Some(ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied)
                    )
                };
                // The agent hears of the Service a moment later.
                let mut answer = ping(namespace, address, SILENCE)?;
                for _ in 0..20 {
                    if !ours(&answer) {
                        break;
                    }
                    answer = ping(namespace, address, SILENCE)?;
                }
                ensure!(!ours(&answer), "{address}: {answer:?}");
            }
        }
        let node = cluster.cluster.node(1);
        // Pods and the node are there to be pinged.
        for address in addresses_of(node) {
            ping(&client.namespace, &address.to_string(), PATIENCE)??;
        }
        Ok(())
    })
}

#[test]
fn unknown_ports_are_refused_and_unallocated_addresses_silent() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "")?;
        let pod = cluster.add_serving_pod(1, "near", 2)?;
        cluster.start_agents_with(&[&pod], &OPTIONS)?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = &cluster.cluster.node(1).namespace;
        for namespace in [&client.namespace, node] {
            for address in CLUSTER_IPS {
                ask(namespace, address, 80, PATIENCE)?.map_err(anyhow::Error::msg)?;
                let answer = ask(namespace, address, 81, PATIENCE)?;
                let failure = answer.err().map(|it| it.to_string());
                let failure = failure.unwrap_or_default();
                ensure!(failure.contains("refused"), "{address}: {failure:?}");
            }
        }
        for address in NOBODYS {
            let answer = ask(&client.namespace, address, 80, SILENCE)?;
            let silence = Err(HttpFailure::TimedOut("connect"));
            ensure!(answer == silence, "{address}: {answer:?}");
            let answer = ask(node, address, 80, PATIENCE)?;
            let failure = answer.err().map(|it| it.to_string());
            let failure = failure.unwrap_or_default();
            ensure!(failure.contains("not permitted"), "{address}: {failure:?}");
        }
        Ok(())
    })
}

#[test]
fn a_load_balancer_answers_those_within_its_source_ranges() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        door(cluster, "192.168.77.1/32, 'fd00:192:168:77::1/128'")?;
        let pods = [
            cluster.add_serving_pod(1, "near", 2)?,
            cluster.add_serving_pod(2, "far", 2)?,
        ];
        let all: Vec<_> = pods.iter().collect();
        cluster.start_agents_with(&all, &OPTIONS)?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        let routes = BALANCER_IPS.into_iter().zip(addresses_of(node));
        for (address, via) in routes.clone() {
            cluster
                .cluster
                .outside
                .ip(&format!("route add {address} via {via}"))?;
        }
        let silence = || Err(HttpFailure::TimedOut("connect"));
        for address in BALANCER_IPS {
            let at = SocketAddr::new(address.parse()?, 80);
            tcp_meets_exactly(&cluster.cluster.outside, at, &all)?;
            let answer = ask(&client.namespace, address, 80, SILENCE)?;
            ensure!(answer == silence(), "a pod at {address}: {answer:?}");
            let answer = ask(&node.namespace, address, 80, PATIENCE)?;
            let failure = answer.err().map(|it| it.to_string()).unwrap_or_default();
            ensure!(
                failure.contains("not permitted"),
                "the node at {address}: {failure:?}"
            );
        }
        // Now those who were kept out may come, and who was let in is kept out.
        let inside = addresses_of(node).map(|it| match it {
            IpAddr::V4(it) => format!("{it}/32, 10.244.0.0/16"),
            IpAddr::V6(it) => format!("'{it}/128', 'fd00:10:244::/48'"),
        });
        door(cluster, &inside.join(", "))?;
        let is_open = || ask(&client.namespace, BALANCER_IPS[1], 80, SILENCE);
        for _ in 0..20 {
            if is_open()?.is_ok() {
                break;
            }
        }
        let node = cluster.cluster.node(1);
        for address in BALANCER_IPS {
            let at = SocketAddr::new(address.parse()?, 80);
            tcp_meets_exactly(&client.namespace, at, &all)?;
            tcp_meets_exactly(&node.namespace, at, &all)?;
            let answer = ask(&cluster.cluster.outside, address, 80, SILENCE)?;
            ensure!(answer == silence(), "the outside at {address}: {answer:?}");
        }
        Ok(())
    })
}
