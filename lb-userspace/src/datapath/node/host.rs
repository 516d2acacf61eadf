//! What of the node's own set-up keeps services from working, as far as it is cheap to see.
use std::{fs, process::Command};

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};

use crate::{model::Warning, netlink::Netlink};

/// Everything that is wrong with the calling thread's network namespace.
pub fn warnings() -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (key, family) in [
        ("net/ipv4/ip_forward", "IPv4"),
        ("net/ipv6/conf/all/forwarding", "IPv6"),
    ] {
        let value = fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
        if value.trim() == "0" {
            warnings.push(Warning::new(
                key.replace('/', "."),
                format!("is 0: the node forwards no {family} packets between pods and backends"),
                format!("sysctl -w {}=1", key.replace('/', ".")),
            ));
        }
    }
    let chains = dropping_chains().unwrap_or_else(|error| {
        tracing::debug!("cannot list the chains of nftables: {error}");
        Vec::new()
    });
    warnings.extend(chains.into_iter().map(|chain| drop_warning(&chain)));
    if legacy_forward_drops() {
        warnings.push(drop_warning("iptables (legacy) filter FORWARD"));
    }
    warnings
}

fn drop_warning(chain: &str) -> Warning {
    Warning::new(
        chain,
        "has the policy drop: traffic between pods and backends needs rules that accept it",
        "accept the pods' networks in that chain, or set its policy to accept",
    )
}

// linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const NETLINK_NETFILTER: isize = 12;
const NEWCHAIN: u16 = 10 << 8 | 3;
const GETCHAIN: u16 = 10 << 8 | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;
/// inet, ip, ip6: in the other families (netdev, bridge, arp) the number of the hook means something else.
const IP_FAMILIES: [u8; 3] = [1, 2, 10];

/// Chains of nftables (and of iptables-nft) on the forward hook with the policy drop.
fn dropping_chains() -> std::io::Result<Vec<String>> {
    let question = Message {
        kind: GETCHAIN,
        // struct nfgenmsg: any family, version 0, no resource.
        payload: vec![0; 4],
    };
    let dump = Netlink::open(NETLINK_NETFILTER)?.dump(question)?;
    Ok(dump.messages.iter().filter_map(dropping_chain).collect())
}

fn dropping_chain(message: &Message) -> Option<String> {
    if message.kind != NEWCHAIN || !IP_FAMILIES.contains(message.payload.first()?) {
        return None;
    }
    let (mut table, mut name, mut hook, mut policy) = (String::new(), String::new(), None, None);
    for attribute in NlasIterator::new(message.payload.get(4..)?).filter_map(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            CHAIN_TABLE => table = text(value),
            CHAIN_NAME => name = text(value),
            CHAIN_POLICY => policy = number(value),
            CHAIN_HOOK => {
                hook = NlasIterator::new(value)
                    .filter_map(Result::ok)
                    .find(|nested| nested.kind() == HOOK_NUMBER)
                    .and_then(|nested| number(nested.value()));
            }
            _ => {}
        }
    }
    (hook == Some(HOOK_FORWARD) && policy == Some(POLICY_DROP))
        .then(|| format!("nftables chain {table} {name}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\0')
        .to_owned()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The older iptables has no netlink: its own program is asked, where its table is in use at all.
fn legacy_forward_drops() -> bool {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    tables.lines().any(|table| table == "filter")
        && Command::new("iptables-legacy")
            .args(["-S", "FORWARD"])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("-P FORWARD DROP"))
}

/// A message of `NETLINK_NETFILTER`, unread.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.payload.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(&self.payload) {
            *to = *from;
        }
    }
}
impl NetlinkDeserializable for Message {
    type Error = DecodeError;
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: header.message_type,
            payload: payload.to_vec(),
        })
    }
}
