//! Rules of services: where they run, which addresses they have, whom they wait for.

use super::env_ranges;
use super::names::unknown_name;
use crate::error::Diagnostic;
use crate::input::homelab_toml::Text;
use crate::input::problem::Span;
use crate::plan::builder::{PartialEnv, PartialService, PlanBuilder};
use crate::plan::naming::network_name;
use crate::plan::{Isolation, Problems};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(super) fn one_host_is_primary(builder: &PlanBuilder, problems: &mut Problems) {
    let mut primaries = builder.hosts.iter().filter(|host| host.primary.is_some());
    let first = primaries.next();
    if let Some(first) = first {
        for host in primaries {
            problems.push(
                Diagnostic::error_at(
                    host.primary.clone().unwrap_or_default(),
                    format!(
                        "hosts `{}` and `{}` are both primary",
                        first.name.get_ref(),
                        host.name.get_ref()
                    ),
                )
                .context(first.primary.clone().unwrap_or_default(), "the first one")
                .hint("services without a `host` run on the primary one; there is one"),
            );
        }
        return;
    }
    if builder
        .config
        .unreadable
        .iter()
        .any(|path| path.ends_with(".primary"))
    {
        return;
    }
    let without_host = builder
        .envs
        .iter()
        .flat_map(|env| &env.services)
        .filter(|service| service.host.is_none());
    for service in without_host {
        problems.push(
            Diagnostic::error_at(
                service.name.span(),
                format!(
                    "service `{}` names no host, and no host is primary",
                    service.name.get_ref()
                ),
            )
            .hint("set `primary = true` in the table of one host, or give the service a `host`"),
        );
    }
}

pub(super) fn hosts_of_services_exist(builder: &PlanBuilder, problems: &mut Problems) {
    let known: Vec<&str> = builder
        .hosts
        .iter()
        .map(|host| host.name.get_ref().as_str())
        .collect();
    for service in builder.envs.iter().flat_map(|env| &env.services) {
        let Some(host) = &service.named_host else {
            continue;
        };
        if !known.contains(&host.get_ref().as_str()) {
            problems.push(unknown_name(
                host.span(),
                format!(
                    "service `{}` runs on host `{}`, which does not exist",
                    service.name.get_ref(),
                    host.get_ref()
                ),
                host.get_ref(),
                &known,
                "hosts",
            ));
        }
    }
}

pub(super) fn service_addresses_are_their_environments(
    builder: &PlanBuilder,
    problems: &mut Problems,
) {
    for (env, range, span) in env_ranges(builder) {
        for service in &env.services {
            let Some(address) = &service.address else {
                continue;
            };
            if !range.contains(*address.get_ref()) {
                problems.push(
                    Diagnostic::error_at(
                        address.span(),
                        format!(
                            "`{}` of service `{}` is outside the range of environment `{}`",
                            address.get_ref(),
                            service.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .label(format!("not in {range}"))
                    .context(span.clone(), "the range"),
                );
            }
        }
    }
}

pub(super) fn several_containers_share_nothing(builder: &PlanBuilder, problems: &mut Problems) {
    for service in builder.envs.iter().flat_map(|env| &env.services) {
        let what = match (&service.address, &service.service.container_name) {
            _ if service.scale < 2 => continue,
            (Some(_), _) => "one address",
            (None, Some(_)) => "one `container_name`",
            (None, None) => continue,
        };
        problems.push(
            Diagnostic::error_at(
                service.name.span(),
                format!(
                    "service `{}` has {} containers and {what}",
                    service.name.get_ref(),
                    service.scale
                ),
            )
            .hint("leave it out, and each container gets its own, or leave out `scale` and `replicas`"),
        );
    }
}

/// While environments are kept apart, nobody shares the network, the processes, the memory or the volumes of another environment's
/// container, or is on another environment's network: no slice stands between those.
pub(super) fn nothing_of_another_environment_is_used(
    builder: &PlanBuilder,
    problems: &mut Problems,
) {
    if builder.isolation == Isolation::Off {
        return;
    }
    for env in &builder.envs {
        let others = || {
            let others = builder.envs.iter();
            others.filter(|other| other.name.get_ref() != env.name.get_ref())
        };
        for service in &env.services {
            for (container, key) in service.service.containers_used() {
                let owner = others().find(|other| {
                    let mut theirs = other.services.iter();
                    theirs.any(|their| their.service.container() == container)
                });
                let Some(owner) = owner else { continue };
                problems.push(of_another(
                    service,
                    &format!("shares something of `{container}` by `{key}`"),
                    owner,
                ));
            }
            for on in &service.service.networks {
                let is_theirs = |other: &&PartialEnv| {
                    let own = network_name(other.name.get_ref());
                    on.network == own || on.network.starts_with(&format!("{own}_"))
                };
                if let Some(owner) = others().find(is_theirs) {
                    let what = format!("is on the network `{}`", on.network);
                    problems.push(of_another(service, &what, owner));
                }
            }
        }
    }
}

fn of_another(service: &PartialService, what: &str, owner: &PartialEnv) -> Diagnostic {
    let (name, owner) = (service.name.get_ref(), owner.name.get_ref());
    Diagnostic::error_at(
        service.name.span(),
        format!("service `{name}` {what}, which is of environment `{owner}`"),
    )
    .hint("environments are kept apart: use something of its own environment, or write `isolation = \"off\"` in `[network]`")
}

pub(super) fn service_addresses_are_their_own(builder: &PlanBuilder, problems: &mut Problems) {
    let mut seen: BTreeMap<Ipv4Addr, (Span, String)> = BTreeMap::new();
    for host in &builder.hosts {
        if let Some(address) = &host.address {
            let what = format!("host `{}`", host.name.get_ref());
            seen.insert(*address.get_ref(), (address.span(), what));
        }
    }
    for env in &builder.envs {
        for service in &env.services {
            let Some(address) = &service.address else {
                continue;
            };
            let name = service.name.get_ref();
            if let Some((place, owner)) = seen.get(address.get_ref()) {
                problems.push(
                    Diagnostic::error_at(
                        address.span(),
                        format!(
                            "`{}` of service `{name}` is the address of {owner}",
                            address.get_ref()
                        ),
                    )
                    .context(place.clone(), format!("{owner} has it"))
                    .hint("choose an address that nothing else has"),
                );
            } else {
                let what = format!("service `{name}` in environment `{}`", env.name.get_ref());
                seen.insert(*address.get_ref(), (address.span(), what));
            }
        }
    }
}

pub(super) fn dependencies(service: &PartialService) -> impl Iterator<Item = &Text> {
    service
        .service
        .depends_on
        .iter()
        .map(|dependency| &dependency.service)
}

pub(super) fn dependencies_exist(builder: &PlanBuilder, problems: &mut Problems) {
    for env in &builder.envs {
        let known: Vec<&str> = env
            .services
            .iter()
            .map(|service| service.name.get_ref().as_str())
            .collect();
        for service in &env.services {
            for dependency in &service.service.depends_on {
                let is_required = dependency.is_required;
                let dependency = &dependency.service;
                let name = dependency.get_ref();
                if !is_required || known.contains(&name.as_str()) {
                    continue;
                }
                let (service, env_name) = (service.name.get_ref(), env.name.get_ref());
                problems.push(if env.disabled.contains(name) {
                    let what = format!(
                        "service `{service}` depends on `{name}`, which is not enabled in environment `{env_name}`"
                    );
                    Diagnostic::error_at(dependency.span(), what).hint(format!(
                        "enable `{name}` there, or give `{service}` another `depends_on` in `[env.{env_name}.services.{service}]`"
                    ))
                } else {
                    let what =
                        format!("service `{service}` depends on `{name}`, which does not exist");
                    unknown_name(dependency.span(), what, name, &known, "services")
                });
            }
        }
    }
}

pub(super) fn dependencies_have_an_order(builder: &PlanBuilder, problems: &mut Problems) {
    for env in &builder.envs {
        let mut waiting: Vec<&PartialService> = env.services.iter().collect();
        // Take away whoever waits for nobody until nobody is left; those who stay wait for each other.
        loop {
            let before = waiting.len();
            let names: Vec<String> = waiting.iter().map(|s| s.name.get_ref().clone()).collect();
            waiting.retain(|service| {
                dependencies(service).any(|dependency| names.contains(dependency.get_ref()))
            });
            if waiting.len() == before {
                break;
            }
        }
        let names: Vec<&str> = waiting.iter().map(|s| s.name.get_ref().as_str()).collect();
        let circle = waiting.iter().find_map(|service| {
            let dependency =
                dependencies(service).find(|d| names.contains(&d.get_ref().as_str()))?;
            Some((service, dependency))
        });
        if let Some((service, dependency)) = circle {
            problems.push(
                Diagnostic::error_at(
                    dependency.span(),
                    format!(
                        "service `{}` waits for itself: `{}` depend on each other in a circle",
                        service.name.get_ref(),
                        names.join("`, `")
                    ),
                )
                .hint("take one `depends_on` away"),
            );
        }
    }
}
