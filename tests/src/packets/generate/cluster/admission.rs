//! Who may dial what, told to both sides.
use std::net::IpAddr;

use lb_common::{FrontendEntry, FrontendFlags};

use super::Cluster;

/// Services that do not admit everybody, by their ids.
const LIMITED: [u32; 2] = [2, 8];
impl Cluster {
    /// The entry for all other ports of a service's address: some services refuse, some leave them to others, and of some
    /// addresses nobody has told.
    pub(super) fn other_ports(&mut self, id: u32, address: IpAddr) -> Option<FrontendEntry> {
        let admission = &mut self.world.admission;
        let flags = match id % 3 {
            0 => {
                admission.refusing.insert(address);
                FrontendFlags::REFUSES
            }
            1 => {
                admission.left.insert(address);
                FrontendFlags::NONE
            }
            _ => return None,
        };
        Some(FrontendEntry {
            service_id: 0,
            flags,
        })
    }

    /// Whom a service admits, if not everybody: one client and the pods.
    pub(super) fn limit(&mut self, id: u32) -> FrontendFlags {
        if !LIMITED.contains(&id) {
            return FrontendFlags::NONE;
        }
        let ranges = &mut self.tables.source_ranges;
        for range in ["10.7.0.1/32", "10.244.0.0/16", "fd00:0:0:f4::/64"] {
            ranges.push((id, range.parse().expect("a prefix")));
        }
        let v6 = vec![0xfd, 0, 0, 0, 0, 0, 0, 0xf4];
        let beginnings = vec![vec![10, 7, 0, 1], vec![10, 244], v6];
        self.world.admission.ranges.insert(id, beginnings);
        FrontendFlags::SOURCE_RANGES
    }
}
