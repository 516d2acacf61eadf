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
    let cluster = ControlPlane::start().unwrap();
    cluster.create_node("node1", &["172.18.0.11"]).unwrap();
    cluster.create_node("node2", &["172.18.0.12"]).unwrap();
    cluster.apply(MY_SERVICE).unwrap();
    let (nginx, web) = (("app", "nginx"), ("tier", "web"));
    for (pod, node, address, labels) in [
        ("selected", "node1", "10.244.1.2", &[nginx][..]),
        ("more", "node2", "10.244.2.4", &[nginx, web]),
        ("fewer", "node2", "10.244.2.5", &[web]),
        ("other", "node2", "10.244.2.6", &[("app", "apache")]),
    ] {
        cluster.create_pod(pod, node, labels).unwrap();
        cluster.report_running(pod, &[address]).unwrap();
    }
    let (selected, more) = ("10.244.1.2", "10.244.2.4");
    let wait = |wanted: &[_]| cluster.wait_for_endpoints("my-service", wanted).unwrap();
    wait(&[(selected, Ready), (more, Ready)]);

    cluster.report_ready("more", false).unwrap();
    wait(&[(selected, Ready), (more, NotReady)]);
    cluster.report_ready("more", true).unwrap();
    cluster.terminate_pod("selected").unwrap();
    wait(&[(selected, Terminating), (more, Ready)]);
    cluster.report_ready("selected", false).unwrap();
    wait(&[(selected, Terminated), (more, Ready)]);
    cluster.remove_pod("selected").unwrap();
    wait(&[(more, Ready)]);
}

#[test]
fn second_api_server_shows_what_the_first_was_told() {
    let cluster = ControlPlane::start().unwrap();
    let mut second = cluster.another_api_server().unwrap();
    cluster.apply(MY_SERVICE).unwrap();
    second.start().unwrap();
    assert_eq!(second.services().unwrap(), ["kubernetes", "my-service"]);
}
