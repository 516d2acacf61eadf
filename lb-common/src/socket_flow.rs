//! What the socket hooks remember: which frontend a socket believes it talks to.
use crate::{family::IpFamily, port::Port};

/// Key of `SOCKET_FLOWS`: a socket and the backend its datagrams or its connection really go to.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketFlowKey<F: IpFamily> {
    /// The socket's cookie as two words (`bpf_get_socket_cookie`), unique until the machine restarts.
    pub cookie: [u32; 2],
    /// The backend's address.
    pub address: F::Address,
    /// The backend's port.
    pub port: Port,
    /// Always zero: the key is compared byte by byte.
    pub spare: u16,
    /// Always zero.
    pub padding: F::Padding,
}

/// Value of `SOCKET_FLOWS`: what the program asked for.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketFlowEntry<F: IpFamily> {
    /// The frontend's address.
    pub address: F::Address,
    /// The frontend's port.
    pub port: Port,
    /// Zero.
    pub spare: u16,
    /// Always zero.
    pub padding: F::Padding,
}

impl<F: IpFamily> SocketFlowKey<F> {
    /// The socket with this cookie, talking to this backend.
    #[inline(always)]
    pub fn new(cookie: u64, address: F::Address, port: Port) -> Self {
        Self {
            cookie: bytemuck::must_cast(cookie),
            address,
            port,
            spare: 0,
            padding: F::Padding::default(),
        }
    }
}

impl<F: IpFamily> SocketFlowEntry<F> {
    /// The frontend at this address.
    #[inline(always)]
    pub fn new(address: F::Address, port: Port) -> Self {
        Self {
            address,
            port,
            spare: 0,
            padding: F::Padding::default(),
        }
    }
}
