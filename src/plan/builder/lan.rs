//! The LAN that an environment has for its own, in the making.

use super::{PartialHost, read_address, read_subnet};
use crate::error::Diagnostic;
use crate::input::homelab_toml::{Config, EnvTable, PerHost, Text};
use crate::input::problem::Span;
use crate::plan::address::routes;
use crate::plan::{OwnLan, Problems, Range, Seat};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use toml::Spanned;

/// What could be read of it.
pub(in crate::plan) struct PartialLan {
    pub subnet: Option<Spanned<Ipv4Net>>,
    pub gateway: Option<Spanned<Ipv4Addr>>,
    pub seats: Vec<PartialSeat>,
}

/// What a host has there.
pub(in crate::plan) struct PartialSeat {
    pub host: Text,
    pub shim: Spanned<Ipv4Addr>,
    pub parent: Text,
}

impl PartialLan {
    /// The LAN, when everything that it needs could be read.
    pub(super) fn finish(self, range: Range) -> Option<OwnLan> {
        let gateway = *self.gateway?.get_ref();
        let seat = |seat: PartialSeat| {
            let (shim, parent) = (*seat.shim.get_ref(), seat.parent.into_inner());
            (seat.host.into_inner(), Seat { shim, parent })
        };
        Some(OwnLan {
            subnet: *self.subnet?.get_ref(),
            gateway,
            seats: self.seats.into_iter().map(seat).collect(),
            routes: routes(&[range], &[Range::single(gateway)]),
        })
    }
}

/// Reads an environment's own LAN, where its table says anything of one.
pub(super) fn read_lan(
    env: &EnvTable,
    config: &Config,
    hosts: &[PartialHost],
    problems: &mut Problems,
) -> Option<PartialLan> {
    let EnvTable {
        subnet,
        gateway,
        parent,
        shim,
        ..
    } = env;
    let keys = [
        ("subnet", subnet.is_some()),
        ("gateway", gateway.is_some()),
        ("parent", parent.is_some()),
        ("shim", shim.is_some()),
    ];
    if !keys.iter().any(|(_, is_there)| *is_there) {
        return None;
    }
    for (key, _) in keys.iter().filter(|(_, is_there)| !is_there) {
        let path = format!("env.{}.{key}", env.name.get_ref());
        if config.unreadable.contains(&path) {
            continue;
        }
        let what = format!("`{path}` is missing");
        problems.push(Diagnostic::error_at(env.name.span(), what).hint(
            "an environment with a LAN of its own has its `subnet`, its `gateway`, the `parent` interface that it is on and a `shim` address there",
        ));
    }
    Some(PartialLan {
        subnet: read_subnet(subnet.as_ref(), problems),
        gateway: read_address(gateway.as_ref(), problems),
        seats: read_seats(env, hosts, problems),
    })
}

fn read_seats(env: &EnvTable, hosts: &[PartialHost], problems: &mut Problems) -> Vec<PartialSeat> {
    let (Some(shim), Some(parent)) = (&env.shim, &env.parent) else {
        return Vec::new();
    };
    let shims = read_shims(shim, env, hosts, problems);
    if let PerHost::Each(parents) = parent {
        let is_there = |host: &Text| {
            shims
                .iter()
                .any(|(other, _)| other.get_ref() == host.get_ref())
        };
        for (host, _) in parents.iter().filter(|(host, _)| !is_there(host)) {
            let what = format!(
                "host `{}` has a parent in environment `{}` and no shim",
                host.get_ref(),
                env.name.get_ref()
            );
            problems.push(Diagnostic::error_at(host.span(), what).hint("give it one in `shim`"));
        }
    }
    let seats = shims.into_iter().filter_map(|(host, shim)| {
        let shim = read_address(Some(&shim), problems)?;
        let parent = match parent {
            PerHost::One(parent) => parent.clone(),
            PerHost::Each(parents) => {
                let mut parents = parents.iter();
                let found = parents.find(|(other, _)| other.get_ref() == host.get_ref());
                let Some((_, parent)) = found else {
                    let what = format!(
                        "host `{}` has a shim in environment `{}` and no parent",
                        host.get_ref(),
                        env.name.get_ref()
                    );
                    problems.push(
                        Diagnostic::error_at(host.span(), what).hint("give it one in `parent`"),
                    );
                    return None;
                };
                parent.clone()
            }
        };
        Some(PartialSeat { host, shim, parent })
    });
    seats.collect()
}

/// The addresses of shims, by host.
fn read_shims(
    shim: &PerHost,
    env: &EnvTable,
    hosts: &[PartialHost],
    problems: &mut Problems,
) -> Vec<(Text, Text)> {
    match shim {
        PerHost::Each(shims) => {
            if shims.is_empty() {
                let what = format!(
                    "environment `{}` has no host on its LAN",
                    env.name.get_ref()
                );
                let hint = "name one in `shim`, like `shim = { HOST = \"ADDRESS\" }`";
                problems.push(Diagnostic::error_at(env.name.span(), what).hint(hint));
            }
            shims.clone()
        }
        PerHost::One(shim) => match only_host(hosts) {
            Some(host) => vec![(host.clone(), shim.clone())],
            None => {
                problems.push(no_only_host(shim.span(), shim.get_ref(), hosts));
                Vec::new()
            }
        },
    }
}

/// The host that is meant where none is named: the only one, else the primary one.
fn only_host(hosts: &[PartialHost]) -> Option<&Text> {
    let only = match hosts {
        [only] => Some(only),
        hosts => hosts.iter().find(|host| host.primary.is_some()),
    };
    only.map(|host| &host.name)
}

fn no_only_host(span: Span, shim: &str, hosts: &[PartialHost]) -> Diagnostic {
    let host = hosts.first().map_or("HOST", |host| host.name.get_ref());
    Diagnostic::error_at(
        span,
        "the shim is of no host: there are several, and none is primary",
    )
    .hint(format!("name the host: `shim = {{ {host} = \"{shim}\" }}`"))
}
