//! The shim, the parent links and the Docker networks: what the plan wants against what there is. Going down is the same
//! with nothing wanted.

use super::shim::Goal;
use super::{Action, Diff, StepId, links, named, preflight, shim, shim_service, slices};
use crate::error::Blocker;
use crate::plan::{Env, Host, Plan, pool};
use crate::state::{Api, Network, Pool, State};
use crate::system::docker::NewNetwork;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// How a network differs from the plan.
struct Difference {
    text: String,
    /// Only what it must not give out differs: containers with planned addresses work all the same.
    is_minor: bool,
}

/// What makes the kernel and the Engine as the plan wants them on `host`.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn up(plan: &Plan, host: &Host, state: &State) -> Result<Diff, Vec<Blocker>> {
    let mut blockers = Vec::new();
    let parent = preflight::parent(plan, host, state)
        .map_err(|mut found| blockers.append(&mut found))
        .ok();
    if let Err(blocker) = preflight::engine(state) {
        blockers.push(blocker);
    }
    let (Some(parent), true) = (parent, blockers.is_empty()) else {
        return Err(blockers);
    };
    let goal = Goal {
        plan,
        host,
        parent: &parent.name,
    };
    converge(&goal, &plan.envs, state)
}

/// What takes away everything that [`up`] makes, whatever the plan says now.
///
/// # Errors
/// Which containers stand in the way; nothing has been changed.
pub fn down(plan: &Plan, host: &Host, state: &State) -> Result<Diff, Vec<Blocker>> {
    preflight::engine(state).map_err(|blocker| vec![blocker])?;
    converge(
        &Goal {
            plan,
            host,
            parent: "",
        },
        &[],
        state,
    )
}

/// Whether an environment's containers can be started on `host`, and what they should know.
///
/// # Errors
/// What is missing.
pub fn ready(plan: &Plan, host: &Host, env: &Env, state: &State) -> Result<Vec<Blocker>, Blocker> {
    let not_up = |why: String| {
        Blocker::new(
            format!("the network is not up: {why}"),
            "run `homelab network-up`",
        )
    };
    let shim = state
        .link(&plan.shim_name)
        .ok_or_else(|| not_up(format!("there is no link `{}`", plan.shim_name)))?;
    preflight::isolation(plan, env, state)?;
    preflight::limits(plan, env, state)?;
    if let Some(slice) = plan.slice(env) {
        slices::ready(&slice, state).map_err(not_up)?;
    }
    let route = links::shim_route(plan, host);
    if !shim.up || !shim.has(host.shim) || !state.routes.contains(&route) {
        return Err(not_up(format!(
            "link `{}` is not as planned",
            plan.shim_name
        )));
    }
    let name = env.network();
    let network = state
        .docker
        .network(&name)
        .ok_or_else(|| not_up(format!("there is no Docker network `{name}`")))?;
    if network.environment().is_none() {
        return Err(foreign_network(&name));
    }
    let goal = Goal {
        plan,
        host,
        parent: shim.parent.as_deref().unwrap_or_default(),
    };
    let differences = differences(&goal, env, network);
    let text = text_of(&differences);
    if differences.iter().any(|difference| !difference.is_minor) {
        return Err(not_up(format!(
            "network `{name}` differs from the plan: {text}"
        )));
    }
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Blocker::new(
        format!("network `{name}` differs from the plan: {text}"),
        format!(
            "it can be made anew when no container is attached: `homelab env-down --env {}`, then `homelab network-up`",
            env.name
        ),
    )])
}

fn converge(goal: &Goal, wanted: &[Env], state: &State) -> Result<Diff, Vec<Blocker>> {
    let mut diff = Diff::default();
    let mut blockers = Vec::new();
    let (kept, outdated) = sort_networks(goal, wanted, state, &mut diff, &mut blockers);
    let slices = slices_to_change(goal.plan, wanted, state, &mut diff, &mut blockers);
    let new = new_networks(goal, wanted, &kept, state);
    let kept_parents: BTreeSet<&str> = kept.iter().filter_map(|n| n.parent.as_deref()).collect();
    let mut parents = kept_parents.clone();
    parents.extend(new.iter().map(|(network, _)| network.parent.as_str()));
    let links = if wanted.is_empty() {
        Vec::new()
    } else {
        links::wanted(goal.plan, goal.host, goal.parent, &parents)
    };
    blockers.extend(
        links
            .iter()
            .filter_map(|link| links::in_the_way(link, state)),
    );
    if !blockers.is_empty() {
        return Err(blockers);
    }

    shim_service::tidy(state, &mut diff);
    let removed: Vec<StepId> = outdated
        .iter()
        .map(|(network, cause)| {
            let (name, id) = (network.name.clone(), network.id.clone());
            diff.push(Action::RemoveNetwork { name, id }, cause, &[])
        })
        .collect();
    let made = if wanted.is_empty() {
        shim::no_links(goal, &links, &kept_parents, state, &removed, &mut diff);
        Vec::new()
    } else {
        shim::make_links(goal, &links, &kept_parents, state, &removed, &mut diff)
    };
    for (network, cause) in new {
        let mut after = removed.clone();
        for (name, steps) in &made {
            if *name == network.parent {
                after.extend(steps);
            }
        }
        diff.push(Action::CreateNetwork(network), cause, &after);
    }
    slices.steps(&mut diff, state, &removed);
    Ok(diff)
}

fn slices_to_change(
    plan: &Plan,
    wanted: &[Env],
    state: &State,
    diff: &mut Diff,
    blockers: &mut Vec<Blocker>,
) -> slices::Changes {
    if wanted.is_empty() {
        return slices::down(state, blockers);
    }
    let refuses = |diff: &mut Diff, Blocker { what, hint, .. }| {
        diff.warn(format!("env-up will refuse: {what}"), hint);
    };
    let missing = wanted
        .iter()
        .find_map(|env| preflight::isolation(plan, env, state).err());
    if let Some(missing) = missing {
        refuses(diff, missing);
        return slices::Changes::default();
    }
    for env in wanted {
        if let Err(missing) = preflight::limits(plan, env, state) {
            refuses(diff, missing);
        }
    }
    slices::up(plan, state, diff, blockers)
}

/// Networks of ours that stay, and those that go, with the reason.
type Sorted<'a> = (Vec<&'a Network>, Vec<(&'a Network, String)>);

fn sort_networks<'a>(
    goal: &Goal,
    wanted: &[Env],
    state: &'a State,
    diff: &mut Diff,
    blockers: &mut Vec<Blocker>,
) -> Sorted<'a> {
    let (mut kept, mut outdated) = (Vec::new(), Vec::new());
    for network in &state.docker.networks {
        let name = &network.name;
        let attached = state.docker.attached(name);
        let wanted_here = wanted.iter().find(|env| env.network() == *name);
        let Some(env) = network.environment() else {
            if wanted_here.is_some() {
                blockers.push(foreign_network(name));
            }
            continue;
        };
        let Some(wanted_here) = wanted_here else {
            if attached.is_empty() {
                let cause = if wanted.is_empty() {
                    "homelab made it"
                } else {
                    "the plan has no such environment"
                };
                outdated.push((network, cause.to_owned()));
            } else if wanted.is_empty() {
                blockers.push(Blocker::new(
                    format!(
                        "containers are attached to network `{name}`: {}",
                        named(&attached)
                    ),
                    take_away(env),
                ));
            } else {
                kept.push(network);
                diff.warn(
                    format!(
                        "the plan has no environment `{env}`, but containers are attached to network `{name}`: {}",
                        named(&attached)
                    ),
                    take_away(env),
                );
            }
            continue;
        };
        let differences = differences(goal, wanted_here, network);
        if differences.is_empty() {
            kept.push(network);
            continue;
        }
        let text = text_of(&differences);
        if attached.is_empty() {
            outdated.push((network, text));
        } else {
            blockers.push(Blocker::new(
                format!(
                    "network `{name}` differs from the plan ({text}) and cannot be made anew while containers are attached: {}",
                    named(&attached)
                ),
                format!("{}; then run this again, and `homelab env-up --env {env}`", take_away(env)),
            ));
        }
    }
    (kept, outdated)
}

fn take_away(env: &str) -> String {
    format!(
        "take them away first: `homelab env-down --env {env}`, or `docker rm -f` for those that homelab did not make"
    )
}

fn foreign_network(name: &str) -> Blocker {
    Blocker::new(
        format!("there is a Docker network `{name}` that homelab did not make"),
        format!("remove it with `docker network rm {name}`, or give the environment another name"),
    )
}

/// What of a network of ours is not as planned. Its pool may be any that contains the subnet: the order of the file must
/// not force a network to be made anew. Nor must an upgrade of the Engine, so either parent will do.
fn differences(goal: &Goal, env: &Env, network: &Network) -> Vec<Difference> {
    let plan = goal.plan;
    let mut found = Vec::new();
    let mut major = |text: String| {
        found.push(Difference {
            text,
            is_minor: false,
        });
    };
    if network.driver != "macvlan" || network.mode.as_deref().unwrap_or("bridge") != "bridge" {
        major(format!("its driver is {}", network.driver));
    }
    let parent = network.parent.as_deref().unwrap_or("missing");
    if parent != goal.parent && parent != env.parent_link() {
        major(format!(
            "its parent is {parent}, planned is {}",
            goal.parent
        ));
    }
    let [pool] = network.pools.as_slice() else {
        major("it has not one IPv4 pool".to_owned());
        return found;
    };
    let Pool {
        subnet,
        ip_range,
        gateway,
        auxiliary,
    } = pool;
    if !subnet.contains(&plan.subnet) {
        major(format!(
            "its subnet is {subnet}, planned is {}",
            plan.subnet
        ));
    }
    let planned = env.ip_range();
    if *ip_range != Some(planned) {
        let is = ip_range.map_or("missing".to_owned(), |range| range.to_string());
        major(format!("its ip_range is {is}, planned is {planned}"));
    }
    if *gateway != Some(plan.gateway) {
        let is = gateway.map_or("missing".to_owned(), |gateway| gateway.to_string());
        major(format!("its gateway is {is}, planned is {}", plan.gateway));
    }
    if found.is_empty() {
        let planned = plan.auxiliary(env, &goal.host.name, *subnet);
        let planned = planned.into_keys().collect();
        found.extend(auxiliary_differences(goal.host, env, &planned, auxiliary));
    }
    found
}

fn text_of(differences: &[Difference]) -> String {
    let texts: Vec<&str> = differences.iter().map(|d| d.text.as_str()).collect();
    texts.join("; ")
}

fn auxiliary_differences(
    host: &Host,
    env: &Env,
    planned: &BTreeSet<Ipv4Addr>,
    found: &[Ipv4Addr],
) -> Option<Difference> {
    let found: BTreeSet<Ipv4Addr> = found.iter().copied().collect();
    let missing: Vec<String> = planned
        .difference(&found)
        .map(ToString::to_string)
        .collect();
    let surplus: Vec<Ipv4Addr> = found.difference(planned).copied().collect();
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("it may give out {}", missing.join(", ")));
    }
    if !surplus.is_empty() {
        let surplus: Vec<String> = surplus.iter().map(ToString::to_string).collect();
        parts.push(format!("it keeps {} back", surplus.join(", ")));
    }
    if parts.is_empty() {
        return None;
    }
    // The Engine refuses a container an address that the network keeps back.
    let in_the_way = env
        .services
        .iter()
        .filter(|service| service.host == host.name)
        .any(|service| {
            service
                .address
                .is_some_and(|address| surplus.contains(&address))
        });
    Some(Difference {
        text: parts.join(" and "),
        is_minor: !in_the_way,
    })
}

/// Pools and parents for the networks that have to be made.
fn new_networks(
    goal: &Goal,
    wanted: &[Env],
    kept: &[&Network],
    state: &State,
) -> Vec<(NewNetwork, String)> {
    let stays = |network: &&Network| {
        network.environment().is_none() || kept.iter().any(|kept| kept.id == network.id)
    };
    let staying: Vec<&Network> = state.docker.networks.iter().filter(stays).collect();
    let mut pools: BTreeSet<Ipv4Net> = staying
        .iter()
        .flat_map(|network| network.pools.iter().map(|pool| pool.subnet))
        .collect();
    let mut parent_is_free = !staying
        .iter()
        .any(|network| network.parent.as_deref() == Some(goal.parent));
    let mut new = Vec::new();
    for env in wanted {
        let name = env.network();
        if kept.iter().any(|network| network.name == name) {
            continue;
        }
        // The rules of the plan saw to it that there are enough.
        let subnet = (0..=u8::MAX)
            .map_while(|step| pool(goal.plan.subnet, step))
            .find(|pool| !pools.contains(pool))
            .unwrap_or(goal.plan.subnet);
        pools.insert(subnet);
        let shares = state.docker.api >= Api::SHARED_PARENT;
        let parent = if shares || parent_is_free {
            goal.parent.to_owned()
        } else {
            env.parent_link()
        };
        parent_is_free = false;
        let cause = if state.docker.network(&name).is_some() {
            "it is made anew"
        } else {
            "it does not exist"
        };
        new.push((
            NewNetwork {
                env: env.name.clone(),
                parent,
                subnet,
                ip_range: env.ip_range(),
                gateway: goal.plan.gateway,
                auxiliary: goal.plan.auxiliary(env, &goal.host.name, subnet),
            },
            cause.to_owned(),
        ));
    }
    new
}
