//! Compose files to one tree of services, networks, volumes, configs and secrets: read, interpolated, extended, included and
//! merged as the Compose specification says, every value with its place. Files and variables come in by the [`LoadEnv`].

pub mod dotenv;
pub mod interpolate;
mod loader;
mod merge;
mod paths;

#[cfg(test)]
mod tests;

pub use merge::replace_keys;
pub use paths::absolute as absolute_paths;

use crate::input::node::Map;
use crate::input::problem::{Problems, Sources, Span};
use loader::Loader;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How deep files may include or extend each other.
const DEPTH: usize = 16;

/// What lies outside the files themselves.
pub struct LoadEnv<'a> {
    /// Reads a text file.
    pub read: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// A variable of this process, which wins over those of env files.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// What is to be loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Compose files, the first one's folder being the project's; later ones are merged over earlier ones.
    pub files: Vec<(PathBuf, Span)>,
    /// Files with variables; without any, `.env` in the project's folder is taken when it is there.
    pub env_files: Vec<(PathBuf, Span)>,
    /// The name of the Compose project, which `$COMPOSE_PROJECT_NAME` is.
    pub project: String,
    /// Active profiles, beside those of the variable `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
}

/// The merged files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// `services`
    pub services: Map,
    /// `networks`
    pub networks: Map,
    /// `volumes`
    pub volumes: Map,
    /// `configs`
    pub configs: Map,
    /// `secrets`
    pub secrets: Map,
    /// The files that were named.
    pub files: Vec<PathBuf>,
    /// The variables of the env files.
    pub variables: BTreeMap<String, String>,
    /// Active profiles.
    pub profiles: BTreeSet<String>,
    /// What whoever brings it up should know.
    pub notices: Problems,
}

impl Project {
    fn section(&mut self, name: &str) -> Option<&mut Map> {
        match name {
            "services" => Some(&mut self.services),
            "networks" => Some(&mut self.networks),
            "volumes" => Some(&mut self.volumes),
            "configs" => Some(&mut self.configs),
            "secrets" => Some(&mut self.secrets),
            _ => None,
        }
    }
}

const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "configs", "secrets"];

/// Loads the files of one environment. What can be read is in the project; what is wrong goes to `problems`.
pub fn load(
    request: &LoadOptions,
    load_env: &LoadEnv,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Project {
    if request.files.is_empty() {
        return Project::default();
    }
    let mut loader = Loader {
        load_env,
        sources,
        problems,
        unset: BTreeSet::new(),
        notices: Vec::new(),
        extended: BTreeMap::new(),
    };
    let folder = request.files.first().and_then(|(path, _)| path.parent());
    let folder = folder.unwrap_or(Path::new("/")).to_owned();
    let mut scope = Scope {
        outer: &BTreeMap::new(),
        own: BTreeMap::from([("COMPOSE_PROJECT_NAME".to_owned(), request.project.clone())]),
    };
    loader.read_variables(&request.env_files, &folder, &mut scope);
    let files = request.files.iter().map(|(path, _)| path.clone());
    let mut project = Project {
        files: files.collect(),
        ..Project::default()
    };
    for (path, place) in &request.files {
        let chain = [path.clone()];
        loader.file(path, place, &folder, &scope, &chain, &mut project);
    }
    project.notices = std::mem::take(&mut loader.notices);
    let profiles = scope
        .lookup(load_env, "COMPOSE_PROFILES")
        .unwrap_or_default();
    let profiles = profiles
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    project.profiles = profiles
        .map(str::to_owned)
        .chain(request.profiles.clone())
        .collect();
    project.variables = scope.own;
    project
}

/// Variables of env files: those of the project that includes win over those of the included one.
struct Scope<'a> {
    outer: &'a BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

impl Scope<'_> {
    fn lookup(&self, load_env: &LoadEnv, name: &str) -> Option<String> {
        (load_env.variable)(name)
            .or_else(|| self.outer.get(name).cloned())
            .or_else(|| self.own.get(name).cloned())
    }

    fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.own.clone();
        all.extend(self.outer.clone());
        all
    }
}
