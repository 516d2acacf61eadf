//! Services with their status and slices, made through the API.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;

/// All objects of the tests are here.
const NAMESPACE: &str = "default";

/// How long a deleted object may stay.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A Service or one of its slices.
#[derive(Clone, Debug)]
pub enum Object {
    /// With its status, if it has one.
    Service(Box<Service>),
    /// A slice.
    Slice(Box<EndpointSlice>),
}

/// Reads documents of YAML.
pub fn parse(documents: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(documents).context("the objects are not readable")?;
    let objects = documents.into_iter().map(|document| {
        Ok(match document["kind"].as_str() {
            Some("Service") => Object::Service(serde_json::from_value(document)?),
            _ => Object::Slice(serde_json::from_value(document)?),
        })
    });
    objects.collect()
}

/// Creates objects; gives back what the API server said of those that it refused.
pub(super) fn create(control_plane: &ControlPlane, objects: Vec<Object>) -> Result<Vec<String>> {
    control_plane.run(|client| async move {
        let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
        let slices = Api::<EndpointSlice>::namespaced(client, NAMESPACE);
        let parameters = PostParams::default();
        let mut refused = Vec::new();
        for object in objects {
            let result = match &object {
                Object::Service(service) => match services.create(&parameters, service).await {
                    Ok(created) => put_status(&services, &created.name_any(), service).await,
                    Err(error) => Err(error),
                },
                Object::Slice(slice) => slices.create(&parameters, slice).await.map(drop),
            };
            match result {
                Ok(()) => {}
                Err(kube::Error::Api(status)) => refused.push(status.message),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(refused)
    })
}

/// The API server takes a status only by itself.
async fn put_status(
    services: &Api<Service>,
    name: &str,
    wanted: &Service,
) -> Result<(), kube::Error> {
    if let Some(status) = &wanted.status {
        let patch = Patch::Merge(json!({ "status": status }));
        services
            .patch_status(name, &PatchParams::default(), &patch)
            .await?;
    }
    Ok(())
}

/// The Services, as the API server has completed them.
pub(super) fn services(control_plane: &ControlPlane) -> Result<Vec<Service>> {
    control_plane.run(|client| async move {
        let services = Api::<Service>::namespaced(client, NAMESPACE);
        Ok(services.list(&ListParams::default()).await?.items)
    })
}

/// The slices.
pub(super) fn slices(control_plane: &ControlPlane) -> Result<Vec<EndpointSlice>> {
    control_plane.run(|client| async move {
        let slices = Api::<EndpointSlice>::namespaced(client, NAMESPACE);
        Ok(slices.list(&ListParams::default()).await?.items)
    })
}

/// Deletes all Services and slices but those of `kubernetes`.
pub(super) fn delete_all(control_plane: &ControlPlane) -> Result<()> {
    control_plane.run(|client| async move {
        let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
        let slices = Api::<EndpointSlice>::namespaced(client, NAMESPACE);
        let others = ListParams::default().fields("metadata.name!=kubernetes");
        let parameters = DeleteParams::default();
        drop(slices.delete_collection(&parameters, &others).await?);
        // Their finalizers would wait for a cloud.
        drop(services.delete_collection(&parameters, &others).await?);
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        while !services.list(&others).await?.items.is_empty() {
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "Services stay though they are deleted"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
}
