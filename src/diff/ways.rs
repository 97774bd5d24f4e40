//! Which way this host's packets to its containers go, and how it stands on the LAN, beside what the plan says. Pure.

use super::{allocation, lan, links};
use crate::error::Diagnostic;
use crate::plan::{Host, Plan, PlannedShim, joined};
use crate::state::{State, Way};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The addresses to ask the kernel about: those of running containers, and one of each planned route.
pub fn asked(plan: &Plan, state: &State) -> Vec<Ipv4Addr> {
    let own = state.own_addresses();
    let mut asked = BTreeSet::new();
    for env in &plan.envs {
        let running = state.docker.containers.iter().filter(|c| c.is_running());
        asked.extend(running.filter_map(|container| allocation::current(container, env)));
        asked.extend(env.range.addresses().find(|address| !own.contains(address)));
    }
    asked.into_iter().collect()
}

/// Packets that do not go by the shim although its route is as planned.
pub fn astray(plan: &Plan, host: &Host, state: &State) -> Vec<Diagnostic> {
    plan.shims(host)
        .flat_map(|shim| astray_of(plan, &shim, state))
        .collect()
}

fn astray_of(plan: &Plan, shim: &PlannedShim, state: &State) -> Vec<Diagnostic> {
    let has_routes = links::routes_of(shim).all(|route| state.routes.contains(&route));
    if !has_routes {
        return Vec::new();
    }
    let on_its_lan = lan::on_its_lan(plan, shim, state.ways.iter().map(|way| way.address));
    let astray = state
        .ways
        .iter()
        .filter(|way| on_its_lan.contains(&way.address));
    let astray = astray.filter(|way| way.link.as_ref() != Some(&shim.name));
    let mut by_way: BTreeMap<(Option<&str>, u32), Vec<Ipv4Addr>> = BTreeMap::new();
    for Way {
        address,
        link,
        table,
    } in astray
    {
        let addresses = by_way.entry((link.as_deref(), *table)).or_default();
        addresses.push(*address);
    }
    let sentence = |((link, table), addresses): ((Option<&str>, u32), Vec<Ipv4Addr>)| {
        let to = joined(&addresses, ", ");
        // `ip route get` takes one.
        let first = joined(addresses.get(..1).unwrap_or_default(), "");
        let name = &shim.name;
        match link {
            Some(link) => Diagnostic::error(
                format!(
                    "packets to {to} leave by `{link}` and not by `{name}`: table {table} says so"
                ),
                format!(
                    "`ip rule` and `ip route show table {table}` show what; take it away, or keep {} out of it",
                    joined(shim.routes, ", ")
                ),
            ),
            None => Diagnostic::error(
                format!("this host may not send packets to {to}: a rule or a route forbids it"),
                format!("`ip rule` and `ip route get {first}` show what; take it away"),
            ),
        }
    };
    by_way.into_iter().map(sentence).collect()
}

/// How the host stands on the LAN otherwise than the plan says: its prefix, and its way out.
pub fn beside_the_plan(plan: &Plan, host: &Host, state: &State) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let own = |net: &&Ipv4Net| net.addr() == host.address;
    for link in &state.links {
        let other = link.addresses.iter().filter(own);
        let other = other.filter(|net| net.prefix_len() != plan.subnet.prefix_len());
        found.extend(other.map(|net| {
            Diagnostic::error(
                format!(
                    "link `{}` has {net}, and the plan's subnet is {}",
                    link.name, plan.subnet
                ),
                "correct `subnet` in `[network]`, or the address of this host",
            )
        }));
        let has_own = link.addresses.iter().any(|net| own(&net));
        let default = state.routes.iter().filter(|route| {
            has_own && route.link == link.name && route.destination.prefix_len() == 0
        });
        let other = default.filter_map(|route| route.gateway);
        let other = other.filter(|gateway| *gateway != plan.gateway);
        found.extend(other.map(|gateway| {
            Diagnostic::error(
                format!("this host's way out is {gateway}, and the plan's gateway is {}", plan.gateway),
                "correct `gateway` in `[network]`, which containers use, or the default route of this host",
            )
        }));
    }
    found
}
