//! The containers of one environment: what the plan wants against what there is. Pure.

mod addresses;
mod up;

pub use addresses::{free, kept};
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
    pub fn orphans<'s>(&'s self, state: &'s State) -> Vec<(&'s str, &'s Container)> {
        let planned: BTreeSet<String> = self.here().map(Service::container).collect();
        let made = state.docker.of_environment(&self.env.name);
        made.filter(|(_, container)| !planned.contains(&container.name))
            .collect()
    }

    fn report_orphans(&self, orphans: &[(&str, &Container)], command: &str, diff: &mut Diff) {
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
                remove(orphan, "the plan does not have it", &[], &mut diff);
            }
        } else {
            selection.report_orphans(&orphans, "env-down", &mut diff);
        }
    } else {
        for (service, orphan) in &orphans {
            if selection.named.iter().any(|name| name == service) {
                remove(orphan, "it was named", &[], &mut diff);
            }
        }
    }
    let going: Vec<(&Service, &Container)> = selection
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
    let mut removed: BTreeMap<&str, StepId> = BTreeMap::new();
    // A service goes when nobody who depends on it is left.
    for (service, container) in in_order(going, |(a, _), (b, _)| b.depends_on.contains(&a.name)) {
        let after: Vec<StepId> = selection
            .here()
            .filter(|other| other.depends_on.contains(&service.name))
            .filter_map(|other| removed.get(other.name.as_str()).copied())
            .collect();
        let step = remove(container, "it is to be taken down", &after, &mut diff);
        removed.insert(&service.name, step);
    }
    diff
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

/// What takes down every container of an environment that the plan no longer has.
pub fn down_unplanned(env: &str, state: &State) -> Diff {
    let mut diff = Diff::default();
    for (_, container) in state.docker.of_environment(env) {
        let cause = "the plan has no such environment";
        remove(container, cause, &[], &mut diff);
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
