//! UDP conversations of one socket while Services and endpoints change: they stay with a pod that serves, and go at once
//! where their frontend goes.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{ServiceCluster, UDP_PORT, address, with_services};
use tests::cluster::topology::{Pod, PodNetwork};
use tests::now;
use tests::traffic::udp::{UdpServer, any_like, exchange};

/// How long a change may take to arrive; a flow moves with the next datagram.
const LIMIT: Duration = Duration::from_secs(10);

/// The Service `blue`, with this type, spec and status.
fn service(name: &str, cluster_ip: &str, rest: &str) -> String {
    format!(
        "kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: {cluster_ip}
{rest}
"
    )
}

/// The slice of a Service: each of its pods with its conditions.
fn slice(service: &str, endpoints: &[(&Pod, &str)]) -> String {
    let line = |(pod, conditions): &(&Pod, &str)| {
        let Pod { name, node, v4, .. } = pod;
        format!(
            "- {{addresses: [{v4}], nodeName: node{node}, targetRef: {{kind: Pod, name: {name}, uid: {name}}}, conditions: {{{conditions}}}}}"
        )
    };
    let endpoints: Vec<String> = endpoints.iter().map(line).collect();
    format!(
        "kind: EndpointSlice
metadata: {{name: {service}-1, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{port: {UDP_PORT}, protocol: UDP}}]
endpoints:
{}
",
        endpoints.join("\n")
    )
}

const READY: &str = "ready: true";
const SERVING: &str = "ready: false, serving: true, terminating: true";
const SILENT: &str = "ready: false, serving: false, terminating: true";

/// A pod with a UDP server in it.
fn server(cluster: &ServiceCluster, node: u8, name: &str, octet: u8) -> Result<(Pod, UdpServer)> {
    let pod = cluster.cluster.add_pod(node, name, octet)?;
    let server = UdpServer::start(&pod.namespace, name, UDP_PORT)?;
    Ok((pod, server))
}

/// Asks until this pod answers (or nobody, if there is none), and then once more.
fn moves_to(socket: &UdpSocket, frontend: SocketAddr, wanted: Option<&Pod>) -> Result<()> {
    let start = now();
    let mut number = 0;
    let mut ask = || {
        number += 1;
        // A refusal arrives with the next call.
        let answer = exchange(socket, frontend, &format!("{number}"))
            .ok()
            .flatten();
        answer.map(|it| (it.pod, it.from))
    };
    let wanted = wanted.map(|pod| (pod.name.clone(), frontend));
    let mut last = ask();
    while last != wanted {
        ensure!(
            start.elapsed() < LIMIT,
            "{frontend}: {last:?}, not {wanted:?}"
        );
        last = ask();
    }
    for _ in 0..3 {
        let later = ask();
        ensure!(later == wanted, "{frontend}: {later:?} after {wanted:?}");
    }
    Ok(())
}

/// Asks a few times: each answer is this pod's.
fn stays_with(socket: &UdpSocket, frontend: SocketAddr, pod: &Pod) -> Result<()> {
    for number in 0..5 {
        let answer = exchange(socket, frontend, &format!("stays {number}"))?;
        let answer = answer.with_context(|| format!("{frontend} does not answer"))?;
        ensure!(
            answer.from == frontend && answer.pod == pod.name,
            "{answer:?}"
        );
    }
    Ok(())
}

/// Waits until a new socket meets this pod (or nobody).
fn new_flows_meet(frontend: SocketAddr, wanted: Option<&Pod>) -> Result<()> {
    let start = now();
    loop {
        let socket = udp_socket(any_like(frontend, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let answer = exchange(&socket, frontend, "new").ok().flatten();
        if answer.map(|it| it.pod) == wanted.map(|pod| pod.name.clone()) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            bail!("new flows to {frontend} do not meet {wanted:?}");
        }
    }
}

#[test]
fn a_conversation_goes_where_its_address_and_node_port_go() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (blue, _blue_server) = server(cluster, 1, "blue", 11)?;
        let (green, _green_server) = server(cluster, 2, "green", 12)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let balancer =
            "  type: LoadBalancer\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.70}]}}";
        let port = "  ports: [{port: 514, targetPort: 5353, protocol: UDP}]\n";
        let node_port =
            "  ports: [{port: 514, targetPort: 5353, protocol: UDP, nodePort: 30514}]\n";
        let services = |blue: &str, green: &str| {
            let blue = service("blue", "10.96.0.71", blue);
            format!("{blue}---\n{}", service("green", "10.96.0.72", green))
        };
        let before = services(&format!("{node_port}{balancer}"), port);
        cluster.state.apply("services", &before)?;
        let slices = [
            slice("blue", &[(&blue, READY)]),
            slice("green", &[(&green, READY)]),
        ];
        cluster.state.apply("slices", &slices.join("---\n"))?;
        cluster.start_agents(&[])?;
        let shared = address("203.0.113.70:514")?;
        let of_pod = client
            .namespace
            .run(|| udp_socket(any_like(shared, 5514)))?;
        let of_node = SocketAddr::new(cluster.cluster.node(1).v4().into(), 30_514);
        let outside = &cluster.cluster.outside;
        let of_outside = outside.run(|| udp_socket(any_like(of_node, 5514)))?;
        moves_to(&of_pod, shared, Some(&blue))?;
        moves_to(&of_outside, of_node, Some(&blue))?;

        let handed_over = services(
            &format!("{node_port}  type: LoadBalancer"),
            &format!("{port}{balancer}"),
        );
        cluster.state.apply("services", &handed_over)?;
        moves_to(&of_pod, shared, Some(&green))?;
        stays_with(&of_outside, of_node, &blue)?;

        let without_node_port = services(port, &format!("{port}{balancer}"));
        cluster.state.apply("services", &without_node_port)?;
        moves_to(&of_outside, of_node, None)?;
        stays_with(&of_pod, shared, &green)
    })
}

#[test]
fn a_conversation_stays_with_a_pod_that_terminates_until_it_serves_no_more() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (first, _first_server) = server(cluster, 1, "first", 11)?;
        let (second, _second_server) = server(cluster, 2, "second", 12)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let sip = "  ports: [{port: 5060, targetPort: 5353, protocol: UDP}]";
        cluster
            .state
            .apply("sip", &service("sip", "10.96.0.50", sip))?;
        cluster
            .state
            .apply("slice", &slice("sip", &[(&first, READY)]))?;
        cluster.start_agents(&[])?;
        let frontend = address("10.96.0.50:5060")?;
        let own = client
            .namespace
            .run(|| udp_socket(any_like(frontend, 5060)))?;
        moves_to(&own, frontend, Some(&first))?;
        let both = |of_first| slice("sip", &[(&first, of_first), (&second, READY)]);
        cluster.state.apply("slice", &both(SERVING))?;
        let meet = |pod| client.namespace.run(|| new_flows_meet(frontend, Some(pod)));
        meet(&second)?;
        stays_with(&own, frontend, &first)?;
        cluster.state.apply("slice", &both(SILENT))?;
        moves_to(&own, frontend, Some(&second))?;
        // And back, in one write that takes the second away altogether.
        cluster
            .state
            .apply("slice", &slice("sip", &[(&first, READY)]))?;
        moves_to(&own, frontend, Some(&first))
    })
}

#[test]
fn a_conversation_stays_when_the_policy_excludes_its_pod() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (far, _far_server) = server(cluster, 2, "far", 12)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let with = |policy: &str| {
            let rest = format!(
                "  internalTrafficPolicy: {policy}\n  ports: [{{port: 53, targetPort: 5353, protocol: UDP}}]"
            );
            service("names", "10.96.0.51", &rest)
        };
        cluster.state.apply("names", &with("Cluster"))?;
        cluster
            .state
            .apply("slice", &slice("names", &[(&far, READY)]))?;
        cluster.start_agents(&[])?;
        let frontend = address("10.96.0.51:53")?;
        let own = client
            .namespace
            .run(|| udp_socket(any_like(frontend, 5300)))?;
        moves_to(&own, frontend, Some(&far))?;
        cluster.state.apply("names", &with("Local"))?;
        client.namespace.run(|| new_flows_meet(frontend, None))?;
        stays_with(&own, frontend, &far)?;
        cluster
            .state
            .apply("slice", &slice("names", &[(&far, SILENT)]))?;
        moves_to(&own, frontend, None)
    })
}
