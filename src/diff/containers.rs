//! The containers of one environment: what the plan wants against what there is. Pure.

mod decision;
mod up;

pub use up::up;

use super::difference::{Cause, Object};
use super::step::{Action, ContainerAction, NetworkAction};
use super::{Diff, StepId, named};
use crate::plan::{Env, Host, Plan, PullPolicy, Service};
use crate::state::{Container, State};
use std::collections::{BTreeMap, BTreeSet};

/// What of an environment is meant.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// The address plan.
    pub plan: &'a Plan,
    /// The environment.
    pub env: &'a Env,
    /// This host: services of other hosts are none of its business.
    pub host: &'a Host,
    /// The services that were named; none stands for all.
    pub named: &'a [String],
    /// Containers whose services the file no longer has go too.
    pub remove_orphans: bool,
    /// Containers are made anew although they are as planned.
    pub force_recreate: bool,
    /// Only the services that were named, not those that they depend on.
    pub no_deps: bool,
    /// When images are pulled, in the place of what services say.
    pub pull: Option<PullPolicy>,
    /// What is done about images that are always pulled.
    pub pulls: PullPhase,
}

/// Images that are pulled whatever there is: only when they were it is known what else there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPhase {
    /// They are pulled before all else, in one go with it.
    #[default]
    Planned,
    /// They alone are pulled.
    Alone,
    /// They were pulled.
    Done,
}

impl<'a> Selection<'a> {
    /// The environment's services on this host.
    fn here(&self) -> impl Iterator<Item = &'a Service> {
        let host = self.host.name.as_str();
        self.env
            .services
            .iter()
            .filter(move |service| service.host == host)
    }

    /// Everything of an environment, as commands mean it that take no options.
    pub fn whole(plan: &'a Plan, env: &'a Env, host: &'a Host) -> Self {
        Self {
            plan,
            env,
            host,
            named: &[],
            remove_orphans: false,
            force_recreate: false,
            no_deps: false,
            pull: None,
            pulls: PullPhase::Done,
        }
    }

    /// When the image of a service is pulled.
    pub fn policy(&self, service: &Service) -> PullPolicy {
        self.pull.unwrap_or(service.pull_policy)
    }

    /// The services that env-up is about: those named, else those that start by themselves, and, transitively, those that
    /// they depend on.
    pub fn with_dependencies(&self) -> Vec<&'a Service> {
        let mut wanted: BTreeSet<&str> = self.named.iter().map(String::as_str).collect();
        if self.named.is_empty() {
            let active = self.here().filter(|service| service.is_active);
            wanted = active.map(|service| service.name.as_str()).collect();
        }
        loop {
            let more: Vec<&str> = self
                .here()
                .filter(|service| wanted.contains(service.name.as_str()))
                .flat_map(|service| &service.depends_on)
                .map(|dependency| dependency.service.get_ref().as_str())
                .filter(|name| !wanted.contains(name))
                .collect();
            if more.is_empty() || self.no_deps {
                break;
            }
            wanted.extend(more);
        }
        self.here()
            .filter(|service| wanted.contains(service.name.as_str()))
            .collect()
    }

    /// Containers of this environment whose services are not planned here.
    pub fn orphans<'s>(&'s self, state: &'s State) -> Vec<(&'s str, &'s Container)> {
        let planned: BTreeSet<&str> = self.here().map(|service| service.name.as_str()).collect();
        let made = state.docker.of_environment(&self.env.name);
        made.filter(|(service, _)| !planned.contains(service))
            .collect()
    }

    fn warn_of_orphans(&self, orphans: &[(&str, &Container)], command: &str, diff: &mut Diff) {
        if orphans.is_empty() {
            return;
        }
        let names: Vec<&str> = orphans.iter().map(|(_, c)| c.name.as_str()).collect();
        diff.warn(
            format!(
                "environment `{}` has containers that the plan does not have on this host: {}",
                self.env.name,
                named(&names)
            ),
            format!(
                "remove them: `homelab {command} --env {} --remove-orphans`",
                self.env.name
            ),
        );
    }
}

/// What takes the services down; volumes stay.
pub fn down(selection: &Selection, state: &State) -> Diff {
    let mut diff = Diff::default();
    let orphans = selection.orphans(state);
    if selection.named.is_empty() {
        if selection.remove_orphans {
            for (_, orphan) in &orphans {
                let cause = unplanned(orphan, "the plan does not have it");
                remove(orphan, cause, &[], &mut diff);
            }
        } else {
            selection.warn_of_orphans(&orphans, "env-down", &mut diff);
        }
    } else {
        for (service, orphan) in &orphans {
            if selection.named.iter().any(|name| name == service) {
                remove(orphan, unplanned(orphan, "it was named"), &[], &mut diff);
            }
        }
    }
    let going = selection
        .here()
        .filter(|service| service.replica == 1)
        .filter(|service| selection.named.is_empty() || selection.named.contains(&service.name));
    let mut removed: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    // A service goes when nobody who depends on it is left.
    for service in in_order(going.collect(), |a, b| b.depends_on(&a.name)) {
        let after: Vec<StepId> = selection
            .here()
            .filter(|other| other.depends_on(&service.name))
            .filter_map(|other| removed.get(other.name.as_str()))
            .flatten()
            .copied()
            .collect();
        let containers = state.docker.instances(&selection.env.name, &service.name);
        let steps = containers.map(|container| {
            let cause = unplanned(container, "it is to be taken down");
            remove(container, cause, &after, &mut diff)
        });
        removed.insert(&service.name, steps.collect());
    }
    remove_networks(&selection.env.name, state, &mut diff);
    diff
}

/// Removes the networks of an environment that nobody is left on, but for its part of the LAN.
fn remove_networks(env: &str, state: &State, diff: &mut Diff) {
    let own = state.docker.networks.iter();
    for network in own.filter(|network| network.compose_environment() == Some(env)) {
        let attached = state.docker.attached(&network.name);
        let removed: BTreeMap<&str, StepId> = diff
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Container(ContainerAction::Remove { name }) => {
                    Some((name.as_str(), step.id))
                }
                _ => None,
            })
            .collect();
        let left: Vec<&str> = attached
            .iter()
            .filter(|name| !removed.contains_key(*name))
            .copied()
            .collect();
        let is_ours = |name: &&str| {
            let container = state.docker.container(name);
            container
                .and_then(Container::service)
                .is_some_and(|(of, _)| of == env)
        };
        if left.is_empty() {
            let after: Vec<StepId> = attached
                .iter()
                .filter_map(|name| removed.get(name).copied())
                .collect();
            let action = NetworkAction::Remove {
                name: network.name.clone(),
                id: network.id.clone(),
            };
            let cause = Object::new("network", network.name.as_str())
                .unplanned()
                .because("nobody is on it");
            diff.push(action, cause, &after);
        } else if !left.iter().all(is_ours) {
            diff.warn(
                format!(
                    "network `{}` stays: {} is on it",
                    network.name,
                    named(&left)
                ),
                format!("`docker network inspect {}` shows who", network.name),
            );
        }
    }
}

/// Everybody behind those whom they wait for, else in the order given. Whoever waits in a circle is left out; the rules of
/// the plan allow none.
fn in_order<T>(mut waiting: Vec<T>, waits_for: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut order = Vec::new();
    loop {
        let is_free: Vec<bool> = waiting
            .iter()
            .map(|one| !waiting.iter().any(|other| waits_for(one, other)))
            .collect();
        let (now, later): (Vec<_>, Vec<_>) = is_free
            .into_iter()
            .zip(waiting)
            .partition(|(free, _)| *free);
        if now.is_empty() {
            return order;
        }
        order.extend(now.into_iter().map(|(_, one)| one));
        waiting = later.into_iter().map(|(_, one)| one).collect();
    }
}

/// What takes down every container of an environment that the plan no longer has, or not here.
pub fn down_unplanned(plan: &Plan, env: &str, state: &State) -> Diff {
    let mut diff = Diff::default();
    let why = match plan.env(env) {
        None => "the plan has no such environment",
        Some(_) => "this machine is no host of the plan",
    };
    for (_, container) in state.docker.of_environment(env) {
        let cause = unplanned(container, why);
        remove(container, cause, &[], &mut diff);
    }
    remove_networks(env, state, &mut diff);
    diff
}

/// Stops a container when it runs, and removes it.
fn remove(
    container: &Container,
    cause: impl Into<Cause>,
    after: &[StepId],
    diff: &mut Diff,
) -> StepId {
    let (name, cause) = (container.name.clone(), cause.into());
    if !container.is_running() {
        return diff.push(ContainerAction::Remove { name }, cause, after);
    }
    let text = cause.text.clone();
    let stop = ContainerAction::Stop { name: name.clone() };
    let stopped = diff.push(stop, cause, after);
    diff.push(ContainerAction::Remove { name }, text, &[stopped])
}

/// That the plan does not have a container.
fn unplanned(container: &Container, cause: &str) -> Cause {
    Object::new("container", container.name.as_str())
        .unplanned()
        .because(cause)
}
