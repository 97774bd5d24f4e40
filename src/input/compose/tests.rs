//! Files as the Compose specification wants them read.

use super::{LoadEnv, LoadOptions, Project, load};
use crate::error::Diagnostic;
use crate::input::node::Node;
use crate::input::problem::Sources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Loads `/home/compose.yml` out of files and variables that are given; each problem as one line.
fn loaded(files: &[(&str, &str)], shell: &[(&str, &str)]) -> (Project, Vec<String>) {
    let files: BTreeMap<PathBuf, String> = files
        .iter()
        .map(|(path, text)| (Path::new("/home").join(path), (*text).to_owned()))
        .collect();
    let shell: BTreeMap<&str, &str> = shell.iter().copied().collect();
    let load_env = LoadEnv {
        read: &|path| {
            files
                .get(path)
                .cloned()
                .ok_or_else(|| std::io::ErrorKind::NotFound.into())
        },
        variable: &|name| shell.get(name).map(|value| (*value).to_owned()),
    };
    let path = |name: &str| (Path::new("/home").join(name), 0..0);
    let request = LoadOptions {
        files: ["compose.yml", "override.yml"]
            .into_iter()
            .map(path)
            .filter(|(path, _)| files.contains_key(path))
            .collect(),
        env_files: [path("vars")]
            .into_iter()
            .filter(|(path, _)| files.contains_key(path))
            .collect(),
        project: "homelab-prod".to_owned(),
        profiles: Vec::new(),
    };
    let mut sources = Sources::new("/home/homelab.toml", "");
    let mut problems = Vec::new();
    let project = load(&request, &load_env, &mut sources, &mut problems);
    let line = |problem: &Diagnostic| {
        let (line, column) = sources.position(&problem.span());
        format!(
            "{}:{line}:{column} {}",
            sources.path(&problem.span()),
            problem.what
        )
    };
    let notices = project.notices.iter().map(line);
    let said = problems.iter().map(line).chain(notices).collect();
    (project, said)
}

fn at<'a>(project: &'a Project, path: &str) -> Option<&'a Node> {
    let mut keys = path.split('/');
    let mut node = project.services.get(keys.next()?)?;
    for key in keys {
        node = match key.parse::<usize>() {
            Ok(index) => node.as_list()?.get(index)?,
            Err(_) => node.get(key)?,
        };
    }
    Some(node)
}

fn text(project: &Project, path: &str) -> String {
    at(project, path)
        .and_then(Node::scalar)
        .unwrap_or_else(|| "(nothing)".to_owned())
}

fn list(project: &Project, path: &str) -> Vec<String> {
    let items = at(project, path)
        .and_then(Node::as_list)
        .unwrap_or_default();
    items.iter().filter_map(Node::scalar).collect()
}

#[test]
fn the_shell_wins_over_env_files_and_later_lines_know_earlier_ones() {
    let (project, said) = loaded(
        &[
            (
                "compose.yml",
                "services: {a: {image: '${REPO}/a:$TAG', hostname: \"${HOST:-pi}\", user: $COMPOSE_PROJECT_NAME}}\n",
            ),
            ("vars", "REPO=hub\nTAG=1\nTAG=${TAG}-${REPO}\n"),
        ],
        &[("REPO", "shell")],
    );
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(text(&project, "a/image"), "shell/a:1-shell");
    assert_eq!(text(&project, "a/hostname"), "pi");
    assert_eq!(text(&project, "a/user"), "homelab-prod");
}

#[test]
fn the_usual_env_file_is_beside_the_first_file() {
    let files = [
        ("compose.yml", "services: {a: {image: $A}}\n"),
        (".env", "A=x\n"),
    ];
    assert_eq!(text(&loaded(&files, &[]).0, "a/image"), "x");
}

#[test]
fn missing_variables_are_told_with_their_place() {
    let (_, said) = loaded(
        &[(
            "compose.yml",
            "services:\n  a:\n    image: ${TAG:?say which}\n    user: $WHO\n    hostname: $5\n",
        )],
        &[],
    );
    assert_eq!(
        said,
        [
            "/home/compose.yml:3:12 the variable `TAG` is required and not set: say which",
            "/home/compose.yml:5:15 `$5` begins no variable",
            "/home/compose.yml:4:11 the variable `WHO` is not set, so it stands for nothing",
        ]
    );
}

#[test]
fn a_later_file_is_laid_over_an_earlier_one() {
    let (project, said) = loaded(
        &[
            (
                "compose.yml",
                "services:\n  a:\n    image: a:1\n    command: [one, two]\n    environment: [A=1, B=2]\n    volumes: [./x:/data, other:/o]\n    dns: 1.1.1.1\n    cap_add: [NET_ADMIN]\n    ports: ['80:80']\n    labels: {l: x}\n    depends_on: [b]\n    healthcheck: {test: [CMD, 'true'], interval: 5s}\n    logging: {driver: local, options: {max-size: 1m}}\n  b: {image: b}\nvolumes: {other: {}}\n",
            ),
            (
                "override.yml",
                "services:\n  a:\n    command: three\n    environment: {B: 3, C: 4}\n    volumes: [/y:/data]\n    dns: [9.9.9.9]\n    cap_add: [NET_ADMIN, NET_RAW]\n    ports: !override ['81:80']\n    labels: !reset null\n    depends_on: {c: {condition: service_healthy}}\n    healthcheck: {test: /bin/check}\n    logging: {driver: journald}\n  c: {image: c}\n",
            ),
        ],
        &[],
    );
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(text(&project, "a/image"), "a:1");
    assert_eq!(text(&project, "a/command"), "three");
    let environment = ["A", "B", "C"].map(|name| text(&project, &format!("a/environment/{name}")));
    assert_eq!(environment, ["1", "3", "4"]);
    assert_eq!(list(&project, "a/volumes"), ["/y:/data", "other:/o"]);
    assert_eq!(list(&project, "a/dns"), ["1.1.1.1", "9.9.9.9"]);
    assert_eq!(list(&project, "a/cap_add"), ["NET_ADMIN", "NET_RAW"]);
    assert_eq!(list(&project, "a/ports"), ["81:80"]);
    assert_eq!(at(&project, "a/labels"), None);
    assert!(at(&project, "a/depends_on/b").is_some() && at(&project, "a/depends_on/c").is_some());
    assert_eq!(text(&project, "a/healthcheck/test"), "/bin/check");
    assert_eq!(text(&project, "a/healthcheck/interval"), "5s");
    assert_eq!(at(&project, "a/logging/options"), None);
}

#[test]
fn services_extend_others_of_this_file_and_of_others() {
    let (project, said) = loaded(
        &[
            (
                "compose.yml",
                "services:\n  base: {image: a, environment: {A: 1}}\n  a:\n    extends: base\n    environment: {B: 2}\n  b:\n    extends: {file: sub/common.yml, service: db}\n    volumes: [./mine:/mine]\n",
            ),
            (
                "sub/common.yml",
                "services:\n  root: {image: 'db:$V', restart: always}\n  db:\n    extends: {service: root}\n    volumes: [./data:/data]\n    env_file: vars\n",
            ),
        ],
        &[("V", "9")],
    );
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(text(&project, "a/image"), "a");
    assert_eq!(text(&project, "a/environment/A"), "1");
    assert_eq!(text(&project, "b/image"), "db:9");
    assert_eq!(text(&project, "b/restart"), "always");
    assert_eq!(
        list(&project, "b/volumes"),
        ["/home/sub/data:/data", "/home/mine:/mine"]
    );
    assert_eq!(text(&project, "b/env_file"), "/home/sub/vars");
}

#[test]
fn circles_are_refused() {
    let (_, said) = loaded(
        &[
            (
                "compose.yml",
                "include: [more.yml]\nservices:\n  a: {extends: b}\n  b: {extends: a}\n",
            ),
            ("more.yml", "include: [compose.yml]\n"),
        ],
        &[],
    );
    assert!(
        said.iter().any(|line| line.contains("extends itself")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|line| line.contains("includes itself")),
        "{said:?}"
    );
}

#[test]
fn included_files_have_their_own_folder_and_variables() {
    let (project, said) = loaded(
        &[
            (
                "compose.yml",
                "include:\n  - sub/more.yml\n  - {path: [other.yml], env_file: other.env, project_directory: dir}\nservices: {a: {image: a}}\n",
            ),
            (
                "sub/more.yml",
                "services: {b: {image: $B, volumes: ['./x:/x']}}\nsecrets: {s: {file: ./s.txt}}\n",
            ),
            ("sub/.env", "B=from-sub\n"),
            (
                "other.yml",
                "services: {c: {image: '$C:$OUTER', volumes: ['./x:/x']}}\n",
            ),
            ("other.env", "C=see\nOUTER=no\n"),
            ("vars", "OUTER=yes\n"),
        ],
        &[],
    );
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(text(&project, "b/image"), "from-sub");
    assert_eq!(list(&project, "b/volumes"), ["/home/sub/x:/x"]);
    assert_eq!(text(&project, "c/image"), "see:yes");
    assert_eq!(list(&project, "c/volumes"), ["/home/dir/x:/x"]);
    let secret = project
        .secrets
        .get("s")
        .and_then(|s| s.get("file"))
        .and_then(Node::scalar);
    assert_eq!(secret.as_deref(), Some("/home/sub/s.txt"));
}

#[test]
fn what_is_included_is_not_defined_twice() {
    let (_, said) = loaded(
        &[
            (
                "compose.yml",
                "include: [more.yml]\nservices: {a: {image: a}}\n",
            ),
            ("more.yml", "services: {a: {image: b}}\n"),
        ],
        &[],
    );
    assert_eq!(
        said,
        ["/home/more.yml:1:12 `services.a` is included and defined here too"]
    );
}

#[test]
fn what_is_wrong_at_the_top_is_named() {
    let (_, said) = loaded(
        &[(
            "compose.yml",
            "version: '3'\nname: x\nx-own: 1\nservice: {}\nmodels: {}\nservices: [a]\nnetworks:\n",
        )],
        &[],
    );
    assert_eq!(
        said,
        [
            "/home/compose.yml:4:1 unknown key `service`",
            "/home/compose.yml:5:1 `models` is not supported",
            "/home/compose.yml:6:11 `services` must be a table, and this is a list",
        ]
    );
}
