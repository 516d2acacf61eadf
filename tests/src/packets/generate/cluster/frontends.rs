//! Which service a frontend leads to.
use std::net::{IpAddr, SocketAddr};

use lb_common::{FrontendEntry, FrontendFlags, FrontendKey, Port};

use super::{Cluster, Kind, SERVICES, frontend};
use crate::oracle::reference::Masqueraded;

impl Cluster {
    /// A service's frontend leads to this service, of its family and protocol.
    pub(super) fn write_frontend(&mut self, frontend: SocketAddr, id: u32, kind: &Kind) {
        self.world.frontends.insert((frontend, kind.protocol), id);
        let entry = FrontendEntry {
            service_id: id,
            flags: match kind.masqueraded {
                Masqueraded::Nobody => FrontendFlags::NONE,
                Masqueraded::Strangers => FrontendFlags::MASQUERADE_STRANGERS,
                Masqueraded::Everybody => FrontendFlags::MASQUERADE,
            }
            .with(self.limit(id)),
        };
        self.set_frontend(frontend, kind.protocol, Some(entry));
    }

    /// What is for other ports of a service's address.
    pub(super) fn write_other_ports(&mut self, id: u32, address: IpAddr) {
        if let Some(entry) = self.other_ports(id, address) {
            self.set_frontend(SocketAddr::new(address, 0), 0, Some(entry));
        }
    }

    /// The frontend of the service `of` is given to the service `to`, if that has its family and protocol; if not, it is
    /// removed.
    pub fn hand_over(&mut self, of: usize, to: usize) {
        let (own, other) = (&SERVICES[of], &SERVICES[to]);
        let frontend = frontend(of);
        if (own.is_v6, own.protocol) == (other.is_v6, other.protocol) {
            let id = u32::try_from(to + 1).expect("few");
            self.write_frontend(frontend, id, other);
        } else {
            self.world.frontends.remove(&(frontend, own.protocol));
            self.set_frontend(frontend, own.protocol, None);
        }
        self.tables.frontend_epoch += 1;
    }

    pub(super) fn set_frontend(
        &mut self,
        frontend: SocketAddr,
        protocol: u8,
        entry: Option<FrontendEntry>,
    ) {
        let port = Port::new(frontend.port());
        match frontend.ip() {
            IpAddr::V4(ip) => {
                let key = FrontendKey::new(ip.into(), port, protocol);
                let frontends = &mut self.tables.v4.frontends;
                frontends.remove(&key);
                frontends.extend(entry.map(|entry| (key, entry)));
            }
            IpAddr::V6(ip) => {
                let key = FrontendKey::new(ip.into(), port, protocol);
                let frontends = &mut self.tables.v6.frontends;
                frontends.remove(&key);
                frontends.extend(entry.map(|entry| (key, entry)));
            }
        }
    }
}
