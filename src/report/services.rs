//! The services of an environment as they are when all files are merged: a Compose file again, or JSON.

use super::{Report, json_text, out, print_object};
use crate::input::node::{Node, Value};
use crate::plan::Env;
use serde_json::{Map, Value as Json, json};

/// Prints them.
pub fn print(report: Report, env: &Env) {
    let all = whole(env);
    if report.json {
        print_object(&all);
        return;
    }
    let mut lines = Vec::new();
    yaml(&all, 0, &mut lines);
    for line in lines {
        out(line);
    }
}

fn whole(env: &Env) -> Json {
    let mut services = Map::new();
    for (name, keys) in &env.merged {
        let mut service = json(keys);
        let planned = env.services.iter().find(|service| service.name == *name);
        if let (Some(planned), Some(map)) = (planned, service.as_object_mut()) {
            let own = json!({ "host": planned.host, "address": planned.address });
            map.insert("x-homelab".to_owned(), own);
        }
        services.insert(name.clone(), service);
    }
    let mut all = Map::new();
    all.insert("name".to_owned(), json!(env.network()));
    all.insert("services".to_owned(), Json::Object(services));
    for (section, entries) in &env.sections {
        let map: Map<String, Json> = entries
            .0
            .iter()
            .map(|e| (e.key.clone(), json(&e.node)))
            .collect();
        if !map.is_empty() {
            all.insert((*section).to_owned(), Json::Object(map));
        }
    }
    Json::Object(all)
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(flag) => json!(flag),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        // What is printed is read again, where a dollar would begin a variable.
        Value::Text(text) => json!(text.replace('$', "$$")),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(map) => map
            .0
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.node)))
            .collect(),
    }
}

/// Lines of YAML; a scalar that could be taken for something else is quoted as JSON is, which YAML reads too.
fn yaml(value: &Json, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match value {
        Json::Object(map) => {
            for (key, value) in map {
                let key = word(key);
                if is_leaf(value) {
                    lines.push(format!("{indent}{key}: {}", leaf(value)));
                } else {
                    lines.push(format!("{indent}{key}:"));
                    yaml(value, depth + 1, lines);
                }
            }
        }
        Json::Array(items) => {
            for item in items {
                if is_leaf(item) {
                    lines.push(format!("{indent}- {}", leaf(item)));
                    continue;
                }
                let first = lines.len();
                yaml(item, depth + 1, lines);
                if let Some(line) = lines.get_mut(first) {
                    let rest = line.trim_start().to_owned();
                    *line = format!("{indent}- {rest}");
                }
            }
        }
        _ => lines.push(format!("{indent}{}", leaf(value))),
    }
}

fn is_leaf(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn leaf(value: &Json) -> String {
    match value {
        Json::String(text) => word(text),
        other => json_text(other),
    }
}

fn word(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_./@-".contains(c))
        && !matches!(
            text.to_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain {
        text.to_owned()
    } else {
        json_text(&Json::String(text.to_owned()))
    }
}
