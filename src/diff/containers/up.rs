//! Bringing services up: what each one's container needs, and in which order. Pure.

mod dependencies;
mod isolation_bypass;
mod prerequisites;

use super::decision::{Change, Changes};
use super::{Selection, remove};
use crate::diff::{Action, Diff, StepId, allocation, named};
use crate::error::Blocker;
use crate::plan::{PullPolicy, Ready, Service};
use crate::state::{Api, Container, Mount, SUCCESSOR, State};
use crate::system::docker::NewContainer;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What brings the services up. They are complete already.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn up(
    selection: &Selection,
    services: &[Service],
    state: &State,
) -> Result<Diff, Vec<Blocker>> {
    let mut up = Up {
        selection,
        state,
        diff: Diff::default(),
        blockers: Vec::new(),
        pulled: BTreeMap::new(),
        made: BTreeMap::new(),
        freed: BTreeMap::new(),
        begun: BTreeMap::new(),
        waits: BTreeMap::new(),
        wanted: BTreeSet::new(),
    };
    let addresses = up.addresses(services);
    up.wanted = addresses.values().copied().collect();
    up.report_loopholes(services);
    up.report_shared_volumes(services);
    up.remove_surplus(services);
    let changes = Changes::new(selection, services, &addresses, state);
    let (changes, mut blockers) = changes.decide();
    up.blockers.append(&mut blockers);
    let moving: BTreeSet<&str> = services
        .iter()
        .filter_map(|service| {
            let found = state
                .docker
                .instance(&service.env, &service.name, service.number);
            Some(found?.name.as_str())
        })
        .collect();
    for (service, change) in services.iter().zip(&changes) {
        if !matches!(change, Change::None)
            && let Some(address) = addresses.get(&service.container())
        {
            up.check_free(*address, &moving);
        }
        if matches!(change, Change::Create | Change::Recreate(_)) {
            up.check_needs(service);
        } else {
            up.warn_of_networks(service);
        }
    }
    if !up.blockers.is_empty() {
        return Err(up.blockers);
    }
    if selection.pulls_first {
        for service in services {
            if selection.policy(service) == PullPolicy::Always {
                up.pull(service);
            }
        }
    }
    // Whoever goes or moves frees an address that another one may be waiting for, so all that makes room comes first.
    let renewed = renewed(services, &changes);
    let mut ready = Vec::new();
    for (service, change) in services.iter().zip(&changes) {
        let address = addresses.get(&service.container()).copied();
        let made = up.make(service, address, change, &renewed);
        ready.push((service, address, change, made));
    }
    let ordered = super::in_order(ready, |(a, ..), (b, ..)| a.depends_on(&b.name));
    for (service, address, change, made) in ordered {
        up.start(service, address, change, made);
    }
    Ok(up.diff)
}

/// The names of containers that are made anew.
fn renewed(services: &[Service], changes: &[Change]) -> BTreeSet<String> {
    let moved = services.iter().zip(changes);
    moved
        .filter(|(_, change)| matches!(change, Change::Recreate(_)))
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
    blockers: Vec<Blocker>,
    /// The step that pulls an image.
    pulled: BTreeMap<String, StepId>,
    /// The step that makes a volume or a network, by kind and name.
    made: BTreeMap<(&'static str, String), StepId>,
    /// The step after which an address is free.
    freed: BTreeMap<Ipv4Addr, StepId>,
    /// The steps that start a service's containers.
    begun: BTreeMap<String, Vec<StepId>>,
    /// The step after which a container is ready.
    waits: BTreeMap<(String, Ready), StepId>,
    /// The addresses that services of this run are to have.
    wanted: BTreeSet<Ipv4Addr>,
}

impl Up<'_> {
    fn container(&self, service: &Service) -> Option<&Container> {
        let docker = &self.state.docker;
        docker.instance(&service.env, &service.name, service.number)
    }

    fn free(&mut self, container: &Container, step: StepId) {
        if let Some(address) = allocation::held(container, self.selection.env) {
            self.freed.insert(address, step);
        }
    }

    /// The addresses of the services that have one, by container: the planned one, else the one that its container has,
    /// else the lowest free one.
    fn addresses(&mut self, services: &[Service]) -> BTreeMap<String, Ipv4Addr> {
        let (plan, env) = (self.selection.plan, self.selection.env);
        let mut free = allocation::free(plan, env, self.state);
        let mut found = BTreeMap::new();
        let mut without = Vec::new();
        for service in services.iter().filter(|service| service.is_on_lan) {
            let address = service
                .address
                .or_else(|| allocation::kept(plan, env, service, self.state))
                .or_else(|| free.next());
            match address {
                Some(address) => {
                    found.insert(service.container(), address);
                }
                None => without.push(service.name.clone()),
            }
        }
        without.dedup();
        if !without.is_empty() {
            self.blockers.push(Blocker::new(
                format!(
                    "the range {} of environment `{}` has no free address left for {}",
                    env.range,
                    env.name,
                    named(&without)
                ),
                "widen the range, or take services away",
            ));
        }
        found
    }

    /// Takes away what the plan does not have: orphans when that is wished, containers beyond a service's number, and
    /// successors that never came to take their place.
    fn remove_surplus(&mut self, services: &[Service]) {
        let state = self.state;
        if self.selection.named.is_empty() {
            let orphans = self.selection.orphans(state);
            if self.selection.remove_orphans {
                for (_, orphan) in orphans {
                    let removed = remove(orphan, "the plan does not have it", &[], &mut self.diff);
                    self.free(orphan, removed);
                }
            } else {
                self.selection
                    .report_orphans(&orphans, "env-up", &mut self.diff);
            }
        }
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        for service in services {
            let most = names.entry(&service.name).or_default();
            *most = service.number.max(*most);
        }
        let env = &self.selection.env.name;
        for (name, most) in names {
            let all: Vec<&Container> = state.docker.instances(env, name).collect();
            for container in all {
                if container.number() > most {
                    let cause = format!("service {name} has {most} containers");
                    let removed = remove(container, &cause, &[], &mut self.diff);
                    self.free(container, removed);
                } else if container.is_successor() {
                    let cause = "it was to take a place when homelab was stopped";
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
        service: &Service,
        address: Option<Ipv4Addr>,
        change: &Change,
        moving: &BTreeSet<String>,
    ) -> Made {
        let cause = match change {
            Change::Start => return self.fill(service),
            Change::None | Change::Restart(_) => return Made::default(),
            Change::Create => "it does not exist",
            Change::Recreate(_) => "it is made anew",
        };
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
        let left = left.find(|left| left.is_successor() && left.number() == service.number);
        if let (Change::Create, Some(left)) = (change, left) {
            new.carried = anonymous_volumes(left, service);
        }
        if let Change::Recreate(why) = change
            && let Some(old) = self.container(service).cloned()
        {
            new.carried = anonymous_volumes(&old, service);
            if self.may_wait(&old, address, moving) {
                // The old one runs until its successor is ready to start, and again when that fails.
                new.name += SUCCESSOR;
                after.extend(self.made.get(&("successor", new.name.clone())));
                made.replaces = Some(old.name.clone());
            } else {
                let removed = remove(&old, why, &after, &mut self.diff);
                self.free(&old, removed);
                after = vec![removed];
            }
        }
        let cause = match &made.replaces {
            Some(old) => format!("it takes the place of {old}"),
            None => cause.to_owned(),
        };
        let (name, service) = (new.name.clone(), service.clone());
        let create = Action::CreateContainer(Box::new(new));
        let mut last = self.diff.push(create, cause, &after);
        // Before API 1.44 a container is made on one network and then joins the others.
        if self.state.docker.api < Api::SEVERAL_NETWORKS {
            for attachment in service.attachments_to_join() {
                let join = Action::JoinNetwork {
                    name: name.clone(),
                    service: Box::new(service.clone()),
                    attachment: Box::new(attachment.clone()),
                };
                last = self.diff.push(join, "it is new", &[last]);
            }
        }
        let given = service.given_contents();
        if !given.is_empty() {
            let put = Action::PutFiles { name, files: given };
            last = self.diff.push(put, "it is new", &[last]);
        }
        made.after.push(last);
        made
    }

    /// A container that was made and never started may have been left without its files by a run that was killed.
    fn fill(&mut self, service: &Service) -> Made {
        let files = service.given_contents();
        let container = self
            .container(service)
            .filter(|found| found.state == "created");
        let Some(name) = container.map(|found| found.name.clone()) else {
            return Made::default();
        };
        let mut made = Made::default();
        if !files.is_empty() {
            let put = Action::PutFiles { name, files };
            made.after.push(self.diff.push(put, "it never ran", &[]));
        }
        made
    }

    /// Whether the old container may live until the new one starts: nobody else has the new one's address until then, and
    /// nobody waits for the old one's.
    fn may_wait(
        &self,
        old: &Container,
        address: Option<Ipv4Addr>,
        moving: &BTreeSet<String>,
    ) -> bool {
        let held = allocation::held(old, self.selection.env);
        if held == address {
            return true;
        }
        if held.is_some_and(|held| self.wanted.contains(&held)) {
            return false;
        }
        let all = self.state.docker.containers.iter();
        let mut others = all.filter(|other| other.name != old.name && moving.contains(&other.name));
        !others.any(|other| allocation::held(other, self.selection.env) == address)
    }

    fn pull(&mut self, service: &Service) -> Vec<StepId> {
        let image = &service.image;
        let is_wanted =
            self.selection.pulls_first && self.selection.policy(service) == PullPolicy::Always;
        if self.state.docker.images.contains_key(image) && !is_wanted {
            return Vec::new();
        }
        let step = if let Some(step) = self.pulled.get(image) {
            *step
        } else {
            let cause = if is_wanted {
                "it is to be pulled always"
            } else {
                "it is not on this machine"
            };
            let action = Action::Pull {
                image: image.clone(),
                platform: service.platform.clone(),
            };
            self.diff.push(action, cause, &[])
        };
        self.pulled.insert(image.clone(), step);
        vec![step]
    }

    fn make_networks(&mut self, service: &Service) -> Vec<StepId> {
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
                let action = Action::CreateExtraNetwork(Box::new(planned.clone()));
                self.diff.push(action, "it does not exist", &[])
            });
            self.made.insert(key, step);
            steps.push(step);
        }
        steps
    }

    fn make_volumes(&mut self, service: &Service) -> Vec<StepId> {
        let mut steps = Vec::new();
        for name in service.named_volumes() {
            if self.state.docker.volumes.iter().any(|known| known == name) {
                continue;
            }
            let key = ("volume", name.to_owned());
            let step = if let Some(step) = self.made.get(&key) {
                *step
            } else {
                let action = Action::CreateVolume(Box::new(self.volume(name, &service.env)));
                self.diff.push(action, "it does not exist", &[])
            };
            self.made.insert(key, step);
            steps.push(step);
        }
        steps
    }

    fn start(&mut self, service: &Service, address: Option<Ipv4Addr>, change: &Change, made: Made) {
        if matches!(change, Change::None) {
            return;
        }
        let (mut after, over) = self.wait_for_dependencies(service);
        after.extend(made.after);
        after.extend(address.and_then(|address| self.freed.get(&address)));
        let name = service.container();
        let (action, cause) = match (change, made.replaces) {
            (Change::Recreate(why), Some(old)) => {
                (Action::ReplaceContainer { name, old }, why.as_str())
            }
            (Change::Restart(why), _) => (Action::RestartContainer { name }, why.as_str()),
            (Change::Start, _) => (Action::StartContainer { name }, "it does not run"),
            _ => (Action::StartContainer { name }, "it is new"),
        };
        let step = self.diff.push(action, cause, &after);
        if let Some(pushed) = self.diff.steps.last_mut() {
            pushed.after_end = over;
        }
        if let Some(old) = self.container(service).cloned()
            && matches!(change, Change::Recreate(_))
        {
            self.freed.extend(
                allocation::held(&old, self.selection.env)
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
fn anonymous_volumes(old: &Container, service: &Service) -> Vec<Mount> {
    let planned: Vec<&str> = service
        .volumes
        .iter()
        .filter(|volume| !matches!(volume, crate::plan::Volume::Anonymous { .. }))
        .map(crate::plan::Volume::target)
        .chain(service.tmpfs.keys().map(String::as_str))
        .collect();
    old.volumes
        .iter()
        .filter(|mount| mount.is_anonymous() && !planned.contains(&mount.target.as_str()))
        .cloned()
        .collect()
}
