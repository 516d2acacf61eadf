//! Who may dial what, and what becomes of what nobody serves.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{DropReason, PassReason, Verdict};

use super::{World, objects::begins_with_one_of};

/// The rules beside those of the services themselves.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Addresses of services, whose other ports are refused.
    pub refusing: BTreeSet<IpAddr>,
    /// Addresses whose other ports are others' affair.
    pub left: BTreeSet<IpAddr>,
    /// How the addresses begin that services get.
    pub for_services: Vec<Vec<u8>>,
    /// How the addresses of a service's clients must begin, if not all may come.
    pub ranges: BTreeMap<u32, Vec<Vec<u8>>>,
}

impl World {
    /// What becomes of a packet to nobody's address and port.
    pub(super) fn unserved(&self, address: IpAddr) -> Verdict {
        let Admission {
            refusing,
            left,
            for_services,
            ..
        } = &self.admission;
        if refusing.contains(&address) {
            Verdict::Drop(DropReason::NoSuchPort)
        } else if !left.contains(&address) && begins_with_one_of(address, for_services) {
            Verdict::Drop(DropReason::NoSuchService)
        } else {
            Verdict::Pass(PassReason::NotOurs)
        }
    }

    /// Whether a client may open a flow to a service.
    pub(super) fn admits(&self, service: u32, client: IpAddr) -> bool {
        let ranges = self.admission.ranges.get(&service);
        ranges.is_none_or(|ranges| begins_with_one_of(client, ranges))
    }
}
