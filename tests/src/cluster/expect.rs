//! What tests expect of a Service: exactly its backends answer, under the frontend's address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::service_cluster::{ServingPod, answer_of};
use crate::cluster::topology::Node;
use crate::machine::netns::Namespace;
use crate::traffic::client::{http_gets, requests_to_meet_all};
use crate::traffic::udp::{UdpAnswer, any_like, exchange};

/// How long a datagram and its answer may take on a busy machine.
pub const UDP_LIMIT: Duration = Duration::from_secs(10);

/// Over new TCP connections from `namespace`, exactly `pods` answer at `frontend`.
pub fn tcp_meets_exactly(
    namespace: &Namespace,
    frontend: SocketAddr,
    pods: &[&ServingPod],
) -> Result<()> {
    let answers = http_gets(namespace, frontend, requests_to_meet_all(pods.len()))
        .with_context(|| format!("TCP from {}", namespace.name()))?;
    let met: BTreeSet<String> = answers.keys().cloned().collect();
    let wanted = pods
        .iter()
        .map(|pod| answer_of(&pod.pod, frontend))
        .collect();
    ensure!(
        met == wanted,
        "TCP from {} to {frontend} met {met:?} in place of {wanted:?}",
        namespace.name()
    );
    Ok(())
}

/// From new UDP sockets in `namespace`, exactly `pods` answer at `frontend`, and answers come from
/// the frontend's address. Returns the client addresses the servers saw.
pub fn udp_meets_exactly(
    namespace: &Namespace,
    frontend: SocketAddr,
    pods: &[&ServingPod],
) -> Result<BTreeSet<IpAddr>> {
    let mut met = BTreeSet::new();
    let mut seen_as = BTreeSet::new();
    for number in 0..requests_to_meet_all(pods.len()) {
        let answer = ask_udp(namespace, frontend, &number.to_string())?;
        met.insert(answer.pod);
        seen_as.insert(answer.seen_as.parse()?);
    }
    let wanted: BTreeSet<String> = pods.iter().map(|pod| pod.pod.name.clone()).collect();
    ensure!(
        met == wanted,
        "UDP from {} to {frontend} met {met:?} in place of {wanted:?}",
        namespace.name()
    );
    Ok(seen_as)
}

/// One datagram from a new socket, and its answer, which must come from the frontend.
pub fn ask_udp(namespace: &Namespace, frontend: SocketAddr, text: &str) -> Result<UdpAnswer> {
    let answer = namespace.run(|| {
        let socket = udp_socket(any_like(frontend, 0))?;
        exchange(&socket, frontend, text)
    })?;
    let answer = answer
        .with_context(|| format!("no answer to UDP from {} to {frontend}", namespace.name()))?;
    ensure!(
        answer.from == frontend,
        "the answer of {frontend} came from {}",
        answer.from
    );
    Ok(answer)
}

/// A bound UDP socket that waits [`UDP_LIMIT`] for answers; call it inside a namespace.
pub fn udp_socket(bind: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    socket.set_read_timeout(Some(UDP_LIMIT))?;
    Ok(socket)
}

/// The node's own address of each family.
pub fn addresses_of(node: &Node) -> [IpAddr; 2] {
    [node.v4().into(), node.v6().into()]
}

/// Whom the pods take for their client, asked by HTTP over a new connection.
pub fn seen_as(namespace: &Namespace, frontend: SocketAddr) -> Result<IpAddr> {
    let url = format!("http://{frontend}/peer");
    let arguments = ["-sSf", "--max-time", "10", "--noproxy", "*", &url];
    Ok(namespace.output("curl", &arguments)?.trim().parse()?)
}

/// Whether a client address is one of the node's own, as a masquerade makes it.
pub fn is_address_of(node: &Node, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = node.gateway_v4().octets();
            let tunnel = [a, b, c, 0].into();
            [node.v4(), node.gateway_v4(), tunnel].contains(&address)
        }
        IpAddr::V6(address) => {
            let mut tunnel = node.gateway_v6().segments();
            tunnel[7] = 0;
            [node.v6(), node.gateway_v6(), tunnel.into()].contains(&address)
        }
    }
}
