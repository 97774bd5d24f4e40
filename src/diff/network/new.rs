//! Networks that have to be made: their pools, and what they stand on. Pure.

use crate::diff::Diff;
use crate::diff::difference::{Cause, Object};
use crate::diff::links::Target;
use crate::diff::step::NewNetwork;
use crate::error::Diagnostic;
use crate::plan::naming;
use crate::plan::{Env, pool};
use crate::state::{Api, Network, State};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;

/// A name for a parent link that neither a link nor a network knows.
fn fresh_parent_link(env: &str, state: &State) -> String {
    let is_known = |name: &String| {
        let mut networks = state.docker.networks.iter();
        state.link(name).is_some() || networks.any(|network| network.parent.as_ref() == Some(name))
    };
    let names = (0..).map(|more| naming::fresh_parent_link(env, state.seed.wrapping_add(more)));
    names
        .into_iter()
        .find(|name| !is_known(name))
        .unwrap_or_default()
}

/// Pools and parents for the networks that have to be made.
pub(super) fn new_networks(
    target: &Target,
    wanted: &[&Env],
    kept: &[&Network],
    state: &State,
    diff: &mut Diff,
) -> Vec<(NewNetwork, Cause)> {
    let stays = |network: &&Network| {
        network.environment().is_none() || kept.iter().any(|kept| kept.id == network.id)
    };
    let staying: Vec<&Network> = state.docker.networks.iter().filter(stays).collect();
    let mut pools: BTreeSet<Ipv4Net> = staying
        .iter()
        .flat_map(|network| network.pools.iter().map(|pool| pool.subnet))
        .collect();
    let parents = staying.iter().filter_map(|network| network.parent.clone());
    let parents = parents.chain(state.kept_parents.iter().cloned());
    let mut parents: BTreeSet<String> = parents.collect();
    let shares = state.docker.api >= Api::SHARED_PARENT;
    let mut new = Vec::new();
    for env in wanted {
        let name = env.network();
        let Some(parent) = target.parent_of(env) else {
            continue;
        };
        if staying.iter().any(|network| network.name == name) {
            continue;
        }
        let parent = if shares || !parents.contains(parent) {
            parent.to_owned()
        } else if parent == target.parent {
            fresh_parent_link(&env.name, state)
        } else {
            diff.errors.push(parent_in_use(env, parent, state));
            continue;
        };
        parents.insert(parent.clone());
        // The rules of the plan saw to it that there are enough.
        let planned = target.plan.subnet_of(env);
        let subnet = (0..=u8::MAX)
            .map_while(|step| pool(planned, step))
            .find(|pool| !pools.contains(pool))
            .unwrap_or(planned);
        pools.insert(subnet);
        let cause = if state.docker.network(&name).is_some() {
            "it is made anew".into()
        } else {
            Object::new("network", name.as_str()).missing().into()
        };
        let network = NewNetwork {
            env: env.name.clone(),
            parent,
            subnet,
            gateway: target.plan.gateway_of(env),
        };
        new.push((network, cause));
    }
    new
}

/// That another network stands on the parent of an environment's own LAN already.
fn parent_in_use(env: &Env, parent: &str, state: &State) -> Diagnostic {
    let mut networks = state.docker.networks.iter();
    let other = networks.find(|network| network.parent.as_deref() == Some(parent));
    let (other, remove) = match other {
        Some(network) => (
            format!("`{}` stands on it", network.name),
            format!("remove `{}` if nothing needs it, ", network.name),
        ),
        None => (
            "it keeps it for one that it does not show".to_owned(),
            String::new(),
        ),
    };
    Diagnostic::error(
        format!(
            "the network of environment `{}` cannot stand on `{parent}`: Docker before 27 takes one network for each parent, and {other}",
            env.name
        ),
        format!(
            "give it another interface, {remove}or use Docker 27 or newer, where networks share a parent"
        ),
    )
}
