//! Connections that nobody knows, or whose pod is gone for good, are reset: clients learn at once what kube-proxy's clients
//! learn, and do not wait for minutes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, WEB_V4, WEB_V6, address, pod_object, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::now;
use tests::packets::dissect::{
    TCP,
    flag::{ACK, RST, SYN},
};
use tests::packets::packet_builder::ip;
use tests::packets::socket_option::imagine_connection;
use tests::traffic::client::http_get_on;

/// A reset is an answer: it comes at once, but for what the client waits before it sends again.
const PATIENCE: Duration = Duration::from_secs(10);
const NODE_PORT: u16 = 30_080;

/// The Service `web` at a node port as well.
fn add_door(cluster: &mut ServiceCluster) -> Result<()> {
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT}}}
"
    );
    cluster.state.apply("service-door", &service)
}

fn start(cluster: &mut ServiceCluster) -> Result<ServingPod> {
    add_door(cluster)?;
    let pod = cluster.add_serving_pod(2, "pod", 2)?;
    cluster.start_agents(&[&pod])?;
    Ok(pod)
}

/// What the system says of a connection that is used.
fn use_of(stream: &mut TcpStream) -> Result<ErrorKind> {
    stream.set_read_timeout(Some(PATIENCE))?;
    if let Err(error) = stream.write_all(b"GET / HTTP/1.1\r\n\r\n") {
        return Ok(error.kind());
    }
    let read = stream.read(&mut [0; 100]);
    Ok(read.err().context("somebody answered")?.kind())
}

/// A connection that was never made, to each of these.
fn imagined_connections_are_reset(client: &Namespace, frontends: &[SocketAddr]) -> Result<()> {
    for frontend in frontends {
        let kind = client.run(|| use_of(&mut imagine_connection(*frontend)?))?;
        ensure!(
            matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{frontend}: {kind:?}"
        );
    }
    Ok(())
}

fn a_connection_that_nobody_knows_is_reset_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        let _pod = start(cluster)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let node = cluster.cluster.node(1);
        let at_node = |address: IpAddr| SocketAddr::new(address, NODE_PORT);
        let web = [address(WEB_V4)?, address(WEB_V6)?];
        imagined_connections_are_reset(&client.namespace, &web)?;
        let doors = [at_node(node.v4().into()), at_node(node.v6().into())];
        imagined_connections_are_reset(&cluster.cluster.outside, &doors)
    })
}

#[test]
fn a_connection_that_nobody_knows_is_reset() -> Result<()> {
    a_connection_that_nobody_knows_is_reset_over(PodNetwork::Routed)
}

#[test]
fn a_bridged_pods_connection_that_nobody_knows_is_reset() -> Result<()> {
    a_connection_that_nobody_knows_is_reset_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

/// The pod's network is cut, so that its kernel cannot reset anything; then another pod has its address.
#[test]
fn a_connection_to_a_pod_that_is_gone_for_good_is_reset() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = start(cluster)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let node = cluster.cluster.node(1);
        let door = SocketAddr::new(node.v4().into(), NODE_PORT);
        let clients = [
            (&client.namespace, address(WEB_V4)?),
            (&client.namespace, address(WEB_V6)?),
            (&cluster.cluster.outside, door),
        ];
        let mut streams = Vec::new();
        for (namespace, frontend) in clients {
            streams.push(namespace.run(|| {
                let mut stream = TcpStream::connect(frontend)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                http_get_on(&mut stream, true)?;
                Ok(stream)
            })?);
        }
        pod.pod.namespace.ip("link set eth0 down")?;
        cluster.state.delete_pod("pod")?;
        cluster.wait_for(&[])?;
        // Another pod has its address, so it is gone for good.
        let mut heir = pod_object(&pod.pod, &[("app", "web")]);
        heir.name = "heir".to_owned();
        cluster.state.add_pod(&heir)?;
        cluster.wait_for(&[&pod])?;
        let begin = now();
        for mut stream in streams {
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            let kind = loop {
                ensure!(begin.elapsed() < Duration::from_mins(1), "no reset");
                let sent = stream.write_all(b"x").err();
                let failure = sent.or_else(|| stream.read(&mut [0; 100]).err());
                match failure.map(|error| error.kind()) {
                    Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    kind => break kind,
                }
            };
            ensure!(
                matches!(
                    kind,
                    Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
                ),
                "{kind:?}"
            );
        }
        Ok(())
    })
}

/// Sends a segment with somebody else's source address, from where a stranger is.
fn forge(stranger: &Namespace, client: SocketAddr, to: SocketAddr, flags: u8) -> Result<()> {
    let segment = ip()
        .between(TCP, client, to)
        .flags(flags)
        .sequence(4711)
        .build();
    stranger.run(|| {
        // Of such sockets the header is the sender's own.
        let socket = Socket::new(
            Domain::for_address(to),
            Type::RAW,
            Some(Protocol::from(255)),
        )?;
        socket.send_to(&segment, &SocketAddr::new(to.ip(), 0).into())?;
        Ok(())
    })
}

/// A pod beside the client sends a reset and a SYN in its name, as it would with every port if it did not know the right one.
#[test]
fn a_stranger_who_speaks_in_a_clients_name_cuts_none_of_its_connections() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = [
            cluster.add_serving_pod(1, "near", 2)?,
            cluster.add_serving_pod(2, "far", 2)?,
        ];
        cluster.start_agents(&pods.iter().collect::<Vec<_>>())?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let stranger = cluster.cluster.add_pod(1, "stranger", 10)?;
        let mut streams = Vec::new();
        for frontend in [WEB_V4, WEB_V6] {
            let frontend = address(frontend)?;
            for _ in 0..8 {
                streams.push(client.namespace.run(|| {
                    let mut stream = TcpStream::connect(frontend)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    http_get_on(&mut stream, true)?;
                    Ok((stream, frontend))
                })?);
            }
        }
        for flags in [RST, SYN, RST | ACK, SYN] {
            for (stream, frontend) in &streams {
                forge(&stranger.namespace, stream.local_addr()?, *frontend, flags)?;
            }
        }
        for (stream, frontend) in &mut streams {
            let answer = http_get_on(stream, true);
            ensure!(answer.is_ok(), "{frontend}: {answer:?}");
        }
        Ok(())
    })
}
