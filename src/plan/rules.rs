//! The rules of an address plan, each a small check with a name. All of them run, so that all problems come at once.

mod names;
mod services;
mod warnings;

use super::builder::{PartialEnv, PlanBuilder};
use super::{Problems, Range, pool};
use crate::error::Diagnostic;
use crate::input::homelab_toml::Config;
use crate::input::problem::Span;
use std::net::Ipv4Addr;
use toml::Spanned;

const CHECKS: [fn(&PlanBuilder, &mut Problems); 18] = [
    what_is_needed_is_there,
    addresses_are_in_the_subnet,
    network_and_broadcast_are_nobodys,
    gateway_is_not_the_shim,
    hosts_and_shims_differ,
    environments_do_not_overlap,
    environments_keep_out_of_dhcp,
    environments_keep_out_of_what_is_taken,
    pools_are_wide_enough,
    services::one_host_is_primary,
    names::names_fit,
    names::names_of_environments_exist,
    services::hosts_of_services_exist,
    services::service_addresses_are_their_environments,
    services::service_addresses_are_their_own,
    services::several_containers_share_nothing,
    services::dependencies_exist,
    services::dependencies_have_an_order,
];

const WARNINGS: [fn(&PlanBuilder, &mut Problems); 4] = [
    warnings::hosts_in_dhcp,
    warnings::hosts_in_environments,
    warnings::dependencies_on_other_hosts,
    warnings::pools_beyond_private_addresses,
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

/// Every single address that the file gives to a machine, with what it is.
fn machine_addresses(builder: &PlanBuilder) -> Vec<(Spanned<Ipv4Addr>, String)> {
    let mut all = Vec::new();
    if let Some(gateway) = &builder.gateway {
        all.push((gateway.clone(), "the gateway".to_owned()));
    }
    for host in &builder.hosts {
        let name = host.name.get_ref();
        if let Some(address) = &host.address {
            all.push((address.clone(), format!("host `{name}`")));
        }
        if let Some(shim) = &host.shim {
            all.push((shim.clone(), shim_of(host.has_own_shim, name)));
        }
    }
    all
}

fn shim_of(has_own: bool, host: &str) -> String {
    if has_own {
        format!("the shim of host `{host}`")
    } else {
        "the shim".to_owned()
    }
}

fn ranges(builder: &PlanBuilder) -> Vec<(Spanned<Range>, String)> {
    let mut all = Vec::new();
    if let Some(dhcp) = &builder.dhcp {
        all.push((dhcp.clone(), "the DHCP range".to_owned()));
    }
    for (name, range) in &builder.reserved {
        all.push((range.clone(), format!("reservation `{}`", name.get_ref())));
    }
    for env in &builder.envs {
        if let Some(range) = &env.range {
            all.push((
                range.clone(),
                format!("environment `{}`", env.name.get_ref()),
            ));
        }
    }
    all
}

fn addresses_are_in_the_subnet(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(subnet) = &builder.subnet else {
        return;
    };
    let net = *subnet.get_ref();
    let outside = |span: Span, what: String| {
        Diagnostic::error_at(span, what)
            .label("outside the subnet")
            .context(subnet.span(), "the subnet")
            .hint(format!("choose addresses of {net}"))
    };
    for (address, what) in machine_addresses(builder) {
        if !net.contains(address.get_ref()) {
            let what = format!("`{}`, {what}, is outside the subnet", address.get_ref());
            problems.push(outside(address.span(), what));
        }
    }
    for (range, what) in ranges(builder) {
        if !range.get_ref().is_inside(net) {
            let what = format!("`{}`, {what}, is outside the subnet", range.get_ref());
            problems.push(outside(range.span(), what));
        }
    }
}

fn network_and_broadcast_are_nobodys(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (address, what) in machine_addresses(builder) {
        let kind = match *address.get_ref() {
            a if a == net.network() => "network",
            a if a == net.broadcast() => "broadcast",
            _ => continue,
        };
        problems.push(Diagnostic::error_at(
            address.span(),
            format!(
                "`{}`, {what}, is the {kind} address of the subnet",
                address.get_ref()
            ),
        ));
    }
}

fn gateway_is_not_the_shim(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(gateway) = &builder.gateway else {
        return;
    };
    for host in &builder.hosts {
        let Some(shim) = &host.shim else { continue };
        if shim.get_ref() == gateway.get_ref() {
            let what = shim_of(host.has_own_shim, host.name.get_ref());
            problems.push(
                Diagnostic::error_at(
                    shim.span(),
                    format!("`{}` is the gateway and {what} at once", shim.get_ref()),
                )
                .context(gateway.span(), "the gateway")
                .hint("give the shim an address that no other machine has"),
            );
        }
    }
}

fn hosts_and_shims_differ(builder: &PlanBuilder, problems: &mut Problems) {
    let mut seen: Vec<(Spanned<Ipv4Addr>, String, bool)> = Vec::new();
    for host in &builder.hosts {
        let name = host.name.get_ref();
        let address = host
            .address
            .clone()
            .map(|a| (a, format!("host `{name}`"), false));
        let shim = host
            .shim
            .clone()
            .map(|a| (a, format!("the shim of host `{name}`"), true));
        for (address, what, is_shim) in [address, shim].into_iter().flatten() {
            let first = seen
                .iter()
                .find(|(other, _, _)| other.get_ref() == address.get_ref());
            let Some((other, other_what, _)) = first else {
                seen.push((address, what, is_shim));
                continue;
            };
            // Where both take the address of `[shim]`, the place to change is the second host.
            let span = if other.span() == address.span() {
                host.name.span()
            } else {
                address.span()
            };
            let hint = if is_shim {
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

fn environments_keep_out_of_what_is_taken(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (env, range, span) in env_ranges(builder).filter(|(_, range, _)| range.is_inside(net)) {
        let name = env.name.get_ref();
        let inside = |what: String, place: Option<Span>| {
            let problem = Diagnostic::error_at(
                span.clone(),
                format!("{what} is inside the range of environment `{name}`"),
            )
            .hint("move one of the two; containers get addresses from the whole range");
            match place {
                Some(place) => problem.context(place, "inside the range"),
                None => problem,
            }
        };
        for (address, what) in [
            (net.network(), "the network address"),
            (net.broadcast(), "the broadcast address"),
        ] {
            if range.contains(address) {
                problems.push(inside(format!("`{address}`, {what} of the subnet,"), None));
            }
        }
        if let Some(gateway) = &builder.gateway
            && range.contains(*gateway.get_ref())
        {
            let what = format!("`{}`, the gateway,", gateway.get_ref());
            problems.push(inside(what, Some(gateway.span())));
        }
        for host in &builder.hosts {
            if let Some(shim) = &host.shim
                && range.contains(*shim.get_ref())
            {
                let whose = shim_of(host.has_own_shim, host.name.get_ref());
                let what = format!("`{}`, {whose},", shim.get_ref());
                problems.push(inside(what, Some(shim.span())));
            }
        }
        for (reservation, reserved) in &builder.reserved {
            if range.overlaps(*reserved.get_ref()) {
                let what = format!(
                    "`{}`, reservation `{}`,",
                    reserved.get_ref(),
                    reservation.get_ref()
                );
                problems.push(inside(what, Some(reserved.span())));
            }
        }
    }
}

fn pools_are_wide_enough(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (index, (env, _, span)) in env_ranges(builder).enumerate() {
        let name = env.name.get_ref();
        let step = u8::try_from(index).unwrap_or(u8::MAX);
        if pool(net, step).is_none() {
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
