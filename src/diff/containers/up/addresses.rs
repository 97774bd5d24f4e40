//! Which address each service gets, and which services are left out because theirs is not to be had. Pure.

use super::Up;
use crate::diff::containers::Selection;
use crate::diff::{allocation, lan};
use crate::error::Diagnostic;
use crate::plan::CompleteService;
use crate::state::Container;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Services that cannot be had as planned, with why.
pub(super) type Blocked = Vec<(String, Diagnostic)>;

impl Up<'_> {
    /// The addresses of the services that have one, by container: the planned one, else the one that its container has,
    /// else a free one.
    pub(super) fn addresses(&mut self, services: &[CompleteService]) -> BTreeMap<String, Ipv4Addr> {
        let (plan, env) = (self.selection.plan, self.selection.env);
        let mut available = allocation::available(plan, env, self.selection.host, self.state);
        let mut found = BTreeMap::new();
        let mut without = Vec::new();
        for service in services.iter().filter(|service| service.is_on_lan) {
            let address = service
                .address
                .or_else(|| allocation::sticky(plan, env, service, self.state))
                .or_else(|| available.next());
            match address {
                Some(address) => {
                    found.insert(service.container(), address);
                }
                None => without.push(service.name.clone()),
            }
        }
        without.dedup();
        self.blocked.extend(without.into_iter().map(|name| {
            let why = Diagnostic::error(
                format!(
                    "the range {} of environment `{}` has no free address left for `{name}`",
                    env.range, env.name
                ),
                "widen the range, or take services away",
            );
            (name, why)
        }));
        found
    }

    /// Says when nobody could ask the LAN whether new addresses are taken.
    pub(super) fn warn_of_silence(&mut self) {
        if self.state.lan_unasked {
            self.diff.warn(
                "the LAN was not asked whether somebody has the new addresses: not permitted",
                "run homelab as root",
            );
        }
    }

    /// What keeps a service from an address: somebody who is not among the `moving` has it and keeps it, or the network, made
    /// by an older homelab, keeps it back.
    pub(super) fn check_address(
        &self,
        address: Ipv4Addr,
        moving: &BTreeSet<&str>,
    ) -> Option<Diagnostic> {
        let env = self.selection.env;
        let network = self.state.docker.network(&env.network());
        let mut pools = network.into_iter().flat_map(|network| &network.pools);
        if pools.any(|pool| pool.auxiliary.contains(&address)) {
            let (network, env) = (env.network(), &env.name);
            return Some(Diagnostic::error(
                format!("network `{network}`, made by an older homelab, keeps {address} back"),
                format!(
                    "have it made anew: `homelab env-down --env {env}`, then `homelab network-up` and `homelab env-up --env {env}`"
                ),
            ));
        }
        let holder = self.state.docker.containers.iter().find(|container| {
            let holds = container
                .networks
                .values()
                .any(|endpoint| endpoint.address == Some(address));
            holds && !moving.contains(container.name.as_str())
        });
        let Some(holder) = holder.filter(|_| !self.freed.contains_key(&address)) else {
            return lan::taken(self.selection.plan, address, self.state);
        };
        let (whose, hint) = self.how_to_free(holder);
        Some(Diagnostic::error(
            format!("container `{}`{whose} has {address} already", holder.name),
            hint,
        ))
    }

    /// Whose a container is that has an address which is planned for another, and what takes it away from there.
    fn how_to_free(&self, holder: &Container) -> (String, String) {
        let Selection { plan, host, .. } = self.selection;
        let name = &holder.name;
        let Some((env, service)) = holder.service() else {
            let hint = format!("remove it with `docker rm -f {name}`, or plan another address");
            return (String::new(), hint);
        };
        let Some(planned) = plan.env(env) else {
            return (
                format!(" of environment `{env}`, which the plan does not have,"),
                format!("take it away: `homelab env-down --env {env}`"),
            );
        };
        let mut services = planned.services.iter();
        if services.any(|one| one.name == service && one.host == host.name) {
            return (
                format!(" of service `{service}` of environment `{env}`"),
                format!(
                    "`homelab env-up --env {env} {service}` gives it the address that is planned for it"
                ),
            );
        }
        (
            format!(" of service `{service}`, which the plan does not have on this host,"),
            format!("remove it: `homelab env-up --env {env} --remove-orphans`"),
        )
    }

    /// Adds to what is blocked who needs a blocked service that does not run already.
    pub(super) fn block_dependents(&mut self, services: &[CompleteService]) {
        let runs = |name: &str| {
            let env = &self.selection.env.name;
            let mut all = self.state.docker.instances(env, name);
            all.any(Container::is_running)
        };
        loop {
            let is_blocked = |name: &str| self.blocked.iter().any(|(blocked, _)| blocked == name);
            let more = services.iter().find_map(|service| {
                if is_blocked(&service.name) {
                    return None;
                }
                let needs = service.depends_on.iter().find(|dependency| {
                    let name = dependency.service.get_ref();
                    dependency.is_required && is_blocked(name) && !runs(name)
                })?;
                Some((service.name.clone(), needs.service.get_ref().clone()))
            });
            let Some((name, needed)) = more else { return };
            let why = Diagnostic::error(
                format!("service `{name}` depends on `{needed}`, which cannot be started"),
                format!("it comes up with the next `homelab env-up` when `{needed}` can"),
            );
            self.blocked.push((name, why));
        }
    }

    /// Whether the old container may live until the new one starts: nobody else has the new one's address until then, and
    /// nobody waits for the old one's.
    pub(super) fn may_wait(
        &self,
        old: &Container,
        address: Option<Ipv4Addr>,
        moving: &BTreeSet<String>,
    ) -> bool {
        let held = allocation::current(old, self.selection.env);
        if held == address {
            return true;
        }
        if held.is_some_and(|held| self.wanted.contains(&held)) {
            return false;
        }
        let all = self.state.docker.containers.iter();
        let mut others = all.filter(|other| other.name != old.name && moving.contains(&other.name));
        !others.any(|other| allocation::current(other, self.selection.env) == address)
    }
}
