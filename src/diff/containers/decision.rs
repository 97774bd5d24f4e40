//! What has to happen with each service's container, and why. Pure.

use super::Selection;
use crate::error::Blocker;
use crate::plan::{Ready, Restart, Service};
use crate::state::{Container, LABEL_FINGERPRINT, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What has to happen with a service's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Start,
    /// Stop it and start it again; why.
    Restart(String),
    Create,
    /// Make it anew; why.
    Recreate(String),
}

pub(super) struct Changes<'a> {
    selection: &'a Selection<'a>,
    services: &'a [Service],
    /// By container.
    addresses: &'a BTreeMap<String, Ipv4Addr>,
    state: &'a State,
    blockers: Vec<Blocker>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(
        selection: &'a Selection<'a>,
        services: &'a [Service],
        addresses: &'a BTreeMap<String, Ipv4Addr>,
        state: &'a State,
    ) -> Self {
        Self {
            selection,
            services,
            addresses,
            state,
            blockers: Vec::new(),
        }
    }

    /// One for each service, in their order, and what stands in the way.
    pub(super) fn decide(mut self) -> (Vec<Change>, Vec<Blocker>) {
        let mut changes: Vec<Change> = Vec::new();
        for service in self.services {
            let change = self.change(service);
            changes.push(change);
        }
        self.follow(&mut changes);
        (changes, self.blockers)
    }

    fn container(&self, service: &Service) -> Option<&'a Container> {
        let docker = &self.state.docker;
        docker.instance(&service.env, &service.name, service.number)
    }

    fn change(&mut self, service: &Service) -> Change {
        let name = service.container();
        let namesake = self.state.docker.container(&name);
        if let Some(other) = namesake {
            let own = other.service();
            if own.is_none() {
                self.blockers.push(Blocker::new(
                    format!("there is a container `{name}` that homelab did not make"),
                    format!(
                        "remove it with `docker rm -f {name}`, or give the service another name"
                    ),
                ));
                return Change::None;
            }
        }
        let Some(container) = self.container(service) else {
            return Change::Create;
        };
        match self.misfit(container, service) {
            Some(cause) => Change::Recreate(cause),
            None if container.is_running() || self.is_done(container, service) => Change::None,
            None => Change::Start,
        }
    }

    /// Whether it did what others wait for, and need not do it again.
    fn is_done(&self, container: &Container, service: &Service) -> bool {
        let is_waited_for = self.selection.env.services.iter().any(|other| {
            other.depends_on.iter().any(|dependency| {
                dependency.condition == Ready::Completed
                    && *dependency.service.get_ref() == service.name
            })
        });
        let ends = matches!(service.restart, Restart::No | Restart::OnFailure(_));
        is_waited_for && ends && container.state == "exited" && container.exit_code() == Some(0)
    }

    /// Why a container has to be made anew.
    fn misfit(&self, container: &Container, service: &Service) -> Option<String> {
        if matches!(container.state.as_str(), "dead" | "removing") {
            return Some(format!("it is {}", container.state));
        }
        let name = service.container();
        if container.name != name {
            return Some(format!("its name is to be {name}"));
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
        if self.selection.force_recreate {
            return Some("it was asked for".to_owned());
        }
        let extra = service
            .networks
            .iter()
            .map(|attachment| attachment.network.clone());
        let home = service.is_on_lan.then(|| self.selection.env.network());
        for network in home.iter().cloned().chain(extra) {
            let Some(endpoint) = container.networks.get(&network) else {
                return Some(format!("it is not attached to network {network}"));
            };
            let id = self.state.docker.network(&network).map(|n| n.id.as_str());
            if !endpoint.network_id.is_empty() && id.is_some_and(|id| id != endpoint.network_id) {
                return Some(format!("network {network} was made anew"));
            }
        }
        let address = self.addresses.get(&name)?;
        match container.networks.get(&home?)?.address {
            Some(held) if held != *address => {
                Some(format!("its address is {held}, planned is {address}"))
            }
            Some(_) => None,
            None => Some(format!("it has no address, planned is {address}")),
        }
    }

    /// Restarts those who asked for it when what they depend on is made anew, and those who share its network.
    fn follow(&self, changes: &mut [Change]) {
        loop {
            let renewed: BTreeSet<&str> = self
                .services
                .iter()
                .zip(changes.iter())
                .filter(|(_, change)| matches!(change, Change::Recreate(_) | Change::Restart(_)))
                .map(|(service, _)| service.name.as_str())
                .collect();
            let mut followers = Vec::new();
            for (index, (service, change)) in self.services.iter().zip(changes.iter()).enumerate() {
                let shares = service
                    .network_mode
                    .as_deref()
                    .and_then(|mode| mode.strip_prefix("container:"));
                let leader = service.depends_on.iter().find(|dependency| {
                    let name = dependency.service.get_ref().as_str();
                    let is_shared = || {
                        let mut all = self.services.iter().filter(|other| other.name == name);
                        all.any(|other| shares == Some(other.container().as_str()))
                    };
                    renewed.contains(name) && (dependency.restart || is_shared())
                });
                if let Some(leader) = leader.filter(|_| *change == Change::None) {
                    followers.push((index, leader.service.get_ref().clone()));
                }
            }
            if followers.is_empty() {
                return;
            }
            for (index, leader) in followers {
                if let Some(change) = changes.get_mut(index) {
                    *change = Change::Restart(format!("{leader} is made anew"));
                }
            }
        }
    }
}

/// Which keys differ between two fingerprints, as a cause; `None` when none does.
fn changed_keys(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let keys = |fingerprint: &str| -> BTreeMap<String, String> {
        fingerprint
            .split(';')
            .filter_map(|entry| entry.split_once('='))
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
