//! The shim, the parent links and the Docker networks: what the plan wants against what there is. Going down is the same
//! with nothing wanted.

mod new;

use super::difference::{Cause, Difference, Object};
use super::links::{Target, WantedLink};
use super::step::{NetworkAction, NewNetwork};
use super::{Diff, StepId, links, named, preflight, shim, shim_service, slices};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::naming::{self, PARENT_LINK_PREFIX};
use crate::plan::unit_files::ShimUnit;
use crate::plan::{Env, Host, Plan, ip_range};
use crate::state::{Network, State};
use new::new_networks;
use slices::NotReady;
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
    let (target, diff) = Target::on(plan, host, parent, unit, state);
    shim_service::check_whole(&target, state)?;
    let wanted: Vec<&Env> = plan.envs_of(host).collect();
    converge(&target, Some(&wanted), state, diff)
}

/// What takes away everything that [`up`] makes, whatever the plan says now.
///
/// # Errors
/// Which containers stand in the way; nothing has been changed.
pub fn down(plan: &Plan, host: &Host, state: &State) -> Result<Diff, Error> {
    preflight::engine(state)?;
    let target = Target {
        plan,
        host,
        parent: "",
        own: Vec::new(),
        unit: None,
    };
    converge(&target, None, state, Diff::default())
}

/// That the Engine keeps parents for networks which it does not show.
pub fn kept(parents: &[String]) -> Diagnostic {
    Diagnostic::warning(
        format!(
            "Docker keeps {} for a network that it does not show, as after a power cut while it made one",
            named(parents)
        ),
        "nothing has to be done: the network gets a link of its own to stand on; `homelab shim install` has it there before Docker starts",
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
    let planned = plan.shim_of(env, host).ok_or_else(|| {
        Diagnostic::error(
            format!(
                "host `{}` is not on the LAN of environment `{}`",
                host.name, env.name
            ),
            format!(
                "give it a shim there: `shim = {{ {} = \"ADDRESS\" }}` in `[env.{}]`",
                host.name, env.name
            ),
        )
    })?;
    let shim = state
        .link(&planned.name)
        .ok_or_else(|| not_up(format!("there is no link `{}`", planned.name)))?;
    preflight::isolation(plan, env, state)?;
    preflight::limits(plan, env, state)?;
    if let Some(slice) = plan.slice(env) {
        slices::ready(&slice, state).map_err(|why| match why {
            NotReady::Differs(why) => not_up(why),
            NotReady::NotFiltered(refused) => refused,
        })?;
    }
    let mut routes = links::routes_of(&planned);
    let is_up = shim.up && shim.has(planned.address);
    if !is_up || !routes.all(|route| state.routes.contains(&route)) {
        return Err(not_up(format!("link `{}` is not as planned", planned.name)).into());
    }
    let name = env.network();
    let network = state
        .docker
        .network(&name)
        .ok_or_else(|| not_up(format!("there is no Docker network `{name}`")))?;
    if network.environment().is_none() {
        return Err(foreign_network(&name).into());
    }
    let parent = shim.parent.as_deref();
    let differences = differences(plan, env, parent, network, state);
    if differences.texts.is_empty() {
        return Ok(());
    }
    let text = differences.text();
    Err(not_up(format!("network `{name}` differs from the plan: {text}")).into())
}

/// Makes what is wanted, `None` for nothing at all, and takes away what is not.
fn converge(
    target: &Target,
    wanted: Option<&[&Env]>,
    state: &State,
    mut diff: Diff,
) -> Result<Diff, Error> {
    let sorted = sort_networks(target, wanted, state, &mut diff);
    let Sorted { kept, outdated } = keep_lost(sorted, state, &mut diff);
    let slices = slices_to_change(target.plan, wanted, state, &mut diff);
    let mut new = new_networks(target, wanted.unwrap_or_default(), &kept, state, &mut diff);
    let kept_parents: BTreeSet<&str> = kept.iter().filter_map(|n| n.parent.as_deref()).collect();
    let mut parents = kept_parents.clone();
    parents.extend(new.iter().map(|(network, _)| network.parent.as_str()));
    let mut links = match wanted {
        None => Vec::new(),
        Some(_) => links::wanted(target, &parents),
    };
    let is_stopped = leave_out_conflicts(&mut links, &mut new, state, &mut diff);
    if is_stopped || wanted.is_none() {
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
    let made = if wanted.is_none() {
        shim::no_links(target, &links, &kept_parents, state, &removed, &mut diff);
        Vec::new()
    } else {
        shim::make_links(target, &links, &kept_parents, state, &removed, &mut diff)
    };
    for (network, cause) in new {
        let mut after = removed.clone();
        for (name, steps) in &made {
            if *name == network.parent || *name == naming::own_shim(&network.env) {
                after.extend(steps);
            }
        }
        diff.push(NetworkAction::Create(network), cause, &after);
    }
    slices.steps(&mut diff, state, &removed);
    Ok(diff)
}

/// Leaves links and networks out in whose way something is, and tells whether nothing can be done at all. What stands where a parent
/// link belongs, or the shim of one environment, stops only that. Without the other shim nothing runs.
fn leave_out_conflicts(
    links: &mut Vec<WantedLink>,
    new: &mut Vec<(NewNetwork, Cause)>,
    state: &State,
    diff: &mut Diff,
) -> bool {
    let mut stops_all = false;
    links.retain(|link| {
        let conflict = links::conflict(link, state);
        let stops_one = conflict.is_some() && (link.is_parent() || link.env.is_some());
        if stops_one {
            new.retain(|(network, _)| {
                network.parent != link.name && Some(&network.env) != link.env.as_ref()
            });
        }
        stops_all |= conflict.is_some() && !stops_one;
        diff.errors.extend(conflict);
        !stops_one
    });
    stops_all
}

fn slices_to_change(
    plan: &Plan,
    wanted: Option<&[&Env]>,
    state: &State,
    diff: &mut Diff,
) -> slices::SlicePlan {
    let Some(wanted) = wanted else {
        return slices::down(state, &mut diff.errors);
    };
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
    wanted: Option<&[&Env]>,
    state: &'a State,
    diff: &mut Diff,
) -> Sorted<'a> {
    let (plan, all_go) = (target.plan, wanted.is_none());
    let mut sorted = Sorted::default();
    for network in &state.docker.networks {
        let name = &network.name;
        let mut wanted = wanted.iter().copied().flatten();
        let planned = wanted.find(|env| env.network() == *name);
        let Some(env) = network.environment() else {
            if planned.is_some() {
                diff.errors.push(foreign_network(name));
            }
            continue;
        };
        let attached = state.docker.attached(name);
        let differences = match planned {
            Some(env) => differences(plan, env, target.parent_of(env), network, state),
            None => Differences::unplanned(name, why_unplanned(plan, env, all_go)),
        };
        let older = planned.and_then(|env| older_shape(network, plan.gateway_of(env)));
        // What could not be made anew now stays.
        let can_be_made = planned.is_none_or(|env| target.parent_of(env).is_some());
        if attached.is_empty() && !differences.texts.is_empty() && can_be_made {
            sorted.outdated.push((network, differences));
        } else if attached.is_empty()
            && let Some(older) = older
        {
            sorted.outdated.push((network, older));
        } else {
            sorted.kept.push(network);
            if planned.is_none() {
                let is_planned = plan.env(env).is_some();
                let in_use = in_use(name, env, &attached, (all_go, is_planned));
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

/// Keeps networks of which something would be left if they were removed now.
fn keep_lost<'a>(mut sorted: Sorted<'a>, state: &State, diff: &mut Diff) -> Sorted<'a> {
    let outdated = std::mem::take(&mut sorted.outdated);
    for (network, why) in outdated {
        match preflight::removable(network, state) {
            Ok(()) => sorted.outdated.push((network, why)),
            Err(lost) => {
                diff.errors.push(lost);
                sorted.kept.push(network);
            }
        }
    }
    sorted
}

fn why_unplanned(plan: &Plan, env: &str, all_go: bool) -> &'static str {
    if all_go {
        "homelab made it"
    } else if plan.env(env).is_some() {
        "this host is not on the LAN of its environment"
    } else {
        "the plan has no such environment"
    }
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
fn in_use(
    name: &str,
    env: &str,
    attached: &[&str],
    (all_go, is_planned): (bool, bool),
) -> Diagnostic {
    let on_it = format!(
        "containers are attached to network `{name}`: {}",
        named(attached)
    );
    if all_go {
        return Diagnostic::error(on_it, take_away(env));
    }
    let what = if is_planned {
        format!("this host is not on the LAN of environment `{env}`, but {on_it}")
    } else {
        format!("the plan has no environment `{env}`, but {on_it}")
    };
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
fn differences(
    plan: &Plan,
    env: &Env,
    parent: Option<&str>,
    network: &Network,
    state: &State,
) -> Differences {
    let (subnet, gateway) = (plan.subnet_of(env), plan.gateway_of(env));
    let mut all = Differences::default();
    let differs = |field: &str, found: Option<String>, planned: String| -> Difference {
        Object::new("network", network.name.as_str()).differs(field, found, Some(planned))
    };
    if network.driver != "macvlan" || network.mode.as_deref().unwrap_or("bridge") != "bridge" {
        let driver = differs("driver", Some(network.driver.clone()), "macvlan".to_owned());
        all.add(driver.because(format!("its driver is {}", network.driver)));
    }
    let found = network.parent.as_deref().unwrap_or("missing");
    // Where the planned one cannot be used now, nothing is said about it.
    let stands_on = state.link(found).and_then(|link| link.parent.as_deref());
    let may_be_a_link = found.starts_with(PARENT_LINK_PREFIX)
        && (env.lan.is_none() || stands_on.is_none() || stands_on == parent);
    if let Some(parent) = parent
        && found != parent
        && !may_be_a_link
    {
        let parent = differs("parent", network.parent.clone(), parent.to_owned());
        all.add(parent);
    }
    let [pool] = network.pools.as_slice() else {
        let found = format!("{} IPv4 pools", network.pools.len());
        let pools = differs("ipam", Some(found), "one".to_owned());
        all.add(pools.because("it has not one IPv4 pool"));
        return all;
    };
    if !pool.subnet.contains(&subnet) {
        let (found, planned) = (pool.subnet.to_string(), subnet.to_string());
        all.add(differs("subnet", Some(found), planned));
    }
    if pool.gateway != Some(gateway) {
        let found = pool.gateway.map(|gateway| gateway.to_string());
        all.add(differs("gateway", found, gateway.to_string()));
    }
    all
}
