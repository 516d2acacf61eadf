//! Several conversations of one client port: Linux gives it to several destinations at the same time.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::expect::udp_socket;
use crate::machine::netns::Namespace;
use crate::packets::socket_option::connect_from;
use crate::traffic::client::http_get_on;
use crate::traffic::udp::{any_like, exchange};

/// Two connections from one port, used in turn.
pub fn talk_over_tcp(client: &Namespace, port: u16, frontends: [SocketAddr; 2]) -> Result<()> {
    client.run(|| {
        let connect = |to: SocketAddr| -> Result<TcpStream> {
            let stream = connect_from(port, to)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(stream)
        };
        let mut streams = [connect(frontends[0])?, connect(frontends[1])?];
        for round in 0..5 {
            for (stream, frontend) in streams.iter_mut().zip(frontends) {
                http_get_on(stream, true)
                    .with_context(|| format!("round {round} at {frontend} from port {port}"))?;
            }
        }
        Ok(())
    })
}

/// Datagrams of one socket to all frontends in turn.
pub fn talk_over_udp(client: &Namespace, port: u16, frontends: &[SocketAddr]) -> Result<()> {
    client.run(|| {
        let socket = udp_socket(any_like(frontends[0], port))?;
        for round in 0..5 {
            for frontend in frontends {
                let answer = exchange(&socket, *frontend, &format!("{round} {frontend}"))?
                    .with_context(|| format!("no answer from {frontend} to port {port}"))?;
                ensure!(answer.from == *frontend, "{frontend}: {answer:?}");
            }
        }
        Ok(())
    })
}

/// Connections from one port, one after the other: each is closed before the next is opened.
pub fn talk_in_turn(client: &Namespace, port: u16, destinations: &[SocketAddr]) -> Result<()> {
    client.run(|| {
        for (number, destination) in destinations.iter().enumerate() {
            let mut stream = connect_from(port, *destination)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            http_get_on(&mut stream, false)
                .with_context(|| format!("connection {number} from {port} to {destination}"))?;
        }
        Ok(())
    })
}
