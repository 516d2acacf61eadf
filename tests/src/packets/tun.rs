//! A pod joined to its node by a wire in this process: a tun or tap device at each end and a thread
//! for each direction. It makes packets that no veth makes: without Ethernet, or in pieces.
#![expect(
    unsafe_code,
    reason = "the ioctl that makes a tun device has no safe wrapper"
)]

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, poll};

use crate::machine::netns::{Namespace, joined};

/// How often a relay looks whether it should end, in milliseconds.
const TICK: u8 = 50;

/// `struct virtio_net_hdr` without the field for merged buffers.
const VIRTIO_HEADER: usize = 10;

/// How many bytes of a long packet the kernel is asked to keep in one piece: not even an IP header
/// with its ports.
const HEAD: u8 = 20;

/// What the node's end of a wire is, and how packets come out of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireKind {
    /// A device without Ethernet: packets begin with the IP header.
    PlainIp,
    /// The same; of packets longer than a page only the first 20 bytes are linear.
    PlainIpInPieces,
    /// A tap device whose packets come as Ethernet header, and fragments of a few bytes
    /// (`IFF_NAPI_FRAGS`).
    EthernetInPieces,
}

impl WireKind {
    /// Whether there is no link layer, so no neighbours to resolve.
    pub fn is_plain_ip(self) -> bool {
        self != Self::EthernetInPieces
    }

    /// (flags of the node's device, of the pod's)
    fn flags(self) -> (i32, i32) {
        let (tun, tap) = (
            libc::IFF_TUN | libc::IFF_NO_PI,
            libc::IFF_TAP | libc::IFF_NO_PI,
        );
        match self {
            Self::PlainIp => (tun, tun),
            Self::PlainIpInPieces => (tun | libc::IFF_VNET_HDR, tun),
            Self::EthernetInPieces => (tap | libc::IFF_NAPI | libc::IFF_NAPI_FRAGS, tap),
        }
    }
}

/// A wire; dropping it takes both devices away.
#[derive(Debug)]
pub struct Wire {
    stop: Arc<AtomicBool>,
    relays: Vec<JoinHandle<Result<()>>>,
}

impl Wire {
    /// Makes the device `on_node` in `node` and `eth0` in `pod`, and relays between them.
    pub fn lay(node: &Namespace, on_node: &str, pod: &Namespace, kind: WireKind) -> Result<Self> {
        let (node_flags, pod_flags) = kind.flags();
        let node_end = Arc::new(node.run(|| device(on_node, node_flags))?);
        let pod_end = Arc::new(pod.run(|| device("eth0", pod_flags))?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut relays = Vec::new();
        for is_from_pod in [true, false] {
            let stop = Arc::clone(&stop);
            let (node_end, pod_end) = (Arc::clone(&node_end), Arc::clone(&pod_end));
            relays.push(node.start(move || {
                if is_from_pod {
                    relay(&pod_end, &stop, |packet| {
                        send_to_node(&node_end, kind, packet)
                    })
                } else {
                    relay(&node_end, &stop, |packet| {
                        send_to_pod(&pod_end, kind, packet)
                    })
                }
            })?);
        }
        Ok(Self { stop, relays })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for relay in self.relays.drain(..) {
            if let Err(error) = joined(relay.join()) {
                crate::machine::require::print(&format!("a wire broke: {error:#}\n"));
            }
        }
    }
}

/// Makes a device in the namespace of the calling thread.
fn device(name: &str, flags: i32) -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun");
    let file = file.context("open /dev/net/tun")?;
    // SAFETY: all zeroes is a valid ifreq: a name, and a union of integers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte of the name stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags)?;
    let request: *const libc::ifreq = &raw const request;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request) };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("make tun device {name} with flags {flags:#x}"));
    }
    Ok(file)
}

/// Hands each packet of `from` to `send` until told to stop.
fn relay(
    mut from: &File,
    stop: &AtomicBool,
    mut send: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, TICK)? == 0 {
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(count) => count,
            // The device is down: not set up yet, or its namespace is going.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            // The device is deleted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Ok(()),
            Err(error) => return Err(error).context("read from a wire"),
        };
        match send(buffer.get(..count).unwrap_or_default()) {
            Ok(()) => {}
            // As on a wire, what the other end cannot take is lost.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EIO | libc::EBADFD | libc::ENOBUFS | libc::EINVAL | libc::ENOMEM)
                ) => {}
            Err(error) => return Err(error).context("write to a wire"),
        }
    }
    Ok(())
}

fn send_to_pod(mut pod: &File, kind: WireKind, packet: &[u8]) -> std::io::Result<()> {
    let skipped = if kind == WireKind::PlainIpInPieces {
        VIRTIO_HEADER
    } else {
        0
    };
    pod.write_all(packet.get(skipped..).unwrap_or_default())
}

fn send_to_node(mut node: &File, kind: WireKind, packet: &[u8]) -> std::io::Result<()> {
    match kind {
        WireKind::PlainIp => node.write_all(packet),
        WireKind::PlainIpInPieces => {
            let mut header = [0; VIRTIO_HEADER];
            // hdr_len, little endian, at offset 2.
            header[2] = HEAD;
            let parts = [IoSlice::new(&header), IoSlice::new(packet)];
            node.write_vectored(&parts).map(drop)
        }
        WireKind::EthernetInPieces => {
            // Ethernet; half an IP header; the rest of it and some ports; the remainder by pages.
            let mut parts = Vec::new();
            let mut rest = packet;
            for length in [14, 7, 15, 9] {
                let (part, others) = rest.split_at(length.min(rest.len()));
                parts.push(part);
                rest = others;
            }
            parts.extend(rest.chunks(4096));
            let parts: Vec<_> = parts
                .into_iter()
                .filter(|part| !part.is_empty())
                .map(IoSlice::new)
                .collect();
            node.write_vectored(&parts).map(drop)
        }
    }
}
