//! The containers of one environment: what the plan wants against what there is. Pure.

mod up;

pub use up::up;

use super::{Action, Diff, StepId, named};
use crate::plan::{Env, Plan, Service};
use crate::state::{Container, State};
use std::collections::{BTreeMap, BTreeSet};

/// What of an environment is meant.
pub struct Selection<'a> {
    /// The address plan.
    pub plan: &'a Plan,
    /// The environment.
    pub env: &'a Env,
    /// This host: services of other hosts are none of its business.
    pub host: &'a str,
    /// The services that were named; none stands for all.
    pub named: &'a [String],
    /// Containers whose services the file no longer has go too.
    pub remove_orphans: bool,
}

impl<'a> Selection<'a> {
    /// The environment's services on this host.
    fn here(&self) -> impl Iterator<Item = &'a Service> {
        let host = self.host;
        self.env
            .services
            .iter()
            .filter(move |service| service.host == host)
    }

    /// The services that env-up is about: those named and, transitively, those that they depend on.
    pub fn with_dependencies(&self) -> Vec<&'a Service> {
        if self.named.is_empty() {
            return self.here().collect();
        }
        let mut wanted: BTreeSet<&str> = self.named.iter().map(String::as_str).collect();
        loop {
            let more: Vec<&str> = self
                .here()
                .filter(|service| wanted.contains(service.name.as_str()))
                .flat_map(|service| service.depends_on.iter().map(String::as_str))
                .filter(|name| !wanted.contains(name))
                .collect();
            if more.is_empty() {
                break;
            }
            wanted.extend(more);
        }
        self.here()
            .filter(|service| wanted.contains(service.name.as_str()))
            .collect()
    }

    /// Containers of this environment whose services are not planned here.
    fn orphans<'s>(&self, state: &'s State) -> Vec<&'s Container> {
        let planned: BTreeSet<String> = self.here().map(Service::container).collect();
        state
            .docker
            .containers
            .iter()
            .filter(|container| {
                let is_here = container
                    .service()
                    .is_some_and(|(env, _)| env == self.env.name);
                is_here && !planned.contains(&container.name)
            })
            .collect()
    }

    fn report_orphans(&self, orphans: &[&Container], command: &str, diff: &mut Diff) {
        if orphans.is_empty() {
            return;
        }
        let names: Vec<&str> = orphans.iter().map(|c| c.name.as_str()).collect();
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
            for orphan in &orphans {
                remove(orphan, "the plan does not have it", &[], &mut diff);
            }
        } else {
            selection.report_orphans(&orphans, "env-down", &mut diff);
        }
    } else {
        for orphan in &orphans {
            let (_, service) = orphan.service().unwrap_or_default();
            if selection.named.iter().any(|name| name == service) {
                remove(orphan, "it was named", &[], &mut diff);
            }
        }
    }
    let mut waiting: Vec<(&Service, &Container)> = selection
        .here()
        .filter(|service| selection.named.is_empty() || selection.named.contains(&service.name))
        .filter_map(|service| {
            let container = state.docker.container(&service.container())?;
            container
                .service()
                .is_some()
                .then_some((service, container))
        })
        .collect();
    // A service goes when nobody who depends on it is left.
    let mut removed: BTreeMap<&str, StepId> = BTreeMap::new();
    while !waiting.is_empty() {
        let is_needed = |name: &str| {
            waiting
                .iter()
                .any(|(other, _)| other.depends_on.iter().any(|needed| needed == name))
        };
        let (later, now): (Vec<_>, Vec<_>) = waiting
            .iter()
            .copied()
            .partition(|(service, _)| is_needed(&service.name));
        if now.is_empty() {
            break;
        }
        let mut gone = BTreeMap::new();
        for (service, container) in now {
            let after: Vec<StepId> = selection
                .here()
                .filter(|other| other.depends_on.contains(&service.name))
                .filter_map(|other| removed.get(other.name.as_str()).copied())
                .collect();
            let step = remove(container, "it is to be taken down", &after, &mut diff);
            gone.insert(service.name.as_str(), step);
        }
        removed.extend(gone);
        waiting = later;
    }
    diff
}

/// What takes down every container of an environment that the plan no longer has.
pub fn down_unplanned(env: &str, state: &State) -> Diff {
    let mut diff = Diff::default();
    for container in &state.docker.containers {
        if container.service().is_some_and(|(of, _)| of == env) {
            remove(
                container,
                "the plan has no such environment",
                &[],
                &mut diff,
            );
        }
    }
    diff
}

/// Stops a container when it runs, and removes it.
fn remove(container: &Container, cause: &str, after: &[StepId], diff: &mut Diff) -> StepId {
    let name = container.name.clone();
    if !container.is_running() {
        return diff.push(Action::RemoveContainer { name }, cause, after);
    }
    let stop = Action::StopContainer { name: name.clone() };
    let stopped = diff.push(stop, cause, after);
    diff.push(Action::RemoveContainer { name }, cause, &[stopped])
}
