use std::{fs, path::Path};

use super::*;
use crate::model::Warning;

const SERVICE: &str = "
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}
";
const POD: &str = "
kind: Pod
metadata: {name: a, labels: {app: web}}
status: {podIP: 10.0.0.1}
";

/// A folder that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("waggle-manifests-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fn path(&self) -> &Path {
        &self.0
    }
}
impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn endpoints(reading: &Reading) -> Vec<String> {
    let slices = reading.objects.iter().flat_map(|objects| &objects.slices);
    slices
        .flat_map(|slice| &slice.endpoints)
        .map(|it| it.address.to_string())
        .collect()
}

fn warnings(reading: &Reading) -> Vec<String> {
    reading
        .warnings
        .iter()
        .flatten()
        .map(Warning::to_string)
        .collect()
}

#[test]
fn files_of_a_folder_and_below_belong_together() {
    let folder = Temporary::new("together");
    folder.write("service.yaml", SERVICE);
    folder.write("pods/a.yml", POD);
    folder.write("pods/.hidden.yaml", "nonsense: [");
    folder.write("notes.txt", "nonsense: [");
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(endpoints(&reading), ["10.0.0.1"]);
    assert_eq!(reading.warnings, Some(Vec::new()));
}

#[test]
fn a_broken_file_keeps_its_last_good_state_and_the_others_go_on() {
    let folder = Temporary::new("broken");
    folder.write("service.yaml", SERVICE);
    folder.write("a.yaml", POD);
    let mut read = Folder::new(folder.path().to_owned());
    read.read();
    folder.write("a.yaml", "kind: Pod\nmetadata: {name: a, labels: [\n");
    folder.write(
        "b.yaml",
        &POD.replace("name: a", "name: b").replace("0.0.1", "0.0.2"),
    );
    let reading = read.read();
    assert_eq!(endpoints(&reading), ["10.0.0.1", "10.0.0.2"]);
    let told = warnings(&reading);
    assert!(told[0].starts_with("a.yaml, document 1"), "{told:?}");
    assert!(
        told[0].contains("its last good state stays in use"),
        "{told:?}"
    );
    assert!(reading.objects.unwrap().vanished_pods.is_empty());

    folder.write("a.yaml", POD);
    assert_eq!(
        read.read().warnings,
        Some(Vec::new()),
        "a corrected file is no trouble"
    );
    assert_eq!(
        read.read(),
        Reading::default(),
        "nothing new is nothing to tell"
    );
}

#[test]
fn a_removed_file_takes_its_objects_along_and_its_pods_have_vanished() {
    let folder = Temporary::new("removed");
    folder.write("service.yaml", SERVICE);
    folder.write("a.yaml", POD);
    let mut read = Folder::new(folder.path().to_owned());
    read.read();
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    let reading = read.read();
    assert_eq!(endpoints(&reading), Vec::<String>::new());
    assert_eq!(reading.objects.unwrap().vanished_pods, ["default/a"]);
}

#[test]
fn an_unreadable_file_is_named() {
    let folder = Temporary::new("unreadable");
    folder.write("service.yaml", SERVICE);
    std::os::unix::fs::symlink("loop.yaml", folder.path().join("loop.yaml")).unwrap();
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(reading.objects.as_ref().unwrap().services.len(), 1);
    let told = warnings(&reading);
    assert!(told[0].starts_with("loop.yaml: cannot be read"), "{told:?}");
}

#[test]
fn a_folder_that_vanishes_keeps_its_last_good_state() {
    let folder = Temporary::new("vanishes");
    folder.write("service.yaml", SERVICE);
    let mut read = Folder::new(folder.path().to_owned());
    read.read();
    fs::remove_dir_all(folder.path()).unwrap();
    let reading = read.read();
    assert_eq!(reading.objects, None);
    assert!(
        warnings(&reading)[0].contains("cannot be listed"),
        "{reading:?}"
    );
}

#[test]
fn endpoints_that_are_written_down_count_more_than_the_selector() {
    let folder = Temporary::new("written");
    folder.write("service.yaml", SERVICE);
    folder.write("a.yaml", POD);
    folder.write(
        "endpoints.yaml",
        "kind: Endpoints\nmetadata: {name: web}\nsubsets:\n- addresses: [{ip: 10.0.0.9}]\n",
    );
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(endpoints(&reading), ["10.0.0.9"]);
}

#[test]
fn labels_exclude_what_they_exclude_in_a_cluster() {
    let folder = Temporary::new("excluded");
    folder.write("service.yaml", SERVICE);
    folder.write("a.yaml", POD);
    for label in ["service-proxy-name: other", "headless: ''"] {
        let label = format!("service.kubernetes.io/{label}");
        let slice = format!(
            "kind: EndpointSlice\nmetadata: {{name: s, labels: {{kubernetes.io/service-name: web, {label}}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [10.0.0.8]}}]\n"
        );
        folder.write("slice.yaml", &slice);
        let endpoints_object = format!(
            "kind: Endpoints\nmetadata: {{name: web, labels: {{{label}}}}}\nsubsets: [{{addresses: [{{ip: 10.0.0.9}}]}}]\n"
        );
        folder.write("endpoints.yaml", &endpoints_object);
        let reading = Folder::new(folder.path().to_owned()).read();
        assert_eq!(warnings(&reading), Vec::<String>::new(), "{label}");
        // The selector's pod is the only author that is left.
        assert_eq!(endpoints(&reading), ["10.0.0.1"], "{label}");
    }
}

#[test]
fn an_object_that_is_there_twice_is_named() {
    let folder = Temporary::new("twice");
    folder.write("a.yaml", SERVICE);
    folder.write("b.yaml", SERVICE);
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(
        warnings(&reading),
        ["Service default/web: is there twice; the one in b.yaml is not used; remove one of them"]
    );
}

#[tokio::test]
async fn a_change_of_the_folder_is_seen_at_once_and_reading_is_no_change() {
    let folder = Temporary::new("seen");
    folder.write("service.yaml", SERVICE);
    let (sender, mut events) = mpsc::channel(16);
    let watching = tokio::spawn(watch(
        folder.path().to_owned(),
        Duration::from_millis(5),
        sender,
    ));
    let mut next = async || {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
            if let Event::Replaced { slices, .. } = event.expect("an event in time").unwrap() {
                return slices
                    .iter()
                    .map(|slice| slice.endpoints.len())
                    .sum::<usize>();
            }
        }
    };
    assert_eq!(next().await, 0);
    // Written beside and renamed, as many programs do.
    folder.write("a.tmp", POD);
    fs::rename(folder.path().join("a.tmp"), folder.path().join("a.yaml")).unwrap();
    assert_eq!(next().await, 1);
    fs::create_dir(folder.path().join("more")).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    folder.write(
        "more/b.yaml",
        &POD.replace("name: a", "name: b").replace("0.0.1", "0.0.2"),
    );
    assert_eq!(next().await, 2);
    let quiet = tokio::time::timeout(Duration::from_millis(200), events.recv()).await;
    assert!(quiet.is_err(), "nothing changed: {quiet:?}");
    watching.abort();
}

#[tokio::test]
async fn a_folder_that_is_removed_and_made_anew_is_followed_at_once() {
    let folder = Temporary::new("anew");
    folder.write("in/service.yaml", SERVICE);
    let path = folder.path().join("in");
    let (sender, mut events) = mpsc::channel(16);
    let settle = Duration::from_millis(5);
    let watching = tokio::spawn(watch(path.clone(), settle, sender));
    let mut next = async |wanted: fn(&Event) -> bool| {
        // Less than it takes until the folder is read anyhow.
        let found = tokio::time::timeout(RESCAN / 2, async {
            loop {
                let event = events.recv().await.unwrap();
                if wanted(&event) {
                    return;
                }
            }
        });
        found.await.expect("an event in time");
    };
    next(|event| matches!(event, Event::Replaced { services, .. } if services.len() == 1)).await;
    for _ in 0..2 {
        fs::remove_dir_all(&path).unwrap();
        next(|event| matches!(event, Event::Trouble { warnings, .. } if !warnings.is_empty()))
            .await;
        folder.write("in/pod.yaml", POD);
        next(|event| matches!(event, Event::Replaced { services, .. } if services.is_empty()))
            .await;
        folder.write("in/service.yaml", SERVICE);
        next(|event| matches!(event, Event::Replaced { services, .. } if services.len() == 1))
            .await;
    }
    watching.abort();
}

#[test]
fn files_that_would_keep_the_reader_busy_are_named_and_the_others_go_on() {
    let folder = Temporary::new("endless");
    folder.write("service.yaml", SERVICE);
    let (open, close) = ("[".repeat(100), "]".repeat(100));
    folder.write("deep-flow.yaml", &format!("kind: X\na: {open}{close}"));
    folder.write("deep-list.yaml", &format!("{}x", "- ".repeat(20_000)));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{before}]\n");
    }
    folder.write("many-aliases.yaml", &bomb);
    let pipe = folder.path().join("pipe.yaml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.yaml")).unwrap();
    let mut read = Folder::new(folder.path().to_owned());
    let reading = read.read();
    let objects = reading.objects.as_ref().unwrap();
    assert_eq!(objects.services.len(), 1);
    assert!(!objects.is_complete);
    let told = warnings(&reading);
    let names = ["deep-flow", "deep-list", "many-aliases", "pipe", "zero"];
    assert_eq!(told.len(), names.len(), "{told:?}");
    for (told, name) in told.iter().zip(names) {
        assert!(told.starts_with(name), "{told}");
    }
    for name in names {
        fs::remove_file(folder.path().join(format!("{name}.yaml"))).unwrap();
    }
    assert!(read.read().objects.unwrap().is_complete);
}

#[test]
fn links_that_lead_back_are_followed_once_and_what_they_lead_to_is_there_once() {
    let folder = Temporary::new("links");
    folder.write("service.yaml", SERVICE);
    folder.write("a/pod.yaml", POD);
    for link in ["back", "a/back", "a/up", "a/down"] {
        let to = if link == "a/down" {
            "../a"
        } else {
            folder.path().to_str().unwrap()
        };
        std::os::unix::fs::symlink(to, folder.path().join(link)).unwrap();
    }
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(reading.warnings, Some(Vec::new()));
    assert_eq!(endpoints(&reading), ["10.0.0.1"]);
}

#[test]
fn empty_binary_huge_and_foreign_files_are_told_apart_and_the_others_go_on() {
    let folder = Temporary::new("odd");
    let with_windows_ends = format!("\u{feff}{}", SERVICE.replace('\n', "\r\n"));
    folder.write("windows.yaml", &with_windows_ends);
    for (name, text) in [
        ("empty.yaml", ""),
        ("empty.json", "\n"),
        ("blank.yaml", "---\r\n# nothing\r\n---\n...\n"),
        (
            "anchors.yaml",
            "base: &base {app: web}\nkind: Pod\nmetadata: {name: b, labels: {<<: *base}}\nstatus: {podIP: 10.0.0.2}\n",
        ),
        ("other.yaml", "kind: Deployment\nspec: {replicas: three}\n"),
        ("text.yaml", "just words\n"),
        ("broken.json", "{]"),
    ] {
        folder.write(name, text);
    }
    fs::write(
        folder.path().join("binary.yaml"),
        [0x7f, 0x45, 0x4c, 0x46, 0xff, 0xfe],
    )
    .unwrap();
    fs::write(folder.path().join("zeros.yaml"), [0; 4096]).unwrap();
    let huge = fs::File::create(folder.path().join("huge.yaml")).unwrap();
    huge.set_len(300 << 20).unwrap();
    let reading = Folder::new(folder.path().to_owned()).read();
    assert_eq!(reading.objects.as_ref().unwrap().services.len(), 1);
    assert_eq!(endpoints(&reading), ["10.0.0.2"]);
    let told = warnings(&reading);
    let expected = [
        "binary.yaml, document 1, line 1: it is no UTF-8 text",
        "broken.json, document 1, line 1",
        "huge.yaml: cannot be read: it is larger than 256 MiB",
        "text.yaml, document 1",
        "zeros.yaml, document 1",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}, not {expected}");
    }
}

#[test]
fn a_file_that_is_empty_while_it_is_written_anew_takes_nothing_away() {
    let folder = Temporary::new("emptied");
    folder.write("web.yaml", &format!("{SERVICE}---{POD}"));
    let mut manifests = Folder::new(folder.path().to_owned());
    assert_eq!(endpoints(&manifests.read()), ["10.0.0.1"]);
    for (nothing, is_news) in [("", true), ("\n  \n", false)] {
        folder.write("web.yaml", nothing);
        let reading = manifests.read();
        assert_eq!(reading.objects, None);
        let told = warnings(&reading);
        assert_eq!(told.len(), usize::from(is_news), "{told:?}");
        let says_so = |it: &String| it.contains("is empty now; its last good state stays");
        assert!(told.iter().all(says_so), "{told:?}");
    }
    folder.write(
        "web.yaml",
        &format!("{SERVICE}---{}", POD.replace(".1}", ".2}")),
    );
    let reading = manifests.read();
    assert_eq!(
        (endpoints(&reading), warnings(&reading)),
        (vec!["10.0.0.2".to_owned()], vec![])
    );
    fs::remove_file(folder.path().join("web.yaml")).unwrap();
    let reading = manifests.read();
    assert!(reading.objects.is_some_and(|it| it.services.is_empty()));
}
