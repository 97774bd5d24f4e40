//! The shim and the parent links: which ones the plan wants, what stands in their way, and the steps to them. Pure.

use super::{Action, Diff, StepId};
use crate::error::Blocker;
use crate::plan::{Host, Plan, mac_of, network_name};
use crate::state::{LINK_ALIAS_PREFIX, Link, Route, State};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A link that should exist.
pub(super) struct WantedLink {
    pub name: String,
    parent: String,
    mac: String,
    alias: String,
    /// What makes a link the shim; a parent link has nothing of it and stays down.
    shim: Option<Shim>,
}

impl WantedLink {
    /// Whether it is the parent of a network, and not the shim.
    pub(super) fn is_parent(&self) -> bool {
        self.shim.is_none()
    }
}

struct Shim {
    address: Ipv4Addr,
    route: Route,
}

/// Every link that the plan may want on this host: the shim, and a parent link for each environment.
fn plannable(plan: &Plan, host: &Host, parent: &str) -> Vec<WantedLink> {
    let shim = WantedLink {
        name: plan.shim_name.clone(),
        parent: parent.to_owned(),
        mac: mac_of(host.shim),
        alias: format!("{LINK_ALIAS_PREFIX}shim"),
        shim: Some(Shim {
            address: host.shim,
            route: shim_route(plan, host),
        }),
    };
    let parents = plan.envs.iter().map(|env| WantedLink {
        name: env.parent_link(),
        parent: parent.to_owned(),
        mac: parent_link_mac(&env.name, host),
        alias: format!("{LINK_ALIAS_PREFIX}parent of {}", network_name(&env.name)),
        shim: None,
    });
    std::iter::once(shim).chain(parents).collect()
}

/// The shim, and those parent links that are among `parents`, the parents of networks that stay or come.
pub(super) fn wanted(
    plan: &Plan,
    host: &Host,
    parent: &str,
    parents: &BTreeSet<&str>,
) -> Vec<WantedLink> {
    let mut links = plannable(plan, host, parent);
    links.retain(|link| link.shim.is_some() || parents.contains(link.name.as_str()));
    links
}

/// Links of ours that are neither wanted nor among `parents`.
pub(super) fn surplus<'a>(
    plan: &Plan,
    host: &Host,
    wanted: &[WantedLink],
    parents: &BTreeSet<&str>,
    state: &'a State,
) -> Vec<&'a Link> {
    let plannable = plannable(plan, host, "");
    let is_ours = |link: &Link| {
        let mut known = plannable.iter().filter(|known| known.name == link.name);
        link.is_ours() || known.any(|known| is_half_made(link, known))
    };
    let is_needed = |link: &Link| {
        wanted.iter().any(|wanted| wanted.name == link.name) || parents.contains(link.name.as_str())
    };
    let links = state.links.iter();
    links
        .filter(|link| is_ours(link) && !is_needed(link))
        .collect()
}

/// A hardware address that stays, for a link that is never up. It is also how a link that was made but not yet marked when
/// homelab was killed is known again.
fn parent_link_mac(env: &str, host: &Host) -> String {
    let hash = Sha256::digest(format!("{env}@{}", host.address));
    let tail: Vec<String> = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("02:68:{}", tail.join(":"))
}

/// A link that homelab made but had no time to mark: the name, kind and hardware address are ours and it was never used.
fn is_half_made(link: &Link, wanted: &WantedLink) -> bool {
    link.alias.is_none()
        && link.kind == "macvlan"
        && link.mac == wanted.mac
        && !link.up
        && link.addresses.is_empty()
}

/// What homelab did not make but stands where a link of the plan belongs.
pub(super) fn in_the_way(wanted: &WantedLink, state: &State) -> Option<Blocker> {
    let name = &wanted.name;
    if let Some(link) = state.link(name)
        && !link.is_ours()
        && !is_half_made(link, wanted)
    {
        return Some(Blocker::new(
            format!("there is a link `{name}` that homelab did not make"),
            format!(
                "remove it with `ip link del {name}`, and what makes it at boot (an older unit or script), or choose another name in `[shim]`"
            ),
        ));
    }
    let shim = wanted.shim.as_ref()?;
    let (address, destination) = (shim.address, shim.route.destination);
    let other = state
        .links
        .iter()
        .find(|link| link.name != *name && !link.is_ours() && link.has(address));
    if let Some(other) = other {
        return Some(Blocker::new(
            format!(
                "link `{}` has {address}, the shim's address, and homelab did not make it",
                other.name
            ),
            format!(
                "take it away: `ip addr del {address} dev {}`; or give the shim another address",
                other.name
            ),
        ));
    }
    let route = state.routes.iter().find(|route| {
        let is_ours = state.link(&route.link).is_some_and(Link::is_ours);
        route.destination == destination && route.metric == 0 && route.link != *name && !is_ours
    })?;
    Some(Blocker::new(
        format!(
            "there is a route to {destination} over `{}` that homelab did not make",
            route.link
        ),
        format!("remove it: `ip route del {destination} dev {}`", route.link),
    ))
}

/// The route that leads this host to its containers.
pub fn shim_route(plan: &Plan, host: &Host) -> Route {
    Route {
        destination: plan.route,
        link: plan.shim_name.clone(),
        source: Some(host.shim),
        gateway: None,
        metric: 0,
    }
}

/// The steps for one link; the last ones are what its users wait for.
pub(super) fn steps(
    wanted: &WantedLink,
    state: &State,
    diff: &mut Diff,
    deleted: &[StepId],
) -> Vec<StepId> {
    let name = &wanted.name;
    let mut existing = state.link(name);
    let mut last = Vec::new();
    if let Some(link) = existing
        && let Some(cause) = misfit(link, wanted)
    {
        let delete = Action::DeleteLink { name: name.clone() };
        last = vec![diff.push(delete, cause, &[])];
        existing = None;
    }
    if existing.is_none() {
        let cause = if last.is_empty() {
            "it does not exist"
        } else {
            "it is made anew"
        };
        let add = Action::AddLink {
            name: name.clone(),
            parent: wanted.parent.clone(),
            mac: wanted.mac.clone(),
        };
        // Two links on one parent must not have one hardware address, and one shim is enough.
        last.extend(deleted);
        last = vec![diff.push(add, cause, &last)];
    }
    if existing.is_none_or(|link| !link.is_ours()) {
        let alias = Action::SetAlias {
            name: name.clone(),
            alias: wanted.alias.clone(),
        };
        last = vec![diff.push(alias, "it marks the link as homelab's", &last)];
    }
    match &wanted.shim {
        Some(shim) => shim_steps(name, shim, existing, state, diff, last),
        None => last,
    }
}

/// What the shim has that a parent link has not, after the steps `marked`.
fn shim_steps(
    name: &str,
    shim: &Shim,
    existing: Option<&Link>,
    state: &State,
    diff: &mut Diff,
    marked: Vec<StepId>,
) -> Vec<StepId> {
    let name = name.to_owned();
    let mut dressed = Vec::new();
    if existing.is_none_or(|link| !link.arp_filter) {
        let cause = "it shall not answer for this host's other addresses";
        let action = Action::SetArpFilter { name: name.clone() };
        dressed.push(diff.push(action, cause, &marked));
    }
    let address = Ipv4Net::from(shim.address);
    if existing.is_none_or(|link| !link.addresses.contains(&address)) {
        let name = name.clone();
        let action = Action::AddAddress { name, address };
        dressed.push(diff.push(action, "it is the shim's address", &marked));
    }
    let mut last = if dressed.is_empty() { marked } else { dressed };
    let is_up = existing.is_some_and(|link| link.up);
    if !is_up {
        let action = Action::SetUp { name: name.clone() };
        last = vec![diff.push(action, "it is down", &last)];
    }
    // On the shim, routes with its address as their source are ours, and so is the planned destination. The kernel takes
    // all routes of a link that is down.
    let found = state.routes.iter().filter(|found| {
        let is_destination = found.destination == shim.route.destination && found.metric == 0;
        let is_ours = found.source == Some(shim.address) || is_destination;
        is_up && found.link == name && is_ours
    });
    let (planned, outdated): (Vec<&Route>, Vec<&Route>) =
        found.partition(|found| **found == shim.route);
    for route in outdated {
        let action = Action::DeleteRoute(route.clone());
        last.push(diff.push(action, "the plan does not want it", &[]));
    }
    if planned.is_empty() {
        let cause = "it leads this host to the containers";
        last = vec![diff.push(Action::AddRoute(shim.route.clone()), cause, &last)];
    }
    last
}

/// What cannot be changed on a link that is there.
fn misfit(link: &Link, wanted: &WantedLink) -> Option<String> {
    if link.kind != "macvlan" {
        return Some(format!("its kind is {}, planned is macvlan", link.kind));
    }
    let mode = link.mode.as_deref().unwrap_or("missing");
    if mode != "bridge" {
        return Some(format!("its mode is {mode}, planned is bridge"));
    }
    let parent = link.parent.as_deref().unwrap_or("missing");
    if parent != wanted.parent {
        return Some(format!(
            "its parent is {parent}, planned is {}",
            wanted.parent
        ));
    }
    if link.mac != wanted.mac {
        return Some(format!(
            "its hardware address is {}, planned is {}",
            link.mac, wanted.mac
        ));
    }
    None
}
