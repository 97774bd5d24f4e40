//! The files of the address plan: homelab.toml found and read, the Compose files that it names loaded, and all compiled.

use crate::cli::Global;
use crate::error::{Failure, why_unreadable};
use crate::input::compose::{self, Project, Request, World};
use crate::input::homelab_toml::{self, Config, OneOrMany};
use crate::input::problem::{Problem, Sources, Span};
use crate::plan::{self, Given, Plan, network_name};
use std::path::{Path, PathBuf};

/// homelab.toml.
pub struct File {
    path: PathBuf,
    text: String,
}

/// A compiled file.
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// What its owner should know.
    pub warnings: Vec<Problem>,
    /// The merged Compose files of each environment, in the order of the plan.
    pub projects: Vec<Project>,
}

/// Whether the services of Compose files are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// All of them.
    Loaded,
    /// The shim is no business of theirs, and its service may not read their files.
    LeftOut,
}

impl File {
    /// Finds and reads it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(global: &Global) -> Result<Self, Failure> {
        let usual = ["homelab.toml", "/etc/homelab/homelab.toml"];
        let found = || usual.iter().map(PathBuf::from).find(|path| path.exists());
        let named = || {
            let named = std::env::var_os("HOMELAB_CONFIG").filter(|path| !path.is_empty());
            named.map(PathBuf::from)
        };
        let Some(path) = global.config.clone().or_else(named).or_else(found) else {
            return Err(Failure::usage(
                "there is no homelab.toml in this folder and none in /etc/homelab",
                "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
            ));
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) => Err(Failure::usage(
                format!("`{}` {}", path.display(), why_unreadable(&error)),
                "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
            )),
        }
    }

    /// The texts of all files; only this one so far.
    pub fn sources(&self) -> Sources {
        Sources::new(self.path.display().to_string(), self.text.as_str())
    }

    /// Its absolute path.
    pub fn absolute(&self) -> PathBuf {
        std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// Compiles it; the texts of further files go to `sources`.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn compile(
        &self,
        services: Services,
        sources: &mut Sources,
    ) -> Result<Compiled, Vec<Problem>> {
        let path = self.absolute();
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (config, mut problems) = homelab_toml::parse(&self.text)?;
        let projects = match services {
            Services::Loaded => load(&config, folder, sources, &mut problems),
            Services::LeftOut => Vec::new(),
        };
        let given = Given {
            folder,
            projects: &projects,
            native_end: self.text.len() + 1,
            has_all_services: services == Services::Loaded,
        };
        let (plan, warnings) = plan::compile(&config, &given, problems)?;
        Ok(Compiled {
            plan,
            warnings,
            projects,
        })
    }
}

/// Loads the Compose files of every environment.
fn load(
    config: &Config,
    folder: &Path,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> Vec<Project> {
    let world = World {
        read: &|path| std::fs::read_to_string(path),
        variable: &|name| std::env::var(name).ok(),
    };
    let mut projects = Vec::new();
    for env in &config.envs {
        let name = env.name.get_ref();
        let own = |key: fn(&homelab_toml::Compose) -> &Option<OneOrMany>| -> Vec<(String, Span)> {
            let texts = key(&env.compose).as_ref().or(key(&config.compose).as_ref());
            let texts = texts.map(OneOrMany::texts).unwrap_or_default();
            let fill =
                |text: &homelab_toml::Text| (text.get_ref().replace("{env}", name), text.span());
            texts.iter().map(fill).collect()
        };
        let paths = |texts: Vec<(String, Span)>| {
            let path = |(text, span)| (folder.join(text), span);
            texts
                .into_iter()
                .map(path)
                .collect::<Vec<(PathBuf, Span)>>()
        };
        let request = Request {
            files: paths(own(|compose| &compose.files)),
            env_files: paths(own(|compose| &compose.env_file)),
            profiles: own(|compose| &compose.profiles)
                .into_iter()
                .map(|(profile, _)| profile)
                .collect(),
            project: network_name(name),
        };
        projects.push(compose::load(&request, &world, sources, problems));
    }
    projects
}
