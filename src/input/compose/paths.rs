//! Paths of Compose files made absolute: each starts from the folder of the file that it stands in. Pure.

use super::{LoadEnv, Project};
use crate::input::node::{Entry, Map, Node, Value};
use std::path::{Component, Path, PathBuf};

/// A path of a file in `folder`, with `~` for the home folder.
pub(super) fn joined(folder: &Path, path: &str, load_env: &LoadEnv) -> PathBuf {
    let Some(rest) = path.strip_prefix('~') else {
        return clean(&folder.join(path));
    };
    match (load_env.variable)("HOME") {
        Some(home) if rest.is_empty() || rest.starts_with('/') => {
            clean(&PathBuf::from(home + rest))
        }
        _ => PathBuf::from(path),
    }
}

/// Resolves `.` and `..` by name, as Compose does; `/srv/./x` and `/srv/x` are one bind for the Engine.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

/// Makes the paths of a service absolute.
pub fn absolute(service: &mut Node, folder: &Path, load_env: &LoadEnv) {
    let Some(map) = service.as_map_mut() else {
        return;
    };
    let absolute = |node: &mut Node| {
        if let Value::Text(path) = &mut node.value {
            *path = joined(folder, path, load_env).display().to_string();
        }
    };
    for key in ["env_file", "label_file"] {
        let Some(node) = map.get_mut(key) else {
            continue;
        };
        match &mut node.value {
            Value::List(items) => {
                for item in items {
                    match item.as_map_mut() {
                        Some(map) => map.get_mut("path").into_iter().for_each(absolute),
                        None => absolute(item),
                    }
                }
            }
            Value::Map(map) => map.get_mut("path").into_iter().for_each(absolute),
            _ => absolute(node),
        }
    }
    if let Some(volumes) = map.get_mut("volumes")
        && let Value::List(items) = &mut volumes.value
    {
        for item in items {
            volume(item, folder, load_env);
        }
    }
    if let Some(build) = map.get_mut("build") {
        let context = match &mut build.value {
            Value::Map(map) => map.get_mut("context"),
            _ => Some(build),
        };
        if let Some(context) = context
            && !context.as_text().is_some_and(|text| text.contains("://"))
        {
            absolute(context);
        }
    }
    if let Some(options) = map.get_mut("security_opt")
        && let Value::List(items) = &mut options.value
    {
        for item in items {
            let Value::Text(text) = &mut item.value else {
                continue;
            };
            let path = text
                .strip_prefix("seccomp")
                .and_then(|rest| rest.strip_prefix([':', '=']));
            if let Some(path) = path.filter(|path| !matches!(*path, "unconfined" | "builtin")) {
                *text = format!("seccomp={}", joined(folder, path, load_env).display());
            }
        }
    }
}

fn volume(item: &mut Node, folder: &Path, load_env: &LoadEnv) {
    match &mut item.value {
        Value::Text(text) => {
            if !text.starts_with(['.', '~']) {
                return;
            }
            let (source, rest) = text.split_once(':').unwrap_or((text, ""));
            let source = joined(folder, source, load_env);
            let source = source.display().to_string();
            if source.contains(':') {
                // The short form would end the path there.
                let span = item.span.clone();
                let entry = |key: &str, text: &str| Entry {
                    key: key.to_owned(),
                    span: span.clone(),
                    node: Node::text(span.clone(), text),
                };
                let target = rest.split(':').next().unwrap_or(rest);
                let long = [("type", "bind"), ("source", &source), ("target", target)];
                item.value = Value::Map(Map(long.map(|(key, text)| entry(key, text)).into()));
            } else if !rest.is_empty() {
                *text = format!("{source}:{rest}");
            }
        }
        Value::Map(map) => {
            let is_bind = map.get("type").and_then(Node::as_text) == Some("bind");
            if let Some(node) = map.get_mut("source").filter(|_| is_bind)
                && let Value::Text(path) = &mut node.value
            {
                *path = joined(folder, path, load_env).display().to_string();
            }
        }
        _ => {}
    }
}

/// Makes the paths of configs, secrets and volumes absolute.
pub(super) fn absolute_resources(project: &mut Project, folder: &Path, load_env: &LoadEnv) {
    let each = |section: &mut Map, change: &dyn Fn(&mut Map)| {
        for entry in &mut section.0 {
            entry.node.as_map_mut().into_iter().for_each(change);
        }
    };
    let file = |map: &mut Map| {
        if let Some(node) = map.get_mut("file")
            && let Value::Text(path) = &mut node.value
        {
            *path = joined(folder, path, load_env).display().to_string();
        }
    };
    each(&mut project.configs, &file);
    each(&mut project.secrets, &file);
    // A bind mount of the local driver; a device like /dev/sdb1 is absolute anyway.
    each(&mut project.volumes, &|map: &mut Map| {
        let Some(options) = map.get_mut("driver_opts").and_then(Node::as_map_mut) else {
            return;
        };
        let is_bind = options.get("o").and_then(Node::scalar);
        let is_bind = is_bind.is_some_and(|o| o.split(',').any(|o| matches!(o, "bind" | "rbind")));
        if let Some(node) = options.get_mut("device").filter(|_| is_bind)
            && let Value::Text(path) = &mut node.value
        {
            *path = joined(folder, path, load_env).display().to_string();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_name() {
        assert_eq!(
            clean(Path::new("/etc/homelab/./a/../b")),
            Path::new("/etc/homelab/b")
        );
    }
}
