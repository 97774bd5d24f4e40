//! The one way from text to plan in tests.

use crate::input::compose::LoadEnv;
use crate::input::problem::Sources;
use crate::plan::{Plan, Problems, Services, from_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of a plan in the making, in memory: homelab.toml and env files in /etc/homelab, Compose files in /home.
#[derive(Clone, Default)]
pub struct PlanFiles {
    toml: String,
    files: BTreeMap<PathBuf, String>,
    variables: BTreeMap<String, String>,
}

/// Where homelab.toml is.
const FOLDER: &str = "/etc/homelab";

/// The smallest home that has all.
pub const HOME: &str = "[network]\nsubnet = '192.168.1.0/24'\ngateway = '192.168.1.1'\n[shim]\naddress = '192.168.1.254'\n[hosts.pi]\naddress = '192.168.1.10'\nprimary = true\n[env.prod]\nrange = '192.168.1.192-192.168.1.223'\n[env.preprod]\nrange = '192.168.1.224-192.168.1.249'\n";

impl PlanFiles {
    /// This homelab.toml.
    pub fn new(toml: impl Into<String>) -> Self {
        let toml = toml.into();
        Self {
            toml,
            ..Self::default()
        }
    }

    /// With a Compose file that all environments have, in /home.
    pub fn compose(mut self, text: &str) -> Self {
        self.toml = format!("compose = ['/home/compose.yml']\n{}", self.toml);
        self.file("/home/compose.yml", text)
    }

    /// With a file for each environment that has the variables of its Compose files.
    pub fn env_files(mut self, texts: &[(&str, &str)]) -> Self {
        self.toml = format!("env_file = '{{env}}.env'\n{}", self.toml);
        let all = texts.iter();
        all.fold(self, |files, (env, text)| {
            files.file(&format!("{env}.env"), text)
        })
    }

    /// With a file, whose path starts from the folder of homelab.toml.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        let path = Path::new(FOLDER).join(path);
        self.files.insert(path, text.to_owned());
        self
    }

    /// With a variable of homelab's own environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The plan and its warnings, or what is wrong, with the texts that the places are in.
    pub fn read(&self) -> (Result<(Plan, Problems), Problems>, Sources) {
        let load_env = LoadEnv {
            read: &|path| {
                let found = self.files.get(path).cloned();
                found.ok_or_else(|| std::io::ErrorKind::NotFound.into())
            },
            variable: &|name| self.variables.get(name).cloned(),
        };
        let mut sources = Sources::new("homelab.toml", self.toml.as_str());
        let folder = Path::new(FOLDER);
        let result = from_text(
            &self.toml,
            folder,
            Services::Loaded,
            &load_env,
            &mut sources,
        );
        (result, sources)
    }

    /// The plan.
    pub fn plan(&self) -> Plan {
        match self.read().0 {
            Ok((plan, _)) => plan,
            Err(problems) => unreachable!("{problems:?}"),
        }
    }
}
