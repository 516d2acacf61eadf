//! What load balancers and the kubelet ask over HTTP: `healthCheckNodePort`, `/healthz` and `/livez`.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::agent_without_services::LoneAgent;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::service_cluster::{HTTP_PORT, ServiceCluster, with_services};
use tests::cluster::topology::{Node, PodNetwork};
use tests::machine::netns::Namespace;

const CHECK: u16 = 32_001;

/// The agent's own port, as kube-proxy has it.
const AGENT: u16 = 10_256;

/// A Service that lets its load balancer ask nodes whether they have endpoints.
fn apply_door(cluster: &mut ServiceCluster, port: u16) -> Result<()> {
    let door = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  externalTrafficPolicy: Local
  healthCheckNodePort: {port}
  ports: [{{name: http, port: 80, targetPort: {HTTP_PORT}, nodePort: 30080}}]
"
    );
    cluster.state.apply("service-door", &door)
}

/// An answer without its date: status line and headers, sorted, and the body.
fn ask(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<(Vec<String>, String)> {
    let url = format!("http://{address}{path}");
    let arguments = ["-sS", "-i", "--max-time", "10", "--noproxy", "*", &url];
    let answer = namespace.output("curl", &arguments)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head and a body")?;
    let lines = head
        .split("\r\n")
        .filter(|line| !line.starts_with("Date: "));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.get_mut(1..).context("headers")?.sort();
    Ok((lines, body.to_owned()))
}

/// Asks until the answer begins with this status line.
fn wait_for(namespace: &Namespace, address: SocketAddr, status: &str) -> Result<()> {
    let mut last = None;
    for _ in 0..200 {
        let answer = ask(namespace, address, "/");
        if let Ok((head, _)) = &answer
            && head.first().is_some_and(|line| line == status)
        {
            return Ok(());
        }
        last = Some(answer);
        sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no `{status}` from {address}: {last:?}")
}

fn at(node: &Node, port: u16) -> [SocketAddr; 2] {
    [IpAddr::from(node.v4()), node.v6().into()].map(|address| (address, port).into())
}

const GOOD: &str = "HTTP/1.1 200 OK";
const BAD: &str = "HTTP/1.1 503 Service Unavailable";

#[test]
fn a_load_balancer_finds_the_nodes_with_ready_endpoints() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        apply_door(cluster, CHECK)?;
        let pods = [
            cluster.add_serving_pod(1, "one", 2)?,
            cluster.add_serving_pod(1, "two", 3)?,
        ];
        cluster.start_agents(&[&pods[0], &pods[1]])?;
        let [first, second] = cluster.cluster.nodes();
        let outside = &cluster.cluster.outside;
        for (node, count, status) in [(first, 2, GOOD), (second, 0, BAD)] {
            let body = format!(
                "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"door\"\n\t}},\n\
                 \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
            );
            let head = [
                status.to_owned(),
                format!("Content-Length: {}", body.len()),
                "Content-Type: application/json".to_owned(),
                "X-Content-Type-Options: nosniff".to_owned(),
                format!("X-Load-Balancing-Endpoint-Weight: {count}"),
            ];
            for address in at(node, CHECK) {
                for path in ["/", "/healthz", "/any/path?and=question"] {
                    let answer = ask(outside, address, path)?;
                    ensure!(
                        answer == (head.to_vec(), body.clone()),
                        "{address}: {answer:?}"
                    );
                }
            }
        }
        // One endpoint after the other goes; then the Service asks at another port, and at none.
        for pod in ["one", "two"] {
            cluster.state.delete_pod(pod)?;
        }
        wait_for(outside, at(first, CHECK)[0], BAD)?;
        apply_door(cluster, CHECK + 1)?;
        let outside = &cluster.cluster.outside;
        wait_for(outside, at(cluster.cluster.node(1), CHECK + 1)[1], BAD)?;
        let old = at(cluster.cluster.node(1), CHECK)[0];
        ensure!(ask(outside, old, "/").is_err(), "{old} answers yet");
        Ok(())
    })
}

/// As clouds route a balancer's address to its nodes: on no device.
#[test]
fn a_balancers_address_answers_too_where_node_ports_are_served_everywhere() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        apply_door(cluster, CHECK)?;
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        let [first, second] = cluster.cluster.nodes();
        for node in [first, second] {
            node.namespace
                .ip("route add local 203.0.113.200/32 dev lo")?;
        }
        let everywhere = ["--nodeport-addresses", "0.0.0.0/0,primary"];
        cluster.start_agents_with(&[&pod], &everywhere)?;
        let balancer = SocketAddr::new("203.0.113.200".parse()?, CHECK);
        for (node, status) in cluster.cluster.nodes().iter().zip([GOOD, BAD]) {
            wait_for(&node.namespace, balancer, status)?;
            for address in at(node, CHECK) {
                wait_for(&cluster.cluster.outside, address, status)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_port_that_somebody_else_has_is_named_and_taken_when_it_is_free() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        apply_door(cluster, CHECK)?;
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        let node = cluster.cluster.node(1).clone();
        let [address, _] = at(&node, CHECK);
        let taken = node.namespace.run(|| Ok(TcpListener::bind(address)?))?;
        cluster.start_agents(&[&pod])?;
        let agent = cluster.agents.first().context("an agent")?;
        let complaint = format!("Service default/door: cannot listen at {address}");
        agent.wait_until("status", |text| text.contains(&complaint))?;
        let outside = &cluster.cluster.outside;
        wait_for(outside, at(&node, CHECK)[1], GOOD).context("the other family")?;
        // It is tried again, and not said again.
        sleep(Duration::from_secs(6));
        let log = agent.log();
        ensure!(log.matches(&complaint).count() == 1, "{log}");
        drop(taken);
        wait_for(outside, address, GOOD)?;
        agent.wait_until("status", |text| !text.contains(&complaint))
    })
}

#[test]
fn the_agent_answers_for_itself_where_it_is_told_to() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    for address in ["127.0.0.1", "::1", "192.168.77.11"] {
        let address = SocketAddr::new(address.parse()?, AGENT);
        for (path, node) in [("/healthz", "\"nodeEligible\":true,"), ("/livez", "")] {
            let (head, body) = ask(&lone.namespace, address, path)?;
            let expected = [
                GOOD.to_owned(),
                format!("Content-Length: {}", body.len()),
                "Content-Type: application/json".to_owned(),
                "X-Content-Type-Options: nosniff".to_owned(),
            ];
            ensure!(head == expected, "{head:?}");
            let value: serde_json::Value = serde_json::from_str(&body)?;
            let time = |value: &serde_json::Value| value["lastUpdated"].to_string();
            let (now, v4, v6) = (
                time(&value),
                time(&value["status"]["IPv4"]),
                time(&value["status"]["IPv6"]),
            );
            let expected = format!(
                "{{\"lastUpdated\":{now},\"currentTime\":{now},{node}\"healthy\":true,\"status\":\
                 {{\"IPv4\":{{\"lastUpdated\":{v4},\"healthy\":true}},\"IPv6\":{{\"lastUpdated\":{v6},\"healthy\":true}}}}}}"
            );
            ensure!(body == expected, "{body}\nis not\n{expected}");
        }
        let (head, body) = ask(&lone.namespace, address, "/")?;
        ensure!(
            head.first().is_some_and(|it| it.ends_with("404 Not Found")),
            "{head:?}"
        );
        ensure!(body == "404 page not found\n", "{body}");
    }
    drop(lone);
    let elsewhere = LoneAgent::start(&["--healthz-bind-address", "127.0.0.1:10300"])?;
    ask(&elsewhere.namespace, "127.0.0.1:10300".parse()?, "/livez")?;
    let usual = SocketAddr::new([127, 0, 0, 1].into(), AGENT);
    ensure!(ask(&elsewhere.namespace, usual, "/livez").is_err());
    drop(elsewhere);
    let nowhere = LoneAgent::start(&["--healthz-bind-address", ""])?;
    ensure!(ask(&nowhere.namespace, usual, "/livez").is_err());
    Ok(())
}

#[test]
fn clients_that_say_nothing_keep_nobody_from_asking() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let address = SocketAddr::new([127, 0, 0, 1].into(), AGENT);
    let silent: Vec<TcpStream> = lone.namespace.run(|| {
        let connections = (0..300).map(|_| Ok(TcpStream::connect(address)?));
        connections.collect()
    })?;
    for _ in 0..3 {
        let (head, _) = ask(&lone.namespace, address, "/livez")?;
        ensure!(head.first().is_some_and(|it| it == GOOD), "{head:?}");
    }
    drop(silent);
    Ok(())
}
