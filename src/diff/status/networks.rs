//! Networks of ours, and who is on them. Pure.

use super::{Item, missing};
use crate::plan::{Env, Host, Plan};
use crate::state::{Container, Network, State};

/// The part of a LAN that each environment of a host has, and those of the rest on which is somebody else.
pub(super) fn items(
    plan: &Plan,
    host: &Host,
    state: &State,
    differs: &dyn Fn(&str) -> bool,
) -> Vec<Item> {
    let envs = plan.envs_of(host);
    let planned = envs.map(|env| planned(env, state, differs));
    planned.chain(others(plan, host, state, differs)).collect()
}

/// The part of the LAN that an environment has.
fn planned(env: &Env, state: &State, differs: &dyn Fn(&str) -> bool) -> Item {
    let name = env.network();
    let found = state.docker.network(&name);
    let item = found.map(|network| {
        let parent = network.parent.as_deref().unwrap_or("nothing");
        let what = format!("{} on {parent}", env.range);
        shown(network, &env.name, &what, state, differs)
    });
    item.unwrap_or_else(|| Item {
        kind: "network",
        differs: differs(&name),
        name,
        state: missing(state).to_owned(),
    })
}

/// Those networks of ours beside the planned parts of the LAN on which is somebody else.
fn others(plan: &Plan, host: &Host, state: &State, differs: &dyn Fn(&str) -> bool) -> Vec<Item> {
    let is_planned = |network: &Network| {
        let mut envs = plan.envs_of(host);
        envs.any(|env| env.network() == network.name)
    };
    let others = state.docker.networks.iter();
    let others = others.filter(|network| !is_planned(network));
    let item = |network: &Network| {
        let env = network.owner()?;
        let (strangers, ours) = guests(network, env, state);
        let has_guests = !strangers.is_empty() || !ours.is_empty();
        has_guests.then(|| shown(network, env, &network.driver, state, differs))
    };
    others.filter_map(item).collect()
}

fn shown(
    network: &Network,
    env: &str,
    what: &str,
    state: &State,
    differs: &dyn Fn(&str) -> bool,
) -> Item {
    let attached = state.docker.attached(&network.name).len();
    let mut text = format!("{what}, {attached} containers");
    let (strangers, ours) = guests(network, env, state);
    for (who, names) in [
        ("not made by homelab", strangers),
        ("of another environment", ours),
    ] {
        if !names.is_empty() {
            text = format!("{text}, {who}: {}", names.join(", "));
        }
    }
    Item {
        kind: "network",
        name: network.name.clone(),
        state: text,
        differs: differs(&network.name),
    }
}

/// Who is on a network beside the containers of the environment that it was made for: those that homelab did not make, and those
/// of other environments.
pub(super) fn guests<'a>(
    network: &Network,
    env: &str,
    state: &'a State,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let containers = state.docker.containers.iter();
    let attached = containers.filter(|container| container.networks.contains_key(&network.name));
    let guests = attached.filter(|container| container.service().is_none_or(|(of, _)| of != env));
    let (strangers, ours): (Vec<&Container>, Vec<&Container>) =
        guests.partition(|container| container.service().is_none());
    let names = |all: Vec<&'a Container>| all.into_iter().map(|one| one.name.as_str()).collect();
    (names(strangers), names(ours))
}
