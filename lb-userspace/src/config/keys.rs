//! The file of settings: a flat list of keys, though the settings are several structs.
use std::{collections::BTreeMap, fmt::Write as _};

use clap::{Args, Command};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny},
};

use super::Settings;

/// Reads the text of a file. Each struct takes its own keys; that nobody takes one is found by itself.
#[expect(
    clippy::zero_sized_map_values,
    reason = "of a file's values only the keys are looked at"
)]
pub(super) fn read(text: &str) -> Result<Settings, serde_saphyr::Error> {
    serde_saphyr::from_str::<Option<BTreeMap<Key, IgnoredAny>>>(text)?;
    let mut settings: Settings = serde_saphyr::from_str(text)?;
    settings.node = serde_saphyr::from_str(text)?;
    Ok(settings)
}

/// A key that is a setting's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        let command = Settings::augment_args(Command::new("run"));
        if command
            .get_arguments()
            .any(|flag| camel(flag.get_id().as_str()) == key)
        {
            Ok(Self(key))
        } else {
            Err(D::Error::custom(format!("`{key}` is no setting")))
        }
    }
}

/// The flag `--node-name`, whose field is `node_name`, is called `nodeName` in the file.
fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        write!(camel, "{}{rest}", first.to_uppercase()).unwrap_or_default();
    }
    camel
}
