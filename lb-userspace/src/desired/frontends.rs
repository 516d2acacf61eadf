//! Which addresses and ports a service port is reachable at.
use crate::{
    desired::Frontend,
    model::{Family, Service, ServicePort},
};

/// The frontends of one port in one family: its cluster address.
pub(super) fn frontends(service: &Service, port: &ServicePort, family: Family) -> Vec<Frontend> {
    let cluster_ip = service.cluster_ip(family);
    let frontend = cluster_ip.map(|address| Frontend {
        address,
        port: port.port,
        protocol: port.protocol,
    });
    frontend.into_iter().collect()
}
