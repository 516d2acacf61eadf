//! One API server: several may stand on the same etcd, as in a cluster, and each can go away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Request;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::net::TcpListener;

use super::credentials::User;
use super::program::Program;
use super::site::Site;
use super::{READY_WITHIN, SERVICE_CIDR_V4, SERVICE_CIDR_V6, etcd, poll};

/// An API server, running or not, at an address that stays its own.
pub struct ApiServer {
    // Dropped first: it runs at the site.
    running: Option<Program>,
    site: Arc<Site>,
    address: SocketAddr,
    kubeconfig: PathBuf,
    agent_kubeconfig: PathBuf,
}

impl ApiServer {
    /// Finds a free port for an API server on the site's etcd; starts nothing.
    pub(super) fn prepare(site: &Arc<Site>) -> Result<Self> {
        let listen = site.address;
        let address = site.resident.run(async move {
            // The port is free again when the listener is dropped. Somebody else may take it in
            // between: then the server says so and ends.
            Ok(TcpListener::bind((listen, 0)).await?.local_addr()?)
        });
        let address = address.with_context(|| format!("no free port on {listen}"))?;
        Ok(Self {
            running: None,
            site: Arc::clone(site),
            address,
            kubeconfig: site.credentials.kubeconfig(User::Admin, address)?,
            agent_kubeconfig: site.credentials.kubeconfig(User::Agent, address)?,
        })
    }

    /// Starts the server, if it does not run, and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut program = Program::start(&self.site, "kube-apiserver", &self.flags())?;
        let client = self.client()?;
        let ready = poll("the API server is ready", READY_WITHIN, || {
            program.check_alive()?;
            let client = client.clone();
            let answer = self.site.resident.run(async move {
                let request = Request::get("/readyz").body(Vec::new())?;
                Ok(
                    tokio::time::timeout(Duration::from_secs(2), client.request_text(request))
                        .await,
                )
            })?;
            Ok(matches!(answer, Ok(Ok(text)) if text == "ok").then_some(()))
        });
        ready.with_context(|| program.log_tail())?;
        self.running = Some(program);
        Ok(())
    }

    /// Ends the server at once, as a crash would: connections break, nobody is told.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig of somebody who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubeconfig of the agent's ServiceAccount, see [`super::AGENT_USER`].
    pub fn agent_kubeconfig(&self) -> &Path {
        &self.agent_kubeconfig
    }

    /// The names of the Services in the namespace `default`, as this server knows them.
    pub fn services(&self) -> Result<Vec<String>> {
        let client = self.client()?;
        self.site.resident.run(async move {
            let services = Api::<Service>::default_namespaced(client);
            let services = services.list(&ListParams::default()).await?;
            Ok(services
                .into_iter()
                .filter_map(|service| service.metadata.name)
                .collect())
        })
    }

    /// The HTTP status of a GET by the agent's ServiceAccount.
    pub fn status_for_agent(&self, path: &str) -> Result<u16> {
        let client = self.client_with(&self.agent_kubeconfig)?;
        let request = Request::get(path).body(Body::empty())?;
        self.site
            .resident
            .run(async move { Ok(client.send(request).await?.status().as_u16()) })
    }

    /// A client that may do everything; it works on the control plane's thread only.
    pub(super) fn client(&self) -> Result<Client> {
        self.client_with(&self.kubeconfig)
    }

    fn client_with(&self, kubeconfig: &Path) -> Result<Client> {
        let path = kubeconfig.to_owned();
        self.site.resident.run(async move {
            let kubeconfig = Kubeconfig::read_from(path)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            Ok(Client::try_from(config)?)
        })
    }

    /// The last lines of the log, while it runs.
    pub(super) fn log_tail(&self) -> String {
        self.running
            .as_ref()
            .map_or_else(String::new, Program::log_tail)
    }

    fn flags(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.site.credentials.file(name);
        let service_cidrs = match self.address {
            SocketAddr::V4(_) => [SERVICE_CIDR_V4, SERVICE_CIDR_V6].join(","),
            // The first family must be the server's own.
            SocketAddr::V6(_) => [SERVICE_CIDR_V6, SERVICE_CIDR_V4].join(","),
        };
        vec![
            (
                "etcd-servers",
                format!("unix://{}", etcd::socket(&self.site).display()),
            ),
            ("bind-address", self.address.ip().to_string()),
            ("advertise-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("token-auth-file", file("tokens.csv")),
            ("authorization-mode", "RBAC".into()),
            ("service-cluster-ip-range", service_cidrs),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".into(),
            ),
            ("service-account-key-file", file("accounts.pub")),
            ("service-account-signing-key-file", file("accounts.key")),
            // Pods would wait for a ServiceAccount that no controller makes here.
            ("disable-admission-plugins", "ServiceAccount".into()),
            // The Service `kubernetes` must not point to loopback.
            ("endpoint-reconciler-type", "none".into()),
        ]
    }
}
