//! `cargo xtask bench agent`: from an `EndpointSlice` as the API server sends it to the kernel's maps, by the agent's own
//! loop over real maps, at 1,000 Services of three endpoints.
//!
//! The clock starts when the object is in the agent's hands and stops when the last map operation of its plan has
//! returned; the conversion to the agent's model is inside. Quiet: one change at a time, each after a pause. Steady:
//! the next change comes the moment the last one is in the maps, so that the agent's collecting of changes shows.
#![expect(clippy::print_stdout, reason = "a program whose output is a table")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::objects::{EndpointSlice, Service};
use lb_userspace::{
    agent::{self, Agent, Event, Observer, Report, Source},
    config, convert,
    datapath::{BpfRoot, Datapath, LoadOptions, object},
    maps::{bpf::BpfMaps, read_contents},
};
use serde_json::{Value, json};
use tests::{
    machine::bench::{Samples, write_json},
    now,
};
use tokio::sync::mpsc;

const SERVICES: u16 = 1_000;
const ENDPOINTS: u8 = 3;
const CHANGES: u16 = 1_000;
/// Longer than the agent collects changes.
const PAUSE: Duration = Duration::from_millis(12);

/// Says when a plan has been carried out.
struct Stopwatch(mpsc::UnboundedSender<(Instant, Report)>);
impl Observer for Stopwatch {
    fn applied(&mut self, report: &Report) {
        // Nobody listens any more: the measurement is over.
        drop(self.0.send((now(), report.clone())));
    }
}

/// The pinned maps of this run; removed with it.
struct Pinned(BpfRoot);
impl Drop for Pinned {
    fn drop(&mut self) {
        // Whatever cannot be removed is empty of meaning to others: the folder carries this process's number.
        drop(std::fs::remove_dir_all(self.0.path()));
    }
}

fn service(number: u16) -> Result<Service> {
    let [high, low] = number.to_be_bytes();
    Ok(serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": format!("service-{number}")},
        "spec": {
            "clusterIP": format!("10.103.{high}.{low}"),
            "clusterIPs": [format!("10.103.{high}.{low}")],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }))?)
}

/// The slice of a Service. In a later `generation` another pod has taken the place of the first.
fn slice(number: u16, generation: u8) -> Result<EndpointSlice> {
    let [high, low] = number.to_be_bytes();
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|index| {
            let replaced = if index == 0 { generation } else { 0 };
            json!({
                "addresses": [pod(high, low, index, replaced).to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": "pod", "uid": format!("{number}-{index}-{replaced}")},
            })
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "metadata": {
            "namespace": "default",
            "name": format!("service-{number}-abcde"),
            "labels": {"kubernetes.io/service-name": format!("service-{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints,
    }))?)
}

fn pod(high: u8, low: u8, index: u8, generation: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 128 + 8 * generation + high, low, 1 + index)
}

/// The agent at work.
struct Bench {
    events: mpsc::Sender<Event>,
    plans: mpsc::UnboundedReceiver<(Instant, Report)>,
}

impl Bench {
    async fn send(&self, event: Event) -> Result<()> {
        self.events.send(event).await.context("the agent has ended")
    }

    async fn next_plan(&mut self) -> Result<(Instant, Report)> {
        let plan = tokio::time::timeout(Duration::from_secs(30), self.plans.recv()).await;
        let (moment, report) = plan
            .context("no plan within 30 s")?
            .context("the agent has ended")?;
        ensure!(report.error.is_none(), "a plan failed: {:?}", report.error);
        Ok((moment, report))
    }

    /// All Services and slices at once.
    async fn start(&mut self) -> Result<Duration> {
        let services: Result<Vec<_>> = (0..SERVICES).map(service).collect();
        let slices: Result<Vec<_>> = (0..SERVICES).map(|number| slice(number, 0)).collect();
        let (services, slices) = (services?, slices?);
        let begin = now();
        let services = services.iter().map(convert::service).collect();
        let slices = slices.iter().filter_map(convert::endpoint_slice);
        self.send(Event::ServicesListed(services)).await?;
        self.send(Event::SlicesListed(slices.collect())).await?;
        let (end, report) = self.next_plan().await?;
        ensure!(
            report.changes > usize::from(SERVICES),
            "only {} changes",
            report.changes
        );
        Ok(end - begin)
    }

    /// Replaces a pod of one Service after the other.
    async fn replace_pods(&mut self, generation: u8, pause: Duration) -> Result<Samples> {
        let mut samples = Samples::default();
        for number in (0..SERVICES).cycle().take(usize::from(CHANGES)) {
            let object = slice(number, generation)?;
            tokio::time::sleep(pause).await;
            let begin = now();
            let slice = convert::endpoint_slice(&object);
            let slice = slice.context("a slice of a Service")?;
            self.send(Event::SliceApplied(Box::new(slice))).await?;
            let (end, _) = self.next_plan().await?;
            samples.push(u64::try_from((end - begin).as_nanos())?);
        }
        Ok(samples)
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}

fn line(name: &str, samples: &Samples) -> (String, Value) {
    let [p50, p90, p99, max] =
        [0.5, 0.9, 0.99, 1.0].map(|share| microseconds(samples.quantile(share)));
    let row = json!({
        "name": name, "changes": CHANGES, "services": SERVICES,
        "p50_us": p50, "p90_us": p90, "p99_us": p99, "max_us": max,
    });
    (
        format!("{name:10} {p50:>8} {p90:>8} {p99:>8} {max:>8}"),
        row,
    )
}

/// The maps say what the last changes demanded: the measurement has measured something.
fn check(folder: &Path, generation: u8) -> Result<()> {
    let contents = read_contents(&BpfMaps::open(folder)?)?;
    let addresses: BTreeSet<IpAddr> = contents
        .v4
        .backends
        .values()
        .filter(|backend| backend.state() == lb_common::BackendState::Active)
        .map(|backend| backend.address.into())
        .collect();
    for number in 0..SERVICES.min(CHANGES) {
        let [high, low] = number.to_be_bytes();
        let wanted = pod(high, low, 0, generation).into();
        ensure!(addresses.contains(&wanted), "{wanted} is not in the maps");
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let path = format!("/sys/fs/bpf/waggle-bench-{}", std::process::id());
    let pinned = Pinned(BpfRoot::new(path));
    pinned.0.prepare()?;
    let options = LoadOptions {
        root: pinned.0.clone(),
        config: lb_common::DatapathConfig::DEFAULT,
        capacities: BTreeMap::new(),
    };
    let _datapath = Datapath::load(object(), &options)?;
    let folder = pinned.0.maps();
    let mut settings = config::Settings::default().agent()?;
    settings.sources = BTreeSet::from([Source::Services, Source::EndpointSlices]);
    let collect = settings.collect;
    let agent = Agent::new(settings, BpfMaps::open(&folder)?)?;
    let (events, inbox) = mpsc::channel(1024);
    let (told, plans) = mpsc::unbounded_channel();
    let agent = tokio::spawn(agent::run(agent, inbox, Stopwatch(told)));
    let mut bench = Bench { events, plans };

    let first = bench.start().await?;
    let quiet = bench.replace_pods(1, PAUSE).await?;
    check(&folder, 1)?;
    let steady = bench.replace_pods(2, Duration::ZERO).await?;
    check(&folder, 2)?;
    bench.send(Event::Stop).await?;
    agent.await.context("the agent's loop panicked")?;

    println!(
        "{SERVICES} Services of {ENDPOINTS} endpoints are in the maps {} ms after their lists",
        first.as_millis()
    );
    println!("then {CHANGES} changed EndpointSlices, from the object to the maps, microseconds:\n");
    println!(
        "{:10} {:>8} {:>8} {:>8} {:>8}",
        "changes", "p50", "p90", "p99", "max"
    );
    let mut rows = Vec::new();
    for (name, samples) in [("quiet", &quiet), ("steady", &steady)] {
        let (text, row) = line(name, samples);
        println!("{text}");
        rows.push(row);
    }
    println!(
        "\nquiet: a pause of {} ms before each; steady: none (changes are collected for {} ms)",
        PAUSE.as_millis(),
        collect.as_millis()
    );
    let path = write_json("agent", &Value::Array(rows))?;
    println!("written: {}", path.display());
    Ok(())
}
