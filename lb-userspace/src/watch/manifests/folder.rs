//! The folder as a whole: which files there are, the last good state of each, and what follows from all of them.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    convert,
    model::{EndpointSlice, ObjectName, Service, ServiceCidr, ServiceName, Warning},
    objects::{self, Object},
    watch::manifests::file::{Manifest, Parsed, Problem, parse_json, parse_yaml},
};

/// 70,000 endpoints take some 5 MiB.
const LARGEST_FILE: u64 = 256 << 20;

/// Everything the folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// All Services.
    pub services: Vec<Service>,
    /// All endpoints.
    pub slices: Vec<EndpointSlice>,
    /// All prefixes that Services get their addresses from.
    pub service_cidrs: Vec<ServiceCidr>,
    /// Uids of pods that are not in the folder any more.
    pub vanished_pods: Vec<String>,
    /// Nothing is missing here because it could never be read.
    pub is_complete: bool,
}

/// What a reading of the folder has found that was not known before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Everything there is, if something has changed.
    pub objects: Option<Objects>,
    /// All there is to complain about, if that has changed.
    pub warnings: Option<Vec<Warning>>,
    /// No file has an object that is read.
    pub is_empty: bool,
}

#[derive(Debug, Default)]
struct File {
    /// What was read last, good or bad.
    content: Vec<u8>,
    /// The last good state.
    objects: Vec<Manifest>,
    /// What is wrong with `content`.
    warnings: Vec<Warning>,
    /// It has been good once.
    was_good: bool,
}

/// A folder of manifests.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    pods: BTreeSet<String>,
    /// What the files say twice, or in vain.
    doubles: Vec<Warning>,
    warnings: Vec<Warning>,
    read_before: bool,
    was_complete: bool,
}

impl Folder {
    /// A folder that has not been read.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            pods: BTreeSet::new(),
            doubles: Vec::new(),
            warnings: Vec::new(),
            read_before: false,
            was_complete: false,
        }
    }

    /// Reads the folder. A file that cannot be read keeps its last good state, and so does the folder.
    pub fn read(&mut self) -> Reading {
        let mut warnings = Vec::new();
        let mut changed = false;
        let mut is_complete = true;
        match list(&self.root) {
            Ok(paths) => {
                let before = self.files.len();
                self.files.retain(|path, _| paths.contains(path));
                changed = self.files.len() != before;
                for path in paths {
                    changed |= self.read_file(path);
                }
            }
            Err((path, error)) => {
                is_complete = self.was_complete;
                warnings.push(Warning::new(
                    path.display().to_string(),
                    format!("the folder cannot be listed: {error}; what was read before stays"),
                    "make it readable for the agent",
                ));
            }
        }
        warnings.extend(self.files.values().flat_map(|file| file.warnings.clone()));
        is_complete &= self.files.values().all(|file| file.was_good);
        let changed = changed || !self.read_before || is_complete != self.was_complete;
        self.was_complete = is_complete;
        let objects = changed.then(|| {
            let (mut objects, doubles) = self.objects();
            objects.vanished_pods = self.vanished_pods();
            objects.is_complete = is_complete;
            self.doubles = doubles;
            objects
        });
        warnings.extend_from_slice(&self.doubles);
        let complain = warnings != self.warnings || !self.read_before;
        self.read_before = true;
        self.warnings.clone_from(&warnings);
        Reading {
            objects,
            warnings: complain.then_some(warnings),
            is_empty: self.files.values().all(|file| file.objects.is_empty()),
        }
    }

    /// Reads a file; true if its objects have changed.
    fn read_file(&mut self, path: PathBuf) -> bool {
        let name = self.name(&path);
        let read = read_regular(&path);
        // Gone between the listing and the reading: the next event tells.
        if matches!(&read, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return self.files.remove(&path).is_some();
        }
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let known = self.files.contains_key(&path);
        let file = self.files.entry(path).or_default();
        let stays = if file.objects.is_empty() {
            "nothing of it is used"
        } else {
            "its last good state stays in use"
        };
        let content = match read {
            Ok(content) => content,
            Err(error) => {
                file.content.clear();
                file.warnings = vec![Warning::new(
                    name,
                    format!("cannot be read: {error}; {stays}"),
                    "make it a file that the agent may read",
                )];
                return false;
            }
        };
        if known && content == file.content && (file.warnings.is_empty() || !content.is_empty()) {
            return false;
        }
        file.content = content;
        // An editor may truncate the file before it writes it.
        if !file.objects.is_empty() && file.content.trim_ascii().is_empty() {
            file.warnings = vec![Warning::new(
                name,
                format!("is empty now; {stays}"),
                "write it anew, or remove it, and its objects go with it",
            )];
            return false;
        }
        let mut parsed = parse(&file.content, is_json);
        file.warnings = parsed
            .problems
            .iter()
            .map(|problem| problem.warning(&name, stays))
            .collect();
        if parsed.problems.is_empty() {
            file.was_good = true;
        } else {
            // The unreadable part may be any of the objects that were read before.
            let kept = file.objects.iter().filter(|it| !contains(&parsed, it));
            let kept: Vec<Manifest> = kept.cloned().collect();
            parsed.objects.extend(kept);
        }
        let changed = parsed.objects != file.objects;
        file.objects = parsed.objects;
        changed
    }

    /// What all files say together, and what they say twice.
    fn objects(&self) -> (Objects, Vec<Warning>) {
        let mut warnings = Vec::new();
        let services = self.distinct(&mut warnings, Manifest::service);
        let pods = self.distinct(&mut warnings, Manifest::pod);
        let slices = self.distinct(&mut warnings, Manifest::slice);
        let endpoints = self.distinct(&mut warnings, Manifest::endpoints);
        let cidrs = self.distinct(&mut warnings, Manifest::service_cidr);
        let mut all = Vec::new();
        for (name, slice) in slices {
            match convert::endpoint_slice(slice) {
                Some(slice) => all.push(slice),
                // Its labels exclude it.
                None if convert::names_service(slice) => {}
                None => warnings.push(Warning::new(
                    format!("EndpointSlice {name}"),
                    "belongs to no Service; it is not used",
                    format!("give it the label {}", convert::SERVICE_NAME_LABEL),
                )),
            }
        }
        // A Service's endpoints have one author: its slices, else its Endpoints, else its selector.
        let mut written: BTreeSet<ServiceName> = all.iter().map(|it| it.service.clone()).collect();
        for (name, endpoints) in endpoints {
            // Kubernetes gives the slices that it mirrors the labels of the Endpoints.
            if !convert::is_excluded(&endpoints.metadata) && written.insert(name) {
                all.extend(convert::endpoints(endpoints));
            }
        }
        let pods: Vec<&objects::Pod> = pods.into_values().collect();
        for (name, service) in &services {
            if !written.contains(name) {
                all.extend(convert::select(service, &pods));
            }
        }
        let objects = Objects {
            services: services
                .values()
                .map(|service| convert::service(service))
                .collect(),
            slices: all,
            service_cidrs: cidrs.into_values().map(convert::service_cidr).collect(),
            vanished_pods: Vec::new(),
            is_complete: false,
        };
        (objects, warnings)
    }

    /// Objects of a kind by name. Of two with the same name the first file's counts.
    fn distinct<'a, T: Object>(
        &'a self,
        warnings: &mut Vec<Warning>,
        pick: impl Fn(&'a Manifest) -> Option<&'a T>,
    ) -> BTreeMap<ObjectName, &'a T> {
        let mut objects = BTreeMap::new();
        for (path, file) in &self.files {
            for object in file.objects.iter().filter_map(&pick) {
                let name = convert::object_name(object.metadata());
                match objects.entry(name) {
                    Entry::Vacant(place) => drop(place.insert(object)),
                    Entry::Occupied(place) => warnings.push(Warning::new(
                        subject(T::KIND, place.key()),
                        format!("is there twice; the one in {} is not used", self.name(path)),
                        "remove one of them",
                    )),
                }
            }
        }
        objects
    }

    /// A file as people are told of it.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Pods that were in the folder the last time and are no more.
    fn vanished_pods(&mut self) -> Vec<String> {
        let all = self.files.values().flat_map(|file| &file.objects);
        let pods = all
            .filter_map(Manifest::pod)
            .map(convert::pod_uid)
            .collect();
        let before = std::mem::replace(&mut self.pods, pods);
        before.difference(&self.pods).cloned().collect()
    }
}

/// An object as people are told of it; a `ServiceCIDR` is in no namespace.
fn subject(kind: &str, name: &ObjectName) -> String {
    match kind {
        "ServiceCIDR" => format!("{kind} {}", name.name),
        _ => format!("{kind} {name}"),
    }
}

impl Problem {
    fn warning(&self, file: &str, stays: &str) -> Warning {
        let line = self
            .line
            .map_or_else(String::new, |line| format!(", line {line}"));
        Warning::new(
            format!("{file}, document {}{line}", self.document),
            format!("{}; {stays}", self.what),
            "correct the file; it is read again as soon as it changes",
        )
    }
}

/// Whether an object of the same kind and name was read.
fn contains(parsed: &Parsed, object: &Manifest) -> bool {
    let identity = |it: &Manifest| {
        let (kind, metadata) = it.identity();
        (kind, convert::object_name(metadata))
    };
    let wanted = identity(object);
    parsed.objects.iter().any(|it| identity(it) == wanted)
}

fn parse(content: &[u8], is_json: bool) -> Parsed {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text.trim_start_matches('\u{feff}'),
        Err(error) => {
            let before = content.get(..error.valid_up_to()).unwrap_or_default();
            let lines = before.split(|byte| *byte == b'\n').count();
            let problem = Problem {
                document: 1,
                line: u64::try_from(lines).ok(),
                what: "it is no UTF-8 text".to_owned(),
            };
            return Parsed {
                objects: Vec::new(),
                problems: vec![problem],
            };
        }
    };
    if is_json {
        parse_json(text)
    } else {
        parse_yaml(text)
    }
}

/// A file's content. What is no regular file would keep us waiting (a pipe) or never end (a device).
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if about.len() > LARGEST_FILE {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB",
            LARGEST_FILE >> 20
        )));
    }
    fs::read(path)
}

/// Every manifest in the folder and below, by path. Hidden files are left out: editors and config map volumes put their
/// own there. A folder to which links lead back counts once.
fn list(root: &Path) -> Result<BTreeSet<PathBuf>, (PathBuf, io::Error)> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut folders = VecDeque::from([root.to_owned()]);
    while let Some(folder) = folders.pop_front() {
        let identity = fs::metadata(&folder).map(|about| (about.dev(), about.ino()));
        let entries = identity.and_then(|identity| {
            let is_new = seen.insert(identity);
            is_new.then(|| fs::read_dir(&folder)).transpose()
        });
        let entries = match entries {
            Ok(Some(entries)) => entries,
            Ok(None) => continue,
            // A folder that vanishes while we look has no files.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != root => continue,
            Err(error) => return Err((folder, error)),
        };
        let mut inside = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| (folder.clone(), error))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let is_manifest = path
                .extension()
                .is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
            if path.is_dir() {
                inside.insert(path);
            } else if is_manifest {
                found.insert(path);
            }
        }
        folders.extend(inside);
    }
    Ok(found)
}
