//! `waggle get`: what is in the maps, with the agent's names where an agent runs.
use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use lb_common::{BackendState, ClientScope, Protocol, V4, V6};

use super::{
    Format, Paths, affinity,
    table::{Rows, span},
};
use crate::{
    agent::{
        View,
        view::{BackendView, ServiceView},
    },
    flows::{self, FlowView},
    maps::{MapContents, MapFamily, bpf::BpfMaps, dump, read_contents},
    model::Family,
    status::client::{Asked, ask},
};

/// What `get` is asked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waggle get services
  waggle get backends -o wide
  waggle get flows -o json | jq '.[] | select(.backendId == 3)'
  waggle get affinity | grep 10.244.1.9")]
pub(super) struct Arguments {
    /// What to show
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    paths: Paths,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// What clients dial
    Services,
    /// Where they are sent
    Backends,
    /// Who is being sent where
    Flows,
    /// Who goes back where (`sessionAffinity: ClientIP`)
    Affinity,
}

/// Prints one of the lists.
pub(super) fn get(arguments: &Arguments) -> Result<()> {
    let folder = arguments.paths.root().maps();
    let view = match ask(&arguments.paths.run_dir)? {
        Asked::Answered(state) => Some(state.view),
        Asked::NotRunning(why) => {
            note(&format!("{why}; the ids below are from the pinned maps"));
            None
        }
    };
    let read = || -> Result<View> {
        let maps = BpfMaps::open(&folder).with_context(|| missing(&folder))?;
        Ok(from_maps(&read_contents(&maps)?))
    };
    match arguments.what {
        What::Services => {
            let view = view.map_or_else(read, Ok)?;
            super::print(arguments.output, &view.services, |wide| {
                services(&view, wide).text()
            })
        }
        What::Backends => {
            let view = view.map_or_else(read, Ok)?;
            super::print(arguments.output, &view.backends, |wide| {
                backends(&view, wide).text()
            })
        }
        What::Affinity => {
            let maps = BpfMaps::open(&folder).with_context(|| missing(&folder))?;
            let contents = read_contents(&maps)?;
            let read = flows::affinity::read(&folder, &contents);
            let mut all = read.with_context(|| missing(&folder))?;
            affinity::name(&mut all, &view.unwrap_or_default());
            super::print(arguments.output, &all, |wide| {
                affinity::rows(&all, wide).text()
            })
        }
        What::Flows => {
            let flows = flows::read(&folder).with_context(|| missing(&folder))?;
            let view = view.unwrap_or_default();
            super::print(arguments.output, &flows, |wide| {
                flow_rows(&flows, &view, wide).text()
            })
        }
    }
}

#[expect(clippy::print_stderr, reason = "a note beside the output")]
fn note(text: &str) {
    eprintln!("waggle: {text}");
}

pub(super) fn missing(folder: &std::path::Path) -> String {
    format!(
        "cannot read the maps in {}: has an agent run here? is --bpf-root right? (needs root)",
        folder.display()
    )
}

fn services(view: &View, wide: bool) -> Rows {
    let targets: BTreeMap<(Family, u32), SocketAddr> = view
        .backends
        .iter()
        .map(|backend| ((backend.family, backend.id), backend.address))
        .collect();
    let header: &[_] = if wide {
        &[
            "NAMESPACE",
            "NAME",
            "TYPE",
            "ADDRESS",
            "PORT",
            "TARGET",
            "BACKENDS",
            "CHANGED",
            "ID",
        ]
    } else {
        &["NAMESPACE", "NAME", "ADDRESS", "PORT", "BACKENDS"]
    };
    let mut rows = Rows::new(header);
    for service in &view.services {
        let count = service.backends.len().to_string();
        let served = service.frontends.iter().map(|it| (it, count.clone()));
        let taken = service.taken.iter();
        let taken = taken.map(|it| (&it.frontend, format!("taken by {}", it.by)));
        for (frontend, count) in served.chain(taken) {
            let port = format!("{}/{}", frontend.port(), service.protocol);
            let address = frontend.ip().to_string();
            let (namespace, name) = (service.namespace.clone(), service.name.clone());
            if wide {
                let mut ports: Vec<_> = service
                    .backends
                    .iter()
                    .filter_map(|id| targets.get(&(service.family, *id)))
                    .map(|address| address.port().to_string())
                    .collect();
                ports.sort();
                ports.dedup();
                let port = if service.port.is_empty() {
                    port
                } else {
                    format!("{}:{port}", service.port)
                };
                let kind = service.kind.map(|kind| kind.to_string());
                let changed = service.changed_ms.map(|age| span(age / 1000) + " ago");
                rows.push(vec![
                    namespace,
                    name,
                    kind.unwrap_or_default(),
                    address,
                    port,
                    ports.join(","),
                    count,
                    changed.unwrap_or_default(),
                    service.id.to_string(),
                ]);
            } else {
                rows.push(vec![namespace, name, address, port, count]);
            }
        }
    }
    rows
}

fn backends(view: &View, wide: bool) -> Rows {
    let header: &[_] = if wide {
        &[
            "SERVICE",
            "ADDRESS",
            "STATE",
            "POD",
            "NODE",
            "ID",
            "GENERATION",
        ]
    } else {
        &["SERVICE", "ADDRESS", "STATE", "POD", "NODE"]
    };
    let mut rows = Rows::new(header);
    for backend in &view.backends {
        let mut row = vec![
            backend
                .service
                .clone()
                .unwrap_or_else(|| format!("#{}", backend.service_id)),
            backend.address.to_string(),
            backend.state.clone(),
            backend.pod.clone().unwrap_or_default(),
            backend.node.clone().unwrap_or_default(),
        ];
        if wide {
            row.extend([backend.id.to_string(), backend.generation.to_string()]);
        }
        rows.push(row);
    }
    rows
}

fn flow_rows(flows: &[FlowView], view: &View, wide: bool) -> Rows {
    let names = view.port_names();
    let mut header = vec![
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "REWRITES",
        "BECOMES",
        "SERVICE",
        "FLAGS",
        "IDLE",
    ];
    if wide {
        header.extend(["OTHER-PORT", "TABLE", "BACKEND-ID"]);
    }
    let mut rows = Rows::new(&header);
    for flow in flows {
        let family = Family::of(flow.source.ip());
        let mut row = vec![
            flow.protocol.clone(),
            flow.source.to_string(),
            flow.destination.to_string(),
            flow.rewrites.clone(),
            flow.becomes.to_string(),
            names
                .get(&(family, flow.service_id))
                .cloned()
                .unwrap_or_else(|| format!("#{}", flow.service_id)),
            flow.flags.join(","),
            span(flow.idle_seconds.into()),
        ];
        if wide {
            let table = if flow.proven { "flows" } else { "opening" };
            let port = flow.other_port.map(|port| port.to_string());
            let port = port.unwrap_or_else(|| "-".to_owned());
            row.extend([port, table.to_owned(), flow.backend_id.to_string()]);
        }
        rows.push(row);
    }
    rows
}

/// What the maps alone say: ids in place of names.
fn from_maps(contents: &MapContents) -> View {
    let mut view = View::default();
    services_of::<V4>(contents, Family::V4, &mut view);
    services_of::<V6>(contents, Family::V6, &mut view);
    view
}

fn services_of<F: MapFamily>(contents: &MapContents, family: Family, view: &mut View)
where
    F::Address: Into<std::net::IpAddr>,
{
    let maps = F::of(contents);
    for (key, entry) in &maps.frontends {
        if key.scope != ClientScope::Everybody as u8 || entry.service_id == 0 {
            continue;
        }
        let region = contents
            .services
            .get(&entry.service_id)
            .map(|service| service.slots);
        let slots = region.map_or(0..0, |region| {
            region.start()..region.start().saturating_add(region.length())
        });
        let frontend = SocketAddr::new(key.address.into(), key.port.number());
        view.services.push(ServiceView {
            id: entry.service_id,
            namespace: String::new(),
            name: format!("#{}", entry.service_id),
            kind: None,
            port: String::new(),
            protocol: Protocol::from_number(key.protocol)
                .map_or_else(|| key.protocol.to_string(), |protocol| protocol.to_string()),
            family,
            cluster_ip: None,
            health_check_port: None,
            frontends: vec![frontend],
            taken: Vec::new(),
            backends: slots
                .filter_map(|index| contents.slots.get(&index))
                .map(|slot| slot.backend_id)
                .collect(),
            no_backends_because: None,
            changed_ms: None,
        });
    }
    for (id, entry) in &maps.backends {
        if entry.state() == BackendState::Free {
            continue;
        }
        view.backends.push(BackendView {
            id: *id,
            family,
            address: dump::socket_address(entry),
            state: dump::state(entry.state()).to_owned(),
            generation: entry.generation,
            service_id: entry.service_id,
            service: None,
            pod: None,
            node: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::view::TakenFrontend, model::ServiceType};

    #[test]
    fn a_service_is_shown_with_its_own_type_and_with_who_has_what_it_wants() {
        let view = |kind| View {
            services: vec![ServiceView {
                id: 1,
                namespace: "default".to_owned(),
                name: "web".to_owned(),
                kind,
                port: String::new(),
                protocol: "tcp".to_owned(),
                family: Family::V4,
                cluster_ip: Some([10, 96, 0, 80].into()),
                health_check_port: None,
                frontends: vec![([10, 96, 0, 80], 80).into()],
                taken: vec![TakenFrontend {
                    frontend: ([192, 0, 2, 1], 30080).into(),
                    by: "default/shop".to_owned(),
                }],
                backends: Vec::new(),
                no_backends_because: None,
                changed_ms: None,
            }],
            ..View::default()
        };
        let shown = services(&view(Some(ServiceType::LoadBalancer)), true).text();
        assert!(
            shown.contains("LoadBalancer") && !shown.contains("ClusterIP"),
            "{shown}"
        );
        assert!(shown.contains("taken by default/shop"), "{shown}");
        assert!(!services(&view(None), true).text().contains("ClusterIP"));
    }
}
