//! How the API server is reached: never through an address that the agent itself has to translate first.
use std::path::PathBuf;

use anyhow::Context;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::model::Warning;

/// A name that every API server's certificate is valid for.
const CERTIFICATE_NAME: &str = "kubernetes.default.svc";

/// How to reach the API server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file; without one, the service account of the pod the agent runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Replaces the server's address of the configuration: an address that does not depend on the agent itself.
    pub api_server: Option<String>,
    /// The node the agent runs on.
    pub node_name: String,
}

impl Access {
    /// Whether it can be used at all; nobody is asked.
    ///
    /// # Errors
    /// If the kubeconfig or the service account cannot be read, or says nothing that can be used.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.configuration().await.map(drop)
    }

    /// The client's configuration, and what is to be said about it.
    pub(crate) async fn configuration(&self) -> anyhow::Result<(Config, Vec<Warning>)> {
        let mut config = match &self.kubeconfig {
            Some(file) => from_file(file).await?,
            None if self.api_server.is_some() => {
                let mut config = Config::incluster_dns().context(NOT_IN_A_POD)?;
                config.tls_server_name = Some(CERTIFICATE_NAME.to_owned());
                config
            }
            None => Config::incluster_env().context(NOT_IN_A_POD)?,
        };
        let mut warnings = Vec::new();
        if let Some(address) = &self.api_server {
            config.cluster_url = address.parse().with_context(|| {
                format!("`{address}` is no URL: write --api-server as in https://192.0.2.1:6443")
            })?;
        } else if self.kubeconfig.is_none() {
            warnings.push(Warning::new(
                "API server",
                format!(
                    "is asked at {}, the ClusterIP that this agent translates itself",
                    config.cluster_url
                ),
                "give --api-server an address of the API server that works without Services",
            ));
        }
        Ok((config, warnings))
    }
}

const NOT_IN_A_POD: &str = "there is no service account here: give --kubeconfig FILE, or --manifests DIR to work without an API server";

async fn from_file(file: &PathBuf) -> anyhow::Result<Config> {
    let kubeconfig = Kubeconfig::read_from(file).with_context(|| {
        format!(
            "{} cannot be used as kubeconfig: check the path after --kubeconfig",
            file.display()
        )
    })?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| {
            format!(
                "{} names no cluster and user that can be used",
                file.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let access = Access {
            kubeconfig: Some("/nowhere/kubeconfig".into()),
            ..Access::default()
        };
        let error = access.configuration().await.err().unwrap();
        assert!(
            format!("{error:#}").contains("/nowhere/kubeconfig"),
            "{error:#}"
        );
    }

    #[tokio::test]
    async fn an_address_given_by_flag_beats_the_files() {
        let file = std::env::temp_dir().join(format!("waggle-kubeconfig-{}", std::process::id()));
        let text = "
clusters: [{name: c, cluster: {server: 'https://10.96.0.1'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";
        std::fs::write(&file, text).unwrap();
        let mut access = Access {
            kubeconfig: Some(file.clone()),
            ..Access::default()
        };
        let (config, _) = access.configuration().await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("10.96.0.1"));
        access.api_server = Some("http://127.0.0.1:8001".to_owned());
        let (config, _) = access.configuration().await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://127.0.0.1:8001/");
        access.api_server = Some("not a url".to_owned());
        assert!(access.configuration().await.is_err());
        std::fs::remove_file(file).unwrap();
    }
}
