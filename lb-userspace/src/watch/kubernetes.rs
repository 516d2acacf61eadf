//! The API server: Services, `EndpointSlices`, the own Node and `ServiceCIDR`s, through kube-rs.
//!
//! What the watch says between two lists is taken as it comes; a repeated list replaces everything that was known, so
//! that deletions are found which nobody was told of. While the API server is away the maps stay as they are.
mod access;
mod decoded;
mod kinds;
mod pause;

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    core::Status,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::mpsc::{self, error::SendError};

pub use access::Access;

use self::{decoded::Decoded, kinds::Watched, pause::Pause};
use crate::{
    agent::Event,
    model::{ObjectName, Unreadable, Warning},
    objects::{EndpointSlice, Node, Service, ServiceCidr},
};

/// Slices that are none of ours are not even sent: those of other proxies and headless ones, by the labels that kube-proxy
/// goes by.
const SLICES: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
/// Of another proxy's Services the addresses must be known, to leave them alone.
const SERVICES: &str = "!service.kubernetes.io/headless";

/// The API server ends each watch after so many seconds, and it is begun anew where it ended. A connection that died
/// without a word is noticed 5 s later; kube's default would notice it after five minutes.
const WATCH_SECONDS: u32 = 60;

/// After so long an API server is asked again for what it does not know or does not let the agent read: it may be
/// renewed, and rights be given. On a thousand nodes that is some thirty questions a second.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

const NOT_FOUND: u16 = 404;
const FORBIDDEN: u16 = 403;

/// Sends what the API server says, for ever: connections are made again, with pauses, and a repeated list replaces
/// what was known. Ends when the receiver is gone.
///
/// # Errors
/// If there is no usable configuration. An API server that does not answer is [`Event::Trouble`], not an error.
pub async fn watch(access: Access, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let (config, warnings) = access.configuration().await?;
    let client = Client::try_from(config)?;
    let watched = watcher::Config::default().timeout(WATCH_SECONDS);
    let own = watched
        .clone()
        .fields(&format!("metadata.name={}", access.node_name));
    let services = watched.clone().labels(SERVICES);
    let services = Follow::<Service>::new(&client, services, warnings, &events);
    let cidrs = Follow::<ServiceCidr>::new(&client, watched.clone(), Vec::new(), &events);
    let slices = watched.labels(SLICES);
    let slices = Follow::<EndpointSlice>::new(&client, slices, Vec::new(), &events);
    let node = Follow::<Node>::new(&client, own, Vec::new(), &events);
    // Each ends only if the receiver is gone, and then there is nothing left to do.
    drop(futures::join!(
        services.run(),
        slices.run(),
        node.run(),
        cidrs.run()
    ));
    Ok(())
}

/// Follows the objects of one kind.
struct Follow<K> {
    api: Api<Decoded<K>>,
    config: watcher::Config,
    /// What is to be said about this source as long as it is watched.
    standing: Vec<Warning>,
    events: mpsc::Sender<Event>,
    trouble: Option<Warning>,
    /// Objects that cannot be read now.
    unreadable: BTreeMap<ObjectName, Unreadable>,
    /// The agent has been told what there is.
    has_listed: bool,
    /// The API server was found not to know this kind.
    is_unknown: bool,
}

impl<K: Watched> Follow<K> {
    fn new(
        client: &Client,
        config: watcher::Config,
        standing: Vec<Warning>,
        events: &mpsc::Sender<Event>,
    ) -> Self {
        Self {
            api: Api::all(client.clone()),
            config,
            standing,
            events: events.clone(),
            trouble: None,
            unreadable: BTreeMap::new(),
            has_listed: false,
            is_unknown: false,
        }
    }

    async fn run(mut self) -> Result<(), SendError<Event>> {
        let stream = watcher(self.api.clone(), self.config.clone()).backoff(Pause::default());
        pin_mut!(stream);
        self.tell().await?;
        let mut listed = Vec::new();
        let mut unreadable = BTreeMap::new();
        while let Some(news) = stream.next().await {
            let event = match news {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    unreadable.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(decoded)) => {
                    match decoded.object {
                        Ok(object) => listed.push(object),
                        Err(it) => drop(unreadable.insert(it.name.clone(), it)),
                    }
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    (self.has_listed, self.is_unknown) = (true, false);
                    let unreadable = std::mem::take(&mut unreadable);
                    self.set_unreadable(unreadable).await?;
                    Some(K::listed(&std::mem::take(&mut listed)))
                }
                Ok(watcher::Event::Apply(decoded)) => {
                    let mut unreadable = self.unreadable.clone();
                    unreadable.remove(&decoded.name());
                    let event = match decoded.object {
                        Ok(object) => Some(object.applied()),
                        Err(it) => {
                            unreadable.insert(it.name.clone(), it);
                            None
                        }
                    };
                    self.set_unreadable(unreadable).await?;
                    event
                }
                Ok(watcher::Event::Delete(decoded)) => {
                    let mut unreadable = self.unreadable.clone();
                    unreadable.remove(&decoded.name());
                    self.set_unreadable(unreadable).await?;
                    Some(K::deleted(decoded.name()))
                }
                Err(error) => {
                    if let (Some(without), Some(code @ (NOT_FOUND | FORBIDDEN))) =
                        (K::WITHOUT, status(&error).map(|it| it.code))
                    {
                        self.withheld(&error, code, without).await?;
                    } else {
                        self.troubled(&error).await?;
                    }
                    if self.events.is_closed() {
                        return Ok(());
                    }
                    continue;
                }
            };
            if self.trouble.take().is_some() {
                self.tell().await?;
            }
            if let Some(event) = event {
                self.events.send(event).await?;
            }
        }
        Ok(())
    }

    /// Tells the agent which objects cannot be read, before it hears of those that can.
    async fn set_unreadable(
        &mut self,
        unreadable: BTreeMap<ObjectName, Unreadable>,
    ) -> Result<(), SendError<Event>> {
        if unreadable != self.unreadable {
            let event = Event::Unreadable {
                source: K::SOURCE,
                objects: unreadable.values().cloned().collect(),
            };
            self.unreadable = unreadable;
            self.events.send(event).await?;
        }
        Ok(())
    }

    async fn troubled(&mut self, error: &watcher::Error) -> Result<(), SendError<Event>> {
        // The end of a watch that has grown too old to go on is no trouble: a list follows at once.
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return Ok(());
        }
        let warning = Warning::new(
            "API server",
            format!("cannot say which {} there are: {}", K::SOURCE, chain(error)),
            "it is asked again until it answers, and the maps stay as they are; check --api-server, --kubeconfig and \
             the rights of the agent",
        );
        if self.trouble.as_ref() != Some(&warning) {
            self.trouble = Some(warning);
            self.tell().await?;
        }
        Ok(())
    }

    /// The API server has nothing to say of this kind, and the agent goes on without: nobody waits for the first list.
    async fn withheld(
        &mut self,
        error: &watcher::Error,
        code: u16,
        without: &str,
    ) -> Result<(), SendError<Event>> {
        let is_unknown = code == NOT_FOUND;
        if is_unknown && !self.is_unknown {
            tracing::info!("the API server knows no {}: {without}", K::SOURCE);
        }
        self.is_unknown = is_unknown;
        let trouble = (!is_unknown).then(|| {
            Warning::new(
                "API server",
                format!(
                    "does not let the agent read {}, and {without}: {}",
                    K::SOURCE,
                    chain(error)
                ),
                "give the agent the rights that deploy/rbac.yaml asks for",
            )
        });
        if self.trouble != trouble {
            self.trouble = trouble;
            self.tell().await?;
        }
        // What was read before rights were taken away holds on.
        if is_unknown || !self.has_listed {
            self.has_listed = true;
            self.events.send(K::listed(&[])).await?;
        }
        tokio::select! {
            () = self.events.closed() => {}
            () = tokio::time::sleep(ASKED_AGAIN) => {}
        }
        Ok(())
    }

    async fn tell(&self) -> Result<(), SendError<Event>> {
        let warnings = self.standing.iter().chain(&self.trouble).cloned().collect();
        self.events
            .send(Event::Trouble {
                source: K::SOURCE,
                warnings,
            })
            .await
    }
}

/// What the API server answered instead of what was asked for.
fn status(error: &watcher::Error) -> Option<&Status> {
    if let watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status) = error
    {
        Some(status)
    } else {
        None
    }
}

/// An error and its causes, each once: kube's own texts repeat some.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
