//! The control plane that the other suites of this name stand on does what a cluster's does.
//! Needs its programs: `cargo xtask test kubernetes`.

use tests::control_plane::ControlPlane;
use tests::control_plane::EndpointState::{NotReady, Ready, Terminated, Terminating};

const MY_SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: my-service
spec:
  clusterIP: 10.103.145.6
  selector:
    app: nginx
  ports:
  - port: 80
    targetPort: 80
";

#[test]
fn controllers_make_slices_from_labelled_pods() {
    if !tests::require_root() {
        return;
    }
    let control_plane = ControlPlane::start().unwrap();
    control_plane
        .create_node("node1", &["172.18.0.11"])
        .unwrap();
    control_plane
        .create_node("node2", &["172.18.0.12"])
        .unwrap();
    control_plane.apply(MY_SERVICE).unwrap();
    let (nginx, web) = (("app", "nginx"), ("tier", "web"));
    for (pod, node, address, labels) in [
        ("selected", "node1", "10.244.1.2", &[nginx][..]),
        ("more", "node2", "10.244.2.4", &[nginx, web]),
        ("fewer", "node2", "10.244.2.5", &[web]),
        ("other", "node2", "10.244.2.6", &[("app", "apache")]),
    ] {
        control_plane.create_pod(pod, node, labels).unwrap();
        control_plane.report_running(pod, &[address]).unwrap();
    }
    let (selected, more) = ("10.244.1.2", "10.244.2.4");
    let wait = |wanted: &[_]| {
        control_plane
            .wait_for_endpoints("my-service", wanted)
            .unwrap();
    };
    wait(&[(selected, Ready), (more, Ready)]);

    control_plane.report_ready("more", false).unwrap();
    wait(&[(selected, Ready), (more, NotReady)]);
    control_plane.report_ready("more", true).unwrap();
    control_plane.terminate_pod("selected").unwrap();
    wait(&[(selected, Terminating), (more, Ready)]);
    control_plane.report_ready("selected", false).unwrap();
    wait(&[(selected, Terminated), (more, Ready)]);
    control_plane.remove_pod("selected").unwrap();
    wait(&[(more, Ready)]);
}

#[test]
fn api_servers_come_and_go_and_know_the_agents_rights() {
    if !tests::require_root() {
        return;
    }
    let control_plane = ControlPlane::start().unwrap();
    let mut second = control_plane.another_api_server().unwrap();
    control_plane.apply(MY_SERVICE).unwrap();
    second.start().unwrap();
    assert_eq!(second.services().unwrap(), ["kubernetes", "my-service"]);

    for (path, status) in [
        ("/api/v1/services", 200),
        ("/api/v1/nodes", 200),
        ("/apis/discovery.k8s.io/v1/endpointslices", 200),
        ("/apis/networking.k8s.io/v1/servicecidrs", 200),
        ("/api/v1/secrets", 403),
        ("/api/v1/pods", 403),
    ] {
        assert_eq!(second.status_for_agent(path).unwrap(), status, "{path}");
    }

    second.stop();
    assert!(second.services().is_err());
    second.start().unwrap();
    assert_eq!(second.services().unwrap(), ["kubernetes", "my-service"]);
}
