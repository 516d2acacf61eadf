//! What a kubelet mounts into the agent's pod: the files of its ServiceAccount.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use super::ControlPlane;

/// The folder in a pod's file system, below `/var/run`.
const FOLDER: &str = "secrets/kubernetes.io/serviceaccount";

impl ControlPlane {
    /// Fills a folder that takes the place of the pod's `/var/run`: a token of the agent's
    /// ServiceAccount, as the API server issues it, and the authority that signed its certificate.
    pub fn mount_service_account(&self, var_run: &Path) -> Result<()> {
        let token = self.run(|client| async move {
            let accounts = Api::<ServiceAccount>::namespaced(client, "kube-system");
            let request = TokenRequest::default();
            let answer = accounts
                .create_token_request("waggle", &PostParams::default(), &request)
                .await?;
            let token = answer.status.and_then(|status| status.token);
            token.context("the API server issued no token")
        })?;
        let folder = var_run.join(FOLDER);
        fs::create_dir_all(&folder)?;
        fs::copy(
            self.site.credentials.file("authority.crt"),
            folder.join("ca.crt"),
        )?;
        fs::write(folder.join("token"), token)?;
        fs::write(folder.join("namespace"), "kube-system")?;
        Ok(())
    }
}
