//! What is allowed, but should be known.

use super::lans::{main_machines, own_subnets};
use super::services::dependencies;
use super::{env_ranges, pools};
use crate::error::Diagnostic;
use crate::plan::builder::PlanBuilder;
use crate::plan::isolation::ipv6_subnets;
use crate::plan::{Bypass, Isolation, Problems};

pub(super) fn hosts_in_dhcp(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(dhcp) = &builder.dhcp else { return };
    for (address, what) in main_machines(builder) {
        if dhcp.get_ref().contains(*address.get_ref()) {
            problems.push(
                Diagnostic::warning_at(
                    address.span(),
                    format!("`{}`, {what}, is inside the DHCP range", address.get_ref()),
                )
                .context(dhcp.span(), "the router hands these out")
                .hint("reserve it in the router, so that nobody else gets it"),
            );
        }
    }
}

pub(super) fn hosts_in_environments(builder: &PlanBuilder, problems: &mut Problems) {
    for (env, range, span) in env_ranges(builder) {
        for host in &builder.hosts {
            if let Some(address) = &host.address
                && range.contains(*address.get_ref())
            {
                problems.push(
                    Diagnostic::warning_at(
                        address.span(),
                        format!(
                            "`{}`, host `{}`, is inside the range of environment `{}`",
                            address.get_ref(),
                            host.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .context(span.clone(), "the range")
                    .hint(
                        "it is kept from containers; an address outside the range would be clearer",
                    ),
                );
            }
        }
    }
}

pub(super) fn dependencies_on_other_hosts(builder: &PlanBuilder, problems: &mut Problems) {
    for env in &builder.envs {
        for service in &env.services {
            for dependency in dependencies(service) {
                let other = env
                    .services
                    .iter()
                    .find(|other| other.name.get_ref() == dependency.get_ref());
                if let Some(other) = other
                    && let (Some(here), Some(there)) = (&service.host, &other.host)
                    && here != there
                {
                    problems.push(
                        Diagnostic::warning_at(
                            dependency.span(),
                            format!(
                                "service `{}` depends on `{}`, which runs on host `{there}`",
                                service.name.get_ref(),
                                dependency.get_ref()
                            ),
                        )
                        .hint(format!(
                            "hosts do not wait for each other; start `{there}` first"
                        )),
                    );
                }
            }
        }
    }
}

/// Containers take the whole pool for on-link, so one that reaches into another environment's own LAN hides that from them.
pub(super) fn pools_over_own_lans(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (env, span, pool) in pools(builder, net) {
        let Some(pool) = pool else { continue };
        // One that overlaps with the LAN itself is an error.
        let hidden = own_subnets(builder).find(|(_, own)| {
            let own = own.get_ref();
            pool.contains(own) && !net.contains(own)
        });
        let Some((other, own)) = hidden else { continue };
        problems.push(
            Diagnostic::warning_at(
                span,
                format!(
                    "containers of environment `{}` will take all of {pool} for their LAN, that of environment `{}` too",
                    env.name.get_ref(),
                    other.name.get_ref()
                ),
            )
            .context(own.span(), "this they do not reach")
            .hint("each further environment on one LAN needs a pool one bit wider; put those that must reach it further up in the file"),
        );
    }
}

/// Services whose processes can undo the isolation, without their saying that this is meant.
pub(super) fn ways_out_of_the_isolation(builder: &PlanBuilder, problems: &mut Problems) {
    if builder.isolation == Isolation::Off {
        return;
    }
    for env in &builder.envs {
        for service in &env.services {
            let name = service.name.get_ref();
            let mut merged = env.merged.iter();
            let keys = merged
                .find(|(other, _)| other == name)
                .map(|(_, keys)| keys);
            let found: Vec<Bypass> = service.service.unmeant_bypasses().collect();
            for bypass in &found {
                let place = keys.and_then(|keys| keys.get(bypass.key));
                let span = place.map_or_else(|| service.name.span(), |node| node.span.clone());
                let (what, hint) = bypass.words(&service.service, &found);
                problems.push(Diagnostic::warning_at(span, what).hint(hint));
            }
        }
    }
}

/// The slices deny IPv6 but for the subnets that a file says for bridges.
pub(super) fn networks_whose_ipv6_is_denied(builder: &PlanBuilder, problems: &mut Problems) {
    if builder.isolation == Isolation::Off || builder.envs.len() < 2 {
        return;
    }
    for env in &builder.envs {
        let denied = env
            .networks
            .iter()
            .filter(|network| network.ipv6 == Some(true) && ipv6_subnets(network).next().is_none());
        for network in denied {
            let (key, env) = (&network.key, &env.name);
            let name = env.get_ref();
            let what = format!(
                "containers of environment `{name}` reach nobody over the IPv6 of network `{key}`: it has no subnet that their slice could allow"
            );
            let hint = "give the network one of its own in the Compose file, under `ipam` and `config`, like `subnet: fd00:1::/64`; the driver must be `bridge`";
            problems.push(Diagnostic::warning_at(env.span(), what).hint(hint));
        }
    }
}

/// Containers take the whole pool for on-link, so a pool that reaches public addresses hides those from them.
pub(super) fn pools_beyond_private_addresses(builder: &PlanBuilder, problems: &mut Problems) {
    let Some(net) = builder.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    if !net.network().is_private() {
        return;
    }
    for (env, span, pool) in pools(builder, net) {
        let Some(pool) = pool else { continue };
        if !pool.network().is_private() || !pool.broadcast().is_private() {
            problems.push(
                Diagnostic::warning_at(
                    span,
                    format!(
                        "containers of environment `{}` will take all of {pool} for their LAN, public addresses too",
                        env.name.get_ref()
                    ),
                )
                .hint("each further environment needs a pool one bit wider; a smaller subnet keeps it private"),
            );
        }
    }
}
