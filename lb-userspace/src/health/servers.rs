//! The servers: which ones there ought to be, and how they listen.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    fmt, io,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    Facts,
    answer::{self, Answer, Now},
};
use crate::{
    model::{Family, ServiceName, Warning},
    supervise::Tasks,
};

/// A port that could not be had is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// A client has so long for its question, and for its next one on the same connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many connections a server has at a time: each load balancer has a few. Of more, the oldest are closed.
const CONNECTIONS: usize = 256;

/// Whom a server speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Agent,
    Service(ServiceName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.pad("--healthz-bind-address"),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

type Place = (Subject, SocketAddr);

/// Starts to answer: the agent's own questions at an address, those about Services where they say. What comes back says
/// which ports cannot be had. `started` is the agent's start, which facts count from.
pub fn start(
    facts: watch::Receiver<Facts>,
    agent_address: Option<SocketAddr>,
    started: Instant,
    tasks: &Tasks,
) -> watch::Receiver<Vec<Warning>> {
    let (warnings, receiver) = watch::channel(Vec::new());
    let servers = run(facts, agent_address, started, warnings);
    tasks.spawn("servers of health checks", servers);
    receiver
}

/// Keeps the servers that there ought to be, as long as there is an agent.
async fn run(
    mut facts: watch::Receiver<Facts>,
    agent_address: Option<SocketAddr>,
    started: Instant,
    warnings: watch::Sender<Vec<Warning>>,
) {
    let mut running = JoinSet::new();
    let mut servers: BTreeMap<Place, Server> = BTreeMap::new();
    let mut failed: BTreeMap<Place, Warning> = BTreeMap::new();
    loop {
        let wanted = wanted(&facts.borrow_and_update(), agent_address);
        servers.retain(|place, _| wanted.contains(place));
        failed.retain(|place, _| wanted.contains(place));
        for place in wanted {
            if servers.contains_key(&place) {
                continue;
            }
            match bind(&place).await {
                Ok(listener) => {
                    if failed.remove(&place).is_some() {
                        tracing::info!(
                            "{}: health checks are answered at {} now",
                            place.0,
                            place.1
                        );
                    }
                    let (subject, address) = place.clone();
                    let server = serve(listener, subject, address, facts.clone(), started);
                    servers.insert(place, Server(running.spawn(server)));
                }
                Err(error) => {
                    let warning = warning(&place, &error);
                    if failed.get(&place) != Some(&warning) {
                        tracing::warn!("{warning}");
                    }
                    failed.insert(place, warning);
                }
            }
        }
        warnings.send_if_modified(|current| {
            let now: Vec<Warning> = failed.values().cloned().collect();
            let changed = *current != now;
            *current = now;
            changed
        });
        let retry = async {
            if failed.is_empty() {
                std::future::pending::<()>().await;
            } else {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            changed = facts.changed() => if changed.is_err() {
                return;
            },
            () = retry => {}
            Some(Err(error)) = running.join_next() => if error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            },
        }
    }
}

fn wanted(facts: &Facts, agent_address: Option<SocketAddr>) -> BTreeSet<Place> {
    let agent = agent_address.map(|address| (Subject::Agent, address));
    let of_services = facts.checks.iter().flat_map(|(name, check)| {
        let serves = |address: &&std::net::IpAddr| {
            check.local_endpoints.contains_key(&Family::of(**address))
        };
        let addresses = facts.addresses.iter().filter(serves);
        addresses.map(|address| {
            let address = SocketAddr::new(*address, check.port);
            (Subject::Service(name.clone()), address)
        })
    });
    of_services.chain(agent).collect()
}

fn warning((subject, address): &Place, error: &io::Error) -> Warning {
    let (effect, remedy) = match subject {
        Subject::Agent => (
            "nobody can ask /healthz and /livez",
            "see who listens there (ss -ltnp), or name another address",
        ),
        Subject::Service(_) => (
            "its load balancer takes this node for one without endpoints",
            "see who listens there (ss -ltnp), or give it another healthCheckNodePort",
        ),
    };
    Warning::new(
        subject.to_string(),
        format!("cannot listen at {address} for health checks: {error}; {effect}"),
        format!("{remedy}; it is tried again every {} s", RETRY.as_secs()),
    )
}

/// Listens. For the agent the unspecified address of either family stands for both, as it does in Go; a Service has other
/// endpoints in each.
async fn bind((subject, address): &Place) -> io::Result<TcpListener> {
    let address = *address;
    if !address.ip().is_unspecified() {
        return TcpListener::bind(address).await;
    }
    if *subject != Subject::Agent {
        return of_one_family(address);
    }
    let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
    match TcpListener::bind(both).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(address).await,
        result => result,
    }
}

fn of_one_family(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// A server; dropping it ends it and its connections.
#[derive(Debug)]
struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(
    listener: TcpListener,
    subject: Subject,
    address: SocketAddr,
    facts: watch::Receiver<Facts>,
    started: Instant,
) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("{subject}: {address} does not accept health checks: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        by_age.retain(|it| !it.is_finished());
        // Who asks now goes before who has had his time: silent clients keep nobody out.
        if by_age.len() >= CONNECTIONS
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let (subject, facts) = (subject.clone(), facts.clone());
        by_age.push_back(connections.spawn(talk(stream, subject, address, facts, started)));
    }
}

async fn talk(
    stream: TcpStream,
    subject: Subject,
    address: SocketAddr,
    facts: watch::Receiver<Facts>,
    started: Instant,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let now = Now {
            since_start: started.elapsed(),
            time: Timestamp::now(),
        };
        let answer = respond(&subject, address, &request, &facts.borrow(), now);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("a client of {address} left: {error}");
    }
}

fn respond(
    subject: &Subject,
    address: SocketAddr,
    request: &Request<Incoming>,
    facts: &Facts,
    now: Now,
) -> Answer {
    match subject {
        Subject::Agent => answer::agent(request.uri().path(), facts, now),
        Subject::Service(name) => {
            let check = facts.checks.get(name);
            let family = Family::of(address.ip());
            let count = check.and_then(|check| check.local_endpoints.get(&family));
            let is_healthy = facts.is_healthy(now.since_start);
            answer::service(name, count.copied().unwrap_or(0), is_healthy)
        }
    }
}
