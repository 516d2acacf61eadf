//! What is asked of both sides: who asks, by which protocol, for what.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::client::Protocol;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A pod of the node that is nobody's backend.
    Pod,
    /// A pod of the node that is a backend of many.
    Backend,
    /// Another machine.
    Outside,
    /// A process of the node.
    Host,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pod, Self::Backend, Self::Outside, Self::Host];
}

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A port of a cluster address.
    ClusterAddress,
    /// A port that a cluster address does not have.
    UnknownPort,
    /// An address of a load balancer, or an external one.
    ExternalAddress,
    /// A node port.
    NodePort,
    /// An address from which Services get theirs, and which none has.
    Unallocated,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Who asks.
    pub place: Place,
    /// By which protocol.
    pub protocol: Protocol,
    /// For what.
    pub to: SocketAddr,
    /// What that is.
    pub subject: Subject,
    /// The Service that has it.
    pub service: String,
    /// Whether the clients of this Service port stay with a backend.
    pub is_sticky: bool,
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} asks by {:?} for {} ({:?} of {})",
            self.place, self.protocol, self.to, self.subject, self.service
        )
    }
}

/// A port that no Service here has.
const NO_PORT: u16 = 4444;

/// Addresses of the API server's ranges that no Service here has.
const UNALLOCATED: [&str; 2] = ["10.96.250.250:80", "[fd00:10:96::fafa]:80"];

/// Everything that can be asked about Services on a node with these addresses.
pub fn questions(services: &[Service], node: &[IpAddr]) -> BTreeSet<Question> {
    let mut questions = BTreeSet::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let spec = service.spec.clone().unwrap_or_default();
        let is_sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let cluster = addresses(spec.cluster_ips.iter().flatten());
        let mut others = addresses(spec.external_ips.iter().flatten());
        let balancer = service.status.clone().unwrap_or_default().load_balancer;
        let ingress = balancer.and_then(|balancer| balancer.ingress);
        others.extend(addresses(
            ingress.iter().flatten().filter_map(|one| one.ip.as_ref()),
        ));
        let mut add = |protocol, to, subject| {
            questions.extend(of_all_places(protocol, to, subject, name, is_sticky));
        };
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = protocol(port) else {
                continue;
            };
            let number = u16::try_from(port.port).unwrap_or_default();
            for address in &cluster {
                add(protocol, (*address, number).into(), Subject::ClusterAddress);
                add(protocol, (*address, NO_PORT).into(), Subject::UnknownPort);
            }
            for address in &others {
                add(
                    protocol,
                    (*address, number).into(),
                    Subject::ExternalAddress,
                );
            }
            let node_port = u16::try_from(port.node_port.unwrap_or_default()).unwrap_or_default();
            if node_port != 0 {
                for address in node {
                    add(protocol, (*address, node_port).into(), Subject::NodePort);
                }
            }
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for to in UNALLOCATED {
            let Ok(to) = to.parse() else { continue };
            questions.extend(of_all_places(
                protocol,
                to,
                Subject::Unallocated,
                "none",
                false,
            ));
        }
    }
    questions
}

fn of_all_places(
    protocol: Protocol,
    to: SocketAddr,
    subject: Subject,
    service: &str,
    is_sticky: bool,
) -> [Question; 4] {
    Place::ALL.map(|place| Question {
        place,
        protocol,
        to,
        subject,
        service: service.to_owned(),
        is_sticky,
    })
}

fn protocol(port: &ServicePort) -> Option<Protocol> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// Those that can be read; `None` of a headless Service is none.
fn addresses(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<IpAddr> {
    let texts = texts.into_iter();
    texts
        .filter_map(|text| text.as_ref().parse().ok())
        .collect()
}
