//! What flags say of the node. `waggle run` serves by it.
use std::{fmt, net::IpAddr, str::FromStr};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use lb_common::networks::SERVICE_PREFIXES;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::period::as_text;
use crate::model::{DetectLocal, Family, NodePortAddresses, Place};

/// The node as given: what is `None` or empty was not given and has its default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOptions {
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Zone of the node, if its Node object does not name one. Endpoints with hints for a zone are selected by it
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// The node's own address; the first one of each family is the primary address. Addresses of the Node object take
    /// precedence
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    #[serde(
        default,
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub node_ip: Vec<Address>,

    /// Prefixes of pod addresses, one per family, separated by a comma. Clients from elsewhere that connect to a
    /// ClusterIP are masqueraded, and the policy `Local` does not apply to pods that connect to an external address
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    #[serde(
        default,
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cluster_cidr: Vec<Prefix>,

    /// Prefix from which ClusterIPs are allocated, in addition to those of ServiceCIDR objects; can be repeated, at
    /// most four per family. Packets to addresses in it that no Service has are dropped
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    #[serde(
        default,
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_cidr: Vec<Prefix>,

    /// Addresses that serve node ports, separated by commas: prefixes, which select the node's addresses within them,
    /// and the words `primary` (the node's own address of each family), `localhost` (127.0.0.1 and `::1`, for
    /// processes of the node) and `all` (all addresses of its devices except loopback) [default: primary]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    #[serde(
        default,
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nodeport_addresses: Vec<NodePortAddresses>,

    /// Masquerade all connections to ClusterIPs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade_all: Option<bool>,

    /// How pods are told from other senders, see --cluster-cidr [default: `ClusterCIDR`]
    #[arg(long, value_enum, ignore_case = true, value_name = "MODE")]
    pub detect_local_mode: Option<DetectLocalMode>,

    /// Bridge of the pods of this node, for --detect-local-mode `BridgeInterface`
    #[arg(long, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,

    /// Prefix of the names of pod interfaces on this node, for --detect-local-mode `InterfaceNamePrefix`
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,

    /// Do not serve externalIPs of Services: anybody who can write a Service can redirect traffic with them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ignore_external_ips: Option<bool>,
}

/// How pods of this node are told from other senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DetectLocalMode {
    /// Addresses within --cluster-cidr
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// Addresses within the podCIDRs of the Node
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// Packets from the bridge --pod-bridge-interface
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// Packets from devices with the prefix --pod-interface-name-prefix
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
    /// Pods are not told from other senders
    #[value(name = "None")]
    None,
}

impl NodeOptions {
    /// --node-name, else the host name.
    pub fn node_name(&self) -> String {
        self.node_name.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
    }

    /// The node as far as it is known without its Node object and without a look at its devices.
    ///
    /// # Errors
    /// If options contradict each other, or one needs another that was not given.
    pub fn place(&self) -> anyhow::Result<Place> {
        let cluster_cidrs: Vec<IpNet> = self.cluster_cidr.iter().map(|it| it.0).collect();
        for family in Family::ALL {
            let mut of_family = cluster_cidrs.iter();
            let mut of_family = of_family
                .by_ref()
                .filter(|it| Family::of(it.addr()) == family);
            if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
                bail!(
                    "--cluster-cidr (clusterCidr) has two {family} prefixes, {first} and {second}: give one of each family"
                );
            }
        }
        for family in Family::ALL {
            let service_cidrs = self.service_cidr.iter();
            let count = service_cidrs
                .filter(|it| Family::of(it.0.addr()) == family)
                .count();
            if count > SERVICE_PREFIXES {
                bail!(
                    "--service-cidr (serviceCidr) has {count} {family} prefixes: give at most {SERVICE_PREFIXES}, or one that holds several"
                );
            }
        }
        let is_nobodys =
            |it: &&IpAddr| it.is_unspecified() || it.is_multicast() || it.is_loopback();
        if let Some(address) = self.node_ip.iter().map(|it| &it.0).find(is_nobodys) {
            bail!(
                "--node-ip (nodeIp) {address} is no address of a node: name one that others reach it by"
            );
        }
        for services in self.service_cidr.iter().map(|it| it.0) {
            let overlaps = |pods: &&IpNet| pods.contains(&services) || services.contains(*pods);
            if let Some(pods) = cluster_cidrs.iter().find(overlaps) {
                bail!(
                    "--service-cidr (serviceCidr) {services} and --cluster-cidr (clusterCidr) {pods} overlap: what is for pods would be dropped as for Services that there are not"
                );
            }
        }
        let needed = |given: &Option<String>, mode: DetectLocalMode, option: &str| {
            let given = given.clone().filter(|it| !it.is_empty());
            given.with_context(|| format!("--detect-local-mode {mode} needs {option}"))
        };
        let mode = self
            .detect_local_mode
            .unwrap_or(DetectLocalMode::ClusterCidr);
        let detect_local = match mode {
            DetectLocalMode::ClusterCidr => DetectLocal::ClusterCidr,
            DetectLocalMode::NodeCidr => DetectLocal::NodeCidr,
            DetectLocalMode::BridgeInterface => DetectLocal::Bridge(needed(
                &self.pod_bridge_interface,
                mode,
                "--pod-bridge-interface (podBridgeInterface), the bridge's name",
            )?),
            DetectLocalMode::InterfaceNamePrefix => DetectLocal::InterfacePrefix(needed(
                &self.pod_interface_name_prefix,
                mode,
                "--pod-interface-name-prefix (podInterfaceNamePrefix), how their names begin",
            )?),
            DetectLocalMode::None => DetectLocal::None,
        };
        Ok(Place {
            node: self.node_name(),
            zone: self.zone.clone(),
            addresses: self.node_ip.iter().map(|it| it.0).collect(),
            cluster_cidrs,
            service_cidrs: self.service_cidr.iter().map(|it| it.0).collect(),
            nodeport_addresses: self.nodeport_addresses.clone(),
            masquerade_all: self.masquerade_all.unwrap_or(false),
            detect_local,
            ignore_external_ips: self.ignore_external_ips.unwrap_or(false),
            ..Place::default()
        })
    }
}

/// An address, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpAddr);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().map(Self);
        address
            .ok()
            .ok_or_else(|| format!("`{text}` is no address: write one as 192.0.2.1 or 2001:db8::1"))
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prefix, as people write it; bits beyond its length do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpNet);

impl FromStr for Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let prefix = text.parse::<IpNet>().map(|prefix| Self(prefix.trunc()));
        prefix.ok().ok_or_else(|| {
            format!("`{text}` is no prefix: write an address and a length, as 10.244.0.0/16 or fd00:10:244::/56")
        })
    }
}
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodePortAddresses {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "primary" => Self::Primary,
            "localhost" => Self::Localhost,
            "all" => Self::All,
            _ => {
                let prefix = text.parse::<Prefix>().ok().ok_or_else(|| {
                    format!(
                        "`{text}` says nothing of addresses: write primary, localhost, all, or a prefix as 192.0.2.0/24"
                    )
                })?;
                Self::Within(prefix.0)
            }
        })
    }
}
impl fmt::Display for NodePortAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.pad("primary"),
            Self::Localhost => f.pad("localhost"),
            Self::All => f.pad("all"),
            Self::Within(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for DetectLocalMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, true)
            .ok()
            .ok_or_else(|| {
                let modes: Vec<String> =
                    Self::value_variants().iter().map(Self::to_string).collect();
                format!("`{text}` is no mode: write one of {}", modes.join(", "))
            })
    }
}
impl fmt::Display for DetectLocalMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

as_text!([] Address, [] Prefix, [] NodePortAddresses, [] DetectLocalMode);

/// A list in the file: as one, or as a text with commas.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        List(Vec<String>),
    }
    let written = match Written::deserialize(deserializer)? {
        Written::Text(text) => text.split(',').map(str::to_owned).collect(),
        Written::List(list) => list,
    };
    let words = written
        .iter()
        .map(|word| word.trim())
        .filter(|word| !word.is_empty());
    words
        .map(|word| word.parse().map_err(D::Error::custom))
        .collect()
}

#[cfg(test)]
mod tests;
