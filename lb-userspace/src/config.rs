//! Every setting of `waggle run`: its name, its default, its reason.
//!
//! One struct is both the command line (clap) and the file of `--config` (YAML, read by serde). A flag `--api-server`
//! is the key `apiServer` in the file; a flag beats the file. A key that does not exist is an error that names it.
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize, de::Error as _};

/// The settings as given: what is `None` was not given and has its default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Read Services, Pods, EndpointSlices and Endpoints from the YAML and JSON files in this folder and below, and
    /// follow their changes. No API server is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "api_server"])]
    pub manifests: Option<PathBuf>,

    /// How to reach the API server. Without this and without --manifests: the service account of the pod that the
    /// agent runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server, in place of the configured one. Give an address that does not depend on this agent:
    /// the `kubernetes` Service's own ClusterIP works only after the agent has read it from the API server.
    #[arg(long, value_name = "URL")]
    pub api_server: Option<String>,

    /// Name of the Node this agent runs on [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// While changes keep coming they are collected for so long between two plans; the first change after a quiet time
    /// is always applied at once [default: 5ms]
    #[arg(long, value_name = "TIME")]
    pub collect_changes: Option<Period>,

    /// After the last change of a file in the manifest folder, wait so long before reading it: editors write a file in
    /// several steps [default: 20ms]
    #[arg(long, value_name = "TIME")]
    pub manifest_settle: Option<Period>,

    /// How long an old list of backends stays in the map after a service has a new one; at least 1s, so that no packet
    /// in flight meets a foreign list [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub region_rest: Option<Period>,

    /// How long after a terminating endpoint has left all slices its pod counts as gone and its connections are reset
    /// [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub gone_grace: Option<Period>,

    /// First pause after a map could not be written; doubled up to --backoff-limit [default: 50ms]
    #[arg(long, value_name = "TIME")]
    pub backoff: Option<Period>,

    /// Longest pause after a map could not be written [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub backoff_limit: Option<Period>,

    /// After so long without a first list, `status` says what the agent is waiting for. Nothing is removed from the
    /// maps before every source has listed, however long that takes [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub list_timeout: Option<Period>,
}

impl Settings {
    /// These settings, and where they say nothing those of a file.
    ///
    /// # Errors
    /// If the file cannot be read or says something that is no setting: the error names file, key and line.
    pub fn or_file(self, file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "{} cannot be read: check the path after --config",
                file.display()
            )
        })?;
        let from_file: Self = serde_saphyr::from_str(&text).with_context(|| {
            format!(
                "{} is no list of settings: `waggle run --help` names them all",
                file.display()
            )
        })?;
        self.or(&from_file)
    }

    /// These settings, and where they say nothing the others.
    fn or(self, others: &Self) -> anyhow::Result<Self> {
        let mut merged = serde_json::to_value(others)?;
        let given = serde_json::to_value(self)?;
        if let (Some(merged), serde_json::Value::Object(given)) = (merged.as_object_mut(), given) {
            merged.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let merged: Self = serde_json::from_value(merged)?;
        if merged.manifests.is_some()
            && (merged.kubeconfig.is_some() || merged.api_server.is_some())
        {
            bail!(
                "manifests excludes kubeconfig and apiServer: a folder or an API server, not both"
            );
        }
        Ok(merged)
    }

    /// --node-name, else the host name.
    pub fn node_name(&self) -> String {
        self.node_name.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
    }
}

/// A span of time as people write it: `250ms`, `30s`, `5m`, `1h`; never zero-less, never without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let milliseconds = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
        match milliseconds {
            Some(milliseconds) => Ok(Self(Duration::from_millis(milliseconds))),
            None => Err(format!(
                "`{text}` is no time: write a whole number and ms, s, m or h, as in 30s"
            )),
        }
    }
}
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}
impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
