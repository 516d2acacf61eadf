//! Certificates, tokens and kubeconfigs, made anew for each control plane.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

/// Who a kubeconfig speaks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// May do everything: the tests themselves and the controllers.
    Admin,
    /// The agent's ServiceAccount of a cluster, which may do what RBAC allows it.
    Agent,
}

impl User {
    const ALL: [Self; 2] = [Self::Admin, Self::Agent];

    /// Guards nothing beyond loopback and the namespaces of one test.
    const fn token(self) -> &'static str {
        match self {
            Self::Admin => "admin-of-a-test",
            Self::Agent => "agent-of-a-test",
        }
    }

    /// One line of the API server's token file: token, name, uid, groups.
    fn line(self) -> String {
        let (name, groups) = match self {
            Self::Admin => ("admin", "system:masters"),
            Self::Agent => (
                super::AGENT_USER,
                "system:serviceaccounts,system:authenticated",
            ),
        };
        format!("{},{name},{name},\"{groups}\"\n", self.token())
    }
}

/// The files that the API server is started with, all in one folder.
pub(super) struct Credentials {
    folder: PathBuf,
    authority: String,
}

impl Credentials {
    /// Writes an authority, a serving certificate for the addresses, the keys of service
    /// accounts and the token file.
    pub(super) fn create(folder: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "waggle tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut names: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        // Every API server's certificate is valid for it; pods may rely on that.
        names.push("kubernetes.default.svc".to_owned());
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;

        let credentials = Self {
            folder: folder.to_owned(),
            authority: authority.pem(),
        };
        credentials.write("server.crt", &certificate.pem())?;
        credentials.write("server.key", &key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        credentials.write("accounts.key", &accounts.serialize_pem())?;
        credentials.write("accounts.pub", &accounts.public_key_pem())?;
        credentials.write("tokens.csv", &User::ALL.map(User::line).concat())?;
        Ok(credentials)
    }

    /// The path of one of the files.
    pub(super) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes the kubeconfig for the API server at this address; gives its path.
    pub(super) fn kubeconfig(&self, user: User, server: SocketAddr) -> Result<PathBuf> {
        let name = match user {
            User::Admin => "admin",
            User::Agent => "agent",
        };
        let authority = self.write("authority.crt", &self.authority)?;
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": authority,
            }}],
            "users": [{ "name": "test", "user": { "token": user.token() } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        self.write(
            &format!("{name}-{}.kubeconfig", server.port()),
            &text.to_string(),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
