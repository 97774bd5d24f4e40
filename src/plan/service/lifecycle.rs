//! When a service starts, what it waits for, and how it ends. Pure.

use super::reader::Reader;
use super::resources::restart_policy;
use super::values::{parse_duration, signal_number};
use super::{Dependency, DependencyCondition, Restart, Service};
use crate::error::Diagnostic;
use crate::input::fields::{Fields, Named};
use crate::input::node::Node;
use crate::input::problem::{Span, nearest};
use std::collections::BTreeSet;
use std::time::Duration;
use toml::Spanned;

impl Reader<'_, '_> {
    /// When it starts, what it waits for, and how it ends.
    pub(super) fn start_and_stop(&mut self, service: &mut Service, profiles: &BTreeSet<String>) {
        let restart = self
            .text("restart")
            .and_then(|(text, span)| self.restart(&text, &span));
        let policy = restart_policy(self.fields, self.problems);
        service.restart = policy.or(restart).unwrap_or_default();
        service.stop_signal = self.text("stop_signal").map(|(text, span)| {
            if signal_number(&text).is_none() {
                let what = format!("`{text}` is not a signal");
                self.wrong(
                    &span,
                    what,
                    "write a name like `SIGINT`; signal(7) lists them",
                );
            }
            text
        });
        service.stop_grace_period = self.text("stop_grace_period").and_then(|(text, span)| {
            let duration = parse_duration(&text);
            if duration.is_none() {
                let what = format!("`{text}` is not a duration");
                self.wrong(&span, what, "write `10s` or `1m30s`");
            }
            // The Engine counts whole seconds; half a second of grace must not become none.
            duration.map(|d| Duration::from_secs(d.as_secs() + u64::from(d.subsec_nanos() > 0)))
        });
        let own = self
            .fields
            .list("profiles", self.problems)
            .unwrap_or_default();
        service.is_active = own.is_empty()
            || own
                .iter()
                .any(|(name, _)| profiles.contains(name) || profiles.contains("*"));
        service.depends_on = self.dependencies();
    }

    fn restart(&mut self, text: &str, span: &Span) -> Option<Restart> {
        let (policy, count) = match text.split_once(':') {
            Some((policy, count)) => (policy, Some(count)),
            None => (text, None),
        };
        match (policy, count.map(str::parse::<u32>)) {
            ("no" | "false", None) => Some(Restart::No),
            ("always", None) => Some(Restart::Always),
            ("unless-stopped", None) => Some(Restart::UnlessStopped),
            ("on-failure", None) => Some(Restart::OnFailure(0)),
            ("on-failure", Some(Ok(count))) => Some(Restart::OnFailure(count)),
            _ => {
                self.wrong(
                    span,
                    format!("`{text}` is not a restart policy"),
                    "use `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`",
                );
                None
            }
        }
    }

    fn dependencies(&mut self) -> Vec<Dependency> {
        let named = self.fields.named("depends_on", self.problems);
        named.iter().map(|named| self.dependency(named)).collect()
    }

    fn dependency(&mut self, named: &Named) -> Dependency {
        let path = format!("{}.depends_on.{}", self.fields.path, named.name);
        let map = named.node.and_then(Node::as_map);
        if let Some(node) = named.node.filter(|_| map.is_none()) {
            let what = format!("`{path}` must be a table");
            let label = format!("this is {}", node.value);
            self.problems
                .push(Diagnostic::error_at(node.span.clone(), what).label(label));
        }
        let mut keys = Fields::new(path, map);
        let condition = keys.text("condition", self.problems);
        let is_required = keys.boolean("required", self.problems).unwrap_or(true);
        let restart = keys.boolean("restart", self.problems).unwrap_or(false);
        keys.finish(|_| None, self.problems);
        let condition = match condition {
            None => DependencyCondition::Started,
            Some((text, span)) => match text.as_str() {
                "service_started" => DependencyCondition::Started,
                "service_healthy" => DependencyCondition::Healthy,
                "service_completed_successfully" => DependencyCondition::Completed,
                other => {
                    let what = format!("`{other}` cannot be waited for");
                    let known = [
                        "service_started",
                        "service_healthy",
                        "service_completed_successfully",
                    ];
                    let hint = match nearest(other, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the conditions are `{}`", known.join("`, `")),
                    };
                    self.wrong(&span, what, &hint);
                    DependencyCondition::Started
                }
            },
        };
        Dependency {
            service: Spanned::new(named.span.clone(), named.name.clone()),
            condition,
            is_required,
            restart,
        }
    }
}
