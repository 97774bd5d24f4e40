//! What lets environments reach each other although they are to be kept apart. Pure.

use super::Up;
use crate::diff::{named, net_raw, slices};
use crate::plan::{CompleteService, Isolation, Service};
use crate::state::Container;
use std::collections::{BTreeMap, BTreeSet};

impl Up<'_> {
    /// Names the services whose processes could leave their slice, and the networks on which other environments are too:
    /// a slice denies addresses of the LAN only.
    pub(super) fn warn_of_bypasses(&mut self, services: &[CompleteService]) {
        if self.selection.plan.isolation == Isolation::Off {
            return;
        }
        let plan = self.selection.plan;
        let own = plan.ways_out(services.iter().map(|service| &**service));
        self.diff.warnings.extend(own);
        for (network, envs) in self.shared(services, networks) {
            self.diff.warn(
                format!(
                    "services of environment `{}` reach those of {} on network `{network}`",
                    self.selection.env.name,
                    named(&envs)
                ),
                "give each environment a network of its own, or join it in one environment only",
            );
        }
    }

    /// Sees that the slice is closed before something is started in it, when nothing runs there by which that was tried already.
    pub(super) fn try_slice(&mut self, starts: bool) {
        let slice = self.selection.plan.slice(self.selection.env);
        let trial = slice.and_then(|slice| slices::trial(&slice, self.state));
        let Some(trial) = trial.filter(|_| starts) else {
            return;
        };
        if self.state.net_admin {
            let cause = "containers start when it is closed";
            self.tried = Some(self.diff.push(trial, cause, &[]));
        } else {
            let env = &self.selection.env.name;
            let what = format!(
                "whether the kernel keeps environment `{env}` apart was not tried: not permitted"
            );
            self.diff.warn(what, "run homelab as root");
        }
    }

    /// Names containers that keep a right which services are not given any more.
    pub(super) fn warn_of_net_raw(
        &mut self,
        services: &[CompleteService],
        renewed: &BTreeSet<String>,
    ) {
        let services = services.iter().map(|service| &**service);
        let is_renewed = |container: &Container| renewed.contains(&container.name);
        let found = net_raw::left_over(services, self.state, is_renewed);
        self.diff.warnings.extend(found);
    }

    /// Names volumes whose data another environment changes too. Who writes `external` knows.
    pub(super) fn warn_of_shared_volumes(&mut self, services: &[CompleteService]) {
        for (volume, envs) in self.shared(services, volumes) {
            if self.volume(&volume, &self.selection.env.name).is_external {
                continue;
            }
            self.diff.warn(
                format!(
                    "volume `{volume}` is also that of environment {}: they share its data",
                    named(&envs)
                ),
                "put `${COMPOSE_PROJECT_NAME}` into its name, or write `external: true` when they are to share it",
            );
        }
    }

    /// What services use that services of other environments on this host use too, with those environments.
    fn shared(
        &self,
        services: &[CompleteService],
        used: fn(&Service) -> Vec<&str>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let own: BTreeSet<&str> = services.iter().flat_map(|service| used(service)).collect();
        let (plan, env) = (self.selection.plan, self.selection.env);
        let others = plan.envs.iter().filter(|other| other.name != env.name);
        let mut shared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for service in others.flat_map(|other| &other.services) {
            for name in used(service) {
                if service.host == self.selection.host.name && own.contains(name) {
                    let envs = shared.entry(name.to_owned()).or_default();
                    envs.insert(service.env.clone());
                }
            }
        }
        shared
    }
}

/// The Engine's volumes that a service mounts.
fn volumes(service: &Service) -> Vec<&str> {
    service.named_volumes().collect()
}

/// The Engine's networks that a service is on beside the LAN.
fn networks(service: &Service) -> Vec<&str> {
    let mode = service.network_mode.as_deref();
    let own = service.networks.iter().map(|on| on.network.as_str());
    own.chain(mode.filter(|mode| *mode == "bridge")).collect()
}
