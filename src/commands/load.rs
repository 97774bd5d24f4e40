//! The file of the address plan: found, read and compiled.

use crate::cli::Global;
use crate::error::{Error, why_unreadable};
use crate::input::compose::LoadEnv;
use crate::input::problem::{Problems, Sources};
use crate::plan::{self, Plan, Services};
use std::path::{Component, Path, PathBuf};

/// homelab.toml.
#[derive(Debug, PartialEq, Eq)]
pub struct PlanFile {
    path: PathBuf,
    text: String,
}

impl PlanFile {
    /// Finds and reads it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(global: &Global) -> Result<Self, Error> {
        let usual = ["homelab.toml", "/etc/homelab/homelab.toml"];
        let found = || usual.iter().map(PathBuf::from).find(|path| path.exists());
        let named = || {
            let named = std::env::var_os("HOMELAB_CONFIG").filter(|path| !path.is_empty());
            named.map(PathBuf::from)
        };
        let Some(path) = global.config.clone().or_else(named).or_else(found) else {
            return Err(Error::usage(
                "there is no homelab.toml in this folder and none in /etc/homelab",
                "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
            ));
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) => Err(Error::usage(
                format!("`{}` {}", path.display(), why_unreadable(&error)),
                "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
            )),
        }
    }

    /// A file of that text, wherever that came from.
    pub fn with_text(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    /// All of its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The texts of all files; only this one so far.
    pub fn sources(&self) -> Sources {
        Sources::new(self.path.display().to_string(), self.text.as_str())
    }

    /// Its absolute path.
    pub fn absolute(&self) -> PathBuf {
        std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// The same without `..`, which systemd takes in no path.
    pub fn without_parents(&self) -> PathBuf {
        let path = self.absolute();
        if !path.components().any(|part| part == Component::ParentDir) {
            return path;
        }
        // What the folder is called after all links, because `..` leads out of where a link leads to. The file keeps its name.
        let folder = path.parent().map(std::fs::canonicalize);
        match (folder, path.file_name()) {
            (Some(Ok(folder)), Some(name)) => folder.join(name),
            _ => path,
        }
    }

    /// Compiles it; the texts of further files go to `sources`. Returns the plan and its warnings.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn compile(
        &self,
        services: Services,
        sources: &mut Sources,
    ) -> Result<(Plan, Problems), Problems> {
        let path = self.absolute();
        let folder = path.parent().unwrap_or(Path::new("/"));
        let load_env = LoadEnv {
            read: &|path| std::fs::read_to_string(path),
            variable: &|name| std::env::var(name).ok(),
        };
        plan::from_text(&self.text, folder, services, &load_env, sources)
    }
}
