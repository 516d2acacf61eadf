//! A Service and its endpoints in two lines.
//!
//! Endpoints are named by their pods, with what is said of them behind slashes:
//! `a1`, `b2/unready`, `a2/terminating` (and serving), `a3/gone` (terminating, not serving), `b1/zone-a`, `b1/node1`.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::objects::Object;

/// A Service as a table tells it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Its spec, YAML in flow style; each `targetPort` is a number.
    pub spec: &'static str,
    /// The addresses that a load balancer has, as YAML of `status.loadBalancer.ingress`.
    pub ingress: &'static str,
    /// Its endpoints; those behind `|` are in another slice.
    pub endpoints: &'static str,
}

impl Case {
    /// The Service and its slices of both families.
    pub fn objects(&self) -> Result<Vec<Object>> {
        let mut spec: Value = serde_saphyr::from_str(self.spec)
            .with_context(|| format!("the spec of {}", self.name))?;
        if let Some(addresses) = spec["clusterIPs"].as_array().cloned() {
            spec["clusterIP"] = addresses.first().cloned().unwrap_or_default();
            spec["ipFamilyPolicy"] = "PreferDualStack".into();
        }
        let mut objects = Vec::new();
        for (family, kind) in [("4", "IPv4"), ("6", "IPv6")] {
            for (number, endpoints) in self.endpoints.split('|').enumerate() {
                let slice = json!({
                    "metadata": {
                        "name": format!("{}-{family}-{number}", self.name),
                        "labels": {"kubernetes.io/service-name": self.name},
                    },
                    "addressType": kind,
                    "ports": slice_ports(&spec),
                    "endpoints": endpoints
                        .split_whitespace()
                        .map(|text| endpoint(text, kind == "IPv6"))
                        .collect::<Result<Vec<_>>>()?,
                });
                objects.push(Object::Slice(serde_json::from_value(slice)?));
            }
        }
        let mut service = json!({"metadata": {"name": self.name}, "spec": spec});
        if !self.ingress.is_empty() {
            let ingress: Value = serde_saphyr::from_str(self.ingress)?;
            service["status"] = json!({"loadBalancer": {"ingress": ingress}});
        }
        objects.insert(0, Object::Service(serde_json::from_value(service)?));
        Ok(objects)
    }
}

fn slice_ports(spec: &Value) -> Vec<Value> {
    let ports = spec["ports"].as_array().cloned().unwrap_or_default();
    let of_slice = ports.iter().map(|port| {
        json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "port": port["targetPort"],
            "protocol": port["protocol"].as_str().unwrap_or("TCP"),
        })
    });
    of_slice.collect()
}

/// Reads `b2/unready/zone-a`.
fn endpoint(text: &str, is_v6: bool) -> Result<Value> {
    let mut words = text.split('/');
    let pod = words.next().unwrap_or_default();
    let (letter, number) = pod.split_at_checked(1).context("a pod")?;
    let node = if letter == "a" { 1 } else { 2 };
    let address = if is_v6 {
        format!("fd00:10:244:{node}::1{number}")
    } else {
        format!("10.244.{node}.1{number}")
    };
    let mut conditions = json!({"ready": true, "serving": true, "terminating": false});
    let mut hints = json!({});
    for word in words {
        match word {
            "unready" => conditions = json!({"ready": false, "serving": false}),
            "terminating" => {
                conditions = json!({"ready": false, "serving": true, "terminating": true});
            }
            "gone" => conditions = json!({"ready": false, "serving": false, "terminating": true}),
            "unsaid" => conditions = json!({}),
            node if node.starts_with("node") => hints["forNodes"] = json!([{ "name": node }]),
            zone => hints["forZones"] = json!([{ "name": zone }]),
        }
    }
    Ok(json!({
        "addresses": [address],
        "nodeName": format!("node{node}"),
        "conditions": conditions,
        "hints": hints,
    }))
}
