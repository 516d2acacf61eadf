//! What is fixed when the programs are loaded: a read-only global, so that the verifier sees constants.
use bytemuck::{Pod, Zeroable};

/// The name of the agent's threads that ask the API server. TCP connections of threads with this name are not translated,
/// but for those to a `ClusterIP`: a node port or a load balancer's address equal to the API server's address and port would
/// cut the agent off from the news that it is gone. (At most 15 bytes: `TASK_COMM_LEN`.)
pub const API_THREAD: &str = "waggle-api";

/// [`API_THREAD`] as the kernel has it: padded with zeroes.
#[must_use]
pub const fn api_thread_words() -> [u64; 2] {
    const fn word(name: &[u8], start: usize) -> u64 {
        let (mut bytes, mut at) = ([0; 8], 0);
        while at < bytes.len() && start + at < name.len() {
            bytes[at] = name[start + at];
            at += 1;
        }
        u64::from_ne_bytes(bytes)
    }
    let name = API_THREAD.as_bytes();
    [word(name, 0), word(name, 8)]
}

/// The name of the global in the object.
pub const CONFIG_SYMBOL: &str = "CONFIG";

/// The node's constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DatapathConfig {
    /// Cookie of the node's own network namespace (`SO_NETNS_COOKIE`): socket hooks act for its processes alone.
    pub netns_cookie: u64,
    /// How many jiffies make a second (the kernel's HZ).
    pub jiffies_per_second: u32,
    /// One event is written for so many happenings of a kind on a CPU; a power of two. Of drops, besides, the first after a
    /// second without an event. Zero: none.
    pub event_sample: u32,
    /// How many UDP flows of one client may move to FLOWS within [`UDP_WINDOW_SECONDS`]. A client is an IPv4 address, or
    /// an IPv6 network of 64 bits: within it a host takes whatever address it likes (RFC 4291, section 2.5.4).
    pub udp_flows_per_client: u32,
    /// How many entries of each FLOWS UDP flows may take: what is left is for connections, whose clients have proven
    /// that they receive.
    pub udp_flow_entries: u32,
    /// Not zero: this processor may read in another order than the program says (arm64 does, x86 does not).
    pub reorders_reads: u32,
    /// Zero.
    pub spare: u32,
}

/// The window of [`DatapathConfig::udp_flows_per_client`], in seconds.
pub const UDP_WINDOW_SECONDS: u32 = 60;

impl DatapathConfig {
    /// What holds where nothing else was set: no process is the node's, HZ is 250, one event in 256.
    pub const DEFAULT: Self = Self {
        netns_cookie: 0,
        jiffies_per_second: 250,
        event_sample: 256,
        udp_flows_per_client: 4096,
        udp_flow_entries: 131_072,
        reorders_reads: 0,
        spare: 0,
    };
}
impl Default for DatapathConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// After how long a silent flow is forgotten, in seconds: the argument of the ageing program, the only element of
/// the map AGEING. Names and defaults are those of kube-proxy's conntrack settings and of the kernel's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Timeouts {
    /// A proven TCP flow that no end has closed or reset.
    pub tcp_established: u32,
    /// A TCP flow on which one end has sent its FIN.
    pub tcp_close_wait: u32,
    /// A TCP flow that both ends have closed, or one has reset.
    pub tcp_closed: u32,
    /// A UDP flow that has seen packets both ways.
    pub udp_stream: u32,
    /// A UDP flow that nobody has answered.
    pub udp: u32,
}

impl Timeouts {
    /// No timeout may be longer, in seconds: in jiffies, at 1000 a second, it still is a positive 32-bit number, so that
    /// the kernel's arithmetic with it does not wrap. Nearly 25 days.
    pub const LONGEST: u32 = i32::MAX.cast_unsigned() / 1000;

    /// 24 h, 1 h, 120 s, 180 s, 30 s.
    pub const DEFAULT: Self = Self {
        tcp_established: 86_400,
        tcp_close_wait: 3_600,
        tcp_closed: 120,
        udp_stream: 180,
        udp: 30,
    };
}
impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}
