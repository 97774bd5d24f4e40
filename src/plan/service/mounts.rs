//! What a container finds in its file system: volumes, tmpfs, configs and secrets. Pure.

use super::context::ServiceContext;
use super::values::{VOLUME_OPTIONS, parse_bytes};
use crate::error::Diagnostic;
use crate::input::fields::{Fields, integer};
use crate::input::node::{Map, Node, Value};
use crate::input::problem::Span;
use crate::plan::Problems;
use crate::plan::naming::resource_name;
use serde_json::{Map as JsonMap, Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A folder or file of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container, with options behind a colon.
        target: String,
    },
    /// A volume of the Engine, one for each environment.
    Named {
        /// Its name for the Engine, `homelab-ENV_NAME`.
        name: String,
        /// Absolute path in the container, with options behind a colon.
        target: String,
    },
    /// A volume without a name, new for every container.
    Anonymous {
        /// Absolute path in the container.
        target: String,
    },
    /// What only the long form can say, as the Engine's API takes it in `HostConfig.Mounts`.
    Mount {
        /// Absolute path in the container.
        target: String,
        /// The name of the Engine's volume, when it is one.
        volume: Option<String>,
        /// The mount itself, as the API takes it.
        api: Json,
    },
}

impl Volume {
    /// As the Engine's API takes it in `HostConfig.Binds`; for an anonymous volume the mount point alone.
    pub fn text(&self) -> String {
        match self {
            Self::Bind { source, target } => format!("{}:{target}", source.display()),
            Self::Named { name, target } => format!("{name}:{target}"),
            Self::Anonymous { target } => target.clone(),
            Self::Mount { api, .. } => api.to_string(),
        }
    }

    /// The Engine's volume that it is, when it has a name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named { name, .. } => Some(name),
            Self::Mount { volume, .. } => volume.as_deref(),
            Self::Bind { .. } | Self::Anonymous { .. } => None,
        }
    }

    /// Whether the container may only read it.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Bind { target, .. } | Self::Named { target, .. } => {
                let options = target.split_once(':').map_or("", |(_, options)| options);
                options.split(',').any(|option| option == "ro")
            }
            Self::Anonymous { .. } => false,
            Self::Mount { api, .. } => api.get("ReadOnly") == Some(&json!(true)),
        }
    }

    /// Where in the container it is.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Named { target, .. } => {
                target.split(':').next().unwrap_or(target)
            }
            Self::Anonymous { target } | Self::Mount { target, .. } => target,
        }
    }

    /// The path of the host that it shows.
    pub fn host_path(&self) -> Option<&Path> {
        match self {
            Self::Bind { source, .. } => Some(source),
            Self::Mount { api, .. } if api.get("Type") == Some(&json!("bind")) => {
                api.get("Source").and_then(Json::as_str).map(Path::new)
            }
            _ => None,
        }
    }
}

/// The volumes of a service; those of the type tmpfs too.
pub(super) fn volumes(
    fields: &mut Fields,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Vec<Volume> {
    let path = format!("{}.volumes", fields.path);
    let items = fields.items("volumes", problems);
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Map(map) => long_volume(&path, item, map, context, problems),
            _ => match item.scalar() {
                Some(text) => short_volume(&text, &item.span, context, problems),
                None => {
                    let what = format!("`{path}` must be a list of strings or tables");
                    let label = format!("this is {}", item.value);
                    problems.push(Diagnostic::error_at(item.span.clone(), what).label(label));
                    None
                }
            },
        })
        .collect()
}

pub(super) fn wrong(problems: &mut Problems, span: &Span, what: String, hint: &str) {
    problems.push(Diagnostic::error_at(span.clone(), what).hint(hint));
}

fn short_volume(
    filled: &str,
    span: &Span,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Option<Volume> {
    let mut parts = filled.splitn(3, ':');
    let (first, second, options) = (parts.next()?, parts.next(), parts.next());
    let target = second.unwrap_or(first);
    if !target.starts_with('/') || target.is_empty() {
        let what = format!("`{filled}` mounts nothing: `{target}` is not an absolute path");
        wrong(
            problems,
            span,
            what,
            "write `source:/path/in/the/container`",
        );
        return None;
    }
    for option in options.into_iter().flat_map(|list| list.split(',')) {
        if !VOLUME_OPTIONS.contains(&option) {
            let what = format!("`{option}` is not an option of a volume");
            wrong(problems, span, what, "the usual ones are `ro` and `rw`");
            return None;
        }
    }
    if second.is_none() {
        return Some(Volume::Anonymous {
            target: target.to_owned(),
        });
    }
    let target = match options {
        Some(options) => format!("{target}:{options}"),
        None => target.to_owned(),
    };
    if first.starts_with('~') {
        let what = format!("`{first}` depends on who runs homelab");
        wrong(problems, span, what, "write the whole path");
        return None;
    }
    if first.starts_with(['/', '.']) {
        let source = PathBuf::from(first);
        return Some(Volume::Bind { source, target });
    }
    let name = volume_name(first, span, context, problems)?;
    Some(Volume::Named { name, target })
}

/// The Engine's name of a volume of the file.
fn volume_name(
    key: &str,
    span: &Span,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Option<String> {
    if let Some(known) = context.volumes.iter().find(|volume| volume.key == key) {
        return Some(known.name.clone());
    }
    let fits = key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !fits {
        wrong(
            problems,
            span,
            format!("`{key}` is neither a path nor the name of a volume"),
            "paths begin with `/` or `./`; names have letters, digits, `_`, `.` and `-`",
        );
        return None;
    }
    if !(context.is_native)(span) {
        let what = format!("there is no volume `{key}`");
        let hint =
            format!("add `{key}:` under `volumes` of the Compose file; a path begins with `./`");
        wrong(problems, span, what, &hint);
        return None;
    }
    Some(resource_name(context.env, key))
}

/// A volume in its long form, as far as all types have the same keys.
struct Long<'a> {
    item: &'a Node,
    source: Option<(String, Span)>,
    target: String,
    read_only: bool,
    /// What the Engine's API takes, so far.
    api: JsonMap<String, Json>,
}

fn long_volume(
    path: &str,
    item: &Node,
    map: &Map,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Option<Volume> {
    let mut fields = Fields::new(path, Some(map));
    let kind = fields.plain("type", problems);
    let source = fields.text("source", problems);
    let target = fields.plain("target", problems);
    let read_only = fields.boolean("read_only", problems).unwrap_or(false);
    let consistency = fields.plain("consistency", problems);
    let bind = fields.table("bind", problems);
    let volume = fields.table("volume", problems);
    let tmpfs = fields.table("tmpfs", problems);
    let image = fields.table("image", problems);
    fields.finish(|_| None, problems);
    let Some(target) = target.filter(|target| target.starts_with('/')) else {
        let what = "this volume has no absolute `target`".to_owned();
        let hint = "`target` is where the container finds it";
        wrong(problems, &item.span, what, hint);
        return None;
    };
    let types = "the types are `bind`, `volume`, `tmpfs` and `image`";
    let Some(kind) = kind else {
        let what = "this volume has no `type`".to_owned();
        wrong(problems, &item.span, what, types);
        return None;
    };
    let mut api = JsonMap::new();
    api.insert("Type".to_owned(), json!(kind));
    api.insert("Target".to_owned(), json!(target));
    if read_only {
        api.insert("ReadOnly".to_owned(), json!(true));
    }
    if let Some(consistency) = consistency {
        api.insert("Consistency".to_owned(), json!(consistency));
    }
    let long = Long {
        item,
        source,
        target,
        read_only,
        api,
    };
    match kind.as_str() {
        "bind" => long.bind(bind, problems),
        "volume" => long.volume(volume, context, problems),
        "tmpfs" => Some(long.tmpfs(tmpfs, problems)),
        "image" => Some(long.image(image, problems)),
        other => {
            let what = format!("volumes of the type `{other}` are not supported");
            wrong(problems, &item.span, what, types);
            None
        }
    }
}

impl Long<'_> {
    /// The mount point with options behind it, as the old form has it.
    fn with_options(&self, more: impl IntoIterator<Item = String>) -> String {
        let mut options = vec![if self.read_only { "ro" } else { "rw" }.to_owned()];
        options.extend(more);
        format!("{}:{}", self.target, options.join(","))
    }

    fn mount(self, volume: Option<String>) -> Volume {
        Volume::Mount {
            target: self.target,
            volume,
            api: Json::Object(self.api),
        }
    }

    fn bind(mut self, mut keys: Fields, problems: &mut Problems) -> Option<Volume> {
        let Some((source, _)) = self.source.take().filter(|(path, _)| path.starts_with('/')) else {
            let what = "this bind mount has no `source`".to_owned();
            wrong(
                problems,
                &self.item.span,
                what,
                "`source` is a path of the host",
            );
            return None;
        };
        if source.contains(':') {
            let what = format!("`{source}` has a `:`, where Docker ends a path");
            let hint = "mount a folder without one in its path";
            wrong(problems, &self.item.span, what, hint);
            return None;
        }
        let propagation = keys.plain("propagation", problems);
        let create = keys.boolean("create_host_path", problems);
        let selinux = keys.plain("selinux", problems);
        let recursive = keys.plain("recursive", problems);
        keys.finish(|_| None, problems);
        // Only the old form of the API makes a folder that is not there, as the short form of the file does, and knows of
        // SELinux.
        if (create == Some(true) || selinux.is_some()) && recursive.is_none() {
            return Some(Volume::Bind {
                source: PathBuf::from(source),
                target: self.with_options(selinux.into_iter().chain(propagation)),
            });
        }
        self.api.insert("Source".to_owned(), json!(source));
        let mut options = JsonMap::new();
        if let Some(propagation) = propagation {
            options.insert("Propagation".to_owned(), json!(propagation));
        }
        let field = match recursive.as_deref() {
            Some("disabled") => Some("NonRecursive"),
            Some("writable") => Some("ReadOnlyNonRecursive"),
            Some("readonly") => Some("ReadOnlyForceRecursive"),
            _ => None,
        };
        if let Some(field) = field {
            options.insert(field.to_owned(), json!(true));
        }
        if !options.is_empty() {
            self.api
                .insert("BindOptions".to_owned(), Json::Object(options));
        }
        Some(self.mount(None))
    }

    fn volume(
        mut self,
        mut keys: Fields,
        context: &ServiceContext,
        problems: &mut Problems,
    ) -> Option<Volume> {
        let nocopy = keys.boolean("nocopy", problems).unwrap_or(false);
        let subpath = keys.plain("subpath", problems);
        let labels = keys.pairs("labels", problems);
        keys.finish(|_| None, problems);
        let name = match self.source.take() {
            Some((key, span)) => Some(volume_name(&key, &span, context, problems)?),
            None => None,
        };
        match (name, subpath) {
            (None, None) if labels.is_empty() => Some(Volume::Anonymous {
                target: self.target,
            }),
            (Some(name), None) if labels.is_empty() => {
                let target = self.with_options(nocopy.then(|| "nocopy".to_owned()));
                Some(Volume::Named { name, target })
            }
            (name, subpath) => {
                if let Some(name) = &name {
                    self.api.insert("Source".to_owned(), json!(name));
                }
                let labels = (!labels.is_empty()).then_some(labels);
                let options = json!({ "NoCopy": nocopy, "Subpath": subpath, "Labels": labels });
                self.api.insert("VolumeOptions".to_owned(), options);
                Some(self.mount(name))
            }
        }
    }

    fn tmpfs(mut self, mut keys: Fields, problems: &mut Problems) -> Volume {
        let mut options = JsonMap::new();
        if let Some(node) = keys.take("size") {
            match node.scalar().and_then(|text| parse_bytes(&text)) {
                Some(size) => {
                    options.insert("SizeBytes".to_owned(), json!(size));
                }
                None => keys.wrong_type("size", node, "a size like `64m`", problems),
            }
        }
        if let Some(mode) = keys.take("mode").and_then(integer) {
            options.insert("Mode".to_owned(), json!(mode));
        }
        keys.finish(|_| None, problems);
        self.api
            .insert("TmpfsOptions".to_owned(), Json::Object(options));
        self.mount(None)
    }

    fn image(mut self, mut keys: Fields, problems: &mut Problems) -> Volume {
        let subpath = keys.plain("subpath", problems);
        keys.finish(|_| None, problems);
        let source = self.source.take().map(|(source, _)| source);
        self.api.insert("Source".to_owned(), json!(source));
        if let Some(subpath) = subpath {
            let options = json!({ "Subpath": subpath });
            self.api.insert("ImageOptions".to_owned(), options);
        }
        self.mount(None)
    }
}

/// Mount points of `tmpfs` with their options.
pub(super) fn tmpfs(fields: &mut Fields, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (text, span) in fields.one_or_many("tmpfs", problems).unwrap_or_default() {
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        if path.starts_with('/') {
            all.insert(path.to_owned(), options.to_owned());
        } else {
            let what = format!("`{path}` is not an absolute path");
            wrong(problems, &span, what, "write `/run` or `/run:size=64m`");
        }
    }
    all
}
