//! A Service, reduced to what decides where its packets go.
use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use lb_common::Protocol;
use serde::{Deserialize, Serialize};

use crate::model::{Family, ServiceName, Warning};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Its uid, which no other object ever has; empty if nobody gave it one.
    pub uid: String,
    /// When it was made.
    pub created: Created,
    /// Its type. Whatever it is, the cluster addresses are served.
    pub kind: ServiceType,
    /// Its cluster addresses: none or one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// From where `balancer_ips` may be dialled, if not from everywhere (`loadBalancerSourceRanges`). None of a family: from
    /// everywhere, in that family; none at all: from nowhere.
    pub source_ranges: Option<Vec<IpNet>>,
    /// Addresses of load balancers that leave packets as they are (`ipMode: VIP`). None twice.
    pub balancer_ips: Vec<IpAddr>,
    /// `externalIPs`: somebody else brings packets to them here. None twice.
    pub external_ips: Vec<IpAddr>,
    /// Its ports. Each has been checked: no port is zero, no protocol is one that is not translated.
    pub ports: Vec<ServicePort>,
    /// Why this Service is none of ours, if it is not.
    pub not_served: Option<NotServed>,
    /// Which endpoints serve clients that dial its cluster address.
    pub internal_policy: TrafficPolicy,
    /// Which endpoints serve clients that dial a node port, `balancer_ips` or `external_ips`.
    pub external_policy: TrafficPolicy,
    /// How long after its last new flow a client goes back to the backend it had (`sessionAffinity: ClientIP`); zero: it
    /// does not.
    pub affinity_seconds: u32,
    /// Where its load balancer asks nodes whether they have endpoints of it: only with the external policy `Local`.
    pub health_check_port: Option<u16>,
    /// What was left out of it.
    pub warnings: Vec<Warning>,
}

impl Service {
    /// Its cluster address of a family.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.cluster_ips.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }

    /// From where `balancer_ips` of a family may be dialled; `None` is from everywhere. (As kube-proxy has it: prefixes of
    /// one family say nothing of the other.)
    pub fn ranges(&self, family: Family) -> Option<BTreeSet<IpNet>> {
        let ranges = self.source_ranges.as_ref()?;
        let of_family = ranges.iter().filter(|it| Family::of(it.addr()) == family);
        let of_family: BTreeSet<IpNet> = of_family.copied().collect();
        (ranges.is_empty() || !of_family.is_empty()).then_some(of_family)
    }
}

/// When a Service was made: older ones come first, and those of which nobody knows last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Created {
    /// At this second since 1970.
    At(i64),
    /// It does not say so.
    #[default]
    Unknown,
}

/// How a Service wants to be reached: each type has what those before it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// At an address inside the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// At a port of every node.
    NodePort,
    /// At an address of a load balancer.
    LoadBalancer,
    /// Not at all: a DNS alias.
    ExternalName,
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        })
    }
}

/// Which endpoints of a Service may be used (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficPolicy {
    /// All, or those that are meant for the client's place.
    #[default]
    Cluster,
    /// Those on the client's own node, and none if it has none.
    Local,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if it has none.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What clients dial, 1 to 65535.
    pub port: u16,
    /// What clients dial at a node's address, if it has one.
    pub node_port: Option<u16>,
}

/// Why a Service gets no frontends, though nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// `clusterIP: None`: clients find the pods through DNS.
    Headless,
    /// `type: ExternalName`: a DNS alias.
    ExternalName,
    /// The label `service.kubernetes.io/service-proxy-name` gives it to another proxy.
    OtherProxy,
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Headless => "headless",
            Self::ExternalName => "ExternalName",
            Self::OtherProxy => {
                "left to another proxy by its label service.kubernetes.io/service-proxy-name"
            }
        })
    }
}
