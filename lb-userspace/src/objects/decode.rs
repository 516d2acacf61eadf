//! Fields in which null counts as absent.
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// A field whose default stands for null.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list without the items that are null.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let items: Vec<Option<T>> = or_default(deserializer)?;
    Ok(items.into_iter().flatten().collect())
}

/// A map without the keys whose values are null.
pub(super) fn map<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let entries: BTreeMap<String, Option<String>> = or_default(deserializer)?;
    let present = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Ok(present.collect())
}

/// A time (RFC 3339). Any other value counts as absent, because nothing that is served depends on it.
pub(super) fn moment<'de, D>(deserializer: D) -> Result<Option<Timestamp>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Other(IgnoredAny),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Text(text) => text.parse().ok(),
        Written::Other(_) => None,
    })
}
