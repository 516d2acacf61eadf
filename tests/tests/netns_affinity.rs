//! `sessionAffinity: ClientIP`: clients go back to the pod they had, by whichever address of the Service they come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::ask_udp;
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, UDP_PORT, with_services,
};
use tests::cluster::topology::{Pod, PodNetwork};
use tests::machine::netns::Namespace;
use tests::traffic::client::http_gets;

const NODE_PORT_HTTP: u16 = 30_080;
const NODE_PORT_UDP: u16 = 30_053;
const CLUSTER_IPS: [&str; 2] = ["10.96.0.81", "fd00:10:96::81"];

/// By chance, one of three pods is met so often once in 10^9 times.
const OFTEN: usize = 20;

/// Three pods on two nodes, a client pod, and a Service whose clients stay so long.
fn open(cluster: &mut ServiceCluster, seconds: u32) -> Result<(Vec<ServingPod>, Pod)> {
    let [v4, v6] = CLUSTER_IPS;
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [{v4}, '{v6}']
  sessionAffinity: ClientIP
  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT_HTTP}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: {NODE_PORT_UDP}}}
"
    );
    cluster.state.apply("service-door", &service)?;
    let pods = vec![
        cluster.add_serving_pod(1, "near", 2)?,
        cluster.add_serving_pod(1, "beside", 3)?,
        cluster.add_serving_pod(2, "far", 2)?,
    ];
    let client = cluster.cluster.add_pod(1, "client", 100)?;
    cluster.start_agents(&pods.iter().collect::<Vec<_>>())?;
    Ok((pods, client))
}

/// A client of one family, and the addresses of the Service that it can dial: for TCP and for UDP.
struct Client {
    name: String,
    namespace: Namespace,
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
}

impl Client {
    /// The pods that answer so many new TCP connections to each address.
    fn met(&self, times: usize) -> Result<BTreeSet<String>> {
        let mut met = BTreeSet::new();
        for frontend in &self.tcp {
            let answers =
                http_gets(&self.namespace, *frontend, times).with_context(|| self.name.clone())?;
            // The name; the address is that of the family.
            let names = answers.keys().filter_map(|it| it.split(' ').next());
            met.extend(names.map(ToOwned::to_owned));
        }
        Ok(met)
    }

    /// The pods that answer datagrams of so many new sockets to each address.
    fn met_by_udp(&self, times: usize) -> Result<BTreeSet<String>> {
        let mut met = BTreeSet::new();
        for frontend in &self.udp {
            for number in 0..times {
                let answer = ask_udp(&self.namespace, *frontend, &number.to_string())
                    .with_context(|| self.name.clone())?;
                met.insert(answer.pod);
            }
        }
        Ok(met)
    }

    /// The only pod it meets, however often.
    fn only(&self, times: usize) -> Result<String> {
        let met = self.met(times)?;
        let mut names = met.iter();
        match (names.next(), names.next()) {
            (Some(name), None) => Ok(name.clone()),
            _ => anyhow::bail!("{} met {met:?} at {:?}", self.name, self.tcp),
        }
    }
}

/// A pod, the outside and the node, in each family.
fn clients(cluster: &ServiceCluster, pod: &Pod) -> Result<Vec<Client>> {
    let node = cluster.cluster.node(1);
    let mut clients = Vec::new();
    for (cluster_ip, node_address) in CLUSTER_IPS
        .into_iter()
        .zip([IpAddr::from(node.v4()), node.v6().into()])
    {
        let inside = SocketAddr::new(cluster_ip.parse()?, 80);
        let inside_udp = SocketAddr::new(inside.ip(), 53);
        let outside = SocketAddr::new(node_address, NODE_PORT_HTTP);
        let outside_udp = SocketAddr::new(node_address, NODE_PORT_UDP);
        for (name, namespace, is_inside) in [
            ("a pod", &pod.namespace, true),
            ("the node", &node.namespace, true),
            ("the outside", &cluster.cluster.outside, false),
        ] {
            let (mut tcp, mut udp) = (vec![outside], vec![outside_udp]);
            if is_inside {
                tcp.push(inside);
                udp.push(inside_udp);
            }
            clients.push(Client {
                name: format!("{name} by {cluster_ip}"),
                namespace: namespace.clone(),
                tcp,
                udp,
            });
        }
    }
    Ok(clients)
}

#[test]
fn clients_stay_with_a_pod_until_it_goes_and_then_with_another() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (pods, client) = open(cluster, 600)?;
        let shown = cluster.agents[0]
            .waggle("trace --in pod --proto tcp --src 10.244.1.100:4000 --dst 10.96.0.81:80")?;
        ensure!(shown.contains("for 600 s"), "{shown}");
        let clients = clients(cluster, &client)?;
        let mut first = BTreeMap::new();
        for client in &clients {
            first.insert(&client.name, client.only(OFTEN)?);
            let met = client.met_by_udp(OFTEN)?;
            ensure!(met.len() == 1, "{}: {met:?} by UDP", client.name);
        }
        let is_told = |text: &str| {
            let of_pod = |line: &&str| {
                line.contains("10.244.1.100") && line.contains("default/door:http/tcp")
            };
            let of_node = |line: &&str| line.contains("(this node)");
            let mut lines = text.lines();
            lines
                .clone()
                .any(|it| of_pod(&it) && it.contains("10.244."))
                && lines.any(|it| of_node(&it))
        };
        cluster.agents[0].wait_until("get affinity", is_told)?;
        let told = cluster.agents[0].waggle("get affinity -o json")?;
        let entries: Vec<serde_json::Value> = serde_json::from_str(&told)?;
        let all_last = entries.iter().all(|it| {
            let second = |key: &str| it.get(key).and_then(serde_json::Value::as_u64);
            let (idle, remaining) = (second("idleSeconds"), second("remainingSeconds"));
            idle.zip(remaining)
                .is_some_and(|(idle, remaining)| idle < 60 && idle + remaining == 600)
        });
        let is_node =
            |it: &serde_json::Value| it.get("client").is_some_and(serde_json::Value::is_null);
        ensure!(all_last && entries.iter().any(is_node), "{told}");
        // The pod that most have goes.
        let leaver = &first[&clients[0].name];
        cluster.state.delete_pod(leaver)?;
        let others: Vec<_> = pods.iter().filter(|it| it.pod.name != *leaver).collect();
        cluster.wait_for(&others)?;
        for client in &clients {
            let now = client.only(OFTEN)?;
            let before = &first[&client.name];
            ensure!(now != *leaver, "{} met {leaver}", client.name);
            ensure!(
                before == leaver || now == *before,
                "{} went from {before} to {now} though it is still there",
                client.name
            );
            let met = client.met_by_udp(OFTEN)?;
            ensure!(
                met.len() == 1 && !met.contains(leaver),
                "{}: {met:?} by UDP",
                client.name
            );
        }
        Ok(())
    })
}

#[test]
fn clients_that_are_silent_for_the_timeout_are_forgotten() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (_pods, client) = open(cluster, 1)?;
        let clients = clients(cluster, &client)?;
        let mut met: Vec<BTreeSet<String>> = vec![BTreeSet::new(); clients.len()];
        // By chance one of three pods is met each time once in 3^12 times.
        for _ in 0..13 {
            for (client, met) in clients.iter().zip(&mut met) {
                met.extend(client.met(1)?);
            }
            sleep(Duration::from_millis(1300));
        }
        for (client, met) in clients.iter().zip(&met) {
            ensure!(met.len() > 1, "{} met {met:?} only", client.name);
        }
        Ok(())
    })
}

#[test]
fn a_client_that_goes_on_connecting_stays_beyond_the_timeout() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let (_pods, client) = open(cluster, 3)?;
        let clients = clients(cluster, &client)?;
        let mut met: Vec<BTreeSet<String>> = vec![BTreeSet::new(); clients.len()];
        for _ in 0..20 {
            for (client, met) in clients.iter().zip(&mut met) {
                met.extend(client.met(1)?);
            }
            sleep(Duration::from_millis(400));
        }
        for (client, met) in clients.iter().zip(&met) {
            ensure!(met.len() == 1, "{} met {met:?}", client.name);
        }
        Ok(())
    })
}
