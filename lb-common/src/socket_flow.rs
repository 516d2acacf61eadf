//! What the socket hooks remember: which frontend a socket believes it talks to.
use crate::{family::IpFamily, port::Port};

/// Key of `SOCKET_FLOWS`: a socket and the backend its datagrams or its connection really go to.
#[repr(C)]
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
}

/// Value of `SOCKET_FLOWS`: what the program asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketFlowEntry<F: IpFamily> {
    /// The frontend's address.
    pub address: F::Address,
    /// The frontend's port.
    pub port: Port,
    /// Zero.
    pub spare: u16,
}
