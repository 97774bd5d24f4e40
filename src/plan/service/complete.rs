//! Services with the content of what they name outside the files of the plan. They are of another type than those without it, so
//! that nobody can take a fingerprint of what is only half known. Pure: the content comes in by [`ServiceFiles`].

use super::{EnvFile, FileSource, Service};
use crate::error::{Diagnostic, Span};
use crate::input::compose::dotenv::{Format, Pairs};
use crate::input::problem::Problems;
use crate::input::service_files::ServiceFiles;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A service of which it is known what the Engine is to be told: its env and label files, variables, configs, secrets and seccomp
/// profiles were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteService(Service);

impl Deref for CompleteService {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

#[cfg(test)]
impl CompleteService {
    /// A service that names no files, or of which nobody wants to know their content.
    pub fn without_files(service: Service) -> Self {
        Self(service)
    }
}

/// Reads what services name.
///
/// # Errors
/// Every file that cannot be read or understood and every variable that is missing, at the place that names it.
pub fn complete(
    mut services: Vec<Service>,
    files: &ServiceFiles,
) -> Result<Vec<CompleteService>, Problems> {
    let mut reader = FileReader {
        files,
        problems: Vec::new(),
        digests: BTreeMap::new(),
    };
    for service in &mut services {
        reader.environment(service);
        reader.labels(service);
        reader.given_files(service);
        reader.seccomp_profiles(service);
    }
    if reader.problems.is_empty() {
        Ok(services.into_iter().map(CompleteService).collect())
    } else {
        Err(reader.problems)
    }
}

struct FileReader<'a> {
    files: &'a ServiceFiles<'a>,
    problems: Problems,
    /// What was read already.
    digests: BTreeMap<PathBuf, String>,
}

impl FileReader<'_> {
    fn wrong(&mut self, span: &Span, what: String, hint: impl Into<String>) {
        self.problems
            .push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }

    fn environment(&mut self, service: &mut Service) {
        for file in std::mem::take(&mut service.env_file).into_iter().rev() {
            for (name, value) in self.pairs(&file).into_iter().rev() {
                service.environment.entry(name).or_insert(value);
            }
        }
        // As in Compose, a variable that is not set here is not set there, whatever the image says.
        for (name, value) in &mut service.environment {
            if value.is_none() {
                *value = (self.files.variable)(name);
            }
        }
    }

    fn labels(&mut self, service: &mut Service) {
        for file in std::mem::take(&mut service.label_file).into_iter().rev() {
            for (name, value) in self.pairs(&file).into_iter().rev() {
                let value = value.unwrap_or_default();
                service.labels.entry(name).or_insert(value);
            }
        }
    }

    fn pairs(&mut self, file: &EnvFile) -> Pairs {
        let format = if file.is_raw {
            Format::Raw
        } else {
            Format::Compose
        };
        match self.files.pairs(&file.path, format) {
            Ok(pairs) => pairs,
            Err(wrong) => {
                if file.is_required || !wrong.is_missing {
                    self.wrong(&file.span, wrong.what, wrong.hint);
                }
                Pairs::new()
            }
        }
    }

    fn given_files(&mut self, service: &mut Service) {
        for file in &mut service.files {
            let what = match &mut file.source {
                FileSource::Content(_) => continue,
                FileSource::Variable(name) => {
                    if let Some(content) = (self.files.variable)(name) {
                        file.source = FileSource::Content(content);
                        continue;
                    }
                    let what = format!(
                        "{} `{}` is the variable `{name}`, which is not set",
                        file.kind, file.name
                    );
                    let hint = format!("set `{name}` in the `env_file` of homelab.toml");
                    (what, hint)
                }
                FileSource::Path(path, digest) => match self.digest(path) {
                    Ok(found) => {
                        *digest = found;
                        continue;
                    }
                    Err(why) => (
                        format!("{} `{}`: `{}` {why}", file.kind, file.name, path.display()),
                        "paths start from the folder of the file that names them".to_owned(),
                    ),
                },
            };
            let (what, hint) = what;
            self.wrong(&file.span, what, hint);
        }
    }

    fn digest(&mut self, path: &Path) -> Result<String, &'static str> {
        if let Some(known) = self.digests.get(path) {
            return Ok(known.clone());
        }
        let digest = self.files.digest(path)?;
        self.digests.insert(path.to_owned(), digest.clone());
        Ok(digest)
    }

    /// The Engine is told a seccomp profile, not its path.
    fn seccomp_profiles(&mut self, service: &mut Service) {
        let span = service.span.clone();
        let Some(setting) = service.engine_settings.get_mut("security_opt") else {
            return;
        };
        for option in setting.value.as_array_mut().into_iter().flatten() {
            let text = option.as_str().unwrap_or_default();
            let path = text.strip_prefix("seccomp=");
            let Some(path) = path.filter(|path| path.starts_with('/')) else {
                continue;
            };
            match self.files.json(Path::new(path)) {
                Ok(profile) => *option = json!(format!("seccomp={profile}")),
                Err(why) => {
                    let what = format!("the seccomp profile `{path}` {why}");
                    let hint = "Docker's documentation has the default profile to start from";
                    self.wrong(&span, what, hint);
                }
            }
        }
    }
}
