use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn file(name: &str, text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("waggle-config-{name}-{}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    file
}

fn flags(flags: &[&str]) -> Settings {
    Line::try_parse_from([&["waggle"], flags].concat())
        .unwrap()
        .settings
}

#[test]
fn a_flag_beats_the_file_and_the_file_the_default() {
    let file = file(
        "beats",
        "nodeName: of-file\ngoneGrace: 7s\nregionRest: 10ms\n",
    );
    let settings = flags(&["--node-name", "of-flag"]).or_file(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(settings.node_name(), "of-flag");
    let agent = settings.agent();
    assert_eq!(agent.gone_grace, Duration::from_secs(7));
    assert_eq!(agent.region_rest, Duration::from_secs(1), "no less is safe");
    assert_eq!(agent.collect, Duration::from_millis(5));
}

#[test]
fn a_key_that_does_not_exist_is_named() {
    let cases = [
        ("nodename: a\n", "nodename"),
        ("goneGrace: 30\n", "30"),
        ("goneGrace: soon\n", "soon"),
        (
            "manifests: /m\nkubeconfig: /k\n",
            "manifests excludes kubeconfig",
        ),
    ];
    for (text, named) in cases {
        let file = file("named", text);
        let error = Settings::default().or_file(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(format!("{error:#}").contains(named), "{error:#}");
    }
    let error = Settings::default()
        .or_file(Path::new("/nowhere/file"))
        .unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/file"), "{error:#}");
}

#[test]
fn an_empty_file_sets_nothing() {
    let file = file("empty", "# all defaults\n");
    let settings = Settings::default().or_file(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn every_flag_is_a_key_of_the_same_name() {
    let keys = serde_json::to_value(Settings::default()).unwrap();
    let command = <Line as clap::CommandFactory>::command();
    let flags: BTreeSet<String> = command
        .get_arguments()
        .map(|flag| flag.get_id().to_string())
        .collect();
    let keys: BTreeSet<String> = keys
        .as_object()
        .unwrap()
        .keys()
        .map(|key| snake(key))
        .collect();
    assert_eq!(flags, keys);
}

fn snake(key: &str) -> String {
    let mut snake = String::new();
    for character in key.chars() {
        if character.is_uppercase() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}
