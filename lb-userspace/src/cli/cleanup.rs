//! `waggle cleanup`: everything of ours out of the kernel.
use anyhow::{Context as _, Result};
use clap::Args;

use super::{Paths, table};
use crate::datapath::{
    cleanup::{Removed, remove_everything, remove_root},
    node::kernel::{self, Unable},
    object::lock::NodeLock,
};

/// What `cleanup` is asked.
#[derive(Args, Debug)]
#[command(after_help = "\
Stop the agent first. A second call finds nothing and succeeds. To restart or upgrade the agent no clean-up is needed:
the kernel goes on serving meanwhile.")]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
}

/// Removes everything and says what it was.
pub(super) fn cleanup(arguments: &Arguments) -> Result<()> {
    if !kernel::may_load() {
        return Err(Unable::NotRoot.into());
    }
    let root = arguments.paths.root();
    let lock = NodeLock::acquire(&arguments.paths.run_dir, root.path())
        .context("cannot clean up while an agent runs")?;
    let removed = remove_everything(&root, &arguments.paths.run_dir)?;
    drop(lock);
    remove_root(&root)?;
    let text = if removed == Removed::default() {
        format!("nothing of ours below {}\n", root.path().display())
    } else {
        let mut text = String::new();
        for (what, names) in [
            ("detached from devices", &removed.devices),
            ("detached socket hooks", &removed.socket_hooks),
            ("removed maps", &removed.maps),
        ] {
            if !names.is_empty() {
                text.extend([what, ": ", &names.join(" "), "\n"]);
            }
        }
        text
    };
    Ok(table::print(&text)?)
}
