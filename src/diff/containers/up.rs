//! Bringing services up: what each one's container needs, and in which order. Pure.

use super::{Selection, addresses, in_order, remove};
use crate::diff::{Action, Diff, StepId, named};
use crate::docker::NewContainer;
use crate::failure::Blocker;
use crate::plan::{Isolation, Service, Volume};
use crate::state::{Container, LABEL_FINGERPRINT, Mount, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What brings the services up. Their environments are complete already.
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
        volumes: BTreeMap::new(),
        freed: BTreeMap::new(),
    };
    let addresses = up.addresses(services);
    up.report_loopholes(services);
    if selection.named.is_empty() {
        let orphans = selection.orphans(state);
        if selection.remove_orphans {
            for (_, orphan) in orphans {
                let removed = remove(orphan, "the plan does not have it", &[], &mut up.diff);
                up.free(orphan, removed);
            }
        } else {
            selection.report_orphans(&orphans, "env-up", &mut up.diff);
        }
    }
    // Whoever goes or moves frees an address that another one may be waiting for, so all removals come first.
    let mut todo = Vec::new();
    for service in services {
        let Some(address) = addresses.get(&service.name) else {
            continue;
        };
        let change = up.change(service, *address);
        todo.push((service, *address, change));
    }
    let moving: BTreeSet<String> = services.iter().map(Service::container).collect();
    for (_, address, change) in &todo {
        if !matches!(change, Change::None) {
            up.check_free(*address, &moving);
        }
    }
    if !up.blockers.is_empty() {
        return Err(up.blockers);
    }
    let mut started: BTreeMap<&str, StepId> = BTreeMap::new();
    let mut ready = Vec::new();
    for (service, address, change) in todo {
        let created = up.create(service, address, &change);
        ready.push((service, address, change, created));
    }
    for (service, address, change, created) in
        in_order(ready, |(a, ..), (b, ..)| a.depends_on.contains(&b.name))
    {
        if let Some(step) = up.start(service, address, &change, created, &started) {
            started.insert(&service.name, step);
        }
    }
    Ok(up.diff)
}

/// What has to happen with a service's container.
enum Change {
    None,
    Start,
    Create,
    Recreate(String),
}

struct Up<'a> {
    selection: &'a Selection<'a>,
    state: &'a State,
    diff: Diff,
    blockers: Vec<Blocker>,
    /// The step that pulls an image.
    pulled: BTreeMap<String, StepId>,
    /// The step that makes a volume.
    volumes: BTreeMap<String, StepId>,
    /// The step after which an address is free.
    freed: BTreeMap<Ipv4Addr, StepId>,
}

impl Up<'_> {
    fn container(&self, service: &Service) -> Option<&Container> {
        self.state.docker.container(&service.container())
    }

    fn free(&mut self, container: &Container, step: StepId) {
        if let Some(address) = addresses::held(container, self.selection.env) {
            self.freed.insert(address, step);
        }
    }

    /// The address of every service: the planned one, else the one that its container has, else the lowest free one.
    fn addresses(&mut self, services: &[Service]) -> BTreeMap<String, Ipv4Addr> {
        let (plan, env) = (self.selection.plan, self.selection.env);
        let mut free = addresses::free(plan, env, self.state);
        let mut found = BTreeMap::new();
        let mut without = Vec::new();
        for service in services {
            let address = service
                .address
                .or_else(|| addresses::kept(plan, env, service, self.state))
                .or_else(|| free.next());
            match address {
                Some(address) => {
                    found.insert(service.name.clone(), address);
                }
                None => without.push(service.name.clone()),
            }
        }
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

    /// Names the services whose processes could leave their slice.
    fn report_loopholes(&mut self, services: &[Service]) {
        if self.selection.plan.isolation == Isolation::Off {
            return;
        }
        for service in services {
            if let Some(why) = service.loophole() {
                self.diff.warn(
                    format!(
                        "service `{}` is {why}: a process in it can leave its slice and reach other environments",
                        service.name
                    ),
                    "give it only the capabilities and devices that it needs, by `cap_add` and `devices`",
                );
            }
        }
    }

    fn change(&mut self, service: &Service, address: Ipv4Addr) -> Change {
        let name = service.container();
        let Some(container) = self.state.docker.container(&name) else {
            return Change::Create;
        };
        if container.service().is_none() {
            self.blockers.push(Blocker::new(
                format!("there is a container `{name}` that homelab did not make"),
                format!("remove it with `docker rm -f {name}`, or give the service another name"),
            ));
            return Change::None;
        }
        match self.misfit(container, service, address) {
            Some(cause) => Change::Recreate(cause),
            None if container.is_running() => Change::None,
            None => Change::Start,
        }
    }

    /// Why a container has to be made anew.
    fn misfit(
        &self,
        container: &Container,
        service: &Service,
        address: Ipv4Addr,
    ) -> Option<String> {
        if matches!(container.state.as_str(), "dead" | "removing") {
            return Some(format!("it is {}", container.state));
        }
        let made_from = container.labels.get(LABEL_FINGERPRINT);
        let made_from = made_from.map(String::as_str).unwrap_or_default();
        if let Some(keys) = changed_keys(made_from, &service.fingerprint()) {
            return Some(keys);
        }
        if let Some(image) = self.state.docker.images.get(&service.image)
            && *image != container.image
        {
            return Some(format!("image {} is another one now", service.image));
        }
        let network = self.selection.env.network();
        let Some(endpoint) = container.networks.get(&network) else {
            return Some(format!("it is not attached to network {network}"));
        };
        let id = self.state.docker.network(&network).map(|n| n.id.as_str());
        if !endpoint.network_id.is_empty() && id.is_some_and(|id| id != endpoint.network_id) {
            return Some(format!("network {network} was made anew"));
        }
        match endpoint.address {
            Some(held) if held != address => {
                Some(format!("its address is {held}, planned is {address}"))
            }
            Some(_) => None,
            None => Some(format!("it has no address, planned is {address}")),
        }
    }

    /// Whether somebody who is not among the `moving` has an address and keeps it.
    fn check_free(&mut self, address: Ipv4Addr, moving: &BTreeSet<String>) {
        let holder = self.state.docker.containers.iter().find(|container| {
            let holds = container
                .networks
                .values()
                .any(|endpoint| endpoint.address == Some(address));
            holds && !moving.contains(&container.name)
        });
        if let Some(holder) = holder
            && !self.freed.contains_key(&address)
        {
            self.blockers.push(Blocker::new(
                format!("container `{}` has {address} already", holder.name),
                format!(
                    "remove it with `docker rm -f {}`, or plan another address",
                    holder.name
                ),
            ));
        }
    }

    /// The steps up to a container that is there but does not run; the last one.
    fn create(&mut self, service: &Service, address: Ipv4Addr, change: &Change) -> Option<StepId> {
        let cause = match change {
            Change::None | Change::Start => return None,
            Change::Create => "it does not exist",
            Change::Recreate(_) => "it is made anew",
        };
        let mut after = self.pull(service);
        after.extend(self.create_volumes(service));
        let mut carried = Vec::new();
        if let Change::Recreate(why) = change
            && let Some(old) = self.container(service).cloned()
        {
            carried = anonymous_volumes(&old, service);
            // The old one runs until everything that its successor needs is there.
            let removed = remove(&old, why, &after, &mut self.diff);
            self.free(&old, removed);
            after = vec![removed];
        }
        let new = NewContainer {
            service: service.clone(),
            address,
            carried,
        };
        let action = Action::CreateContainer(Box::new(new));
        Some(self.diff.push(action, cause, &after))
    }

    fn pull(&mut self, service: &Service) -> Vec<StepId> {
        let image = &service.image;
        if self.state.docker.images.contains_key(image) {
            return Vec::new();
        }
        let step = if let Some(step) = self.pulled.get(image) {
            *step
        } else {
            let action = Action::Pull {
                image: image.clone(),
            };
            self.diff.push(action, "it is not on this machine", &[])
        };
        self.pulled.insert(image.clone(), step);
        vec![step]
    }

    fn create_volumes(&mut self, service: &Service) -> Vec<StepId> {
        let mut steps = Vec::new();
        for name in service.named_volumes() {
            if self.state.docker.volumes.iter().any(|known| known == name) {
                continue;
            }
            let step = if let Some(step) = self.volumes.get(name) {
                *step
            } else {
                let action = Action::CreateVolume {
                    name: name.to_owned(),
                    env: service.env.clone(),
                };
                self.diff.push(action, "it does not exist", &[])
            };
            self.volumes.insert(name.to_owned(), step);
            steps.push(step);
        }
        steps
    }

    fn start(
        &mut self,
        service: &Service,
        address: Ipv4Addr,
        change: &Change,
        created: Option<StepId>,
        started: &BTreeMap<&str, StepId>,
    ) -> Option<StepId> {
        let cause = match change {
            Change::None => return None,
            Change::Start => "it does not run",
            Change::Create | Change::Recreate(_) => "it is new",
        };
        let mut after: Vec<StepId> = created.into_iter().collect();
        after.extend(self.freed.get(&address));
        let dependencies = service.depends_on.iter();
        after.extend(dependencies.filter_map(|name| started.get(name.as_str())));
        let name = service.container();
        Some(
            self.diff
                .push(Action::StartContainer { name }, cause, &after),
        )
    }
}

/// Volumes without a name, which `docker compose` too hands on to the container that takes the place of another.
fn anonymous_volumes(old: &Container, service: &Service) -> Vec<Mount> {
    let planned: Vec<String> = service
        .volumes
        .iter()
        .filter_map(|volume| match volume {
            Volume::Bind { target, .. } | Volume::Named { target, .. } => {
                target.split(':').next().map(str::to_owned)
            }
            Volume::Anonymous { .. } => None,
        })
        .chain(service.tmpfs.keys().cloned())
        .collect();
    old.volumes
        .iter()
        .filter(|mount| mount.is_anonymous() && !planned.contains(&mount.target))
        .cloned()
        .collect()
}

/// Which keys differ between two fingerprints, as a cause; `None` when none does.
fn changed_keys(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let keys = |text: &'_ str| -> BTreeMap<String, String> {
        text.split(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, hash)| (key.to_owned(), hash.to_owned()))
            .collect()
    };
    let (old_keys, new_keys) = (keys(old), keys(new));
    let changed: BTreeSet<&String> = old_keys
        .keys()
        .chain(new_keys.keys())
        .filter(|key| old_keys.get(*key) != new_keys.get(*key))
        .collect();
    let changed: Vec<&str> = changed.into_iter().map(String::as_str).collect();
    if changed.is_empty() {
        return Some("it was made by another version of homelab".to_owned());
    }
    Some(format!("changed: {}", changed.join(", ")))
}
