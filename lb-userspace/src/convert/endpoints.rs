//! v1 Endpoints, the older form of slices: only manifests use it.
use std::net::IpAddr;

use crate::{
    convert::{Notes, object_name},
    model::{Endpoint, EndpointPort, EndpointSlice, Family, Hints, SliceName, Target},
    objects,
};

/// A slice for each subset and family. The Service is the one of the same name.
pub fn endpoints(object: &objects::Endpoints) -> Vec<EndpointSlice> {
    let name = object_name(&object.metadata);
    let mut notes = Notes::about("Endpoints", &name);
    let mut slices = Vec::new();
    for (number, subset) in object.subsets.iter().enumerate() {
        let ports = subset.ports.iter();
        let ports: Vec<EndpointPort> = ports.filter_map(|it| port(it, &mut notes)).collect();
        let ready = subset.addresses.iter().map(|it| (it, true));
        let not_ready = subset.not_ready_addresses.iter().map(|it| (it, false));
        let convert = |(address, ready)| endpoint(address, ready, &mut notes);
        let all: Vec<Endpoint> = ready.chain(not_ready).filter_map(convert).collect();
        for family in Family::ALL {
            let of_family = all.iter().filter(|it| Family::of(it.address) == family);
            let endpoints: Vec<Endpoint> = of_family.cloned().collect();
            if endpoints.is_empty() {
                continue;
            }
            let slice_name = format!("{}-endpoints-{number}-{family}", name.name);
            slices.push(EndpointSlice {
                name: SliceName::new(&name.namespace, slice_name),
                service: name.clone(),
                family,
                ports: ports.clone(),
                endpoints,
                warnings: Vec::new(),
            });
        }
    }
    let warnings = notes.finish();
    if !warnings.is_empty() && slices.is_empty() {
        slices.push(EndpointSlice {
            name: SliceName::new(&name.namespace, format!("{}-endpoints", name.name)),
            service: name,
            family: Family::V4,
            ports: Vec::new(),
            endpoints: Vec::new(),
            warnings: Vec::new(),
        });
    }
    if let Some(first) = slices.first_mut() {
        first.warnings = warnings;
    }
    slices
}

fn port(object: &objects::SubsetPort, notes: &mut Notes) -> Option<EndpointPort> {
    let name = object.name.clone().unwrap_or_default();
    let of = if name.is_empty() {
        "its port".to_owned()
    } else {
        format!("port `{name}`")
    };
    let protocol = notes.protocol(&of, object.protocol.as_deref());
    let port = notes.port(&of, object.port);
    Some(EndpointPort {
        name,
        protocol: protocol?,
        port: port?,
    })
}

fn endpoint(object: &objects::EndpointAddress, ready: bool, notes: &mut Notes) -> Option<Endpoint> {
    let address: IpAddr = notes.endpoint_address("endpoint address", &object.ip, None)?;
    let target = object.target_ref.as_ref().map(|target| Target {
        name: target.name.clone().unwrap_or_default(),
        uid: target.uid.clone().unwrap_or_default(),
    });
    Some(Endpoint {
        address,
        ready,
        serving: ready,
        terminating: false,
        node: object.node_name.clone(),
        hints: Hints::default(),
        target,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subsets_become_slices_of_one_family_each() {
        let object = json!({
            "metadata": {"name": "web"},
            "subsets": [{
                "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "0.0.0.0"}],
                "ports": [{"name": "http", "port": 8080}, {"name": "bad", "port": 0}],
            }],
        });
        let slices = endpoints(&serde_json::from_value(object).unwrap());
        let families: Vec<_> = slices.iter().map(|slice| slice.family).collect();
        assert_eq!(families, [Family::V4, Family::V6]);
        let ready: Vec<_> = slices[0].endpoints.iter().map(|it| it.ready).collect();
        assert_eq!(ready, [true, false]);
        assert_eq!(
            slices[1]
                .ports
                .iter()
                .map(|port| port.port)
                .collect::<Vec<_>>(),
            [8080]
        );
        assert_eq!(
            slices[0].warnings.len(),
            2,
            "port 0 and the address of nobody"
        );
    }
}
