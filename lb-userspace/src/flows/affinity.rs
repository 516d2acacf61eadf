//! Which backend each client goes back to (`sessionAffinity: ClientIP`), for people.
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use lb_common::{AffinityEntry, AffinityKey, BackendEntry, BackendState, ServiceEntry, V4, V6};
use serde::{Deserialize, Serialize};

use super::jiffies;
use crate::{
    bpf::batch,
    datapath::node::kernel,
    maps::{MapContents, MapFamily, dump},
    model::Family,
};

/// A client of a service, and the backend that it was given last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AffinityView {
    /// The family: ids of the two families are separate.
    pub family: Family,
    /// The client's address; `None` stands for all processes of the node, which are one client.
    pub client: Option<IpAddr>,
    /// The service's name, if somebody knows it.
    pub service: Option<String>,
    /// Id of the service.
    pub service_id: u32,
    /// Whether the id is that of the Service that it was when the entry was made, as far as its backend tells.
    #[serde(skip)]
    pub is_current: bool,
    /// Id of the backend.
    pub backend_id: u32,
    /// The backend, if it still is one of the service.
    pub backend: Option<SocketAddr>,
    /// Seconds since the client last opened a flow, exact to a second or two.
    pub idle_seconds: u32,
    /// For how many seconds more it would go back there; `None` if it would not any more: the time is over, the backend
    /// has left, or the service has no affinity now. Such an entry stays until it is written over.
    pub remaining_seconds: Option<u32>,
}

/// Every entry of AFFINITY that is pinned in this folder, in order. `contents` is what the other maps there say.
pub fn read(maps: &Path, contents: &MapContents) -> io::Result<Vec<AffinityView>> {
    let per_second = kernel::jiffies_per_second()?;
    let clock = (jiffies(per_second)?, per_second);
    let mut all = of_family::<V4>(maps, "AFFINITY_V4", Family::V4, contents, clock)?;
    all.extend(of_family::<V6>(
        maps,
        "AFFINITY_V6",
        Family::V6,
        contents,
        clock,
    )?);
    all.sort();
    Ok(all)
}

fn of_family<F: MapFamily>(
    maps: &Path,
    table: &str,
    family: Family,
    contents: &MapContents,
    clock: (u32, u32),
) -> io::Result<Vec<AffinityView>>
where
    F::Address: Into<IpAddr>,
    AffinityKey<F>: bytemuck::Pod,
    BackendEntry<F>: bytemuck::Pod,
{
    let mut all = Vec::new();
    let backends = &F::of(contents).backends;
    batch::read::<AffinityKey<F>, AffinityEntry>(&maps.join(table), |key, entry| {
        all.push(view(
            family,
            key,
            entry,
            &contents.services,
            backends,
            clock,
        ));
    })?;
    Ok(all)
}

fn view<F: MapFamily>(
    family: Family,
    key: &AffinityKey<F>,
    entry: &AffinityEntry,
    services: &BTreeMap<u32, ServiceEntry>,
    backends: &BTreeMap<u32, BackendEntry<F>>,
    (now, per_second): (u32, u32),
) -> AffinityView
where
    F::Address: Into<IpAddr>,
{
    let client: IpAddr = key.client.into();
    let idle = u32::try_from(now.wrapping_sub(entry.last_opened).cast_signed());
    let idle_seconds = idle.unwrap_or_default() / per_second.max(1);
    let given = backends.get(&entry.backend_id).filter(|backend| {
        backend.generation == entry.generation && backend.service_id == key.service_id
    });
    let backend = given.filter(|backend| backend.state() == BackendState::Active);
    let stays = services.get(&key.service_id).map(|it| it.affinity_seconds);
    let remaining = stays.unwrap_or_default().checked_sub(idle_seconds);
    AffinityView {
        family,
        client: (!client.is_unspecified()).then_some(client),
        service: None,
        service_id: key.service_id,
        is_current: given.is_some(),
        backend_id: entry.backend_id,
        backend: backend.map(dump::socket_address),
        idle_seconds,
        remaining_seconds: remaining.filter(|it| *it > 0 && backend.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::{Ipv4Address, Port};

    use super::*;

    #[test]
    fn a_client_goes_back_while_the_time_lasts_and_its_backend_is_the_same() {
        let service = |affinity_seconds| ServiceEntry {
            affinity_seconds,
            ..ServiceEntry::default()
        };
        let mut backend = BackendEntry::<V4>::zeroed();
        backend.address = Ipv4Address::from([10, 244, 1, 2]);
        backend.port = Port::new(80);
        backend.service_id = 7;
        backend.generation = 3;
        backend.state = BackendState::Active as u8;
        let draining = BackendEntry {
            state: BackendState::Draining as u8,
            ..backend
        };
        let of_another = BackendEntry {
            service_id: 8,
            ..backend
        };
        for (seconds, backend, generation, remaining) in [
            (60, backend, 3, Some(50)),
            (10, backend, 3, None),
            (0, backend, 3, None),
            (60, backend, 2, None),
            (60, draining, 3, None),
            (60, of_another, 3, None),
        ] {
            let key = AffinityKey::<V4>::new(Ipv4Address::from([10, 244, 9, 9]), 7);
            let entry = AffinityEntry {
                backend_id: 1,
                generation,
                last_opened: 1_000,
                spare: 0,
            };
            let services = BTreeMap::from([(7, service(seconds))]);
            let backends = BTreeMap::from([(1, backend)]);
            let clock = (1_000 + 250 * 10, 250);
            let shown = view(Family::V4, &key, &entry, &services, &backends, clock);
            assert_eq!(shown.idle_seconds, 10);
            assert_eq!(shown.remaining_seconds, remaining, "{seconds} {backend:?}");
            assert_eq!(shown.client, Some(IpAddr::from([10, 244, 9, 9])));
        }
    }
}
