//! The layout of src: its floors, which crates stand where, where names are made, what may print, and what may change the machine. Each
//! rule has a snippet that must break it, so that none can fall asleep.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the top; a file may use what stands on its own floor or below, never what stands above.
const FLOORS: [&[&str]; 9] = [
    &["main"],
    &["commands"],
    &["report"],
    &["apply", "observe", "verify"],
    &["system"],
    &["diff"],
    &["state"],
    &["plan"],
    &["input"],
];

/// Below all of [`FLOORS`].
const GROUND: [&str; 2] = ["cli", "error"];

/// What the pure floors know nothing of, as paths.
const IMPURE: [&str; 12] = [
    "tokio",
    "bollard",
    "rtnetlink",
    "zbus",
    "clap",
    "nix",
    "std :: fs",
    "std :: process",
    "std :: env",
    "Instant :: now",
    "SystemTime",
    "await",
];

/// Crates that one place uses, or a few.
const HOMES: [(&str, &[&str]); 17] = [
    ("rtnetlink", &["system/netlink"]),
    ("bollard", &["system/docker"]),
    ("docker_credential", &["system/docker"]),
    ("http", &["system/docker"]),
    ("tar", &["system/docker"]),
    ("sd_notify", &["system/systemd"]),
    (
        "nix",
        &["system/netlink", "verify/agent", "plan/service/values"],
    ),
    ("socket2", &["verify/agent"]),
    ("saphyr_parser", &["input/yaml"]),
    ("strsim", &["input/problem"]),
    ("annotate_snippets", &["report"]),
    ("anstream", &["report"]),
    ("anstyle", &["report"]),
    ("comfy_table", &["report"]),
    ("indicatif", &["report"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["main", "report"]),
];

/// What prints.
const PRINTS: [&str; 6] = [
    "println !",
    "eprintln !",
    "print !",
    "dbg !",
    "stdout ( )",
    "stderr ( )",
];

/// What changes files of the machine.
const WRITES: [&str; 8] = [
    "fs :: write",
    "fs :: remove_file",
    "fs :: remove_dir",
    "fs :: rename",
    "fs :: create_dir_all",
    "fs :: set_permissions",
    "OpenOptions",
    "Command :: new",
];

/// What of the adapters only asks; all else that others may call changes the machine and stands in the list of system.rs.
const ASKS: [&str; 21] = [
    "connect",
    "connect_and_ask",
    "has_net_admin",
    "links_and_routes",
    "subscribe",
    "arp_probe",
    "in_a_namespace",
    "networks",
    "containers",
    "volumes",
    "images",
    "process",
    "health",
    "exit",
    "logs",
    "wait_for",
    "wait_until_up",
    "observe",
    "ready",
    "status",
    "last_lines",
];

/// The longest file.
const LINES: usize = 500;

/// A file of src without its tests.
struct Source {
    /// Its path in src without the ending, like `system/netlink`.
    name: String,
    text: String,
    /// Its tokens, one space between two; comments and the tests are no part of it.
    code: String,
    /// The texts of its literals.
    literals: Vec<String>,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokens = without_tests(file.items);
        let (mut code, mut literals) = (Vec::new(), Vec::new());
        flatten(tokens, &mut code, &mut literals);
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            code: format!(" {} ", code.join(" ")),
            literals,
        }
    }

    fn is_in(&self, place: &str) -> bool {
        self.name == place || self.name.starts_with(&format!("{place}/"))
    }

    fn is_in_any(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.is_in(place))
    }

    fn has(&self, tokens: &str) -> bool {
        self.code.contains(&format!(" {tokens} "))
    }

    /// The modules that it uses, as paths from the root, like `["plan", "naming"]`.
    fn uses(&self) -> BTreeSet<Vec<String>> {
        let tokens: Vec<&str> = self.code.split(' ').filter(|t| !t.is_empty()).collect();
        let mut all = BTreeSet::new();
        let mut index = 0;
        while let Some(token) = tokens.get(index) {
            let own: Vec<String> = self.name.split('/').map(str::to_owned).collect();
            let base = match *token {
                "crate" => Some(Vec::new()),
                "super" if tokens.get(index.wrapping_sub(1)) != Some(&"(") => {
                    let up = own.len() - 1;
                    Some(own.into_iter().take(up).collect())
                }
                _ => None,
            };
            index += 1;
            if let Some(base) = base {
                index = branches(&tokens, index, base, &mut all);
            }
        }
        all
    }
}

/// Follows a path, and all branches of a tree of paths; returns where it ends.
fn branches(
    tokens: &[&str],
    mut index: usize,
    mut path: Vec<String>,
    all: &mut BTreeSet<Vec<String>>,
) -> usize {
    while tokens.get(index) == Some(&"::") {
        match tokens.get(index + 1).copied() {
            Some("{") => {
                index += 2;
                while let Some(token) = tokens.get(index).copied() {
                    index = match token {
                        "}" => return index + 1,
                        "," | "as" => index + 1,
                        name => {
                            let mut longer = path.clone();
                            longer.push(name.to_owned());
                            branches(tokens, index + 1, longer, all)
                        }
                    };
                }
                return index;
            }
            Some("super") => {
                path.pop();
                index += 2;
            }
            Some(name) => {
                path.push(name.to_owned());
                index += 2;
            }
            None => break,
        }
    }
    all.insert(path);
    index
}

/// Items without those that are there for tests only.
fn without_tests(items: Vec<syn::Item>) -> TokenStream {
    let is_test = |attributes: &[syn::Attribute]| {
        attributes.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute
                    .meta
                    .to_token_stream()
                    .to_string()
                    .contains("test")
        })
    };
    let mut tokens = TokenStream::new();
    for item in items {
        let attributes = match &item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            item.to_tokens(&mut tokens);
        }
    }
    tokens
}

fn flatten(tokens: TokenStream, code: &mut Vec<String>, literals: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let inside = group.stream();
                // Doc comments are attributes.
                if inside.to_string().starts_with("doc =") {
                    continue;
                }
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                code.push(open.to_owned());
                flatten(inside, code, literals);
                code.push(close.to_owned());
            }
            TokenTree::Literal(literal) => {
                literals.push(literal.to_string());
                code.push("LITERAL".to_owned());
            }
            TokenTree::Punct(first) => {
                let is_path = first.as_char() == ':'
                    && matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                if is_path {
                    tokens.next();
                    code.push("::".to_owned());
                } else {
                    code.push(first.to_string());
                }
            }
            TokenTree::Ident(ident) => code.push(ident.to_string()),
        }
    }
}

type Rule = fn(&Source) -> Vec<String>;

/// Each with what it is called and a snippet that must break it: a file and its text.
const RULES: [(&str, Rule, (&str, &str)); 10] = [
    (
        "floors",
        floors,
        (
            "plan/x",
            "//! X.\nuse crate::{error::Error, diff::{self, Step}};",
        ),
    ),
    (
        "pure floors",
        pure,
        ("state", "//! X.\nfn f() { let _ = std::fs::read(\"x\"); }"),
    ),
    (
        "homes of crates",
        homes,
        ("report/x", "//! X.\nfn f() -> bollard::Docker { todo!() }"),
    ),
    (
        "printing",
        printing,
        ("apply", "//! X.\nfn f() { println!(\"x\"); }"),
    ),
    (
        "names",
        names,
        (
            "diff/x",
            "//! X.\nfn f() -> String { format!(\"homelab-{}\", 1) }",
        ),
    ),
    (
        "labels",
        names,
        (
            "system/x",
            "//! X.\nconst X: &str = \"com.docker.compose.x\";",
        ),
    ),
    (
        "fingerprints",
        fingerprints,
        (
            "plan/service/fingerprint",
            "//! X.\nfn f(x: Option<u8>) -> String { format!(\"{x:?}\") }",
        ),
    ),
    (
        "changes",
        changes,
        (
            "observe",
            "//! X.\nasync fn f() { systemd::carry_out(x).await; }",
        ),
    ),
    (
        "writing",
        writing,
        (
            "commands/x",
            "//! X.\nfn f() { let _ = std::fs::remove_file(\"x\"); }",
        ),
    ),
    ("what a file is", says_what_it_is, ("diff/x", "fn f() {}")),
];

fn floors(source: &Source) -> Vec<String> {
    let own = floor_of(&source.name);
    let uses = source.uses().into_iter();
    uses.filter_map(|path| {
        let first = path.first()?;
        let above = floor_of(first) < own;
        above.then(|| format!("uses `{}`, which stands above it", path.join("::")))
    })
    .collect()
}

fn floor_of(name: &str) -> usize {
    let first = name.split('/').next().unwrap_or_default();
    let floor = FLOORS.iter().position(|floor| floor.contains(&first));
    floor.unwrap_or(FLOORS.len())
}

fn pure(source: &Source) -> Vec<String> {
    let is_pure = source.is_in_any(&["input", "plan", "state", "diff", "error", "verify/matrix"]);
    // It opens the files of services, which are not known before a plan is.
    if !is_pure || source.name == "input/service_files" {
        return Vec::new();
    }
    let found = IMPURE.iter().filter(|word| source.has(word));
    // The kernel's names of signals are no I/O.
    let found = found.filter(|word| **word != "nix" || source.name != "plan/service/values");
    found
        .map(|word| format!("is pure and has `{word}`"))
        .collect()
}

fn homes(source: &Source) -> Vec<String> {
    let strangers = HOMES.iter().filter(|(name, places)| {
        let is_used = source.has(&format!("{name} ::")) && !source.is_in_any(places);
        is_used && !source.has(&format!(":: {name} ::"))
    });
    strangers
        .map(|(name, places)| format!("uses `{name}`, which is at home in {}", places.join(", ")))
        .collect()
}

fn printing(source: &Source) -> Vec<String> {
    if source.is_in("report") {
        return Vec::new();
    }
    let found = PRINTS.iter().filter(|word| source.has(word));
    found.map(|word| format!("prints by `{word}`")).collect()
}

fn names(source: &Source) -> Vec<String> {
    if source.name == "plan/naming" {
        return Vec::new();
    }
    let is_name = |text: &&String| {
        let text = text.trim_matches('"');
        let is_label = text.starts_with("homelab.") && !text.starts_with("homelab.toml");
        let is_prefixed = text.contains("homelab-") && !text.contains(' ');
        let is_foreign = text.contains("com.docker.compose") && !text.contains(' ');
        is_label || is_prefixed || is_foreign || text.starts_with("hl-")
    };
    let made = source.literals.iter().filter(is_name);
    made.map(|text| format!("makes the name {text}, which belongs into plan/naming.rs"))
        .collect()
}

fn fingerprints(source: &Source) -> Vec<String> {
    let is_part = source.is_in_any(&["plan/service/fingerprint", "plan/service/compose_resources"]);
    let debug = source.literals.iter().filter(|text| text.contains(":?}"));
    debug
        .filter(|_| is_part)
        .map(|text| format!("has {text}: Debug is no form to keep"))
        .collect()
}

fn changes(source: &Source) -> Vec<String> {
    let calls = source
        .code
        .split(' ')
        .filter(|word| word.starts_with("carry_out"));
    let may = source.is_in_any(&["apply", "system"]);
    calls
        .filter(|_| !may)
        .map(|word| format!("calls `{word}`, which only apply does"))
        .collect()
}

fn writing(source: &Source) -> Vec<String> {
    // The agent puts itself into a cgroup, and verify starts agents.
    if source.is_in_any(&["system", "verify"]) {
        return Vec::new();
    }
    let found = WRITES.iter().filter(|word| source.has(word));
    found
        .map(|word| format!("changes the machine by `{word}`"))
        .collect()
}

fn says_what_it_is(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    if !source.text.starts_with("//! ") {
        wrong.push("does not begin with `//!`".to_owned());
    }
    let lines = source.text.lines().count();
    if lines > LINES {
        wrong.push(format!("has {lines} lines, more than {LINES}"));
    }
    wrong
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of src but those of tests.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let (mut folders, mut all): (Vec<PathBuf>, Vec<Source>) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&src).expect("it is in src");
            let name = name.with_extension("").display().to_string();
            let is_test = name.split('/').any(|part| part == "tests") || name.ends_with("_tests");
            if !is_test {
                let text = fs::read_to_string(&path).expect("sources are text");
                all.push(Source::new(&name, &text));
            }
        }
    }
    assert!(all.len() > 60, "only {} files were found", all.len());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

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
