//! Each of Kubernetes' rules for Services, asked of Waggle and of kube-proxy in nftables mode: clients meet the same.
//! Needs the programs of the control plane: `cargo xtask test peers`.

use anyhow::{Result, ensure};
use tests::peers::{Case, KNOWN, Peers};
use tests::require_root;

const fn case(name: &'static str, spec: &'static str, endpoints: &'static str) -> Case {
    Case {
        name,
        spec,
        ingress: "",
        endpoints,
    }
}

const fn balanced(
    name: &'static str,
    spec: &'static str,
    ingress: &'static str,
    endpoints: &'static str,
) -> Case {
    Case {
        name,
        spec,
        ingress,
        endpoints,
    }
}

const CASES: &[Case] = &[
    case(
        "cluster-ip",
        "{clusterIPs: [10.96.1.1, 'fd00:10:96::101'],
          ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, protocol: UDP, port: 53, targetPort: 5353}]}",
        "a1 b1 b2/unready",
    ),
    case(
        "two-slices",
        "{clusterIP: 10.96.1.2, ports: [{name: http, port: 80, targetPort: 8080}]}",
        "a1 b1 | b2 b1",
    ),
    case(
        "node-port",
        "{type: NodePort, clusterIPs: [10.96.1.3, 'fd00:10:96::103'],
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30103},
                  {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30104}]}",
        "a1 b1",
    ),
    case(
        "node-port-local",
        "{type: NodePort, clusterIPs: [10.96.1.4, 'fd00:10:96::104'],
          externalTrafficPolicy: Local,
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30105},
                  {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30106}]}",
        "a1 a2 b1",
    ),
    case(
        "node-port-elsewhere",
        "{type: NodePort, clusterIPs: [10.96.1.5, 'fd00:10:96::105'],
          externalTrafficPolicy: Local,
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30107},
                  {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30108}]}",
        "b1 b2",
    ),
    case(
        "inside-local",
        "{clusterIP: 10.96.1.6, internalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]}",
        "a1 b1",
    ),
    case(
        "inside-elsewhere",
        "{clusterIP: 10.96.1.7, internalTrafficPolicy: Local,
          ports: [{name: a, port: 80, targetPort: 8080}, {name: b, protocol: UDP, port: 53, targetPort: 5353}]}",
        "b1 b2",
    ),
    case(
        "nobody",
        "{type: NodePort, clusterIPs: [10.96.1.8, 'fd00:10:96::108'],
          externalIPs: [203.0.113.8],
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30109},
                  {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30110}]}",
        "a1/unready b1/gone",
    ),
    case(
        "terminating",
        "{type: NodePort, clusterIP: 10.96.1.9, externalTrafficPolicy: Local,
          ports: [{port: 80, targetPort: 8080, nodePort: 30111}]}",
        "a1/terminating a2/gone b1 b2/terminating",
    ),
    case(
        "all-terminating",
        "{clusterIP: 10.96.1.10, ports: [{port: 80, targetPort: 8080}]}",
        "a1/terminating a2/gone b1/terminating",
    ),
    case(
        "zones",
        "{clusterIP: 10.96.1.11, ports: [{port: 80, targetPort: 8080}]}",
        "a1/zone-a a2/zone-b b1/zone-a b2/zone-b",
    ),
    case(
        "zones-but-one",
        "{clusterIP: 10.96.1.12, ports: [{port: 80, targetPort: 8080}]}",
        "a1/zone-a b1/zone-b b2",
    ),
    case(
        "zones-of-others",
        "{clusterIP: 10.96.1.13, ports: [{port: 80, targetPort: 8080}]}",
        "a1/zone-c b1/zone-b",
    ),
    case(
        "nodes",
        "{clusterIP: 10.96.1.14, ports: [{port: 80, targetPort: 8080}]}",
        "a1/node1/zone-a a2/node2/zone-a b1/node1/zone-b b2/node2/zone-a",
    ),
    case(
        "external-ips",
        "{clusterIPs: [10.96.1.15, 'fd00:10:96::115'],
          externalIPs: [203.0.113.15, 'fd00:203:113::15'],
          ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, protocol: UDP, port: 53, targetPort: 5353}]}",
        "a1 b1",
    ),
    case(
        "external-ips-local",
        "{clusterIP: 10.96.1.16, externalIPs: [203.0.113.16], externalTrafficPolicy: Local,
          ports: [{name: http, port: 80, targetPort: 8080}]}",
        "a2 b1",
    ),
    case(
        "external-ips-elsewhere",
        "{clusterIP: 10.96.1.17, externalIPs: [203.0.113.17], externalTrafficPolicy: Local,
          internalTrafficPolicy: Local,
          ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, protocol: UDP, port: 53, targetPort: 5353}]}",
        "b1 b2",
    ),
    balanced(
        "balancer",
        "{type: LoadBalancer, clusterIPs: [10.96.1.18, 'fd00:10:96::118'],
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30118}]}",
        "[{ip: 203.0.113.18}, {ip: 'fd00:203:113::18', ipMode: VIP}, {ip: 203.0.113.118, ipMode: Proxy}, {hostname: example.org}]",
        "a1 b1",
    ),
    balanced(
        "balancer-local",
        "{type: LoadBalancer, clusterIP: 10.96.1.19, externalTrafficPolicy: Local, allocateLoadBalancerNodePorts: false,
          healthCheckNodePort: 30119, ports: [{name: http, port: 80, targetPort: 8080}]}",
        "[{ip: 203.0.113.19}]",
        "a1 b1",
    ),
    balanced(
        "balancer-elsewhere",
        "{type: LoadBalancer, clusterIP: 10.96.1.20, externalTrafficPolicy: Local, allocateLoadBalancerNodePorts: false,
          healthCheckNodePort: 30120, ports: [{name: http, port: 80, targetPort: 8080}]}",
        "[{ip: 203.0.113.20}]",
        "b1 b2/terminating a1/unready",
    ),
    balanced(
        "guarded",
        "{type: LoadBalancer, clusterIPs: [10.96.1.23, 'fd00:10:96::123'],
          loadBalancerSourceRanges: [192.168.77.48/29, 192.168.77.11/32],
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30123},
                  {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30124}]}",
        "[{ip: 203.0.113.23}, {ip: 'fd00:203:113::23'}]",
        "a1 b1",
    ),
    balanced(
        "guarded-nobody",
        "{type: LoadBalancer, clusterIP: 10.96.1.24, loadBalancerSourceRanges: [10.244.0.0/16],
          ports: [{name: http, port: 80, targetPort: 8080}]}",
        "[{ip: 203.0.113.24}]",
        "a1/unready",
    ),
    case(
        "sticky",
        "{clusterIP: 10.96.1.21, sessionAffinity: ClientIP,
          ports: [{name: a, port: 80, targetPort: 8080}, {name: b, protocol: UDP, port: 53, targetPort: 5353}]}",
        "a1 a2 b1 b2",
    ),
    case(
        "unsaid",
        "{clusterIP: 10.96.1.22, ports: [{name: a, port: 80, targetPort: 8081}]}",
        "a1/unsaid b1/unready",
    ),
];

#[test]
fn clients_meet_the_same_as_with_kube_proxy() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut peers = Peers::start()?;
    let mut objects = Vec::new();
    for case in CASES {
        objects.extend(case.objects()?);
    }
    let refused = peers.publish(objects)?;
    ensure!(refused.is_empty(), "the API server refuses {refused:#?}");
    let questions = peers.questions(&peers.services()?);
    let differences = peers.compare(&questions)?;
    let said: Vec<_> = differences.iter().map(ToString::to_string).collect();
    ensure!(
        said.is_empty(),
        "{} of {} questions:\n{}\n{}",
        said.len(),
        questions.len(),
        said.join("\n"),
        peers.report()
    );
    Ok(())
}

#[test]
fn differences_that_are_meant_are_explained() {
    let page = include_str!("../../docs/kube-proxy.md");
    for known in KNOWN {
        let row = format!("| `{}` |", known.name);
        assert!(page.contains(&row), "docs/kube-proxy.md has no row {row}");
    }
}
