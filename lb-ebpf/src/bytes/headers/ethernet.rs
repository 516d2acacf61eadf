//! Ethernet II (IEEE 802.3) and VLAN tags that lie in the frame (802.1Q, 802.1ad).

/// The Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: [u8; 6],
    /// Sender.
    pub source: [u8; 6],
    /// What follows.
    pub ether_type: [u8; 2],
}

/// A VLAN tag and the type of what follows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VlanTag {
    /// Priority and VLAN id.
    pub control: [u8; 2],
    /// What follows.
    pub ether_type: [u8; 2],
}

/// `EtherType` values that matter here.
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// 802.1Q.
    pub const VLAN: [u8; 2] = [0x81, 0x00];
    /// 802.1ad, the outer of two tags.
    pub const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];
}
