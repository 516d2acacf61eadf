//! Where one control plane lives, and what its programs share.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::assets::assets;
use super::credentials::Credentials;
use super::resident::Resident;
use crate::machine::netns::Namespace;
use crate::machine::scratch::Scratch;

/// The place of one control plane: namespace, address, folder, programs and secrets.
pub(super) struct Site {
    /// Runs futures and keeps programs in the network namespace.
    pub(super) resident: Resident,
    /// The address API servers listen on.
    pub(super) address: IpAddr,
    /// Certificates, tokens and kubeconfigs.
    pub(super) credentials: Credentials,
    assets: PathBuf,
    folder: Scratch,
}

impl Site {
    pub(super) fn new(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let assets = assets()?;
        let folder = Scratch::new()?;
        Ok(Self {
            resident: Resident::start(namespace)?,
            address,
            credentials: Credentials::create(folder.path(), &[address])?,
            assets,
            folder,
        })
    }

    /// The folder of its programs' files and logs.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of one of Kubernetes' programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.assets.join(name)
    }
}
