//! The layout of src: its floors, which crates stand where, where names are made, what may print, and what may change the machine. Each
//! rule has a snippet that must break it, so that none can fall asleep.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod length;
mod rules;
mod source;

use length::{is_long, long_functions};
use rules::{ASKS, FLOORS, GROUND, HOMES, RULES, printing};
use source::{Source, files, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[test]
fn every_rule_holds() {
    let sources = sources();
    let mut broken = Vec::new();
    for (name, rule, _) in RULES {
        for source in &sources {
            let found = rule(source).into_iter();
            broken.extend(found.map(|what| format!("{name}: src/{}.rs {what}", source.name)));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_rule_can_be_broken() {
    for (name, rule, (file, text)) in RULES {
        assert_ne!(
            rule(&Source::new(file, text)),
            Vec::<String>::new(),
            "{name}"
        );
    }
}

/// What is named in the rules is there: a rule about what has another name now guards nothing.
#[test]
fn what_the_rules_name_is_there() {
    let sources = sources();
    for place in FLOORS.into_iter().flatten().chain(&GROUND) {
        assert!(sources.iter().any(|source| source.is_in(place)), "{place}");
    }
    for (name, places) in HOMES {
        for place in places {
            let mut there = sources.iter().filter(|source| source.is_in(place));
            assert!(
                there.any(|source| source.has(&format!("{name} ::"))),
                "`{name}` is not in {place}"
            );
        }
    }
}

#[test]
fn what_stands_behind_a_test_is_code_too() {
    let text = "//! X.\n#[cfg(test)]\nmod tests {}\nfn f() { println!(\"x\"); }";
    assert_eq!(
        printing(&Source::new("diff", text)),
        ["prints by `println !`"]
    );
    let text = "//! X.\n#[cfg(test)]\nmod tests { fn f() { println!(\"x\"); } }";
    assert_eq!(printing(&Source::new("diff", text)), Vec::<String>::new());
}

/// The list in system.rs is complete: every function of an adapter that others may call either asks or stands there.
#[test]
fn what_changes_the_machine_is_listed() {
    let sources = sources();
    let (mut public, mut listed) = (BTreeSet::new(), BTreeSet::new());
    for source in sources.iter().filter(|source| source.is_in("system")) {
        let words: Vec<&str> = source.code.split(' ').collect();
        for (index, _) in words.iter().enumerate().filter(|(_, word)| **word == "fn") {
            let before = words
                .get(index.saturating_sub(2)..index)
                .unwrap_or_default();
            let is_public = matches!(before, ["pub", "async"] | [_, "pub"]);
            public.extend(
                words
                    .get(index + 1)
                    .filter(|_| is_public)
                    .map(|w| (*w).to_owned()),
            );
        }
        if source.name == "system" {
            let lines = source
                .text
                .lines()
                .filter(|line| line.starts_with("//! - `"));
            listed.extend(lines.filter_map(|line| {
                let path = line.split('`').nth(1)?;
                Some(path.rsplit("::").next()?.to_owned())
            }));
        }
    }
    let asks: BTreeSet<String> = ASKS.iter().map(|name| (*name).to_owned()).collect();
    let changing: BTreeSet<String> = public.difference(&asks).cloned().collect();
    assert_eq!(changing, listed);
}

/// Files beside each other do not use each other in a circle. What a file takes from the one that declares it is no circle.
#[test]
fn there_are_no_circles() {
    let sources = sources();
    let names: BTreeSet<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &sources {
        for path in source.uses() {
            let longest = (1..=path.len()).rev().find_map(|length| {
                let name = path.get(..length)?.join("/");
                names.get(name.as_str()).copied()
            });
            let Some(used) = longest else { continue };
            let is_family = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/"));
            if !is_family(&source.name, used) && !is_family(used, &source.name) {
                edges.entry(&source.name).or_default().insert(used);
            }
        }
    }
    // Take away whoever uses nobody until nobody is left; those who stay use each other.
    loop {
        let left: BTreeSet<&str> = edges.keys().copied().collect();
        for used in edges.values_mut() {
            used.retain(|name| left.contains(name));
        }
        let before = edges.len();
        edges.retain(|_, used| !used.is_empty());
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "a circle is among {edges:#?}");
}

/// Tests are read as well: whoever carries on reads them first.
#[test]
fn files_and_functions_are_short() {
    let (mut files_too_long, mut functions_too_long) = (Vec::new(), Vec::new());
    for path in files(&root().join("src"))
        .into_iter()
        .chain(files(&root().join("tests")))
    {
        let text = fs::read_to_string(&path).expect("sources are text");
        let name = path.strip_prefix(root()).expect("it is in the repository");
        if is_long(&text) {
            files_too_long.push(name.display().to_string());
        }
        // A scenario of the lab goes from its begin to its end.
        if !name.starts_with("tests/lab") {
            let long = long_functions(&text).into_iter();
            functions_too_long
                .extend(long.map(|function| format!("{} {function}", name.display())));
        }
    }
    assert_eq!(files_too_long, Vec::<String>::new());
    // A list, which is easier to read whole.
    assert_eq!(
        functions_too_long,
        ["src/plan/service/fingerprint.rs fingerprint"]
    );
}

#[test]
fn what_is_too_long_is_seen() {
    let function = |lines| {
        format!(
            "impl X {{ fn f(x: [u8; 2]) -> u8 {{{}}} }}",
            "\n".repeat(lines)
        )
    };
    assert_eq!(long_functions(&function(60)), ["f"]);
    assert_eq!(long_functions(&function(59)), Vec::<String>::new());
    assert!(is_long(&"//\n".repeat(501)) && !is_long(&"//\n".repeat(500)));
}

/// What stands between two marks, or from one on.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let after = text.split_once(from).map_or("", |(_, after)| after);
    after.split_once(to).map_or(after, |(text, _)| text)
}

/// The first words of rows of a table, which are files.
fn files_of(table: &str) -> Vec<String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let files = rows.filter_map(|row| row.split_once(".rs` | "));
    files.map(|(file, _)| file.to_owned()).collect()
}

#[test]
fn the_map_names_every_file() {
    let text = fs::read_to_string(root().join("docs/development.md")).expect("it can be read");
    let map = between(&text, "## The floors", "## Where a change goes");
    let mut named = files_of(map);
    named.sort();
    let there: Vec<String> = sources().into_iter().map(|source| source.name).collect();
    assert_eq!(named, there);
    // Each stands on its own floor, which is the heading above.
    for floor in map.split("### ").skip(1) {
        let (heading, table) = floor.split_once('\n').expect("a heading");
        let heading = heading.split_once(':').map_or(heading, |(names, _)| names);
        let floors: Vec<&str> = heading.split(", ").collect();
        for file in files_of(table) {
            let first = file.split('/').next().unwrap_or_default();
            let is_below_all = heading == "below all" && GROUND.contains(&first);
            assert!(
                is_below_all || floors.contains(&first),
                "{file} is below {heading}"
            );
        }
    }
}

/// Files that are named outside the map are there too.
#[test]
fn what_the_developers_pages_name_is_there() {
    let mut seen = 0;
    for page in ["docs/development.md", "tests/README.md"] {
        let text = fs::read_to_string(root().join(page)).expect("it can be read");
        for word in text.split('`').skip(1).step_by(2) {
            let word = word.split(' ').next().unwrap_or_default();
            let is_path = word.contains('/')
                && !word.contains(['{', '*', '=', '<'])
                && !word.contains("NAME");
            let is_rust = word.strip_suffix(".rs").is_some();
            if is_path || is_rust {
                let places = [
                    root().join(word),
                    root().join("src").join(word),
                    root().join("tests").join(word),
                ];
                assert!(
                    places.iter().any(|path| path.exists()),
                    "{page}: `{word}` is not there"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} files were found");
}

/// The crate's own comment has the same picture of the flow.
#[test]
fn the_flow_is_drawn_once() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it can be read");
    let page = read("docs/development.md");
    let main = read("src/main.rs");
    let lines = main.lines().filter_map(|line| line.strip_prefix("//!"));
    let comment: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let flow = between(&page, "```text\n", "```");
    assert!(flow.lines().count() > 5, "{flow}");
    assert_eq!(between(&comment.join("\n"), "```text\n", "```"), flow);
}
