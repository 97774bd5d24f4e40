//! How a later Compose file, or a service that extends another, is laid over what is there. Pure.

use super::Project;
use crate::input::node::{Entry, Map, Mark, Node, Value};

/// Lays the resources of a later file over a project.
pub(super) fn projects(project: &mut Project, over: Project) {
    let Project {
        services,
        networks,
        volumes,
        configs,
        secrets,
        files: _,
        variables: _,
        profiles: _,
        notices: _,
    } = over;
    for entry in services.0 {
        merge_entry(&mut project.services, entry, service);
    }
    let sections = [
        (&mut project.networks, networks),
        (&mut project.volumes, volumes),
        (&mut project.configs, configs),
        (&mut project.secrets, secrets),
    ];
    for (section, over) in sections {
        for entry in over.0 {
            merge_entry(section, entry, nodes);
        }
    }
}

fn merge_entry(map: &mut Map, entry: Entry, merge: impl Fn(Node, Node) -> Node) {
    match entry.node.mark {
        Mark::Reset => {
            map.remove(&entry.key);
        }
        Mark::Override => map.set(entry),
        Mark::None => match map.get_mut(&entry.key) {
            Some(known) => *known = merge(std::mem::take(known), entry.node),
            None => map.0.push(entry),
        },
    }
}

/// Lays one service over another.
pub(super) fn service(base: Node, over: Node) -> Node {
    let (Value::Map(mut map), Value::Map(_)) = (base.value.clone(), &over.value) else {
        return if over.is_null() { base } else { over };
    };
    let Value::Map(over_map) = over.value else {
        return base;
    };
    for entry in over_map.0 {
        let key = entry.key.clone();
        merge_entry(&mut map, entry, |base, over| service_key(&key, base, over));
    }
    Node::new(over.span, Value::Map(map))
}

fn service_key(key: &str, base: Node, over: Node) -> Node {
    match key {
        "command" | "entrypoint" => over,
        "environment" | "labels" | "annotations" | "sysctls" | "storage_opt" => {
            nodes(by_name(base, '='), by_name(over, '='))
        }
        "extra_hosts" => nodes(by_name(base, '='), by_name(over, '=')),
        "depends_on" | "networks" => nodes(by_name(base, '\0'), by_name(over, '\0')),
        "env_file" | "dns" | "dns_opt" | "dns_search" | "tmpfs" | "label_file" => {
            append(listed(base), listed(over), |_| None)
        }
        "volumes" => append(base, over, |node| target(node, 1)),
        "devices" => append(base, over, |node| target(node, 1)),
        "configs" | "secrets" => append(base, over, |node| target(node, 0)),
        "healthcheck" | "logging" => {
            let driver = |node: &Node| node.get("driver").and_then(Node::scalar);
            if let (Some(old), Some(new)) = (driver(&base), driver(&over))
                && old != new
            {
                return over;
            }
            nodes(base, over)
        }
        "ulimits" => match (base.value, over.value) {
            (Value::Map(mut map), Value::Map(over_map)) => {
                over_map.0.into_iter().for_each(|entry| map.set(entry));
                Node::new(over.span, Value::Map(map))
            }
            (_, value) => Node::new(over.span, value),
        },
        _ => nodes(base, over),
    }
}

/// Tables by key, lists one behind the other, anything else replaced.
fn nodes(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Map(mut map), Value::Map(over_map)) => {
            for entry in over_map.0 {
                let is_test = entry.key == "test";
                merge_entry(&mut map, entry, |base, over| {
                    if is_test { over } else { nodes(base, over) }
                });
            }
            Node::new(over.span, Value::Map(map))
        }
        (base_value @ Value::List(_), over_value @ Value::List(_)) => append(
            Node::new(base.span, base_value),
            Node::new(over.span, over_value),
            |_| None,
        ),
        // An empty value of a later file leaves what is there, as `networks: {lan: }` does.
        (base_value @ (Value::Map(_) | Value::List(_)), Value::Null) => {
            Node::new(base.span, base_value)
        }
        (_, value) => Node::new(over.span, value),
    }
}

/// A list of `NAME=value` or of names as a table.
fn by_name(node: Node, sign: char) -> Node {
    let Value::List(items) = node.value else {
        return node;
    };
    let mut map = Map::default();
    for item in items {
        let Some(text) = item.scalar() else { continue };
        // Hosts may also be given as `name:address`.
        let split = text.split_once(sign).or_else(|| {
            let is_host = sign == '=' && !text.contains('=') && text.contains(':');
            is_host.then(|| text.split_once(':')).flatten()
        });
        let (key, value) = match split {
            Some((key, value)) => (key.to_owned(), Value::Text(value.to_owned())),
            None => (text, Value::Null),
        };
        map.set(Entry {
            key,
            span: item.span.clone(),
            node: Node::new(item.span, value),
        });
    }
    Node::new(node.span, Value::Map(map))
}

fn listed(node: Node) -> Node {
    match node.value {
        Value::List(_) | Value::Null => node,
        _ => Node::new(node.span.clone(), Value::List(vec![node])),
    }
}

/// One list behind the other. Of two items with the same index the later one stays, in the place of the first; of equal
/// ones only one.
fn append(base: Node, over: Node, index: impl Fn(&Node) -> Option<String>) -> Node {
    let span = over.span.clone();
    let items = |node: Node| match node.value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        _ => vec![node],
    };
    let mut all: Vec<Node> = Vec::new();
    for item in items(base).into_iter().chain(items(over)) {
        let at = index(&item);
        let known = all
            .iter_mut()
            .find(|known| same(known, &item) || at.is_some() && index(known) == at);
        match known {
            Some(known) => *known = item,
            None => all.push(item),
        }
    }
    Node::new(span, Value::List(all))
}

/// Where in the container something is mounted; `part` says which part of the short form tells.
fn target(node: &Node, part: usize) -> Option<String> {
    if let Some(text) = node.as_text() {
        let parts: Vec<&str> = text.split(':').collect();
        return parts
            .get(part)
            .or(parts.first())
            .map(|part| (*part).to_owned());
    }
    node.get("target")
        .or(node.get("source"))
        .and_then(Node::scalar)
}

/// Whether two values are the same, wherever they stand.
pub(super) fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let mut entries = a.0.iter();
            let is_there = |entry: &Entry| b.get(&entry.key).is_some_and(|b| same(&entry.node, b));
            a.0.len() == b.0.len() && entries.all(is_there)
        }
        (a, b) => a == b,
    }
}

/// Lays a table of homelab.toml over a service: its keys replace those below; `environment` and `labels` are merged by name.
pub fn replace_keys(base: Map, over: Map) -> Map {
    let mut map = base;
    for entry in over.0 {
        let is_by_name = matches!(entry.key.as_str(), "environment" | "labels");
        match map.get_mut(&entry.key) {
            Some(known) if is_by_name => {
                let below = by_name(std::mem::take(known), '=');
                *known = nodes(below, by_name(entry.node, '='));
            }
            _ => map.set(entry),
        }
    }
    map
}
