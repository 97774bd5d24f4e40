//! What has to happen with each service's container, and why. Pure.

use super::Selection;
use crate::diff::difference::{Cause, Difference, Object};
use crate::error::Diagnostic;
use crate::plan::naming::LABEL_FINGERPRINT;
use crate::plan::{CompleteService, DependencyCondition, Env, Mac, Restart};
use crate::state::{Container, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What has to happen with a service's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerDecision {
    /// Nothing.
    Keep,
    /// It is there and does not run; what is different.
    Start(Cause),
    /// It is paused; what is different.
    Unpause(Cause),
    /// Stop it and start it again; why.
    Restart(Cause),
    /// There is none.
    Create,
    /// Make it anew; what is different.
    Recreate(Cause),
}

pub(super) struct Decisions<'a> {
    selection: &'a Selection<'a>,
    services: &'a [CompleteService],
    /// By container.
    addresses: &'a BTreeMap<String, Ipv4Addr>,
    state: &'a State,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Decisions<'a> {
    pub(super) fn new(
        selection: &'a Selection<'a>,
        services: &'a [CompleteService],
        addresses: &'a BTreeMap<String, Ipv4Addr>,
        state: &'a State,
    ) -> Self {
        Self {
            selection,
            services,
            addresses,
            state,
            diagnostics: Vec::new(),
        }
    }

    /// One for each service, in their order, and what stands in the way.
    pub(super) fn decide(mut self) -> (Vec<ContainerDecision>, Vec<Diagnostic>) {
        let mut decisions: Vec<ContainerDecision> = Vec::new();
        for service in self.services {
            let decision = self.decide_one(service);
            decisions.push(decision);
        }
        self.follow(&mut decisions);
        (decisions, self.diagnostics)
    }

    fn container(&self, service: &CompleteService) -> Option<&'a Container> {
        let docker = &self.state.docker;
        docker.instance(&service.env, &service.name, service.replica)
    }

    fn decide_one(&mut self, service: &CompleteService) -> ContainerDecision {
        let name = service.container();
        let same_name = self.state.docker.container(&name);
        if let Some(other) = same_name {
            let own = other.service();
            if own.is_none() {
                self.diagnostics.push(Diagnostic::error(
                    format!("there is a container `{name}` that homelab did not make"),
                    format!(
                        "remove it with `docker rm -f {name}`, or give the service another name"
                    ),
                ));
                return ContainerDecision::Keep;
            }
        }
        let Some(container) = self.container(service) else {
            return ContainerDecision::Create;
        };
        if let Some(cause) = self.recreate_reason(container, service) {
            return ContainerDecision::Recreate(cause);
        }
        let (found, planned) = (container.state.clone(), "running".to_owned());
        let difference = object(&name).differs("state", Some(found), Some(planned));
        if container.state == "paused" {
            return ContainerDecision::Unpause(difference.because("it is paused"));
        }
        if container.is_running() || self.is_done(container, service) {
            return ContainerDecision::Keep;
        }
        ContainerDecision::Start(difference.because("it does not run"))
    }

    /// Whether it did what others wait for, and need not do it again.
    fn is_done(&self, container: &Container, service: &CompleteService) -> bool {
        let is_waited_for = self.selection.env.services.iter().any(|other| {
            other.depends_on.iter().any(|dependency| {
                dependency.condition == DependencyCondition::Completed
                    && *dependency.service.get_ref() == service.name
            })
        });
        let ends = matches!(service.restart, Restart::No | Restart::OnFailure(_));
        is_waited_for && ends && container.state == "exited" && container.exit_code == Some(0)
    }

    /// Why a container has to be made anew.
    fn recreate_reason(&self, container: &Container, service: &CompleteService) -> Option<Cause> {
        let name = service.container();
        let differs = |field: &str, found: Option<&str>, planned: Option<&str>| -> Difference {
            let (found, planned) = (found.map(str::to_owned), planned.map(str::to_owned));
            object(&container.name).differs(field, found, planned)
        };
        if matches!(container.state.as_str(), "dead" | "removing") {
            let difference = differs("state", Some(&container.state), Some("running"));
            return Some(difference.because(format!("it is {}", container.state)));
        }
        if container.name != name {
            let difference = differs("name", Some(&container.name), Some(&name));
            return Some(difference.because(format!("its name is to be {name}")));
        }
        let made_from = container.labels.get(LABEL_FINGERPRINT);
        let made_from = made_from.map(String::as_str).unwrap_or_default();
        if let Some(keys) = changed_keys(made_from, &service.fingerprint()) {
            let text = if keys.is_empty() {
                "it was made by another version of homelab".to_owned()
            } else {
                format!("changed: {keys}")
            };
            return Some(differs(&keys, None, None).because(text));
        }
        if let Some(image) = self.state.docker.images.get(&service.image)
            && *image != container.image
        {
            let difference = differs("image", Some(&container.image), Some(image));
            let text = format!("image {} is another one now", service.image);
            return Some(difference.because(text));
        }
        // A container that other tools made with our labels, or that was put back from a backup, may be anywhere.
        if let Some(slice) = &container.slice
            && let Some(planned) = &service.slice
            && slice != planned
        {
            let difference = differs("slice", Some(slice), Some(planned));
            let runs = if container.is_running() {
                "runs"
            } else {
                "would run"
            };
            let text =
                format!("it {runs} in {slice}, where nothing keeps it from other environments");
            return Some(difference.because(text));
        }
        if self.selection.force_recreate {
            return Some("it was asked for".into());
        }
        self.network_reason(container, service)
    }

    /// Why a container has to be made anew because of the networks that it is on, or its address there.
    fn network_reason(&self, container: &Container, service: &CompleteService) -> Option<Cause> {
        let compose = service.networks.iter();
        let compose = compose.map(|attachment| attachment.network.clone());
        let lan = service.is_on_lan.then(|| self.selection.env.network());
        for network in lan.iter().cloned().chain(compose) {
            let field = format!("network {network}");
            let differs = |found: Option<&str>, planned: &str| {
                let (found, planned) = (found.map(str::to_owned), Some(planned.to_owned()));
                object(&container.name).differs(field.as_str(), found, planned)
            };
            let Some(endpoint) = container.networks.get(&network) else {
                let text = format!("it is not attached to network {network}");
                return Some(differs(None, "attached").because(text));
            };
            let id = self.state.docker.network(&network).map(|n| n.id.as_str());
            if let Some(id) = id.filter(|id| *id != endpoint.network_id)
                && !endpoint.network_id.is_empty()
            {
                let text = format!("network {network} was made anew");
                return Some(differs(Some(&endpoint.network_id), id).because(text));
            }
        }
        let others = self.selection.plan.envs.iter().map(Env::network);
        let mut others = others.filter(|network| Some(network) != lan.as_ref());
        if let Some(other) = others.find(|other| container.networks.contains_key(other)) {
            let field = format!("network {other}");
            let attached = Some("attached".to_owned());
            let difference = object(&container.name).differs(field, attached, None);
            return Some(difference.because(format!("it is attached to {other} too")));
        }
        let address = self.addresses.get(&service.container())?;
        let endpoint = container.networks.get(&lan?)?;
        let found = endpoint.address;
        if found == Some(*address) {
            return hardware_reason(container, endpoint.mac?, service.lan_mac(*address));
        }
        let planned = Some(address.to_string());
        let field = found.map(|found| found.to_string());
        let difference = object(&container.name).differs("address", field, planned);
        Some(match found {
            Some(_) => difference.into(),
            None => difference.because(format!("it has no address, planned is {address}")),
        })
    }

    /// Restarts those who asked for it when what they depend on is made anew, and those who share its network.
    fn follow(&self, decisions: &mut [ContainerDecision]) {
        loop {
            let renewed: BTreeSet<&str> = self
                .services
                .iter()
                .zip(decisions.iter())
                .filter(|(_, decision)| {
                    matches!(
                        decision,
                        ContainerDecision::Recreate(_) | ContainerDecision::Restart(_)
                    )
                })
                .map(|(service, _)| service.name.as_str())
                .collect();
            let mut followers = Vec::new();
            for (index, (service, decision)) in
                self.services.iter().zip(decisions.iter()).enumerate()
            {
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
                if let Some(leader) = leader.filter(|_| *decision == ContainerDecision::Keep) {
                    followers.push((index, leader.service.get_ref().clone()));
                }
            }
            if followers.is_empty() {
                return;
            }
            for (index, leader) in followers {
                if let Some(decision) = decisions.get_mut(index) {
                    *decision = ContainerDecision::Restart(format!("{leader} is made anew").into());
                }
            }
        }
    }
}

/// Why a container has to be made anew because of its hardware address on the LAN: engine 28 draws a new one when it is
/// disconnected and connected again.
fn hardware_reason(container: &Container, found: Mac, planned: Mac) -> Option<Cause> {
    if found == planned {
        return None;
    }
    let (found, planned) = (Some(found.to_string()), Some(planned.to_string()));
    let object = object(&container.name);
    Some(object.differs("hardware address", found, planned).into())
}

/// Which keys differ between two fingerprints; `None` when they are the same.
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
    Some(changed.join(", "))
}

fn object(name: &str) -> Object {
    Object::new("container", name)
}
