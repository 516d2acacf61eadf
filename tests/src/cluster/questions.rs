//! Golden questions: what `waggle trace` answers, as its command line, over a folder of manifests. Needs no root.
//!
//! ```text
//! -- folder examples/my-service --    the folder has the files of that folder of the repository
//! -- write web.yaml --                the folder has this file, with the section's text
//! -- node --node-ip 192.0.2.1 --      further arguments, for all that follows
//! -- ask --in pod ... --              what `waggle trace --manifests FOLDER` and these arguments print
//! ```
//!
//! What goes to standard error stands below, with `! ` before each line; an exit status that is not 0 is the last line.
//! Commands are started in the folder. With `UPDATE_EXPECT=1` the answers are rewritten: read the difference.
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::agent_process::program,
    cluster::scenario::{Section, play_by, repository},
    machine::scratch::Scratch,
};

/// Asks what a file says, and compares the answers, or rewrites them where it is told to.
///
/// # Errors
/// If an answer is not the expected one: the error shows both.
pub fn play(file: &Path) -> Result<()> {
    let folder = Scratch::new()?;
    let mut node = Vec::new();
    play_by(file, |section| step(section, folder.path(), &mut node))
}

/// Does what a section says; the text that came, if it is a question.
fn step(section: &Section, folder: &Path, node: &mut Vec<String>) -> Result<Option<String>> {
    let (verb, words) = section.head.split_first().context("a section's head")?;
    match (verb.as_str(), words) {
        ("write", [name]) => fs::write(folder.join(name), &section.text)?,
        ("folder", [path]) => {
            for entry in fs::read_dir(repository().join(path))? {
                let path = entry?.path();
                let name = path.file_name().context("a file with a name")?;
                fs::copy(&path, folder.join(name))?;
            }
        }
        ("node", arguments) => *node = arguments.to_vec(),
        ("ask", arguments) => {
            let all = node.iter().chain(arguments);
            return printed(&trace(folder, all)?, folder).map(Some);
        }
        other => bail!("no section is headed so: {other:?}"),
    }
    Ok(None)
}

/// Runs `waggle trace --manifests FOLDER`, with further arguments, in the folder.
pub fn trace(
    folder: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
) -> Result<Output> {
    Command::new(program()?)
        .args(["trace", "--node-name", "node-1", "--manifests"])
        .arg(folder)
        .args(arguments)
        .current_dir(folder)
        .output()
        .context("cannot start waggle")
}

/// Everything that was printed; the folder, whose name differs from run to run, is `FOLDER`.
fn printed(output: &Output, folder: &Path) -> Result<String> {
    let mut text = String::from_utf8(output.stdout.clone())?;
    for line in std::str::from_utf8(&output.stderr)?.lines() {
        text.push_str(&format!("! {line}").replace(&folder.display().to_string(), "FOLDER"));
        text.push('\n');
    }
    if !output.status.success() {
        text.push_str(&output.status.to_string());
        text.push('\n');
    }
    Ok(text)
}
