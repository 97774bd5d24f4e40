//! Configs and secrets: files that a service is given. Pure.

use super::context::ServiceContext;
use super::mounts::wrong;
use crate::error::Diagnostic;
use crate::input::fields::{Fields, integer};
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Span, suggestion};
use crate::plan::Problems;
use std::path::PathBuf;

/// A config or a secret, as a file in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenFile {
    /// `config` or `secret`.
    pub kind: &'static str,
    /// Its name in the file.
    pub name: String,
    /// The place where the service names it.
    pub span: Span,
    /// Absolute path in the container.
    pub target: String,
    /// Where it comes from.
    pub source: FileSource,
    /// The owner of what is not a file of the host.
    pub uid: u64,
    /// The group of what is not a file of the host.
    pub gid: u64,
    /// The permissions of what is not a file of the host.
    pub mode: u32,
}

/// Where a config or a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    /// A file of the host, which is mounted. Its digest is known when it was read.
    Path(PathBuf, String),
    /// A variable, whose value is the content.
    Variable(String),
    /// The content itself.
    Content(String),
}

impl GivenFile {
    /// All that makes it different from another one. The content is hashed before anybody sees it.
    pub(super) fn text(&self) -> String {
        let Self {
            kind,
            name,
            span: _,
            target,
            source,
            uid,
            gid,
            mode,
        } = self;
        let source = match source {
            FileSource::Path(path, digest) => format!("{} {digest}", path.display()),
            FileSource::Variable(name) => format!("${name}"),
            FileSource::Content(content) => content.clone(),
        };
        format!("{kind} {name} {target} {uid}:{gid} {mode:o} {source}")
    }
}

/// The configs and secrets of a service.
pub(super) fn read(
    fields: &mut Fields,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Vec<GivenFile> {
    let mut all = Vec::new();
    let kinds = [
        ("configs", "config", &context.project.configs),
        ("secrets", "secret", &context.project.secrets),
    ];
    for (key, kind, section) in kinds {
        let path = format!("{}.{key}", fields.path);
        for item in fields.items(key, problems) {
            if let Some(file) = given_file(&path, kind, item, section, problems) {
                all.push(file);
            }
        }
    }
    all
}

fn given_file(
    path: &str,
    kind: &'static str,
    item: &Node,
    section: &Map,
    problems: &mut Problems,
) -> Option<GivenFile> {
    let mut fields = Fields::new(path, item.as_map());
    let source = match item.scalar() {
        Some(name) => Some((name, item.span.clone())),
        None => fields.text("source", problems),
    };
    let target = fields.plain("target", problems);
    let uid = fields.text("uid", problems);
    let gid = fields.text("gid", problems);
    let mode = fields.take("mode").map(|node| match &node.value {
        Value::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => integer(node).and_then(|mode| u32::try_from(mode).ok()),
    });
    fields.finish(|_| None, problems);
    let Some((name, span)) = source else {
        let what = format!("this {kind} has no `source`");
        wrong(problems, &item.span, what, "`source` is its name");
        return None;
    };
    let entry = entry_of(kind, &name, &span, section, problems)?;
    let target = target_of(kind, &name, target);
    let source = file_source(kind, entry, problems)?;
    let (uid, gid) = (
        id("uid", kind, uid, problems),
        id("gid", kind, gid, problems),
    );
    if mode == Some(None) {
        let what = format!("`mode` of this {kind} is no file mode");
        wrong(problems, &item.span, what, "write it like `0440`");
    }
    if matches!(source, FileSource::Path(..)) && (uid.is_some() || gid.is_some() || mode.is_some())
    {
        let what = format!(
            "`uid`, `gid` and `mode` of {kind} `{name}` do nothing: a file of the host keeps its own"
        );
        problems
            .push(Diagnostic::warning_at(span.clone(), what).hint("set them on the file itself"));
    }
    Some(GivenFile {
        kind,
        name,
        span,
        target,
        source,
        uid: uid.unwrap_or(0),
        gid: gid.unwrap_or(0),
        mode: mode.flatten().unwrap_or(0o444),
    })
}

/// What a service is given, as the file defines it.
fn entry_of<'a>(
    kind: &str,
    name: &str,
    span: &Span,
    section: &'a Map,
    problems: &mut Problems,
) -> Option<&'a Entry> {
    let entry = section.entry(name);
    if entry.is_none() {
        let known = section.0.iter().map(|entry| entry.key.as_str());
        let kinds = format!("{kind}s");
        let hint = if section.0.is_empty() {
            format!("define it under `{kinds}` of the Compose file")
        } else {
            suggestion(name, known, &kinds)
        };
        wrong(
            problems,
            span,
            format!("there is no {kind} `{name}`"),
            &hint,
        );
    }
    entry
}

/// Where in the container it is.
fn target_of(kind: &str, name: &str, target: Option<String>) -> String {
    match target {
        Some(target) if target.starts_with('/') => target,
        Some(target) if kind == "secret" => format!("/run/secrets/{target}"),
        Some(target) => format!("/{target}"),
        None if kind == "secret" => format!("/run/secrets/{name}"),
        None => format!("/{name}"),
    }
}

/// A numeric user or group.
fn id(key: &str, kind: &str, text: Option<(String, Span)>, problems: &mut Problems) -> Option<u64> {
    let (text, span) = text?;
    let number = text.parse::<u64>().ok();
    if number.is_none() {
        let what = format!("`{key}` of this {kind} is not a number");
        wrong(problems, &span, what, "write a numeric id like `1000`");
    }
    number
}

fn file_source(kind: &str, entry: &Entry, problems: &mut Problems) -> Option<FileSource> {
    let mut fields = Fields::new(format!("{kind}s.{}", entry.key), entry.node.as_map());
    let is_external = fields.boolean("external", problems) == Some(true);
    let file = fields.text("file", problems);
    let variable = fields.text("environment", problems);
    let content = fields.text("content", problems);
    fields.leave_alone(&["name", "labels"]);
    let why = |key: &str| match key {
        "driver" | "driver_opts" | "template_driver" => {
            Some("Swarm reads it; homelab runs containers only")
        }
        _ => None,
    };
    fields.finish(why, problems);
    if is_external {
        let what = format!("{kind} `{}` is external: Swarm would have it", entry.key);
        wrong(
            problems,
            &entry.span,
            what,
            "give it a `file`, or the name of a variable by `environment`",
        );
        return None;
    }
    match (file, variable, content) {
        (Some((path, _)), None, None) => Some(FileSource::Path(PathBuf::from(path), String::new())),
        (None, Some((name, _)), None) => Some(FileSource::Variable(name)),
        (None, None, Some((content, _))) => Some(FileSource::Content(content)),
        _ => {
            let what = format!("{kind} `{}` has no content, or more than one", entry.key);
            wrong(
                problems,
                &entry.span,
                what,
                "give it one of `file`, `environment` and `content`",
            );
            None
        }
    }
}
