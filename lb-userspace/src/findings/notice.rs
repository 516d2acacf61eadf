//! Findings become Events on their Services, where the source is Kubernetes.
//!
//! Every node tells the API server, which keeps the first of equal Events. It is told little: each finding once an hour
//! (after which Events are forgotten there by default), five in a second, and of one Service no more than ten.
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use k8s_openapi::{api::events::v1::Event, jiff::Timestamp};
use kube::{Api, Client, Error, api::PostParams};
use tokio::{sync::watch, time::Instant};

use super::{Findings, api};

/// What still holds is told again after so long.
const AGAIN: Duration = Duration::from_hours(1);

/// Between two Events.
const PAUSE: Duration = Duration::from_millis(200);

/// After news, up to so long: nodes that hear of them at the same time do not tell in step.
const SPREAD: Duration = Duration::from_secs(2);

/// The API server did not answer: it is tried again after so long.
const RETRY: Duration = Duration::from_secs(20);

/// Of one Service.
const MOST: usize = 10;

/// What has been told, by namespace and name of the Event, and when.
type Told = BTreeMap<(String, String), Instant>;

/// What became of an Event.
enum Outcome {
    /// It is there, by us or by another node; or it can never be.
    Done,
    /// This agent may not write Events.
    Forbidden(String),
    /// The API server did not answer.
    Failed,
}

/// Tells for as long as there is an agent.
///
/// # Errors
/// If there is no usable configuration: then nothing else works either.
pub async fn tell(client: Client, node_name: String, mut sources: Vec<watch::Receiver<Findings>>) {
    let mut told = Told::new();
    let mut complained = false;
    let mut next = None;
    loop {
        if !changed(&mut sources, next).await {
            return;
        }
        let chance = RandomState::new().hash_one(0) % 1_000;
        tokio::time::sleep(SPREAD.mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 1_000.0))
            .await;
        next = None;
        let events = untold(&sources, &node_name, &mut told);
        for (name, event) in events {
            let namespace = name.0.clone();
            match write(&client, &namespace, &event).await {
                Outcome::Done => drop(told.insert(name, Instant::now())),
                Outcome::Failed => {
                    next = Some(Instant::now() + RETRY);
                    break;
                }
                Outcome::Forbidden(why) => {
                    if !complained {
                        complained = true;
                        tracing::warn!(
                            "the API server takes no Events from this agent ({why}): what is wrong with Services is told \
                             in this log and by `waggle status` alone; let it create events.k8s.io (rbac.yaml does)"
                        );
                    }
                    next = Some(Instant::now() + AGAIN);
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        // What still holds is told again.
        let oldest = told.values().min().map(|at| *at + AGAIN);
        next = next.into_iter().chain(oldest).min();
    }
}

/// Waits for news from one of them, or for the moment; false if there will be none.
async fn changed(sources: &mut [watch::Receiver<Findings>], next: Option<Instant>) -> bool {
    let any = futures::future::select_all(sources.iter_mut().map(|it| Box::pin(it.changed())));
    match next {
        Some(moment) => {
            let changed = tokio::time::timeout_at(moment, any).await;
            changed.map_or(true, |(result, ..)| result.is_ok())
        }
        None => any.await.0.is_ok(),
    }
}

/// The Events that hold and have not been told within the hour. What does not hold any more is forgotten: should it come
/// back, it is news.
fn untold(
    sources: &[watch::Receiver<Findings>],
    node: &str,
    told: &mut Told,
) -> Vec<((String, String), Event)> {
    let mut events = Vec::new();
    let mut standing = Told::new();
    for source in sources {
        for (service, about) in source.borrow().iter() {
            // Without a uid nobody finds the Event by its Service, and without a Service it is nobody's.
            if about.uid.is_empty() {
                continue;
            }
            for finding in about.findings.iter().take(MOST) {
                let name = api::name(service, &about.uid, finding, node);
                let name = (service.namespace.clone(), name);
                if let Some(at) = told.get(&name).filter(|at| at.elapsed() < AGAIN) {
                    standing.insert(name, *at);
                    continue;
                }
                let now = Timestamp::now();
                let event = api::event(service, &about.uid, finding, node, now);
                events.push((name, event));
            }
        }
    }
    *told = standing;
    events
}

async fn write(client: &Client, namespace: &str, event: &Event) -> Outcome {
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    match events.create(&PostParams::default(), event).await {
        Ok(_) => Outcome::Done,
        Err(Error::Api(status)) => match status.code {
            // A namespace that is going takes nothing new.
            403 if !status.message.contains("is being terminated") => {
                Outcome::Forbidden(status.message.clone())
            }
            429 | 500..=599 => Outcome::Failed,
            code => {
                if code != 409 {
                    tracing::debug!("an Event in {namespace} was refused: {status}");
                }
                Outcome::Done
            }
        },
        Err(_) => Outcome::Failed,
    }
}
