use super::*;
use crate::{
    agent::{Source, view::SourceView},
    datapath::devices::{
        attach::{Hook, How},
        clsact::Direction,
        device::Layer,
    },
};

fn hook(direction: Direction) -> Hook {
    Hook {
        direction,
        how: Some(How::Tcx),
        preference: None,
        error: None,
        foreign: Vec::new(),
    }
}

fn device(name: &str, hooks: Vec<Hook>) -> DeviceReport {
    DeviceReport {
        index: 2,
        name: name.to_owned(),
        kind: String::new(),
        layer: Some(Layer::Ethernet),
        bridge: None,
        masquerade_v4: None,
        masquerade_v6: None,
        not_attached: hooks.is_empty().then(|| "left out by --devices".to_owned()),
        hooks,
    }
}

/// An agent that has all it needs, with a device that it is to leave alone and a Service that does not fit.
fn ready() -> AgentState {
    let source = SourceView {
        source: Source::Services,
        listed: true,
        last_event_ms: None,
    };
    let hooks = Direction::ALL.map(hook);
    AgentState {
        settings: NodeOptions::default(),
        version: String::new(),
        pid: 1,
        node_name: "node1".to_owned(),
        uptime_seconds: 1,
        view: View {
            sources: vec![source],
            settled: true,
            refused: vec![Warning::new("Service default/web", "is too large", "wait")],
            ..View::default()
        },
        devices: vec![device("eth0", hooks.into()), device("lo", Vec::new())],
        cgroup_root: "/sys/fs/cgroup".to_owned(),
        socket_hooks: vec![SocketHook {
            name: "connect4".to_owned(),
            attached: true,
            error: None,
            foreign: 0,
        }],
        sweep: SweepReport::default(),
        destroyed_sockets: 0,
        kernel: KernelAbilities::default(),
        node_warnings: Vec::new(),
    }
}

#[test]
fn an_agent_is_ready_although_a_service_was_refused() {
    assert_eq!(ready().obstacles(), [""; 0]);
    assert!(ready().is_ready());
}

#[test]
fn whatever_is_missing_keeps_an_agent_from_being_ready_and_is_named() {
    type Break = fn(&mut AgentState);
    let cases: [(&str, Break); 7] = [
        ("no source", |state| state.view.sources.clear()),
        ("services have not been listed", |state| {
            state.view.sources[0].listed = false;
        }),
        ("the maps are 3 services behind", |state| {
            state.view.settled = false;
            state.view.pending = 3;
        }),
        ("not attached to eth0 egress: EPERM", |state| {
            let hook = &mut state.devices[0].hooks[1];
            hook.how = None;
            hook.error = Some("EPERM".to_owned());
        }),
        ("not attached to eth0 ingress", |state| {
            state.devices[0].hooks[0].how = None;
        }),
        ("connect4 not attached to /sys/fs/cgroup: EBUSY", |state| {
            state.socket_hooks[0].attached = false;
            state.socket_hooks[0].error = Some("EBUSY".to_owned());
        }),
        ("silent flows are not forgotten: E2BIG", |state| {
            state.sweep.error = Some("E2BIG".to_owned());
        }),
    ];
    for (named, break_it) in cases {
        let mut state = ready();
        break_it(&mut state);
        assert!(!state.is_ready(), "{named}");
        let obstacles = state.obstacles();
        assert_eq!(obstacles.len(), 1, "{obstacles:?}");
        assert!(obstacles[0].contains(named), "{named}: {obstacles:?}");
    }
}
