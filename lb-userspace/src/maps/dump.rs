//! The text form of the maps: one line an entry, sorted. The same text stands in scenarios and failure messages.
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    BackendEntry, BackendState, ClientScope, FrontendFlags, FrontendKey, IpFamily, Prefix,
    Protocol, SlotRegion, V4, V6,
};

use crate::maps::{MapContents, MapFamily};

/// Every prefix that Services get their addresses from, every frontend, service and backend, in this order. Slots stand in their service's line, by backend id; slots that
/// no service names, and freed backends, are left out.
pub fn lines(contents: &MapContents) -> Vec<String> {
    let mut lines = Vec::new();
    let networks = &contents.networks;
    prefix_lines(&networks.v4.service_prefixes, &mut lines);
    prefix_lines(&networks.v6.service_prefixes, &mut lines);
    frontend_lines::<V4>(contents, &mut lines);
    frontend_lines::<V6>(contents, &mut lines);
    for (id, entry) in &contents.services {
        let mut line = format!("service {id} backends={}", slots(contents, entry.slots));
        if entry.affinity_seconds != 0 {
            let _infallible = write!(line, " affinity={}s", entry.affinity_seconds);
        }
        let ranges = contents
            .v4
            .source_ranges
            .iter()
            .chain(&contents.v6.source_ranges);
        for (_, range) in ranges.filter(|(service_id, _)| service_id == id) {
            let _infallible = write!(line, " from={range}");
        }
        lines.push(line);
    }
    backend_lines::<V4>(contents, &mut lines);
    backend_lines::<V6>(contents, &mut lines);
    lines
}

fn prefix_lines<F: IpFamily>(prefixes: &[Prefix<F>], lines: &mut Vec<String>) {
    for prefix in prefixes {
        let ones: u32 = prefix.mask.as_ref().iter().map(|it| it.count_ones()).sum();
        if ones > 0 {
            let network: IpAddr = prefix.network.into();
            lines.push(format!("services within {network}/{ones}"));
        }
    }
}

fn slots(contents: &MapContents, region: SlotRegion) -> String {
    let ids: Vec<String> = (region.start()..region.start().saturating_add(region.length()))
        .map(|index| match contents.slots.get(&index) {
            Some(slot) => slot.backend_id.to_string(),
            None => "missing".to_owned(),
        })
        .collect();
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.join(",")
}

fn frontend_lines<F: MapFamily>(contents: &MapContents, lines: &mut Vec<String>) {
    let mut frontends: Vec<_> = F::of(contents).frontends.iter().collect();
    frontends.sort_by_key(|(key, _)| {
        (
            Into::<IpAddr>::into(key.address),
            key.port,
            key.protocol,
            key.scope,
        )
    });
    for (key, entry) in frontends {
        let mut line = format!("frontend {} service={}", frontend(key), entry.service_id);
        if key.scope == ClientScope::Inside as u8 {
            line.push_str(" inside");
        }
        if is_any_port(key) {
            line = format!("address {}", Into::<IpAddr>::into(key.address));
        }
        if entry.flags.has(FrontendFlags::DIRECT) {
            line = format!("direct {}", frontend(key));
        }
        for (flag, word) in [
            (FrontendFlags::MASQUERADE, " masquerade"),
            (FrontendFlags::MASQUERADE_STRANGERS, " masquerade-strangers"),
            (FrontendFlags::INSIDE_ELSEWHERE, " inside-elsewhere"),
            (FrontendFlags::PROCESSES_ONLY, " processes-only"),
            (FrontendFlags::BACKENDS_ELSEWHERE, " backends-elsewhere"),
            (FrontendFlags::REFUSES, " refuses"),
            (FrontendFlags::SOURCE_RANGES, " source-ranges"),
            (FrontendFlags::NODE_EXCLUDED, " node-excluded"),
            (FrontendFlags::DIRECT_FROM_OUTSIDE, " from-outside"),
        ] {
            if entry.flags.has(flag) {
                line.push_str(word);
            }
        }
        lines.push(line);
    }
}

fn backend_lines<F: MapFamily>(contents: &MapContents, lines: &mut Vec<String>) {
    for (id, entry) in &F::of(contents).backends {
        if entry.state() != BackendState::Free {
            lines.push(format!(
                "backend v{}/{id} {} {} service={} generation={}",
                F::VERSION,
                socket_address(entry),
                state(entry.state()),
                entry.service_id,
                entry.generation
            ));
        }
    }
}

/// Whether this is the entry for all ports of an address that have none of their own.
pub fn is_any_port<F: IpFamily>(key: &FrontendKey<F>) -> bool {
    *key == FrontendKey::any_port(key.address)
}

/// `10.103.145.6:80/tcp`
pub fn frontend<F: IpFamily>(key: &FrontendKey<F>) -> String {
    let address = SocketAddr::new(key.address.into(), key.port.number());
    match Protocol::from_number(key.protocol) {
        Some(protocol) => format!("{address}/{protocol}"),
        None => format!("{address}/{}", key.protocol),
    }
}

/// The backend's address and port.
pub fn socket_address<F: IpFamily>(entry: &BackendEntry<F>) -> SocketAddr {
    SocketAddr::new(entry.address.into(), entry.port.number())
}

/// The state in a word.
pub const fn state(state: BackendState) -> &'static str {
    match state {
        BackendState::Free => "free",
        BackendState::Active => "active",
        BackendState::Draining => "draining",
        BackendState::Left => "left",
        BackendState::Gone => "gone",
    }
}
