//! The folders of a crate are layers: each imports from those before it alone. What the compiler does not ask for, this
//! reads in the `use` lines and paths of the source.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// A crate's folders, the lowest first, in the order in which they may import.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "lb-ebpf/src",
        &["bytes", "context", "flow", "service", "path", "memory"],
    ),
    (
        "lb-userspace/src/datapath",
        &[
            "node", "events", "object", "answers", "sockets", "devices", "cleanup",
        ],
    ),
    (
        "lb-userspace/src",
        &[
            "netlink",
            "supervise",
            "bpf",
            "model",
            "maps",
            "datapath",
            "objects",
            "convert",
            "desired",
            "reconcile",
            "findings",
            "health",
            "agent",
            "watch",
            "flows",
            "probe",
            "config",
            "status",
            "trace",
            "cli",
        ],
    ),
];

#[test]
fn no_folder_imports_from_one_above_it() -> Result<()> {
    for (folder, layers) in LAYERS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        let prefix = match folder.strip_prefix("lb-userspace/src/") {
            Some(inner) => format!("crate::{inner}::"),
            None => "crate::".to_owned(),
        };
        let mut wrong = Vec::new();
        for (position, layer) in layers.iter().enumerate() {
            for file in files(&root, layer)? {
                for other in imports(&fs::read_to_string(&file)?, &prefix) {
                    let above = layers.iter().position(|name| *name == other);
                    if above.is_some_and(|above| above > position) {
                        let file = file.strip_prefix(&root)?.display().to_string();
                        wrong.push(format!("{file} imports {other}, which is above {layer}"));
                    }
                }
            }
        }
        ensure!(wrong.is_empty(), "in {folder}:\n{}", wrong.join("\n"));
    }
    Ok(())
}

#[test]
fn every_module_has_a_layer() -> Result<()> {
    // The programs are another crate, and `lib.rs` and `main.rs` are the roots.
    const OTHERS: [&str; 5] = ["hooks", "floor", "lib", "main", "mod"];
    for (folder, layers) in LAYERS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let name = path.file_stem().context("a name")?.to_string_lossy();
            let has_layer = layers.contains(&&*name) || OTHERS.contains(&&*name);
            ensure!(has_layer, "{} has no layer", path.display());
        }
    }
    Ok(())
}

#[test]
fn files_of_lb_ebpf_import_each_other_in_no_circle() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-ebpf/src");
    let mut left = BTreeMap::new();
    for folder in LAYERS[0].1 {
        for file in files(&root, folder)? {
            let name = file.file_stem().context("a file without a name")?;
            let name = name.to_string_lossy().into_owned();
            let text = fs::read_to_string(&file)?;
            let of_folder = imports(&text, &format!("crate::{folder}::"));
            let siblings = of_folder.into_iter().chain(imports(&text, "super::"));
            let siblings: Vec<String> = siblings
                .filter(|it| *it != name && name != "mod")
                .map(|it| format!("{folder}/{it}"))
                .collect();
            left.insert(format!("{folder}/{name}"), siblings);
        }
    }
    // Whatever imports nothing that is left is in no circle.
    loop {
        let done: Vec<String> = left
            .iter()
            .filter(|(_, imported)| !imported.iter().any(|it| left.contains_key(it)))
            .map(|(name, _)| name.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        left.retain(|name, _| !done.contains(name));
    }
    ensure!(left.is_empty(), "a circle: {left:#?}");
    Ok(())
}

/// The Rust files of a module: `name.rs`, and all below the folder `name`.
fn files(root: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let file = root.join(format!("{name}.rs"));
    if file.is_file() {
        found.push(file);
    }
    let mut folders = vec![root.join(name)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }
    ensure!(!found.is_empty(), "{name} is not in {}", root.display());
    found.retain(|path| !path.to_string_lossy().ends_with("tests.rs"));
    Ok(found)
}

/// The modules that a source names right behind `prefix`, in paths and in groups of a `use`; not in its tests.
fn imports(source: &str, prefix: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut found = Vec::new();
    for rest in code.split(prefix).skip(1) {
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.push(word(rest)),
        }
    }
    // `use crate::{datapath::{...}}` has the folder in a group of its own.
    if let Some((outer, inner)) = prefix.trim_end_matches("::").rsplit_once("::") {
        for group in code.split(&format!("{outer}::{{")).skip(1) {
            let group = &group[..end(group)];
            for rest in group.split(&format!("{inner}::")).skip(1) {
                match rest.strip_prefix('{') {
                    Some(group) => found.extend(heads(group)),
                    None => found.push(word(rest)),
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The first words of the parts of a group, whose opening brace was read.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut heads) = (0, 0, Vec::new());
    let group = &group[..end(group)];
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(word(group[begin..at].trim_start()));
                begin = at + 1;
            }
            _ => {}
        }
    }
    heads.push(word(group[begin..].trim_start()));
    heads
}

/// Where the brace closes that was opened before.
fn end(group: &str) -> usize {
    let mut depth = 1;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    group.len()
}

fn word(text: &str) -> String {
    let letters = text.chars();
    letters
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

#[test]
fn imports_are_found_in_paths_and_in_groups() {
    let source = "use crate::{agent::{self, Event}, datapath::{devices::device, node::{kernel}}};\n\
                  fn f() { crate::maps::bpf::x(); }\n#[cfg(test)]\nuse crate::cli;";
    assert_eq!(imports(source, "crate::"), ["agent", "datapath", "maps"]);
    assert_eq!(imports(source, "crate::datapath::"), ["devices", "node"]);
}
