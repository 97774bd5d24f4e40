//! The image of a service: its name, when it is pulled, and how it would be built. Pure.

use super::reader::Reader;
use super::{PullPolicy, Service, split_tag};
use crate::input::node::{Node, Value};

impl Reader<'_, '_> {
    /// The image, and how it is built when the file says so.
    pub(super) fn build(&mut self, service: &mut Service) {
        service.image = self.image().unwrap_or_default();
        let policy = self.text("pull_policy");
        if let Some((policy, span)) = policy {
            service.pull_policy = match policy.as_str() {
                "always" => PullPolicy::Always,
                "never" => PullPolicy::Never,
                "missing" | "if_not_present" | "build" => PullPolicy::Missing,
                other => {
                    let is_timed =
                        matches!(other, "daily" | "weekly") || other.starts_with("every_");
                    let what = if is_timed {
                        format!("the pull policy `{other}` is not supported")
                    } else {
                        format!("`{other}` is no pull policy")
                    };
                    self.wrong(&span, what, "use `always`, `missing` or `never`");
                    PullPolicy::Missing
                }
            };
        }
        let Some(entry) = self.fields.entry("build") else {
            return;
        };
        let context = match &entry.node.value {
            Value::Map(map) => map.get("context").and_then(Node::scalar),
            _ => entry.node.scalar(),
        };
        let text = |key| entry.node.get(key).and_then(Node::scalar);
        let file = text("dockerfile")
            .map(|file| format!(" -f {file}"))
            .unwrap_or_default();
        let target = text("target")
            .map(|stage| format!(" --target {stage}"))
            .unwrap_or_default();
        let context = context.unwrap_or_else(|| ".".to_owned());
        let span = entry.span.clone();
        let is_named = self.fields.take("image").is_some();
        let image = if is_named {
            service.image.clone()
        } else {
            service.name.clone()
        };
        let command = format!("docker build -t {image}{file}{target} {context}");
        if is_named {
            service.build = Some(command);
            return;
        }
        let what = format!(
            "service `{}` is to be built, and homelab builds no images",
            service.name
        );
        let hint = format!(
            "build it with `{command}`, and write `image: {image}` in the place of `build`"
        );
        self.wrong(&span, what, &hint);
    }

    fn image(&mut self) -> Option<String> {
        let (image, span) = self.text("image")?;
        let (repository, _) = split_tag(&image);
        // The part before the first slash may be the registry's host, which may have capitals.
        let path = repository
            .split_once('/')
            .map_or(repository, |(_, path)| path);
        let fits = !path.is_empty()
            && !image.contains(char::is_whitespace)
            && !path.contains(char::is_uppercase);
        if !fits {
            self.wrong(
                &span,
                format!("`{image}` is not the name of an image"),
                "an image is named like `traefik/whoami:v1.10`, in lower case",
            );
            return None;
        }
        Some(image)
    }
}
