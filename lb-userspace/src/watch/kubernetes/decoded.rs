//! An object of the watch, readable or not.
//!
//! kube decodes a list as one value, so that an error in one object would fail the whole list. Here the error is a value
//! that takes the place of the object.
use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::{
    convert,
    model::{ObjectName, ServiceName, Unreadable, Warning},
    objects::Object,
};

/// An object, or why it cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Decoded<T> {
    /// What kube's watcher needs.
    metadata: ObjectMeta,
    pub(super) object: Result<T, Unreadable>,
}

impl<'de, T: Object> Deserialize<'de> for Decoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            ..ObjectMeta::default()
        };
        // A value without a name is not an object of the API.
        let Some(name) = metadata.name.clone() else {
            return Err(D::Error::custom(format!("a {} without a name", T::KIND)));
        };
        let name = ObjectName::new(metadata.namespace.as_deref().unwrap_or("default"), name);
        let labels = &value["metadata"]["labels"];
        let service = match T::KIND {
            "Service" => Some(name.clone()),
            _ => labels[convert::SERVICE_NAME_LABEL]
                .as_str()
                .map(|service| ServiceName::new(&name.namespace, service)),
        };
        let object = T::deserialize(&value).map_err(|error| Unreadable {
            warning: Warning::new(
                format!("{} {name}", T::KIND),
                format!("cannot be read: {error}; its last good state stays in use"),
                "correct the object, or report a field that the agent ought to read",
            ),
            uid: metadata.uid.clone().unwrap_or_default(),
            name,
            service,
        });
        Ok(Self { metadata, object })
    }
}

impl<T: Object> Resource for Decoded<T> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<T> Decoded<T> {
    /// Its name.
    pub(super) fn name(&self) -> ObjectName {
        let namespace = self.metadata.namespace.as_deref().unwrap_or("default");
        ObjectName::new(namespace, self.metadata.name.clone().unwrap_or_default())
    }
}
