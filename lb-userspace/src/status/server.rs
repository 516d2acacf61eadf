//! The agent's socket: HTTP/1.1 on a unix socket that root alone may open.
//!
//! `curl --unix-socket /run/waggle/agent.sock http://waggle/v1/state`
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
};

use super::{AgentState, SOCKET};
use crate::{
    agent::Event,
    config::NodeOptions,
    datapath::{devices::monitor::Reports, node::host, sockets::cgroup::SocketHook},
    findings::Findings,
    flows::sweep::SweepReport,
    model::Warning,
    probe::KernelAbilities,
};

/// How long an answer may take: the agent is busy writing maps for less than that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the parts of the answer come from.
#[derive(Debug)]
pub struct Sources {
    /// The agent's loop.
    pub events: mpsc::Sender<Event>,
    /// The devices.
    pub devices: watch::Receiver<Reports>,
    /// The sweeps.
    pub sweep: watch::Receiver<SweepReport>,
    /// How many sockets were ended.
    pub destroyed_sockets: watch::Receiver<u64>,
    /// The node's name.
    pub node_name: String,
    /// What it was told of the node.
    pub settings: NodeOptions,
    /// Where the socket hooks hang.
    pub cgroup_root: String,
    /// The socket hooks.
    pub socket_hooks: watch::Receiver<Vec<SocketHook>>,
    /// Ports for health checks that cannot be had.
    pub health: watch::Receiver<Vec<Warning>>,
    /// Node ports at which sockets of the node listen.
    pub clashes: watch::Receiver<Findings>,
    /// What the kernel can do.
    pub kernel: KernelAbilities,
    /// When the agent started.
    pub started: tokio::time::Instant,
}

impl Sources {
    async fn state(&self) -> Option<AgentState> {
        let (answer, view) = oneshot::channel();
        self.events.send(Event::View(answer)).await.ok()?;
        let view = view.await.ok()?;
        let mut node_warnings = tokio::task::spawn_blocking(host::warnings)
            .await
            .unwrap_or_default();
        node_warnings.extend(self.health.borrow().iter().cloned());
        for about in self.clashes.borrow().values() {
            node_warnings.extend(about.findings.iter().map(|it| it.warning.clone()));
        }
        Some(AgentState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node_name: self.node_name.clone(),
            settings: self.settings.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            view,
            devices: self.devices.borrow().values().cloned().collect(),
            cgroup_root: self.cgroup_root.clone(),
            socket_hooks: self.socket_hooks.borrow().clone(),
            sweep: self.sweep.borrow().clone(),
            destroyed_sockets: *self.destroyed_sockets.borrow(),
            kernel: self.kernel.clone(),
            node_warnings,
        })
    }
}

/// Binds the socket, over one that a crashed agent left: the node's lock is held, so nobody listens on it.
///
/// A socket gets the mode that the umask leaves, so it is made where root alone can reach it, and appears at its place only
/// with the mode that it keeps.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    let private = run_dir.join(format!(".{SOCKET}.{}", std::process::id()));
    // One that a crashed agent left.
    match fs::remove_dir_all(&private) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::DirBuilder::new().mode(0o700).create(&private)?,
    }
    let bound = bind_in(&private, &run_dir.join(SOCKET));
    fs::remove_dir_all(&private)?;
    bound
}

fn bind_in(private: &Path, place: &Path) -> io::Result<UnixListener> {
    let path = private.join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    fs::rename(&path, place)?;
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, sources: Sources) {
    let sources = Arc::new(sources);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&sources)))),
            Err(error) => {
                tracing::warn!("the agent's socket does not accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, sources: Arc<Sources>) {
    let service = service_fn(|request: Request<Incoming>| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(respond(&request, &sources).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("a client of the agent's socket left: {error}");
    }
}

async fn respond(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != "/v1/state" {
        return plain(
            StatusCode::NOT_FOUND,
            "there is GET /v1/state, and nothing else\n",
        );
    }
    match tokio::time::timeout(PATIENCE, sources.state()).await {
        Ok(Some(state)) => match serde_json::to_vec(&state) {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static("application/json"),
                );
                response
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        Ok(None) => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n"),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent is busy\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn nobody_but_root_can_open_the_socket_at_any_moment() {
        let folder = std::env::temp_dir().join(format!("waggle-socket-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let is_done = AtomicBool::new(false);
        let modes = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut modes = std::collections::BTreeSet::new();
                while !is_done.load(Ordering::Relaxed) {
                    if let Ok(socket) = fs::metadata(folder.join(SOCKET)) {
                        modes.insert(socket.permissions().mode() & 0o777);
                    }
                }
                modes
            });
            for _ in 0..2000 {
                drop(bind(&folder).unwrap());
            }
            is_done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        let left = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(modes.into_iter().collect::<Vec<_>>(), [0o600]);
        assert_eq!(left, 1, "something beside the socket stays behind");
    }
}
