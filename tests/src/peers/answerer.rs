//! What runs in the pods: servers that tell who they are and whom they see.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use crate::machine::netns::Namespace;

/// Answers at TCP and UDP ports of both families with `<name> <address of the client>`.
#[derive(Debug)]
pub(super) struct Answerer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Answerer {
    /// Starts it in a namespace; it listens when this returns.
    pub(super) fn start(namespace: &Namespace, name: &str, ports: &[u16]) -> Result<Self> {
        // The wildcard of IPv6 takes IPv4 as well.
        let at = |port: &u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        let sockets = namespace.run(|| {
            let mut sockets = Vec::new();
            for address in ports.iter().map(at) {
                let tcp = TcpListener::bind(address).with_context(|| format!("tcp {address}"))?;
                let udp = UdpSocket::bind(address).with_context(|| format!("udp {address}"))?;
                tcp.set_nonblocking(true)?;
                udp.set_nonblocking(true)?;
                sockets.push((tcp, udp));
            }
            Ok(sockets)
        })?;
        let (stop, stopped) = oneshot::channel::<()>();
        let name = name.to_owned();
        let thread = namespace.start(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build()?;
            runtime.block_on(async {
                for (tcp, udp) in sockets {
                    let tcp = tokio::net::TcpListener::from_std(tcp)?;
                    let udp = tokio::net::UdpSocket::from_std(udp)?;
                    drop(tokio::spawn(answer_connections(tcp, name.clone())));
                    drop(tokio::spawn(answer_datagrams(udp, name.clone())));
                }
                // An error means that the owner is gone, which is the same wish.
                drop(stopped.await);
                Ok(())
            })
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(name: &str, client: SocketAddr) -> String {
    format!("{name} {}", client.ip().to_canonical())
}

async fn answer_connections(listener: tokio::net::TcpListener, name: String) {
    loop {
        // A client that is gone already is no reason to stop.
        if let Ok((stream, client)) = listener.accept().await {
            // A new connection has room for so little.
            drop(stream.try_write(answer(&name, client).as_bytes()));
        }
    }
}

async fn answer_datagrams(socket: tokio::net::UdpSocket, name: String) {
    let mut buffer = [0; 64];
    loop {
        if let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            drop(
                socket
                    .send_to(answer(&name, client).as_bytes(), client)
                    .await,
            );
        }
    }
}
