//! Completes services with what lies outside the files of the plan: env and label files, variables of this process, the content of
//! configs and secrets, and seccomp profiles. Reads only.

use crate::error::why_unreadable;
use crate::input::compose::dotenv::{self, Format};
use crate::input::problem::{Problem, Span};
use crate::plan::{Env, EnvFile, FileSource, Service};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Completes services of an environment.
///
/// # Errors
/// Every file that cannot be read or understood and every variable that is missing, at the place that names it.
pub fn complete(env: &Env, services: &mut [Service]) -> Result<(), Vec<Problem>> {
    let lookup = |name: &str| {
        let own = std::env::var(name).ok();
        own.or_else(|| env.variables.get(name).cloned())
    };
    let mut contents = Contents {
        lookup: &lookup,
        problems: Vec::new(),
        digests: BTreeMap::new(),
    };
    for service in services {
        contents.environment(service);
        contents.labels(service);
        contents.files(service);
        contents.profiles(service);
    }
    if contents.problems.is_empty() {
        Ok(())
    } else {
        Err(contents.problems)
    }
}

struct Contents<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
    /// What was read already.
    digests: BTreeMap<std::path::PathBuf, String>,
}

impl Contents<'_> {
    fn wrong(&mut self, span: &Span, what: String, hint: impl Into<String>) {
        self.problems
            .push(Problem::error(span.clone(), what).hint(hint));
    }

    fn environment(&mut self, service: &mut Service) {
        for file in std::mem::take(&mut service.env_file).into_iter().rev() {
            for (name, value) in self.env_file(&file).into_iter().rev() {
                service.environment.entry(name).or_insert(value);
            }
        }
        // As in Compose, a variable that is not set here is not set there, whatever the image says.
        for (name, value) in &mut service.environment {
            if value.is_none() {
                *value = (self.lookup)(name);
            }
        }
    }

    fn labels(&mut self, service: &mut Service) {
        for file in std::mem::take(&mut service.label_file).into_iter().rev() {
            for (name, value) in self.env_file(&file).into_iter().rev() {
                let value = value.unwrap_or_default();
                service.labels.entry(name).or_insert(value);
            }
        }
    }

    fn env_file(&mut self, file: &EnvFile) -> dotenv::Pairs {
        let shown = file.path.display();
        let text = match std::fs::read_to_string(&file.path) {
            Ok(text) => text,
            Err(error) => {
                let is_missing = error.kind() == std::io::ErrorKind::NotFound;
                if file.is_required || !is_missing {
                    let what = format!("`{shown}` {}", why_unreadable(&error));
                    self.wrong(
                        &file.span,
                        what,
                        "paths start from the folder of the file that names them",
                    );
                }
                return dotenv::Pairs::new();
            }
        };
        let format = if file.is_raw {
            Format::Raw
        } else {
            Format::Compose
        };
        match dotenv::parse(&text, format, self.lookup) {
            Ok(pairs) => pairs,
            Err(wrong) => {
                let what = format!("line {} of `{shown}` {}", wrong.line, wrong.what);
                self.wrong(&file.span, what, wrong.hint);
                dotenv::Pairs::new()
            }
        }
    }

    fn files(&mut self, service: &mut Service) {
        for file in &mut service.files {
            match &mut file.source {
                FileSource::Content(_) => {}
                FileSource::Variable(name) => match (self.lookup)(name) {
                    Some(content) => file.source = FileSource::Content(content),
                    None => {
                        let what = format!(
                            "{} `{}` is the variable `{name}`, which is not set",
                            file.kind, file.name
                        );
                        let hint = format!("set `{name}` in the `env_file` of homelab.toml");
                        let span = file.span.clone();
                        self.wrong(&span, what, hint);
                    }
                },
                FileSource::Path(path, digest) => match self.digest(path) {
                    Ok(found) => *digest = found,
                    Err(why) => {
                        let what =
                            format!("{} `{}`: `{}` {why}", file.kind, file.name, path.display());
                        let span = file.span.clone();
                        self.wrong(
                            &span,
                            what,
                            "paths start from the folder of the file that names them",
                        );
                    }
                },
            }
        }
    }

    /// A digest of a file; of a folder only that it is one, for its content is seen through the mount.
    fn digest(&mut self, path: &Path) -> Result<String, &'static str> {
        if let Some(known) = self.digests.get(path) {
            return Ok(known.clone());
        }
        if path.is_dir() {
            return Ok("folder".to_owned());
        }
        let content = std::fs::read(path).map_err(|error| why_unreadable(&error))?;
        let mut hex = String::new();
        for byte in Sha256::digest(content).iter().take(8) {
            let _ = write!(hex, "{byte:02x}");
        }
        self.digests.insert(path.to_owned(), hex.clone());
        Ok(hex)
    }

    /// The Engine is told a seccomp profile, not its path.
    fn profiles(&mut self, service: &mut Service) {
        let span = service.span.clone();
        let Some(told) = service.told.get_mut("security_opt") else {
            return;
        };
        for option in told.value.as_array_mut().into_iter().flatten() {
            let text = option.as_str().unwrap_or_default();
            let Some(path) = text
                .strip_prefix("seccomp=")
                .filter(|path| path.starts_with('/'))
            else {
                continue;
            };
            let profile = std::fs::read_to_string(path).map_err(|error| why_unreadable(&error));
            let profile = profile
                .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|_| "is not JSON"));
            match profile {
                Ok(profile) => *option = json!(format!("seccomp={profile}")),
                Err(why) => {
                    let what = format!("the seccomp profile `{path}` {why}");
                    self.problems.push(
                        Problem::error(span.clone(), what)
                            .hint("Docker's documentation has the default profile to start from"),
                    );
                }
            }
        }
    }
}
