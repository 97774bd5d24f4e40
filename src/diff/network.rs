//! The shim, the parent links and the Docker networks: what the plan wants against what there is. Going down is the same
//! with nothing wanted.

use super::difference::{Cause, Difference, Object};
use super::links::Target;
use super::step::{NetworkAction, NewNetwork};
use super::{Diff, StepId, links, named, preflight, shim, shim_service, slices};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::{Env, Host, Plan, joined, pool};
use crate::state::{Api, Network, Pool, State};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// How a network differs from the plan.
#[derive(Default)]
struct Differences {
    all: Vec<Difference>,
    /// The same in words.
    texts: Vec<String>,
    /// Not only what it must not give out differs: containers with planned addresses would not work.
    is_major: bool,
}

/// What makes the kernel and the Engine as the plan wants them on `host`.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn up(plan: &Plan, host: &Host, state: &State) -> Result<Diff, Error> {
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
    };
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
        },
        &[],
        state,
    )
}

/// Whether an environment's containers can be started on `host`, and what they should know.
///
/// # Errors
/// What is missing.
pub fn ready(plan: &Plan, host: &Host, env: &Env, state: &State) -> Result<Vec<Diagnostic>, Error> {
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
    let route = links::shim_route(plan, host);
    if !shim.up || !shim.has(host.shim) || !state.routes.contains(&route) {
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
    };
    let differences = differences(&target, env, network);
    if differences.texts.is_empty() {
        return Ok(Vec::new());
    }
    let text = differences.text();
    if differences.is_major {
        let why = format!("network `{name}` differs from the plan: {text}");
        return Err(not_up(why).into());
    }
    Ok(vec![Diagnostic::warning(
        format!("network `{name}` differs from the plan: {text}"),
        format!(
            "it can be made anew when no container is attached: `homelab env-down --env {}`, then `homelab network-up`",
            env.name
        ),
    )])
}

fn converge(target: &Target, wanted: &[Env], state: &State) -> Result<Diff, Error> {
    let mut diff = Diff::default();
    let mut diagnostics = Vec::new();
    let (kept, outdated) = sort_networks(target, wanted, state, &mut diff, &mut diagnostics);
    let slices = slices_to_change(target.plan, wanted, state, &mut diff, &mut diagnostics);
    let new = new_networks(target, wanted, &kept, state);
    let kept_parents: BTreeSet<&str> = kept.iter().filter_map(|n| n.parent.as_deref()).collect();
    let mut parents = kept_parents.clone();
    parents.extend(new.iter().map(|(network, _)| network.parent.as_str()));
    let links = if wanted.is_empty() {
        Vec::new()
    } else {
        links::wanted(target, &parents)
    };
    diagnostics.extend(links.iter().filter_map(|link| links::conflict(link, state)));
    none_of(diagnostics)?;

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
    diagnostics: &mut Vec<Diagnostic>,
) -> slices::SlicePlan {
    if wanted.is_empty() {
        return slices::down(state, diagnostics);
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
    slices::up(plan, state, diff, diagnostics)
}

/// Networks of ours that stay, and those that go, with the reason.
type Sorted<'a> = (Vec<&'a Network>, Vec<(&'a Network, Differences)>);

fn sort_networks<'a>(
    target: &Target,
    wanted: &[Env],
    state: &'a State,
    diff: &mut Diff,
    diagnostics: &mut Vec<Diagnostic>,
) -> Sorted<'a> {
    let (mut kept, mut outdated) = (Vec::new(), Vec::new());
    for network in &state.docker.networks {
        let name = &network.name;
        let attached = state.docker.attached(name);
        let wanted_here = wanted.iter().find(|env| env.network() == *name);
        let Some(env) = network.environment() else {
            if wanted_here.is_some() {
                diagnostics.push(foreign_network(name));
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
                outdated.push((network, Differences::unplanned(name, cause)));
                continue;
            }
            let in_use = in_use(name, env, &attached, wanted.is_empty());
            if in_use.severity.is_error() {
                diagnostics.push(in_use);
            } else {
                kept.push(network);
                diff.warnings.push(in_use);
            }
            continue;
        };
        let differences = differences(target, wanted_here, network);
        if differences.texts.is_empty() {
            kept.push(network);
            continue;
        }
        let text = differences.text();
        if attached.is_empty() {
            outdated.push((network, differences));
        } else {
            diagnostics.push(Diagnostic::error(
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
            is_major: true,
        }
    }

    fn add(&mut self, difference: impl Into<Cause>, is_major: bool) {
        let Cause { text, difference } = difference.into();
        self.texts.push(text);
        self.all.extend(difference);
        self.is_major |= is_major;
    }

    fn text(&self) -> String {
        self.texts.join("; ")
    }
}

/// What of a network of ours is not as planned. Its pool may be any that contains the subnet: the order of the file must
/// not force a network to be made anew. Nor must an upgrade of the Engine, so either parent will do.
fn differences(target: &Target, env: &Env, network: &Network) -> Differences {
    let plan = target.plan;
    let mut all = Differences::default();
    let differs = |field: &str, found: Option<String>, planned: String| -> Difference {
        Object::new("network", network.name.as_str()).differs(field, found, Some(planned))
    };
    if network.driver != "macvlan" || network.mode.as_deref().unwrap_or("bridge") != "bridge" {
        let driver = differs("driver", Some(network.driver.clone()), "macvlan".to_owned());
        let text = format!("its driver is {}", network.driver);
        all.add(driver.because(text), true);
    }
    let parent = network.parent.as_deref().unwrap_or("missing");
    if parent != target.parent && parent != env.parent_link() {
        let parent = differs("parent", network.parent.clone(), target.parent.to_owned());
        all.add(parent, true);
    }
    let [pool] = network.pools.as_slice() else {
        let found = format!("{} IPv4 pools", network.pools.len());
        let pools = differs("ipam", Some(found), "one".to_owned());
        all.add(pools.because("it has not one IPv4 pool"), true);
        return all;
    };
    let Pool {
        subnet,
        ip_range,
        gateway,
        auxiliary,
    } = pool;
    if !subnet.contains(&plan.subnet) {
        let (found, planned) = (subnet.to_string(), plan.subnet.to_string());
        all.add(differs("subnet", Some(found), planned), true);
    }
    let planned = env.ip_range();
    if *ip_range != Some(planned) {
        let found = ip_range.map(|range| range.to_string());
        all.add(differs("ip_range", found, planned.to_string()), true);
    }
    if *gateway != Some(plan.gateway) {
        let found = gateway.map(|gateway| gateway.to_string());
        all.add(differs("gateway", found, plan.gateway.to_string()), true);
    }
    if all.texts.is_empty() {
        let planned = plan.auxiliary(env, &target.host.name, *subnet);
        let planned = planned.into_keys().collect();
        add_auxiliary(&mut all, target.host, env, &planned, auxiliary);
    }
    all
}

/// Addresses that a network gives out or keeps back although it should not.
fn add_auxiliary(
    all: &mut Differences,
    host: &Host,
    env: &Env,
    planned: &BTreeSet<Ipv4Addr>,
    found: &[Ipv4Addr],
) {
    let found: BTreeSet<Ipv4Addr> = found.iter().copied().collect();
    let missing: Vec<Ipv4Addr> = planned.difference(&found).copied().collect();
    let obsolete: Vec<Ipv4Addr> = found.difference(planned).copied().collect();
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("it may give out {}", joined(&missing, ", ")));
    }
    if !obsolete.is_empty() {
        parts.push(format!("it keeps {} back", joined(&obsolete, ", ")));
    }
    if parts.is_empty() {
        return;
    }
    // The Engine refuses a container an address that the network keeps back.
    let own = env
        .services
        .iter()
        .filter(|service| service.host == host.name);
    let mut planned_here = own.filter_map(|service| service.address);
    let is_major = planned_here.any(|address| obsolete.contains(&address));
    let object = Object::new("network", env.network());
    let difference = object.differs("auxiliary addresses", None, None);
    all.add(difference.because(parts.join(" and ")), is_major);
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
        if kept.iter().any(|network| network.name == name) {
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
            env.parent_link()
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
                ip_range: env.ip_range(),
                gateway: target.plan.gateway,
                auxiliary: target.plan.auxiliary(env, &target.host.name, subnet),
            },
            cause,
        ));
    }
    new
}
