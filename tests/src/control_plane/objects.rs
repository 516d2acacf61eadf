//! The objects of a test's cluster, and the parts of scheduler and kubelet.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::{ControlPlane, poll};

/// The namespace of all pods here.
const NAMESPACE: &str = "default";

/// How long the controllers may take, on a machine that is busy with other tests.
const CONTROLLED_WITHIN: Duration = Duration::from_secs(30);

/// What the EndpointSlices say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// New connections go there.
    Ready,
    /// Its pod is not ready and stays.
    NotReady,
    /// Its pod is going but still answers.
    Terminating,
    /// Its pod is going and answers no more.
    Terminated,
}

/// A Service's endpoints by address, of all its slices together.
pub type Endpoints = BTreeMap<String, EndpointState>;

impl ControlPlane {
    /// Applies documents of YAML or JSON as `kubectl apply --server-side` does.
    pub fn apply(&self, documents: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(documents)
            .context("the documents to apply are not readable")?;
        self.run(|client| async move {
            for document in documents {
                let object: DynamicObject = serde_json::from_value(document)?;
                let name = object.name_any();
                apply(&client, &object)
                    .await
                    .with_context(|| format!("cannot apply {name}"))?;
            }
            Ok(())
        })
    }

    /// Makes a Node with these addresses. Pods on a Node that does not exist get no endpoints.
    pub fn create_node(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| json!({ "type": "InternalIP", "address": address }))
            .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "addresses": addresses },
        }))?;
        self.run(|client| async move {
            Api::all(client)
                .create(&PostParams::default(), &node)
                .await?;
            Ok(())
        })
        .with_context(|| format!("cannot create node {name}"))
    }

    /// Makes a Pod that is bound to a node and has no address yet.
    pub fn create_pod(&self, name: &str, node: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "nodeName": node,
                "containers": [{ "name": "nginx", "image": "nginx", "ports": [{ "containerPort": 80 }] }],
            },
        }))?;
        self.with_pods(|pods| async move {
            pods.create(&PostParams::default(), &pod).await?;
            Ok(())
        })
        .with_context(|| format!("cannot create pod {name}"))
    }

    /// The Pods that a label selector such as `app=nginx` matches, terminating ones included.
    pub fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        let list = ListParams::default().labels(selector);
        self.with_pods(|pods| async move { Ok(pods.list(&list).await?.items) })
            .context("cannot list pods")
    }

    /// Binds a Pod to a node, as the scheduler does.
    pub fn bind_pod(&self, name: &str, node: &str) -> Result<()> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": name },
            "target": { "kind": "Node", "name": node },
        });
        let owned = name.to_owned();
        self.with_pods(|pods| async move {
            let _bound: Value = pods
                .create_subresource("binding", &owned, &PostParams::default(), &binding)
                .await?;
            Ok(())
        })
        .with_context(|| format!("cannot bind pod {name} to {node}"))
    }

    /// Says of a Pod that it runs and is ready at these addresses, as the kubelet does.
    pub fn report_running(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let all: Vec<_> = addresses
            .iter()
            .map(|address| json!({ "ip": address }))
            .collect();
        self.patch_status(
            name,
            json!({
                "phase": "Running",
                "podIP": addresses.first(),
                "podIPs": all,
                "conditions": [{ "type": "Ready", "status": "True" }],
            }),
        )
    }

    /// Says of a Pod whether its readiness probe succeeds, as the kubelet does.
    pub fn report_ready(&self, name: &str, is_ready: bool) -> Result<()> {
        let status = if is_ready { "True" } else { "False" };
        self.patch_status(
            name,
            json!({ "conditions": [{ "type": "Ready", "status": status }] }),
        )
    }

    /// Deletes a Pod as a person does: it turns terminating and stays until [`Self::remove_pod`],
    /// for only the kubelet knows when its processes have ended.
    pub fn terminate_pod(&self, name: &str) -> Result<()> {
        self.delete_with_grace(name, 30)
    }

    /// Removes a Pod whose processes have ended, as the kubelet does.
    pub fn remove_pod(&self, name: &str) -> Result<()> {
        self.delete_with_grace(name, 0)
    }

    /// Gives a Service a condition of its status without the time that the schema wants, as Kubernetes' conformance tests
    /// do. The API server takes it and gives it to all who watch.
    pub fn add_condition_without_time(&self, service: &str) -> Result<()> {
        let condition = json!({
            "type": "Tested", "status": "True", "reason": "test", "message": "test", "lastTransitionTime": null,
        });
        let patch = json!([{"op": "add", "path": "/status/conditions", "value": [condition]}]);
        let request = http::Request::patch(format!(
            "/api/v1/namespaces/{NAMESPACE}/services/{service}/status"
        ))
        .header("content-type", "application/json-patch+json")
        .body(serde_json::to_vec(&patch)?)?;
        self.run(|client| async move {
            let patched: Value = client.request(request).await?;
            let written = &patched["status"]["conditions"][0]["lastTransitionTime"];
            ensure!(written.is_null(), "the API server wrote {written}");
            Ok(())
        })
    }

    /// Deletes a Service; its controllers delete its EndpointSlices.
    pub fn delete_service(&self, name: &str) -> Result<()> {
        let owned = name.to_owned();
        self.run(|client| async move {
            let services = Api::<Service>::namespaced(client, NAMESPACE);
            drop(services.delete(&owned, &DeleteParams::default()).await?);
            Ok(())
        })
        .with_context(|| format!("cannot delete service {name}"))
    }

    /// What the EndpointSlices of a Service say at this moment.
    pub fn endpoints(&self, service: &str) -> Result<Endpoints> {
        let list = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = self.run(|client| async move {
            Ok(Api::<EndpointSlice>::namespaced(client, NAMESPACE)
                .list(&list)
                .await?
                .items)
        });
        let slices = slices.context("cannot list EndpointSlices")?;
        let mut endpoints = Endpoints::new();
        for endpoint in slices
            .iter()
            .filter_map(|slice| slice.endpoints.as_ref())
            .flatten()
        {
            for address in &endpoint.addresses {
                endpoints.insert(address.clone(), state(endpoint));
            }
        }
        Ok(endpoints)
    }

    /// Waits until the EndpointSlices of a Service say exactly this.
    pub fn wait_for_endpoints(
        &self,
        service: &str,
        wanted: &[(&str, EndpointState)],
    ) -> Result<()> {
        let wanted: Endpoints = wanted
            .iter()
            .map(|(address, state)| ((*address).to_owned(), *state))
            .collect();
        let mut last = Endpoints::new();
        poll(
            &format!("{service} has the endpoints {wanted:?}"),
            CONTROLLED_WITHIN,
            || {
                last = self.endpoints(service)?;
                Ok((last == wanted).then_some(()))
            },
        )
        .with_context(|| format!("{service} has the endpoints {last:?}"))
    }

    /// The API server makes these namespaces a moment after it is ready.
    pub(super) fn wait_for_namespaces(&self) -> Result<()> {
        for name in ["kube-system", NAMESPACE] {
            poll(
                &format!("namespace {name} is there"),
                CONTROLLED_WITHIN,
                || {
                    self.run(|client| async move {
                        let namespace = Api::<Namespace>::all(client).get_opt(name).await?;
                        Ok(namespace.map(drop))
                    })
                },
            )?;
        }
        Ok(())
    }

    fn patch_status(&self, name: &str, status: Value) -> Result<()> {
        let owned = name.to_owned();
        self.with_pods(|pods| async move {
            let patch = Patch::Merge(json!({ "status": status }));
            pods.patch_status(&owned, &PatchParams::default(), &patch)
                .await?;
            Ok(())
        })
        .with_context(|| format!("cannot patch the status of pod {name}"))
    }

    fn delete_with_grace(&self, name: &str, grace_seconds: u32) -> Result<()> {
        let owned = name.to_owned();
        let parameters = DeleteParams::default().grace_period(grace_seconds);
        self.with_pods(|pods| async move {
            drop(pods.delete(&owned, &parameters).await?);
            Ok(())
        })
        .with_context(|| format!("cannot delete pod {name}"))
    }

    fn with_pods<T, F>(&self, work: impl FnOnce(Api<Pod>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.run(|client| work(Api::namespaced(client, NAMESPACE)))
    }
}

async fn apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let Some(types) = &object.types else {
        bail!("it has no kind")
    };
    let (resource, capabilities) = pinned_kind(client, &types.try_into()?).await?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| NAMESPACE.to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    let parameters = PatchParams::apply("waggle-tests").force();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(object))
        .await?;
    Ok(())
}

/// Absent conditions mean ready and not terminating (`EndpointConditions` of discovery/v1).
fn state(endpoint: &Endpoint) -> EndpointState {
    let conditions = endpoint.conditions.as_ref();
    let is_ready = conditions.and_then(|all| all.ready).unwrap_or(true);
    let is_serving = conditions.and_then(|all| all.serving).unwrap_or(is_ready);
    let is_terminating = conditions.and_then(|all| all.terminating).unwrap_or(false);
    match (is_terminating, is_ready, is_serving) {
        (false, true, _) => EndpointState::Ready,
        (false, false, _) => EndpointState::NotReady,
        (true, _, true) => EndpointState::Terminating,
        (true, _, false) => EndpointState::Terminated,
    }
}
