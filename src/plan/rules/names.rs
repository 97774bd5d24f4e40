//! Rules of names: that they fit, that they differ, that what they name exists.

use crate::error::Diagnostic;
use crate::input::homelab_toml::{Address, Text};
use crate::input::problem::{Span, suggestion};
use crate::plan::Problems;
use crate::plan::builder::{PartialEnv, PartialService, PlanBuilder};
use crate::plan::naming::{LINK_NAME_BYTES, PARENT_LINK_PREFIX, own_shim, parent_link};
use crate::plan::service::{bypass_names, is_dns_label};
use std::collections::BTreeMap;

pub(super) fn names_fit(builder: &PlanBuilder, problems: &mut Problems) {
    links_fit(builder, problems);
    for host in &builder.hosts {
        label_fits("host", &host.name, 63, "", problems);
    }
    let most = LINK_NAME_BYTES - PARENT_LINK_PREFIX.len();
    for env in &builder.envs {
        let why = format!(
            "; the link `{PARENT_LINK_PREFIX}{}` has at most {LINK_NAME_BYTES} bytes",
            env.name.get_ref()
        );
        label_fits("environment", &env.name, most, &why, problems);
    }
    for service in &builder.config.services {
        label_fits("service", &service.name, 63, "", problems);
    }
    compose_services_fit(builder, problems);
    container_names_differ(builder, problems);
}

/// Folders of /proc/sys/net/ipv4/conf that are no link's.
const RESERVED: [&str; 2] = ["all", "default"];

/// Whether a text is the name of a link for everybody who reads it. The kernel takes more (`dev_valid_name()`), but reads `%d` as
/// a number of its own, and network managers read patterns and lists.
fn is_link_name(text: &str) -> bool {
    (1..=LINK_NAME_BYTES).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn links_fit(builder: &PlanBuilder, problems: &mut Problems) {
    let own = || {
        let lans = builder.envs.iter().filter_map(|env| env.lan.as_ref());
        lans.flat_map(|lan| lan.seats.iter().map(|seat| &seat.parent))
    };
    let parents = || {
        let main = builder.hosts.iter().filter_map(|host| host.parent.as_ref());
        main.chain(own())
    };
    for name in std::iter::once(&builder.shim_name).chain(parents()) {
        let text = name.get_ref();
        if RESERVED.contains(&text.as_str()) {
            let what = format!("`{text}` cannot be the name of a link");
            let hint = "the kernel has settings of its own under that name; choose another one";
            problems.push(Diagnostic::error_at(name.span(), what).hint(hint));
        } else if !is_link_name(text) {
            let what = format!("`{text}` cannot be the name of a link");
            problems.push(Diagnostic::error_at(name.span(), what).hint(format!(
                "names of links have 1 to {LINK_NAME_BYTES} letters, digits, `.`, `_` and `-`, and begin with a letter or a digit"
            )));
        }
    }
    for env in &builder.envs {
        let (name, shim) = (env.name.get_ref(), builder.shim_name.get_ref());
        let other = if parent_link(name) == *shim {
            Some("parent link")
        } else if env.lan.is_some() && own_shim(name) == *shim {
            Some("own shim")
        } else {
            None
        };
        if let Some(other) = other {
            let what =
                format!("`{shim}` is the shim and the {other} of environment `{name}` at once");
            problems.push(
                Diagnostic::error_at(builder.shim_name.span(), what)
                    .hint("choose another name for the shim"),
            );
        }
    }
    let shim = builder.shim_name.get_ref();
    for parent in parents().filter(|parent| parent.get_ref() == shim) {
        let what = format!("`{shim}` is the parent and the shim at once");
        problems.push(
            Diagnostic::error_at(parent.span(), what)
                .hint("the parent is the interface that is there already, like `eth0`"),
        );
    }
}

/// Compose takes more names than homelab.toml does.
fn compose_services_fit(builder: &PlanBuilder, problems: &mut Problems) {
    for service in builder.envs.iter().flat_map(|env| &env.services) {
        let name = service.name.get_ref();
        let fits = name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let mut native = builder.config.services.iter();
        if !fits && !native.any(|native| native.name.get_ref() == name) {
            let what = format!("`{name}` cannot be the name of a service");
            problems.push(
                Diagnostic::error_at(service.name.span(), what)
                    .hint("names have letters, digits, `_`, `.` and `-`, at most 63 of them"),
            );
        }
    }
}

fn label_fits(kind: &str, name: &Text, most: usize, why: &str, problems: &mut Problems) {
    let text = name.get_ref();
    if is_dns_label(text) && text.len() <= most {
        return;
    }
    problems.push(
        Diagnostic::error_at(name.span(), format!("`{text}` cannot be the name of {} {kind}", article(kind))).hint(
            format!(
                "names are DNS labels: 1 to {most} of `a` to `z`, `0` to `9` and `-`, no `-` at the ends{}",
                if text.len() > most { why } else { "" }
            ),
        ),
    );
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with('e') { "an" } else { "a" }
}

/// `a-b` in `c` and `a` in `b-c` would both be the container `a-b-c`, and a `container_name` may be anything.
fn container_names_differ(builder: &PlanBuilder, problems: &mut Problems) {
    let mut seen: BTreeMap<(Option<&str>, String), (&PartialService, &PartialEnv)> =
        BTreeMap::new();
    for env in &builder.envs {
        for service in &env.services {
            let container = service.service.container();
            // Names that are chosen may be chosen again on another host.
            let is_chosen = service.service.container_name.is_some();
            let host = service.host.as_deref().filter(|_| is_chosen);
            let key = (host, container.clone());
            if let Some((other, other_env)) = seen.insert(key, (service, env)) {
                problems.push(
                    Diagnostic::error_at(
                        service.name.span(),
                        format!(
                            "services `{}` in `{}` and `{}` in `{}` would share the container name `{container}`",
                            other.name.get_ref(),
                            other_env.name.get_ref(),
                            service.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .hint(if is_chosen {
                        "write `container_name: NAME-$COMPOSE_PROJECT_NAME`, or leave it out: a container is named SERVICE-ENV"
                    } else {
                        "rename one of the services"
                    }),
                );
            }
        }
    }
}

pub(super) fn names_of_environments_exist(builder: &PlanBuilder, problems: &mut Problems) {
    let known = || builder.envs.iter().map(|env| env.name.get_ref().as_str());
    let mut names: Vec<(&Text, String)> = Vec::new();
    if let Some(name) = &builder.config.default_env {
        names.push((name, "`default_env`".to_owned()));
    }
    for service in &builder.config.services {
        if let Some(Address::PerEnv(pairs)) = &service.address {
            let what = format!("service `{}`", service.name.get_ref());
            names.extend(pairs.iter().map(|(env, _)| (env, what.clone())));
        }
    }
    for (name, what) in names {
        let text = name.get_ref();
        if !known().any(|env| env == text) {
            problems.push(unknown_name(
                name.span(),
                format!("{what} names environment `{text}`, which does not exist"),
                text,
                &known().collect::<Vec<_>>(),
                "environments",
            ));
        }
    }
}

/// What `isolation_bypass` names is a way out that there is.
pub(super) fn bypasses_are_known(builder: &PlanBuilder, problems: &mut Problems) {
    let known: Vec<&str> = bypass_names().into_iter().collect();
    for service in builder.envs.iter().flat_map(|env| &env.services) {
        for name in &service.bypasses {
            let text = name.get_ref();
            if !known.contains(&text.as_str()) {
                let what = format!("`{text}` is no way out of the isolation");
                problems.push(unknown_name(name.span(), what, text, &known, "ways"));
            }
        }
    }
}

pub(super) fn unknown_name(
    span: Span,
    what: String,
    name: &str,
    known: &[&str],
    kind: &str,
) -> Diagnostic {
    let problem = Diagnostic::error_at(span, what);
    if known.is_empty() {
        return problem;
    }
    problem.hint(suggestion(name, known.iter().copied(), kind))
}
