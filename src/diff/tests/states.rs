//! Reads the state that a case starts from: a whole one of tests/cases/states, by `like`, and what differs from it.

use crate::state::State;
use std::path::Path;
use toml::{Table, Value};

/// What a case's `state.toml` says: the name of its plan in tests/cases/plans, and the state.
pub(super) fn read(cases: &Path, file: &Path) -> (Option<String>, State) {
    let mut state = resolve(cases, file);
    let plan = match state.remove("plan") {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(other) => unreachable!("{}: `plan` is {other:?}", file.display()),
    };
    let state = state
        .try_into()
        .unwrap_or_else(|error| unreachable!("{}: {error}", file.display()));
    (plan, state)
}

/// A file laid over the one that it is like.
fn resolve(cases: &Path, file: &Path) -> Table {
    let mut own: Table = toml::from_str(&super::read(file))
        .unwrap_or_else(|error| unreachable!("{}: {error}", file.display()));
    let mut base = match own.remove("like") {
        None => Table::new(),
        Some(Value::String(name)) => resolve(cases, &named(cases, "states", &name)),
        Some(other) => unreachable!("{}: `like` is {other:?}", file.display()),
    };
    for gone in list(own.remove("gone")) {
        let Value::String(path) = gone else {
            unreachable!("{}: `gone` has {gone:?}", file.display())
        };
        let words: Vec<&str> = path.split(' ').collect();
        let is_gone = remove_from_table(&mut base, &words);
        assert!(is_gone, "{}: there is no `{path}`", file.display());
    }
    merge(&mut base, own);
    base
}

/// A file that cases share.
pub(super) fn named(cases: &Path, folder: &str, name: &str) -> std::path::PathBuf {
    cases.join(folder).join(format!("{name}.toml"))
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => unreachable!("`gone` is {other:?}"),
    }
}

/// Tables merge key by key, things with names one by one; every other value takes the place of what was there.
fn merge(base: &mut Table, own: Table) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(own)) => merge(base, own),
            (Some(Value::Array(base)), Value::Array(own))
                if !own.is_empty()
                    && base.iter().chain(&own).all(|item| identity(item).is_some()) =>
            {
                for item in own {
                    merge_item(base, item);
                }
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_item(base: &mut Vec<Value>, own: Value) {
    let found = base
        .iter_mut()
        .find(|item| identity(item) == identity(&own));
    match (found, own) {
        (Some(Value::Table(base)), Value::Table(own)) => merge(base, own),
        (_, own) => base.push(own),
    }
}

/// What tells a thing from the others of its list: its name, or a route's destination and link.
fn identity(item: &Value) -> Option<(&str, &str)> {
    let text = |key| item.get(key).and_then(Value::as_str);
    match text("name") {
        Some(name) => Some((name, "")),
        None => Some((text("destination")?, text("link")?)),
    }
}

/// Takes away what the words lead to, like `docker containers db`; whether it was there.
fn remove_from_table(table: &mut Table, words: &[&str]) -> bool {
    match words {
        [] => false,
        [key] => table.remove(*key).is_some(),
        [key, rest @ ..] => match table.get_mut(*key) {
            Some(Value::Table(inner)) => remove_from_table(inner, rest),
            Some(Value::Array(items)) => remove_from_list(items, rest),
            _ => false,
        },
    }
}

fn remove_from_list(items: &mut Vec<Value>, words: &[&str]) -> bool {
    let [name, rest @ ..] = words else {
        return false;
    };
    let is_it = |item: &Value| identity(item).is_some_and(|(own, _)| own == *name);
    if rest.is_empty() {
        let before = items.len();
        items.retain(|item| !is_it(item));
        return items.len() < before;
    }
    match items.iter_mut().find(|item| is_it(item)) {
        Some(Value::Table(item)) => remove_from_table(item, rest),
        _ => false,
    }
}

#[test]
fn a_state_says_what_differs() {
    let table = |text: &str| -> Table {
        toml::from_str(text).unwrap_or_else(|error| unreachable!("{error}"))
    };
    let base = r#"
        links = [{ name = "eth0", up = true }, { name = "shim", up = true }]
        answered = ["192.168.1.1", "192.168.1.2"]
        [docker]
        api = "1.51"
        volumes = ["data"]
    "#;
    let own = r#"
        links = [{ name = "shim", up = false }, { name = "eth1" }]
        answered = ["192.168.1.3"]
        docker = { volumes = [] }
    "#;
    let mut merged = table(base);
    merge(&mut merged, table(own));
    let expected = r#"
        links = [{ name = "eth0", up = true }, { name = "shim", up = false }, { name = "eth1" }]
        answered = ["192.168.1.3"]
        docker = { api = "1.51", volumes = [] }
    "#;
    assert_eq!(merged, table(expected));
    assert!(remove_from_table(&mut merged, &["links", "eth0"]));
    assert!(remove_from_table(&mut merged, &["links", "shim", "up"]));
    assert!(!remove_from_table(&mut merged, &["links", "eth0"]));
    assert_eq!(
        merged.get("links"),
        table(r#"links = [{ name = "shim" }, { name = "eth1" }]"#).get("links")
    );
}
