//! Bringing services up: what each one's container needs, and in which order. Pure.

mod addresses;
mod dependencies;
mod isolation_bypass;
mod prerequisites;

use addresses::Blocked;

use super::decision::{ContainerDecision, Decisions};
use super::{PullPhase, Selection, remove, unplanned};
use crate::diff::difference::{Cause, Object};
use crate::diff::step::{ContainerAction, ImageAction, NetworkAction, NewContainer, VolumeAction};
use crate::diff::{Diff, StepId, allocation};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::naming::successor_name;
use crate::plan::{CompleteService, DependencyCondition, PullPolicy, Service, Volume};
use crate::state::{Api, Container, Mount, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What brings the services up. A service whose address is not to be had is left out, with those that wait for it, and told
/// about.
///
/// # Errors
/// Everything else that stands in the way; nothing has been changed.
pub fn up(
    selection: &Selection,
    services: &[CompleteService],
    state: &State,
) -> Result<Diff, Error> {
    let mut left = services.to_vec();
    let mut errors = Vec::new();
    loop {
        let (mut diff, blocked) = up_without_blocked(selection, &left, state)?;
        if blocked.is_empty() {
            diff.errors = errors;
            return Ok(diff);
        }
        let names: BTreeSet<&str> = blocked.iter().map(|(name, _)| name.as_str()).collect();
        left.retain(|service| !names.contains(service.name.as_str()));
        errors.extend(blocked.into_iter().map(|(_, why)| why));
    }
}

/// The steps, unless a service is blocked.
fn up_without_blocked(
    selection: &Selection,
    services: &[CompleteService],
    state: &State,
) -> Result<(Diff, Blocked), Error> {
    let mut up = Up {
        selection,
        state,
        diff: Diff::default(),
        diagnostics: Vec::new(),
        blocked: Vec::new(),
        pulled: BTreeMap::new(),
        made: BTreeMap::new(),
        freed: BTreeMap::new(),
        begun: BTreeMap::new(),
        waits: BTreeMap::new(),
        wanted: BTreeSet::new(),
        tried: None,
    };
    if selection.pulls == PullPhase::Alone {
        up.pull_always(services);
        return Ok((up.diff, Blocked::new()));
    }
    let addresses = up.addresses(services);
    up.wanted = addresses.values().copied().collect();
    up.warn_of_silence();
    up.warn_of_bypasses(services);
    up.warn_of_shared_volumes(services);
    up.remove_obsolete(services);
    let decisions = Decisions::new(selection, services, &addresses, state);
    let (decisions, mut diagnostics) = decisions.decide();
    up.diagnostics.append(&mut diagnostics);
    up.check(services, &decisions, &addresses);
    none_of(std::mem::take(&mut up.diagnostics))?;
    if !up.blocked.is_empty() {
        up.block_dependents(services);
        return Ok((up.diff, up.blocked));
    }
    if selection.pulls == PullPhase::Planned {
        up.pull_always(services);
    }
    // Whoever goes or moves frees an address that another one may be waiting for, so all that makes room comes first.
    let renewed = renewed(services, &decisions);
    up.warn_of_net_raw(services, &renewed);
    let starts = decisions.iter().any(|it| *it != ContainerDecision::Keep);
    up.try_slice(starts);
    let mut ready = Vec::new();
    for (service, decision) in services.iter().zip(&decisions) {
        let address = addresses.get(&service.container()).copied();
        let made = up.make(service, address, decision, &renewed);
        ready.push((service, address, decision, made));
    }
    let ordered = super::in_order(ready, |(a, ..), (b, ..)| a.depends_on(&b.name));
    for (service, address, decision, made) in ordered {
        up.start(service, address, decision, made);
    }
    Ok((up.diff, Blocked::new()))
}

/// The names of containers that are made anew.
fn renewed(services: &[CompleteService], decisions: &[ContainerDecision]) -> BTreeSet<String> {
    let moved = services.iter().zip(decisions);
    moved
        .filter(|(_, decision)| matches!(decision, ContainerDecision::Recreate(_)))
        .map(|(service, _)| service.container())
        .collect()
}

/// What was made for a container that is to start.
#[derive(Default)]
struct Made {
    /// The steps that its start waits for.
    after: Vec<StepId>,
    /// The container that it takes the place of.
    replaces: Option<String>,
}

struct Up<'a> {
    selection: &'a Selection<'a>,
    state: &'a State,
    diff: Diff,
    diagnostics: Vec<Diagnostic>,
    /// What stands in the way of one service alone.
    blocked: Blocked,
    /// The step that pulls an image.
    pulled: BTreeMap<String, StepId>,
    /// The step that makes a volume or a network, by kind and name.
    made: BTreeMap<(&'static str, String), StepId>,
    /// The step after which an address is free.
    freed: BTreeMap<Ipv4Addr, StepId>,
    /// The steps that start a service's containers.
    begun: BTreeMap<String, Vec<StepId>>,
    /// The step after which a container is ready.
    waits: BTreeMap<(String, DependencyCondition), StepId>,
    /// The addresses that services of this run are to have.
    wanted: BTreeSet<Ipv4Addr>,
    /// The step after which it is known that the slice is closed.
    tried: Option<StepId>,
}

impl Up<'_> {
    fn container(&self, service: &Service) -> Option<&Container> {
        let docker = &self.state.docker;
        docker.instance(&service.env, &service.name, service.replica)
    }

    /// Whether all that the decisions need is there.
    fn check(
        &mut self,
        services: &[CompleteService],
        decisions: &[ContainerDecision],
        addresses: &BTreeMap<String, Ipv4Addr>,
    ) {
        let docker = &self.state.docker;
        let found = services
            .iter()
            .filter_map(|service| docker.instance(&service.env, &service.name, service.replica));
        let moving: BTreeSet<&str> = found.map(|found| found.name.as_str()).collect();
        for (service, decision) in services.iter().zip(decisions) {
            let is_new = matches!(
                decision,
                ContainerDecision::Create | ContainerDecision::Recreate(_)
            );
            if *decision != ContainerDecision::Keep
                && let Some(address) = addresses.get(&service.container())
            {
                let blocked = self.check_address(*address, &moving);
                self.blocked
                    .extend(blocked.map(|why| (service.name.clone(), why)));
            }
            if is_new {
                self.check_needs(service);
            } else {
                self.warn_of_networks(service);
            }
        }
    }

    fn free(&mut self, container: &Container, step: StepId) {
        if let Some(address) = allocation::current(container, self.selection.env) {
            self.freed.insert(address, step);
        }
    }

    /// Takes away what the plan does not have: orphans when that is wished, containers beyond a service's number, and
    /// successors that never came to take their place.
    fn remove_obsolete(&mut self, services: &[CompleteService]) {
        let state = self.state;
        if self.selection.named.is_empty() {
            let orphans = self.selection.orphans(state);
            if self.selection.remove_orphans {
                for (_, orphan) in orphans {
                    let cause = unplanned(orphan, "the plan does not have it");
                    let removed = remove(orphan, cause, &[], &mut self.diff);
                    self.free(orphan, removed);
                }
            } else {
                self.selection
                    .warn_of_orphans(&orphans, "env-up", &mut self.diff);
            }
        }
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        for service in services {
            let most = names.entry(&service.name).or_default();
            *most = service.replica.max(*most);
        }
        let env = &self.selection.env.name;
        for (name, most) in names {
            let all: Vec<&Container> = state.docker.instances(env, name).collect();
            for container in all {
                if container.replica() > most {
                    let cause = format!("service {name} has {most} containers");
                    let cause = unplanned(container, &cause);
                    let removed = remove(container, cause, &[], &mut self.diff);
                    self.free(container, removed);
                } else if container.is_successor() {
                    let cause = "it was to take a place when homelab was stopped";
                    let cause = unplanned(container, cause);
                    let removed = remove(container, cause, &[], &mut self.diff);
                    self.made
                        .insert(("successor", container.name.clone()), removed);
                    self.free(container, removed);
                }
            }
        }
    }

    /// The steps up to a container that is there but does not run.
    fn make(
        &mut self,
        service: &CompleteService,
        address: Option<Ipv4Addr>,
        decision: &ContainerDecision,
        moving: &BTreeSet<String>,
    ) -> Made {
        match decision {
            ContainerDecision::Start(_) => return self.fill(service),
            ContainerDecision::Keep
            | ContainerDecision::Unpause(_)
            | ContainerDecision::Restart(_) => return Made::default(),
            ContainerDecision::Create | ContainerDecision::Recreate(_) => {}
        }
        let mut after = self.pull(service);
        after.extend(self.make_networks(service));
        after.extend(self.make_volumes(service));
        let mut new = NewContainer {
            name: service.container(),
            service: service.clone(),
            address,
            carried: Vec::new(),
        };
        let mut made = Made::default();
        let mut left = self.state.docker.instances(&service.env, &service.name);
        let left = left.find(|left| left.is_successor() && left.replica() == service.replica);
        if let (ContainerDecision::Create, Some(left)) = (decision, left) {
            new.carried = anonymous_volumes(left, service);
        }
        if let ContainerDecision::Recreate(why) = decision
            && let Some(old) = self.container(service).cloned()
        {
            new.carried = anonymous_volumes(&old, service);
            if self.may_wait(&old, address, moving) {
                // The old one runs until its successor is ready to start, and again when that fails.
                new.name = successor_name(&new.name);
                after.extend(self.made.get(&("successor", new.name.clone())));
                made.replaces = Some(old.name.clone());
            } else {
                let removed = remove(&old, why.clone(), &after, &mut self.diff);
                self.free(&old, removed);
                after = vec![removed];
            }
        }
        let cause: Cause = match (&made.replaces, decision) {
            (Some(old), _) => format!("it takes the place of {old}").into(),
            (None, ContainerDecision::Recreate(_)) => "it is made anew".into(),
            (None, _) => Object::new("container", new.name.as_str()).missing().into(),
        };
        made.after.push(self.create(new, cause, &after));
        made
    }

    /// The steps that make a container, put it on its networks and give it its files; returns the last one.
    fn create(&mut self, new: NewContainer, cause: Cause, after: &[StepId]) -> StepId {
        let (name, service) = (new.name.clone(), new.service.clone());
        let create = ContainerAction::Create(Box::new(new));
        let mut last = self.diff.push(create, cause, after);
        // Before API 1.44 a container is made on one network and then joins the others.
        if self.state.docker.api < Api::SEVERAL_NETWORKS {
            for attachment in service.attachments_to_join() {
                let join = ContainerAction::JoinNetwork {
                    name: name.clone(),
                    service: Box::new(service.clone()),
                    attachment: Box::new(attachment.clone()),
                };
                last = self.diff.push(join, "it is new", &[last]);
            }
        }
        let given = service.given_contents();
        if !given.is_empty() {
            let put = ContainerAction::PutFiles { name, files: given };
            last = self.diff.push(put, "it is new", &[last]);
        }
        last
    }

    /// A container that was made and never started may have been left without its files by a run that was killed.
    fn fill(&mut self, service: &CompleteService) -> Made {
        let files = service.given_contents();
        let container = self
            .container(service)
            .filter(|found| found.state == "created");
        let Some(name) = container.map(|found| found.name.clone()) else {
            return Made::default();
        };
        let mut made = Made::default();
        if !files.is_empty() {
            let put = ContainerAction::PutFiles { name, files };
            made.after.push(self.diff.push(put, "it never ran", &[]));
        }
        made
    }

    /// Pulls the images that are pulled whatever there is.
    fn pull_always(&mut self, services: &[CompleteService]) {
        for service in services {
            if self.selection.policy(service) == PullPolicy::Always {
                self.push_pull(service, "it is to be pulled always".into());
            }
        }
    }

    /// The step after which an image is there, when it is not there yet.
    fn pull(&mut self, service: &CompleteService) -> Vec<StepId> {
        let image = &service.image;
        if let Some(step) = self.pulled.get(image) {
            return vec![*step];
        }
        if self.state.docker.images.contains_key(image) {
            return Vec::new();
        }
        let cause = Object::new("image", image.as_str()).missing().into();
        vec![self.push_pull(service, cause)]
    }

    fn push_pull(&mut self, service: &CompleteService, cause: Cause) -> StepId {
        let image = &service.image;
        if let Some(step) = self.pulled.get(image) {
            return *step;
        }
        let action = ImageAction::Pull {
            image: image.clone(),
            platform: service.platform.clone(),
        };
        let step = self.diff.push(action, cause, &[]);
        self.pulled.insert(image.clone(), step);
        step
    }

    fn make_networks(&mut self, service: &CompleteService) -> Vec<StepId> {
        let mut steps = Vec::new();
        for attachment in &service.networks {
            let name = &attachment.network;
            let planned = self.planned_network(name);
            let Some(planned) = planned.filter(|network| !network.is_external) else {
                continue;
            };
            if self.state.docker.network(name).is_some() {
                continue;
            }
            let key = ("network", name.clone());
            let step = self.made.get(&key).copied().unwrap_or_else(|| {
                let cause = Object::new("network", name.as_str()).missing();
                let action = NetworkAction::CreateCompose(Box::new(planned.clone()));
                self.diff.push(action, cause, &[])
            });
            self.made.insert(key, step);
            steps.push(step);
        }
        steps
    }

    fn make_volumes(&mut self, service: &CompleteService) -> Vec<StepId> {
        let mut steps = Vec::new();
        for name in service.named_volumes() {
            if self.state.docker.volumes.iter().any(|known| known == name) {
                continue;
            }
            let key = ("volume", name.to_owned());
            let step = if let Some(step) = self.made.get(&key) {
                *step
            } else {
                let cause = Object::new("volume", name).missing();
                let action = VolumeAction::Create(Box::new(self.volume(name, &service.env)));
                self.diff.push(action, cause, &[])
            };
            self.made.insert(key, step);
            steps.push(step);
        }
        steps
    }

    fn start(
        &mut self,
        service: &CompleteService,
        address: Option<Ipv4Addr>,
        decision: &ContainerDecision,
        made: Made,
    ) {
        if matches!(decision, ContainerDecision::Keep) {
            return;
        }
        let (mut after, over) = self.wait_for_dependencies(service);
        after.extend(made.after);
        after.extend(self.tried);
        after.extend(address.and_then(|address| self.freed.get(&address)));
        let name = service.container();
        let (action, cause) = match (decision, made.replaces) {
            (ContainerDecision::Recreate(why), Some(old)) => {
                (ContainerAction::Replace { name, old }, why.clone())
            }
            (ContainerDecision::Restart(why), _) => {
                (ContainerAction::Restart { name }, why.clone())
            }
            (ContainerDecision::Unpause(why), _) => {
                (ContainerAction::Unpause { name }, why.clone())
            }
            (ContainerDecision::Start(why), _) => (ContainerAction::Start { name }, why.clone()),
            _ => (ContainerAction::Start { name }, "it is new".into()),
        };
        let step = self.diff.push(action, cause, &after);
        if let Some(pushed) = self.diff.steps.last_mut() {
            pushed.after_end = over;
        }
        if let Some(old) = self.container(service).cloned()
            && matches!(decision, ContainerDecision::Recreate(_))
        {
            self.freed.extend(
                allocation::current(&old, self.selection.env)
                    .filter(|held| !self.freed.contains_key(held))
                    .map(|held| (held, step)),
            );
        }
        self.begun
            .entry(service.name.clone())
            .or_default()
            .push(step);
    }
}

/// Volumes without a name, which `docker compose` too hands on to the container that takes the place of another.
fn anonymous_volumes(old: &Container, service: &CompleteService) -> Vec<Mount> {
    let planned: Vec<&str> = service
        .volumes
        .iter()
        .filter(|volume| !matches!(volume, Volume::Anonymous { .. }))
        .map(Volume::target)
        .chain(service.tmpfs.keys().map(String::as_str))
        .collect();
    old.volumes
        .iter()
        .filter(|mount| mount.is_anonymous() && !planned.contains(&mount.target.as_str()))
        .cloned()
        .collect()
}
