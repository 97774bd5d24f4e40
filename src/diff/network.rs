//! The shim, the parent links and the Docker networks: what the plan wants against what there is. Going down is the same
//! with nothing wanted.

use super::difference::{Cause, Difference, Object};
use super::links::Target;
use super::step::{NetworkAction, NewNetwork};
use super::{Diff, StepId, links, named, preflight, shim, shim_service, slices};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::naming::{self, PARENT_LINK_PREFIX};
use crate::plan::unit_files::ShimUnit;
use crate::plan::{Env, Host, Plan, ip_range, pool};
use crate::state::{Api, Network, State};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// How a network differs from the plan.
#[derive(Default)]
struct Differences {
    all: Vec<Difference>,
    /// The same in words.
    texts: Vec<String>,
}

/// What makes the kernel and the Engine as the plan wants them on `host`.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn up(plan: &Plan, host: &Host, unit: Option<ShimUnit>, state: &State) -> Result<Diff, Error> {
    let engine = preflight::engine(state);
    let parent = match (preflight::parent(plan, host, state), engine) {
        (Ok(parent), Ok(())) => parent,
        (Ok(_), Err(missing)) => return Err(missing.into()),
        (Err(error), Ok(())) => return Err(error),
        (Err(mut error), Err(missing)) => {
            error.diagnostics.push(missing);
            return Err(error);
        }
    };
    let target = Target {
        plan,
        host,
        parent: &parent.name,
        unit,
    };
    shim_service::check_whole(&target, state)?;
    converge(&target, &plan.envs, state)
}

/// What takes away everything that [`up`] makes, whatever the plan says now.
///
/// # Errors
/// Which containers stand in the way; nothing has been changed.
pub fn down(plan: &Plan, host: &Host, state: &State) -> Result<Diff, Error> {
    preflight::engine(state)?;
    converge(
        &Target {
            plan,
            host,
            parent: "",
            unit: None,
        },
        &[],
        state,
    )
}

/// Whether an environment's containers can be started on `host`.
///
/// # Errors
/// What is missing.
pub fn ready(plan: &Plan, host: &Host, env: &Env, state: &State) -> Result<(), Error> {
    let not_up = |why: String| {
        Diagnostic::error(
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
    let mut routes = links::shim_routes(plan, host);
    if !shim.up || !shim.has(host.shim) || !routes.all(|route| state.routes.contains(&route)) {
        return Err(not_up(format!("link `{}` is not as planned", plan.shim_name)).into());
    }
    let name = env.network();
    let network = state
        .docker
        .network(&name)
        .ok_or_else(|| not_up(format!("there is no Docker network `{name}`")))?;
    if network.environment().is_none() {
        return Err(foreign_network(&name).into());
    }
    let target = Target {
        plan,
        host,
        parent: shim.parent.as_deref().unwrap_or_default(),
        unit: None,
    };
    let differences = differences(&target, network);
    if differences.texts.is_empty() {
        return Ok(());
    }
    let text = differences.text();
    Err(not_up(format!("network `{name}` differs from the plan: {text}")).into())
}

fn converge(target: &Target, wanted: &[Env], state: &State) -> Result<Diff, Error> {
    let mut diff = Diff::default();
    let mut stops_all = wanted.is_empty();
    let Sorted { kept, outdated } = sort_networks(target, wanted, state, &mut diff);
    let slices = slices_to_change(target.plan, wanted, state, &mut diff);
    let mut new = new_networks(target, wanted, &kept, state);
    let kept_parents: BTreeSet<&str> = kept.iter().filter_map(|n| n.parent.as_deref()).collect();
    let mut parents = kept_parents.clone();
    parents.extend(new.iter().map(|(network, _)| network.parent.as_str()));
    let mut links = if wanted.is_empty() {
        Vec::new()
    } else {
        links::wanted(target, &parents)
    };
    // What stands where a parent link belongs stops only its environment. Without the shim nothing runs.
    links.retain(|link| {
        let conflict = links::conflict(link, state);
        let stops_one = conflict.is_some() && link.is_parent();
        if stops_one {
            new.retain(|(network, _)| network.parent != link.name);
        }
        stops_all |= conflict.is_some() && !stops_one;
        diff.errors.extend(conflict);
        !stops_one
    });
    if stops_all {
        none_of(std::mem::take(&mut diff.errors))?;
    }

    shim_service::tidy(state, &mut diff);
    let removed: Vec<StepId> = outdated
        .iter()
        .map(|(network, causes)| {
            let (name, id) = (network.name.clone(), network.id.clone());
            diff.differences.extend(causes.all.iter().cloned());
            diff.push(NetworkAction::Remove { name, id }, causes.text(), &[])
        })
        .collect();
    let made = if wanted.is_empty() {
        shim::no_links(target, &links, &kept_parents, state, &removed, &mut diff);
        Vec::new()
    } else {
        shim::make_links(target, &links, &kept_parents, state, &removed, &mut diff)
    };
    for (network, cause) in new {
        let mut after = removed.clone();
        for (name, steps) in &made {
            if *name == network.parent {
                after.extend(steps);
            }
        }
        diff.push(NetworkAction::Create(network), cause, &after);
    }
    slices.steps(&mut diff, state, &removed);
    Ok(diff)
}

fn slices_to_change(
    plan: &Plan,
    wanted: &[Env],
    state: &State,
    diff: &mut Diff,
) -> slices::SlicePlan {
    if wanted.is_empty() {
        return slices::down(state, &mut diff.errors);
    }
    let refuses = |diff: &mut Diff, Diagnostic { what, hint, .. }| {
        diff.warn(
            format!("env-up will refuse: {what}"),
            hint.unwrap_or_default(),
        );
    };
    let missing = wanted
        .iter()
        .find_map(|env| preflight::isolation(plan, env, state).err());
    if let Some(missing) = missing {
        refuses(diff, missing);
        return slices::SlicePlan::default();
    }
    for env in wanted {
        if let Err(missing) = preflight::limits(plan, env, state) {
            refuses(diff, missing);
        }
    }
    slices::up(plan, state, diff)
}

/// Networks of ours that stay, and those that go, with the reason.
#[derive(Default)]
struct Sorted<'a> {
    kept: Vec<&'a Network>,
    outdated: Vec<(&'a Network, Differences)>,
}

fn sort_networks<'a>(
    target: &Target,
    wanted: &[Env],
    state: &'a State,
    diff: &mut Diff,
) -> Sorted<'a> {
    let mut sorted = Sorted::default();
    for network in &state.docker.networks {
        let name = &network.name;
        let planned = wanted.iter().find(|env| env.network() == *name);
        let Some(env) = network.environment() else {
            if planned.is_some() {
                diff.errors.push(foreign_network(name));
            }
            continue;
        };
        let attached = state.docker.attached(name);
        let differences = match planned {
            None if wanted.is_empty() => Differences::unplanned(name, "homelab made it"),
            None => Differences::unplanned(name, "the plan has no such environment"),
            Some(_) => differences(target, network),
        };
        let older = planned.and_then(|_| older_shape(network, target.plan.gateway));
        let goes = attached.is_empty() && (!differences.texts.is_empty() || older.is_some());
        if goes && let Err(lost) = preflight::removable(network, state) {
            diff.errors.push(lost);
            sorted.kept.push(network);
        } else if attached.is_empty() && !differences.texts.is_empty() {
            sorted.outdated.push((network, differences));
        } else if attached.is_empty()
            && let Some(older) = older
        {
            sorted.outdated.push((network, older));
        } else {
            sorted.kept.push(network);
            if planned.is_none() {
                let in_use = in_use(name, env, &attached, wanted.is_empty());
                if in_use.severity.is_error() {
                    diff.errors.push(in_use);
                } else {
                    diff.warnings.push(in_use);
                }
            } else if !differences.texts.is_empty() {
                diff.errors.push(Diagnostic::error(
                    format!(
                        "network `{name}` differs from the plan ({}) and cannot be made anew while containers are attached: {}",
                        differences.text(),
                        named(&attached)
                    ),
                    format!("{}; then run this again, and `homelab env-up --env {env}`", take_away(env)),
                ));
            } else if older.is_some() {
                diff.warnings.push(told_of_older_shape(name, env));
            }
        }
    }
    sorted
}

/// What of a network is as older versions of homelab made it: the Engine gives out addresses of its environment's range, and
/// keeps those back that were planned for others then. It works, as homelab asks for every address.
fn older_shape(network: &Network, gateway: Ipv4Addr) -> Option<Differences> {
    let planned = ip_range(gateway);
    let [pool] = network.pools.as_slice() else {
        return None;
    };
    if pool.ip_range == Some(planned) && pool.auxiliary.is_empty() {
        return None;
    }
    let found = pool.ip_range.map(|range| range.to_string());
    let object = Object::new("network", network.name.as_str());
    let mut older = Differences::default();
    older.add(object.differs("ip_range", found, Some(planned.to_string())));
    Some(older)
}

fn told_of_older_shape(name: &str, env: &str) -> Diagnostic {
    Diagnostic::warning(
        format!(
            "network `{name}` was made by an older homelab: Docker itself may give out addresses of it, and keeps others back"
        ),
        format!(
            "it works as it is, and is made anew when nothing is on it: `homelab env-down --env {env}`, then `homelab network-up` and `homelab env-up --env {env}`"
        ),
    )
}

/// That a network which the plan does not want has containers: in the way of whoever takes all networks down.
fn in_use(name: &str, env: &str, attached: &[&str], all_go: bool) -> Diagnostic {
    let on_it = format!(
        "containers are attached to network `{name}`: {}",
        named(attached)
    );
    if all_go {
        return Diagnostic::error(on_it, take_away(env));
    }
    let what = format!("the plan has no environment `{env}`, but {on_it}");
    Diagnostic::warning(what, take_away(env))
}

fn take_away(env: &str) -> String {
    format!(
        "take them away first: `homelab env-down --env {env}`, or `docker rm -f` for those that homelab did not make"
    )
}

fn foreign_network(name: &str) -> Diagnostic {
    Diagnostic::error(
        format!("there is a Docker network `{name}` that homelab did not make"),
        format!("remove it with `docker network rm {name}`, or give the environment another name"),
    )
}

impl Differences {
    fn unplanned(name: &str, cause: &str) -> Self {
        Self {
            all: vec![Object::new("network", name).unplanned()],
            texts: vec![cause.to_owned()],
        }
    }

    fn add(&mut self, difference: impl Into<Cause>) {
        let Cause { text, difference } = difference.into();
        self.texts.push(text);
        self.all.extend(difference);
    }

    fn text(&self) -> String {
        self.texts.join("; ")
    }
}

/// What of a network of ours is not as planned, so that planned containers would not work on it. Its pool may be any that
/// contains the subnet: the order of the file must not force a network to be made anew. Nor must an upgrade of the Engine, so
/// either parent will do.
fn differences(target: &Target, network: &Network) -> Differences {
    let plan = target.plan;
    let mut all = Differences::default();
    let differs = |field: &str, found: Option<String>, planned: String| -> Difference {
        Object::new("network", network.name.as_str()).differs(field, found, Some(planned))
    };
    if network.driver != "macvlan" || network.mode.as_deref().unwrap_or("bridge") != "bridge" {
        let driver = differs("driver", Some(network.driver.clone()), "macvlan".to_owned());
        all.add(driver.because(format!("its driver is {}", network.driver)));
    }
    let parent = network.parent.as_deref().unwrap_or("missing");
    if parent != target.parent && !parent.starts_with(PARENT_LINK_PREFIX) {
        let parent = differs("parent", network.parent.clone(), target.parent.to_owned());
        all.add(parent);
    }
    let [pool] = network.pools.as_slice() else {
        let found = format!("{} IPv4 pools", network.pools.len());
        let pools = differs("ipam", Some(found), "one".to_owned());
        all.add(pools.because("it has not one IPv4 pool"));
        return all;
    };
    if !pool.subnet.contains(&plan.subnet) {
        let (found, planned) = (pool.subnet.to_string(), plan.subnet.to_string());
        all.add(differs("subnet", Some(found), planned));
    }
    if pool.gateway != Some(plan.gateway) {
        let found = pool.gateway.map(|gateway| gateway.to_string());
        all.add(differs("gateway", found, plan.gateway.to_string()));
    }
    all
}

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
fn new_networks(
    target: &Target,
    wanted: &[Env],
    kept: &[&Network],
    state: &State,
) -> Vec<(NewNetwork, Cause)> {
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
        .any(|network| network.parent.as_deref() == Some(target.parent));
    let mut new = Vec::new();
    for env in wanted {
        let name = env.network();
        if staying.iter().any(|network| network.name == name) {
            continue;
        }
        // The rules of the plan saw to it that there are enough.
        let subnet = (0..=u8::MAX)
            .map_while(|step| pool(target.plan.subnet, step))
            .find(|pool| !pools.contains(pool))
            .unwrap_or(target.plan.subnet);
        pools.insert(subnet);
        let shares = state.docker.api >= Api::SHARED_PARENT;
        let parent = if shares || parent_is_free {
            target.parent.to_owned()
        } else {
            fresh_parent_link(&env.name, state)
        };
        parent_is_free = false;
        let cause = if state.docker.network(&name).is_some() {
            "it is made anew".into()
        } else {
            Object::new("network", name.as_str()).missing().into()
        };
        new.push((
            NewNetwork {
                env: env.name.clone(),
                parent,
                subnet,
                gateway: target.plan.gateway,
            },
            cause,
        ));
    }
    new
}
