//! The rules of an address plan, each a small check with a name. All of them run, so that all problems come at once.

mod lans;
mod names;
mod services;
mod warnings;

use super::builder::{PartialEnv, PlanBuilder};
use super::{Problems, Range, pool};
use crate::error::Diagnostic;
use crate::input::homelab_toml::Config;
use crate::input::problem::Span;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use toml::Spanned;

const CHECKS: [fn(&PlanBuilder, &mut Problems); 22] = [
    what_is_needed_is_there,
    lans::addresses_are_in_the_subnet,
    lans::network_and_broadcast_are_nobodys,
    lans::gateway_is_not_the_shim,
    lans::lans_do_not_overlap,
    lans::hosts_of_lans_exist,
    hosts_and_shims_differ,
    environments_do_not_overlap,
    environments_keep_out_of_dhcp,
    lans::environments_keep_out_of_what_is_taken,
    pools_are_wide_enough,
    services::one_host_is_primary,
    names::names_fit,
    names::names_of_environments_exist,
    names::bypasses_are_known,
    services::nothing_of_another_environment_is_used,
    services::hosts_of_services_exist,
    services::service_addresses_are_their_environments,
    services::service_addresses_are_their_own,
    services::several_containers_share_nothing,
    services::dependencies_exist,
    services::dependencies_have_an_order,
];

const WARNINGS: [fn(&PlanBuilder, &mut Problems); 7] = [
    warnings::hosts_in_dhcp,
    warnings::hosts_in_environments,
    warnings::dependencies_on_other_hosts,
    warnings::pools_beyond_private_addresses,
    warnings::pools_over_own_lans,
    warnings::ways_out_of_the_isolation,
    warnings::networks_whose_ipv6_is_denied,
];

/// Runs every rule.
pub(super) fn check(builder: &PlanBuilder, problems: &mut Problems) {
    for check in CHECKS.iter().chain(&WARNINGS) {
        check(builder, problems);
    }
}

/// Keys that are missing, with what to write; what is there but could not be read is reported already.
struct Missing<'a> {
    config: &'a Config,
    problems: &'a mut Problems,
}

impl Missing<'_> {
    fn add(&mut self, path: &str, span: Span, what: String, hint: &str) {
        let mut unreadable = self.config.unreadable.iter();
        if !unreadable.any(|unreadable| unreadable == path) {
            self.problems
                .push(Diagnostic::error_at(span, what).hint(hint));
        }
    }
}

fn what_is_needed_is_there(builder: &PlanBuilder, problems: &mut Problems) {
    let config = builder.config;
    let network = &config.network;
    let mut missing = Missing { config, problems };
    let at_the_top = [
        (
            network.subnet.is_none(),
            "network.subnet",
            "`network.subnet` is missing",
            "give the LAN, like `subnet = \"192.168.1.0/24\"` in `[network]`",
        ),
        (
            network.gateway.is_none(),
            "network.gateway",
            "`network.gateway` is missing",
            "give the router's address, like `gateway = \"192.168.1.1\"` in `[network]`",
        ),
        (
            config.hosts.is_empty(),
            "hosts",
            "the file names no host",
            "add `[hosts.NAME]` with the `address` of the machine that runs the containers",
        ),
        (
            config.envs.is_empty(),
            "env",
            "the file names no environment",
            "add `[env.prod]` with a `range` of addresses for its containers",
        ),
    ];
    for (is_missing, path, what, hint) in at_the_top {
        if is_missing {
            missing.add(path, network.span.clone(), what.to_owned(), hint);
        }
    }
    hosts_have_addresses(config, &mut missing);
    environments_have_what_they_need(builder, &mut missing);
}

fn hosts_have_addresses(config: &Config, missing: &mut Missing) {
    for host in &config.hosts {
        let (name, span) = (host.name.get_ref(), host.name.span());
        if host.address.is_none() {
            let path = format!("hosts.{name}.address");
            let what = format!("`{path}` is missing");
            let hint = "give the machine's own address on the LAN";
            missing.add(&path, span.clone(), what, hint);
        }
        if host.shim.is_none() && config.shim.address.is_none() {
            let what = format!("host `{name}` has no address for its shim");
            let hint = "give one to all hosts by `address` in `[shim]`, or to this one by `shim`";
            missing.add("shim.address", span, what, hint);
        }
    }
}

fn environments_have_what_they_need(builder: &PlanBuilder, missing: &mut Missing) {
    for (env, partial) in builder.config.envs.iter().zip(&builder.envs) {
        let name = env.name.get_ref();
        if env.range.is_none() {
            let path = format!("env.{name}.range");
            let what = format!("`{path}` is missing");
            let hint = "give the addresses of its containers, like `range = \"192.168.1.192/27\"`";
            missing.add(&path, env.name.span(), what, hint);
        }
        for service in partial.services.iter().filter(|service| !service.has_image) {
            let name = service.name.get_ref();
            let path = format!("services.{name}.image");
            let what = format!("service `{name}` has no image");
            let hint = "give it one, like `traefik/whoami:v1.10`";
            missing.add(&path, service.name.span(), what, hint);
        }
    }
}

fn hosts_and_shims_differ(builder: &PlanBuilder, problems: &mut Problems) {
    let mut all: Vec<(Spanned<Ipv4Addr>, String, bool, Span)> = Vec::new();
    for host in &builder.hosts {
        let name = host.name.get_ref();
        let (address, shim) = (host.address.clone(), host.shim.clone());
        let address = address.map(|a| (a, format!("host `{name}`"), false, host.name.span()));
        let shim = shim.map(|a| {
            (
                a,
                format!("the shim of host `{name}`"),
                true,
                host.name.span(),
            )
        });
        all.extend(address.into_iter().chain(shim));
    }
    for env in &builder.envs {
        let own = lans::own_shims(env);
        all.extend(own.map(|(shim, what)| (shim, what, true, env.name.span())));
    }
    for (index, (address, what, is_shim, owner)) in all.iter().enumerate() {
        let mut before = all.iter().take(index);
        let first = before.find(|(other, ..)| other.get_ref() == address.get_ref());
        let Some((other, other_what, ..)) = first else {
            continue;
        };
        // Where both take the address of `[shim]`, the place to change is the second host.
        let span = if other.span() == address.span() {
            owner.clone()
        } else {
            address.span()
        };
        let hint = if *is_shim {
            "two machines that answer for one address break each other; give this host a `shim` of its own"
        } else {
            "two machines that answer for one address break each other; give each its own"
        };
        problems.push(
            Diagnostic::error_at(
                span,
                format!(
                    "`{}` is the address of {other_what} and of {what}",
                    address.get_ref()
                ),
            )
            .context(other.span(), format!("{other_what} has it"))
            .hint(hint),
        );
    }
}

fn env_ranges<'a>(builder: &'a PlanBuilder) -> impl Iterator<Item = (&'a PartialEnv, Range, Span)> {
    builder.envs.iter().filter_map(|env| {
        let range = env.range.as_ref()?;
        Some((env, *range.get_ref(), range.span()))
    })
}

fn environments_do_not_overlap(builder: &PlanBuilder, problems: &mut Problems) {
    let all: Vec<_> = env_ranges(builder).collect();
    for (index, (env, range, span)) in all.iter().enumerate() {
        for (other, other_range, other_span) in all.iter().take(index) {
            if range.overlaps(*other_range) {
                problems.push(
                    Diagnostic::error_at(
                        span.clone(),
                        format!(
                            "environments `{}` and `{}` overlap",
                            other.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .context(other_span.clone(), format!("`{}`", other.name.get_ref()))
                    .hint("an address belongs to one environment"),
                );
            }
        }
    }
}

fn environments_keep_out_of_dhcp(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(dhcp) = &builder.dhcp else { return };
    for (env, range, span) in env_ranges(builder) {
        if range.overlaps(*dhcp.get_ref()) {
            problems.push(
                Diagnostic::error_at(
                    span,
                    format!(
                        "environment `{}` reaches into the DHCP range",
                        env.name.get_ref()
                    ),
                )
                .context(dhcp.span(), "the router hands these out")
                .hint("end the router's range earlier, or choose other addresses"),
            );
        }
    }
}

/// The pools of the environments on the LAN of `[network]`, each a bit wider than the one before; `None` where there is none left.
fn pools<'a>(
    builder: &'a PlanBuilder,
    net: Ipv4Net,
) -> impl Iterator<Item = (&'a PartialEnv, Span, Option<Ipv4Net>)> {
    let here = env_ranges(builder).filter(|(env, ..)| env.lan.is_none());
    here.enumerate().map(move |(index, (env, _, span))| {
        let pool = u8::try_from(index).ok().and_then(|step| pool(net, step));
        (env, span, pool)
    })
}

fn pools_are_wide_enough(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (env, span, pool) in pools(builder, net) {
        let name = env.name.get_ref();
        if pool.is_none() {
            problems.push(
                Diagnostic::error_at(
                    span,
                    format!("there is no pool left for environment `{name}`"),
                )
                .hint("each environment needs a subnet one bit wider than the one before; use fewer environments"),
            );
        }
    }
}
