//! Waggle beside kube-proxy: two like networks, one control plane, the same objects, the same questions.
//! kube-proxy in nftables mode is the referee.

mod answerer;
mod case;
mod client;
mod known;
mod kube_proxy;
mod objects;
mod question;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;

pub use case::Case;
pub use client::{Effort, Failure, Met, Protocol};
pub use known::{KNOWN, Known, name_of};
pub use objects::{Object, parse};
pub use question::{Place, Question, Subject, questions};

use crate::cluster::agent_process::Agent;
use crate::control_plane::{ControlPlane, SERVICE_CIDR_V4, SERVICE_CIDR_V6};
use crate::machine::netns::{Namespace, joined};
use crate::now;
use kube_proxy::KubeProxy;
use side::{CONTROL_PLANE, Side};

/// Where the pods of both sides are.
const CLUSTER_CIDR: &str = "10.244.0.0/16,fd00:10:244::/48";

/// How long either may take to follow the API server, its start included.
const FOLLOWS_WITHIN: Duration = Duration::from_mins(2);

/// How many questions of one namespace are under way at a time.
const AT_A_TIME: usize = 16;

/// The first look.
const QUICK: Effort = Effort {
    tries: 10,
    limit: Duration::from_millis(700),
};

/// The second look at what differs in the first.
const THOROUGH: Effort = Effort {
    tries: 100,
    limit: Duration::from_secs(3),
};

/// A question that the two answer differently.
#[derive(Debug)]
pub struct Difference {
    /// What was asked.
    pub question: Question,
    /// What the referee's clients met.
    pub kube_proxy: Met,
    /// What Waggle's clients met.
    pub waggle: Met,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}:\n    kube-proxy: {}\n    waggle:     {}",
            self.question, self.kube_proxy, self.waggle
        )
    }
}

/// Both sides and what they follow.
pub struct Peers {
    // Dropped in this order: clients of the control plane before it.
    agent: Agent,
    kube_proxy: KubeProxy,
    control_plane: ControlPlane,
    waggle_side: Side,
    kube_proxy_side: Side,
    rounds: u8,
}

impl Peers {
    /// Builds both, starts the control plane, kube-proxy on one side and the agent on the other.
    pub fn start() -> Result<Self> {
        let place = Namespace::new("control-plane")?;
        place.ip(&format!(
            "link add bridge type bridge\n\
             link set bridge up\n\
             addr add {CONTROL_PLANE}/24 dev bridge"
        ))?;
        let waggle_side = Side::new(&place, "waggle", 2)?;
        let kube_proxy_side = Side::new(&place, "kube-proxy", 3)?;
        let control_plane = ControlPlane::start_in(&place, CONTROL_PLANE.parse()?)?;
        for node in waggle_side.cluster.nodes() {
            let addresses = [node.v4().to_string(), node.v6().to_string()];
            let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
            control_plane.create_node(&node.name(), &addresses)?;
        }
        control_plane.apply(ZONES)?;
        let server = control_plane.api_server();
        let node = kube_proxy_side.cluster.node(1);
        let kube_proxy = KubeProxy::start(node, server.kubeconfig(), CLUSTER_CIDR)?;
        let source = vec!["--kubeconfig".into(), server.agent_kubeconfig().into()];
        let options = vec![
            format!("--cluster-cidr={CLUSTER_CIDR}").into(),
            // The referee reads them from the API server.
            format!("--service-cidr={SERVICE_CIDR_V4},{SERVICE_CIDR_V6}").into(),
        ];
        let agent = Agent::start_with(waggle_side.cluster.node(1), source, options)?;
        Ok(Self {
            agent,
            kube_proxy,
            control_plane,
            waggle_side,
            kube_proxy_side,
            rounds: 0,
        })
    }

    /// Replaces all objects by these and waits until both sides follow; what the API server has refused.
    pub fn publish(&mut self, objects: Vec<Object>) -> Result<Vec<String>> {
        objects::delete_all(&self.control_plane)?;
        let refused = objects::create(&self.control_plane, objects)?;
        self.rounds += 1;
        let sentinel = format!("10.97.0.{}", self.rounds);
        let last = sentinel_objects(&sentinel)?;
        let said = objects::create(&self.control_plane, last)?;
        ensure!(said.is_empty(), "the last Service: {said:?}");
        let frontend = SocketAddr::new(sentinel.parse()?, 80);
        let begin = now();
        while !self.all_answer(frontend)? {
            let result = self.kube_proxy.check_alive();
            result.with_context(|| self.report())?;
            ensure!(
                begin.elapsed() < FOLLOWS_WITHIN,
                "somebody does not follow the API server\n{}",
                self.report()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(refused)
    }

    /// The Services as they are now.
    pub fn services(&self) -> Result<Vec<Service>> {
        objects::services(&self.control_plane)
    }

    /// A Service and its slices, as the API server has them.
    pub fn described(&self, service: &str) -> Result<String> {
        let mut services = self.services()?;
        services.retain(|it| it.metadata.name.as_deref() == Some(service));
        let specs: Vec<_> = services.iter().map(|it| (&it.spec, &it.status)).collect();
        let mut slices = objects::slices(&self.control_plane)?;
        let begin = format!("{service}-");
        slices.retain(|it| {
            let name = it.metadata.name.as_deref().unwrap_or_default();
            name.starts_with(&begin)
        });
        let slices: Vec<_> = slices
            .iter()
            .map(|it| (&it.address_type, &it.ports, &it.endpoints))
            .collect();
        Ok(serde_json::to_string(&(specs, slices))?)
    }

    /// All that can be asked about these Services.
    pub fn questions(&self, services: &[Service]) -> Vec<Question> {
        let node = self.waggle_side.node_addresses();
        questions(services, &node).into_iter().collect()
    }

    /// Asks both; what they answer differently and is not known, also at a second and thorough look.
    pub fn compare(&self, questions: &[Question]) -> Result<Vec<Difference>> {
        let mut open = questions.to_vec();
        let mut differences = Vec::new();
        // Those that were in no hurry may have met all by now; and a busy machine loses time.
        for effort in [QUICK, THOROUGH, THOROUGH] {
            differences = self.differences(&open, effort)?;
            differences.retain(|difference| name_of(difference).is_none());
            open = differences.iter().map(|it| it.question.clone()).collect();
        }
        Ok(differences)
    }

    fn differences(&self, questions: &[Question], effort: Effort) -> Result<Vec<Difference>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let [of_waggle, of_kube_proxy] = self.sides().map(|(_, side)| side);
        let (waggle, kube_proxy) = thread::scope(|scope| {
            let waggle = scope.spawn(|| answers(of_waggle, questions, effort));
            let kube_proxy = answers(of_kube_proxy, questions, effort);
            (joined(waggle.join()), kube_proxy)
        });
        let (mut waggle, mut kube_proxy) = (waggle?, kube_proxy?);
        let mut differences = Vec::new();
        for question in questions {
            let waggle = waggle.remove(question).unwrap_or_default();
            let kube_proxy = kube_proxy.remove(question).unwrap_or_default();
            if !agree(question, &waggle, &kube_proxy) {
                differences.push(Difference {
                    question: question.clone(),
                    kube_proxy,
                    waggle,
                });
            }
        }
        Ok(differences)
    }

    /// Whether clients of both sides meet somebody there.
    fn all_answer(&self, frontend: SocketAddr) -> Result<bool> {
        let effort = Effort {
            tries: 1,
            limit: Duration::from_millis(500),
        };
        for (_, side) in self.sides() {
            let met = side.namespace(Place::Pod)?.run(|| {
                let work = client::ask(Protocol::Tcp, frontend, effort);
                runtime()?.block_on(work)
            })?;
            if met.pods.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sides(&self) -> [(&'static str, &Side); 2] {
        [
            ("waggle", &self.waggle_side),
            ("kube-proxy", &self.kube_proxy_side),
        ]
    }

    /// What a person needs to understand a difference.
    pub fn report(&self) -> String {
        let node = self.kube_proxy_side.cluster.node(1);
        self.agent.report() + &self.kube_proxy.report(node)
    }
}

/// The nodes are in different zones.
const ZONES: &str = "
apiVersion: v1
kind: Node
metadata: {name: node1, labels: {topology.kubernetes.io/zone: zone-a}}
---
apiVersion: v1
kind: Node
metadata: {name: node2, labels: {topology.kubernetes.io/zone: zone-b}}
";

/// A Service that is made last: who serves it has seen all that came before.
fn sentinel_objects(address: &str) -> Result<Vec<Object>> {
    parse(&format!(
        "
kind: Service
apiVersion: v1
metadata: {{name: sentinel}}
spec:
  clusterIP: {address}
  ports: [{{port: 80, targetPort: 8080}}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {{name: sentinel, labels: {{kubernetes.io/service-name: sentinel}}}}
addressType: IPv4
ports: [{{name: '', port: 8080, protocol: TCP}}]
endpoints: [{{addresses: [10.244.1.11], conditions: {{ready: true}}}}]
"
    ))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// What the clients of one side meet.
fn answers(side: &Side, questions: &[Question], effort: Effort) -> Result<BTreeMap<Question, Met>> {
    let of_place = |place| -> Result<Vec<(Question, Met)>> {
        let mine = questions.iter().filter(|question| question.place == place);
        let mine: Vec<_> = mine.cloned().collect();
        side.namespace(place)?.run(|| {
            runtime()?.block_on(async {
                let mut met = Vec::new();
                for some in mine.chunks(AT_A_TIME) {
                    let asked = some.iter().map(|question| async {
                        let answer = client::ask(question.protocol, question.to, effort).await;
                        anyhow::Ok((
                            question.clone(),
                            answer.with_context(|| question.to_string())?,
                        ))
                    });
                    met.extend(futures::future::try_join_all(asked).await?);
                }
                Ok(met)
            })
        })
    };
    thread::scope(|scope| {
        let running: Vec<_> = Place::ALL
            .map(|place| scope.spawn(move || of_place(place)))
            .into_iter()
            .collect();
        let mut all = BTreeMap::new();
        for thread in running {
            all.extend(joined(thread.join())?);
        }
        Ok(all)
    })
}

/// Clients that stay with a backend meet one; which one is chance. A client that may be its own backend is seen by
/// another address then.
fn agree(question: &Question, waggle: &Met, kube_proxy: &Met) -> bool {
    if !question.is_sticky {
        return waggle == kube_proxy;
    }
    let seen = |met: &Met| -> BTreeSet<IpAddr> {
        let all = met.pods.values().flatten().copied();
        all.filter(|_| question.place != Place::Backend).collect()
    };
    let shape = |met: &Met| (met.pods.len(), met.failures.clone(), seen(met));
    shape(waggle) == shape(kube_proxy)
}
