//! The devices of the node in `waggle status`.
use super::table::Rows;
use crate::datapath::devices::{
    attach::{Foreign, Hook, How},
    clsact::Direction,
    monitor::DeviceReport,
};

/// A row for each device.
pub(super) fn rows(devices: &[DeviceReport], wide: bool) -> Rows {
    let mut header = vec!["DEVICE", "KIND", "LAYER", "INGRESS", "EGRESS"];
    if wide {
        header.extend(["INDEX", "BRIDGE", "MASQUERADE-V4", "MASQUERADE-V6"]);
    }
    let mut rows = Rows::new(&header);
    for device in devices {
        let side = |direction| {
            let hook = device.hooks.iter().find(|hook| hook.direction == direction);
            match (hook, &device.not_attached) {
                (Some(hook), _) => hook_text(hook),
                (None, Some(reason)) => format!("no: {reason}"),
                (None, None) => String::new(),
            }
        };
        let mut row = vec![
            device.name.clone(),
            device.kind.clone(),
            device
                .layer
                .map_or_else(String::new, |layer| format!("{layer:?}").to_lowercase()),
            side(Direction::Ingress),
            side(Direction::Egress),
        ];
        if wide {
            row.extend([
                device.index.to_string(),
                device.bridge.clone().unwrap_or_default(),
                device
                    .masquerade_v4
                    .map_or_else(String::new, |ip| ip.to_string()),
                device
                    .masquerade_v6
                    .map_or_else(String::new, |ip| ip.to_string()),
            ]);
        }
        rows.push(row);
    }
    rows
}

fn hook_text(hook: &Hook) -> String {
    match (&hook.how, &hook.error) {
        (Some(How::Tcx), _) => "tcx".to_owned(),
        (Some(How::Clsact), _) => format!("clsact pref {}", hook.preference.unwrap_or_default()),
        (None, Some(error)) => format!("no: {error}"),
        (None, None) => String::new(),
    }
}

/// Whose programs stand beside ours.
pub(super) fn foreign(devices: &[DeviceReport]) -> Vec<String> {
    let mut lines = Vec::new();
    for device in devices {
        for hook in &device.hooks {
            for Foreign {
                how,
                name,
                id,
                before_ours,
            } in &hook.foreign
            {
                let place = if *before_ours { "before" } else { "after" };
                lines.push(format!(
                    "{} {}: {name} ({how:?}{}) runs {place} ours",
                    device.name,
                    hook.direction.name(),
                    id.map_or_else(String::new, |id| format!(", program {id}")),
                ));
            }
        }
    }
    lines
}
