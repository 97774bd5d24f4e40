//! Rules of LANs, that of `[network]` and those that environments have for their own: what is on one is inside its subnet, each
//! machine by an address of its own, outside of the ranges of containers.

use super::names::unknown_name;
use crate::error::Diagnostic;
use crate::input::problem::Span;
use crate::plan::builder::{PartialEnv, PlanBuilder};
use crate::plan::{Problems, Range};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use toml::Spanned;

/// An address or a range, with what it is.
pub(super) type Named<T> = (Spanned<T>, String);

/// A LAN with everything that the file puts on it.
struct Lan<'a> {
    subnet: &'a Spanned<Ipv4Net>,
    gateway: Option<&'a Spanned<Ipv4Addr>>,
    hosts: Vec<Named<Ipv4Addr>>,
    shims: Vec<Named<Ipv4Addr>>,
    ranges: Vec<Named<Range>>,
    envs: Vec<&'a PartialEnv>,
}

impl Lan<'_> {
    fn net(&self) -> Ipv4Net {
        *self.subnet.get_ref()
    }

    /// Every single address of a machine.
    fn machines(&self) -> impl Iterator<Item = Named<Ipv4Addr>> {
        let gateway = self
            .gateway
            .map(|gateway| (gateway.clone(), "the gateway".to_owned()));
        let machines = self.hosts.iter().chain(&self.shims);
        gateway.into_iter().chain(machines.cloned())
    }
}

/// The LANs whose subnets could be read.
fn lans<'a>(builder: &'a PlanBuilder) -> Vec<Lan<'a>> {
    let range = |env: &PartialEnv| {
        let what = format!("environment `{}`", env.name.get_ref());
        env.range.clone().map(|range| (range, what))
    };
    let main = builder.subnet.as_ref().map(|subnet| {
        let (hosts, shims) = hosts_and_shims(builder);
        let envs = builder.envs.iter().filter(|env| env.lan.is_none());
        let envs: Vec<&PartialEnv> = envs.collect();
        let dhcp = builder
            .dhcp
            .clone()
            .map(|dhcp| (dhcp, "the DHCP range".to_owned()));
        let reserved = builder.reserved.iter().filter(|(_, reserved)| {
            let mut own = own_subnets(builder);
            !own.any(|(_, net)| reserved.get_ref().is_inside(*net.get_ref()))
        });
        let reserved = reserved
            .map(|(name, range)| (range.clone(), format!("reservation `{}`", name.get_ref())));
        let ranges = dhcp.into_iter().chain(reserved);
        Lan {
            subnet,
            gateway: builder.gateway.as_ref(),
            hosts,
            shims,
            ranges: ranges
                .chain(envs.iter().filter_map(|env| range(env)))
                .collect(),
            envs,
        }
    });
    let own = builder.envs.iter().filter_map(|env| {
        let lan = env.lan.as_ref()?;
        Some(Lan {
            subnet: lan.subnet.as_ref()?,
            gateway: lan.gateway.as_ref(),
            hosts: Vec::new(),
            shims: own_shims(env).collect(),
            ranges: range(env).into_iter().collect(),
            envs: vec![env],
        })
    });
    main.into_iter().chain(own).collect()
}

/// What hosts have on the LAN of `[network]`.
fn hosts_and_shims(builder: &PlanBuilder) -> (Vec<Named<Ipv4Addr>>, Vec<Named<Ipv4Addr>>) {
    let (mut hosts, mut shims) = (Vec::new(), Vec::new());
    for host in &builder.hosts {
        let name = host.name.get_ref();
        let address = host.address.clone();
        hosts.extend(address.map(|address| (address, format!("host `{name}`"))));
        let what = if host.has_own_shim {
            format!("the shim of host `{name}`")
        } else {
            "the shim".to_owned()
        };
        shims.extend(host.shim.clone().map(|shim| (shim, what)));
    }
    (hosts, shims)
}

/// Every single address of a host on the LAN of `[network]`.
pub(super) fn main_machines(builder: &PlanBuilder) -> impl Iterator<Item = Named<Ipv4Addr>> {
    let (hosts, shims) = hosts_and_shims(builder);
    hosts.into_iter().chain(shims)
}

/// The shims on an environment's own LAN.
pub(super) fn own_shims(env: &PartialEnv) -> impl Iterator<Item = Named<Ipv4Addr>> {
    let seats = env.lan.iter().flat_map(|lan| &lan.seats);
    seats.map(|seat| {
        let (host, env) = (seat.host.get_ref(), env.name.get_ref());
        let what = format!("the shim of host `{host}` in environment `{env}`");
        (seat.shim.clone(), what)
    })
}

/// The environments with a LAN of their own, and the subnets of those.
pub(super) fn own_subnets<'a>(
    builder: &'a PlanBuilder,
) -> impl Iterator<Item = (&'a PartialEnv, &'a Spanned<Ipv4Net>)> {
    let own = builder.envs.iter();
    own.filter_map(|env| Some((env, env.lan.as_ref()?.subnet.as_ref()?)))
}

pub(super) fn addresses_are_in_the_subnet(builder: &PlanBuilder, problems: &mut Problems) {
    for lan in lans(builder) {
        let net = lan.net();
        let outside = |span: Span, what: String| {
            Diagnostic::error_at(span, what)
                .label("outside the subnet")
                .context(lan.subnet.span(), "the subnet")
                .hint(format!("choose addresses of {net}"))
        };
        for (address, what) in lan.machines() {
            if !net.contains(address.get_ref()) {
                let what = format!("`{}`, {what}, is outside the subnet", address.get_ref());
                problems.push(outside(address.span(), what));
            }
        }
        for (range, what) in &lan.ranges {
            if !range.get_ref().is_inside(net) {
                let what = format!("`{}`, {what}, is outside the subnet", range.get_ref());
                problems.push(outside(range.span(), what));
            }
        }
    }
}

pub(super) fn network_and_broadcast_are_nobodys(builder: &PlanBuilder, problems: &mut Problems) {
    for lan in lans(builder) {
        let net = lan.net();
        for (address, what) in lan.machines() {
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
}

pub(super) fn gateway_is_not_the_shim(builder: &PlanBuilder, problems: &mut Problems) {
    let (_, main) = hosts_and_shims(builder);
    let main = (builder.gateway.as_ref(), main);
    let own = builder.envs.iter().filter_map(|env| {
        let gateway = env.lan.as_ref()?.gateway.as_ref();
        Some((gateway, own_shims(env).collect()))
    });
    for (gateway, shims) in std::iter::once(main).chain(own) {
        let Some(gateway) = gateway else { continue };
        for (shim, what) in shims {
            if shim.get_ref() == gateway.get_ref() {
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
}

pub(super) fn environments_keep_out_of_what_is_taken(
    builder: &PlanBuilder,
    problems: &mut Problems,
) {
    for lan in lans(builder) {
        for env in &lan.envs {
            let Some(range) = &env.range else { continue };
            if range.get_ref().is_inside(lan.net()) {
                check_what_is_inside(builder, &lan, env, range, problems);
            }
        }
    }
}

fn check_what_is_inside(
    builder: &PlanBuilder,
    lan: &Lan,
    env: &PartialEnv,
    range: &Spanned<Range>,
    problems: &mut Problems,
) {
    let name = env.name.get_ref();
    let (span, range) = (range.span(), *range.get_ref());
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
    let net = lan.net();
    for (address, what) in [
        (net.network(), "the network address"),
        (net.broadcast(), "the broadcast address"),
    ] {
        if range.contains(address) {
            problems.push(inside(format!("`{address}`, {what} of the subnet,"), None));
        }
    }
    let gateway = lan
        .gateway
        .map(|gateway| (gateway.clone(), "the gateway".to_owned()));
    for (address, what) in gateway.into_iter().chain(lan.shims.iter().cloned()) {
        if range.contains(*address.get_ref()) {
            let what = format!("`{}`, {what},", address.get_ref());
            problems.push(inside(what, Some(address.span())));
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

pub(super) fn lans_do_not_overlap(builder: &PlanBuilder, problems: &mut Problems) {
    let main = builder.subnet.as_ref();
    let mut seen: Vec<(&Spanned<Ipv4Net>, String)> = main
        .map(|net| (net, "`[network]`".to_owned()))
        .into_iter()
        .collect();
    for (env, subnet) in own_subnets(builder) {
        let name = format!("environment `{}`", env.name.get_ref());
        let net = subnet.get_ref();
        let overlaps = |other: &Ipv4Net| other.contains(net) || net.contains(other);
        if let Some((other, what)) = seen.iter().find(|(other, _)| overlaps(other.get_ref())) {
            problems.push(
                Diagnostic::error_at(
                    subnet.span(),
                    format!("the subnets of {what} and {name} overlap"),
                )
                .context(other.span(), format!("that of {what}"))
                .hint("an environment on the LAN of `[network]` has no `subnet`, `gateway`, `parent` and `shim`; one with a LAN of its own is alone on it"),
            );
        }
        seen.push((subnet, name));
    }
}

/// The hosts of environments' own LANs exist, and services run on no other ones.
pub(super) fn hosts_of_lans_exist(builder: &PlanBuilder, problems: &mut Problems) {
    let known: Vec<&str> = builder
        .hosts
        .iter()
        .map(|host| host.name.get_ref().as_str())
        .collect();
    for env in &builder.envs {
        let Some(lan) = &env.lan else { continue };
        let name = env.name.get_ref();
        for seat in &lan.seats {
            let host = seat.host.get_ref();
            if !known.contains(&host.as_str()) {
                let what = format!(
                    "environment `{name}` has a shim for host `{host}`, which does not exist"
                );
                problems.push(unknown_name(seat.host.span(), what, host, &known, "hosts"));
            }
        }
        let mut seats = lan.seats.iter().map(|seat| seat.host.get_ref().as_str());
        let are_known = !lan.seats.is_empty() && seats.all(|host| known.contains(&host));
        for service in env.services.iter().filter(|_| are_known) {
            let Some(host) = service
                .host
                .as_ref()
                .filter(|host| known.contains(&host.as_str()))
            else {
                continue;
            };
            let is_there = lan.seats.iter().any(|seat| seat.host.get_ref() == host);
            if !is_there {
                problems.push(
                    Diagnostic::error_at(
                        service.name.span(),
                        format!(
                            "service `{}` runs on host `{host}`, which is not on the LAN of environment `{name}`",
                            service.name.get_ref()
                        ),
                    )
                    .hint(format!("give that host a shim there: `shim = {{ {host} = \"ADDRESS\" }}` in `[env.{name}]`")),
                );
            }
        }
    }
}
