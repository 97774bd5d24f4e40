//! The file of the address plan: found, read and compiled.

use crate::cli::Global;
use crate::config;
use crate::failure::{Failure, why_unreadable};
use crate::plan::{self, Plan};
use crate::problem::Problem;
use crate::report::Report;
use std::path::{Path, PathBuf};

/// homelab.toml.
pub struct File {
    path: PathBuf,
    /// Its content.
    pub text: String,
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

    /// Its path, as it was given.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Its absolute path.
    pub fn absolute(&self) -> PathBuf {
        std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// Compiles it, and reports what is wrong.
    pub fn compile(&self, report: Report) -> Option<(Plan, Vec<Problem>)> {
        let folder = self.absolute();
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let compiled = config::parse(&self.text)
            .and_then(|(config, problems)| plan::compile(&config, folder, problems));
        match compiled {
            Ok(compiled) => Some(compiled),
            Err(problems) => {
                report.problems(&problems, &self.text, &self.shown());
                None
            }
        }
    }
}
