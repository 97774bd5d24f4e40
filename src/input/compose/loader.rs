//! Compose files read, interpolated, extended and included, one after the other. Pure: files come in by the
//! [`LoadEnv`].

use super::dotenv::{self, Format};
use super::interpolate::{Variables, Wrong};
use super::{DEPTH, LoadEnv, Project, SECTIONS, Scope, merge, paths};
use crate::error::{Diagnostic, why_unreadable};
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Problems, Sources, Span, nearest};
use crate::input::yaml;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) struct Loader<'a> {
    pub(super) load_env: &'a LoadEnv<'a>,
    pub(super) sources: &'a mut Sources,
    pub(super) problems: &'a mut Problems,
    /// Variables whose absence was reported.
    pub(super) unset: BTreeSet<String>,
    pub(super) notices: Problems,
    /// The services of files that services extend, interpolated.
    pub(super) extended: BTreeMap<PathBuf, Map>,
}

impl Loader<'_> {
    fn wrong(&mut self, span: &Span, what: impl Into<String>, hint: impl Into<String>) {
        self.problems
            .push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }

    pub(super) fn read_variables(
        &mut self,
        files: &[(PathBuf, Span)],
        folder: &Path,
        scope: &mut Scope,
    ) {
        let usual = [(folder.join(".env"), 0..0)];
        let is_usual = files.is_empty();
        for (path, place) in if is_usual { &usual } else { files } {
            let text = match (self.load_env.read)(path) {
                Ok(text) => text,
                Err(error) if is_usual && error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let what = format!("`{}` {}", path.display(), why_unreadable(&error));
                    self.wrong(place, what, "it holds the variables of the Compose files");
                    continue;
                }
            };
            let parsed = dotenv::parse(&text, Format::Compose, &|name| {
                scope.lookup(self.load_env, name)
            });
            match parsed {
                Ok(pairs) => {
                    let set = |(name, value): (String, Option<String>)| Some((name, value?));
                    scope.own.extend(pairs.into_iter().filter_map(set));
                }
                Err(wrong) => {
                    let what =
                        format!("line {} of `{}` {}", wrong.line, path.display(), wrong.what);
                    self.wrong(place, what, wrong.hint);
                }
            }
        }
    }

    /// The documents of a file, interpolated.
    fn documents(&mut self, path: &Path, place: &Span, scope: &Scope) -> Vec<Node> {
        let shown = path.display().to_string();
        let text = match (self.load_env.read)(path) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("`{shown}` {}", why_unreadable(&error));
                self.wrong(place, what, "name a Compose file that is there");
                return Vec::new();
            }
        };
        let base = self.sources.add(shown, text.clone());
        match yaml::parse(&text, base) {
            Ok(mut documents) => {
                for document in &mut documents {
                    self.interpolate(document, scope);
                }
                documents
            }
            Err(problem) => {
                self.problems.push(*problem);
                Vec::new()
            }
        }
    }

    fn interpolate(&mut self, document: &mut Node, scope: &Scope) {
        let lookup = |name: &str| scope.lookup(self.load_env, name);
        let mut found = Vec::new();
        let mut unset = Vec::new();
        document.each_text(&mut |span, text| {
            if !text.contains('$') {
                return;
            }
            let mut variables = Variables::new(&lookup);
            match variables.expand(text) {
                Ok(expanded) => *text = expanded,
                Err(Wrong::Format(shown)) => found.push(
                    Diagnostic::error_at(span.clone(), format!("`{shown}` begins no variable"))
                        .hint("write `$$` for a dollar"),
                ),
                Err(Wrong::Required(name, said)) => {
                    let what = if said.is_empty() {
                        format!("the variable `{name}` is required and not set")
                    } else {
                        format!("the variable `{name}` is required and not set: {said}")
                    };
                    let hint = format!("set `{name}` in the `env_file` of homelab.toml");
                    found.push(Diagnostic::error_at(span.clone(), what).hint(hint));
                }
            }
            unset.extend(variables.unset.into_iter().map(|name| (name, span.clone())));
        });
        self.problems.append(&mut found);
        for (name, span) in unset {
            if self.unset.insert(name.clone()) {
                let what = format!("the variable `{name}` is not set, so it stands for nothing");
                let hint =
                    format!("set it in the `env_file` of homelab.toml, or write `${{{name}:-}}`");
                self.notices
                    .push(Diagnostic::warning_at(span, what).hint(hint));
            }
        }
    }

    /// Reads a file, with all that it extends and includes, into a project.
    pub(super) fn file(
        &mut self,
        path: &Path,
        place: &Span,
        folder: &Path,
        scope: &Scope,
        chain: &[PathBuf],
        project: &mut Project,
    ) {
        for document in self.documents(path, place, scope) {
            let span = document.span.clone();
            let mut map = match document.value {
                Value::Map(map) => map,
                Value::Null => continue,
                other => {
                    let what = format!("a Compose file is a table, and this is {other}");
                    self.wrong(&span, what, "it begins with `services:`");
                    continue;
                }
            };
            let include = map.remove("include");
            self.check_keys(&map);
            let mut own = Project::default();
            for name in SECTIONS {
                let Some(node) = map.remove(name) else {
                    continue;
                };
                let span = node.span.clone();
                match (node.value, own.section(name)) {
                    (Value::Map(entries), Some(section)) => *section = entries,
                    (Value::Null, _) => {}
                    (other, _) => {
                        let what = format!("`{name}` must be a table, and this is {other}");
                        self.wrong(&span, what, "write a name and its keys on the lines below");
                    }
                }
            }
            self.extend_all(&mut own, folder, scope, chain, project);
            paths::absolute_resources(&mut own, folder, self.load_env);
            if let Some(include) = include {
                self.include(&include, folder, scope, chain, &mut own);
            }
            merge::projects(project, own);
        }
    }

    fn check_keys(&mut self, map: &Map) {
        for entry in &map.0 {
            let key = entry.key.as_str();
            // The name of a project is homelab-ENV, and the version says nothing since Compose 1.27.
            let is_known = SECTIONS.contains(&key)
                || key.starts_with("x-")
                || matches!(key, "version" | "name");
            if is_known {
                continue;
            }
            if key == "models" {
                self.wrong(
                    &entry.span,
                    "`models` is not supported",
                    "homelab runs containers only: take it out",
                );
                continue;
            }
            let known = SECTIONS.into_iter().chain(["include"]);
            let hint = match nearest(key, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "keys of your own begin with `x-`".to_owned(),
            };
            self.wrong(&entry.span, format!("unknown key `{key}`"), hint);
        }
    }

    fn extend_all(
        &mut self,
        own: &mut Project,
        folder: &Path,
        scope: &Scope,
        chain: &[PathBuf],
        project: &Project,
    ) {
        let known = own.services.clone();
        for entry in &mut own.services.0 {
            let node = std::mem::take(&mut entry.node);
            let path = chain.last().cloned().unwrap_or_default();
            let mut seen = vec![(path, entry.key.clone())];
            let within = [&known, &project.services];
            entry.node = self.extended(node, within, folder, scope, &mut seen);
        }
    }

    /// A service with what it extends below it, all paths absolute.
    fn extended(
        &mut self,
        mut node: Node,
        within: [&Map; 2],
        folder: &Path,
        scope: &Scope,
        seen: &mut Vec<(PathBuf, String)>,
    ) -> Node {
        paths::absolute(&mut node, folder, self.load_env);
        let Some(extends) = node.as_map_mut().and_then(|map| map.remove("extends")) else {
            return node;
        };
        let (service, file) = extended_service(&extends);
        let Some(service) = service else {
            let hint =
                "write `extends: {service: NAME}`, with `file` when it stands in another one";
            self.wrong(&extends.span, "`extends` names no service", hint);
            return node;
        };
        let path = match &file {
            Some(file) => paths::joined(folder, file, self.load_env),
            None => seen
                .last()
                .map(|(path, _)| path.clone())
                .unwrap_or_default(),
        };
        let step = (path.clone(), service.clone());
        if seen.contains(&step) || seen.len() > DEPTH {
            let what = format!("service `{service}` extends itself");
            self.wrong(&extends.span, what, "take one `extends` away");
            return node;
        }
        let loaded;
        let (within, folder) = if file.is_some() {
            loaded = self.services_of(&path, &extends.span, scope);
            let Some(services) = &loaded else { return node };
            ([services, services], path.parent().unwrap_or(folder))
        } else {
            (within, folder)
        };
        let found = within.iter().find_map(|services| services.get(&service));
        let Some(base) = found.cloned() else {
            let known = within.iter().flat_map(|services| &services.0);
            let hint = match nearest(&service, known.map(|entry| entry.key.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`file` says where it stands when that is another file".to_owned(),
            };
            let what = format!("there is no service `{service}` to extend");
            self.wrong(&extends.span, what, hint);
            return node;
        };
        seen.push(step);
        let base = self.extended(base, within, folder, scope, seen);
        merge::service(base, node)
    }

    /// The services of a file that somebody extends.
    fn services_of(&mut self, path: &Path, place: &Span, scope: &Scope) -> Option<Map> {
        if let Some(known) = self.extended.get(path) {
            return Some(known.clone());
        }
        let errors = self.problems.len();
        let mut services = Map::default();
        for document in self.documents(path, place, scope) {
            if let Some(map) = document.get("services").and_then(Node::as_map) {
                for entry in &map.0 {
                    services.set(entry.clone());
                }
            }
        }
        if services.0.is_empty() && self.problems.len() > errors {
            return None;
        }
        self.extended.insert(path.to_owned(), services.clone());
        Some(services)
    }

    fn include(
        &mut self,
        include: &Node,
        folder: &Path,
        scope: &Scope,
        chain: &[PathBuf],
        project: &mut Project,
    ) {
        let Some(items) = include.as_list() else {
            self.wrong(
                &include.span,
                "`include` must be a list",
                "write `- FILE` on the lines below",
            );
            return;
        };
        for item in items {
            self.include_one(item, folder, scope, chain, project);
        }
    }

    fn include_one(
        &mut self,
        item: &Node,
        folder: &Path,
        scope: &Scope,
        chain: &[PathBuf],
        project: &mut Project,
    ) {
        let words = |key: &str| -> Vec<String> {
            match item.get(key).map(|node| &node.value) {
                Some(Value::Text(text)) => vec![text.clone()],
                Some(Value::List(list)) => list.iter().filter_map(Node::scalar).collect(),
                _ => Vec::new(),
            }
        };
        let files = match item.as_text() {
            Some(path) => vec![path.to_owned()],
            None => words("path"),
        };
        let load_env = self.load_env;
        let joined = |file: &String| paths::joined(folder, file, load_env);
        let paths: Vec<PathBuf> = files.iter().map(joined).collect();
        let Some(first) = paths.first() else {
            let hint = "write the path of a Compose file";
            self.wrong(&item.span, "this includes no file", hint);
            return;
        };
        if let Some(remote) = files.iter().find(|file| file.contains("://")) {
            let what = format!("`{remote}` is not on this machine");
            self.wrong(&item.span, what, "fetch it and include the copy");
            return;
        }
        if paths.iter().any(|path| chain.contains(path)) || chain.len() > DEPTH {
            let what = format!("`{}` includes itself", first.display());
            self.wrong(&item.span, what, "take one `include` away");
            return;
        }
        let inner = match words("project_directory").first() {
            Some(named) => joined(named),
            None => first.parent().unwrap_or(folder).to_owned(),
        };
        let env_files: Vec<(PathBuf, Span)> = words("env_file")
            .iter()
            .map(|file| (joined(file), item.span.clone()))
            .collect();
        let outer = scope.all();
        let mut own = Scope {
            outer: &outer,
            own: BTreeMap::new(),
        };
        self.read_variables(&env_files, &inner, &mut own);
        let mut included = Project::default();
        for path in &paths {
            let chain: Vec<PathBuf> = chain.iter().chain([path]).cloned().collect();
            self.file(path, &item.span, &inner, &own, &chain, &mut included);
        }
        self.add_included(included, project);
    }

    /// What is included may not stand in the including file too, unless it is the same.
    fn add_included(&mut self, mut included: Project, project: &mut Project) {
        for name in SECTIONS {
            let more = included.section(name).map(std::mem::take);
            let Some(section) = project.section(name) else {
                continue;
            };
            let mut twice: Vec<(Entry, Span)> = Vec::new();
            for entry in more.into_iter().flat_map(|map| map.0) {
                match section.entry(&entry.key) {
                    None => section.0.push(entry),
                    Some(known) if merge::same(&known.node, &entry.node) => {}
                    Some(known) => twice.push((entry.clone(), known.span.clone())),
                }
            }
            for (entry, known) in twice {
                let what = format!("`{name}.{}` is included and defined here too", entry.key);
                self.problems.push(
                    Diagnostic::error_at(entry.span, what)
                        .context(known, "also here")
                        .hint("to change what is included, list a second file under `path` of its `include`"),
                );
            }
        }
    }
}

/// The service that `extends` names, and the file it stands in when that is another one.
fn extended_service(extends: &Node) -> (Option<String>, Option<String>) {
    match &extends.value {
        Value::Text(service) => (Some(service.clone()), None),
        Value::Map(map) => (
            map.get("service").and_then(Node::scalar),
            map.get("file").and_then(Node::scalar),
        ),
        _ => (None, None),
    }
}
